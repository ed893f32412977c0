"""The numeric headers against NumPy, the C library's long double, ml_dtypes and Python's integers.

Three builds are measured: this machine with all it has, the x86-64 or AArch64 baseline (on x86 no
FMA and no rounding instruction), and plain C for everything (OF_PORTABLE).
"""

from __future__ import annotations

import ctypes
import math
import platform
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.kernel.numeric import INTS, KERNELS, NP_TYPES, build, call

pytestmark = pytest.mark.toolchain
Array = np.ndarray[Any, Any]
Function = Callable[[Array], Array]
LD = np.longdouble
BASELINE = ["-mcpu=x86_64"] if platform.machine() == "x86_64" else ["-mcpu=generic"]
BUILDS = {
    "native": ["-march=native"],
    "baseline": ["-target", f"{platform.machine()}-linux-gnu", *BASELINE],
    "portable": ["-march=native", "-DOF_PORTABLE"],
}


@pytest.fixture(scope="module", params=BUILDS)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder: Path = tmp_path_factory.mktemp("num")
    return build(folder, request.param, BUILDS[request.param])


# ---- accuracy ----


def bounds() -> dict[str, tuple[float, float, tuple[float, float] | None]]:
    """Function -> ulp of float, ulp of double, range, from the comment of of_math.h."""
    row = re.compile(r"^//   (\w+) +([\d.]+) +([\d.]+)(?: +\[(.+), (.+)\])?$", re.M)
    table = {}
    for name, single, double, low, high in row.findall((KERNELS / "of_math.h").read_text()):
        limits = (float(low), float(high)) if low else None
        table[name] = (float(single), float(double), limits)
    return table


BOUNDS = bounds()


def elementwise(function: Callable[[float], float]) -> Function:
    """A function of Python's math, with C's results where Python raises."""

    def apply(x: Array) -> Array:
        def one(v: float) -> float:
            try:
                return function(v)
            except OverflowError:
                return math.inf
            except ValueError:
                return math.nan

        return np.array([one(float(v)) for v in x])

    return apply


erf, erfc = elementwise(math.erf), elementwise(math.erfc)


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def gelu_tanh(x: Array) -> Array:
    pi = LD(math.pi) + LD(1.2246467991473532e-16)
    return x * sigmoid(2 * np.sqrt(2 / pi) * (x + LD("0.044715") * x * x * x))


REFERENCE: dict[str, Function] = {
    **{
        name: getattr(np, name)
        for name in "exp exp2 expm1 log log2 log10 log1p sqrt cbrt sin cos tan sinh cosh tanh".split()
    },
    "rsqrt": lambda x: 1 / np.sqrt(x),
    **{f"a{name}": getattr(np, f"arc{name}") for name in "sin cos tan sinh cosh tanh".split()},
    "erf": erf,
    "erfc": erfc,
    "tgamma": elementwise(math.gamma),
    "lgamma": elementwise(math.lgamma),
    "sigmoid": sigmoid,
    "softplus": softplus,
    "silu": lambda x: x * sigmoid(x),
    "mish": lambda x: x * np.tanh(softplus(x)),
    "gelu": lambda x: x * erfc(-x / np.sqrt(LD(2))) / 2,
    "gelu_tanh": gelu_tanh,
}
SLOW = {"erf", "erfc", "tgamma", "lgamma", "gelu"}  # one call of Python per element
INTERESTING = {  # where the function bends, besides every bit pattern
    "asin": (-1, 1),
    "acos": (-1, 1),
    "atanh": (-1, 1),
    "log1p": (-1, 2),
    "log": (0.5, 2),
    "log2": (0.5, 2),
    "log10": (0.5, 2),
    "acosh": (1, 1.1),
    "erfc": (-6, 27),
    "exp": (-750, 720),
    "exp2": (-1100, 1030),
    "sinh": (-720, 720),
    "cosh": (-720, 720),
    "sin": (-1e9, 1e9),
    "cos": (-1e9, 1e9),
    "tan": (-1e9, 1e9),
}
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 0.5, 2.0, 4.0, 1e-40, -1e-40]


def every_pattern(t: str, count: int, rng: np.random.Generator) -> Array:
    bits = rng.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    wide = rng.integers(0, 2**64, count, dtype=np.uint64).view(np.float64)
    return bits if t == "f32" else wide


def inputs(name: str, t: str, limits: tuple[float, float] | None) -> Array:
    rng = np.random.default_rng(1)
    count = 4_000 if name in SLOW else 60_000
    if limits:
        return rng.uniform(*limits, count).astype(NP_TYPES[t])
    low, high = INTERESTING.get(name, (-20, 20))
    if t == "f32" and "exp" in name:
        low, high = low / 7, high / 7
    near = rng.uniform(low, high, count)
    small = rng.uniform(-20, 20, count) * 10.0 ** rng.uniform(-12, 0, count)
    parts = [near, small, 1 - rng.uniform(0, 0.1, count), SPECIAL]
    chosen = np.concatenate(parts).astype(NP_TYPES[t])
    return np.concatenate([every_pattern(t, count, rng), chosen])


