"""Where the time of a call goes: the steps of a program, each with its time and share."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onefold import events

if TYPE_CHECKING:
    from onefold.forms import Program

CALIBRATION_S = 0.02


@dataclass(frozen=True)
class StepTime:
    """seconds: of one call; macs_per_s, bytes_per_s: of what the step computes and touches;
    next_best: the kernel that was the second choice, and its estimated cost over this one's."""

    index: int
    layer: str
    op: str
    kernel: str
    seconds: float
    share: float
    macs: int
    bytes: int
    next_best: str = ""

    @property
    def macs_per_s(self) -> float:
        return self.macs / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_s(self) -> float:
        return self.bytes / self.seconds if self.seconds else 0.0


def profile(
    program: Program, call: Callable[[], Any], rounds: int = 25,
    middle: Callable[[Sequence[int]], float] = statistics.median,
) -> list[StepTime]:  # fmt: skip
    """The steps of a program compiled with `profile=True`, in order. call: runs it once; middle:
    one time from those of all rounds."""
    call()
    program.ticks()
    counted = []
    with events.Progress("profiling", rounds) as progress:
        for _ in range(rounds):
            call()
            counted.append(program.ticks()[:-1])
            progress.step("", 1)
    counts = [middle(c) for c in zip(*counted, strict=True)]
    per_second = ticks_per_second(program.ticks)
    total = sum(counts) or 1
    return [
        StepTime(k, s["origin"], s["op"], s["algorithm"] or s["backend"],
                 c / per_second, c / total, s["macs"], s["bytes"], s.get("next_best", ""))
        for k, (c, s) in enumerate(zip(counts, program.report["steps"], strict=True))
    ]  # fmt: skip


def ticks_per_second(ticks: Callable[[], Sequence[int]]) -> float:
    """The rate of the clock that a program counts by; ticks: gives its time now at the end."""
    first, begin = ticks()[-1], time.perf_counter()
    time.sleep(CALIBRATION_S)
    last, end = ticks()[-1], time.perf_counter()
    return (last - first) / (end - begin)
