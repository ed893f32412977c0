"""The narrow floats, conversions and integers of the numeric headers.

The references are ml_dtypes, ONNX's own Cast and Python's integers.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.kernel.numeric import (
    BUILDS,
    INTS,
    NP_TYPES,
    SPECIAL,
    build,
    call,
    every_pattern,
    same_float,
)

pytestmark = pytest.mark.toolchain
Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module", params=BUILDS)
def library(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("types")
    return build(folder, request.param, BUILDS[request.param])


# ---- narrow floats ----


def float_inputs(rng: np.random.Generator) -> Array:
    codes = np.arange(65536, dtype=np.uint16)
    halves = codes.view(np.float16).astype(np.float32)
    brains = codes.view(ml_dtypes.bfloat16).astype(np.float32)
    near = np.concatenate(
        [np.nextafter(v, np.float32(s)) for v in (halves, brains) for s in (9e9, -9e9)]
    )
    middles = (halves[:-1].astype(np.float64) + halves[1:]) / 2
    scaled = rng.standard_normal(50_000) * 10.0 ** rng.uniform(-9, 6, 50_000)
    return np.concatenate(
        [
            halves,
            brains,
            near,
            middles.astype(np.float32),
            scaled.astype(np.float32),
            every_pattern("f32", 50_000, rng),
            np.asarray(SPECIAL, np.float32),
        ]
    )


def double_inputs(rng: np.random.Generator) -> Array:
    """Doubles so near the middle of two halves that rounding by way of float goes wrong."""
    halves = np.arange(0, 0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    middle = (halves[:-1] + halves[1:]) / 2
    near = [middle, middle * (1 + 2.0**-50), middle * (1 - 2.0**-50)]
    parts = [*near, every_pattern("f64", 20_000, rng), rng.standard_normal(20_000) * 100]
    x = np.concatenate([*parts, SPECIAL])
    return np.concatenate([x, -x])


def same_codes(got: Array, want: Array) -> None:
    """Equal bits; a NaN may be any NaN."""
    with np.errstate(all="ignore"):
        number = ~np.isnan(want.astype(np.float32))
    kind = np.uint16 if want.dtype.itemsize == 2 else np.uint8
    np.testing.assert_array_equal(got[number], want.view(kind)[number])
    assert np.isnan(got.view(want.dtype)[~number].astype(np.float32)).all()


NARROW = {"f16": np.float16, "bf16": ml_dtypes.bfloat16}
F8 = {
    "f8e4m3fn": ml_dtypes.float8_e4m3fn,
    "f8e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "f8e5m2": ml_dtypes.float8_e5m2,
    "f8e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
}


@pytest.mark.parametrize("name", NARROW)
def test_half_floats(library: ctypes.CDLL, name: str) -> None:
    rng = np.random.default_rng(6)
    codes = np.arange(65536, dtype=np.uint16)
    with np.errstate(all="ignore"):
        values = codes.view(NARROW[name]).astype(np.float32)
        for t in ("f32", "f64"):
            same_float(call(library, f"{name}_to_{t}", codes), values.astype(NP_TYPES[t]))
        x = float_inputs(rng)
        same_codes(call(library, f"f32_to_{name}", x), x.astype(NARROW[name]))
        wide = double_inputs(rng)
        if name == "f16":
            same_codes(call(library, "f64_to_f16", wide), wide.astype(np.float16))
        else:  # ml_dtypes goes by way of float: compare where that is exact
            wide = wide.astype(np.float32).astype(np.float64)
            same_codes(call(library, "f64_to_bf16", wide), wide.astype(ml_dtypes.bfloat16))


def test_double_to_bfloat16_rounds_once(library: ctypes.CDLL) -> None:
    low, high = 0x3F80, 0x3F81
    middle = 1 + 2.0**-8
    x = [middle, middle * (1 + 2.0**-50), middle * (1 - 2.0**-50), -middle * (1 + 2.0**-50)]
    want = [low, high, low, high | 0x8000]
    np.testing.assert_array_equal(call(library, "f64_to_bf16", np.array(x)), want)


@pytest.mark.parametrize("name", F8)
def test_float8(library: ctypes.CDLL, name: str) -> None:
    kind, codes = F8[name], np.arange(256, dtype=np.uint8)
    with np.errstate(all="ignore"):
        values = codes.view(kind).astype(np.float32)
        same_float(call(library, f"{name}_to_f32", codes), values)
        same_float(call(library, f"{name}_to_f64", codes), values.astype(np.float64))
        finite = np.sort(values[np.isfinite(values)].astype(np.float64))
        middles = (finite[:-1] + finite[1:]) / 2
        ties = np.concatenate([middles, middles * (1 + 2.0**-20), middles * (1 - 2.0**-20)])
        x = np.concatenate([float_inputs(np.random.default_rng(7)), ties.astype(np.float32)])
        same_codes(call(library, f"f32_to_{name}", x, 0), x.astype(kind))
        top = float(ml_dtypes.finfo(kind).max)
        clipped = np.clip(x, np.float32(-top), np.float32(top)).astype(kind)
        same_codes(call(library, f"f32_to_{name}", x, 1), clipped)
        wide = np.concatenate([middles * (1 + 2.0**-50), middles * (1 - 2.0**-50)])
        nearer = np.array([finite[np.argmin(np.abs(finite - v))] for v in wide])
        signed = np.copysign(nearer, wide).astype(np.float32)
        same_codes(call(library, f"f64_to_{name}", wide, 1), signed.astype(kind))


def test_float8_is_that_of_onnx(library: ctypes.CDLL) -> None:
    cast = pytest.importorskip("onnx.reference.ops.op_cast").cast_to
    from onnx import TensorProto

    x = float_inputs(np.random.default_rng(8))
    for name in F8:
        to = getattr(TensorProto, name.upper().replace("F8", "FLOAT8"))
        with np.errstate(all="ignore"):
            for saturate in (False, True):
                want = cast(x, to, saturate)
                same_codes(call(library, f"f32_to_{name}", x, saturate), want)
    positive = np.abs(x[np.isfinite(x) & (x != 0)])
    for mode, text in enumerate(("nearest", "up", "down")):
        for saturate in (False, True):
            want = cast(positive, TensorProto.FLOAT8E8M0, saturate, text)
            got = call(library, "f32_to_f8e8m0fnu", positive, saturate, mode)
            np.testing.assert_array_equal(got, want.view(np.uint8))


def test_float8_e8m0_edges(library: ctypes.CDLL) -> None:
    """The rows of the Cast operator's table that its reference implementation does not follow."""
    x = np.float32([0.0, math.inf, math.nan])
    np.testing.assert_array_equal(call(library, "f32_to_f8e8m0fnu", x, 1, 1), [0, 0xFE, 0xFF])
    np.testing.assert_array_equal(call(library, "f32_to_f8e8m0fnu", x, 0, 0), [0xFF, 0xFF, 0xFF])
    codes = np.arange(256, dtype=np.uint8)
    values = codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    same_float(call(library, "f8e8m0fnu_to_f32", codes), values)


