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
            counted.append([p[:-1] for p in program.ticks()])
            progress.step("", 1)
    rates = ticks_per_second(lambda: [p[-1] for p in program.ticks()])
    seconds = [
        middle(c) / rate
        for rate, *rounds_of in zip(rates, *counted, strict=True)
        for c in zip(*rounds_of, strict=True)
    ]
    total = sum(seconds) or 1
    return [
        StepTime(k, s["origin"], s["op"], s.get("algorithm") or s["backend"],
                 t, t / total, s.get("macs", 0), s.get("bytes", 0), s.get("next_best", ""))
        for k, (t, s) in enumerate(zip(seconds, program.report["steps"], strict=True))
    ]  # fmt: skip


def ticks_per_second(now: Callable[[], Sequence[int]]) -> list[float]:
    """The rates of the clocks whose times now the function gives."""
    first, begin = now(), time.perf_counter()
    time.sleep(CALIBRATION_S)
    last, end = now(), time.perf_counter()
    return [(b - a) / (end - begin) for a, b in zip(first, last, strict=True)]
