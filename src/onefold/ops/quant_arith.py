"""Element by element operators of quantized TFLite models.

Source of the arithmetic: TFLite's reference kernels (add.h, mul.h, requantize.h, quantize.h).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dtypes, scalar
from onefold.ir.dtypes import DType
from onefold.ir.graph import Node
from onefold.ir.scalar import Scalar
from onefold.ir.types import TensorType
from onefold.ops import fixedpoint as fx
from onefold.ops.base import Case, Lowering, Op, Refusal, broadcast_shapes, operator

Multiplier = tuple[int, int]  # x * m 2^(s - 31)


def rescaled(x: Scalar, by: Multiplier) -> Scalar:
    """x times a fixed-point multiplier, with TFLite's two roundings."""
    return scalar.call("multiply_by_quantized_multiplier", x, *by)


@dataclass(frozen=True)
class QuantElementwise(Op):
    """Results are clamped to [lo, hi] and stored as `dtype`."""

    zero_y: int = 0
    lo: int = -128
    hi: int = 127
    dtype: DType = dtypes.i8
    exact: ClassVar = True

    def infer(self, n: Node) -> Sequence[TensorType]:
        shape = broadcast_shapes(*(v.shape for v in n.present()))
        return [TensorType(shape, self.dtype)]

    def value(self, *x: Scalar) -> Scalar:
        """The result before clamping, from elements as int32."""
        raise NotImplementedError(self.name)

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        xs = [x for x in k.inputs if x is not None]

        def element(*i: Any) -> Scalar:
            y = self.value(*(x.broadcast(i).cast(dtypes.i32) for x in xs))
            return scalar.clamp(y, self.lo, self.hi).cast(self.dtype)

        return k.map(element)

    def clamped(self, y: Any) -> Any:
        return np.clip(y, self.lo, self.hi).astype(self.dtype.numpy)


_TWO_I8 = (((2, 3, 4), "i8"), ((3, 1), "i8"))
_SUM = {"zero_a": -4, "zero_b": 9, "zero_y": 3, "by_a": (1 << 30, 0), "by_b": (1412348111, -1),
        "by_y": (1900000000, -18)}  # fmt: skip


@operator
class QuantAdd(QuantElementwise):
    """(a - zero_a) and (b - zero_b) shifted left and brought to one scale, added (subtracted),
    brought to the result's scale."""

    zero_a: int = 0
    zero_b: int = 0
    left: int = 20
    by_a: Multiplier = (0, 0)
    by_b: Multiplier = (0, 0)
    by_y: Multiplier = (0, 0)
    minus: bool = False
    cases: ClassVar = (
        Case(_TWO_I8, _SUM),
        Case(_TWO_I8, _SUM | {"minus": True}, seed=2),
        Case((((7,), "u8"), ((7,), "u8")), _SUM | {"lo": 0, "hi": 255, "dtype": dtypes.u8}, 3),
        Case((((0, 4), "i8"), ((4,), "i8")), _SUM),
    )

    def value(self, *x: Scalar) -> Scalar:
        a = rescaled((x[0] - self.zero_a) * (1 << self.left), self.by_a)
        b = rescaled((x[1] - self.zero_b) * (1 << self.left), self.by_b)
        return rescaled(a - b if self.minus else a + b, self.by_y) + self.zero_y

    def ref(self, n: Node, *x: Any) -> Any:
        mul = fx.multiply_by_quantized_multiplier
        a = mul((x[0].astype(np.int64) - self.zero_a) << self.left, *self.by_a)
        b = mul((x[1].astype(np.int64) - self.zero_b) << self.left, *self.by_b)
        return self.clamped(mul(a - b if self.minus else a + b, *self.by_y) + self.zero_y)


