"""Convolutions, fully connected layers, pooling, softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onefold.frontend.tflite.arithmetic import (
    activation_range,
    f32,
    quantize_multiplier,
    scale_of,
    zero_of,
)
from onefold.frontend.tflite.common import (
    activate,
    canonical,
    is_quantized,
    rank_of,
    reshaped,
    to_nchw,
    to_nhwc,
    transposed,
)
from onefold.frontend.tflite.rules import tflite_rule
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Builder, Value
from onefold.ir.types import TensorType
from onefold.ops import fixedpoint as fx
from onefold.ops.base import Refusal
from onefold.ops.conv import Conv
from onefold.ops.formats import TfliteNode
from onefold.ops.hybrid import DynamicQuantize, HybridConv2D, HybridDepthwiseConv2D, HybridMatMul
from onefold.ops.matmul import Gemm
from onefold.ops.pool import AveragePool, MaxPool
from onefold.ops.quant_conv import QuantConv2D, QuantDepthwiseConv2D, QuantFullyConnected
from onefold.ops.quant_pool import QuantPool2D, QuantSoftmax
from onefold.ops.window import LARGEST, same_pads


def windows(
    n: TfliteNode, sizes: Sequence[Dim], kernel: Sequence[Dim]
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int]]:
    """(strides, dilations, pads) of a 2-D window; pads are top, left, bottom, right."""
    strides = (int(n.option("stride_h", 1)), int(n.option("stride_w", 1)))
    dilations = (int(n.option("dilation_h_factor", 1)), int(n.option("dilation_w_factor", 1)))
    if min(strides) < 1 or min(dilations) < 1 or max(*strides, *dilations) > LARGEST:
        raise Refusal(f"strides {strides} and dilations {dilations}")
    if n.option("padding", "SAME") == "VALID":
        return strides, dilations, (0, 0, 0, 0)
    pads: list[tuple[int, int]] = []
    for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        if not (isinstance(size, int) and isinstance(k, int)):
            raise Refusal("padding SAME needs the size of the image to be known")
        begin, end = same_pads(size, (k - 1) * d + 1, s, True)
        pads.append((int(begin), int(end)))  # type: ignore[arg-type]
    return strides, dilations, (pads[0][0], pads[1][0], pads[0][1], pads[1][1])


def multipliers(
    b: Builder, x: Value, w: Value, y: TensorType, axis: int, single: bool = False
) -> tuple[Value, Value]:
    """Constants multiplier and shift, one per channel where the weights have several scales.

    single: the product of the two scales is rounded to single precision first.
    """
    q = w.quant
    if q is None or min(q.scale, default=0) <= 0:
        raise Refusal(f"the weights '{w.name}' have no positive scales")
    sx, sy = scale_of(x), scale_of(y)
    if len(q.scale) > 1 and (q.axis != axis or len(q.scale) != w.shape[axis]):
        raise Refusal(f"{len(q.scale)} scales along axis {q.axis} of weights {w.shape}")
    if len(q.scale) == 1 and single:
        reals = [f32(sx * q.scale[0]) / sy]
    else:
        reals = [sx * s / sy for s in q.scale]
    pairs = [quantize_multiplier(r) for r in reals]
    return (
        b.const([m for m, _ in pairs], dtypes.i32, "multiplier"),
        b.const([s for _, s in pairs], dtypes.i32, "shift"),
    )


def integers(n: TfliteNode, x: Value, w: Value, bias: Value | None) -> dict[str, Any]:
    """The fields that integer contractions share."""
    y = n.output_types[0]
    lo, hi = activation_range(n.option("fused_activation_function", "NONE"), y)
    zeros = set(w.quant.zero_point) if w.quant is not None else {0}
    if len(zeros) > 1:
        raise Refusal("the weights have several zero points")
    if x.dtype is not y.dtype:
        raise Refusal(f"{x.dtype} in, {y.dtype} out")
    zero_w = zeros.pop() if w.dtype is dtypes.u8 else 0
    wide = x.dtype is dtypes.i16 and (bias is None or bias.dtype is dtypes.i64)
    return {
        "zero_x": zero_of(x), "zero_w": zero_w, "zero_y": zero_of(y), "lo": lo, "hi": hi,
        "dtype": y.dtype, "wide": wide,
    }  # fmt: skip


@tflite_rule("CONV_2D")
def conv_2d(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, w, bias = n.arg(0), n.arg(1), n.input(2)
    rank_of(x, 4), rank_of(w, 4)
    strides, dilations, pads = windows(n, x.shape[1:3], w.shape[1:3])
    if is_quantized(x):
        m, s = multipliers(b, x, w, n.output_types[0], 0, w.dtype is dtypes.u8)
        op = QuantConv2D(**integers(n, x, w, bias), strides=strides, dilations=dilations, pads=pads)
        return b.ops(op, x, w, bias, m, s)
    act = n.option("fused_activation_function", "NONE")
    if w.dtype is dtypes.i8:
        per_channel = w.quant is not None and len(w.quant.scale) > 1
        q, scale, zero = b.ops(DynamicQuantize(asymmetric=per_channel), x)
        h = HybridConv2D(strides, dilations, pads)
        return [activate(b, b.op(h, q, w, bias, scale, zero, weight_scales(b, w)), act)]
    if w.shape[3] != x.shape[3] and not (
        isinstance(w.shape[3], int) and isinstance(x.shape[3], int) and w.shape[3]
        and x.shape[3] % w.shape[3] == 0
    ):  # fmt: skip
        raise Refusal(f"{x.shape[3]} channels do not fit weights of {w.shape[3]}")
    if w.shape[3] == 0:
        raise Refusal("its weights have no channels")
    group = x.shape[3] // w.shape[3]
    conv = Conv(strides, pads, dilations, int(group))  # type: ignore[arg-type]
    y = b.op(conv, to_nchw(b, x), transposed(b, w, (0, 3, 1, 2)), bias)
    return [to_nhwc(b, activate(b, y, act))]


def weight_scales(b: Builder, w: Value) -> Value:
    if w.quant is None:
        raise Refusal(f"the weights '{w.name}' have no scale")
    return b.const(list(w.quant.scale), dtypes.f32, "scales")


@tflite_rule("DEPTHWISE_CONV_2D")
def depthwise_conv_2d(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, w, bias = n.arg(0), n.arg(1), n.input(2)
    rank_of(x, 4), rank_of(w, 4)
    strides, dilations, pads = windows(n, x.shape[1:3], w.shape[1:3])
    if is_quantized(x):
        m, s = multipliers(b, x, w, n.output_types[0], 3, w.dtype is dtypes.u8)
        op = QuantDepthwiseConv2D(
            **integers(n, x, w, bias), strides=strides, dilations=dilations, pads=pads
        )
        return b.ops(op, x, w, bias, m, s)
    act = n.option("fused_activation_function", "NONE")
    if w.dtype is dtypes.i8:
        q, scale, zero = b.ops(DynamicQuantize(asymmetric=True), x)
        h = HybridDepthwiseConv2D(strides, dilations, pads)
        return [activate(b, b.op(h, q, w, bias, scale, zero, weight_scales(b, w)), act)]
    c = x.shape[3]
    if not isinstance(c, int) or not c or w.shape[0] != 1:
        raise Refusal(f"weights {w.shape} do not fit {c} channels")
    conv = Conv(strides, pads, dilations, c)
    y = b.op(conv, to_nchw(b, x), transposed(b, w, (3, 0, 1, 2)), bias)
    return [to_nhwc(b, activate(b, y, act))]


@tflite_rule("FULLY_CONNECTED")
def fully_connected(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, w, bias = n.arg(0), n.arg(1), n.input(2)
    rank_of(w, 2)
    if n.option("weights_format", "DEFAULT") != "DEFAULT":
        raise Refusal(f"weights in the format {n.option('weights_format')}")
    depth, units = w.shape[1], w.shape[0]
    if not isinstance(depth, int) or not depth:
        raise Refusal("the weights are empty")
    flat = reshaped(b, x, (dims.floordiv(x.tensor.size, depth), depth))
    if is_quantized(x):
        m, s = multipliers(b, x, w, n.output_types[0], 0)
        # Unlike convolutions, TFLite's reference rounds once here, halves away from zero.
        fields = integers(n, x, w, bias) | {"once": x.dtype.bits == 8}
        y = b.op(QuantFullyConnected(**fields), flat, w, bias, m, s)
    elif w.dtype is dtypes.i8:
        asymmetric = bool(n.option("asymmetric_quantize_inputs", False))
        q, scale, zero = b.ops(DynamicQuantize(asymmetric=asymmetric), flat)
        y = b.op(HybridMatMul(), q, w, bias, scale, zero, weight_scales(b, w))
    else:
        y = b.op(Gemm(transB=True), flat, w, bias)
    if not is_quantized(x):
        y = activate(b, y, n.option("fused_activation_function", "NONE"))
    if n.option("keep_num_dims", False):
        y = reshaped(b, y, (*x.shape[:-1], units))
    return [y]


@tflite_rule("AVERAGE_POOL_2D", "MAX_POOL_2D")
def pool_2d(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    rank_of(x, 4)
    kernel = (int(n.option("filter_height", 0)), int(n.option("filter_width", 0)))
    strides, _, pads = windows(n, x.shape[1:3], kernel)
    act = n.option("fused_activation_function", "NONE")
    most = n.op_type == "MAX_POOL_2D"
    if x.dtype.is_int:
        lo, hi = activation_range(act, n.output_types[0]) if x.quant else (x.dtype.lo, x.dtype.hi)
        kind = "max" if most else "average"
        return b.ops(QuantPool2D(kind, kernel, strides, pads, lo, hi), x)
    op = (MaxPool if most else AveragePool)(kernel_shape=kernel, strides=strides, pads=pads)
    return [to_nhwc(b, activate(b, b.op(op, to_nchw(b, x)), act))]


@tflite_rule("SOFTMAX")
def softmax(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, beta = n.arg(0), float(n.option("beta", 1.0))
    y = n.output_types[0]
    if x.dtype in (dtypes.i8, dtypes.u8):
        table = b.const(_softmax_table(scale_of(x), beta), dtypes.i32, "exp")
        return b.ops(QuantSoftmax(y.dtype), x, table)
    if x.dtype.is_int:
        raise Refusal(f"softmax of {x.dtype}")
    if beta != 1:
        x = b.op(canonical("Mul"), x, b.const(beta, x.dtype))
    return b.ops(canonical("Softmax", axis=-1), x)


def _softmax_table(scale: float, beta: float) -> np.ndarray[Any, np.dtype[np.int64]]:
    """exp of the 256 possible differences to the maximum, with 0 integer bits."""
    real = min(beta * scale * (1 << 26), float((1 << 31) - 1))
    if real <= 1:
        raise Refusal(f"a softmax over a scale of {scale:g}")
    m, shift = quantize_multiplier(real)
    least = -int(((1 << 5) - 1) * (1 << 26) / (1 << shift))
    d = -np.arange(256, dtype=np.int64)
    scaled = fx.multiply_by_quantized_multiplier_greater_than_one(d, m, shift)
    return np.where(d >= least, fx.FIXED32.exp_on_negative_values(scaled, 5), 0)


@tflite_rule("BATCH_MATMUL")
def batch_matmul(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, w = n.arg(0), n.arg(1)
    if not (x.dtype.is_float and w.dtype.is_float):
        raise Refusal(f"a batched product of {x.dtype} and {w.dtype}")
    if len(x.shape) < 2 or len(w.shape) < 2:
        raise Refusal("a batched product of less than two axes")
    if n.option("adj_x", False):
        x = _swapped(b, x)
    if n.option("adj_y", False):
        w = _swapped(b, w)
    return b.ops(canonical("MatMul"), x, w)


def _swapped(b: Builder, v: Value) -> Value:
    r = len(v.shape)
    return transposed(b, v, (*range(r - 2), r - 1, r - 2))

