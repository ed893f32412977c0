"""The C of of_quant.h and its NumPy twin agree bit for bit, and both with exact arithmetic."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from onefold.ops import fixedpoint as fx
from tests.kernel.numeric import build, call

pytestmark = pytest.mark.toolchain
Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(20)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return build(tmp_path_factory.mktemp("fixed"), "fixed", ["-march=native"])


def samples(bits: int, count: int = 40_000) -> Array:
    """Every size of number, and the extremes."""
    top = 1 << (bits - 1)
    wide = RNG.integers(-top, top, count) >> RNG.integers(0, bits - 1, count)
    powers = [s * (1 << k) + d for k in range(bits - 1) for s in (1, -1) for d in (-1, 0, 1)]
    edges = np.clip([0, 1, -1, top - 1, -top, -top + 1, *powers], -top, top - 1)
    return np.concatenate([wide, edges]).astype(np.int64)


def pairs(bits: int) -> tuple[Array, Array]:
    a, b = samples(bits), samples(bits)
    edges = [-(1 << (bits - 1)), (1 << (bits - 1)) - 1, 0, 1, -1]
    grid = np.array([(x, y) for x in edges for y in edges])
    return np.append(a, grid[:, 0]), np.append(RNG.permutation(b), grid[:, 1])


def multipliers(count: int) -> Array:
    m = RNG.integers(1 << 30, 1 << 31, count)
    m[:4] = [1 << 30, (1 << 31) - 1, 0x7FFF0000, 0x7FFEFFFF]
    return m


def same(c: Array, twin: Array) -> None:
    np.testing.assert_array_equal(c.astype(np.int64), twin)


@pytest.mark.parametrize("bits", [32, 16])
def test_high_mul(library: ctypes.CDLL, bits: int) -> None:
    a, b = pairs(bits)
    tail = "" if bits == 32 else "_i16"
    same(
        call(library, "sat_rounding_doubling_high_mul" + tail, a, b),
        fx.sat_rounding_doubling_high_mul(a, b, bits),
    )
    exact = [  # integers of any size: round half up of a b / 2^(bits - 1), saturated
        min((int(x) * int(y) * 2 + (1 << (bits - 1))) >> bits, (1 << (bits - 1)) - 1)
        for x, y in zip(a[-200:], b[-200:], strict=True)
    ]
    same(call(library, "sat_rounding_doubling_high_mul" + tail, a, b)[-200:], np.array(exact))


def test_doubling_high_mul_without_rounding(library: ctypes.CDLL) -> None:
    a, b = pairs(16)
    same(call(library, "sat_doubling_high_mul_i16", a, b), fx.sat_doubling_high_mul_i16(a, b))


@pytest.mark.parametrize("exponent", range(32))
def test_divide_by_power_of_two(library: ctypes.CDLL, exponent: int) -> None:
    x = samples(32, 4000)
    got = call(library, "rounding_divide_by_pot", x, exponent)
    same(got, fx.rounding_divide_by_pot(x, exponent))
    away = [(abs(int(v)) + (1 << exponent >> 1) >> exponent) * (1 if v >= 0 else -1) for v in x]
    same(got, np.array(away))


@pytest.mark.parametrize("exponent", [*range(-15, 0), *range(1, 15)])
def test_multiply_by_power_of_two(library: ctypes.CDLL, exponent: int) -> None:
    for bits, tail in ((32, ""), (16, "_i16")):
        x = samples(bits, 4000)
        same(
            call(library, "saturating_rounding_multiply_by_pot" + tail, x, exponent),
            fx.saturating_rounding_multiply_by_pot(x, exponent, bits),
        )
    x = samples(16, 4000)
    if exponent > 0:
        same(
            call(library, "saturating_left_shift_i16", x, exponent),
            fx.saturating_left_shift_i16(x, exponent),
        )


@pytest.mark.parametrize("shift", range(-31, 31))
def test_quantized_multiplier(library: ctypes.CDLL, shift: int) -> None:
    x = samples(32, 4000)
    m = multipliers(len(x))
    name = "multiply_by_quantized_multiplier"
    same(call(library, name, x, m, shift), fx.multiply_by_quantized_multiplier(x, m, shift))
    one = "_smaller_than_one" if shift <= 0 else "_greater_than_one"
    same(call(library, name + one, x, m, shift), getattr(fx, name + one)(x, m, shift))
    same(
        call(library, name + "_single", x, m, shift),
        fx.multiply_by_quantized_multiplier_single(x, m, shift),
    )
    if shift <= 7:
        wide = samples(48, 4000)
        m = multipliers(len(wide))
        same(
            call(library, name + "_i64", wide, m, shift),
            fx.multiply_by_quantized_multiplier_i64(wide, m, shift),
        )


@pytest.mark.parametrize("bits", [32, 16])
@pytest.mark.parametrize("integer_bits", [0, 1, 2, 3, 4, 5, 6])
def test_fixed_functions(library: ctypes.CDLL, bits: int, integer_bits: int) -> None:
    x = samples(bits)
    point, tail = fx.FixedPoint(bits), f"_i{bits}"
    negative = np.minimum(x, 0)
    got = call(library, "exp_on_negative_values" + tail, negative, integer_bits)
    same(got, point.exp_on_negative_values(negative, integer_bits))
    unit, one = 2.0 ** (bits - 1 - integer_bits), 2.0 ** (bits - 1)
    tolerance = 4e-7 if bits == 32 else 1e-3
    np.testing.assert_allclose(got / one, np.exp(negative / unit), atol=tolerance, rtol=0)
    got = call(library, "fixed_logistic" + tail, x, integer_bits)
    same(got, point.logistic(x, integer_bits))
    np.testing.assert_allclose(got / one, 1 / (1 + np.exp(-x / unit)), atol=tolerance, rtol=0)
    got = call(library, "fixed_tanh" + tail, x, integer_bits)
    same(got, point.tanh(x, integer_bits))
    np.testing.assert_allclose(got / one, np.tanh(x / unit), atol=2 * tolerance, rtol=0)


@pytest.mark.parametrize("bits", [32, 16])
def test_fixed_quotients(library: ctypes.CDLL, bits: int) -> None:
    x = np.maximum(samples(bits), 0)
    point = fx.FixedPoint(bits)
    got = call(library, f"one_over_one_plus_x_i{bits}", x)
    same(got, point.one_over_one_plus_x(x))
    real, tolerance = x / 2.0 ** (bits - 1), 1e-8 if bits == 32 else 4e-4
    np.testing.assert_allclose(got / 2.0 ** (bits - 1), 1 / (1 + real), atol=tolerance, rtol=0)
    got = call(library, f"one_minus_x_over_one_plus_x_i{bits}", x)
    same(got, point.one_minus_x_over_one_plus_x(x))


def two_outputs(function: Any, x: Array, *scalars: int) -> tuple[Array, Array]:
    values = np.ascontiguousarray(x, np.int32)
    first, second = np.empty_like(values), np.empty_like(values)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (values, first, second)]
    function(ctypes.c_long(len(x)), pointers[0], *map(ctypes.c_int32, scalars), *pointers[1:])
    return first, second


def test_inverse_square_root(library: ctypes.CDLL) -> None:
    x = np.maximum(samples(32), 0)
    multiplier, shift = two_outputs(library.array_inv_sqrt, x)
    twin_multiplier, twin_shift = fx.get_inv_sqrt_multiplier(x)
    same(multiplier, twin_multiplier)
    same(shift, twin_shift)
    real = multiplier / 2.0**31 * 2.0 ** shift.astype(float)
    plain = x > 1
    np.testing.assert_allclose(real[plain] * np.sqrt(x[plain]), 1, rtol=2e-5)


def test_reciprocal(library: ctypes.CDLL) -> None:
    x = np.maximum(samples(32), 1)
    scale, lacking = two_outputs(library.array_reciprocal, x, 12)
    twin_scale, twin_lacking = fx.get_reciprocal(x, 12)
    same(scale, twin_scale)
    same(lacking, twin_lacking)
    real = scale / 2.0**31 / 2.0 ** lacking.astype(float)
    np.testing.assert_allclose(real * (x / 2.0**19), 1, rtol=1e-8)


@pytest.mark.parametrize(("multiplier", "shift"), [(0, 0), (0, 3), (20000, 13), (32767, 15)])
def test_int16_tables(library: ctypes.CDLL, multiplier: int, shift: int) -> None:
    x = np.arange(-32768, 32768)
    got = call(library, "table_sigmoid_i16", x, multiplier, shift)
    same(got, fx.table_sigmoid_i16(x, multiplier, shift))
    scale = (multiplier or 3 << shift) / (1 << (shift if multiplier else 0)) / 3 / 4096
    np.testing.assert_allclose(got / 32768, 1 / (1 + np.exp(-x * scale)), atol=1e-4)
    got = call(library, "table_tanh_i16", x, multiplier, shift)
    same(got, fx.table_tanh_i16(x, multiplier, shift))
    np.testing.assert_allclose(got / 32768, np.tanh(x * scale), atol=2e-4)


def test_lut(library: ctypes.CDLL) -> None:
    x, lut = np.arange(-32768, 32768, dtype=np.int16), RNG.integers(-32768, 32768, 513)
    y, table = np.empty_like(x), lut.astype(np.int16)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (x, table, y)]
    library.array_lut(ctypes.c_long(len(x)), *pointers)
    same(y, fx.lut_i16(x, lut))


RANGES = {
    "i8": (-128, 127),
    "u8": (0, 255),
    "i16": (-32768, 32767),
    "u16": (0, 65535),
    "i4": (-8, 7),
}


@pytest.mark.parametrize("kind", RANGES)
def test_float_quantize(library: ctypes.CDLL, kind: str) -> None:
    low, high = RANGES[kind]
    x = (RNG.standard_normal(30_000) * 10.0 ** RNG.uniform(-3, 6, 30_000)).astype(np.float32)
    halves = np.arange(-70, 70, dtype=np.float32) / 2
    x = np.concatenate([x, halves, np.float32([np.inf, -np.inf, np.nan, 0.0, -0.0, 3e38, -3e38])])
    for scale in (np.float32(1), np.float32(0.0371), np.float32(7e-5)):
        for zero in {0, low, high, 3}:
            twin = fx.quantize_linear(x, scale, zero, low, high)
            same(call(library, f"quantize_linear_{kind}", x, scale, zero), twin)
            twin = fx.affine_quantize(x, scale, zero, low, high)
            same(call(library, f"affine_quantize_{kind}", x, scale, zero), twin)
            twin = fx.requant_f32(x, scale, zero, low, high)
            same(call(library, f"requant_f32_{kind}", x, scale, zero, low, high), twin)
    q = np.arange(low, high + 1)
    got = call(library, "dequantize_linear_f32", q, 0.0371, 3)
    np.testing.assert_array_equal(got, fx.dequantize_linear(q, np.float32(0.0371), 3))


def test_quantize_linear_is_that_of_onnx() -> None:
    reference = pytest.importorskip("onnx.reference.ops.op_quantize_linear")
    x = (RNG.standard_normal(5000) * 40).astype(np.float32)
    x[:100] = np.arange(100, dtype=np.float32) * np.float32(0.25)
    scale, zero = np.float32(0.5), np.int8(-3)
    operator = object.__new__(reference.QuantizeLinear_10)
    (want,) = operator._run(x, np.array(scale), np.array(zero))
    same(want, fx.quantize_linear(x, scale, -3, -128, 127))
