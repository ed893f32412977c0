"""The process of one engine: `convert`, or `serve` rounds when told to.

    python -m bench.child convert ENGINE JOB
    python -m bench.child serve ENGINE JOB CPUS
    python -m bench.child machine WEIGHTS CPUS

It answers with one line of JSON each time; all else that it or its libraries print goes to
stderr. It imports nothing but NumPy and its engine, so that its memory is the engine's.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import peers
from bench.job import Job, Skip

LEAST = 5e-4
"""Seconds of the shortest sample; quick calls are repeated inside it."""

WARM = 0.15
"""Share of a round that is spent before anything is timed."""


def convert(engine: peers.Engine, job: Job) -> dict[str, Any]:
    job.at.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    files = engine.convert(job)
    return {"seconds": time.perf_counter() - start, "versions": _versions(engine),
            "files": [str(f) for f in files], "bytes": sum(f.stat().st_size for f in files)}


def _versions(engine: peers.Engine) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in engine.distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # a converter lives elsewhere
    return found


def serve(engine: peers.Engine, job: Job, say: Callable[[Any], None]) -> None:
    feeds = job.feeds()
    before = _memory("VmRSS")
    _forget_peak()
    start = time.perf_counter()
    call, outputs = engine.load(job, feeds)
    loaded = time.perf_counter()
    call()
    first = time.perf_counter()
    peak = _memory("VmHWM") - before
    _forget_peak()
    answer = {f"out{k}": a for k, a in enumerate(outputs())}
    np.savez(job.at / "outputs.npz", **answer)
    say({"load_s": loaded - start, "first_s": first - loaded, "load_peak_bytes": peak,
         "versions": _versions(engine)})  # fmt: skip
    _forget_peak()
    for line in sys.stdin:
        say(_round(call, float(line)))
    say({"run_peak_bytes": _memory("VmHWM") - before})


def _round(call: Callable[[], Any], seconds: float) -> dict[str, float]:
    start = now = time.perf_counter()
    count = 0
    while count == 0 or now - start < WARM * seconds:
        call()
        count += 1
        now = time.perf_counter()
    turns = range(max(1, int(LEAST / ((now - start) / count))))
    end = now + (1 - WARM) * seconds
    samples: list[float] = []
    while len(samples) < 3 or now < end:
        before = time.perf_counter()
        for _ in turns:
            call()
        now = time.perf_counter()
        samples.append((now - before) / len(turns))
    return {"median": statistics.median(samples), "min": min(samples), "samples": len(samples)}


def serve_machine(weights: int, say: Callable[[Any], None]) -> None:
    from bench.machine import Machine

    machine = Machine(weights)
    say({})
    for line in sys.stdin:
        say(machine.rates(float(line)))
    say({})


def _memory(what: str) -> int:
    """VmRSS: resident bytes now; VmHWM: the most since the last `_forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {what}")


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(facts: Any) -> None:
        out.write(json.dumps(facts) + "\n")
        out.flush()

    verb, *args = sys.argv[1:]
    try:
        if verb == "convert":
            say(convert(peers.find(args[0]), Job.loads(args[1])))
        else:
            os.sched_setaffinity(0, [int(c) for c in args[-1].split(",")])
            if verb == "machine":
                serve_machine(int(args[0]), say)
            else:
                serve(peers.find(args[0]), Job.loads(args[1]), say)
    except Skip as e:
        say({"skip": str(e)})
    except Exception as e:  # of another's making: a reason to go without this engine
        import traceback

        traceback.print_exc()
        say({"skip": f"{type(e).__name__}: {str(e).strip()[:200]}"})


if __name__ == "__main__":
    main()
