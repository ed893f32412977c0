"""ONNX's normalisations: statistics folded into constants where they are known."""

from __future__ import annotations

from collections.abc import Sequence

from onefold.frontend.onnx.rules import rule
from onefold.ir import dims, dtypes
from onefold.ir.dtypes import DType
from onefold.ir.graph import Builder, Value
from onefold.ops.base import Refusal, axis_of
from onefold.ops.cast import Cast
from onefold.ops.elementwise import Add, Div, Mul, Sub, trailing_ones
from onefold.ops.formats import OnnxNode
from onefold.ops.logic import Equal, Where
from onefold.ops.normalize import GroupNormalization, LayerNormalization, RMSNormalization
from onefold.ops.reduce import ReduceL1, ReduceL2, ReduceMean
from onefold.ops.unary import Sqrt


def wide(b: Builder, v: Value, kind: DType) -> Value:
    """v in another element type; v itself where it has it."""
    return v if v.dtype is kind else b.op(Cast(kind), v)


@rule("BatchNormalization")
def batch_normalization(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """(x - mean) / sqrt(var + epsilon) * scale + bias per channel, as x * factor + shift.

    Statistics are given, or taken from x in training mode: `training_mode` from opset 14 on,
    before that wherever more than one output is wanted and `is_test` is not set.
    """
    x = n.tensor(0)
    kind = x.dtype.compute
    if len(x.shape) < 2 and n.attr("spatial", 1):
        x_rank = 2
    else:
        x_rank = len(x.shape)
    scale, bias, mean, var = (wide(b, n.tensor(i), kind) for i in range(1, 5))
    training = bool(n.attr("training_mode", 0)) if n.opset >= 14 else (
        any(n.wants(i) for i in range(1, 5)) and not n.attr("is_test", 0))  # fmt: skip
    extra: list[Value] = []
    if training:
        used_mean, used_var = _batch_statistics(b, wide(b, x, kind), len(mean.shape))
        extra = _running(n, b, [mean, var], [used_mean, used_var], kind)
        mean, var = used_mean, used_var
    eps = b.const(float(n.attr("epsilon", 1e-5)), kind)
    factor = b.op(Div(), scale, b.op(Sqrt(), b.op(Add(), var, eps)))
    shift = b.op(Sub(), bias, b.op(Mul(), mean, factor))
    ones = x_rank - 1 - len(factor.shape)
    y = b.op(Mul(), wide(b, x, kind), trailing_ones(b, factor, ones))
    if x.dtype is kind:
        return [b.op(Add(), y, trailing_ones(b, shift, ones), name=n.output_names[0]), *extra]
    y = b.op(Add(), y, trailing_ones(b, shift, ones))
    return [b.op(Cast(x.dtype), y, name=n.output_names[0]), *extra]


def _batch_statistics(b: Builder, x: Value, rank: int) -> tuple[Value, Value]:
    axes = (0, *range(1 + rank, len(x.shape)))
    mean = b.op(ReduceMean(axes, True), x)
    off = b.op(Sub(), x, mean)
    var = b.op(ReduceMean(axes, False), b.op(Mul(), off, off))
    return b.op(ReduceMean(axes, False), x), var


def _running(
    n: OnnxNode, b: Builder, old: Sequence[Value], new: Sequence[Value], kind: DType
) -> list[Value]:
    momentum = float(n.attr("momentum", 0.9))
    out = []
    for i, (before, now) in enumerate(zip(old, new, strict=True)):
        kept = b.op(Mul(), before, b.const(momentum, kind))
        mixed = b.op(Add(), kept, b.op(Mul(), now, b.const(1 - momentum, kind)))
        out.append(wide(b, mixed, n.tensor(3 + i).dtype))
    if n.opset < 14:  # the two outputs behind are the statistics of this batch
        out += list(new)
    return out


@rule("InstanceNormalization")
def instance_normalization(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Every channel of every image normalised by its own mean and variance."""
    op = GroupNormalization(0, float(n.attr("epsilon", 1e-5)))
    return b.ops(op, n.tensor(0), n.tensor(1), n.tensor(2), name=n.output_names)


@rule("GroupNormalization")
def group_normalization(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Groups of channels; scale and bias are those of groups in opset 18, of channels later."""
    groups = int(n.attr("num_groups", 0))
    if groups < 1:
        raise Refusal(f"num_groups is {groups}")
    op = GroupNormalization(groups, float(n.attr("epsilon", 1e-5)), n.opset < 21)
    return b.ops(op, n.tensor(0), n.tensor(1), n.tensor(2), name=n.output_names)


def _fits(v: Value | None, shape: dims.Shape) -> bool:
    return v is None or v.shape == shape


@rule("LayerNormalization")
def layer_normalization(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Rows from `axis` on; a scale or bias that has to be broadcast is applied afterwards."""
    x = n.tensor(0)
    axis = axis_of(int(n.attr("axis", -1)), len(x.shape))
    stats = n.wants(1) or n.wants(2)
    kind = dtypes.f64 if x.dtype is dtypes.f64 and n.attr("stash_type", 1) == 11 else dtypes.f32
    op = LayerNormalization(axis, float(n.attr("epsilon", 1e-5)), stats, kind)
    return _affine(n, b, op, [n.tensor(1), n.input(2)], axis)


@rule("RMSNormalization", "SimplifiedLayerNormalization",
      "com.microsoft:SimplifiedLayerNormalization")  # fmt: skip
def rms_normalization(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Rows from `axis` on divided by their root mean square."""
    axis = axis_of(int(n.attr("axis", -1)), len(n.tensor(0).shape))
    op = RMSNormalization(axis, float(n.attr("epsilon", 1e-5)), n.wants(1))
    return _affine(n, b, op, [n.tensor(1)], axis)


def _affine(
    n: OnnxNode,
    b: Builder,
    op: LayerNormalization | RMSNormalization,
    parameters: Sequence[Value | None],
    axis: int,
) -> list[Value]:
    x = n.tensor(0)
    kinds = {p.dtype for p in parameters if p is not None}
    if all(_fits(p, x.shape[axis:]) for p in parameters) and kinds <= {x.dtype}:
        return b.ops(op, x, *parameters, name=n.output_names)
    y, *rest = b.ops(op, x)
    (kind,) = kinds if len(kinds) == 1 else (x.dtype,)
    y = wide(b, y, kind)
    for p, apply in zip(parameters, (Mul(), Add()), strict=False):
        if p is not None:
            y = b.op(apply, y, wide(b, p, kind))
    if y.shape != x.shape:
        raise Refusal(f"scale and bias do not broadcast to {x.tensor}")
    return [y, *rest]


@rule("LpNormalization")
def lp_normalization(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """x / norm along an axis; 0 where the norm is 0."""
    x, p = n.tensor(0), int(n.attr("p", 2))
    axis = (int(n.attr("axis", -1)),)
    if p not in (1, 2):
        raise Refusal(f"p is {p}, neither 1 nor 2")
    norm = b.op(ReduceL1(axis) if p == 1 else ReduceL2(axis), x)
    zero, one = b.const(0, x.dtype), b.const(1, x.dtype)
    safe = b.op(Where(), b.op(Equal(), norm, zero), one, norm)
    return b.ops(Div(), x, safe, name=n.output_names)


@rule("MeanVarianceNormalization")
def mean_variance_normalization(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """(x - mean) / (standard deviation + 1e-9) over `axes`."""
    x = n.tensor(0)
    across = n.opset < 9 and n.attr("across_channels", 0)
    default = (0, 1, 2, 3) if across else (0, 2, 3)
    axes = tuple(int(a) for a in n.attr("axes", default))
    off = b.op(Sub(), x, b.op(ReduceMean(axes), x))
    deviation = b.op(Sqrt(), b.op(ReduceMean(axes), b.op(Mul(), off, off)))
    return b.ops(
        Div(), off, b.op(Add(), deviation, b.const(1e-9, x.dtype)), name=n.output_names
    )
