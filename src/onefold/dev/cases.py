"""Runs the cases that operators bring with them: compiled against the reference."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onefold.ir import dtypes
from onefold.ir.graph import Array, Builder, Graph, Origin, Value
from onefold.ir.types import TensorType
from onefold.ops import registry
from onefold.ops.base import Case, Op


def graph_of(op: Op, arrays: Sequence[Array | None], const: Sequence[int] = ()) -> Graph:
    """A graph of one node; inputs listed in `const` become constants."""
    g = Graph(op.name)
    b = Builder(g, Origin((op.name,)), fold=False)
    ins: list[Value | None] = []
    for k, a in enumerate(arrays):
        if a is None:
            ins.append(None)
            continue
        v = Value(f"x{k}", TensorType(a.shape, dtypes.of(a.dtype)), a if k in const else None)
        ins.append(v)
        if k not in const:
            g.inputs.append(v)
    g.outputs = b.ops(op, *ins)
    return g


def expected(g: Graph, arrays: Sequence[Array | None]) -> list[Array]:
    """What the operator's reference gives."""
    (node,) = g.nodes
    out = node.op.ref(node, *arrays)
    return list(out) if isinstance(out, (tuple, list)) else [np.asarray(out)]


def run_graph(g: Graph, arrays: Sequence[Array], target: str = "host") -> list[Array]:
    """Compile a graph and run it once, in a folder that vanishes."""
    from onefold import plan
    from onefold.run.building import build
    from onefold.run.session import Loaded
    from onefold.target import find

    t = find(target)
    with tempfile.TemporaryDirectory() as folder:
        artifact = build(plan.plan(g, t), t, Path(folder))
        return Loaded(artifact).run(list(arrays))


def check(op: Op, case: Case, const: Sequence[int] = (), tolerance: float = 1e-5) -> None:
    """Compiled result against the reference; AssertionError names the case."""
    arrays = case.arrays()
    const = tuple(const) or case.const
    g = graph_of(op, arrays, const)
    want = expected(g, arrays)
    got = run_graph(g, [a for k, a in enumerate(arrays) if a is not None and k not in const])
    for w, y in zip(want, got, strict=True):
        compare(w, y, case.id(op.name), 0 if op.exact else tolerance)


def compare(want: Any, got: Any, what: str, tolerance: float) -> None:
    want, got = np.asarray(want), np.asarray(got)
    assert want.shape == got.shape, f"{what}: shape {got.shape}, not {want.shape}"
    assert want.dtype == got.dtype, f"{what}: type {got.dtype}, not {want.dtype}"
    if want.dtype.kind in "iub" or tolerance == 0:
        bad = ~((want == got) | ((want != want) & (got != got)))
    else:
        a, b = want.astype(np.float64), got.astype(np.float64)
        scale = np.max(np.abs(a[np.isfinite(a)]), initial=1.0)
        with np.errstate(invalid="ignore"):
            bad = ~((a == b) | (np.abs(a - b) <= tolerance * scale) | (np.isnan(a) & np.isnan(b)))
    assert not bad.any(), f"{what}: {int(bad.sum())} of {bad.size} elements differ"


def all_cases() -> list[tuple[Op, Case]]:
    """Every case of every operator with a compiled form."""
    return [(cls(**c.attrs), c) for cls in registry.all() for c in cls.cases]


def check_together(
    cases: Sequence[tuple[Op, Case]], tolerance: float = 1e-5,
    run: Callable[[Graph, Sequence[Array]], list[Array]] = run_graph,
) -> None:  # fmt: skip
    """Cases as one program, which is much faster to build than one for each.

    A node that cannot become C is only run by its reference, against its inferred types.
    """
    whole = Graph("cases")
    inputs: list[Array] = []
    wanted: list[tuple[str, Array, float]] = []
    for j, (op, case) in enumerate(cases):
        arrays = case.arrays()
        g = graph_of(op, arrays, case.const)
        (node,) = g.nodes
        want = expected(g, arrays)
        if node.op.compiled(node):
            for v, w in zip(node.outputs, want, strict=True):
                if isinstance(v.type, TensorType):
                    assert v.dtype is dtypes.of(w.dtype), f"{case.id(op.name)}: {w.dtype}"
            continue
        for v in (*g.inputs, *g.outputs):
            v.name = f"c{j}_{v.name}"
        whole.inputs += g.inputs
        whole.nodes += g.nodes
        whole.outputs += g.outputs
        inputs += [a for k, a in enumerate(arrays) if a is not None and k not in case.const]
        wanted += [(case.id(op.name), w, 0 if op.exact else tolerance) for w in want]
    if not whole.nodes:
        return
    for (what, w, near), y in zip(wanted, run(whole, inputs), strict=True):
        compare(w, y, what, near)
