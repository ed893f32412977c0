"""Transposes move towards the outputs until they meet their inverse.

An operator that treats all places alike gives the same elements in whatever order the axes are:
f(transpose(x)) = transpose(f(x)), with f's own axes renamed. So a model whose every convolution
stands between two transposes (channels first inside, channels last outside) loses all of them but
those at its ends. A transpose only ever moves past a node, so there is an end to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from onefold.ir import dims
from onefold.ir.graph import Builder, Node, Value
from onefold.ops import registry
from onefold.ops.activation import PRelu
from onefold.ops.base import Op
from onefold.ops.conv import Conv
from onefold.ops.elementwise import Clip, Elementwise
from onefold.ops.matmul import Gemm, MatMul
from onefold.ops.movement import Concat, Expand, Slice, Tile, Transpose
from onefold.ops.nhwc_resize import ResizeBilinear2D, ResizeNearest2D
from onefold.ops.normalize import ChannelNormalization, LayerNormalization
from onefold.ops.pad import Pad
from onefold.ops.quant_arith import AffineDequantize, AffineQuantize
from onefold.ops.quantize import DequantizeLinear, QuantizeLinear
from onefold.ops.reduce import Reduction
from onefold.ops.resize import ResizeAxis
from onefold.ops.scan import ArgMax, ArgMin
from onefold.ops.shape import Reshape
from onefold.passes.match import op_of, producer
from onefold.passes.rewrite import Patch, Scope, rewrite

Perm = tuple[int, ...]
LARGEST = 1 << 24  # elements of weights that are worth a copy


def _classes(base: type[Any]) -> tuple[type[Op], ...]:
    return tuple(c for c in registry.by_name.values() if issubclass(c, base))


def inverse(perm: Sequence[int]) -> Perm:
    return tuple(int(p) for p in np.argsort(perm))


def perm_of(v: Value | None) -> Perm | None:
    n = producer(v, Transpose)
    return None if n is None else op_of(n, Transpose).perm


def source(v: Value) -> tuple[Node, Value]:
    """The transpose that makes a value, and what it takes."""
    n = v.producer
    assert n is not None
    return n, n.arg(0)


def then(b: Builder, perm: Perm, y: Value) -> Value:
    return y if perm == tuple(range(len(perm))) else b.op(Transpose(perm), y)


def typed(y: Value, like: Value) -> Value:
    """y with the scale of the value that it stands for in another order of axes."""
    y.type = replace(y.tensor, quant=like.quant)
    return y


def per_axis(n: Node) -> bool:
    return any(v.quant is not None and v.quant.per_axis for v in n.outputs)


# --- element by element -----------------------------------------------------------------------


def renamed(b: Builder, v: Value, perm: Perm) -> Value:
    """The operand v of an elementwise node, in the order of axes before the transpose."""
    rank = len(perm)
    if not v.shape:
        return v
    if len(v.shape) < rank:
        v = b.op(Reshape((1,) * (rank - len(v.shape)) + v.shape), v)
    if v.is_const or not is_free(v, perm):
        return b.op(Transpose(inverse(perm)), v)
    return b.op(Reshape(tuple(v.shape[p] for p in inverse(perm))), v)


def is_free(v: Value, perm: Perm) -> bool:
    """Whether the operand can be put in the other order without moving anything."""
    if v.is_const or all(d == 1 for d in v.shape):
        return True
    shape = (1,) * (len(perm) - len(v.shape)) + v.shape
    kept = [p for p in inverse(perm) if shape[p] != 1]
    return kept == sorted(kept)


def awaited(v: Value, perm: Perm, most: int = 16) -> bool:
    """Whether the inverse transpose follows for all readers, after few nodes that it moves past."""
    todo, seen = [v], set[int]()
    while todo:
        here = todo.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        if not here.uses or len(here.uses) > 4 or len(seen) > most:
            return False
        for n in here.uses:
            if isinstance(n.op, Transpose):
                if n.op.perm != inverse(perm):
                    return False
            elif isinstance(n.op, (Elementwise, Clip)) or takes_channels(n, here):
                todo.append(n.outputs[0])
            else:
                return False
    return True


def takes_channels(n: Node, x: Value) -> bool:
    """Whether a node treats every place of x alike, with its channels at the end."""
    if n.arg(0) is not x or len(x.shape) > 5:
        return False
    if isinstance(n.op, LayerNormalization):
        rank = len(x.shape)
        return not n.op.stats and n.op.axis % rank == rank - 1
    w = n.const(1) if isinstance(n.op, MatMul) else None
    return w is not None and w.ndim == 2 and x.dtype.is_float and 0 not in w.shape


def worth_it(n: Node, perm: Perm) -> bool:
    """Whether one operand may be transposed back so that the transpose after the node goes. Only
    where channels go last, or the inverse transposes would be moved back and forth for ever."""
    last = len(perm) > 3 and perm == (0, *range(2, len(perm)), 1)
    return last and awaited(n.outputs[0], perm)


@rewrite("transpose-past-elementwise", *_classes(Elementwise), Clip)
def past_elementwise(n: Node, see: Scope) -> Patch | None:
    perms = [p for p in map(perm_of, n.present()) if p is not None]
    if not perms or len(n.outputs) != 1 or per_axis(n):
        return None
    perm = perms[0]
    if len(perm) != len(n.outputs[0].shape):
        return None
    covers, others = [n], 0
    for v in n.present():
        if perm_of(v) == perm:
            if id(v) in see.pinned:
                return None
            covers.append(source(v)[0])
        elif not is_free(v, perm):
            others += 1
    if isinstance(n.op, PRelu) and len(n.arg(1).shape) != len(perm):
        return None
    if others and not (others == 1 and worth_it(n, perm)):
        return None

    def before(b: Builder, v: Value) -> Value:
        if perm_of(v) == perm:
            return source(v)[1]
        return v if isinstance(n.op, Clip) else renamed(b, v, perm)

    def build(b: Builder) -> list[Value]:
        args = [None if v is None else before(b, v) for v in n.inputs]
        return [b.op(Transpose(perm), typed(b.op(n.op, *args), n.outputs[0]))]

    return Patch(tuple(dict.fromkeys(covers)), build, (n,))


# --- operators with axes of their own ---------------------------------------------------------


def past(n: Node, see: Scope, make: Callable[[Perm], tuple[Op, Perm] | None]) -> Patch | None:
    """The operator on the untransposed input 0, and the transpose that then follows; make gives
    both for the transpose in front. Where an output holds on to that one, nothing is won."""
    perm = perm_of(n.input(0))
    if perm is None or id(n.arg(0)) in see.pinned or per_axis(n) or len(n.outputs) != 1:
        return None
    made = make(perm)
    if made is None:
        return None
    op, after = made
    inner, x = source(n.arg(0))

    def build(b: Builder) -> list[Value]:
        return [then(b, after, typed(b.op(op, x, *n.inputs[1:]), n.outputs[0]))]

    return Patch((n, inner), build, (n,))


def without(perm: Perm, axes: Sequence[int]) -> Perm:
    """The order of the axes that are left when some of the result's are gone."""
    left = [p for k, p in enumerate(perm) if k not in axes]
    order = sorted(left)
    return tuple(order.index(p) for p in left)