def test_float4(library: ctypes.CDLL) -> None:
    kind, codes = ml_dtypes.float4_e2m1fn, np.arange(16, dtype=np.uint8)
    same_float(call(library, "f4e2m1_to_f32", codes), codes.view(kind).astype(np.float32))
    x = float_inputs(np.random.default_rng(9))
    number = ~np.isnan(x)
    with np.errstate(all="ignore"):
        want = x.astype(kind).view(np.uint8)
    np.testing.assert_array_equal(call(library, "f32_to_f4e2m1", x)[number], want[number])
    assert call(library, "f32_to_f4e2m1", np.float32([math.nan]))[0] == 8


# ---- float to integer ----


def conversion_inputs(t: str) -> Array:
    rng = np.random.default_rng(10)
    powers = [s * 2.0**p for p in (7, 8, 15, 16, 31, 32, 63, 64) for s in (1, -1)]
    around = [
        f(v) for v in powers for f in (float, lambda v: v - 1, lambda v: v + 1, lambda v: v + 0.5)
    ]
    edges = np.asarray(around, NP_TYPES[t])
    down, up = (np.nextafter(edges, NP_TYPES[t](s)) for s in (-math.inf, math.inf))
    spread = rng.uniform(-1, 1, 4000) * 2.0 ** rng.uniform(0, 66, 4000)
    parts = [edges, down, up, spread, SPECIAL, [0.9, -0.9], every_pattern(t, 4000, rng)]
    return np.concatenate([np.asarray(p, NP_TYPES[t]) for p in parts])


