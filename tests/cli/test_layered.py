"""The drawing order of graphs."""

from __future__ import annotations

import random
from itertools import pairwise

from onefold.dev.layered import GAP, layout


def test_edges_go_down_and_boxes_do_not_overlap() -> None:
    rng = random.Random(3)
    for _ in range(20):
        count = rng.randrange(1, 40)
        widths = [rng.uniform(20, 200) for _ in range(count)]
        edges = [(rng.randrange(b), b) for b in range(1, count) for _ in range(rng.randrange(1, 4))]
        drawn = layout(widths, edges)
        for a, b in edges:
            assert drawn.places[a][1] < drawn.places[b][1]
        rows: dict[float, list[tuple[float, float]]] = {}
        for (x, y), w in zip(drawn.places, widths, strict=True):
            rows.setdefault(y, []).append((x - w / 2, x + w / 2))
            assert 0 <= x - w / 2 and x + w / 2 <= drawn.width and 0 < y < drawn.height
        for row in rows.values():
            row.sort()
            for (_, end), (start, _) in pairwise(row):
                assert start - end >= GAP - 1e-6


def test_long_edges_pass_between_boxes() -> None:
    chain = [(k, k + 1) for k in range(5)]
    drawn = layout([100.0] * 6, [*chain, (0, 5)])
    route = drawn.routes[-1]
    assert len(route) == 6  # one bend per layer in between
    for x, y in route[1:-1]:
        box = next(p for p in drawn.places if p[1] == y)
        assert abs(x - box[0]) > 50


def test_an_empty_graph() -> None:
    assert layout([], []).places == ()
