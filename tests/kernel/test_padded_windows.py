"""Convolutions whose windows lie outside the input altogether: at padded borders of 1x1 windows,
and in the phases of transposed convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onefold.dev.cases import compare, expected, graph_of, run_graph
from onefold.ops import registry

pytestmark = pytest.mark.toolchain

CASES: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("ConvTranspose", (2, 3, 4, 5), (3, 3, 3, 3),
     {"strides": (3, 3), "output_padding": (2, 2), "pads": (1, 1, 1, 1)}),
    ("ConvTranspose", (1, 8, 4, 5), (8, 16, 2, 2), {"strides": (2, 2), "pads": (1, 1, 0, 0)}),
    ("ConvTranspose", (1, 8, 4, 5), (8, 16, 3, 3),
     {"strides": (2, 2), "pads": (2, 2, 2, 2), "output_padding": (1, 1)}),
    ("ConvTranspose", (1, 8, 6, 5), (8, 16, 4, 4),
     {"strides": (2, 2), "dilations": (2, 1), "pads": (1, 1, 1, 1)}),
    ("Conv", (1, 16, 6, 5), (16, 16, 1, 1), {"pads": (1, 1, 2, 2)}),
    ("Conv", (1, 16, 6, 5), (32, 16, 1, 3), {"pads": (2, 0, 1, 1), "strides": (2, 1)}),
    ("Conv", (1, 16, 9, 9), (16, 1, 3, 3), {"pads": (2, 3, 2, 0), "group": 16, "strides": (2, 2)}),
    ("Conv", (1, 3, 9, 9), (16, 3, 1, 1), {"pads": (0, 0, 3, 3), "strides": (3, 3)}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "x", "w", "attrs"), CASES)
def test_windows_outside(
    name: str, x: tuple[int, ...], w: tuple[int, ...], attrs: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in (x, w)]
    graph = graph_of(registry.by_name[name](**attrs), arrays, const=(1,))
    (want,) = expected(graph, arrays)
    (got,) = run_graph(graph, arrays[:1])
    compare(want, got, name, 1e-5)
