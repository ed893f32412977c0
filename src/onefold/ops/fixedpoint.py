"""The integer arithmetic of quantized models in NumPy, bit for bit that of ``kernels/of_quant.h``.

Arrays are int64 (or anything that converts to it) holding values of the named width; results are
int64 within that width. TFLite's part is the arithmetic of gemmlowp's fixed point and of TFLite's
reference kernels; ONNX's part is that of QuantizeLinear. A fixed-point value with m integer bits
in B bits stands for raw / 2^(B - 1 - m).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
IntLike = npt.NDArray[np.integer[Any]] | int | list[int]
Floats = npt.NDArray[np.float32]

FloatLike = npt.NDArray[np.float32] | float

REVERSE_SHIFT = -1


def _i64(x: Any) -> Ints:
    return np.asarray(x, dtype=np.int64)


def wrap(x: IntLike, bits: int) -> Ints:
    """The value of the low ``bits`` bits, two's complement."""
    half = np.int64(1) << np.int64(bits - 1)
    mask = np.int64((1 << bits) - 1) if bits < 64 else np.int64(-1)
    low = _i64(x) & mask
    return _i64((low ^ half) - half)


def sat_rounding_doubling_high_mul(a: IntLike, b: IntLike, bits: int = 32) -> Ints:
    """a b / 2^(bits - 1) to nearest, halves upward; MIN * MIN saturates. ``bits`` is 32 or 16."""
    a, b = _i64(a), _i64(b)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    product = (a * b + (1 << (bits - 2))) >> (bits - 1)
    return _i64(np.where((a == low) & (b == low), high, product))


def sat_doubling_high_mul_i16(a: IntLike, b: IntLike) -> Ints:
    """a b / 2^15 toward zero; MIN * MIN saturates."""
    product = _i64(a) * _i64(b)
    cut = np.sign(product) * (np.abs(product) >> 15)
    return _i64(np.minimum(cut, 32767))


def rounding_divide_by_pot(x: IntLike, exponent: IntLike) -> Ints:
    """x / 2^exponent to nearest, halves away from zero; 0 <= exponent <= 31."""
    x, exponent = _i64(x), _i64(exponent)
    mask = (np.int64(1) << exponent) - 1
    threshold = (mask >> 1) + (x < 0)
    return _i64((x >> exponent) + ((x & mask) > threshold))


def saturating_rounding_multiply_by_pot(x: IntLike, exponent: int, bits: int = 32) -> Ints:
    """x 2^exponent, saturating to ``bits`` for a positive exponent, rounding for a negative one."""
    if exponent <= 0:
        return rounding_divide_by_pot(x, -exponent)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return _i64(np.clip(_i64(x) << exponent, low, high))


def saturating_left_shift_i16(x: IntLike, amount: int) -> Ints:
    """x 2^amount within int16."""
    return _i64(np.clip(_i64(x) << amount, -32768, 32767))


def multiply_by_quantized_multiplier(x: IntLike, multiplier: IntLike, shift: IntLike) -> Ints:
    """x multiplier 2^(shift - 31) with two roundings; the left shift wraps as int32 does."""
    shift = _i64(shift)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    scaled = wrap(_i64(x) << left, 32)
    return rounding_divide_by_pot(sat_rounding_doubling_high_mul(scaled, multiplier), right)


def multiply_by_quantized_multiplier_smaller_than_one(
    x: IntLike, multiplier: IntLike, shift: IntLike
) -> Ints:
    """The same for ``shift`` <= 0."""
    right = -_i64(shift)
    return rounding_divide_by_pot(sat_rounding_doubling_high_mul(x, multiplier), right)


def multiply_by_quantized_multiplier_greater_than_one(
    x: IntLike, multiplier: IntLike, shift: IntLike
) -> Ints:
    """The same for ``shift`` >= 0."""
    scaled = wrap(_i64(x) << _i64(shift), 32)
    return sat_rounding_doubling_high_mul(scaled, multiplier)


