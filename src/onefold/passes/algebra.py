"""Identities of arithmetic, movement and limits.

NaN and infinities keep their meaning, integers wrap as before; only the sign of a zero may be
lost (x + 0 is x).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onefold.ir import dims, dtypes
from onefold.ir.dtypes import DType
from onefold.ir.graph import Array, Builder, Node, Value
from onefold.ops.activation import Relu
from onefold.ops.base import Op
from onefold.ops.cast import Cast, Identity
from onefold.ops.elementwise import (
    Add,
    Clip,
    Div,
    Max,
    Mean,
    Min,
    Mul,
    Pow,
    Sub,
    Sum,
    TrailingOnes,
)
from onefold.ops.logic import Not, Where
from onefold.ops.movement import Concat, Expand, Slice, Tile, Transpose
from onefold.ops.pad import Pad
from onefold.ops.reduce import ReduceMax, ReduceMean, ReduceMin, ReduceProd, ReduceSum
from onefold.ops.shape import Reshape
from onefold.ops.unary import Abs, Neg
from onefold.passes.match import axes_from, is_float, is_number, number, op_of, producer
from onefold.passes.rewrite import Patch, Scope, rewrite


def instead(covers: Sequence[Node], v: Value) -> Patch:
    """A value that is already there takes the place of the first node's only result."""
    return Patch(tuple(covers), lambda b: [v])


def keeps_type(n: Node, v: Value) -> bool:
    out = n.outputs[0].tensor
    return v.tensor.shape == out.shape and v.tensor.dtype is out.dtype


@rewrite("identity", Identity)
def identity(n: Node, see: Scope) -> Patch | None:
    return instead([n], n.arg(0))


NEUTRAL: dict[type[Op], tuple[float, bool]] = {
    Add: (0.0, True), Sub: (0.0, False), Mul: (1.0, True), Div: (1.0, False), Pow: (1.0, False),
}  # fmt: skip


@rewrite("neutral-element", *NEUTRAL)
def neutral_element(n: Node, see: Scope) -> Patch | None:
    """x + 0, x - 0, x * 1, x / 1, x to the power of 1, where nothing is broadcast."""
    wanted, commutes = NEUTRAL[type(n.op)]
    for i, j in ((0, 1), (1, 0))[: 1 + commutes]:
        if is_number(n.arg(j), wanted) and keeps_type(n, n.arg(i)):
            return instead([n], n.arg(i))
    return None


@rewrite("sole-operand", Sum, Min, Max, Mean, Concat)
def sole_operand(n: Node, see: Scope) -> Patch | None:
    return instead([n], n.arg(0)) if len(n.inputs) == 1 else None


@rewrite("sum-of-two", Sum)
def sum_of_two(n: Node, see: Scope) -> Patch | None:
    if len(n.inputs) != 2:
        return None
    return Patch((n,), lambda b: [b.op(Add(), *n.inputs)])


@rewrite("double-negation", Neg, Not)
def double_negation(n: Node, see: Scope) -> Patch | None:
    inner = producer(n.arg(0), type(n.op))
    return None if inner is None else instead([n, inner], inner.arg(0))


@rewrite("idempotent", Relu, Abs)
def idempotent(n: Node, see: Scope) -> Patch | None:
    inner = producer(n.arg(0), type(n.op))
    return None if inner is None else instead([n, inner], n.arg(0))


def exact_in(a: DType, b: DType) -> bool:
    """Whether every value of type a, infinities and NaN included, is one of type b."""
    if a is b:
        return True
    if a is dtypes.b1:
        return b.is_int or (b.is_float and b.bits >= 16)
    if a.is_int and b.is_int:
        return b.lo <= a.lo and a.hi <= b.hi
    digits = {dtypes.f64: 53, dtypes.f32: 24, dtypes.f16: 11, dtypes.bf16: 8}
    if b not in digits:
        return False
    if a.is_int:
        return a.bits - (a.kind == "int") <= digits[b] and (b is not dtypes.f16 or a.bits <= 11)
    return a in digits and {a, b} != {dtypes.f16, dtypes.bf16} and digits[a] <= digits[b]


@rewrite("cast-to-same", Cast)
def cast_to_same(n: Node, see: Scope) -> Patch | None:
    return instead([n], n.arg(0)) if keeps_type(n, n.arg(0)) else None


