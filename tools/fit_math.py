"""Derive the polynomials of ``onefold/kernels/of_poly.h`` (needs mpmath).

Each row of ``fits()`` is a function on an interval; the Remez exchange algorithm (weighted, in
60-digit arithmetic) gives the polynomial whose largest weighted error is smallest. Run
``python tools/fit_math.py > src/onefold/kernels/of_poly.h``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from mpmath import (
    asin,
    atan,
    atanh,
    cos,
    erf,
    erfc,
    exp,
    log,
    loggamma,
    lu_solve,
    matrix,
    mp,
    mpf,
    pi,
    sin,
    sqrt,
)

mp.dps = 60
Real = Callable[[mpf], mpf]


@dataclass(frozen=True)
class Fit:
    """A polynomial of ``degree`` for ``of`` on [``lo``, ``hi``]; ``weight`` scales the error."""

    name: str
    ctype: str
    of: Real
    lo: mpf
    hi: mpf
    degree: int
    weight: Real = lambda x: mpf(1)


def remez(fit: Fit) -> tuple[list[mpf], mpf]:
    """Coefficients (constant first) and largest weighted error, by exchange over a dense grid."""
    n = fit.degree + 2
    middle, half = (fit.lo + fit.hi) / 2, (fit.hi - fit.lo) / 2
    count = 40 * n
    grid = [middle - half * cos(pi * (i + mpf(1) / 2) / count) for i in range(count)]
    value = [fit.of(x) for x in grid]
    weight = [fit.weight(x) for x in grid]
    nodes = [round(i * (count - 1) / (n - 1)) for i in range(n)]
    for _ in range(40):
        system = matrix(n, n)
        for row, i in enumerate(nodes):
            for k in range(n - 1):
                system[row, k] = ((grid[i] - middle) / half) ** k
            system[row, n - 1] = (-1) ** row / weight[i]
        solved = lu_solve(system, matrix([value[i] for i in nodes]))
        scaled = [solved[k] for k in range(n - 1)]
        error = [
            w * (v - evaluate(scaled, (x - middle) / half))
            for x, v, w in zip(grid, value, weight, strict=True)
        ]
        worst = max(abs(e) for e in error)
        if worst <= abs(solved[n - 1]) * mpf("1.001"):
            break
        nodes = alternation(error, n)
    return recentre(scaled, middle, half), worst


def alternation(error: list[mpf], n: int) -> list[int]:
    """The ``n`` grid points of largest error whose signs alternate."""
    peaks: list[int] = []
    for i, e in enumerate(error):
        if peaks and (error[peaks[-1]] >= 0) == (e >= 0):
            if abs(e) > abs(error[peaks[-1]]):
                peaks[-1] = i
        else:
            peaks.append(i)
    while len(peaks) > n:
        first, last = abs(error[peaks[0]]), abs(error[peaks[-1]])
        peaks = peaks[1:] if first < last else peaks[:-1]
    if len(peaks) < n:
        raise RuntimeError(f"{len(peaks)} alternations, {n} needed: the degree is too high")
    return peaks


def evaluate(coefficients: list[mpf], x: mpf) -> mpf:
    """Horner's rule."""
    total = mpf(0)
    for c in reversed(coefficients):
        total = total * x + c
    return total


def recentre(scaled: list[mpf], middle: mpf, half: mpf) -> list[mpf]:
    """From powers of (x - middle) / half to powers of x."""
    result = [mpf(0)]
    for c in reversed(scaled):
        shifted = [mpf(0), *[a / half for a in result]]
        for i, a in enumerate(result):
            shifted[i] -= a * middle / half
        shifted[0] += c
        result = shifted
    return result[: len(scaled)]


def erfcx_shape(t: mpf) -> mpf:
    """(1 + 2 x) exp(x^2) erfc(x) where t = (x - 4) / (x + 4): smooth on all of x >= 0."""
    x = 4 * (1 + t) / (1 - t)
    return (1 + 2 * x) * exp(x * x) * erfc(x)


def lgamma_shape(t: mpf) -> mpf:
    """log gamma(x) / ((x - 1) (x - 2)) where x = t + 1.5."""
    x = t + mpf("1.5")
    return loggamma(x) / ((x - 1) * (x - 2))


LN2 = log(2)
ROOT = sqrt(mpf(2))
S_MAX = (ROOT - 1) / (ROOT + 1)
TINY = mpf(10) ** -12


