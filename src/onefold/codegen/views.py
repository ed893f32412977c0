"""Values that are another view of what lies in memory: an offset and a step for each axis.

A kernel that walks rows with steps of its own reads through transposes, reshapes, slices and
splits, which then are never computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onefold.codegen.loops import address
from onefold.ir import dims
from onefold.ir.dims import Dim
from onefold.ir.graph import Value
from onefold.ir.scalar import Load, Scalar, TensorExpr, counter, stored
from onefold.ops.base import Alias, Lowering, Refusal

DEPTH = 8  # views upon views


@dataclass(frozen=True)
class View:
    """Element [i, j, ...] lies `offset + i * steps[0] + j * steps[1] + ...` elements into base."""

    base: Value
    offset: Dim
    steps: tuple[Dim, ...]

    def at(self, index: Sequence[Dim]) -> Dim:
        """Position of an element."""
        out = self.offset
        for i, s in zip(index, self.steps, strict=True):
            out = dims.add(out, dims.mul(i, s))
        return out


def plain(v: Value) -> View:
    """The value itself, row by row."""
    steps: list[Dim] = []
    step: Dim = 1
    for d in reversed(v.shape):
        steps.insert(0, step)
        step = dims.mul(step, d)
    return View(v, 0, tuple(steps))


def view_of(v: Value) -> View:
    """The furthest value back of which v is a view; v itself where there is none."""
    here = plain(v)
    base = v
    for _ in range(DEPTH):
        inner = _source(base)
        if inner is None:
            break
        base = inner
        found = _affine(v, base)
        if found is not None:
            here = found
    return here


def _source(v: Value) -> Value | None:
    """What v rearranges, if that is all its operator does."""
    n = v.producer
    if n is None or n.regions or n.op.compiled(n):
        return None
    values = {id(u): u for u in n.present() if not u.is_const}
    return next(iter(values.values())) if len(values) == 1 else None


def _affine(v: Value, base: Value) -> View | None:
    counters = [counter(d, "i") for d in v.shape]
    index = [dims.atom(c) if d != 1 else 0 for c, d in zip(counters, v.shape, strict=True)]
    found = _element(v, base, index)
    if not isinstance(found, Load) or found.value is not base:
        return None
    if base.tensor.layout or v.tensor.layout:
        return None
    position = address(base.tensor, found.index)
    steps: list[Dim] = []
    for c, d in zip(counters, v.shape, strict=True):
        step = 0 if d == 1 else dims.coefficient(position, c)
        if step is None:
            return None
        steps.append(step)
        if d != 1:
            position = dims.add(position, dims.mul(dims.mul(dims.atom(c), step), -1))
    if any(s in counters for s in dims.symbols(position)):
        return None
    return View(base, position, tuple(steps))


def _element(v: Value, base: Value, index: Sequence[Dim]) -> Scalar | None:
    """The expression of an element of v in terms of base; None where it cannot be had."""
    if v is base:
        return stored(base)(*index)
    n = v.producer
    if n is None or _source(v) is None:
        return None

    def read(u: Value) -> TensorExpr:
        def element(*i: Dim) -> Scalar:
            inner = _element(u, base, i)
            return stored(u)(*i) if inner is None else inner

        return TensorExpr(u.tensor, element)

    try:
        low = n.op.lower(Lowering(n, [None if u is None else read(u) for u in n.inputs]))
    except Refusal:
        return None
    if isinstance(low, Alias):
        u = n.arg(low.index)
        return read(u)(*dims.reindex(index, v.shape, u.shape))
    if isinstance(low, TensorExpr):
        low = [low]
    if isinstance(low, (list, tuple)):
        expr: TensorExpr = low[next(i for i, y in enumerate(n.outputs) if y is v)]
        return expr(*index)
    return None