@rewrite("cast-chain", Cast)
def cast_chain(n: Node, see: Scope) -> Patch | None:
    """The first of two casts loses nothing: the second can take its input."""
    inner = producer(n.arg(0), Cast)
    if inner is None:
        return None
    x, middle, to = inner.arg(0), inner.outputs[0].dtype, n.outputs[0].dtype
    plain = x.dtype.is_int == middle.is_int or to.is_float or exact_in(x.dtype, to)
    if not exact_in(x.dtype, middle) or not plain or x.dtype is dtypes.b1:
        return None
    return Patch((n, inner), lambda b: [b.op(n.op, x)])


# --- powers, divisions ---------------------------------------------------------------------------


def reciprocals(a: Array) -> Array | None:
    """1 / a where every element is a power of two whose reciprocal is a normal number."""
    with np.errstate(all="ignore"):
        fraction, _ = np.frexp(np.abs(a.astype(np.float64)))
        out = (1 / a.astype(np.float64)).astype(a.dtype)
        size = np.abs(out.astype(np.float64))
    kind = dtypes.of(a.dtype)
    least = {dtypes.f64: -1022, dtypes.f32: -126, dtypes.f16: -14, dtypes.bf16: -126}.get(kind)
    if least is None or not (fraction == 0.5).all() or not np.isfinite(size).all():
        return None
    return out if (size >= 2.0**least).all() else None


@rewrite("exact-reciprocal", Div)
def exact_reciprocal(n: Node, see: Scope) -> Patch | None:
    """Division by powers of two as multiplication, which gives the very same numbers."""
    by = n.const(1)
    if by is None or n.arg(0).is_const or not is_float(n.arg(1)) or not by.size:
        return None
    inverse = reciprocals(by)
    if inverse is None:
        return None
    return Patch((n,), lambda b: [b.op(Mul(), n.arg(0), b.const(inverse))])


@rewrite("square", Pow)
def square(n: Node, see: Scope) -> Patch | None:
    """x to the power of 2 as x * x; the exponent's shape must not widen x."""
    if number(n.input(1)) != 2 or not keeps_type(n, n.arg(0)):
        return None
    return Patch((n,), lambda b: [b.op(Mul(), n.arg(0), n.arg(0))])


# --- limits -------------------------------------------------------------------------------------


def limits(n: Node) -> tuple[float, float] | None:
    """The interval that a Relu or a Clip with constant bounds maps to, if it is one."""
    if isinstance(n.op, Relu):
        return 0.0, math.inf
    low, high = n.input(1), n.input(2)
    a = -math.inf if low is None else number(low)
    c = math.inf if high is None else number(high)
    return None if a is None or c is None or not a <= c else (a, c)


def clipped(b: Builder, x: Value, low: float, high: float) -> Value:
    """x limited to an interval, with the smallest operator that does it."""
    if low == 0 and high == math.inf:
        return b.op(Relu(), x)
    lo = None if low == -math.inf else b.const(low, x.dtype)
    hi = None if high == math.inf else b.const(high, x.dtype)
    return x if lo is None and hi is None else b.op(Clip(), x, lo, hi)


@rewrite("limits", Relu, Clip)
def chained_limits(n: Node, see: Scope) -> Patch | None:
    """One limit after another is one limit; a Clip may be a Relu or nothing."""
    here = limits(n)
    inner = producer(n.arg(0), Relu, Clip)
    before = None if inner is None else limits(inner)
    big = 1 << 53  # integers beyond it are not exact as floats
    if here is None or any(abs(v) > big for v in here if math.isfinite(v)):
        return None
    if inner is None or before is None or any(abs(v) > big for v in before if math.isfinite(v)):
        positive = isinstance(n.op, Clip) and here == (0.0, math.inf)
        simple = positive or here == (-math.inf, math.inf)
        return Patch((n,), lambda b: [clipped(b, n.arg(0), *here)]) if simple else None
    low = min(max(before[0], here[0]), here[1])
    high = min(max(before[1], here[0]), here[1])
    return Patch((n, inner), lambda b: [clipped(b, inner.arg(0), low, high)])


# --- movement -----------------------------------------------------------------------------------


