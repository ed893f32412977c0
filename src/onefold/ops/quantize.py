"""Linear quantization: real = scale * (stored - zero point), per tensor, axis or block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.dtypes import DType
from onefold.ir.graph import Array, Builder, Node, Value
from onefold.ir.scalar import Scalar, TensorExpr
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Code, Lowering, Op, Refusal, operator, true_axis
from onefold.ops.convert import convert
from onefold.ops.elementwise import tensor
from onefold.ops.formats import OnnxNode

Place = Callable[[Sequence[Dim]], tuple[Dim, ...]]


def granularity(n: Node, i: int, axis: int, block: int) -> Place:
    """Where the parameter (input i) of an element lies. Raises Refusal where it does not fit."""
    x, p = tensor(n, 0), tensor(n, i)
    if p.size == 1 and (not block or not x.shape):
        return lambda at: (0,) * len(p.shape)
    k = true_axis(axis, len(x.shape))
    if block > 0:
        blocks = dims.ceildiv(x.shape[k], block)
        if p.shape != (*x.shape[:k], blocks, *x.shape[k + 1 :]):
            raise Refusal(f"parameters {p} do not cut {x} into blocks of {block} on axis {k}")
        return lambda at: (*at[:k], dims.floordiv(at[k], block), *at[k + 1 :])
    if len(p.shape) != 1 or p.shape[0] != x.shape[k]:
        raise Refusal(f"parameters {p} do not fit axis {k} of {x}")
    return lambda at: (at[k],)


def parameter(k: Lowering, i: int, axis: int, block: int) -> Callable[[Sequence[Dim]], Scalar]:
    """Input i at the index of an element of input 0."""
    place = granularity(k.node, i, axis, block)
    return lambda at: k.x(i)(*place(at))


def spread(p: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """The parameter of every element of a tensor of this shape."""
    if p.size == 1 and (not block or not shape):
        return p.reshape(())
    k = axis % len(shape)
    if block > 0:
        return np.take(p, np.arange(shape[k]) // block, axis=k)
    return p.reshape([-1 if j == k else 1 for j in range(len(shape))])


@operator
class DequantizeLinear(Op):
    """(x - zero point) * scale, of the scale's type unless `to` is given."""

    axis: int = 1
    block_size: int = 0
    to: DType | None = None
    lazy: ClassVar = True
    onnx: ClassVar = ("DequantizeLinear", "com.microsoft:DequantizeLinear")
    cases: ClassVar = (
        Case((((3, 4), "u8"), np.array(0.5, np.float32), np.array(128, np.uint8))),
        Case((((2, 3, 4), "i8"), ((3,), "f32"), ((3,), "i8")), low=0.01),
        Case((((5, 4), "i4"), ((5, 2), "f32"), ((5, 2), "i4")), {"block_size": 2}, low=0.01),
        Case((((9,), "i32"), np.array(0.25, np.float32))),
        Case((((9,), "f8e4m3fn"), np.array(0.25, np.float16))),
        Case((((9,), "u16"), np.array([2], np.float32), np.array([65535], np.uint16)), {"axis": 0}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, scale = tensor(n, 0), tensor(n, 1)
        if not (x.dtype.is_int or (x.dtype.is_float and x.dtype.bits <= 8)):
            raise Refusal(f"DequantizeLinear of {x.dtype.long} elements is not defined")
        if not scale.dtype.is_float:
            raise Refusal(f"the scale is {scale.dtype.long}, not a float")
        if n.input(2) is not None and tensor(n, 2).dtype is not x.dtype:
            raise Refusal(f"the zero point is {tensor(n, 2).dtype.long}, the tensor {x.dtype.long}")
        for i in range(1, 3 if n.input(2) is not None else 2):
            granularity(n, i, self.axis, self.block_size)
        return [TensorType(x.shape, self.to or scale.dtype)]

    def ref(self, n: Node, x: Any, scale: Any, zero: Any = None) -> Any:
        wide: Any = np.float32 if dtypes.of(x.dtype).is_float else np.int32
        q = x.astype(wide)
        if zero is not None:
            q = q - spread(zero, x.shape, self.axis, self.block_size).astype(wide)
        s = spread(scale, x.shape, self.axis, self.block_size).astype(np.float32)
        return convert(np.asarray(q.astype(np.float32) * s), n.outputs[0].dtype)

    def lower(self, k: Lowering) -> TensorExpr:
        scale = parameter(k, 1, self.axis, self.block_size)
        zero_of = parameter(k, 2, self.axis, self.block_size) if k.has(2) else None

        def element(*i: Dim) -> Scalar:
            q, s = k.x(0)(*i), scale(i)
            wide = q.dtype if q.dtype.is_float else dtypes.i32
            q = scalar.cast(q, wide)
            if zero_of is not None:
                zero = scalar.cast(zero_of(i), wide)
                if not isinstance(zero, scalar.Const) or zero.value != 0:
                    q = q - zero
            y = scalar.cast(q, dtypes.f32) * scalar.cast(s, dtypes.f32)
            return scalar.cast(y, k.y().dtype.compute)

        return k.map(element)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        fields = {k: v for k, v in n.fields(cls).items() if k != "to"}
        return b.ops(cls(**fields, to=n.dtype("output_dtype")), *n.inputs, name=n.output_names)


def reciprocal(scale: Array | None) -> float | None:
    """Of one constant scale, where it serves to divide by it exactly (of_quantize_by_f32)."""
    if scale is None or scale.size != 1:
        return None
    s = scale.reshape(-1).astype(np.float32)
    all_ones = bool(s.view(np.uint32)[0] & 0x7FFFFF == 0x7FFFFF)
    if all_ones or not 2.0**-60 < s[0] < 2.0**60:
        return None
    return float(np.float32(1) / s[0])


@operator
class QuantizeLinear(Op):
    """saturate(round(x / scale) + zero point), halves to even; floats of eight bits and less take
    the quotient itself. precision: the type in which the quotient is rounded."""

    axis: int = 1
    block_size: int = 0
    saturate: bool = True
    to: DType = dtypes.u8
    precision: DType | None = None
    onnx: ClassVar = ("QuantizeLinear", "com.microsoft:QuantizeLinear")
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3, 4), "f32"), np.array(0.02, np.float32), np.array(128, np.uint8))),
        Case((((2, 3, 4), "f32"), np.array([0.1, 0.5, 3], np.float32), np.zeros(3, np.int8)),
             {"to": dtypes.i8}, low=-400, high=400),
        Case((((5, 3), "f32"), np.full((5, 2), 0.25, np.float32)),
             {"block_size": 2, "to": dtypes.i4}),
        Case((((9,), "f16"), np.array(0.25, np.float16)), {"to": dtypes.f8e4m3fn}, high=1000),
        Case((((9,), "f32"), np.array(0.001, np.float32), np.array(32767, np.uint16)),
             {"to": dtypes.u16}, low=-90, high=90),
        Case((np.array([np.nan, np.inf, -np.inf, 0.5, 1.5, 2.5], np.float32),
              np.array(1, np.float32))),
        Case((((9,), "f32"), np.array(0.5, np.float32)), {"to": dtypes.i2}),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        x = tensor(n, 0)
        if not ((x.dtype.is_float and x.dtype.bits >= 16) or x.dtype is dtypes.i32):
            raise Refusal(f"QuantizeLinear of {x.dtype.long} elements is not defined")
        if not tensor(n, 1).dtype.is_float:
            raise Refusal(f"the scale is {tensor(n, 1).dtype.long}, not a float")
        if n.input(2) is not None and tensor(n, 2).dtype is not self.to:
            raise Refusal(f"the zero point is {tensor(n, 2).dtype.long}, not {self.to.long}")
        if not (self._integer or (self.to.is_float and self.to.bits <= 8)):
            raise Refusal(f"QuantizeLinear to {self.to.long} is not defined")
        for i in range(1, 3 if n.input(2) is not None else 2):
            granularity(n, i, self.axis, self.block_size)
        return [TensorType(x.shape, self.to)]

    @property
    def _integer(self) -> bool:
        return self.to.is_int and self.to.bits <= 16

    def ref(self, n: Node, x: Any, scale: Any, zero: Any = None) -> Any:
        with np.errstate(all="ignore"):
            s = spread(scale, x.shape, self.axis, self.block_size).astype(np.float32)
            q = np.asarray(x.astype(np.float32) / s)
            if self.precision is not None:
                q = q.astype(self.precision.numpy).astype(np.float32)
        z: Any = 0
        if zero is not None:
            z = spread(zero, x.shape, self.axis, self.block_size).astype(np.float32)
        if not self._integer:
            return convert(q + z, self.to, self.saturate)
        q = np.clip(np.where(np.isnan(q), -np.inf, np.rint(q)), self.to.lo - z, self.to.hi - z)
        return (q + z).astype(np.int32).astype(self.to.numpy)

    def lower(self, k: Lowering) -> TensorExpr:
        scale = parameter(k, 1, self.axis, self.block_size)
        zero_of = parameter(k, 2, self.axis, self.block_size) if k.has(2) else None

        def element(*i: Dim) -> Scalar:
            x = scalar.cast(k.x(0)(*i), dtypes.f32)
            s = scalar.cast(scale(i), dtypes.f32)
            if self.precision is not None:
                x, s = scalar.cast(x / s, self.precision), scalar.Const(1.0, dtypes.f32)
            zero: Scalar | None = zero_of(i) if zero_of else None
            if not self._integer:
                q = x / s if zero is None else x / s + zero
                return scalar.cast(q, self.to, self.saturate)
            low, high = (scalar.Const(v, dtypes.i32) for v in (self.to.lo, self.to.hi))
            z = scalar.Const(0, dtypes.i32) if zero is None else scalar.cast(zero, dtypes.i32)
            inverse = reciprocal(k.node.const(1)) if self.precision is None else None
            if inverse is None:
                q = scalar.call("quantize_linear", x, s, z, low, high, dtype=dtypes.i32)
            else:
                by = scalar.Const(inverse, dtypes.f32)
                q = scalar.call("quantize_by", x, s, by, z, low, high, dtype=dtypes.i32)
            return scalar.cast(q, self.to)

        return k.map(element)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        fields = {k: v for k, v in n.fields(cls).items() if k not in ("precision", "to")}
        zero = n.input(2)
        to = n.dtype("output_dtype") or (dtypes.u8 if zero is None else zero.dtype)
        op = cls(**fields, to=to, precision=n.dtype("precision"))
        return b.ops(op, *n.inputs, name=n.output_names)


