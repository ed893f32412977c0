"""Window functions of signal processing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.dtypes import DType
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.scalar import Scalar, TensorExpr
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Lowering, Op, Refusal, need_dims, operator
from onefold.ops.formats import OnnxNode

CASES: tuple[Case, ...] = (
    Case((np.array(10),), const=(0,)),
    Case((np.array(7, np.int32),), {"periodic": False, "to": dtypes.f64}, const=(0,)),
    Case((np.array(1),), {"periodic": False, "to": dtypes.f16}, const=(0,)),
    Case((np.array(0),), const=(0,)),
)


@dataclass(frozen=True)
class Window(Op):
    """a0 - a1 cos(2 pi n / N) + a2 cos(4 pi n / N) for the `size` of input 0; N is the size, or
    one less for a symmetric window. A symmetric window of one element is 1."""

    periodic: bool = True
    to: DType = dtypes.f32
    weights: ClassVar[tuple[float, float, float]]

    def infer(self, n: Node) -> Sequence[TensorType]:
        size = need_dims(n, 0, "size")
        if len(size) != 1 or (isinstance(size[0], int) and size[0] < 0):
            raise Refusal(f"the size is {list(size)}, not one number of elements")
        if not ((self.to.is_float and self.to.bits >= 16) or self.to.is_int):
            raise Refusal(f"a window of type {self.to.long} is not defined")
        return [TensorType(size, self.to)]

    def ref(self, n: Node, size: Any) -> Any:
        count = int(np.asarray(size).reshape(()))
        period = count if self.periodic else count - 1
        a0, a1, a2 = self.weights
        if period == 0:
            return np.ones(count, self.to.numpy)
        angle = 2 * np.pi * np.arange(count) / period
        return (a0 - a1 * np.cos(angle) + a2 * np.cos(2 * angle)).astype(self.to.numpy)

    def lower(self, k: Lowering) -> TensorExpr:
        (count,) = k.y().shape
        a0, a1, a2 = self.weights
        period = count if self.periodic else count - 1
        one = scalar.Const(1.0, dtypes.f64)

        def element(i: Dim) -> Scalar:
            n = scalar.cast(scalar.Index(period), dtypes.f64)
            angle = scalar.cast(scalar.Index(i), dtypes.f64) * (2 * math.pi) / n
            y = a0 - scalar.call("cos", angle) * a1 + scalar.call("cos", angle * 2) * a2
            return scalar.cast(scalar.where(n.eq(0), one, y), self.to.compute)

        return k.map(element)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        to = n.dtype("output_datatype") or dtypes.f32
        op = cls(bool(n.attr("periodic", 1)), to)
        return b.ops(op, n.arg(0), name=n.output_names)


@operator
class HannWindow(Window):
    """0.5 - 0.5 cos."""

    onnx: ClassVar = ("HannWindow",)
    cases: ClassVar = CASES
    weights: ClassVar = (0.5, 0.5, 0.0)


@operator
class HammingWindow(Window):
    """25/46 - 21/46 cos."""

    onnx: ClassVar = ("HammingWindow",)
    cases: ClassVar = CASES
    weights: ClassVar = (25 / 46, 21 / 46, 0.0)


@operator
class BlackmanWindow(Window):
    """0.42 - 0.5 cos + 0.08 cos of the double."""

    onnx: ClassVar = ("BlackmanWindow",)
    cases: ClassVar = CASES
    weights: ClassVar = (0.42, 0.5, 0.08)


