"""Runs Onefold and other engines in turns and writes what came out.

    python -m bench.run --precision f32 --networks zoo trained --out build/bench/results

Each engine has a process of its own, pinned to the same cores and stopped while it is not its
turn. In every round each runs for a moment, and so does a loop that measures what the machine
could do; times are compared within rounds. Engines that are not installed, refuse a network or
fail are told, with the reason. `--python` adds interpreters of other environments, in which
engines are installed (see requirements.txt).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import networks, peers, report
from bench.job import Job, Skip
from bench.networks import ROOT, Network
from bench.process import Pythons, Served, convert

OURS = "onefold"
REFEREES = {"onnx": "onnxruntime", "tflite": "litert"}
BUDGET = {"f32": 1e-3, "bf16": 2e-2, "int8": 2e-2, "w8": 1e-3, "w4": 1e-3}
"""How far an engine's answers may be from the referee's, as a share of their largest number."""

AS_GOOD, ROOM = 1.25, 0.01
"""Steps of int8 or bf16 that round differently end far apart in a deep network (and TensorFlow Lite
models of floats may have int8 weights). So an answer beyond the budget passes where it is as close
to the exact one as the referee's: up to this factor, and up to this share of the standard
deviation."""


class Bench:
    """The settings of a run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.work: Path = args.work.resolve()
        self.precision: str = args.precision
        self.threads: int = args.threads
        self.cpus = args.cpus or sorted(os.sched_getaffinity(0))[-args.threads :]
        self.rounds: int = args.rounds
        self.seconds: float = args.seconds
        self.engines = [OURS, *args.against] if args.against else peers.names()
        self.pythons = Pythons([sys.executable, *args.python])
        self.options = dict(map(parsed, args.option))
        self.fresh: bool = args.fresh

    def prepare(self, name: str) -> None:
        """Makes the files of the network, its own and those of the other engines."""
        contest = Contest(self, networks.network(name, self.precision, self.work))
        for engine in self.engines:
            if engine == OURS:
                continue  # compiled anew for every state of the compiler
            try:
                contest.converted(engine)
            except Skip as e:
                print(f"  {engine}: {e}", file=sys.stderr)

    def measure(self, name: str) -> dict[str, Any]:
        """Everything about one network."""
        net = networks.network(name, self.precision, self.work)
        contest = Contest(self, net)
        try:
            return contest.run()
        finally:
            contest.close()


class Contest:
    """The engines on one network."""

    def __init__(self, bench: Bench, net: Network) -> None:
        self.bench = bench
        self.net = net
        self.running: dict[str, Served] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        self.skipped: dict[str, str] = {}
        self.machine: Served | None = None

    def run(self) -> dict[str, Any]:
        b, net = self.bench, self.net
        for name in b.engines:
            try:
                self._start(name)
            except Skip as e:
                self.skipped[name] = str(e)
                print(f"  {name}: {e}", file=sys.stderr)
        referee = self._judge()
        self.machine = Served.machine(net.weights, b.cpus, b.work / "logs")
        rounds, machine = self._rounds()
        for name, served in self.running.items():
            self.rows[name].update(served.finish())
            self.rows[name]["rounds"] = rounds[name]
        return {
            "network": net.name, "format": net.format, "macs": net.macs, "weights": net.weights,
            "model_bytes": net.path.stat().st_size, "precision": b.precision, "threads": b.threads,
            "referee": referee, "engines": self.rows, "skipped": self.skipped, "machine": machine,
            "date": time.strftime("%Y-%m-%d"),
        }  # fmt: skip

    def _start(self, name: str) -> None:
        """The engine's process, ready to run. Raises Skip."""
        b, engine = self.bench, peers.find(name)
        job, made = self.converted(name)
        served = Served.engine(engine, job, b.pythons, b.cpus, b.work / "logs")
        self.rows[name] = {
            "convert_s": made["seconds"], "bytes": made["bytes"],
            **served.facts, "versions": {**made["versions"], **served.facts["versions"]},
        }  # fmt: skip
        self.running[name] = served

    def converted(self, name: str) -> tuple[Job, dict[str, Any]]:
        """What the engine is to do, and what its conversion told. Raises Skip."""
        b, engine, job = self.bench, peers.find(name), self._job(name)
        reason = engine.refuses(job)
        if reason:
            raise Skip(reason)
        return job, convert(engine, job, b.pythons, b.work / "logs", b.fresh)

    def _job(self, name: str) -> Job:
        b, net = self.bench, self.net
        precision = b.precision
        options = b.options if name == OURS else {}
        source = Path(str(peers.__path__[0]), f"{name}.py").read_bytes()
        key = [net.path.read_bytes(), precision.encode(), json.dumps(options).encode(), source]
        if b"bench.bridge" in source:
            key.append((ROOT / "bench" / "bridge.py").read_bytes())
        if name == OURS:
            from onefold.run.digest import package_digest

            key += [package_digest().encode(), str(b.threads).encode()]
        digest = hashlib.sha256(b"".join(key)).hexdigest()[:12]
        folder = b.work / "engines" / name / f"{net.name}-{precision}-{digest}"
        return Job(net.name, str(net.path), net.format, str(net.inputs), net.outputs, precision,
                   b.threads, str(folder), options)  # fmt: skip

    # --- answers ----------------------------------------------------------------------------------

    def _judge(self) -> str:
        """Compares each engine's outputs with the referee's; who that is."""
        order = [REFEREES[self.net.format], *(n for n in self.running if n != OURS), OURS]
        referee = next((n for n in order if n in self.running), "")
        if not referee:
            return ""
        theirs = self.running[referee].outputs()
        limit = 0.0
        exact = []
        if self.net.exact and (self.bench.precision != "f32" or self.net.format == "tflite"):
            with np.load(self.net.exact) as arrays:
                exact = [arrays[n] for n in self.net.outputs]
            limit = AS_GOOD * error(theirs, exact) + ROOM
        for name, served in self.running.items():
            outs = served.outputs()
            far = difference(outs, theirs)
            off = error(outs, exact) if exact else None
            agrees = far <= BUDGET[self.bench.precision] or (off is not None and off <= limit)
            self.rows[name] |= {"difference": far, "error": off, "agrees": agrees}
        return referee

    # --- times ------------------------------------------------------------------------------------

    def _rounds(self) -> tuple[dict[str, list[Any]], list[Any]]:
        found: dict[str, list[Any]] = {n: [] for n in self.running}
        machine = []
        assert self.machine
        for k in range(self.bench.rounds):
            order = list(self.running)
            first = k % max(len(order), 1)
            for name in order[first:] + order[:first]:
                found[name].append(self.running[name].turn(self.bench.seconds))
            machine.append(self.machine.turn(self.bench.seconds))
        return found, machine

    def close(self) -> None:
        for served in [*self.running.values(), *([self.machine] if self.machine else [])]:
            served.close()


