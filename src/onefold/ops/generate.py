"""Tensors made from numbers: ranges and unit matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.dtypes import DType
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.scalar import Const, Index, Inside, Scalar
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Lowered, Lowering, Refusal, operator
from onefold.ops.formats import OnnxNode
from onefold.ops.known import (
    MAX_CONTENT,
    Sized,
    checked_shape,
    content_of,
    number,
    numbers,
    one_element,
    one_int,
)


@operator
class Range(Sized):
    """start + i * step for i < count; integer starts may be dimensions."""

    start: Dim | float = 0
    step: Dim | float = 1
    count: Dim = 0
    dtype: DType = dtypes.i64
    onnx: ClassVar = ("Range",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((), {"start": 2, "step": -3, "count": 5}),
        Case((), {"start": 0.5, "step": 0.25, "count": 4, "dtype": dtypes.f32}),
        Case((), {"start": 2, "step": 1, "count": 0, "dtype": dtypes.i32}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        return [TensorType(checked_shape((self.count,)), self.dtype)]

    def contents(self, n: Node) -> Sequence[tuple[Dim, ...] | None]:
        if not self.dtype.is_int or not isinstance(self.count, int) or self.count > MAX_CONTENT:
            return [None]
        start, step = _whole(self.start), _whole(self.step)
        return [tuple(dims.add(start, dims.mul(step, i)) for i in range(self.count))]

    def ref(self, n: Node) -> Any:
        i: Any = np.arange(number(self.count))
        if self.dtype.is_int:
            start, step = number(_whole(self.start)), number(_whole(self.step))
            return (start + i * step).astype(self.dtype.numpy)
        real: Any = self.dtype.compute.numpy.type
        line = real(_number(self.start)) + i.astype(real) * real(_number(self.step))
        return line.astype(self.dtype.numpy)

    def lower(self, k: Lowering) -> Lowered:
        kind = self.dtype.compute

        def element(i: Dim) -> Scalar:
            if kind.is_int:
                at = dims.add(_whole(self.start), dims.mul(_whole(self.step), i))
                return scalar.cast(Index(at), kind)
            start, step = _number(self.start), _number(self.step)
            return Const(start, kind) + scalar.cast(Index(i), kind) * step

        return k.map(element)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        kind = n.arg(0).dtype
        if not kind.is_int:
            lo, hi, by = (one_element(n.arg(i), "limits of Range") for i in range(3))
            if float(by) == 0 or not np.isfinite([float(v) for v in (lo, hi, by)]).all():
                raise Refusal(f"Range from {lo} to {hi} by {by}")
            count = max(int(np.ceil((float(hi) - float(lo)) / float(by))), 0)
            return [b.op(cls(float(lo), float(by), count, kind), name=n.output_names)]
        start, end, step = (_limit(n.arg(i)) for i in range(3))
        count_ = _count(start, end, step)
        return [b.op(cls(start, step, count_, kind), name=n.output_names)]


def _limit(v: Value) -> Dim:
    known = content_of(v)
    if known is not None and len(known) == 1:
        return known[0]
    return one_int(v, "limits of Range")


def _count(start: Dim, end: Dim, step: Dim) -> Dim:
    if step == 0:
        raise Refusal("Range has a step of 0")
    if not isinstance(step, int):
        if dims.bounds(step)[0] < 1:
            raise Refusal(f"the sign of the step {step} of a Range is not known")
        return dims.maximum(dims.ceildiv(dims.add(end, dims.mul(start, -1)), step), 0)
    way = dims.add(end, dims.mul(start, -1))
    return dims.maximum(dims.ceildiv(dims.mul(way, 1 if step > 0 else -1), abs(step)), 0)


def _whole(x: Dim | float) -> Dim:
    return int(x) if isinstance(x, float) else x


def _number(x: Dim | float) -> float:
    if isinstance(x, dims.Expr):
        raise Refusal("a range of floats begins at a number")
    return float(x)


@operator
class EyeLike(Sized):
    """Ones on diagonal k, zeros elsewhere."""

    shape: tuple[Dim, ...] = ()
    k: int = 0
    dtype: DType = dtypes.f32
    onnx: ClassVar = ("EyeLike",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((), {"shape": (3, 4)}),
        Case((), {"shape": (3, 3), "k": -1, "dtype": dtypes.i8}),
        Case((), {"shape": (0, 3), "k": 2}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        if len(self.shape) != 2:
            raise Refusal(f"a unit matrix of rank {len(self.shape)}")
        return [TensorType(checked_shape(self.shape), self.dtype)]

    def ref(self, n: Node) -> Any:
        rows, columns = np.indices(numbers(self.shape))
        return (columns - rows == self.k).astype(self.dtype.numpy)

    def lower(self, k: Lowering) -> Lowered:
        kind = self.dtype.compute
        at = max(-(1 << 40), min(self.k, 1 << 40))

        def element(i: Dim, j: Dim) -> Scalar:
            on = Inside(dims.add(j, dims.mul(i, -1)), at, at + 1)
            return scalar.where(on, Const(1, kind), Const(0, kind))

        return k.map(element)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        x = n.arg(0)
        kind = n.dtype("dtype") or x.dtype
        return [b.op(cls(x.shape, int(n.attr("k", 0)), kind), name=n.output_names)]
