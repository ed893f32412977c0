"""Operators on quantized tensors whose scales are inputs."""

from __future__ import annotations

from collections.abc import Sequence

from onefold.frontend.onnx.rules import rule, rules
from onefold.ir import dtypes
from onefold.ir.graph import Builder, Value
from onefold.ops.base import Refusal, registry
from onefold.ops.cast import Cast
from onefold.ops.conv import conv_fields
from onefold.ops.elementwise import Add, Mul
from onefold.ops.formats import OnnxNode
from onefold.ops.matmul import MatMul, MatMulInteger
from onefold.ops.movement import Transpose
from onefold.ops.pool import AveragePool, whole_window
from onefold.ops.quantize import DequantizeLinear, QuantizeLinear
from onefold.ops.quantized import QConv, QMatMul, as_f32, multiplier
from onefold.ops.shape import Reshape
from onefold.ops.window import window_of


def zero_of(b: Builder, zero: Value | None, like: dtypes.DType) -> Value:
    return b.const(0, like, name="zero") if zero is None else zero


def channels_first(b: Builder, x: Value) -> Value:
    rank = len(x.shape)
    return b.op(Transpose((0, rank - 1, *range(1, rank - 1))), x)


def channels_last(b: Builder, x: Value) -> Value:
    rank = len(x.shape)
    return b.op(Transpose((0, *range(2, rank), 1)), x)


@rule("QLinearConv", "com.microsoft:QLinearConv")
def qlinear_conv(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias."""
    x, w = n.arg(0), n.arg(3)
    last = bool(n.attr("channels_last", 0))
    if last:
        x = channels_first(b, x)
    op = QConv(**conv_fields(n, x, w))
    m = multiplier(b, n.arg(1), n.arg(4), n.arg(6))
    y = b.op(op, x, w, n.input(8), n.input(2), n.input(5), m, zero_of(b, n.input(7), x.dtype))
    return [channels_last(b, y) if last else y]


@rule("QLinearMatMul")
def qlinear_matmul(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero; eight-bit floats are computed in the
    type of the scale."""
    x, w = n.arg(0), n.arg(3)
    if x.dtype.is_float:
        a = b.op(DequantizeLinear(axis=max(len(x.shape) - 2, 0)), x, n.arg(1), n.input(2))
        c = b.op(DequantizeLinear(axis=len(w.shape) - 1), w, n.arg(4), n.input(5))
        y = b.op(MatMul(), a, c)
        zero = n.arg(7)
        return b.ops(QuantizeLinear(to=zero.dtype), y, n.arg(6), zero, name=n.output_names)
    scale = n.arg(1)
    if len(scale.shape) == 1 and scale.tensor.size != 1:
        scale = b.op(Reshape((scale.shape[0], 1)), scale)
    m = multiplier(b, scale, n.arg(4), n.arg(6))
    return b.ops(QMatMul(), x, w, None, n.input(2), n.input(5), m, zero_of(b, n.input(7), x.dtype),
                 name=n.output_names)  # fmt: skip


@rule("com.microsoft:QGemm")
def qgemm(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """a, a_scale, a_zero, b, b_scale, b_zero, c (i32), y_scale, y_zero; without y_scale the result
    is a float."""
    x, w, c = n.arg(0), n.arg(3), n.input(6)
    if n.attr("transA", 0):
        x = b.op(Transpose((1, 0)), x)
    if n.attr("transB", 0):
        w = b.op(Transpose((1, 0)), w)
    scale = as_f32(b, n.arg(1))
    if n.attr("alpha", 1.0) != 1.0:
        scale = b.op(Mul(), scale, b.const(n.attr("alpha"), dtypes.f32))
    if n.input(7) is None:
        acc = b.op(MatMulInteger(), x, w, n.input(2), n.input(5))
        acc = acc if c is None else b.op(Add(), acc, c)
        both = b.op(Mul(), scale, as_f32(b, n.arg(4)))
        return b.ops(Mul(), b.op(Cast(dtypes.f32), acc), both, name=n.output_names)
    m = multiplier(b, scale, n.arg(4), n.arg(7))
    return b.ops(QMatMul(), x, w, c, n.input(2), n.input(5), m, zero_of(b, n.input(8), x.dtype),
                 name=n.output_names)  # fmt: skip


def integer_to_float(
    b: Builder, x: Value, w: Value, scales: tuple[Value, Value],
    zeros: tuple[Value | None, Value | None], bias: Value | None,
) -> Value:  # fmt: skip
    """(x - x_zero) @ (w - w_zero) * x_scale * w_scale + bias."""
    acc = b.op(MatMulInteger(), x, w, *zeros)
    y = b.op(Mul(), b.op(Cast(scales[0].dtype), acc), b.op(Mul(), *scales))
    return y if bias is None else b.op(Add(), y, bias)


@rule("com.microsoft:MatMulIntegerToFloat")
def matmul_integer_to_float(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """a, b, a_scale, b_scale, a_zero, b_zero, bias."""
    scales, zeros = (n.arg(2), n.arg(3)), (n.input(4), n.input(5))
    return [integer_to_float(b, n.arg(0), n.arg(1), scales, zeros, n.input(6))]


def dynamically_quantized(b: Builder, x: Value) -> list[Value]:
    """x as u8, its scale and zero point."""
    n = OnnxNode("DynamicQuantizeLinear", "", 11, "", {}, [x], ["", "", ""])
    if n.op_type in rules:
        return list(rules[n.op_type](n, b))
    return list(registry.onnx[n.op_type].from_onnx(n, b))


@rule("com.microsoft:DynamicQuantizeMatMul")
def dynamic_quantize_matmul(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """a (float), b, b_scale, b_zero, bias."""
    x, scale, zero = dynamically_quantized(b, n.arg(0))
    scales, zeros = (scale, n.arg(2)), (zero, n.input(3))
    return [integer_to_float(b, x, n.arg(1), scales, zeros, n.input(4))]


@rule("com.microsoft:QLinearAveragePool")
def qlinear_average_pool(n: OnnxNode, b: Builder) -> Sequence[Value]:
    return _pooled(n, b, False)


@rule("com.microsoft:QLinearGlobalAveragePool")
def qlinear_global_average_pool(n: OnnxNode, b: Builder) -> Sequence[Value]:
    return _pooled(n, b, True)


def _pooled(n: OnnxNode, b: Builder, whole: bool) -> Sequence[Value]:
    """x, x_scale, x_zero, y_scale, y_zero: the mean in float, requantized."""
    x = n.arg(0)
    if len(x.shape) < 3:
        raise Refusal(f"{n.op_type} of rank {len(x.shape)}")
    last = bool(n.attr("channels_last", 0))
    if last:
        x = channels_first(b, x)
    if whole:
        op = AveragePool(whole_window(x, n.op_type))
    else:
        w = window_of(n, x.shape[2:], ())
        op = AveragePool(w.kernel, w.strides, w.pads, w.dilations, bool(n.attr("ceil_mode", 0)),
                         bool(n.attr("count_include_pad", 0)))  # fmt: skip
    y = b.op(op, b.op(DequantizeLinear(), x, n.arg(1), n.input(2)))
    zero = zero_of(b, n.input(4), x.dtype)
    y = b.op(QuantizeLinear(to=zero.dtype), y, n.arg(3), zero)
    return [channels_last(b, y) if last else y]
