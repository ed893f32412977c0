"""The engines, Onefold among them: one file each, with a class that follows `Engine`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from bench.job import Job

Loaded = tuple[Callable[[], Any], Callable[[], Sequence[Any]]]
"""A call that runs the network once with as little around it as the engine allows, and one that
tells the outputs of the last run in the model's order."""


class Engine(Protocol):
    """An engine.

    runs: the packages that `load` needs. Each step is done by the first Python given to the
    benchmark that has its packages. No package is imported before a step begins.
    """

    name: str
    runs: Sequence[str]
    distributions: Sequence[str]  # whose versions are told

    def converts(self, job: Job) -> Sequence[str]:
        """The packages that `convert` needs for such a job."""

    def refuses(self, job: Job) -> str:
        """Why it cannot take such a job; empty where it may."""

    def convert(self, job: Job) -> list[Path]:
        """Makes what the engine loads, in the job's folder; the files that have to be shipped.
        Raises Skip."""

    def load(self, job: Job, feeds: dict[str, Any]) -> Loaded:
        """The network, ready to run on these inputs. Raises Skip."""


def names() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def find(name: str) -> Engine:
    engine: Engine = importlib.import_module(f"{__name__}.{name}").ENGINE()
    return engine


def only(job: Job, formats: Sequence[str], precisions: Sequence[str]) -> str:
    """Why a job is none for an engine that takes these."""
    if job.format not in formats:
        return f"does not read {job.format}"
    if job.precision not in precisions:
        return f"no {job.precision}" + (" from a QDQ model" if job.precision == "int8" else "")
    return ""


def last_line(text: str) -> str:
    """Where tools tell why they failed."""
    return ([ln.strip() for ln in text.splitlines() if ln.strip()] or ["it fails"])[-1][:200]
