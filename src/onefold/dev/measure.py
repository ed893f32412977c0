"""How long things take, and how fast this machine could be.

The clock of a machine drifts while it is measured, so contestants run in turns, round by round,
and are compared within rounds. The peak is measured in the same rounds.
"""

from __future__ import annotations

import ctypes
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onefold.errors import InputError

if TYPE_CHECKING:
    from onefold.forms import Program

Call = Callable[[], Any]

LEAST = 2e-3
"""Seconds that one measurement lasts at least; quick calls are repeated inside it."""


@dataclass(frozen=True)
class Times:
    """Seconds of one call, one number per round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def least(self) -> float:
        return min(self.rounds)

    @property
    def spread(self) -> float:
        """Distance of the quartiles as a share of the median."""
        if len(self.rounds) < 4:
            return (max(self.rounds) - self.least) / self.median
        low, _, high = statistics.quantiles(self.rounds, n=4)
        return (high - low) / self.median

    def facts(self) -> dict[str, Any]:
        return {"median_s": self.median, "min_s": self.least, "spread": self.spread,
                "runs": len(self.rounds)}  # fmt: skip


def again_and_again(program: Program, inputs: Mapping[str, Any]) -> Call:
    """A call of a program that begins anew where its state is full."""

    def call() -> Any:
        try:
            return program(inputs)
        except InputError as e:
            if e.kind is not InputError.FULL:
                raise
        program.reset()
        return program(inputs)

    return call


def timed(call: Call, runs: int, limit: float) -> Times:
    """`runs` calls one by one, after one to warm up; fewer where `limit` seconds are used up."""
    call()
    rounds: list[float] = []
    end = time.perf_counter() + limit
    while len(rounds) < runs:
        start = time.perf_counter()
        call()
        now = time.perf_counter()
        rounds.append(now - start)
        if now > end:
            break
    return Times(tuple(rounds))


def interleaved(
    calls: Mapping[str, Call], rounds: int, tell: Callable[[], None] = lambda: None
) -> dict[str, Times]:
    """Times of each contestant: in every round each runs once, for at least LEAST seconds."""
    turns = {name: _turns(call) for name, call in calls.items()}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(turns[name]):
                call()
            found[name].append((time.perf_counter() - start) / turns[name])
        tell()
    return {name: Times(tuple(r)) for name, r in found.items()}


def _turns(call: Call) -> int:
    """How many calls fill LEAST seconds; also the warm-up."""
    call()
    start = time.perf_counter()
    call()
    once = max(time.perf_counter() - start, 1e-7)
    if once < LEAST:
        start = time.perf_counter()
        for _ in range(5):
            call()
        once = max((time.perf_counter() - start) / 5, 1e-7)
    return max(1, int(LEAST / once))


# --- the machine's peak ---------------------------------------------------------------------------

CHAINS = 12
"""Independent sums: enough to hide the latency of two multiply-add units, and they fit in
sixteen vector registers."""

_PEAK = r"""
typedef float vf __attribute__((vector_size(BYTES)));

__attribute__((visibility("default"))) float peak_flops(long turns) {
  vf a[CHAINS], b = (vf){} + 0.999f, c = (vf){} + 0.001f;
  for (int i = 0; i < CHAINS; i++) a[i] = (vf){} + (float)i;
  for (long n = 0; n < turns; n++) {
#pragma clang loop unroll(full)
    for (int i = 0; i < CHAINS; i++) a[i] = a[i] * b + c;
#pragma clang loop unroll(full)
    for (int i = 0; i < CHAINS; i++) __asm__ volatile("" : REGISTER(a[i]));
  }
  float sum = 0;
  for (int i = 0; i < CHAINS; i++) sum += a[i][0];
  return sum;
}
"""


@cache
def _peak_loop() -> tuple[Callable[[int], float], int, tempfile.TemporaryDirectory[str]]:
    """The compiled loop, floats per vector, and the folder that holds it while it is loaded."""
    from onefold.run import toolchain
    from onefold.target import find

    host = find("host")
    size = host.vector_bytes or 16
    register = {"x86_64": '"+v"' if size == 64 else '"+x"', "aarch64": '"+w"'}[host.arch]
    text = f"#define BYTES {size}\n#define CHAINS {CHAINS}\n#define REGISTER {register}\n{_PEAK}"
    folder = tempfile.TemporaryDirectory(prefix="onefold-peak-")
    work = Path(folder.name)
    objects = toolchain.compile_units([("peak.c", text)], host, work, shared=True)
    toolchain.link_shared(objects, work / "peak.so", host)
    loop = ctypes.CDLL(str(work / "peak.so")).peak_flops
    loop.argtypes, loop.restype = [ctypes.c_long], ctypes.c_float
    return loop, size // 4, folder


def peak_call(turns: int = 200_000) -> tuple[Call, float]:
    """A call of pure f32 multiply-adds on one core, and how many operations it does (two per
    multiply-add)."""
    loop, width, _ = _peak_loop()
    return (lambda: loop(turns)), 2.0 * width * CHAINS * turns


def ratios(times: Sequence[float], others: Sequence[float]) -> float:
    """The median of the quotients of two contestants, round by round."""
    return statistics.median(a / b for a, b in zip(times, others, strict=True))
