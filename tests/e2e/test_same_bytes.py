"""The same model gives the same C, twice in one process and in any order."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import onefold
from onefold.codegen.model import emit
from onefold.frontend.binding import Binding
from onefold.ir import scalar
from onefold.passes import pipeline
from onefold.plan import plan
from onefold.target import find
from tests.e2e.made import DIGITS, branch, decoder, powers


def sources(path: Path, **dims: object) -> dict[str, str]:
    graph = onefold.load(path).bind(Binding(dims=dims))  # type: ignore[arg-type]
    pipeline.run(graph)
    return emit(plan(graph, find("x86-64-v3")), "m").files


def test_same_sources(tmp_path: Path) -> None:
    paths = [DIGITS, branch(tmp_path), powers(tmp_path)]
    first = [sources(p) for p in paths]
    again = [sources(p) for p in reversed(paths)]
    assert first == again[::-1]


def test_same_sources_when_counters_have_more_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Terms of an index are in the order of their counters, however many were made before."""
    found = []
    for start in (0, *range(9500, 10_000, 12)):
        monkeypatch.setattr(scalar, "_counter", itertools.count(start))
        found.append(sources(DIGITS))
    assert all(f == found[0] for f in found)


def test_same_sources_with_open_sizes(tmp_path: Path) -> None:
    path = decoder(tmp_path)
    assert sources(path, past=(0, 64), seq=(1, 4)) == sources(path, past=(0, 64), seq=(1, 4))
