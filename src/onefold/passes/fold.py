"""Folds what is constant: what the builder left because its operator is lazy, and what follows."""

from __future__ import annotations

import numpy as np

from onefold.ir.graph import WRONG_DATA, Graph, Node, Value
from onefold.ir.limits import WORK_LIMIT, FoldBudget
from onefold.ir.types import TensorType
from onefold.ops.cast import Cast
from onefold.ops.indexing import Gather
from onefold.ops.quant_arith import AffineDequantize
from onefold.ops.quantize import DequantizeLinear


def fold_constants(graph: Graph) -> int:
    """Replace nodes whose inputs are all constant by their results; returns how many."""
    done = 0
    budget = FoldBudget()
    for v in graph.constants():
        if v.data is not None:
            budget.give(v.data)
    for g in list(graph.regions_and_self()):
        gone: list[Node] = []
        for n in g.nodes:
            if _constant(n, budget) and _replace(g, n, budget):
                gone.append(n)
        g.remove(gone)
        done += len(gone)
    return done


def _constant(n: Node, budget: FoldBudget) -> bool:
    if n.regions or not n.op.pure or not n.inputs or not all(v.is_const for v in n.present()):
        return False
    if _is_table(n):
        return False
    if not all(isinstance(v.type, TensorType) and v.type.static for v in n.outputs):
        return False
    return budget.allows([v.type for v in n.outputs]) and n.op.work(n) <= WORK_LIMIT


def _is_table(n: Node) -> bool:
    """Whether a node widens a table that is only looked up in: then some of it is computed where it
    is looked up, instead of all of it being stored."""
    if not isinstance(n.op, (DequantizeLinear, AffineDequantize, Cast)):
        return False
    y, x = n.outputs[0], n.arg(0)
    if y.dtype.bits <= x.dtype.bits or not y.uses:
        return False
    return all(
        isinstance(u.op, Gather) and u.arg(0) is y and not u.arg(1).is_const and u.arg(1) is not y
        for u in y.uses
    )


def _replace(g: Graph, n: Node, budget: FoldBudget) -> bool:
    try:
        result = n.op.ref(n, *[None if v is None else v.data for v in n.inputs])
    except WRONG_DATA:  # only matters if the program ever comes here
        return False
    arrays = list(result) if isinstance(result, (tuple, list)) else [result]
    for v, a in zip(n.outputs, arrays, strict=False):
        t = v.tensor
        data = np.asarray(a, t.dtype.numpy).reshape(t.ints)
        budget.take(data)
        g.replace(v, Value(v.name, t, data))
    return True
