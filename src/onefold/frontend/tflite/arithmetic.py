"""Multipliers and ranges of quantized operators, as TFLite's Prepare functions compute them."""

from __future__ import annotations

import math

import numpy as np

from onefold.ir.dtypes import DType
from onefold.ir.graph import Value
from onefold.ir.types import Quant, TensorType
from onefold.ops.base import Refusal

Multiplier = tuple[int, int]


def f32(x: float) -> float:
    """x rounded to single precision."""
    return float(np.float32(x))


def quantize_multiplier(real: float) -> Multiplier:
    """(m, s) with m in [2^30, 2^31): real = m 2^(s - 31). Source: TFLite quantization_util."""
    if real == 0 or not math.isfinite(real):
        return 0, 0
    q, shift = math.frexp(real)
    fixed = math.floor(abs(q) * (1 << 31) + 0.5) * (1 if q > 0 else -1)
    if abs(fixed) == 1 << 31:
        fixed //= 2
        shift += 1
    if shift < -31:
        return 0, 0
    if shift > 30:
        raise Refusal(f"the scales differ by a factor of {real:g}")
    return fixed, shift


def scale_of(t: Value | TensorType) -> float:
    """The one scale of a tensor (a float32 value). Raises Refusal where it has none."""
    return per_tensor(t).scale[0]


def zero_of(t: Value | TensorType) -> int:
    return per_tensor(t).zero_point[0]


def per_tensor(t: Value | TensorType) -> Quant:
    q = t.quant
    if q is None:
        what = f"'{t.name}'" if isinstance(t, Value) else "the result"
        raise Refusal(f"{what} is an integer tensor without a scale")
    if len(q.scale) != 1:
        raise Refusal("it needs one scale per tensor, the file has one per channel")
    if not (q.scale[0] > 0 and math.isfinite(q.scale[0])):
        raise Refusal(f"the scale {q.scale[0]} is not a positive number")
    if not -(1 << 31) <= q.zero_point[0] < 1 << 31:
        raise Refusal(f"the zero point {q.zero_point[0]} is not a 32-bit number")
    return q


ACTIVATIONS: dict[str, tuple[float | None, float | None]] = {
    "NONE": (None, None), "RELU": (0.0, None), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0),
}  # fmt: skip


def activation_range(activation: str, y: TensorType) -> tuple[int, int]:
    """Smallest and largest stored value that a fused activation lets through."""
    kind: DType = y.dtype
    if activation not in ACTIVATIONS:
        raise Refusal(f"the fused activation {activation} on integers")
    lo, hi = ACTIVATIONS[activation]
    scale, zero = np.float32(scale_of(y)), zero_of(y)

    def stored(value: float) -> int:
        real = float(np.float32(value) / scale)
        return zero + int(math.copysign(math.floor(abs(real) + 0.5), real))

    low = kind.lo if lo is None else max(kind.lo, stored(lo))
    high = kind.hi if hi is None else min(kind.hi, stored(hi))
    return low, max(low, high)
