"""Integer contractions whose result is requantized in float, as ONNX Runtime does it.

    y = saturate(round_half_even(float(sum) * multiplier) + y_zero)

sum is the i32 sum of (x - x_zero) * (w - w_zero) plus an i32 bias; multiplier is
x_scale * w_scale / y_scale in f32, one for the tensor or one per output channel. The result has
the type of y_zero; qmin and qmax narrow its range (a clamp that stood between).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.dtypes import DType
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.scalar import Scalar
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Lowering, Op, Refusal, broadcast_shapes, operator
from onefold.ops.cast import Cast
from onefold.ops.conv import Convolution, check_bias, check_zero, less_zero, one_of, wide
from onefold.ops.elementwise import Div, Mul
from onefold.ops.matmul import check_points, integer_product, matmul_shape, row_points

Dims = tuple[Dim, ...]
ACTIVATIONS = (dtypes.u8, dtypes.i8)
WEIGHTS = (dtypes.u8, dtypes.i8, dtypes.u4, dtypes.i4, dtypes.u2, dtypes.i2)

# positions of the inputs of QConv and QMatMul
X, W, BIAS, X_ZERO, W_ZERO, MULTIPLIER, Y_ZERO = range(7)


def check_types(n: Node) -> DType:
    """The type of the result. Raises Refusal for types that are not taken."""
    if n.arg(X).dtype not in ACTIVATIONS or n.arg(W).dtype not in WEIGHTS:
        raise Refusal(f"{n.op.name} of {n.arg(X).dtype} and {n.arg(W).dtype}")
    if n.arg(MULTIPLIER).dtype is not dtypes.f32:
        raise Refusal(f"{n.op.name} has a multiplier of {n.arg(MULTIPLIER).dtype}")
    y = n.arg(Y_ZERO)
    if y.dtype not in ACTIVATIONS or y.tensor.size != 1:
        raise Refusal(f"{n.op.name} has a result zero point of {y.dtype}{list(y.shape)}")
    return y.dtype


class Requantized(Op):
    """The end of an integer contraction."""

    qmin: int | None = None
    qmax: int | None = None

    def range(self, kind: DType) -> tuple[int, int]:
        lo = kind.lo if self.qmin is None else max(self.qmin, kind.lo)
        hi = kind.hi if self.qmax is None else min(self.qmax, kind.hi)
        return lo, max(lo, hi)

    def requantize(self, acc: Scalar, multiplier: Scalar, zero: Scalar, kind: DType) -> Scalar:
        lo, hi = self.range(kind)
        value = scalar.call("round_even", scalar.cast(acc, dtypes.f32) * multiplier)
        value = value + scalar.cast(zero, dtypes.f32)
        return scalar.cast(scalar.call("clamp", value, float(lo), float(hi)), kind)

    def ref_requantize(self, acc: Any, multiplier: Any, zero: Any) -> Any:
        kind = dtypes.of(zero.dtype)
        lo, hi = self.range(kind)
        real = acc.astype(np.int32).astype(np.float32) * multiplier.astype(np.float32)
        value = np.rint(real) + np.float32(int(np.ravel(zero)[0]))
        return np.clip(value, lo, hi).astype(kind.numpy)


@operator
class QConv(Convolution, Requantized):
    """x [N, C, *spatial], w [M, C / group, *kernel], bias [M] i32 or absent, x_zero or absent,
    w_zero (one or [M]) or absent, multiplier (one or [M]) f32, y_zero."""

    strides: tuple[int, ...] = ()
    pads: Dims = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    qmin: int | None = None
    qmax: int | None = None
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((1, 3, 7, 6), "u8"), ((4, 3, 3, 3), "i8"), np.array([500, -900, 0, 77], np.int32),
              np.array(7, np.uint8), None,
              np.array([0.01, 0.002, 0.003, 0.1], np.float32), np.array(128, np.uint8)),
             {"pads": (1, 1, 1, 1)}),
        Case((((1, 4, 9), "i8"), ((2, 2, 3), "u8"), None, None, np.array([3, 200], np.uint8),
              np.array(0.001, np.float32), np.array(-3, np.int8)), {"group": 2, "strides": (2,)}),
        Case((((1, 2, 5, 5), "u8"), ((3, 2, 2, 2), "u8"), None, None, None,
              np.array([0.0005], np.float32), np.array(0, np.uint8)), {"qmin": 3, "qmax": 60}),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        kind = check_types(n)
        x, w = n.arg(X), n.arg(W)
        shape = self.result_shape(x.shape, w.shape)
        check_bias(n, BIAS, w.shape[0], dtypes.i32)
        check_zero(n, X_ZERO, x.dtype, None)
        check_zero(n, W_ZERO, w.dtype, w.shape[0])
        check_zero(n, MULTIPLIER, dtypes.f32, w.shape[0])
        return [TensorType(shape, kind)]

    def ref(self, n: Node, *inputs: Any) -> Any:
        x, w, bias, xz, wz, multiplier, yz = inputs
        channel = (-1, *[1] * (w.ndim - 1))
        a = wide(x) - (0 if xz is None else int(np.ravel(xz)[0]))
        v = wide(w) - (0 if wz is None else wide(wz).reshape(channel))
        acc = self.ref_sum(a, v)
        if bias is not None:
            acc = acc + wide(bias).reshape(channel[:-1])
        return self.ref_requantize(acc, multiplier.reshape(channel[:-1]), yz)

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        def x(*i: Dim) -> Scalar:
            return less_zero(k, X, i, X_ZERO, 0)

        def w(*i: Dim) -> Scalar:
            return less_zero(k, W, i, W_ZERO, i[0])

        def element(*i: Dim) -> Scalar:
            acc = self.sum_of_products(k.node, i, x, w)
            if k.has(BIAS):
                acc = acc + k.x(BIAS)(i[1])
            return self.requantize(
                acc, one_of(k.x(MULTIPLIER), i[1]), one_of(k.x(Y_ZERO), 0), k.y().dtype
            )

        return k.map(element)


@operator
class QMatMul(Requantized):
    """x [..., m, k], w [..., k, n], bias i32 or absent, zero points as MatMulInteger has them,
    multiplier f32; bias and multiplier broadcast to the result."""

    qmin: int | None = None
    qmax: int | None = None
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((5, 7), "u8"), ((7, 3), "i8"), np.array([500, -900, 77], np.int32),
              np.array(3, np.uint8), None,
              np.array([0.01, 0.002, 0.1], np.float32), np.array(100, np.uint8))),
        Case((((2, 5, 7), "i8"), ((7, 3), "u8"), None, None, np.array([1, 200, 3], np.uint8),
              np.array(0.003, np.float32), np.array(-3, np.int8)), {"qmin": -3}),
        Case((((4,), "u8"), ((4, 2), "u8"), None, None, None, np.array(0.01, np.float32),
              np.array(0, np.uint8))),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        kind = check_types(n)
        shape = matmul_shape(n.arg(X).shape, n.arg(W).shape, self.name)
        check_points(n, X_ZERO, X)
        check_points(n, W_ZERO, W)
        bias = n.input(BIAS)
        if bias is not None and bias.dtype is not dtypes.i32:
            raise Refusal(f"{self.name} has a bias of {bias.dtype}, not i32")
        for v in (bias, n.arg(MULTIPLIER)):
            if v is not None and v.tensor.size != 1 and broadcast_shapes(shape, v.shape) != shape:
                raise Refusal(f"{list(v.shape)} does not broadcast to the result {list(shape)}")
        return [TensorType(shape, kind)]

    def ref(self, n: Node, *inputs: Any) -> Any:
        x, w, bias, xz, wz, multiplier, yz = inputs
        a = wide(x) if xz is None else wide(x) - row_points(wide(xz))
        v = wide(w) if wz is None else wide(w) - wide(wz)
        acc = np.matmul(a, v)
        if bias is not None:
            acc = acc + wide(bias)
        factor = multiplier if multiplier.size > 1 else np.ravel(multiplier)[0]
        return self.ref_requantize(acc, factor, yz)

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        def element(*i: Dim) -> Scalar:
            acc = integer_product(k, i, X, W, X_ZERO, W_ZERO)
            if k.has(BIAS):
                acc = acc + _spread(k.x(BIAS), i)
            return self.requantize(acc, _spread(k.x(MULTIPLIER), i), one_of(k.x(Y_ZERO), 0),
                                   k.y().dtype)  # fmt: skip

        return k.map(element)

    def macs(self, n: Node) -> int:
        return dims.upper(dims.mul(n.outputs[0].tensor.size, n.arg(0).shape[-1]))


def _spread(t: scalar.TensorExpr, index: Sequence[Dim]) -> Scalar:
    """One element for all, or NumPy's broadcasting."""
    if all(d == 1 for d in t.shape):
        return t(*[0] * len(t.shape))
    return t.broadcast(index)


def multiplier(b: Builder, x_scale: Value, w_scale: Value, y_scale: Value) -> Value:
    """x_scale * w_scale / y_scale in f32, made once if the scales are constant."""
    scales = [as_f32(b, v) for v in (x_scale, w_scale, y_scale)]
    return b.op(Div(), b.op(Mul(), scales[0], scales[1]), scales[2])


def as_f32(b: Builder, v: Value) -> Value:
    return v if v.dtype is dtypes.f32 else b.op(Cast(dtypes.f32), v)
