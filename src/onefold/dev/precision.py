"""precision="auto": the fastest program whose outputs stay near those of f32, found by running."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from onefold.dev.budget import SHARES, measure
from onefold.dev.feed import Style
from onefold.dev.feed.gather import gather
from onefold.dev.measure import interleaved
from onefold.options import PRODUCTS

if TYPE_CHECKING:
    from onefold.forms import Program

ROUNDS = 5
SAMPLES = 3


def fastest(make: Callable[[str], Program]) -> Program:
    """The program of f32, or a faster one of another precision: on random inputs, no output may be
    further from that of f32 than the budget of that precision, as a share of its range.

    `report["precision"]` tells what was found. make: compiles for a precision.
    """
    plain = make("f32")
    names = [n for n, some in PRODUCTS.items() if some & plain.target.features]
    told: dict[str, Any] = {"chosen": "f32"}
    plain.told["precision"] = told
    if not names:
        told["why"] = f"'{plain.target.name}' has no products of {' or '.join(PRODUCTS)}"
    elif not plain.closed:
        told["why"] = "its sizes are open, so that nothing could be measured"
    if "why" in told:
        return plain
    programs = {"f32": plain, **{n: make(n) for n in names}}
    given = [gather(plain.model, plain.wanted, {}, Style(), seed) for seed in range(SAMPLES)]
    samples = [g.arrays for g in given]
    for n in names:
        told[n] = {"error": max(_error(plain, programs[n], s) for s in samples), "limit": SHARES[n]}
    within = {n: p for n, p in programs.items() if n == "f32" or told[n]["error"] <= SHARES[n]}
    calls = {n: partial(p, samples[0]) for n, p in within.items()}
    times = interleaved(calls, ROUNDS)
    for n in within:
        told.setdefault(n, {})["seconds"] = times[n].median
    told["chosen"] = min(within, key=lambda n: times[n].median)
    best = within[told["chosen"]]
    best.told["precision"] = told
    return best


def _error(plain: Program, other: Program, inputs: Any) -> float:
    """The largest distance of an output, as a share of the range of that of f32."""
    plain.reset()
    other.reset()
    want, got = plain(inputs), other(inputs)
    return max((measure(got[n], want[n]).share for n in want), default=0.0)
