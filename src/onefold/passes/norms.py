"""Normalisations and softmax that exporters spell with reductions.

Each pattern ends in the normalised value; scale and shift that follow are taken up afterwards, by
rules of their own, so that a normalisation without them is found too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onefold.ir.graph import Builder, Node, Value
from onefold.ops.elementwise import Add, Div, Mul, Pow, Sub
from onefold.ops.normalize import LayerNormalization, RMSNormalization
from onefold.ops.reduce import (
    ReduceLogSumExp,
    ReduceMax,
    ReduceMean,
    ReduceSum,
)
from onefold.ops.shape import Reshape
from onefold.ops.softmax import LogSoftmax, Softmax
from onefold.ops.unary import Exp, Log, Reciprocal, Sqrt
from onefold.passes.match import axes_from, is_float, number, producer
from onefold.passes.rewrite import Patch, Scope, rewrite

Normal = tuple[Value, float, tuple[int, ...], list[Node]]  # x, epsilon, axes, nodes


def reduced(v: Value, *kinds: Any) -> tuple[Node, tuple[int, ...]] | None:
    """The reduction (axes kept) that makes a value, and its axes."""
    n = producer(v, *kinds)
    op: Any = None if n is None else n.op
    if n is None or not op.keepdims:
        return None
    return n, axes_from(op.axes, len(n.arg(0).shape))


def trailing(axes: tuple[int, ...], rank: int) -> bool:
    return bool(axes) and axes == tuple(range(axes[0], rank))


# --- layer and root-mean-square normalisation ---------------------------------------------------


def squared(v: Value) -> tuple[Value, Node] | None:
    """(x, node) where v = x * x."""
    n = producer(v, Mul, Pow)
    if n is None:
        return None
    square = n.arg(0) is n.arg(1) if isinstance(n.op, Mul) else number(n.arg(1)) == 2
    return (n.arg(0), n) if square and n.arg(0).shape == v.shape else None


def mean_square(v: Value) -> tuple[Value, tuple[int, ...], list[Node]] | None:
    """(x, axes, nodes) where v is the mean of x * x."""
    found = reduced(v, ReduceMean)
    if found is None:
        return None
    square = squared(found[0].arg(0))
    return None if square is None else (square[0], found[1], [found[0], square[1]])


def deviation(v: Value) -> tuple[Value, float, tuple[int, ...], list[Node]] | None:
    """(x, epsilon, axes, nodes) where v = sqrt(mean(x * x) + epsilon)."""
    root = producer(v, Sqrt, Pow)
    if root is None or (isinstance(root.op, Pow) and number(root.arg(1)) != 0.5):
        return None
    total, eps, nodes = root.arg(0), 0.0, [root]
    add = producer(total, Add)
    if add is not None:
        i = 1 if add.arg(0).is_const else 0
        c = number(add.arg(1 - i))
        if c is None or c < 0 or add.arg(i).shape != v.shape:
            return None
        total, eps = add.arg(i), c
        nodes.append(add)
    found = mean_square(total)
    return None if found is None else (found[0], eps, found[1], nodes + found[2])


def inverse_deviation(v: Value) -> Normal | None:
    """(x, epsilon, axes, nodes) where v = 1 / sqrt(mean(x * x) + epsilon)."""
    n = v.producer
    found: Normal | None = None
    if n is None:
        return None
    if isinstance(n.op, Reciprocal):
        found = deviation(n.arg(0))
    elif isinstance(n.op, Div) and number(n.arg(0)) == 1:
        found = deviation(n.arg(1))
    elif isinstance(n.op, Pow) and number(n.arg(1)) == -0.5:
        found = _inverse_root(n)
    return None if found is None else (*found[:3], [n, *found[3]])


def normalised(n: Node) -> Normal | None:
    """(x, epsilon, axes, nodes) where n makes x / sqrt(mean(x * x) + epsilon)."""
    if isinstance(n.op, Div):
        found = deviation(n.arg(1))
        return (*found[:3], [n, *found[3]]) if found and found[0] is n.arg(0) else None
    for i in (0, 1):
        found = inverse_deviation(n.arg(i))
        if found is not None and found[0] is n.arg(1 - i):
            return (*found[:3], [n, *found[3]])
    return None


def _inverse_root(n: Node) -> Normal | None:
    """(x, epsilon, axes, nodes) of (mean(x * x) + epsilon) to the power of -1/2."""
    add = producer(n.arg(0), Add)
    if add is None:
        return None
    i = 1 if add.arg(0).is_const else 0
    c, found = number(add.arg(1 - i)), mean_square(add.arg(i))
    if c is None or c < 0 or found is None or add.arg(i).shape != n.outputs[0].shape:
        return None
    return found[0], c, found[1], [add, *found[2]]


def mean_taken_off(v: Value, axes: tuple[int, ...]) -> tuple[Value, list[Node]] | None:
    """(x, nodes) where v = x - mean(x) over the axes."""
    n = producer(v, Sub)
    mean = None if n is None else reduced(n.arg(1), ReduceMean)
    if n is None or mean is None or mean[0].arg(0) is not n.arg(0) or mean[1] != axes:
        return None
    return (n.arg(0), [n, mean[0]]) if n.arg(0).shape == v.shape else None


@rewrite("normalisation", Div, Mul)
def normalisation(n: Node, see: Scope) -> Patch | None:
    """Rows of mean square 1; where the mean was taken off before, rows of variance 1."""
    found = normalised(n)
    if found is None or not is_float(n.outputs[0]):
        return None
    x, eps, axes, nodes = found
    if not trailing(axes, len(x.shape)) or x.tensor != n.outputs[0].tensor:
        return None
    axis = axes[0] - len(x.shape)
    centred = mean_taken_off(x, axes)
    if centred is not None:
        covers = tuple(dict.fromkeys((*nodes, *centred[1])))
        return Patch(covers, lambda b: [b.op(LayerNormalization(axis, eps), centred[0])])
    covers = tuple(dict.fromkeys(nodes))
    return Patch(covers, lambda b: [b.op(RMSNormalization(axis, eps), x)])


def _shared(a: Node, b: Node) -> tuple[Value, Value, Value] | None:
    """(r, x, m) where a = x * r and b = m * r."""
    for i in (0, 1):
        for j in (0, 1):
            if a.arg(i) is b.arg(j):
                return a.arg(i), a.arg(1 - i), b.arg(1 - j)
    return None


def _gain(r: Value) -> tuple[Normal, Value | None] | None:
    """(normal, scale) where r = scale / sqrt(...), or without a scale."""
    found = inverse_deviation(r)
    if found is not None:
        return found, None
    n = producer(r, Mul)
    if n is None:
        return None
    for i in (0, 1):
        found = inverse_deviation(n.arg(i))
        if found is not None:
            return (*found[:3], [n, *found[3]]), n.arg(1 - i)
    return None


@rewrite("normalisation-multiplied-out", Add)
def multiplied_out(n: Node, see: Scope) -> Patch | None:
    """x * r + (shift - mean * r) with r = scale / sqrt(variance + eps), as TensorFlow has it."""
    for i in (0, 1):
        scaled, less = producer(n.arg(i), Mul), producer(n.arg(1 - i), Sub)
        product = None if less is None else producer(less.arg(1), Mul)
        if scaled is None or less is None or product is None:
            continue
        parts = _shared(scaled, product)
        gain = None if parts is None else _gain(parts[0])
        if parts is None or gain is None:
            continue
        x, mean = parts[1:]
        normal, scale = gain
        centred = mean_taken_off(normal[0], normal[2])
        if centred is None or centred[0] is not x or mean is not centred[1][0].arg(1):
            continue
        if x.tensor == n.outputs[0].tensor:
            covers = (n, scaled, less, product, *normal[3], *centred[1])
            return _rows(covers, x, normal, scale, less.arg(0))
    return None


def _rows(
    covers: Sequence[Node], x: Value, found: Normal, scale: Value | None, shift: Value
) -> Patch | None:
    """The layer normalisation of x with scale and shift, where all fits rows at the end."""
    rank, axes = len(x.shape), found[2]
    if not trailing(axes, rank):
        return None
    shape = x.shape[axes[0] :]
    if not all(v is None or fits_row(v, shape, rank) for v in (scale, shift)):
        return None
    op = LayerNormalization(axes[0] - rank, found[1])

    def build(b: Builder) -> list[Value]:
        args = [None if v is None else row_constant(b, v, shape) for v in (scale, shift)]
        return [b.op(op, x, *args)]

    return Patch(tuple(dict.fromkeys(covers)), build)


def row_constant(b: Builder, v: Value, shape: tuple[Any, ...]) -> Value:
    """A scale or shift in the shape of the rows that it belongs to."""
    if v.data is not None:
        wide = np.broadcast_to(v.data.reshape(v.data.shape[-len(shape):]), shape)
        return v if v.shape == shape else b.const(np.ascontiguousarray(wide), name=v.name)
    return v if v.shape == shape else b.op(Reshape(shape), v)


def fits_row(v: Value, shape: tuple[Any, ...], rank: int) -> bool:
    """Whether an operand is one number for each place of a row, the same for every row."""
    own = v.shape
    if len(own) > rank:
        return False
    lead, row = own[: -len(shape)], own[-len(shape) :]
    if any(d != 1 for d in lead):
        return False
    if v.is_const and all(isinstance(d, int) for d in shape):
        row = (1,) * (len(shape) - len(row)) + row
        return all(p in (1, q) for p, q in zip(row, shape, strict=True))
    return row == shape


def _taken(n: Node, see: Scope, last: int) -> tuple[Node, Value] | None:
    """The normalisation that a node scales or shifts, and by what."""
    for i in (0, 1):
        norm = producer(n.arg(i), LayerNormalization, RMSNormalization)
        if norm is None or not see.sole(n.arg(i)) or n.arg(i).shape != n.outputs[0].shape:
            continue
        op: Any = norm.op
        if op.stats or any(norm.input(k) is not None for k in range(last, 3)):
            continue
        v = n.arg(1 - i)
        rank = len(n.outputs[0].shape)
        if v.dtype is n.arg(i).dtype and fits_row(v, n.outputs[0].shape[op.axis % rank :], rank):
            return norm, v
    return None


@rewrite("scale-of-normalisation", Mul)
def scale_of(n: Node, see: Scope) -> Patch | None:
    found = _taken(n, see, 1)
    if found is None:
        return None
    norm, v = found
    op: Any = norm.op
    shape = n.outputs[0].shape[op.axis % len(n.outputs[0].shape) :]
    return Patch((n, norm), lambda b: [b.op(op, norm.arg(0), row_constant(b, v, shape))])


@rewrite("shift-of-normalisation", Add)
def shift_of(n: Node, see: Scope) -> Patch | None:
    found = _taken(n, see, 2)
    if found is None:
        return None
    norm, v = found
    op: Any = norm.op
    shape = n.outputs[0].shape[op.axis % len(n.outputs[0].shape) :]
    return Patch((n, norm), lambda b: [
        b.op(op, norm.arg(0), norm.input(1), row_constant(b, v, shape))
    ])  # fmt: skip


# --- softmax ----------------------------------------------------------------------------------


def consecutive(axes: tuple[int, ...]) -> bool:
    return bool(axes) and axes == tuple(range(axes[0], axes[-1] + 1))


def less_maximum(v: Value, axes: tuple[int, ...]) -> tuple[Value, list[Node]]:
    """(x, nodes) where v is x less its maximum along the axes; (v, []) where it is not."""
    n = producer(v, Sub)
    top = None if n is None else reduced(n.arg(1), ReduceMax)
    if n is None or top is None or top[1] != axes or top[0].arg(0) is not n.arg(0):
        return v, []
    return n.arg(0), [n, top[0]]


@rewrite("softmax", Div)
def softmax(n: Node, see: Scope) -> Patch | None:
    """exp(x) / sum(exp(x)), with the maximum taken off first or not: what overflows without it
    is right with it."""
    exp = producer(n.arg(0), Exp)
    total = reduced(n.arg(1), ReduceSum)
    if exp is None or total is None or total[0].arg(0) is not n.arg(0):
        return None
    axes = total[1]
    if not consecutive(axes) or not is_float(n.outputs[0]):
        return None
    x, more = less_maximum(exp.arg(0), axes)
    covers = (n, exp, total[0], *more)
    return Patch(covers, lambda b: [b.op(Softmax(axes[0], len(axes)), x)])


@rewrite("log-of-softmax", Log)
def log_of_softmax(n: Node, see: Scope) -> Patch | None:
    """Also where a probability would vanish: its logarithm then is finite."""
    inner = producer(n.arg(0), Softmax)
    if inner is None or not isinstance(inner.op, Softmax) or not see.sole(n.arg(0)):
        return None
    op = LogSoftmax(inner.op.axis, inner.op.span)
    return Patch((n, inner), lambda b: [b.op(op, inner.arg(0))])


@rewrite("log-softmax", Sub)
def log_softmax(n: Node, see: Scope) -> Patch | None:
    """x - log(sum(exp(x))), with or without the maximum taken off first."""
    whole = reduced(n.arg(1), ReduceLogSumExp)
    if whole is not None:
        nodes, axes, inside = [whole[0]], whole[1], whole[0].arg(0)
    else:
        log = producer(n.arg(1), Log)
        total = None if log is None else reduced(log.arg(0), ReduceSum)
        exp = None if total is None else producer(total[0].arg(0), Exp)
        if log is None or total is None or exp is None:
            return None
        nodes, axes, inside = [log, total[0], exp], total[1], exp.arg(0)
    if inside is not n.arg(0) or not consecutive(axes) or not is_float(n.outputs[0]):
        return None
    x, more = less_maximum(inside, axes)
    covers = (n, *nodes, *more)
    return Patch(covers, lambda b: [b.op(LogSoftmax(axes[0], len(axes)), x)])


RULES = (
    normalisation, multiplied_out, scale_of, shift_of, softmax, log_of_softmax, log_softmax,
)  # fmt: skip