def multiply_by_quantized_multiplier_single(
    x: IntLike, multiplier: IntLike, shift: IntLike
) -> Ints:
    """One rounding, halves upward: what TFLite builds with TFLITE_SINGLE_ROUNDING compute."""
    total = 31 - _i64(shift)
    product = _i64(x) * _i64(multiplier)
    return wrap((product + (np.int64(1) << (total - 1))) >> total, 32)


def multiply_by_quantized_multiplier_i64(x: IntLike, multiplier: IntLike, shift: IntLike) -> Ints:
    """For 64-bit sums of int16 activations: |x| < 2^47, -31 <= shift <= 7; 15-bit multiplier."""
    multiplier = _i64(multiplier)
    reduced = np.where(multiplier < 0x7FFF0000, (multiplier + (1 << 15)) >> 16, 0x7FFF)
    total = 15 - _i64(shift)
    product = _i64(x) * reduced
    return wrap((product + (np.int64(1) << (total - 1))) >> total, 32)


@dataclass(frozen=True)
class FixedPoint:
    """Fixed-point functions in a word of ``bits`` (32 or 16); m integer bits are an argument."""

    bits: int

    @property
    def one(self) -> int:
        """The largest value, which stands for 1 with 0 integer bits."""
        return (1 << (self.bits - 1)) - 1

    def constant(self, raw: int) -> Ints:
        """A constant given in 32 bits."""
        return rounding_divide_by_pot(raw, 32 - self.bits)

    def mul(self, a: IntLike, b: IntLike) -> Ints:
        """Product; integer bits add."""
        return sat_rounding_doubling_high_mul(a, b, self.bits)

    def pot(self, x: IntLike, exponent: int) -> Ints:
        """Change of integer bits from m + exponent to m."""
        return saturating_rounding_multiply_by_pot(x, exponent, self.bits)

    def add(self, a: IntLike, b: IntLike) -> Ints:
        """Sum that wraps."""
        return wrap(_i64(a) + _i64(b), self.bits)

    def exp_quarter(self, a: IntLike) -> Ints:
        """e^a for a in [-1/4, 0), 0 integer bits: Taylor's series around -1/8."""
        centre, third = self.constant(1895147668), self.constant(715827883)
        x = self.add(a, 1 << (self.bits - 4))
        x2 = self.mul(x, x)
        x3, x4 = self.mul(x2, x), self.mul(x2, x2)
        cubic = self.mul(self.add(self.pot(x4, -2), x3), third)
        tail = self.mul(centre, self.add(x, self.pot(self.add(cubic, x2), -1)))
        total = centre + tail
        if self.bits == 16:
            return _i64(np.clip(total, -32768, 32767))
        return wrap(total, 32)

    def exp_on_negative_values(self, a: IntLike, integer_bits: int) -> Ints:
        """e^a for a <= 0 with ``integer_bits``, as a value of 0 integer bits."""
        a = _i64(a)
        fraction = self.bits - 1 - integer_bits
        quarter = 1 << (fraction - 2)
        part = (a & (quarter - 1)) - quarter
        rest = wrap(part - a, self.bits)
        result = self.exp_quarter(self.pot(part, integer_bits))
        factors = [1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242]
        for exponent, factor in enumerate(factors, start=-2):
            if integer_bits > exponent:
                hit = (rest >> (fraction + exponent)) & 1
                result = np.where(hit != 0, self.mul(result, self.constant(factor)), result)
        if integer_bits > 5:
            result = np.where(a < self.constant(-(1 << (36 - integer_bits))), 0, result)
        return _i64(np.where(a == 0, self.one, result))

    def two_over_one_plus(self, a: IntLike) -> Ints:
        """2 / (1 + a) with 2 integer bits for a in [0, 1): three steps of Newton's."""
        total = _i64(a) + self.one
        half = np.where(total >= 0, (total + 1) >> 1, -((1 - total) >> 1))
        one = 1 << (self.bits - 3)
        x = self.add(self.constant(1515870810), self.mul(half, self.constant(-1010580540)))
        for _ in range(3):
            rest = self.add(one, -self.mul(half, x))
            x = self.add(x, self.pot(self.mul(x, rest), 2))
        return x

    def one_over_one_plus_x(self, a: IntLike) -> Ints:
        """1 / (1 + a) for a in [0, 1), 0 integer bits."""
        return self.pot(self.two_over_one_plus(a), 1)

    def one_minus_x_over_one_plus_x(self, a: IntLike) -> Ints:
        """(1 - a) / (1 + a) for a in [0, 1), 0 integer bits."""
        return self.pot(self.add(self.two_over_one_plus(a), -(1 << (self.bits - 3))), 2)

    def logistic(self, a: IntLike, integer_bits: int) -> Ints:
        """1 / (1 + e^-a), ``integer_bits`` in, 0 out."""
        a = _i64(a)
        negative = np.where(a > 0, -a, a)
        right = self.one_over_one_plus_x(self.exp_on_negative_values(negative, integer_bits))
        return np.where(a == 0, self.constant(1 << 30), np.where(a > 0, right, self.one - right))

    def tanh(self, a: IntLike, integer_bits: int) -> Ints:
        """tanh(a), ``integer_bits`` in, 0 out."""
        a = _i64(a)
        negative = np.where(a < 0, a, -a)
        exp = self.exp_on_negative_values(negative, integer_bits + 1)
        right = self.one_minus_x_over_one_plus_x(exp)
        return np.where(a == 0, 0, np.where(a < 0, -right, right))


