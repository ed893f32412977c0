"""Operators on quantized tensors as dequantize, float operator, quantize.

The planner fuses such a chain into one loop; the arithmetic is that of ONNX Runtime, which computes
these operators in float too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onefold.frontend.onnx.rules import rule
from onefold.ir.graph import Builder, Value
from onefold.ops.activation import LeakyRelu, Sigmoid
from onefold.ops.base import Refusal, axis_of
from onefold.ops.elementwise import Add, Mul
from onefold.ops.formats import OnnxNode
from onefold.ops.quantize import DequantizeLinear, DynamicRange, QuantizeLinear
from onefold.ops.reduce import ReduceMean
from onefold.ops.softmax import Softmax


def dequantized(b: Builder, n: OnnxNode, first: int, axis: int = 1) -> Value:
    """Inputs first..first + 2 (tensor, scale, zero point) as a float tensor."""
    return b.op(DequantizeLinear(axis), n.tensor(first), n.tensor(first + 1), n.input(first + 2))


def quantized(b: Builder, n: OnnxNode, y: Value, first: int) -> list[Value]:
    """y by the scale and zero point of inputs first and first + 1; of the type of input 0 where
    there is no zero point."""
    zero = n.input(first + 1)
    to = n.tensor(0).dtype if zero is None else zero.dtype
    return b.ops(QuantizeLinear(to=to), y, n.tensor(first), zero, name=n.output_names)


@rule("DynamicQuantizeLinear")
def dynamic_quantize_linear(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """uint8 over the range of the data, which is made to hold 0; a tensor of zeros has scale 1."""
    x = n.tensor(0)
    scale, point = b.ops(DynamicRange(), x, name=n.output_names[1:3])
    return [b.op(QuantizeLinear(), x, scale, point, name=n.output_names[0]), scale, point]


def _two(n: OnnxNode, b: Builder, op: Add | Mul) -> list[Value]:
    y = b.op(op, dequantized(b, n, 0), dequantized(b, n, 3))
    return quantized(b, n, y, 6)


@rule("com.microsoft:QLinearAdd")
def qlinear_add(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """a + b."""
    return _two(n, b, Add())


@rule("com.microsoft:QLinearMul")
def qlinear_mul(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """a * b."""
    return _two(n, b, Mul())


def _one(n: OnnxNode, b: Builder, f: Callable[[Value], Value]) -> list[Value]:
    return quantized(b, n, f(dequantized(b, n, 0)), 3)


@rule("com.microsoft:QLinearSigmoid")
def qlinear_sigmoid(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """1 / (1 + exp(-x))."""
    return _one(n, b, lambda x: b.op(Sigmoid(), x))


@rule("com.microsoft:QLinearLeakyRelu")
def qlinear_leaky_relu(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """x above 0, alpha x below."""
    op = LeakyRelu(float(n.attr("alpha", 0.01)))
    return _one(n, b, lambda x: b.op(op, x))


@rule("com.microsoft:QLinearSoftmax")
def qlinear_softmax(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Softmax over an axis, or over all axes from it on where `opset` is below 13."""
    rank = len(n.tensor(0).shape)
    axis = axis_of(int(n.attr("axis", -1)), rank)
    op = Softmax(axis, 1 if int(n.attr("opset", 13)) >= 13 else rank - axis)
    return _one(n, b, lambda x: b.op(op, x))


@rule("com.microsoft:QLinearReduceMean")
def qlinear_reduce_mean(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """The mean over axes."""
    axes = n.attr("axes")
    if axes is not None and any(not isinstance(a, int) for a in axes):
        raise Refusal(f"axes are {axes}")
    op = ReduceMean(tuple(axes) if axes else None, bool(n.attr("keepdims", 1)))
    return _one(n, b, lambda x: b.op(op, x))