def fits() -> list[Fit]:
    """Every polynomial, with the interval on which it is used."""
    e_of: Real = lambda r: (exp(r) - 1 - r) / r**2  # noqa: E731
    sin_of: Real = lambda z: (sin(sqrt(z)) / sqrt(z) - 1) / z  # noqa: E731
    cos_of: Real = lambda z: (cos(sqrt(z)) - 1 + z / 2) / z**2  # noqa: E731
    r_max, q_max, z_max = LN2 / 2 * mpf("1.0001"), (pi / 4) ** 2 * mpf("1.0001"), S_MAX**2
    erf_of: Real = lambda z: erf(sqrt(z)) / sqrt(z) - 1  # noqa: E731
    split = mpf("0.92")
    return [
        Fit("exp_f32", "float", e_of, -r_max, r_max, 4),
        Fit(
            "log_f32",
            "float",
            lambda f: (log(1 + f) - f + f**2 / 2) / f**3,
            1 / ROOT - 1,
            ROOT - 1,
            8,
        ),
        Fit("erf_f32", "float", erf_of, TINY, split**2, 5),
        Fit(
            "erfc_log_f32",
            "float",
            lambda x: log(erfc(x)),
            split,
            mpf(4),
            7,
            lambda x: erfc(x) / erf(x),
        ),
        Fit("sin_f32", "double", sin_of, TINY, q_max, 3),
        Fit("cos_f32", "double", cos_of, TINY, q_max, 3),
        Fit("exp_f64", "double", e_of, -r_max, r_max, 9),
        Fit("log_f64", "double", lambda z: (2 * atanh(sqrt(z)) / sqrt(z) - 2) / z, TINY, z_max, 6),
        Fit(
            "atanh_f64",
            "double",
            lambda z: (atanh(sqrt(z)) / sqrt(z) - 1 - z / 3) / z**2,
            TINY,
            z_max,
            8,
        ),
        Fit("sin_f64", "double", sin_of, TINY, q_max, 5),
        Fit("cos_f64", "double", cos_of, TINY, q_max, 5),
        Fit(
            "atan_f64",
            "double",
            lambda z: (atan(sqrt(z)) / sqrt(z) - 1) / z,
            TINY,
            (ROOT - 1) ** 2,
            10,
        ),
        Fit(
            "asin_f64", "double", lambda z: (asin(sqrt(z)) / sqrt(z) - 1) / z, TINY, mpf("0.25"), 12
        ),
        Fit("erf_f64", "double", erf_of, TINY, mpf(1), 11),
        Fit("erfcx_f64", "double", erfcx_shape, mpf("-0.78"), mpf("0.78"), 21),
        Fit("lgamma_f64", "double", lgamma_shape, mpf("-0.5") + TINY, mpf("0.5") - TINY, 20),
    ]


def number(c: mpf, ctype: str) -> str:
    """A C constant of the type."""
    return mp.nstr(c, 10) + "f" if ctype == "float" else mp.nstr(c, 18)


def emit(fit: Fit) -> str:
    """The polynomial as an inline C function, Horner's rule."""
    coefficients, worst = remez(fit)
    bits = mp.nstr(log(worst, 2), 4)
    print(f"{fit.name}: degree {fit.degree}, error 2^{bits}", file=sys.stderr)
    lines = [f"// degree {fit.degree}, largest (weighted) error 2^{bits}"]
    lines.append(f"OF_INLINE {fit.ctype} of_poly_{fit.name}({fit.ctype} x) {{")
    lines.append(f"  {fit.ctype} p = {number(coefficients[-1], fit.ctype)};")
    lines += [f"  p = p * x + {number(c, fit.ctype)};" for c in reversed(coefficients[:-1])]
    return "\n".join([*lines, "  return p;", "}"]).replace("+ -", "- ")


def table(declaration: str, cells: list[str], per_line: int) -> str:
    """A C array."""
    rows = [", ".join(cells[i : i + per_line]) for i in range(0, len(cells), per_line)]
    return (
        f"static const {declaration} __attribute__((unused)) = {{\n    "
        + ",\n    ".join(rows)
        + "};"
    )


def cut(x: mpf, bits: int) -> mpf:
    """x without the bits below 2^-bits."""
    return mp.floor(x * mpf(2) ** bits) / mpf(2) ** bits


def half_pi() -> str:
    """pi/2 in pieces whose products with a count are exact: 33 + 33 + 53 and 3 * 23 + 53 bits."""
    lines = []
    for names, step in (("ABC", 32), ("PQRS", 22)):
        rest, at = pi / 2, step
        for name in names[:-1]:
            piece = cut(rest, at)
            lines.append(f"#define OF_PIO2_{name} {float(piece).hex()}")
            rest, at = rest - piece, at + step + 1
        lines.append(f"#define OF_PIO2_{names[-1]} {float(rest).hex()}")
    return "\n".join(lines)


def sigmoid_table() -> list[int]:
    """TFLite's table for int16 sigmoid and tanh; the last entry is the saturated value."""
    values = [65536 / (1 + exp(-mpf(i) / 48)) for i in range(513)]
    middle = [values[i + 1] - (values[i] + values[i + 2]) / 2 for i in range(0, 510, 2)]
    return [int(mp.nint(v + m / 2)) for v, m in zip(values[:510:2], middle, strict=True)] + [65535]


def main() -> None:
    """Print the header."""
    print("// Minimax polynomials, written by tools/fit_math.py; change them there.")
    print('#pragma once\n#include "of_base.h"\n')
    print("\n\n".join(emit(fit) for fit in fits()))
    print("\n// pi/2 in pieces")
    print(half_pi())
    mp.dps = 500
    words = [int(mp.floor(2 / pi * mpf(2) ** (64 * i))) % 2**64 for i in range(22)]
    print("\n// the bits of 2/pi, after 64 zeros")
    print(table("uint64_t of_two_over_pi[22]", [f"0x{w:016x}u" for w in words], 4))
    print("\n// 65536 sigmoid(i / 24), raised by half the error of linear interpolation")
    print(table("uint16_t of_sigmoid_table[256]", [str(s) for s in sigmoid_table()], 16))


if __name__ == "__main__":
    main()
