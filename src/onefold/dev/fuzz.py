"""Fuzzes the compiler: each mutated file must end in C or in an `OnefoldError`, in bounds.

    python -m onefold.dev.fuzz --format onnx --iterations 10000 --seed 1 --corpus DIR

Three of four files are real models with a change that knows the format (half of all: a change to
what the graph says), the rest are damaged blindly.  Each goes through reading, import, passes,
plan and text in a worker process with a time and a memory limit; every `--compile-every`-th that
comes so far is compiled with sanitizers, run on random inputs, and compared with the operators'
references.  A finding is repeated from its seed and the same corpus; `--keep DIR` writes the
files, `--reduce FILE` makes a failing file smaller.
"""

from __future__ import annotations

import argparse
import gc
import mmap
import os
import pickle
import random
import resource
import signal
import struct
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from onefold import events
from onefold.dev import corpus, drive, mutate, mutate_onnx, mutate_tflite
from onefold.frontend.sniff import fields

TIME_LIMIT_S = 10.0
MEMORY_LIMIT = 1_500_000_000
CHUNK = 2000  # iterations of one worker process
WHOLE = 0.2  # share of the iterations that change a whole network, not a single operator


class TooSlow(BaseException):
    """An iteration did not end in time; not an `Exception`, so that nobody catches it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One failing input. key: what makes two findings the same defect."""

    seed: int
    source: str
    change: str
    key: str
    trace: str
    data: bytes = field(repr=False)


@dataclass(slots=True)
class Tally:
    """What became of the iterations. stages[k] counts the files that reached STAGES[k]."""

    iterations: int = 0
    structured: int = 0
    stages: Counter[int] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    compiled: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, int] = (0.0, 0)
    planned: list[tuple[int, bytes]] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: Tally) -> None:
        self.iterations += other.iterations
        self.structured += other.structured
        self.stages += other.stages
        self.refusals += other.refusals
        self.findings += other.findings
        self.planned += other.planned
        self.slowest = max(self.slowest, other.slowest)

    def text(self) -> str:
        """The summary for people."""
        n = max(self.iterations, 1)
        reached = [sum(c for k, c in self.stages.items() if k >= s) for s in range(6)]
        rows = [f"{self.iterations} iterations in {self.seconds:.0f} s "
                f"({n / max(self.seconds, 1e-9):.0f}/s), "
                f"{100 * self.structured / n:.0f} % structure-aware"]  # fmt: skip
        rows += [f"  reached {name:8s} {count:8d}  {100 * count / n:5.1f} %"
                 for name, count in zip(drive.STAGES, reached, strict=True) if name != "bytes"]
        rows.append(f"  slowest  {self.slowest[0]:.2f} s (seed {self.slowest[1]})")
        if self.compiled:
            rows.append("  compiled " + ", ".join(f"{k}: {c}" for k, c in self.compiled.items()))
        rows.append(f"  failed   {len(self.findings)}")
        return "\n".join(rows)


class Source:
    """The corpus, and the mutated file that belongs to a seed."""

    def __init__(self, format: str, models: Sequence[tuple[str, bytes]]) -> None:
        self.format = format
        self.models = models
        self.whole = [k for k, (_, data) in enumerate(models) if len(data) > 4000]
        self.parsed: list[Any] = []
        if format == "onnx":
            from onnx import ModelProto

            self.parsed = [ModelProto.FromString(data) for _, data in models]

    def make(self, seed: int) -> tuple[str, str, bytes, random.Random]:
        """(model's name, changes, bytes, the generator to go on with)."""
        rng = random.Random(seed)
        k = rng.choice(self.whole) if self.whole and rng.random() < WHOLE else rng.randrange(
            len(self.models))  # fmt: skip
        name, data = self.models[k]
        how = rng.random()
        if how < 0.25:
            return name, "blind", mutate.mutate(rng, data, "blind"), rng
        if how < 0.45:
            return name, "fields", mutate.mutate(rng, data, self.format), rng
        if self.format == "onnx":
            made = type(self.parsed[k])()
            made.CopyFrom(self.parsed[k])
            done = mutate_onnx.mutate(rng, made, self.parsed)
            return name, "+".join(done), made.SerializeToString(), rng
        changed, done = mutate_tflite.mutate(rng, data)
        return name, "+".join(done), changed, rng


# --- one worker ---