FIXED32 = FixedPoint(32)
FIXED16 = FixedPoint(16)


def leading_zeros(x: IntLike) -> Ints:
    """Leading zero bits of values in [0, 2^32)."""
    x = _i64(x)
    return _i64(32 - np.sum([x >> i > 0 for i in range(32)], axis=0, dtype=np.int64))


def get_reciprocal(x: IntLike, digits: int) -> tuple[Ints, Ints]:
    """1 / x, x > 0 with ``digits`` integer bits: a 0-integer-bit scale, and the bits it lacks."""
    x = _i64(x)
    lead = leading_zeros(x)
    shifted = wrap((x << lead) - (1 << 31), 32)
    return FIXED32.one_over_one_plus_x(shifted), digits - lead


def get_inv_sqrt_multiplier(x: IntLike, reverse: int = REVERSE_SHIFT) -> tuple[Ints, Ints]:
    """1 / sqrt(x), x >= 0, as (multiplier, shift); 0 counts as 1; ``reverse`` -1: a left shift."""
    x = _i64(x)
    tiny = x <= 1
    v = np.where(tiny, 2, x)
    right = np.full(v.shape, 11, np.int64)
    for _ in range(2):
        big = v >= 1 << 29
        v, right = np.where(big, v >> 2, v), right + big
    pairs = (leading_zeros(v) - 1) // 2 - 1
    right, v = right - pairs, v << (2 * pairs)
    half, y = rounding_divide_by_pot(v >> 1, 1), np.full(v.shape, 1 << 28, np.int64)
    f = FIXED32
    for _ in range(5):
        cube = f.pot(f.mul(f.mul(y, y), y), 6)
        y = f.pot(f.add(f.mul((1 << 28) + (1 << 27), y), -f.mul(half, cube)), 3)
    y = f.mul(y, 1518500250)
    y = wrap(np.where(right < 0, y << np.maximum(-right, 0), y), 32)
    shift = np.maximum(right, 0) * reverse
    return np.where(tiny, (1 << 31) - 1, y), np.where(tiny, 0, shift)