@cache
def reference(name: str, t: str) -> tuple[Array, Array]:
    x = inputs(name, t, BOUNDS[name][2])
    with np.errstate(all="ignore"):
        return x, np.asarray(REFERENCE[name](x.astype(LD)), LD)


def ulps(got: Array, want: Array, t: str) -> Array:
    """|got - want| in units of the last place of ``want``; infinite where NaN or infinity differ."""
    info = np.finfo(NP_TYPES[t])
    with np.errstate(all="ignore"):
        rounded = want.astype(NP_TYPES[t])
        exponent = np.floor(np.log2(np.abs(want)))
        exponent = np.clip(np.nan_to_num(exponent, neginf=info.minexp), info.minexp, info.maxexp - 1)
        error = np.abs(got.astype(LD) - want) / np.ldexp(LD(1), exponent.astype(int) - info.nmant)
    equal = (got == rounded) | (np.isnan(got) & np.isnan(want))
    return np.where(np.isfinite(error), error, np.where(equal, 0, np.inf))


@pytest.mark.skipif(np.finfo(LD).nmant < 60, reason="the host's long double is no wider than double")
@pytest.mark.parametrize("t", ["f32", "f64"])
@pytest.mark.parametrize("name", REFERENCE)
def test_accuracy(library: ctypes.CDLL, name: str, t: str) -> None:
    x, want = reference(name, t)
    got = call(library, f"{name}_{t}", x)
    error = ulps(got, want, t)
    worst = int(np.argmax(error))
    bound = BOUNDS[name][t == "f64"]
    assert error[worst] <= bound, f"{x[worst]!r} gives {got[worst]!r}, exact {want[worst]!r}"
    zero = (want == 0) & (got == 0)
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(want[zero]))


@pytest.mark.skipif(np.finfo(LD).nmant < 60, reason="the host's long double is no wider than double")
@pytest.mark.parametrize("t", ["f32", "f64"])
@pytest.mark.parametrize(("name", "exact"), [("pow", np.power), ("atan2", np.arctan2)])
def test_accuracy_of_two(library: ctypes.CDLL, name: str, exact: Any, t: str) -> None:
    rng = np.random.default_rng(2)
    n = 40_000
    x = [rng.uniform(0, 20, n), 1 + rng.uniform(-0.01, 0.01, n), rng.uniform(0, 1e6, n)]
    y = [rng.uniform(-30, 30, n), rng.uniform(-3000, 3000, n), rng.uniform(-1, 1, n)]
    with np.errstate(all="ignore"):
        a = np.concatenate([*x, np.abs(every_pattern(t, n, rng))]).astype(NP_TYPES[t])
        b = np.concatenate([*y, every_pattern(t, n, rng)]).astype(NP_TYPES[t])
        want = exact(a.astype(LD), b.astype(LD))
    error = ulps(call(library, f"{name}_{t}", a, b), want, t)
    worst = int(np.argmax(error))
    assert error[worst] <= BOUNDS[name][t == "f64"], (a[worst], b[worst])


@pytest.mark.parametrize("t", ["f32", "f64"])
def test_far_negative_activations(library: ctypes.CDLL, t: str) -> None:
    x = np.linspace(-40, -1, 4001).astype(NP_TYPES[t])
    wide = x.astype(LD)
    limit = 5e-7 if t == "f32" else 1e-15
    for name in ("gelu", "gelu_tanh"):
        got = call(library, f"{name}_{t}", x)
        np.testing.assert_allclose(got, REFERENCE[name](wide).astype(np.float64), atol=limit, rtol=0)


def test_lgamma_near_its_zeros_and_below(library: ctypes.CDLL) -> None:
    x = np.random.default_rng(3).uniform(-30, 3, 5000)
    want = REFERENCE["lgamma"](x)
    np.testing.assert_allclose(call(library, "lgamma_f64", x), want, atol=2e-14, rtol=1e-14)


# ---- exact functions and special cases ----

GRID = [0.0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, math.inf, -math.inf, math.nan, 1e-40, 1e30]
EXACT = {
    "fmod": np.fmod,
    "mod": np.mod,
    "floor_div": np.floor_divide,
    "min": np.minimum,
    "max": np.maximum,
    "fmin": np.fmin,
    "fmax": np.fmax,
    "copysign": np.copysign,
}


def same_float(got: Array, want: Array) -> None:
    """Equal values, equal signs of zero, NaN with NaN."""
    np.testing.assert_array_equal(got, want)
    number = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(want[number]))


