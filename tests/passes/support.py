"""Graphs in text form, and graphs at random, before and after passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onefold.dev.reference import evaluate
from onefold.ir import dtypes
from onefold.ir.graph import Array, Graph
from onefold.ir.types import TensorType


def inputs_for(graph: Graph, seed: int, low: float = -2.0, high: float = 2.0) -> list[Array]:
    """Random contents for every input of a graph whose shapes are known."""
    rng = np.random.default_rng(seed)
    out: list[Array] = []
    for v in graph.inputs:
        t = v.tensor
        if t.dtype is dtypes.b1:
            out.append(rng.integers(0, 2, t.ints).astype(bool))
        elif t.dtype.is_int:
            lo, hi = max(t.dtype.lo, -1000), min(t.dtype.hi, 1000)
            out.append(rng.integers(lo, hi + 1, t.ints).astype(t.dtype.numpy))
        else:
            out.append(rng.uniform(low, high, t.ints).astype(t.dtype.numpy))
    return out


def outputs(graph: Graph, inputs: Sequence[Array]) -> list[Any]:
    with np.errstate(all="ignore"):
        return evaluate(graph, inputs)


def difference(want: Sequence[Any], got: Sequence[Any], steps: int = 0) -> float:
    """The largest difference relative to an output's range; inf where types, shapes, integers,
    NaN or infinities differ. Integers may differ by `steps`."""
    worst = 0.0
    for a, b in zip(want, got, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return float("inf")
        if a.dtype.kind in "iub":
            apart = np.abs(a.astype(np.int64) - b.astype(np.int64)).max(initial=0)
            worst = worst if apart <= steps else float("inf")
            continue
        p, q = a.astype(np.float64), b.astype(np.float64)
        special = ~np.isfinite(p)
        if not np.array_equal(p[special], q[special], equal_nan=True):
            return float("inf")
        rest = np.abs(p[~special] - q[~special])
        if not np.isfinite(rest).all():
            return float("inf")
        scale = np.abs(p[~special]).max(initial=1.0)
        worst = max(worst, float(rest.max(initial=0.0) / scale))
    return worst


def is_tensor_graph(graph: Graph) -> bool:
    """Whether all of a graph's values are tensors of known shapes and no strings."""
    return all(
        isinstance(v.type, TensorType) and v.type.static and v.type.dtype is not dtypes.string
        for v in graph.all_values()
    )