@pytest.mark.parametrize("t", ["f32", "f64"])
@pytest.mark.parametrize("kind", INTS)
def test_float_to_integer(library: ctypes.CDLL, kind: str, t: str) -> None:
    x, info = conversion_inputs(t), np.iinfo(NP_TYPES[kind])

    def saturated(v: float) -> int:
        if math.isnan(v):
            return 0
        return info.max if v >= info.max else info.min if v <= info.min else int(v)

    want = np.array([saturated(float(v)) for v in x], NP_TYPES[kind])
    np.testing.assert_array_equal(call(library, f"{t}_to_{kind}", x), want)
    if kind == "u64":
        return
    wide = 64 if kind in ("u32", "i64") else 32

    def cut(v: float) -> int:
        inside = math.isfinite(v) and -(2 ** (wide - 1)) <= int(v) < 2 ** (wide - 1)
        low = (int(v) if inside else 1 << (wide - 1)) % (1 << info.bits)
        return low - (1 << info.bits) if low > info.max else low

    want = np.array([cut(float(v)) for v in x], NP_TYPES[kind])
    np.testing.assert_array_equal(call(library, f"{t}_to_{kind}_wrap", x), want)


# ---- integers ----


def trunc_div(a: int, b: int) -> int:
    return 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def power(a: int, e: int) -> int:
    if e < 0:
        return 1 if a == 1 else (-1 if e % 2 else 1) if a == -1 else 0
    return pow(a, e, 1 << 64) if a >= 0 else pow(a % (1 << 64), e, 1 << 64)


INTEGER: dict[str, Callable[[int, int], int]] = {
    "div": trunc_div,
    "fmod": lambda a, b: a - b * trunc_div(a, b) if b else 0,
    "mod": lambda a, b: a % b if b else 0,
    "floor_div": lambda a, b: a // b if b else 0,
    "min": min,
    "max": max,
    "pow": power,
}


def wrapped(value: int, kind: str) -> int:
    info = np.iinfo(NP_TYPES[kind])
    low = value % (1 << info.bits)
    return low - (1 << info.bits) if low > info.max else low


def integer_pairs(kind: str) -> tuple[Array, Array]:
    rng, info = np.random.default_rng(11), np.iinfo(NP_TYPES[kind])
    sizes = rng.integers(0, info.bits, (2, 4000)).astype(NP_TYPES[kind])
    patterns = rng.integers(info.min, info.max, (2, 4000), NP_TYPES[kind], endpoint=True) >> sizes
    special = [info.min, info.min + 1, info.max, info.max - 1, 0, 1, 2, 3, wrapped(-1, kind)]
    grid = np.array([(a, b) for a in special for b in special], NP_TYPES[kind]).T
    both = np.concatenate([patterns, grid], axis=1)
    return both[0], both[1]


@pytest.mark.parametrize("kind", INTS)
@pytest.mark.parametrize("name", INTEGER)
def test_integer_arithmetic(library: ctypes.CDLL, name: str, kind: str) -> None:
    a, b = integer_pairs(kind)
    exact = [wrapped(INTEGER[name](int(x), int(y)), kind) for x, y in zip(a, b, strict=True)]
    got = call(library, f"{name}_{kind}", a, b)
    np.testing.assert_array_equal(got, np.array(exact, NP_TYPES[kind]))


@pytest.mark.parametrize("kind", INTS)
def test_integer_shifts_abs_sign(library: ctypes.CDLL, kind: str) -> None:
    a, _ = integer_pairs(kind)
    bits = np.iinfo(NP_TYPES[kind]).bits
    for n in (0, 1, 3, bits - 1, bits, bits + 1, 100):
        left = [wrapped(int(x) << n, kind) for x in a]
        right = [int(x) >> n for x in a]
        np.testing.assert_array_equal(call(library, f"shl_{kind}", a, n), np.array(left, a.dtype))
        np.testing.assert_array_equal(call(library, f"shr_{kind}", a, n), np.array(right, a.dtype))
    sizes = [wrapped(abs(int(x)), kind) for x in a]
    np.testing.assert_array_equal(call(library, f"abs_{kind}", a), np.array(sizes, a.dtype))
    np.testing.assert_array_equal(call(library, f"sign_{kind}", a), np.sign(a))
    np.testing.assert_array_equal(call(library, f"clamp_{kind}", a, 2, 9), np.clip(a, 2, 9))
