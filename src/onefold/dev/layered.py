"""A drawing order for a graph: nodes in layers, edges from each layer to later ones.

The method is that of Sugiyama, Tagawa and Toda (1981): layers by the longest way from an input,
helpers on edges that pass several layers, then each layer sorted by the mean place of what its
members hang on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

SWEEPS = 4
MOST_HELPERS = 20_000
GAP, HEIGHT = 18.0, 62.0
HELPER_WIDTH = 8.0


@dataclass(frozen=True)
class Drawing:
    """places: centre of each node; routes: points of each edge, from its source to its end."""

    places: tuple[tuple[float, float], ...]
    routes: tuple[tuple[tuple[float, float], ...], ...]
    width: float
    height: float


def layout(widths: Sequence[float], edges: Sequence[tuple[int, int]]) -> Drawing:
    """Places for nodes of the given widths, in topological order; edges go forward."""
    level = _levels(len(widths), edges)
    chains, wide = _chains(level, edges, list(widths))
    rows = _rows(level)
    links = _links(chains)
    for _ in range(SWEEPS):
        _sort(rows, links)
    x = _across(rows, wide)
    depth = {n: k for k, row in enumerate(rows) for n in row}
    point = {n: (x[n], depth[n] * HEIGHT + HEIGHT / 2) for n in depth}
    return Drawing(
        tuple(point[n] for n in range(len(widths))),
        tuple(tuple(point[n] for n in chain) for chain in chains),
        max((x[n] + wide[n] / 2 for n in depth), default=0.0) + GAP, len(rows) * HEIGHT,
    )  # fmt: skip


def _levels(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    level = [0] * count
    for a, b in sorted(edges, key=lambda e: e[1]):  # sources come before what they feed
        level[b] = max(level[b], level[a] + 1)
    return level


def _chains(
    level: list[int], edges: Sequence[tuple[int, int]], widths: list[float]
) -> tuple[list[list[int]], list[float]]:
    """Each edge as a chain of nodes, with a helper for every layer that it passes."""
    chains = []
    for a, b in edges:
        chain = [a]
        if len(widths) < MOST_HELPERS:
            for k in range(level[a] + 1, level[b]):
                chain.append(len(widths))
                widths.append(HELPER_WIDTH)
                level.append(k)
        chains.append([*chain, b])
    return chains, widths


def _rows(level: Sequence[int]) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(max(level, default=-1) + 1)]
    for n, k in enumerate(level):
        rows[k].append(n)
    return rows


def _links(chains: Sequence[Sequence[int]]) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for chain in chains:
        for a, b in itertools.pairwise(chain):
            above.setdefault(b, []).append(a)
            below.setdefault(a, []).append(b)
    return above, below


def _sort(rows: list[list[int]], links: tuple[dict[int, list[int]], dict[int, list[int]]]) -> None:
    """One sweep down by what lies above, one up by what lies below."""
    above, below = links
    place = {n: k / max(len(row), 1) for row in rows for k, n in enumerate(row)}
    for order, near in ((rows, above), (rows[::-1], below)):
        for row in order:
            row.sort(key=lambda n: _mean([place[m] for m in near.get(n, ())], place[n]))
            for k, n in enumerate(row):
                place[n] = k / max(len(row), 1)


def _mean(numbers: Sequence[float], other: float) -> float:
    return sum(numbers) / len(numbers) if numbers else other


def _across(rows: Sequence[Sequence[int]], widths: Sequence[float]) -> dict[int, float]:
    """Centres from left to right, each row in the middle of the page."""
    lengths = [sum(widths[n] + GAP for n in row) for row in rows]
    middle = max(lengths, default=0) / 2
    x: dict[int, float] = {}
    for row, length in zip(rows, lengths, strict=True):
        at = middle - length / 2 + GAP / 2
        for n in row:
            x[n] = at + widths[n] / 2
            at += widths[n] + GAP
    return x
