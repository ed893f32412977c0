"""How the threads of a program share the work of a step, as C text (of_team.h).

A step is split where that pays: its kernel then computes the share of the part that calls it,
between bounds made of the part's number. Every other step is run by part 0. What is computed does
not depend on the number of parts.

Between steps the threads meet, except where each only reads what it has written itself and writes
what no other one reads: `Shares` tells of a kernel which memory belongs to whom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from onefold.ir import dims
from onefold.ir.dims import Dim, Sym

HEADER = "of_team.h"
MOST = 256  # OF_TEAM_MAX
BYTES = 64 * (MOST + 4)  # room for a struct of_team
WORTH = 4000  # estimated cycles from which a step is split: several times what a meeting costs
WORTH_ALL = 40_000  # estimated cycles of a program from which it gets threads at all
GAIN = 1.15  # estimated speed-up from which it does
MEETING = 500.0  # cycles of one meeting
EVEN = 0.9  # the share of the time in which all threads have work, from which a split is even


def parts_for(cycles: float, threads: int) -> int:
    """In how many parts a step of so many cycles is computed: as many as there are threads, or one
    where the threads' meeting costs too much of what it brings."""
    return threads if cycles >= WORTH else 1


def pays(shared: float, total: float, meetings: int, parts: int) -> bool:
    """Whether threads pay for a program of `total` cycles, `shared` of which are in steps that they
    split."""
    left = total - shared * (1 - 1 / parts) + meetings * MEETING
    return total >= WORTH_ALL and total >= GAIN * left


def evenness(units: Dim, parts: int) -> float:
    """The share of the time in which all threads have work, if they share so many equal units."""
    if not isinstance(units, int):
        return 1.0
    return units / (parts * -(-units // parts)) if units else 0.0


def is_even(units: Dim, parts: int) -> bool:
    return evenness(units, parts) >= EVEN


@dataclass(frozen=True)
class Reach:
    """Memory that belongs to the units of a kernel: `unit` elements at unit * number, and again in
    every `period` elements (0: there only)."""

    unit: int
    period: int = 0


@dataclass(frozen=True)
class Shares:
    """How threads share a kernel: ranges of `units`, cut at multiples of `step`. reach: for each
    pointer, by its name, what it gets at for a unit; others get anywhere."""

    units: int
    step: int
    reach: tuple[tuple[str, Reach], ...]

    def cuts(self, parts: int) -> list[int]:
        """Where the shares of so many parts begin and the last one ends: of_cut of of_team.h."""
        pieces = -(-self.units // self.step)
        return [min(pieces * k // parts * self.step, self.units) for k in range(parts + 1)]


def _reach(places: Sequence[Dim], unit: Sym, units: int) -> Reach | None:
    """What belongs to a unit of the memory that has these places; None where it is not so."""
    sizes = {dims.coefficient(p, unit) for p in places}
    size = sizes.pop()
    if sizes or not isinstance(size, int) or size <= 0:
        return None
    terms = [dims.sum_terms(dims.add(p, dims.mul(-size, dims.atom(unit)))) for p in places]
    far = [c for t in terms for what, c in t.items() if what and c >= size * units]
    period = math.gcd(*far)
    if far and period < size * units:
        return None
    for t in terms:
        near: Dim = t.get((), 0) % period if period else t.get((), 0)
        for what, c in t.items():
            if what and c < size * units:
                near = dims.add(near, dims.mul(c, dims.product(map(dims.atom, what))))
        low, high = dims.bounds(near)
        if low < 0 or high >= size:
            return None
    return Reach(size, period)


@dataclass
class Team:
    """The threads that one kernel is written for; `used` tells whether it has been split."""

    parts: int = 1
    used: bool = False
    cuts: list[tuple[Sym | None, Dim, int]] = field(default_factory=list)
    """What has been shared: the counter of its units, if it has one, their number, and the step."""
    met: bool = False
    places: dict[str, list[Dim]] = field(default_factory=dict)
    """Of pointers, the positions that the kernel gets at, as far as they are told."""

    def note(self, pointer: str, place: Dim) -> None:
        """Tell a position that the kernel gets at."""
        if self.parts > 1:
            self.places.setdefault(pointer, []).append(place)

    def shares(self) -> Shares | None:
        """What belongs to whom, if that is known."""
        if len(self.cuts) != 1 or self.met:
            return None
        unit, units, step = self.cuts[0]
        if unit is None or not isinstance(units, int):
            return None
        found = ((name, _reach(places, unit, units)) for name, places in self.places.items())
        return Shares(units, step, tuple((name, r) for name, r in found if r is not None))

    def bounds(
        self, n: str, step: int = 1, names: Sequence[str] = ("from", "to"),
        unit: tuple[Sym | None, Dim] = (None, 0),
    ) -> str:  # fmt: skip
        """The statement that declares the ends of this part's share of n elements; unit: the
        counter whose values are shared, and how many it has."""
        self.used = True
        self.cuts.append((*unit, step))
        first, end = (f"of_{f}(me, {n}, {step})" for f in ("from", "to"))
        return f"const ix {names[0]} = {first}, {names[1]} = {end};"

    def wait(self) -> list[str]:
        """The statement that waits for all parts."""
        self.used = self.met = True
        return ["of_wait(me);"]
