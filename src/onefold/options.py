"""What the user asks of the compiler beside the model and the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onefold.errors import OptionError

if TYPE_CHECKING:
    from onefold.target import Target

GOALS = ("latency", "size")
"""What a program may be made for."""

LEVELS = {"-O0": "latency", "-O1": "latency", "-O2": "latency", "-O3": "latency", "-Os": "size",
          "-Oz": "size"}  # fmt: skip
"""Levels of the compiler that may be asked for instead, and the goal that goes with each."""

PRODUCTS = {"bf16": frozenset({"avx512bf16", "bf16"}), "f16": frozenset({"fp16fml"})}
"""Features with products of two elements at a time, summed up in f32."""


@dataclass(frozen=True)
class Options:
    """optimize: one of GOALS or LEVELS. exact: no algorithm whose rounding errors are larger than
    those of the plain sums, as Winograd's are. profile: the program counts the time that each of
    its steps takes. tuned: what has been measured: the signature of a node -> kernel -> seconds;
    None where that is not to count."""

    precision: str = "f32"
    threads: int = 1
    optimize: str = "latency"
    exact: bool = False
    profile: bool = False
    tuned: Mapping[str, Mapping[str, float]] | None = field(default=None, hash=False)

    @property
    def goal(self) -> str:
        """One of GOALS."""
        return LEVELS.get(self.optimize, self.optimize)

    @property
    def flags(self) -> tuple[str, ...]:
        """What the kernels are told of the goal."""
        return ("-DOF_SMALL",) if self.goal == "size" else ()

    def level(self, target: Target) -> str:
        """The compiler's. With -Os kernels of vectors take a third longer, for little."""
        if self.optimize in LEVELS:
            return self.optimize
        return "-Os" if self.goal == "size" and target.os == "none" else "-O3"


DEFAULTS = Options()


def usual_goal(target: Target) -> str:
    """What programs for a target are made for where nothing is asked."""
    return "size" if target.os == "none" else "latency"


def check_threads(threads: int) -> None:
    """Raises OptionError."""
    if not isinstance(threads, int) or not 1 <= threads <= 256:
        raise OptionError(f"threads={threads} is out of range",
                          why="it is a number from 1 to 256")  # fmt: skip


def check_optimize(optimize: str) -> None:
    """Raises OptionError."""
    if optimize not in GOALS and optimize not in LEVELS:
        raise OptionError(f"there is no optimisation '{optimize}'",
                          why="it is one of " + ", ".join((*GOALS, *LEVELS)))  # fmt: skip


def check_precision(precision: str, target: Target) -> None:
    """Raises OptionError where the target cannot compute in that precision."""
    if precision in PRODUCTS and not PRODUCTS[precision] & target.features:
        raise OptionError(
            f"'{target.name}' does not compute in {precision}",
            why=f"it has none of the features {', '.join(sorted(PRODUCTS[precision]))}",
            remedy="Use f32, or auto, which takes what the target has.",
        )