@rewrite("reshape", Reshape, TrailingOnes)
def reshape(n: Node, see: Scope) -> Patch | None:
    """A reshape to the same shape, and a reshape of a reshape whose sizes are proved equal."""
    x, out = n.arg(0), n.outputs[0].tensor
    if x.tensor.shape == out.shape:
        return instead([n], x)
    inner = producer(x, Reshape, TrailingOnes)
    if inner is None:
        return None
    source = inner.arg(0)
    if not source.tensor.size == x.tensor.size == out.size:
        return None
    return Patch((n, inner), lambda b: [b.op(Reshape(out.shape), source)])


@rewrite("transpose-pair", Transpose)
def transpose_pair(n: Node, see: Scope) -> Patch | None:
    outer = op_of(n, Transpose).perm
    if outer == tuple(range(len(outer))):
        return instead([n], n.arg(0))
    inner = producer(n.arg(0), Transpose)
    if inner is None:
        return None
    first = op_of(inner, Transpose).perm
    perm = tuple(first[p] for p in outer)
    if perm == tuple(range(len(perm))):
        return instead([n, inner], inner.arg(0))
    return Patch((n, inner), lambda b: [b.op(Transpose(perm), inner.arg(0))])


@rewrite("transpose-of-ones", Transpose)
def transpose_of_ones(n: Node, see: Scope) -> Patch | None:
    """A transpose that only moves axes of size 1 is a reshape."""
    t = n.arg(0).tensor
    moved = [p for p in op_of(n, Transpose).perm if t.shape[p] != 1]
    if moved != sorted(moved) or (t.quant is not None and t.quant.per_axis):
        return None
    return Patch((n,), lambda b: [b.op(Reshape(n.outputs[0].shape), n.arg(0))])


@rewrite("no-movement", Slice, Expand, Tile, Pad)
def no_movement(n: Node, see: Scope) -> Patch | None:
    """All of a tensor, once, without a border."""
    if not keeps_type(n, n.arg(0)):
        return None
    op = n.op
    if isinstance(op, Slice) and (any(s != 1 for s in op.steps) or any(s != 0 for s in op.starts)):
        return None
    if isinstance(op, Tile) and any(r != 1 for r in op.repeats):
        return None
    if isinstance(op, Pad) and any(p != 0 for p in (*op.before, *op.after)):
        return None
    return instead([n], n.arg(0))


def joined(covers: tuple[Node, ...], axis: int, parts: Sequence[Value | None]) -> Patch:
    return Patch(covers, lambda b: [b.op(Concat(axis), *parts)])


@rewrite("nested-concat", Concat)
def nested_concat(n: Node, see: Scope) -> Patch | None:
    """A joined tensor that is only joined further."""
    axis = op_of(n, Concat).axis % len(n.outputs[0].shape)
    for v in n.present():
        inner = producer(v, Concat)
        if inner is None or not see.sole(v) or len(n.inputs) + len(inner.inputs) > 64:
            continue
        if op_of(inner, Concat).axis % len(v.shape) == axis and n.inputs.count(v) == 1:
            at = n.inputs.index(v)
            parts = (*n.inputs[:at], *inner.inputs, *n.inputs[at + 1 :])
            return joined((n, inner), axis, parts)
    return None


@rewrite("known-choice", Where)
def known_choice(n: Node, see: Scope) -> Patch | None:
    """Where with a condition that is the same everywhere."""
    cond = number(n.input(0))
    if cond is None:
        return None
    v = n.arg(1 if cond else 2)
    return instead([n], v) if keeps_type(n, v) else None


@rewrite("reduce-ones", ReduceSum, ReduceMean, ReduceMax, ReduceMin, ReduceProd)
def reduce_ones(n: Node, see: Scope) -> Patch | None:
    """A reduction over axes of size 1 moves nothing and adds nothing."""
    x = n.arg(0)
    axes = axes_from(getattr(n.op, "axes", None), len(x.shape))
    if any(x.shape[a] != 1 for a in axes) or not is_float(x):
        return None
    if dims.product(x.shape) != n.outputs[0].tensor.size:
        return None
    return Patch((n,), lambda b: [b.op(Reshape(n.outputs[0].shape), x)])


RULES = (
    identity, neutral_element, sole_operand, sum_of_two, double_negation, idempotent,
    cast_to_same, cast_chain, exact_reciprocal, square, chained_limits, reshape, transpose_pair,
    no_movement, nested_concat, known_choice, reduce_ones,
)  # fmt: skip
VIEWS = (transpose_of_ones,)
