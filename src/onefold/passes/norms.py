"""Normalisations and softmax that exporters spell with reductions.

Each pattern ends in the normalised value; scale and shift that follow are taken up afterwards, by
rules of their own, so that a normalisation without them is found too.
"""

from __future__ import annotations

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


Normal = tuple[Value, float, tuple[int, ...], list[Node]]


def normalised(n: Node) -> Normal | None:
    """(x, epsilon, axes, nodes) where n makes x / sqrt(mean(x * x) + epsilon)."""
    if isinstance(n.op, Div):
        found = deviation(n.arg(1))
        return (*found[:3], [n, *found[3]]) if found and found[0] is n.arg(0) else None
    for i in (0, 1):
        inverse, nodes = n.arg(i).producer, [n]
        if inverse is None:
            continue
        nodes.append(inverse)
        if isinstance(inverse.op, Reciprocal):
            found = deviation(inverse.arg(0))
        elif isinstance(inverse.op, Div) and number(inverse.arg(0)) == 1:
            found = deviation(inverse.arg(1))
        elif isinstance(inverse.op, Pow) and number(inverse.arg(1)) == -0.5:
            found = _inverse_root(inverse)
        else:
            continue
        if found is not None and found[0] is n.arg(1 - i):
            return (*found[:3], [*nodes, *found[3]])
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
    centred = producer(x, Sub)
    mean = None if centred is None else reduced(centred.arg(1), ReduceMean)
    if centred is not None and mean is not None:
        source = centred.arg(0)
        if mean[0].arg(0) is source and mean[1] == axes and source.shape == x.shape:
            covers = tuple(dict.fromkeys((*nodes, centred, mean[0])))
            return Patch(covers, lambda b: [b.op(LayerNormalization(axis, eps), source)])
    covers = tuple(dict.fromkeys(nodes))
    return Patch(covers, lambda b: [b.op(RMSNormalization(axis, eps), x)])


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
    normalisation, scale_of, shift_of, softmax, log_of_softmax, log_softmax,
)  # fmt: skip