@cache
def sigmoid_table() -> Ints:
    """TFLite's 256 values of 65536 sigmoid(i / 24), raised by half the error of interpolation."""
    i = np.arange(255, dtype=np.float64)

    def f(at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return 65536 / (1 + np.exp(-at / 24))

    middle = f(i + 0.5) - (f(i) + f(i + 1)) / 2
    return np.append(np.rint(f(i) + middle / 2).astype(np.int64), 65535)


def _table_input(x: IntLike, multiplier: int, shift: int) -> Ints:
    multiplier, shift = (multiplier, shift) if multiplier else (3 << shift, 0)
    return (_i64(x) * multiplier + (1 << shift >> 1)) >> shift


def _table_value(v: Ints, bits: int, top: int) -> Ints:
    """Table at |v| / 2^bits with linear interpolation, ``top`` beyond its end."""
    a = np.abs(v)
    i = np.minimum(a >> bits, 254)
    low, high = sigmoid_table()[i], sigmoid_table()[i + 1]
    inner = (low << bits) + (a & ((1 << bits) - 1)) * (high - low)
    return np.where(a >> bits >= 255, top, inner)


def table_sigmoid_i16(x: IntLike, multiplier: int, shift: int) -> Ints:
    """TFLite's int16 LOGISTIC: input times multiplier / 2^shift (0 means 3 2^shift), Q0.15 out."""
    v = _table_input(x, multiplier, shift)
    r = _table_value(v, 9, 0x7FFF << 10)
    return np.where(v >= 0, r + (1 << 9), (1 << 25) - r + (1 << 9) - 1) >> 10


def table_tanh_i16(x: IntLike, multiplier: int, shift: int) -> Ints:
    """TFLite's int16 TANH, arguments as for ``table_sigmoid_i16``."""
    v = _table_input(x, multiplier, shift)
    r = _table_value(v, 8, 0xFFFF << 8)
    return np.where(v >= 0, r - (1 << 23) + (1 << 7), -r + (1 << 23) + (1 << 7) - 1) >> 8


def lut_i16(x: IntLike, lut: IntLike) -> Ints:
    """A table of 513 values over the int16 range, with linear interpolation."""
    x, lut = _i64(x), _i64(lut)
    i = 256 + (x >> 7)
    base, slope = lut[i], wrap(lut[i + 1] - lut[i], 16)
    return wrap(base + ((slope * (x & 0x7F) + 64) >> 7), 16)


# ---- ONNX and TFLite: float to quantized ----


def _saturate(rounded: Floats, zero: IntLike, low: int, high: int) -> Ints:
    zero = _i64(zero)
    a, b = np.float32(low - zero), np.float32(high - zero)
    inside = np.where(rounded > a, np.where(rounded < b, rounded, b), a)
    return inside.astype(np.int64) + zero


def _rounded(
    x: FloatLike, scale: FloatLike, combine: Callable[..., Any], rule: Callable[..., Any]
) -> Floats:
    with np.errstate(all="ignore"):
        return np.asarray(rule(combine(np.float32(x), np.float32(scale))), np.float32)


def round_away(x: Floats) -> Floats:
    """To nearest, halves away from zero (C's round)."""
    whole = np.trunc(x)
    return np.asarray(whole + np.where(np.abs(x - whole) >= 0.5, np.sign(x), 0), np.float32)


def requant_f32(x: FloatLike, scale: FloatLike, zero: IntLike, low: int, high: int) -> Ints:
    """saturate(round_half_even(x scale) + zero) in float32; NaN gives ``low``."""
    return _saturate(_rounded(x, scale, np.multiply, np.rint), zero, low, high)


def quantize_linear(x: FloatLike, scale: FloatLike, zero: IntLike, low: int, high: int) -> Ints:
    """ONNX QuantizeLinear: saturate(round_half_even(x / scale) + zero); NaN gives ``low``."""
    return _saturate(_rounded(x, scale, np.divide, np.rint), zero, low, high)


def affine_quantize(x: FloatLike, scale: FloatLike, zero: IntLike, low: int, high: int) -> Ints:
    """TFLite QUANTIZE from float: halves away from zero; NaN gives ``low``."""
    return _saturate(_rounded(x, scale, np.divide, round_away), zero, low, high)


def dequantize_linear(q: IntLike, scale: FloatLike, zero: IntLike) -> Floats:
    """(q - zero) scale in float32."""
    return np.asarray((_i64(q) - zero).astype(np.float32) * np.float32(scale))
