"""ONNX operators made of elementwise ones."""

from __future__ import annotations

from collections.abc import Sequence

from onefold.frontend.onnx.rules import rule
from onefold.ir import dtypes
from onefold.ir.graph import Builder, Value
from onefold.ops.activation import Gelu, Swish
from onefold.ops.base import NeedsValue, Refusal
from onefold.ops.cast import Cast, FilledLike, Identity
from onefold.ops.elementwise import Add, Mul
from onefold.ops.formats import OnnxNode
from onefold.ops.logic import Greater
from onefold.ops.random import dropout_mask


@rule("CastLike")
def cast_like(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Cast to the element type of the second input."""
    op = Cast(n.tensor(1).dtype, bool(n.attr("saturate", 1)), str(n.attr("round_mode", "up")))
    return b.ops(op, n.tensor(0), name=n.output_names)


@rule("SwiGLU")
def swiglu(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Swish(a) * b, of equal shapes."""
    x, y = n.tensor(0), n.tensor(1)
    if len(x.shape) != len(y.shape):
        raise Refusal(f"the gate is {x.tensor} and the value {y.tensor}, not of one shape")
    gate = b.op(Swish(float(n.attr("alpha", 1.0))), x)
    return b.ops(Mul(), gate, y, name=n.output_names)


@rule("ai.onnx.ml:Binarizer")
def binarizer(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """1 above the threshold, else 0, of the input's type."""
    x = n.tensor(0)
    above = b.op(Greater(), x, b.const(n.attr("threshold", 0.0), x.dtype))
    return b.ops(Cast(x.dtype), above, name=n.output_names)


@rule("Dropout")
def dropout(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """The input as it is, and a mask of ones; in training mode a random mask, scaled up.

    Before opset 12 dropout only trains where `is_test` (up to 6) is 0 and a mask is wanted: models
    for inference are exported with is_test left out as well, so they are taken as inference.
    """
    x = n.tensor(0)
    ratio = n.attr("ratio", 0.5) if n.opset < 12 else _number(n, 1, 0.5)
    training = bool(_number(n, 2, 0)) if n.opset >= 12 else False
    mask_type = x.dtype if n.opset < 10 else dtypes.b1
    if training and not 0 <= ratio < 1:
        raise Refusal(f"a ratio of {ratio}")
    if training and ratio > 0:
        mask = dropout_mask(n, b, x, float(ratio))
        kept = b.op(Mul(), b.op(Cast(x.dtype), mask), b.const(1 / (1 - ratio), x.dtype))
        return [b.op(Mul(), x, kept, name=n.output_names[0]), mask]
    y = b.op(Identity(), x, name=n.output_names[0])
    return [y, b.op(FilledLike(1, mask_type), x)] if n.wants(1) else [y]


def _number(n: OnnxNode, i: int, default: float) -> float:
    """A scalar input that decides what is built. Raises NeedsValue where only run time knows it."""
    v = n.input(i)
    if v is None:
        return default
    if v.data is None:
        raise NeedsValue(v, f"{n.op_type} needs its ratio and mode to be compiled")
    if v.data.size != 1 or v.data.dtype == object:
        raise Refusal(f"input {i} is {v.tensor}, not a single number")
    return float(v.data.reshape(-1)[0])


@rule("com.microsoft:FastGelu")
def fast_gelu(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Gelu by tanh of x plus an optional bias."""
    x, bias = n.tensor(0), n.input(1)
    return b.ops(Gelu("tanh"), x if bias is None else b.op(Add(), x, bias), name=n.output_names)


@rule("com.microsoft:BiasGelu")
def bias_gelu(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Gelu of a + b."""
    return b.ops(Gelu(), b.op(Add(), n.tensor(0), n.tensor(1)), name=n.output_names)


@rule("com.microsoft:QuickGelu")
def quick_gelu(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """x sigmoid(alpha x)."""
    return b.ops(Swish(float(n.attr("alpha", 1.702))), n.tensor(0), name=n.output_names)