@pytest.mark.parametrize("t", ["f32", "f64"])
@pytest.mark.parametrize("name", EXACT)
def test_exact_of_two(library: ctypes.CDLL, name: str, t: str) -> None:
    rng = np.random.default_rng(4)
    near = rng.uniform(-20, 20, 4000), rng.uniform(-3, 3, 4000)
    patterns = every_pattern(t, 4000, rng), every_pattern(t, 4000, rng)
    grid = np.meshgrid(GRID, GRID)
    for x, y in (near, patterns, grid):
        a, b = np.asarray(x, NP_TYPES[t]), np.asarray(y, NP_TYPES[t])
        with np.errstate(all="ignore"):
            same_float(call(library, f"{name}_{t}", a, b), EXACT[name](a, b))


@pytest.mark.parametrize("t", ["f32", "f64"])
@pytest.mark.parametrize(("name", "exact"), [("pow", np.power), ("atan2", np.arctan2)])
def test_special_cases_of_two(library: ctypes.CDLL, name: str, exact: Any, t: str) -> None:
    a, b = (np.asarray(v, NP_TYPES[t]) for v in np.meshgrid(GRID, GRID))
    with np.errstate(all="ignore"):
        want = exact(a, b)
    got = call(library, f"{name}_{t}", a, b)
    np.testing.assert_allclose(got, want, rtol=1e-6 if t == "f32" else 1e-15)
    number = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(want[number]))


def round_away(x: Array) -> Array:
    whole = np.trunc(np.abs(x))
    return np.copysign(np.where(np.abs(x) - whole >= 0.5, whole + 1, whole), x)


@pytest.mark.parametrize("t", ["f32", "f64"])
def test_rounding(library: ctypes.CDLL, t: str) -> None:
    rng = np.random.default_rng(5)
    halves = np.arange(-2000, 2000) / 4
    edges = [s * (2.0**p + d) for s in (1, -1) for p in (22, 23, 24, 51, 52, 53) for d in (-0.5, 0, 0.5)]
    below_half = np.nextafter(NP_TYPES[t](0.5), NP_TYPES[t](0))
    parts = [halves, edges, SPECIAL, [below_half, -below_half], every_pattern(t, 20_000, rng)]
    x = np.concatenate([np.asarray(p, NP_TYPES[t]) for p in parts])
    rules: dict[str, Function] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "trunc": np.trunc,
        "round_even": np.rint,
        "round_away": round_away,
        "abs": np.abs,
        "sign": np.sign,
    }
    with np.errstate(all="ignore"):
        for name, rule in rules.items():
            same_float(call(library, f"{name}_{t}", x), rule(x))
    np.testing.assert_array_equal(call(library, f"isnan_{t}", x), np.isnan(x))
    np.testing.assert_array_equal(call(library, f"isinf_{t}", x), np.isinf(x))
    same_float(call(library, f"clamp_{t}", x, -1.5, 2.5), np.clip(x, -1.5, 2.5))


@pytest.mark.parametrize("t", ["f32", "f64"])
def test_whole_powers_and_factorials_are_exact(library: ctypes.CDLL, t: str) -> None:
    k = np.arange(-20, 21)
    same_float(call(library, f"exp2_{t}", k), (2.0**k).astype(NP_TYPES[t]))
    same_float(call(library, f"log2_{t}", 2.0**k), k.astype(NP_TYPES[t]))
    ten = np.arange(0, 11)
    same_float(call(library, f"log10_{t}", 10.0**ten), ten.astype(NP_TYPES[t]))
    factorial = np.array([math.factorial(i - 1) for i in range(1, 12)], NP_TYPES[t])
    same_float(call(library, f"tgamma_{t}", np.arange(1, 12)), factorial)


def test_gamma_edges(library: ctypes.CDLL) -> None:
    x = np.array([0.0, -0.0, math.inf, -math.inf, math.nan, -1.0, -2.0, 171.5, 180.0, 1e-310])
    inf, nan = math.inf, math.nan
    want = [inf, -inf, inf, nan, nan, nan, nan, math.gamma(171.5), inf, inf]
    np.testing.assert_allclose(call(library, "tgamma_f64", x), want, rtol=1e-14)
    want = [inf, inf, inf, inf, nan, inf, inf, math.lgamma(171.5), math.lgamma(180), math.lgamma(1e-310)]
    np.testing.assert_allclose(call(library, "lgamma_f64", x), want, rtol=1e-14)


# ---- narrow floats ----


def float_inputs(rng: np.random.Generator) -> Array:
    codes = np.arange(65536, dtype=np.uint16)
    halves = codes.view(np.float16).astype(np.float32)
    brains = codes.view(ml_dtypes.bfloat16).astype(np.float32)
    near = np.concatenate([np.nextafter(v, np.float32(s)) for v in (halves, brains) for s in (9e9, -9e9)])
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
    around = [f(v) for v in powers for f in (float, lambda v: v - 1, lambda v: v + 1, lambda v: v + 0.5)]
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