@operator
class QuantMul(QuantElementwise):
    """(a - zero_a) * (b - zero_b), brought to the result's scale. `square` takes one difference
    of both inputs, brought to one scale first, times itself (SQUARED_DIFFERENCE)."""

    zero_a: int = 0
    zero_b: int = 0
    by_y: Multiplier = (0, 0)
    cases: ClassVar = (
        Case(_TWO_I8, {"zero_a": -4, "zero_b": 9, "zero_y": 3, "by_y": (1900000000, -7)}),
        Case(_TWO_I8, {"zero_a": 4, "zero_y": -3, "by_y": (1200000000, -9), "lo": 0}, seed=2),
        Case((((7,), "u8"), ((7,), "u8")),
             {"by_y": (1900000000, -8), "lo": 0, "hi": 255, "dtype": dtypes.u8}, 3),
    )  # fmt: skip

    def value(self, *x: Scalar) -> Scalar:
        return rescaled((x[0] - self.zero_a) * (x[1] - self.zero_b), self.by_y) + self.zero_y

    def ref(self, n: Node, *x: Any) -> Any:
        p = (x[0].astype(np.int64) - self.zero_a) * (x[1].astype(np.int64) - self.zero_b)
        return self.clamped(fx.multiply_by_quantized_multiplier(p, *self.by_y) + self.zero_y)


@operator
class QuantSquaredDifference(QuantElementwise):
    """The square of the difference of a and b, brought to one scale as in QuantAdd."""

    zero_a: int = 0
    zero_b: int = 0
    left: int = 7
    by_a: Multiplier = (0, 0)
    by_b: Multiplier = (0, 0)
    by_y: Multiplier = (0, 0)
    cases: ClassVar = (
        Case(_TWO_I8, _SUM | {"by_y": (1900000000, -18)}),
        Case((((5,), "i8"), ((1,), "i8")), _SUM | {"by_y": (1500000000, -19)}, seed=2),
        Case((((0,), "i8"), ((1,), "i8")), _SUM),
    )

    def value(self, *x: Scalar) -> Scalar:
        a = rescaled((x[0] - self.zero_a) * (1 << self.left), self.by_a)
        b = rescaled((x[1] - self.zero_b) * (1 << self.left), self.by_b)
        d = a - b
        return rescaled(d * d, self.by_y) + self.zero_y

    def ref(self, n: Node, *x: Any) -> Any:
        mul = fx.multiply_by_quantized_multiplier
        a = mul((x[0].astype(np.int64) - self.zero_a) << self.left, *self.by_a)
        b = mul((x[1].astype(np.int64) - self.zero_b) << self.left, *self.by_b)
        return self.clamped(mul((a - b) ** 2, *self.by_y) + self.zero_y)


@operator
class QuantRescale(QuantElementwise):
    """(x - zero_x) brought to another scale and type (QUANTIZE of integers)."""

    zero_x: int = 0
    by_y: Multiplier = (1 << 30, 1)
    cases: ClassVar = (
        Case((((40,), "u8"),), {"zero_x": 128}),
        Case((((2, 9), "i8"),), {"zero_x": -3, "zero_y": 5, "by_y": (1900000000, -1)}),
        Case((((9,), "i8"),), {"zero_y": 128, "lo": 0, "hi": 255, "dtype": dtypes.u8}),
        Case((((9,), "i16"),), {"by_y": (1900000000, -7)}),
    )

    def value(self, *x: Scalar) -> Scalar:
        return rescaled(x[0] - self.zero_x, self.by_y) + self.zero_y

    def ref(self, n: Node, *x: Any) -> Any:
        y = fx.multiply_by_quantized_multiplier(x[0].astype(np.int64) - self.zero_x, *self.by_y)
        return self.clamped(y + self.zero_y)