@rewrite("transpose-past-reduction", *_classes(Reduction))
def past_reduction(n: Node, see: Scope) -> Patch | None:
    op: Any = n.op

    def make(perm: Perm) -> tuple[Op, Perm]:
        axes = range(len(perm)) if op.axes is None else [a % len(perm) for a in op.axes]
        own = tuple(sorted(perm[a] for a in axes))
        return replace(op, axes=own), perm if op.keepdims else without(perm, list(axes))

    return past(n, see, make)


@rewrite("transpose-past-position", ArgMax, ArgMin)
def past_position(n: Node, see: Scope) -> Patch | None:
    op: Any = n.op

    def make(perm: Perm) -> tuple[Op, Perm]:
        axis = op.axis % len(perm)
        return replace(op, axis=perm[axis]), perm if op.keepdims else without(perm, [axis])

    return past(n, see, make)


@rewrite("transpose-past-resize", ResizeAxis)
def past_resize(n: Node, see: Scope) -> Patch | None:
    op = op_of(n, ResizeAxis)
    return past(n, see, lambda p: (replace(op, axis=p[op.axis % len(p)]), p))


@rewrite("transpose-past-image-resize", ResizeBilinear2D, ResizeNearest2D)
def past_image_resize(n: Node, see: Scope) -> Patch | None:
    """Channels first, the operator itself looks for the image behind them."""
    op: Any = n.op
    if op.first != 1:
        return None
    return past(n, see, lambda p: (replace(op, first=2), p) if p == (0, 2, 3, 1) else None)


