"""Scales and shifts folded into the weights beside them.

y = s * conv(x, w, b) + t, with s and t constant per channel, is conv(x, s * w, s * b + t): that is
what batch normalisation, scaled residual branches and input normalisation come to. In front of a
contraction a scale folds into the weights' input channels, and a shift into the bias where no
padding would have to be shifted too. Sums are made in f64 and must stay finite in the type of
the weights.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onefold.ir.graph import Array, Builder, Node, Value
from onefold.ops.base import Refusal
from onefold.ops.conv import Conv, ConvTranspose
from onefold.ops.elementwise import Add, Div, Mul, Sub
from onefold.ops.matmul import Gemm, MatMul
from onefold.passes.match import finite, is_float, op_of, producer
from onefold.passes.rewrite import Patch, Scope, rewrite

LARGEST = 1 << 24  # elements of weights that are worth a copy


class Affine:
    """v = scale * inner + shift per index of one axis; `node` is the one that computes it."""

    def __init__(self, node: Node, inner: Value, scale: Array | None, shift: Array | None) -> None:
        self.node, self.inner, self.scale, self.shift = node, inner, scale, shift


def affine_of(n: Node, i: int, axis: int) -> Affine | None:
    """Reads a node as scale * input i + shift along an axis of the result."""
    x, v = n.arg(i), n.arg(1 - i)
    shape = n.outputs[0].tensor.shape
    if v.data is None or not is_float(v) or x.is_const or x.tensor.shape != shape:
        return None
    c = per_channel(v.data, len(shape), axis, shape[axis])
    if c is None:
        return None
    op = n.op
    if isinstance(op, Mul):
        return Affine(n, x, c, None)
    if isinstance(op, Div):
        if i == 1 or not c.all():
            return None
        return Affine(n, x, 1 / c, None)
    if isinstance(op, Add):
        return Affine(n, x, None, c)
    return Affine(n, x, None, -c) if i == 0 else Affine(n, x, np.full(1, -1.0), c)


def per_channel(a: Array, rank: int, axis: int, channels: object) -> Array | None:
    """The finite f64 vector that a constant is along an axis ([1] where it is one number)."""
    if a.ndim > rank:
        return None
    shape = (1,) * (rank - a.ndim) + a.shape
    if any(d != 1 for k, d in enumerate(shape) if k != axis) or shape[axis] not in (1, channels):
        return None
    wide = a.reshape(-1).astype(np.float64)
    return wide if np.isfinite(wide).all() and wide.size else None


def sides(n: Node, see: Scope, axis: int, *kinds: type) -> tuple[Affine, Node] | None:
    """An affine node on the sole result of one of these contractions."""
    for i in (0, 1):
        inner = producer(n.arg(i), *kinds)
        if inner is not None and see.sole(n.arg(i)) and n.arg(i).shape:
            found = affine_of(n, i, axis % len(n.arg(i).shape))
            if found is not None:
                return found, inner
    return None


def weights(n: Node) -> Array | None:
    """The weights of a contraction in f64, where they are constant floats of a fair size."""
    w = n.const(1)
    if w is None or not is_float(n.arg(1)) or w.size > LARGEST or not is_float(n.outputs[0]):
        return None
    return w.astype(np.float64)


def new_bias(b: Array | None, a: Affine, channels: int) -> Array | None:
    """s * b + t, None where nothing is added."""
    if b is None and a.shift is None:
        return None
    out = np.zeros(channels) if b is None else b.reshape(-1).astype(np.float64)
    if a.scale is not None:
        out = out * a.scale
    return np.broadcast_to(out + (0 if a.shift is None else a.shift), (channels,))


def constant(b: Builder, like: Value, a: Array | None) -> Value | None:
    """A constant of the element type of `like`. Raises Refusal where it would not be finite."""
    if a is None:
        return None
    with np.errstate(all="ignore"):
        cast = np.ascontiguousarray(a).astype(like.dtype.numpy)
    if not finite(cast):
        raise Refusal("the weights would not stay finite")
    return b.const(cast, name=like.name or "w")


def rebuilt(
    covers: tuple[Node, ...], make: Callable[[Builder, list[Value | None]], Value],
    like: Value, *arrays: Array | None,
) -> Patch:  # fmt: skip
    """A patch that makes one value with new constants."""
    return Patch(covers, lambda b: [make(b, [constant(b, like, a) for a in arrays])])


@rewrite("affine-after-conv", Mul, Add, Sub, Div)
def after_conv(n: Node, see: Scope) -> Patch | None:
    found = sides(n, see, 1, Conv, ConvTranspose)
    if found is None:
        return None
    a, conv = found
    w, bias = weights(conv), conv.const(2)
    if w is None or (conv.input(2) is not None and bias is None):
        return None
    channels = n.outputs[0].shape[1]
    if not isinstance(channels, int):
        return None
    if a.scale is not None:
        s = np.broadcast_to(a.scale, (channels,))
        w = w * (s.reshape(-1, *[1] * (w.ndim - 1)) if isinstance(conv.op, Conv)
                 else _transposed_scale(s, conv, w))  # fmt: skip
    return rebuilt(
        (n, conv), lambda b, c: b.op(conv.op, conv.arg(0), c[0], c[1]),
        conv.arg(1), w, new_bias(bias, a, channels),
    )  # fmt: skip


def _transposed_scale(s: Array, conv: Node, w: Array) -> Array:
    """Output channels in the shape of the weights [C, M / group, *kernel] of a ConvTranspose."""
    g = op_of(conv, ConvTranspose).group
    by_group = s.reshape(g, w.shape[1])
    per_input = np.repeat(by_group, w.shape[0] // g, axis=0)
    return per_input.reshape(*w.shape[:2], *[1] * (w.ndim - 2))


@rewrite("scale-after-matmul", Mul, Div)
def after_matmul(n: Node, see: Scope) -> Patch | None:
    """A shift after a MatMul stays: it is the bias, which the planner puts into the epilogue."""
    found = sides(n, see, -1, MatMul)
    if found is None:
        return None
    a, product = found
    w = weights(product)
    if w is None or w.ndim < 2 or a.scale is None:
        return None
    return rebuilt(
        (n, product), lambda b, c: b.op(MatMul(), product.arg(0), c[0]),
        product.arg(1), w * a.scale,
    )  # fmt: skip


@rewrite("affine-after-gemm", Mul, Add, Sub, Div)
def after_gemm(n: Node, see: Scope) -> Patch | None:
    found = sides(n, see, -1, Gemm)
    if found is None:
        return None
    a, product = found
    op, w, bias = op_of(product, Gemm), weights(product), product.const(2)
    columns = n.outputs[0].shape[1]
    if w is None or not isinstance(columns, int) or op.beta != 1:
        return None
    if product.input(2) is not None and (bias is None or bias.size not in (1, columns)
                                         or (bias.ndim == 2 and bias.shape[0] != 1)):  # fmt: skip
        return None
    if a.scale is not None:
        w = w * (a.scale.reshape(-1, 1) if op.transB else a.scale)
    return rebuilt(
        (n, product), lambda b, c: b.op(op, product.arg(0), c[0], c[1]),
        product.arg(1), w, new_bias(bias, a, columns),
    )  # fmt: skip


# --- in front ---------------------------------------------------------------------------------


def before(n: Node, see: Scope, axis: int) -> Affine | None:
    """An affine node whose only reader is this contraction."""
    m = producer(n.arg(0), Mul, Add, Sub, Div)
    if m is None or not see.sole(n.arg(0)):
        return None
    for i in (0, 1):
        found = affine_of(m, i, axis % len(n.arg(0).shape))
        if found is not None:
            return found
    return None


@rewrite("affine-before-conv", Conv)
def before_conv(n: Node, see: Scope) -> Patch | None:
    a, w, bias = before(n, see, 1), weights(n), n.const(2)
    if a is None or w is None or (n.input(2) is not None and bias is None):
        return None
    op = op_of(n, Conv)
    if a.shift is not None and any(p != 0 for p in op.pads):
        return None
    channels = w.shape[1] * op.group

    def spread(v: Array) -> Array:
        """A value per input channel in the shape of the weights [M, C / group, *kernel]."""
        by_group = np.broadcast_to(v, (channels,)).reshape(op.group, w.shape[1])
        return np.repeat(by_group, w.shape[0] // op.group, axis=0).reshape(
            *w.shape[:2], *[1] * (w.ndim - 2))  # fmt: skip

    total = bias
    if a.shift is not None:
        added = (w * spread(a.shift)).reshape(w.shape[0], -1).sum(1)
        total = added if bias is None else bias.astype(np.float64) + added
    scaled = w if a.scale is None else w * spread(a.scale)
    return rebuilt(
        (n, a.node), lambda b, c: b.op(op, a.inner, c[0], c[1]), n.arg(1), scaled, total
    )


@rewrite("affine-before-matmul", MatMul)
def before_matmul(n: Node, see: Scope) -> Patch | None:
    if not n.arg(0).shape:
        return None
    a, w = before(n, see, -1), weights(n)
    if a is None or w is None or w.ndim != 2:
        return None
    scaled = w if a.scale is None else w * a.scale.reshape(-1, 1)
    shift = None if a.shift is None else np.broadcast_to(a.shift, w.shape[:1]) @ w

    def make(b: Builder, c: list[Value | None]) -> Value:
        y = b.op(MatMul(), a.inner, c[0])
        return y if c[1] is None else b.op(Add(), y, c[1])

    return rebuilt((n, a.node), make, n.arg(1), scaled, shift)


def added(covers: tuple[Node, ...], x: Value, like: Value, bias: Array) -> Patch:
    return rebuilt(covers, lambda b, c: b.op(Add(), x, c[0]), like, bias)


@rewrite("bias-into-bias", Add)
def bias_into_bias(n: Node, see: Scope) -> Patch | None:
    """(x + c) + d of constants as one constant, where x is a contraction's result."""
    for i in (0, 1):
        inner = producer(n.arg(i), Add)
        d = n.arg(1 - i)
        if inner is None or d.data is None or not is_float(d) or not see.sole(n.arg(i)):
            continue
        for j in (0, 1):
            c, x = inner.const(1 - j), inner.arg(j)
            if c is None or producer(x, MatMul, Conv) is None or x.shape != n.outputs[0].shape:
                continue
            if np.broadcast(c, d.data).size > LARGEST:
                continue
            both = c.astype(np.float64) + d.data.astype(np.float64)
            return added((n, inner), x, d, both)
    return None


RULES = (
    after_conv, after_matmul, after_gemm, before_conv, before_matmul, bias_into_bias,
)  # fmt: skip

