"""Reductions, positions of extremes, sorting and counting."""

from __future__ import annotations

from collections.abc import Sequence

from onefold.frontend.tflite.arithmetic import quantize_multiplier, scale_of, zero_of
from onefold.frontend.tflite.common import canonical, ints, is_quantized
from onefold.frontend.tflite.rules import tflite_rule
from onefold.ir import dims, dtypes
from onefold.ir.graph import Builder, Value
from onefold.ops.base import Refusal, axis_of
from onefold.ops.cast import Cast, Identity
from onefold.ops.formats import TfliteNode
from onefold.ops.quant_pool import QuantSum

KINDS = {
    "SUM": "ReduceSum", "REDUCE_PROD": "ReduceProd", "REDUCE_MAX": "ReduceMax",
    "REDUCE_MIN": "ReduceMin", "MEAN": "ReduceMean",
}  # fmt: skip


@tflite_rule(*KINDS)
def reduce(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    axes = tuple(sorted({axis_of(a, len(x.shape)) for a in ints(n, 1, "axes")}))
    keep = bool(n.option("keep_dims", False))
    if not axes or not x.shape:
        return b.ops(Identity(), x)
    if is_quantized(x) and n.op_type in ("SUM", "MEAN"):
        return _quantized_sum(n, b, axes, keep)
    if is_quantized(x) and (n.op_type == "REDUCE_PROD" or x.quant != n.output_types[0].quant):
        raise Refusal(f"{n.op_type} of quantized {x.dtype} to another scale")
    return b.ops(canonical(KINDS[n.op_type], axes=axes, keepdims=keep), x)


def _quantized_sum(
    n: TfliteNode, b: Builder, axes: tuple[int, ...], keep: bool
) -> Sequence[Value]:
    x, y = n.arg(0), n.output_types[0]
    count = dims.product(x.shape[a] for a in axes)
    m, shift = quantize_multiplier(scale_of(x) / scale_of(y))
    if n.op_type == "MEAN":
        if not isinstance(count, int) or not count:
            raise Refusal(f"the mean of {count} elements")
        # The division by the count goes into the multiplier.
        left = min(count.bit_length() - 1, 32, 31 + shift)
        m, shift = (m << left) // count, shift - left
    return b.ops(QuantSum(axes, keep, zero_of(x), zero_of(y), (m, shift)), x)


@tflite_rule("REDUCE_ANY", "REDUCE_ALL")
def reduce_bool(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    axes = tuple(sorted({axis_of(a, len(x.shape)) for a in ints(n, 1, "axes")}))
    if not axes:
        return b.ops(Identity(), x)
    kind = "ReduceMax" if n.op_type == "REDUCE_ANY" else "ReduceMin"
    op = canonical(kind, axes=axes, keepdims=bool(n.option("keep_dims", False)))
    return b.ops(Cast(dtypes.b1), b.op(op, b.op(Cast(dtypes.u8), x)))


@tflite_rule("ARG_MAX", "ARG_MIN")
def arg_extreme(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    axis = ints(n, 1, "axis")
    if len(axis) != 1:
        raise Refusal(f"{len(axis)} axes")
    name = "ArgMax" if n.op_type == "ARG_MAX" else "ArgMin"
    y = b.op(canonical(name, axis=axis_of(axis[0], len(x.shape)), keepdims=False), x)
    return [_as(b, y, n)]


def _as(b: Builder, y: Value, n: TfliteNode, k: int = 0) -> Value:
    kind = n.output_types[k].dtype
    return y if y.dtype is kind else b.op(Cast(kind), y)
