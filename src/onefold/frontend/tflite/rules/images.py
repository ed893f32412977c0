"""Resizing, transposed and 3-D convolutions, normalizations of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onefold.frontend.tflite.common import (
    activate,
    canonical,
    ints,
    is_quantized,
    rank_of,
    scalar_const,
    to_nchw,
    to_nhwc,
    transposed,
)
from onefold.frontend.tflite.rules import tflite_rule
from onefold.ir import dims
from onefold.ir.graph import Builder, Value
from onefold.ops.base import Refusal
from onefold.ops.conv import Conv
from onefold.ops.formats import TfliteNode
from onefold.ops.movement import Slice
from onefold.ops.nhwc_resize import ResizeBilinear2D, ResizeNearest2D
from onefold.ops.window import LARGEST, same_pads


@tflite_rule("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
def resize(n: TfliteNode, b: Builder) -> Sequence[Value]:
    size = ints(n, 1, "size")
    if len(size) != 2 or min(size) < 1 or max(size) > LARGEST:
        raise Refusal(f"an image of size {list(size)}")
    op: Any = ResizeBilinear2D if n.op_type == "RESIZE_BILINEAR" else ResizeNearest2D
    fields = {k: bool(n.option(k, False)) for k in ("align_corners", "half_pixel_centers")}
    return b.ops(op((size[0], size[1]), **fields), n.arg(0))


def pads_of(
    n: TfliteNode, sizes: Sequence[Any], kernel: Sequence[Any], strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...]:  # fmt: skip
    """All begins, then all ends."""
    if n.option("padding", "SAME") == "VALID":
        return (0,) * (2 * len(sizes))
    pads = []
    for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        if not (isinstance(size, int) and isinstance(k, int)):
            raise Refusal("padding SAME needs the size of the image to be known")
        pads.append(same_pads(size, (k - 1) * d + 1, s, True))
    return tuple(int(p[0]) for p in pads) + tuple(int(p[1]) for p in pads)  # type: ignore[arg-type]


@tflite_rule("CONV_3D")
def conv_3d(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, w = n.arg(0), n.arg(1)
    rank_of(x, 5), rank_of(w, 5)
    strides = tuple(int(n.option(f"stride_{a}", 1)) for a in "dhw")
    dilations = tuple(int(n.option(f"dilation_{a}_factor", 1)) for a in "dhw")
    if min(*strides, *dilations) < 1:
        raise Refusal(f"strides {strides} and dilations {dilations}")
    pads = pads_of(n, x.shape[1:4], w.shape[:3], strides, dilations)
    conv = Conv(strides, pads, dilations, 1)
    y = b.op(conv, to_nchw(b, x), transposed(b, w, (4, 3, 0, 1, 2)), n.input(2))
    return [to_nhwc(b, activate(b, y, n.option("fused_activation_function", "NONE")))]


@tflite_rule("TRANSPOSE_CONV")
def transpose_conv(n: TfliteNode, b: Builder) -> Sequence[Value]:
    shape, w, x, bias = ints(n, 0, "shape"), n.arg(1), n.arg(2), n.input(3)
    rank_of(x, 4), rank_of(w, 4)
    if is_quantized(x):
        raise Refusal("a transposed convolution of quantized values")
    strides = (int(n.option("stride_h", 1)), int(n.option("stride_w", 1)))
    if min(strides) < 1 or len(shape) != 4 or min(shape) < 1:
        raise Refusal(f"strides {strides} for a result of {shape}")
    before, more = [], []
    for a in (0, 1):
        size, k, s, out = x.shape[1 + a], w.shape[1 + a], strides[a], shape[1 + a]
        if not (isinstance(size, int) and isinstance(k, int)):
            raise Refusal("the sizes of the image must be known")
        begin = 0
        if n.option("padding", "SAME") != "VALID":
            begin = max((-(-out // s) - 1) * s + k - out, 0) // 2
        whole = (size - 1) * s + k
        before.append(begin)
        more.append(out + begin - whole)
    pads = tuple(before) + tuple(max(-m, 0) for m in more)
    fields = {"strides": strides, "pads": pads, "output_padding": tuple(max(m, 0) for m in more)}
    y = b.op(canonical("ConvTranspose", **fields), to_nchw(b, x),
             transposed(b, w, (3, 0, 1, 2)), bias)  # fmt: skip
    if y.shape[2:] != tuple(shape[1:3]):
        raise Refusal(f"a result of {y.shape[2:]} instead of {shape[1:3]}")
    return [to_nhwc(b, activate(b, y, n.option("fused_activation_function", "NONE")))]


@tflite_rule("L2_NORMALIZATION")
def l2_normalization(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    if is_quantized(x):
        raise Refusal("a norm of quantized values")
    squares = b.op(canonical("Mul"), x, x)
    total = b.op(canonical("ReduceSum", axes=(len(x.shape) - 1,), keepdims=True), squares)
    norm = b.op(canonical("Max"), b.op(canonical("Sqrt"), total), scalar_const(b, 1e-6, x))
    y = b.op(canonical("Div"), x, norm)
    return [activate(b, y, n.option("fused_activation_function", "NONE"))]


@tflite_rule("LOCAL_RESPONSE_NORMALIZATION")
def lrn(n: TfliteNode, b: Builder) -> Sequence[Value]:
    radius, x = int(n.option("radius", 0)), n.arg(0)
    if not 0 < radius < LARGEST:
        raise Refusal(f"a radius of {radius}")
    # TFLite's window is [c - radius, c + radius): that of an even size in reversed channels.
    size = 2 * radius
    alpha = float(n.option("alpha", 0.0)) * size  # ONNX divides by the size
    fields = {"alpha": alpha, "beta": float(n.option("beta", 0.0)),
              "bias": float(n.option("bias", 0.0)), "size": size}  # fmt: skip
    y = b.op(canonical("LRN", **fields), _reversed(b, to_nchw(b, x)))
    return [to_nhwc(b, _reversed(b, y))]


def _reversed(b: Builder, v: Value) -> Value:
    """Channels (axis 1) in the other order."""
    starts = tuple(dims.add(d, -1) if a == 1 else 0 for a, d in enumerate(v.shape))
    return b.op(Slice(starts, v.shape, tuple(-1 if a == 1 else 1 for a in range(len(v.shape)))), v)


@tflite_rule("LOG_SOFTMAX")
def log_softmax(n: TfliteNode, b: Builder) -> Sequence[Value]:
    if is_quantized(n.arg(0)):
        raise Refusal("a logarithm of a softmax of quantized values")
    return b.ops(canonical("LogSoftmax", axis=-1), n.arg(0))


@tflite_rule("PRELU")
def prelu(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, slope = n.arg(0), n.arg(1)
    if is_quantized(x):
        raise Refusal("PRELU of quantized values")
    return b.ops(canonical("PRelu"), x, slope)


@tflite_rule("L2_POOL_2D")
def l2_pool(n: TfliteNode, b: Builder) -> Sequence[Value]:
    from onefold.frontend.tflite.rules.nn import windows

    x = n.arg(0)
    rank_of(x, 4)
    kernel = (int(n.option("filter_height", 0)), int(n.option("filter_width", 0)))
    strides, _, pads = windows(n, x.shape[1:3], kernel)
    y = to_nchw(b, b.op(canonical("Mul"), x, x))
    pool = canonical("AveragePool", kernel_shape=kernel, strides=strides, pads=pads)
    root = b.op(canonical("Sqrt"), b.op(pool, y))
    return [to_nhwc(b, activate(b, root, n.option("fused_activation_function", "NONE")))]
