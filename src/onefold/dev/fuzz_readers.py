"""Fuzzes the readers: each mutated file must give records or a `ModelFormatError`, in bounds.

    python -m onefold.dev.fuzz_readers --format onnx --iterations 50000 --seed 1 MODEL...

An iteration fails when anything but an `OnefoldError` comes out, when it takes over two seconds,
or when it needs more than ten times the file and 50 MB.  Failing inputs are written to `--keep`.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from onefold.dev.deadline import deadline
from onefold.dev.mutate import mutate
from onefold.errors import OnefoldError
from onefold.frontend.onnx import reader as onnx_reader
from onefold.frontend.onnx.records import Graph
from onefold.frontend.onnx.tensors import SparseTensor, Tensor
from onefold.frontend.tflite import flexbuffer
from onefold.frontend.tflite import reader as tflite_reader

TIME_LIMIT_S = 2.0
MEMORY_FACTOR, MEMORY_BASE = 10, 50_000_000


class TooSlow(BaseException):
    """An iteration did not end in time; not an `Exception`, so that no reader catches it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One failing input: the seed that makes it, and what happened."""

    file: str
    seed: int
    kind: str
    what: str
    data: bytes = field(repr=False)


@dataclass(slots=True)
class Tally:
    """What became of the iterations."""

    iterations: int = 0
    read: int = 0
    slowest_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


def read_tflite(data: bytes) -> None:
    """Reads all that a TFLite importer could ask for: records, constants, custom options."""
    for graph in tflite_reader.read(data).subgraphs:
        for tensor in graph.tensors:
            if tensor.data is not None:
                _quietly(tensor.numpy)
        for op in graph.operators:
            if op.is_custom:
                _quietly(partial(flexbuffer.options, op.custom_options))


def read_onnx(data: bytes) -> None:
    """Reads all that an ONNX importer could ask for: records and constants."""
    model = onnx_reader.read(data)
    graphs = [model.graph]
    nodes = [*model.graph.nodes, *(n for f in model.functions for n in f.nodes)]
    for graph in graphs:
        for tensor in graph.initializers:
            _quietly(tensor.numpy)
        for sparse in graph.sparse_initializers:
            _quietly(sparse.numpy)
    for node in nodes:
        for value in node.attributes.values():
            if isinstance(value, (Tensor, SparseTensor)):
                _quietly(value.numpy)
            elif isinstance(value, Graph):
                nodes += value.nodes
                graphs.append(value)


def _quietly(step: Callable[[], object]) -> None:
    """One broken constant must not hide the next one."""
    try:
        step()
    except OnefoldError:
        return


READERS: dict[str, Callable[[bytes], None]] = {"tflite": read_tflite, "onnx": read_onnx}


@contextmanager
def limits(size: int) -> Iterator[None]:
    """Within: `MemoryError` beyond the memory allowed for `size` bytes, `TooSlow` beyond the
    time."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    now = pages * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS,
                       (now + MEMORY_FACTOR * size + MEMORY_BASE, before[1]))
    try:
        with deadline(TIME_LIMIT_S, TooSlow()):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def attempt(read: Callable[[bytes], None], data: bytes) -> tuple[str, str]:
    """(`read`, ``), (`refused`, the message) or (`failed`, what happened) for one input."""
    try:
        with limits(len(data)):
            read(data)
    except OnefoldError as error:
        return "refused", error.what
    except (Exception, TooSlow) as error:
        return "failed", f"{type(error).__name__}: {error}"[:300]
    return "read", ""


def fuzz(format: str, files: Sequence[Path], iterations: int, seed: int, *,
         seconds: float | None = None) -> Tally:
    """Mutates the files in turn, half blindly and half by their structure.

    Iteration i of a file is made from the seed `seed * 10**9 + i` alone.  Ends early after
    `seconds`.
    """
    tally = Tally()
    contents = [(path.name, path.read_bytes()) for path in files]
    begin = time.monotonic()
    for i in range(iterations):
        if seconds is not None and time.monotonic() - begin > seconds:
            break
        name, data = contents[i % len(contents)]
        one_seed = seed * 10**9 + i
        kind = format if i // len(contents) % 2 else "blind"
        mutated = mutate(random.Random(one_seed), data, kind)
        start = time.perf_counter()
        outcome, what = attempt(READERS[format], mutated)
        tally.slowest_s = max(tally.slowest_s, time.perf_counter() - start)
        tally.iterations += 1
        tally.read += outcome == "read"
        if outcome == "refused":
            tally.errors[what.split("'")[0][:60]] += 1
        elif outcome == "failed":
            tally.findings.append(Finding(name, one_seed, kind, what, mutated))
    return tally


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--format", choices=sorted(READERS), required=True)
    parser.add_argument("--iterations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--keep", type=Path, help="folder for the failing inputs")
    parser.add_argument("models", nargs="+", type=Path)
    given = parser.parse_args(arguments)
    tally = fuzz(given.format, given.models, given.iterations, given.seed, seconds=given.seconds)
    print(f"{tally.iterations} iterations, {tally.read} read, "
          f"{sum(tally.errors.values())} refused, {len(tally.findings)} failed, "
          f"slowest {tally.slowest_s * 1e3:.0f} ms")
    for what, count in tally.errors.most_common(20):
        print(f"  {count:7d}  {what}")
    for finding in tally.findings[:20]:
        print(f"FAILED {finding}")
        if given.keep:
            given.keep.mkdir(parents=True, exist_ok=True)
            (given.keep / f"{finding.seed}.{given.format}").write_bytes(finding.data)
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