def attempt(format: str, data: bytes, rng: random.Random) -> drive.Way | tuple[str, str]:
    """How far the file came, or (key, trace) of the failure."""
    def stop(signum: int, frame: FrameType | None) -> None:
        raise TooSlow

    defects: list[Exception] = []

    def hear(event: events.Event) -> None:
        if event.kind == "defect":
            defects.append(event.facts["error"])

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT_S)
    remove = events.subscribe(hear)
    try:
        way = drive.drive(format, data, rng)
        if defects:
            return key_of(defects[0]), "".join(traceback.format_exception(defects[0])[-30:])
        return way
    except (Exception, TooSlow) as e:
        signal.setitimer(signal.ITIMER_REAL, 0)
        return key_of(e), "".join(traceback.format_exception(e)[-30:])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        remove()


def key_of(e: BaseException) -> str:
    """The kind of exception and the innermost function of ours: equal for one defect."""
    frames = traceback.extract_tb(e.__traceback__)
    ours = [f for f in frames if "onefold" in f.filename and "/dev/" not in f.filename]
    at = ours[-1] if ours else frames[-1]
    place = at.filename.split("onefold/")[-1]
    if isinstance(e, RecursionError):
        place, line = "/".join(sorted({Path(f.filename).stem for f in ours[-40:]})[:3]), "..."
        return f"RecursionError in {place}:{line}"
    return f"{type(e).__name__} in {place}:{at.lineno} {at.name}"