def reordered(values: Sequence[Any], perm: Perm) -> tuple[Any, ...]:
    """Values given for the transposed axes, in the order of the axes before."""
    return tuple(values[k] for k in inverse(perm))


@rewrite("transpose-past-channels", LayerNormalization, MatMul)
def past_channels(n: Node, see: Scope) -> Patch | None:
    """What mixes the channels of every place, where they are wanted first again."""
    perm, op = perm_of(n.input(0)), n.op
    if perm is None or not takes_channels(n, n.arg(0)) or not worth_it(n, perm):
        return None
    if isinstance(op, LayerNormalization):
        return past(n, see, lambda p: (ChannelNormalization(op.epsilon), p))
    inner, x = source(n.arg(0))
    if id(n.arg(0)) in see.pinned:
        return None

    def build(b: Builder) -> list[Value]:
        w = n.const(1)
        assert w is not None
        kernel = np.ascontiguousarray(w.T).reshape(*w.shape[::-1], *(1 for _ in perm[2:]))
        y = b.op(Conv(), x, b.const(kernel, name=n.arg(1).name))
        return [b.op(Transpose(perm), typed(y, n.outputs[0]))]

    return Patch((n, inner), build, (n,))


@rewrite("transpose-past-movement", Pad, Slice, Tile, Expand)
def past_movement(n: Node, see: Scope) -> Patch | None:
    def make(p: Perm) -> tuple[Op, Perm] | None:
        op = n.op
        if isinstance(op, Pad):
            return replace(op, before=reordered(op.before, p), after=reordered(op.after, p)), p
        if isinstance(op, Tile):
            return replace(op, repeats=reordered(op.repeats, p)), p
        if isinstance(op, Slice):
            return Slice(*(reordered(x, p) for x in (op.starts, op.sizes, op.steps))), p
        assert isinstance(op, Expand)
        if len(op.shape) != len(p):
            return None
        return replace(op, shape=reordered(op.shape, p)), p

    return past(n, see, make)


@rewrite(
    "transpose-past-quantize", QuantizeLinear, DequantizeLinear, AffineQuantize, AffineDequantize
)
def past_quantize(n: Node, see: Scope) -> Patch | None:
    op: Any = n.op
    if getattr(op, "block_size", 0):
        return None
    if isinstance(op, AffineQuantize):
        return past(n, see, lambda p: (op, p))
    return past(n, see, lambda p: (replace(op, axis=p[op.axis % len(p)]) if p else op, p))


@rewrite("transpose-past-concat", Concat)
def past_concat(n: Node, see: Scope) -> Patch | None:
    perms = [p for p in map(perm_of, n.present()) if p is not None]
    if not perms or per_axis(n):
        return None
    perm = perms[0]
    covers, others = [n], 0
    for v in n.present():
        if perm_of(v) == perm and id(v) not in see.pinned:
            covers.append(source(v)[0])
        elif not v.is_const:
            others += 1
    if others and not (others < len(covers) - 1 and worth_it(n, perm)):
        return None
    axis = perm[op_of(n, Concat).axis % len(perm)]
    taken = {id(m) for m in covers}

    def build(b: Builder) -> list[Value]:
        parts = [
            source(v)[1] if id(v.producer) in taken else b.op(Transpose(inverse(perm)), v)
            for v in n.present()
        ]
        return [b.op(Transpose(perm), typed(b.op(Concat(axis), *parts), n.outputs[0]))]

    return Patch(tuple(dict.fromkeys(covers)), build, (n,))


# --- reshapes -----------------------------------------------------------------------------------

Run = tuple[range, range]


