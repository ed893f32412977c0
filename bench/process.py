"""Processes of engines, and the environments they are installed in."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.job import Job, Skip
from bench.networks import ROOT
from bench.peers import Engine

PATIENCE = 900.0
"""Seconds that a conversion, a load or a turn may take."""


class Pythons:
    """Interpreters, the first that has a package is taken."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(dict.fromkeys(paths))

    def having(self, packages: Sequence[str]) -> str:
        """The interpreter with these packages. Raises Skip."""
        for path in self.paths:
            if all(_has(path, p) for p in packages):
                return path
        raise Skip("not installed: " + ", ".join(packages))


@cache
def _has(python: str, package: str) -> bool:
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)"
    done = subprocess.run([python, "-P", "-c", code], check=False, stderr=subprocess.DEVNULL)
    return done.returncode == 0


def convert(engine: Engine, job: Job, pythons: Pythons, logs: Path, fresh: bool) -> dict[str, Any]:
    """What the engine's conversion told, from an earlier run if there was one. Raises Skip."""
    kept = job.at / "converted.json"
    if fresh or not kept.exists():
        python = pythons.having(engine.converts(job))
        child = _Child([python, "-m", "bench.child", "convert", engine.name, job.dumps()],
                       logs / f"{engine.name}-{job.network}-convert.log", {})  # fmt: skip
        try:
            facts = child.answer()
        except Skip as e:
            facts = {"skip": str(e)}
        child.close()
        job.at.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(facts))
    facts = json.loads(kept.read_text())
    if "skip" in facts:
        raise Skip(facts["skip"])
    return dict(facts)


class _Child:
    """A process that answers with lines of JSON. Python's compiled files are kept beside its log,
    since a process that may not write them would tell a longer time to load."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        inherited["PYTHONPYCACHEPREFIX"] = str(log.parent / "pycache")
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                text=True, env={**inherited, **env},
            )  # fmt: skip

    def answer(self) -> dict[str, Any]:
        """The next line. Raises Skip where the process ended or does not answer."""
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        if not ready:
            raise Skip(f"no answer in {PATIENCE:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            how = f"by {signal.Signals(-status).name}" if status < 0 else f"with {status}"
            raise Skip(f"its process ended {how}")
        facts: dict[str, Any] = json.loads(line)
        if "skip" in facts:
            raise Skip(facts["skip"])
        return facts

    def say(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


class Served:
    """A process that runs a network, or the machine's own loops, for as long as it is told; it is
    stopped in between, so that no thread of it spins."""

    def __init__(self, child: _Child, folder: Path | None) -> None:
        self.child = child
        self.folder = folder
        try:
            self.facts = child.answer()
        except Skip:
            child.close()
            raise
        self._stop()

    @staticmethod
    def engine(
        engine: Engine, job: Job, pythons: Pythons, cpus: Sequence[int], logs: Path
    ) -> Served:
        python = pythons.having(engine.runs)
        command = [python, "-m", "bench.child", "serve", engine.name, job.dumps(), _list(cpus)]
        env = {"OMP_NUM_THREADS": str(job.threads)}
        child = _Child(command, logs / f"{engine.name}-{job.network}.log", env)
        return Served(child, job.at)

    @staticmethod
    def machine(weights: int, cpus: Sequence[int], logs: Path) -> Served:
        """On the first core only: what one core could do."""
        command = [sys.executable, "-m", "bench.child", "machine", str(weights), _list(cpus[:1])]
        return Served(_Child(command, logs / "machine.log", {}), None)

    def turn(self, seconds: float) -> dict[str, Any]:
        self.child.process.send_signal(signal.SIGCONT)
        self.child.say(str(seconds))
        facts = self.child.answer()
        self._stop()
        return facts

    def outputs(self) -> list[Any]:
        assert self.folder
        with np.load(self.folder / "outputs.npz") as arrays:
            return [arrays[f"out{k}"] for k in range(len(arrays.files))]

    def finish(self) -> dict[str, Any]:
        """What it has to say at its end."""
        assert self.child.process.stdin
        self.child.process.stdin.close()
        self.child.process.send_signal(signal.SIGCONT)
        return self.child.answer()

    def close(self) -> None:
        self.child.close()

    def _stop(self) -> None:
        self.child.process.send_signal(signal.SIGSTOP)


def _list(cpus: Sequence[int]) -> str:
    return ",".join(map(str, cpus))
