"""What the user asks of the compiler beside the model and the target."""

from __future__ import annotations

from dataclasses import dataclass

from onefold.errors import OptionError


@dataclass(frozen=True)
class Options:
    """exact: no algorithm whose rounding errors are larger than those of the plain sums, as
    Winograd's are. profile: the program counts the time that each of its steps takes."""

    precision: str = "f32"
    threads: int = 1
    optimize: str = "-O3"
    exact: bool = False
    profile: bool = False


DEFAULTS = Options()


def check_threads(threads: int) -> None:
    """Raises OptionError."""
    if not isinstance(threads, int) or not 1 <= threads <= 256:
        raise OptionError(f"threads={threads} is out of range",
                          why="it is a number from 1 to 256")  # fmt: skip