def bound_memory(limit: int = MEMORY_LIMIT) -> None:
    """At most `limit` bytes of address space beyond those taken already."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + limit, hard))


def work(source: Source, seeds: range, every: int, at: mmap.mmap) -> Tally:
    """Runs the iterations of some seeds; `at` tells the watcher which one is under way."""
    tally = Tally()
    for seed in seeds:
        name, change, data, rng = source.make(seed)
        at[:8] = struct.pack("<q", seed)
        start = time.perf_counter()
        came = attempt(source.format, data, rng)
        tally.slowest = max(tally.slowest, (time.perf_counter() - start, seed))
        tally.iterations += 1
        tally.structured += change != "blind"
        if isinstance(came, tuple):
            tally.findings.append(Finding(seed, name, change, *came, data))
            continue
        tally.stages[came.stage] += 1
        tally.refusals[came.refusal.split("'")[0][:60]] += bool(came.refusal)
        if came.stage == 5 and every and random.Random(-seed).randrange(every) == 0:
            tally.planned.append((seed, data))
    return tally


# --- the watcher ---


def watch(source: Source, seeds: range, every: int) -> Tally:
    """A worker process for some seeds; a crash or a hang costs the one iteration."""
    whole = Tally()
    while len(seeds):
        at = mmap.mmap(-1, 8)
        at[:8] = struct.pack("<q", -1)
        path = Path(f"/proc/self/fd/{os.memfd_create('tally')}")
        pid = os.fork()
        if pid == 0:
            _child(source, seeds, every, at, path)
        status = _wait(pid, at)
        last = struct.unpack("<q", at[:8])[0]
        raw = path.read_bytes()
        os.close(int(path.name))
        if status == 0 and raw:
            whole.add(pickle.loads(raw))
            return whole
        name, change, data, _ = source.make(max(last, seeds.start))
        key = "killed: hang" if status == -1 else f"killed: status {status}"
        whole.findings.append(Finding(last, name, change, key, "", data))
        before = range(seeds.start, max(last, seeds.start))
        if len(before):
            whole.add(watch(source, before, every))
        whole.iterations += 1
        seeds = range(max(last, seeds.start) + 1, seeds.stop)
    return whole


def _child(source: Source, seeds: range, every: int, at: mmap.mmap, path: Path) -> None:
    try:
        warnings.simplefilter("ignore")
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        bound_memory()
        tally = work(source, seeds, every, at)
        path.write_bytes(pickle.dumps(tally))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _wait(pid: int, at: mmap.mmap) -> int:
    """The exit status; -1 where the worker stood still and was killed."""
    seen, since = b"", time.monotonic()
    pause = 0.001
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if at[:8] != seen:
            seen, since = at[:8], time.monotonic()
        elif time.monotonic() - since > 3 * TIME_LIMIT_S:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -1
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def fuzz(source: Source, iterations: int, seed: int, *, every: int = 0,
         progress: Callable[[Tally], None] | None = None) -> Tally:
    """Runs the iterations seed * 10**9, seed * 10**9 + 1, ..., then compiles the sample."""
    tally = Tally()
    begin = time.monotonic()
    gc.collect()
    gc.freeze()
    first, end = seed * 10**9, seed * 10**9 + iterations
    for start in range(first, end, CHUNK):
        tally.add(watch(source, range(start, min(start + CHUNK, end)), every))
        tally.seconds = time.monotonic() - begin
        if progress is not None:
            progress(tally)
    if tally.planned:
        from onefold.dev import sanitize

        for one, data in tally.planned:
            outcome, trace = sanitize.judge(source.format, data, one)
            tally.compiled[outcome] += 1
            if outcome == "failed":
                key = "compiled: " + trace.splitlines()[0][:100]
                name, change, _, _ = source.make(one)
                tally.findings.append(Finding(one, name, change, key, trace, data))
    return tally


# --- smaller files ---


def reduced(format: str, data: bytes) -> bytes:
    """A smaller file with the same failure: fields, then runs of bytes, are taken out greedily."""
    first = attempt(format, data, random.Random(0))
    if not isinstance(first, tuple):
        return data
    key = first[0]

    def same(candidate: bytes) -> bool:
        came = attempt(format, candidate, random.Random(0))
        return isinstance(came, tuple) and came[0] == key

    again = True
    while again:
        again = False
        for candidate in _smaller(format, data):
            if len(candidate) < len(data) and same(candidate):
                data, again = candidate, True
                break
    return data


def _smaller(format: str, data: bytes) -> Any:
    if format == "onnx":
        yield from _without_fields(data, "ModelProto")
    for size in (4096, 1024, 256, 64):
        for at in range(0, len(data), size):
            yield data[:at] + data[at + size :]


def _without_fields(data: bytes, message: str) -> Any:
    rows = fields(memoryview(data), 1 << 20)
    begin = 0
    for number, wire, start, end in rows:
        yield data[:begin] + data[end:]
        inner = mutate._TARGETS.get(message, {}).get(number)
        if wire == 2 and inner:
            for made in _without_fields(data[start:end], inner):
                yield data[:begin] + mutate._field(number, made) + data[end:]
        begin = end


# --- command line ---


def report(tally: Tally, keep: Path | None, format: str) -> None:
    print(tally.text())
    for what, count in tally.refusals.most_common(12):
        print(f"  {count:7d}  {what}")
    groups: dict[str, list[Finding]] = {}
    for f in tally.findings:
        groups.setdefault(f.key, []).append(f)
    for key, found in sorted(groups.items(), key=lambda g: -len(g[1])):
        one = min(found, key=lambda f: len(f.data))
        print(f"\nFAILED {len(found)}x {key}\n  seed {one.seed}, {one.source}, {one.change}")
        print("\n".join("  | " + line for line in one.trace.rstrip().splitlines()[-14:]))
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{one.seed}.{format}").write_bytes(one.data)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--format", choices=("onnx", "tflite"), required=True)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--compile-every", type=int, default=0, metavar="K")
    parser.add_argument("--corpus", type=Path, help="folder of small models")
    parser.add_argument("--keep", type=Path, help="folder for one failing file of each kind")
    parser.add_argument("--one", type=int, metavar="SEED", help="run one seed and show its trace")
    parser.add_argument("--reduce", type=Path, metavar="FILE", help="make a failing file smaller")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    if given.reduce is not None:
        small = reduced(given.format, given.reduce.read_bytes())
        given.reduce.with_suffix(".small").write_bytes(small)
        print(f"{len(small)} bytes: {small!r}")
        return 0
    models = corpus.files(given.format, given.corpus)
    if not models:
        parser.error("there are no models to change: name a folder with --corpus")
    source = Source(given.format, models)
    if given.one is not None:
        name, change, data, rng = source.make(given.one)
        print(name, change, len(data))
        came = attempt(given.format, data, rng)
        print(came[1] if isinstance(came, tuple) else f"{drive.STAGES[came.stage]} {came.refusal}")
        return int(isinstance(came, tuple))
    tally = run(source, given)
    report(tally, given.keep, given.format)
    return 1 if tally.findings else 0


def _share(source: Source, iterations: int, seed: int, every: int) -> Tally:
    return fuzz(source, iterations, seed, every=every)


def run(source: Source, given: argparse.Namespace) -> Tally:
    """The iterations, in as many processes as wanted."""
    def show(t: Tally) -> None:
        print(f"\r{t.iterations} iterations, {len(t.findings)} failed ", end="", file=sys.stderr,
              flush=True)  # fmt: skip

    if given.jobs <= 1:
        return fuzz(source, given.iterations, given.seed, every=given.compile_every, progress=show)
    import multiprocessing

    share = -(-given.iterations // given.jobs)
    whole = Tally()
    shares = [(source, share, given.seed + k, given.compile_every) for k in range(given.jobs)]
    with multiprocessing.get_context("fork").Pool(given.jobs) as pool:
        for tally in pool.starmap(_share, shares):
            whole.add(tally)
            whole.compiled += tally.compiled
            whole.seconds = max(whole.seconds, tally.seconds)
    return whole


if __name__ == "__main__":
    sys.exit(main())