@operator
class QuantTable(Op):
    """table[x]: any function of one 8-bit value. Inputs: x, a table of 256 beginning at the
    smallest value of x."""

    exact: ClassVar = True
    cases: ClassVar = (
        Case((((40,), "i8"), ((256,), "i8"))),
        Case((((3, 5), "u8"), ((256,), "u8")), seed=1),
        Case((((0,), "u8"), ((256,), "i16")), seed=1),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, t = n.arg(0).tensor, n.arg(1).tensor
        if x.dtype not in (dtypes.i8, dtypes.u8) or t.shape != (256,):
            raise Refusal(f"a table of {t.shape} for {x.dtype}")
        return [TensorType(x.shape, t.dtype)]

    def ref(self, n: Node, *x: Any) -> Any:
        return x[1][x[0].astype(np.int64) - np.iinfo(x[0].dtype).min]

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        x, table = k.x(0), k.x(1)

        def element(*i: Any) -> Scalar:
            at = x(*i).cast(dtypes.i32) - x.dtype.lo
            return table(scalar.loaded(at, 256, check=False))

        return k.map(element)


@operator
class AffineQuantize(Op):
    """round(x / scale) + zero, halves away from zero, saturating. Inputs: x (float)."""

    scale: float = 1.0
    zero: int = 0
    dtype: DType = dtypes.i8
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((5, 7), "f32"),), {"scale": 0.013, "zero": 4}),
        Case((((9,), "f32"),), {"scale": 0.5, "zero": 128, "dtype": dtypes.u8}, low=-99, high=99),
        Case((((9,), "f32"),), {"scale": 0.001, "dtype": dtypes.i16}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        x = n.arg(0).tensor
        if x.dtype is not dtypes.f32 or self.dtype.name not in ("i8", "u8", "i16"):
            raise Refusal(f"quantizing {x.dtype} to {self.dtype}")
        return [TensorType(x.shape, self.dtype)]

    def ref(self, n: Node, *x: Any) -> Any:
        low, high = self.dtype.lo, self.dtype.hi
        y = fx.affine_quantize(x[0], self.scale, self.zero, low, high)
        return y.astype(self.dtype.numpy)

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        x = k.x(0)
        return k.map(
            lambda *i: scalar.call(
                "affine_quantize_to", x(*i), self.scale,
                scalar.Const(self.zero, dtypes.i32), scalar.Const(self.dtype.lo, dtypes.i32),
                scalar.Const(self.dtype.hi, dtypes.i32), dtype=dtypes.i32,
            ).cast(self.dtype)
        )  # fmt: skip


@operator
class AffineDequantize(Op):
    """scale * (x - zero) as f32; one scale, or one per slice along `axis`."""

    scale: tuple[float, ...] = (1.0,)
    zero: tuple[int, ...] = (0,)
    axis: int = 0
    cases: ClassVar = (
        Case((((5, 7), "i8"),), {"scale": (0.013,), "zero": (4,)}),
        Case((((3, 2), "i8"),), {"scale": (0.5, 0.25, 2.0), "zero": (1, 0, -1)}),
        Case((((9,), "i16"),), {"scale": (0.001,)}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        x = n.arg(0).tensor
        if not x.dtype.is_int or len(self.scale) != len(self.zero):
            raise Refusal(f"dequantizing {x.dtype} with {len(self.scale)} scales")
        if len(self.scale) > 1 and (self.axis >= x.rank or x.shape[self.axis] != len(self.scale)):
            raise Refusal(f"{len(self.scale)} scales for shape {x.shape}")
        return [TensorType(x.shape, dtypes.f32)]

    def _along(self, data: Any, rank: int) -> Any:
        return np.reshape(data, [-1 if a == self.axis else 1 for a in range(max(rank, 1))])

    def ref(self, n: Node, *x: Any) -> Any:
        rank = x[0].ndim
        one = len(self.scale) == 1
        zero = self.zero[0] if one else self._along(self.zero, rank)
        scales = np.array(self.scale, np.float32)
        scale = scales[0] if one else self._along(scales, rank)
        return np.asarray((x[0].astype(np.int64) - zero).astype(np.float32) * scale, np.float32)

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        x = k.x(0)
        if len(self.scale) == 1:
            return k.map(lambda *i: (x(*i).cast(dtypes.i32) - self.zero[0]).cast(dtypes.f32)
                         * self.scale[0])  # fmt: skip
        scale = _table(np.array(self.scale, np.float32), dtypes.f32)
        zero = _table(np.array(self.zero, np.int32), dtypes.i32)
        return k.map(lambda *i: (x(*i).cast(dtypes.i32) - zero(i[self.axis])).cast(dtypes.f32)
                     * scale(i[self.axis]))  # fmt: skip


def _table(data: Any, kind: DType) -> scalar.TensorExpr:
    from onefold.ir.graph import Value

    return scalar.stored(Value("table", TensorType(data.shape, kind), np.ascontiguousarray(data)))
