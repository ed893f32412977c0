"""How far two results of one computation may lie apart, and how far they do.

float: 1e-4 of the referee's range. Integers: equal where the source format defines their
arithmetic (TFLite), one step where it goes through floats (ONNX quantization). Lower precisions
have wider budgets, about four steps of their last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onefold.ir import dtypes

if TYPE_CHECKING:
    from onefold.ir.graph import Array, Graph, Value

SHARES = {"f64": 1e-4, "f32": 1e-4, "f16": 4e-3, "bf16": 3e-2}
"""Of the range of the values, by element type or precision."""

COARSE = 0.15  # 8-bit floats

BOUNDED = frozenset({"Sigmoid", "HardSigmoid", "Softmax", "Tanh", "Erf"})
"""Operators whose results lie in an interval of their own. Where a sample uses a sliver of it, the
last bits of the referee's approximation are a large share of the sliver."""

SLIVER = 1e-6  # so results of such operators may be that far apart

KEEPING = frozenset({"Identity", "Squeeze", "Unsqueeze", "ReduceMean", "ReduceMax", "ReduceMin"})
"""Operators besides the moving ones whose results lie in the interval of what they read."""


@dataclass(frozen=True)
class Budget:
    """share: of the referee's range; steps: absolute, in units of the value."""

    share: float = 0.0
    steps: float = 0.0

    def text(self) -> str:
        if self.share:
            return f"{self.share:.0e} of range".replace("e-0", "e-")
        return f"{self.steps:.3g}" if self.steps else "equal"


@dataclass(frozen=True)
class Distance:
    """worst: largest absolute difference; share: of the referee's range; differ: how many
    elements are not equal; same_class: whether the largest element is the same one."""

    worst: float
    share: float
    differ: int
    size: int
    same_class: bool
    problem: str = ""  # shapes or types that differ

    def within(self, budget: Budget) -> bool:
        if self.problem:
            return False
        return self.worst <= budget.steps or (budget.share > 0 and self.share <= budget.share)


def bounded(v: Value) -> bool:
    """Whether a value is the result of a bounded operator, moved or averaged since then."""
    from onefold.ops.known import Movement

    waiting, found, seen = [v], False, set()
    while waiting:
        u = waiting.pop()
        if id(u) in seen:
            continue
        seen.add(id(u))
        if u.producer is None:
            return False
        op = u.producer.op
        if op.name in BOUNDED:
            found = True
        elif isinstance(op, Movement) or op.name in KEEPING:
            waiting += [x for x in u.producer.present() if x.dtype is u.dtype and x.data is None]
        else:
            return False
    return found


def budget_of(
    kind: dtypes.DType, format: str, precision: str = "f32", step: float = 0.0,
    bounded: bool = False,
) -> Budget:  # fmt: skip
    """The budget of values of a type; step: see `steps_of`; bounded: see there."""
    if kind.kind == "complex":
        kind = dtypes.f32 if kind is dtypes.c64 else dtypes.f64
    if kind.is_float:
        if step:
            return Budget(steps=step * (1 + 1e-5))
        shares = [SHARES.get(kind.name, COARSE), SHARES.get(precision, 0.0)]
        return Budget(share=max(shares), steps=SLIVER if bounded else 0.0)
    narrow = kind.is_int and kind.bits <= 8
    return Budget(steps=1.0 if format == "onnx" and narrow else step)


def measure(ours: Any, theirs: Any) -> Distance:
    """How far an array lies from the referee's."""
    a, b = np.asarray(ours), np.asarray(theirs)
    problem = ""
    if a.shape != b.shape:
        problem = f"shape {list(a.shape)}, not {list(b.shape)}"
    elif a.dtype != b.dtype:
        problem = f"type {a.dtype.name}, not {b.dtype.name}"
    if problem:
        return Distance(float("inf"), float("inf"), max(a.size, b.size), b.size, False, problem)
    if b.size == 0:
        return Distance(0.0, 0.0, 0, 0, True)
    if b.dtype.kind in "OUS":
        differ = int((a != b).sum())
        return Distance(float(differ > 0), float(differ > 0), differ, b.size, not differ)
    return _numbers(a, b)


def _numbers(a: Array, b: Array) -> Distance:
    wide = np.complex128 if b.dtype.kind == "c" else np.float64
    x, y = a.astype(wide), b.astype(wide)
    with np.errstate(all="ignore"):
        gap = np.abs(x - y)
        gap[(x == y) | (np.isnan(x) & np.isnan(y))] = 0
    gap[np.isnan(gap)] = np.inf  # a NaN against a number
    worst = float(gap.max())
    span = _span(y)
    differ = int((gap > 0).sum())
    return Distance(worst, worst / span if worst else 0.0, differ, b.size, _same_class(x, y))


def _span(y: Array) -> float:
    """Range of the finite values; of a constant its size, and 1 where that is 0."""
    finite = np.abs(y[np.isfinite(y)]) if y.dtype.kind == "c" else y[np.isfinite(y)]
    if not finite.size:
        return 1.0
    return float(finite.max() - finite.min()) or float(np.abs(finite).max()) or 1.0


def _same_class(x: Array, y: Array) -> bool:
    if x.dtype.kind == "c":
        return True
    a, b = np.nan_to_num(x).reshape(-1), np.nan_to_num(y).reshape(-1)
    return bool(a[b.argmax()] == a.max())  # a tie on our side is no other class


TO_FLOAT = ("DequantizeLinear", "AffineDequantize")
TO_INTEGER = ("QuantizeLinear", "AffineQuantize", "DynamicQuantize")


def steps_of(graph: Graph) -> list[float]:
    """For each output, in its own units, one step of the integers that it was rounded to on its
    way, 0 where there are none or where integer arithmetic alone defines them.

    A float before the rounding may lie on either side of a half, whoever computes it.
    """
    return [_step(v) if rounded_from_float(v) else 0.0 for v in graph.outputs]


def _step(v: Value) -> float:
    """The scale of the nearest integers along first inputs; 1 for an output that is one."""
    if not v.dtype.is_float:
        return 1.0 if v.quant is not None else 0.0
    seen: set[int] = set()
    while v.producer is not None and id(v) not in seen:
        seen.add(id(v))
        n = v.producer
        if not n.inputs or n.inputs[0] is None:
            return 0.0
        if n.op.name in TO_FLOAT:
            given = n.const(1) if len(n.inputs) > 1 else None
            scale = n.inputs[0].quant.scale if n.inputs[0].quant is not None else given
            return 0.0 if scale is None else float(np.max(np.abs(scale)))
        v = n.inputs[0]
    return 0.0


def rounded_from_float(v: Value) -> bool:
    """Whether a computed float was rounded to an integer somewhere before v."""
    seen: set[int] = set()
    waiting = [v]
    while waiting:
        u = waiting.pop()
        if u.producer is None or id(u.producer) in seen:
            continue
        n = u.producer
        seen.add(id(n))
        first = n.input(0)
        if n.op.name in TO_INTEGER and first is not None and first.producer is not None:
            return True
        waiting += n.present()
    return False
