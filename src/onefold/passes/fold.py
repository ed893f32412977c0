"""Folds what is constant: what the builder left because its operator is lazy, and what follows."""

from __future__ import annotations

import numpy as np

from onefold.ir.graph import FOLD_LIMIT, Graph, Node, Value
from onefold.ir.types import TensorType


def fold_constants(graph: Graph) -> int:
    """Replace nodes whose inputs are all constant by their results; returns how many."""
    done = 0
    for g in list(graph.regions_and_self()):
        gone: list[Node] = []
        for n in g.nodes:
            if _constant(n):
                _replace(g, n)
                gone.append(n)
        g.remove(gone)
        done += len(gone)
    return done


def _constant(n: Node) -> bool:
    if n.regions or not n.op.pure or not n.inputs or not all(v.is_const for v in n.present()):
        return False
    return all(
        isinstance(v.type, TensorType) and v.type.static and int(np.prod(v.type.ints)) <= FOLD_LIMIT
        for v in n.outputs
    )


def _replace(g: Graph, n: Node) -> None:
    result = n.op.ref(n, *[None if v is None else v.data for v in n.inputs])
    arrays = list(result) if isinstance(result, (tuple, list)) else [result]
    for v, a in zip(n.outputs, arrays, strict=False):
        t = v.tensor
        data = np.ascontiguousarray(a, t.dtype.numpy).reshape(t.ints)
        g.replace(v, Value(v.name, t, data))
