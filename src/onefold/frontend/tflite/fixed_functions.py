"""Functions of one quantized value that TFLite computes in fixed point, for all 256 values.

q is the value less its zero point; results are before saturation to the result's type.
Source: TFLite's reference kernels (activations.cc, elementwise.cc, leaky_relu.h, hard_swish.h).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from onefold.frontend.tflite.arithmetic import (
    activation_range,
    f32,
    quantize_multiplier,
    scale_of,
    zero_of,
)
from onefold.ir.graph import Value
from onefold.ir.types import TensorType
from onefold.ops import fixedpoint as fx
from onefold.ops.formats import TfliteNode

Array = np.ndarray[Any, np.dtype[Any]]
Function = Callable[[TfliteNode, Array, Value, TensorType], Array]


def scaled(q: Array, real: float) -> Array:
    return fx.multiply_by_quantized_multiplier(q, *quantize_multiplier(real))


def relu(n: TfliteNode, q: Array, x: Value, y: TensorType) -> Array:
    real = f32(scale_of(x) / scale_of(y))
    lo, hi = activation_range(n.op_type, y)
    return np.asarray(np.clip(scaled(q, real) + zero_of(y), lo, hi))


def leaky_relu(n: TfliteNode, q: Array, x: Value, y: TensorType) -> Array:
    alpha = f32(float(n.option("alpha", 0.0)))
    plain = f32(scale_of(x) / scale_of(y))
    slope = f32(f32(scale_of(x) * alpha) / scale_of(y))
    return np.where(q >= 0, scaled(q, plain), scaled(q, slope)) + zero_of(y)


def absolute(n: TfliteNode, q: Array, x: Value, y: TensorType) -> Array:
    if scale_of(x) == scale_of(y):
        return np.abs(q) + zero_of(y)
    return scaled(np.abs(q), f32(scale_of(x) / scale_of(y))) + zero_of(y)


def rsqrt(n: TfliteNode, q: Array, x: Value, y: TensorType) -> Array:
    m, s = quantize_multiplier(1.0 / f32(np.sqrt(np.float32(scale_of(x)))) / scale_of(y))
    safe = np.maximum(q, 1)
    root, shift = fx.get_inv_sqrt_multiplier(safe)
    part = fx.multiply_by_quantized_multiplier(1 << 20, root, shift)
    out = fx.multiply_by_quantized_multiplier(part, m, s - 20) + zero_of(y)
    return np.where(q <= 0, y.dtype.hi, out)


def hard_swish(n: TfliteNode, q: Array, x: Value, y: TensorType) -> Array:
    high = f32(scale_of(x) * f32(1 / 128))
    out_m, out_s = quantize_multiplier(high / scale_of(y))
    relu_m, relu_s = quantize_multiplier(high / f32(3.0 / 32768.0))
    out16, relu16 = _to_i16(out_m), _to_i16(relu_m)
    fine = q << 7
    pre = fx.sat_rounding_doubling_high_mul(fine, out16, 16)
    v = fine
    if relu_s > 0:
        v = fx.saturating_left_shift_i16(v, relu_s - 1)
    v = fx.sat_rounding_doubling_high_mul(v, relu16, 16)
    if relu_s > 0:
        v = fx.saturating_left_shift_i16(v, 1)
    if relu_s < 0:
        v = fx.rounding_divide_by_pot(v, -relu_s)
    v = (v + (1 << 15)) >> 1
    product = fx.sat_doubling_high_mul_i16(v, pre)
    return fx.rounding_divide_by_pot(product, max(-out_s, 0)) + zero_of(y)


def _to_i16(m: int) -> int:
    return min((m + (1 << 15)) >> 16, 32767)


FUNCTIONS: dict[str, Function] = {
    "RELU": relu, "RELU6": relu, "RELU_N1_TO_1": relu, "LEAKY_RELU": leaky_relu, "ABS": absolute,
    "RSQRT": rsqrt, "HARD_SWISH": hard_swish,
}  # fmt: skip
