"""How the threads of a program share the work of a step, as C text (of_team.h).

A step is split where that pays: its kernel then computes the share of the part that calls it,
between bounds made of the part's number. Every other step is run by part 0. What is computed does
not depend on the number of parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onefold.ir.dims import Dim

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


@dataclass
class Team:
    """The threads that one kernel is written for; `used` tells whether it has been split."""

    parts: int = 1
    used: bool = False

    def bounds(self, n: str, step: int = 1, names: Sequence[str] = ("from", "to")) -> str:
        """The statement that declares the ends of this part's share of n elements."""
        self.used = True
        first, end = (f"of_{f}(me, {n}, {step})" for f in ("from", "to"))
        return f"const ix {names[0]} = {first}, {names[1]} = {end};"

    def wait(self) -> list[str]:
        """The statement that waits for all parts."""
        self.used = True
        return ["of_wait(me);"]
