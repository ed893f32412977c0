"""The numeric headers against NumPy, the C library's long double and mathematics."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kernel.numeric import (
    BUILDS,
    KERNELS,
    NP_TYPES,
    SPECIAL,
    build,
    call,
    every_pattern,
    same_float,
)

pytestmark = pytest.mark.toolchain
Array = np.ndarray[Any, Any]
Function = Callable[[Array], Array]
LD = np.longdouble


@pytest.fixture(scope="module", params=BUILDS)
def library(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ctypes.CDLL:
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
        for name in "exp exp2 expm1 log log2 log10 log1p sqrt cbrt".split()
        + "sin cos tan sinh cosh tanh".split()
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
    """|got - want| in units of the last place of ``want``; infinite where NaN or inf differ."""
    info = np.finfo(NP_TYPES[t])
    with np.errstate(all="ignore"):
        rounded = want.astype(NP_TYPES[t])
        exponent = np.floor(np.log2(np.abs(want)))
        exponent = np.clip(
            np.nan_to_num(exponent, neginf=info.minexp), info.minexp, info.maxexp - 1
        )
        error = np.abs(got.astype(LD) - want) / np.ldexp(LD(1), exponent.astype(int) - info.nmant)
    equal = (got == rounded) | (np.isnan(got) & np.isnan(want))
    return np.where(np.isfinite(error), error, np.where(equal, 0, np.inf))


@pytest.mark.skipif(
    np.finfo(LD).nmant < 60, reason="the host's long double is no wider than double"
)
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


@pytest.mark.skipif(
    np.finfo(LD).nmant < 60, reason="the host's long double is no wider than double"
)
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
    far = [np.finfo(NP_TYPES[t]).min, -1e37, -1e30, -1e10, -1e3]
    x = np.concatenate([far, np.linspace(-40, -1, 4001)]).astype(NP_TYPES[t])
    wide = x.astype(LD)
    for name in ("gelu", "gelu_tanh"):
        limit = 1e-15 if t == "f64" else 9e-7 if name == "gelu" else 5e-7
        got = call(library, f"{name}_{t}", x)
        np.testing.assert_allclose(
            got, REFERENCE[name](wide).astype(np.float64), atol=limit, rtol=0
        )


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
    edges = [
        s * (2.0**p + d) for s in (1, -1) for p in (22, 23, 24, 51, 52, 53) for d in (-0.5, 0, 0.5)
    ]
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
    want = [
        inf,
        inf,
        inf,
        inf,
        nan,
        inf,
        inf,
        math.lgamma(171.5),
        math.lgamma(180),
        math.lgamma(1e-310),
    ]
    np.testing.assert_allclose(call(library, "lgamma_f64", x), want, rtol=1e-14)