def parsed(option: str) -> tuple[str, Any]:
    """exact=true as ("exact", True); what is no JSON is a string."""
    name, _, text = option.partition("=")
    try:
        return name, json.loads(text)
    except ValueError:
        return name, text


def difference(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """Infinite where sizes differ or only one of them is finite."""
    worst = 0.0
    if len(ours) != len(theirs):
        return float("inf")
    for a, b in zip(ours, theirs, strict=True):
        if a.size != b.size:
            return float("inf")
        x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
        if not np.array_equal(np.isfinite(x), np.isfinite(y)):
            return float("inf")
        x, y = x[np.isfinite(x)], y[np.isfinite(y)]
        if x.size:
            worst = max(worst, float(np.abs(x - y).max() / max(np.abs(y).max(), 1e-30)))
    return worst


def error(outs: Sequence[Any], exact: Sequence[Any]) -> float:
    """Root mean square of the distance over the standard deviation; the worst output's."""
    worst = 0.0
    for a, b in zip(outs, exact, strict=True):
        if a.size != b.size:
            return float("inf")
        x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
        worst = max(worst, float(np.sqrt(((x - y) ** 2).mean()) / max(y.std(), 1e-30)))
    return worst


def machine_facts() -> dict[str, Any]:
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((ln.split(":")[1].strip() for ln in info if ln.startswith("model name")), "")
    return {"cpu": model or platform.machine(), "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}"}  # fmt: skip


def main() -> None:
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("--networks", nargs="+", default=["zoo"], help="names, zoo, trained or all")
    ap.add_argument("--precision", choices=tuple(BUDGET), default="f32",
                    help="w4, w8: weights of so many bits, arithmetic in f32")  # fmt: skip
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--against", nargs="+", default=[], metavar="ENGINE", help="default: all")
    ap.add_argument("--rounds", type=int, default=15)
    ap.add_argument("--seconds", type=float, default=0.15, help="of each engine in each round")
    ap.add_argument("--cpus", type=int, nargs="+", help="default: the last ones")
    ap.add_argument("--python", nargs="+", help="interpreters that have engines installed",
                    default=os.environ.get("ONEFOLD_BENCH_PYTHONS", "").split())  # fmt: skip
    ap.add_argument("--option", nargs="+", default=[], metavar="NAME=VALUE",
                    help="for Onefold's compile()")  # fmt: skip
    ap.add_argument("--fresh", action="store_true", help="convert anew what has been converted")
    ap.add_argument("--work", type=Path, default=ROOT / "build" / "bench")
    ap.add_argument("--out", type=Path, default=ROOT / "build" / "bench" / "results")
    ap.add_argument("--prepare", action="store_true", help="convert, measure nothing")
    args = ap.parse_args()
    bench = Bench(args)
    if args.prepare:
        for name in networks.names(args.precision, args.networks):
            print(name, file=sys.stderr)
            bench.prepare(name)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    mode = "".join(f"-{k}-{v}" for k, v in bench.options.items())
    path: Path = args.out / f"{args.precision}-{args.threads}{mode}.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    known: Mapping[str, Any] = results.get("networks", {})
    for name in networks.names(args.precision, args.networks):
        print(name, file=sys.stderr)
        known = {**known, name: bench.measure(name)}
        results = {
            "machine": machine_facts(), "precision": args.precision, "threads": args.threads,
            "options": bench.options, "networks": known,
        }  # fmt: skip
        path.write_text(json.dumps(results, indent=1) + "\n")
    path.with_suffix(".md").write_text(report.table(results))
    path.with_suffix(".svg").write_text(report.plot(results))
    print(report.table(results))


if __name__ == "__main__":
    main()