def runs_of(a: dims.Shape, b: dims.Shape) -> list[Run] | None:
    """Runs of axes of a and b that hold the same elements, as short as they can be; axes of
    size 1 are runs of their own. None where sizes are not known well enough."""
    out: list[Run] = []
    i = j = 0
    while i < len(a) or j < len(b):
        if i < len(a) and j < len(b) and a[i] == b[j]:
            end = (i + 1, j + 1)
        elif i < len(a) and a[i] == 1:
            end = (i + 1, j)
        elif j < len(b) and b[j] == 1:
            end = (i, j + 1)
        else:
            found = _run(a, b, i, j)
            if found is None:
                return None
            end = found
        out.append((range(i, end[0]), range(j, end[1])))
        i, j = end
    return out


def _run(a: dims.Shape, b: dims.Shape, i: int, j: int) -> tuple[int, int] | None:
    """Where the first runs of equal products from i and j on end."""
    p = q = 1
    while i < len(a) or j < len(b):
        first = i < len(a) and (p <= q or j == len(b))
        size = a[i] if first else b[j] if j < len(b) else None
        if not isinstance(size, int) or size < 1:
            return None
        if first:
            p, i = p * size, i + 1
        else:
            q, j = q * size, j + 1
        if p == q:
            return i, j
    return None


@rewrite("transpose-past-reshape", Reshape)
def past_reshape(n: Node, see: Scope) -> Patch | None:
    """A reshape that keeps together what the transpose keeps together."""
    perm = perm_of(n.input(0))
    x, out = n.arg(0), n.outputs[0].shape
    runs = None if perm is None else runs_of(x.shape, out)
    if perm is None or runs is None or x.quant is not None or id(x) in see.pinned:
        return None
    inner, origin = source(x)
    placed: list[tuple[int, range]] = []
    last = -1
    for own, new in runs:
        at = [perm[k] for k in own if x.shape[k] != 1]
        if not _together(at, origin.shape):
            return None
        last = at[-1] if at else last
        placed.append((last, new))
    placed.sort(key=lambda p: p[0])  # stable: new axes of size 1 stay behind their neighbour
    axes = [k for _, new in placed for k in new]
    shape = tuple(out[k] for k in axes)

    def build(b: Builder) -> list[Value]:
        return [then(b, inverse(axes), b.op(Reshape(shape), origin))]

    return Patch((n, inner), build, (n,))


def _together(at: Sequence[int], shape: dims.Shape) -> bool:
    """Whether axes come in order with nothing but axes of size 1 between them."""
    return all(
        p < q and all(shape[k] == 1 for k in range(p + 1, q))
        for p, q in itertools.pairwise(at)
    )


@rewrite("transpose-into-weights", MatMul, Gemm)
def into_weights(n: Node, see: Scope) -> Patch | None:
    """Flattened channels-last features times constant weights: the weights' rows change places."""
    flat = producer(n.arg(0), Reshape)
    perm = None if flat is None else perm_of(flat.arg(0))
    w = n.const(1)
    if flat is None or not perm or perm[0] != 0 or w is None or w.ndim != 2 or w.size > LARGEST:
        return None
    op: Any = n.op
    if isinstance(op, Gemm) and op.transA:
        return None
    rows = isinstance(op, MatMul) or not op.transB
    inner, x = source(flat.arg(0))
    shape, out = flat.arg(0).shape, flat.outputs[0].shape
    sizes = [d for d in shape[1:] if isinstance(d, int)]
    if len(out) != 2 or out[0] != shape[0] or len(sizes) != len(shape) - 1:
        return None
    if w.shape[0 if rows else 1] != dims.product(sizes) or not see.sole(n.arg(0)):
        return None
    back = tuple(p - 1 for p in inverse(perm)[1:])

    def build(b: Builder) -> list[Value]:
        table = w if rows else w.T
        moved = table.reshape(*sizes, -1).transpose(*back, len(sizes)).reshape(table.shape)
        c = b.const(np.ascontiguousarray(moved if rows else moved.T), name=n.arg(1).name)
        return [b.op(op, b.op(Reshape(out), x), c, *n.inputs[2:])]

    return Patch((n, flat, inner), build, (n, flat))


RULES = (
    past_elementwise, past_reduction, past_position, past_resize, past_image_resize,
    past_channels, past_movement, past_quantize, past_concat, past_reshape, into_weights,
)  # fmt: skip