@operator
class DynamicRange(Op):
    """x f32 -> the scale f32 and the zero point u8 that quantize what x holds, and 0; the scale is
    1 where that is all the same. NaN does not count."""

    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3, 50), "f32"),)),
        Case((((5,), "f32"),), low=1, high=4),
        Case((((2, 21), "f32"),), low=-4, high=-1),
        Case((np.zeros((2, 3), np.float32),)),
        Case((np.array([np.nan, 3, *[-1] * 40, np.nan], np.float32),)),
        Case((np.array([1, -np.inf, 2], np.float32),)),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        x = tensor(n, 0)
        if x.dtype is not dtypes.f32:
            raise Refusal(f"it takes float32, not {x.dtype.long}")
        return [TensorType((), dtypes.f32), TensorType((), dtypes.u8)]

    def ref(self, n: Node, x: Any) -> Any:
        low, high = (f.reduce(x, axis=None, initial=np.float32(0)) for f in (np.fmin, np.fmax))
        step = np.float32((high - low) / np.float32(255))
        scale = np.float32(1) if step == 0 else step
        with np.errstate(invalid="ignore"):
            point = np.rint((np.float32(0) - low) / scale)
        whole = np.uint8(0) if np.isnan(point) else np.uint8(np.clip(point, 0, 255))
        return np.asarray(scale), np.asarray(whole)

    def lower(self, k: Lowering) -> Code:
        return Code(f"""
float lo, hi;
of_range_f32(x0, {k.dim(dims.product(k.x(0).shape))}, &lo, &hi);
const float step = (hi - lo) / 255.0f;
y0[0] = step == 0.0f ? 1.0f : step;
const float point = of_round_even_f32((0.0f - lo) / y0[0]);
y1[0] = point > 0.0f ? (uint8_t)(point < 255.0f ? point : 255.0f) : 0;""")
