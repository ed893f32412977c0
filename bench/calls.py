"""What calling a small network costs beyond its kernels, from C and from Python.

    python -m bench.calls [--rounds 60] [NETWORK ...]

Every round measures each of these for some milliseconds, one after another:

* the steps: the kernels' own time, by a program that reads the clock around each of them, less what
  reading the clock takes;
* `NAME_run`, called again and again by a loop in C;
* a prepared call from Python, and a call with a dict of arrays.

What is told is the least of all rounds, since whatever disturbs a loop makes it longer, and
differences of these. `one element` is a network of one ReLU of one number, which leaves the call
alone.
"""

from __future__ import annotations

import argparse
import ctypes
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import onefold
from bench.zoo import NETWORKS
from onefold.run.session import PreparedCall

SMALL = ("autoencoder", "ds_cnn", "resnet8")
ONE = "one element"
LEAST = 2e-3
"""Seconds that one measurement lasts at least."""

LOOPS = """
#include <stdint.h>
#include "of_tick.h"
typedef int32_t run(void *arena, const void *weights, void *state, const void *const *inputs,
                    void *const *outputs, int64_t *dims);

__attribute__((visibility("default")))
int32_t repeat(run *program, void *arena, const void *weights, void *state,
               const void *const *inputs, void *const *outputs, int64_t *dims, int64_t times) {
  int32_t stopped = 0;
  for (int64_t k = 0; k < times && !stopped; k++) {
    stopped = program(arena, weights, state, inputs, outputs, dims);
  }
  return stopped;
}

__attribute__((visibility("default")))
uint64_t read_clock(int64_t times) {
  static volatile uint64_t sum;
  sum = 0;
  for (int64_t k = 0; k < times; k++) {
    sum -= of_tick();
    sum += of_tick();
  }
  return sum;
}
"""


@dataclass(frozen=True)
class Row:
    """Microseconds of one call."""

    network: str
    count: int  # of steps
    steps: float
    c: float
    prepared: float
    plain: float


class Loops:
    """The loops in C."""

    def __init__(self) -> None:
        from onefold.run import toolchain
        from onefold.run.artifact import KERNELS
        from onefold.target import find

        with tempfile.TemporaryDirectory(prefix="onefold-calls-") as folder:
            work, host = Path(folder), find("host")
            objects = toolchain.compile_units([("loops.c", LOOPS)], host, work,
                                              include_dirs=[KERNELS], shared=True)  # fmt: skip
            toolchain.link_shared(objects, work / "loops.so", host)
            library = ctypes.CDLL(str(work / "loops.so"))
        self.repeat = library.repeat
        self.read_clock = library.read_clock
        self.read_clock.restype = ctypes.c_uint64

    def clock(self) -> float:
        """Units of the clock between two readings of it, one right after the other."""
        times = 100_000
        return float(self.read_clock(ctypes.c_int64(times))) / times

    def of(self, prepared: PreparedCall) -> Callable[[int], float]:
        """A function that makes a call so many times from C and tells the seconds it took."""
        call = prepared.call
        arguments = (call.library.run, *call.arguments)

        def run(times: int, memory: PreparedCall = prepared) -> float:
            begin = time.perf_counter()
            if self.repeat(*arguments, ctypes.c_int64(times)):
                raise ValueError(f"the program with {list(memory.inputs)} stops with an error")
            return time.perf_counter() - begin

        return run


def measure(name: str, model: onefold.Model, feeds: dict[str, Any], loops: Loops,
            rounds: int) -> Row:  # fmt: skip
    program, counted = model.compile(fallback=False), model.compile(fallback=False, profile=True)
    prepared = program.prepare(feeds)  # one for C and Python: the same memory
    in_c, in_steps = loops.of(prepared), loops.of(counted.prepare(feeds))
    times = max(1, int(LEAST / (in_c(10) / 10)))
    in_steps(times)
    clock = min(loops.clock() for _ in range(rounds))
    found = []
    for _ in range(rounds):
        ((*_, first),), begin = counted.ticks(), time.perf_counter()
        in_steps(times)
        (ticks,) = counted.ticks()
        unit = (time.perf_counter() - begin) / (ticks[-1] - first)
        steps = (sum(ticks[:-1]) / times - clock * (len(ticks) - 1)) * unit
        c = in_c(times) / times
        bound = _from_python(prepared, times)
        plain = _from_python(lambda: program(feeds), times)
        found.append((steps, c, bound, plain))
    return Row(name, len(ticks) - 1, *(1e6 * min(f) for f in zip(*found, strict=True)))


def _from_python(call: Callable[[], Any], times: int) -> float:
    turns = range(times)
    begin = time.perf_counter()
    for _ in turns:
        call()
    return (time.perf_counter() - begin) / times


def _models(names: Sequence[str]) -> list[tuple[str, onefold.Model, dict[str, Any]]]:
    import onnx
    from onnx import TensorProto as T
    from onnx import helper as h

    ports = ([h.make_tensor_value_info(n, T.FLOAT, [1])] for n in "xy")
    graph = h.make_graph([h.make_node("Relu", ["x"], ["y"])], "one", *ports)
    one = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    assert isinstance(one, onnx.ModelProto)
    found = [(ONE, onefold.load(one), {"x": np.ones(1, np.float32)})]
    with tempfile.TemporaryDirectory(prefix="onefold-calls-") as folder:
        for name in names:
            path = NETWORKS[name]().save(Path(folder))
            with np.load(path.with_suffix(".npz")) as arrays:
                found.append((name, onefold.load(path.read_bytes()), dict(arrays)))
    return found


def rows(names: Sequence[str] = SMALL, rounds: int = 60) -> list[Row]:
    loops = Loops()
    return [measure(*one, loops, rounds) for one in _models(names)]


def table(found: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| network | steps | their time | `run` from C | beyond the steps | prepared call from "
        "Python | beyond C | `program({...})` |", "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    lines += [
        f"| {r.network} | {r.count} | {r.steps:.3f} | {r.c:.3f} | {r.c - r.steps:.3f} | "
        f"{r.prepared:.3f} | {r.prepared - r.c:.3f} | {r.plain:.3f} |" for r in found
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("networks", nargs="*", metavar="NETWORK", help="default: " + ", ".join(SMALL))
    ap.add_argument("--rounds", type=int, default=60)
    args = ap.parse_args()
    unknown = [n for n in args.networks if n not in NETWORKS]
    if unknown:
        ap.error(f"there is no network {', '.join(unknown)}; known are {', '.join(NETWORKS)}")
    print("Microseconds of one call.\n\n" + table(rows(args.networks or SMALL, args.rounds)))


if __name__ == "__main__":
    main()
