"""Transposes move behind elementwise work and concatenations, and cancel each other.

Networks from formats with channels last arrive with a transpose before and behind each operator
that has channels in second place. What stands between two such operators does not care about the
order of the axes, so the transposes meet, and vanish where they undo each other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onefold.ir.graph import Graph, Node, Value, detach
from onefold.ir.types import TensorType
from onefold.ops.base import Op
from onefold.ops.elementwise import Clip, Elementwise
from onefold.ops.movement import Concat, Transpose

Perm = tuple[int, ...]


def cancel_transposes(graph: Graph) -> int:
    """Move and cancel transposes of a graph and its regions; returns how many places changed."""
    return sum(_walk(g, graph) for g in list(graph.regions_and_self()))


def _walk(g: Graph, whole: Graph) -> int:
    pinned = whole.pinned()
    done = 0
    nodes: list[Node] = []
    for n in g.nodes:
        if isinstance(n.op, Transpose):
            done += _merge(n, g, pinned)
            nodes.append(n)
            continue
        moved = _moved(n)
        done += bool(moved)
        nodes += moved or [n]
    g.nodes = nodes
    return done


def _perm_of(v: Value) -> Perm | None:
    n = v.producer
    return n.op.perm if n is not None and isinstance(n.op, Transpose) else None


def _merge(n: Node, g: Graph, pinned: set[int]) -> bool:
    """A transpose of a transpose reads the first one's input, or gives way to it."""
    assert isinstance(n.op, Transpose)
    x = n.arg(0)
    inner = _perm_of(x)
    if inner is None or x.producer is None:
        return False
    source = x.producer.arg(0)
    perm = tuple(inner[p] for p in n.op.perm)
    out = n.outputs[0]
    if perm == tuple(range(len(perm))) and id(out) not in pinned:
        g.replace(out, source)
        return True
    n.op = Transpose(perm)
    n.replace_input(x, source)
    return True


def _moved(n: Node) -> list[Node]:
    """The node on what its transposed inputs were made of, and a transpose of its result; empty
    where that does not go."""
    if not isinstance(n.op, (Elementwise, Clip, Concat)) or n.regions or len(n.outputs) != 1:
        return []
    out = n.outputs[0]
    if not isinstance(out.type, TensorType) or out.type.quant is not None:
        return []
    perms = {p for v in n.present() if (p := _perm_of(v)) is not None and len(p) == out.type.rank}
    if len(perms) != 1:
        return []
    (perm,) = perms
    if not all(v is None or _movable(v, perm, n.op) for v in n.inputs):
        return []
    back = tuple(int(k) for k in np.argsort(perm))
    kind = replace(out.type, shape=tuple(out.type.shape[k] for k in back))
    op = replace(n.op, axis=perm[n.op.axis]) if isinstance(n.op, Concat) else n.op
    inner = Value(f"{out.name}.moved", kind)
    detach(n)
    first = Node(op, [None if v is None else _before(v, back) for v in n.inputs], [inner], n.origin)
    return [first, Node(Transpose(perm), [inner], [out], n.origin)]


def _movable(v: Value, perm: Perm, op: Op) -> bool:
    """Whether the input under the axes before the transpose is there or a constant."""
    if not isinstance(v.type, TensorType):
        return False
    if _perm_of(v) == perm:
        return True
    if isinstance(op, Concat):
        return v.data is not None
    return v.type.size == 1 or (v.data is not None and v.data.ndim <= len(perm))


def _before(v: Value, back: Perm) -> Value:
    """What the transpose of v was made of; a constant with its axes in that order."""
    n = v.producer
    if n is not None and isinstance(n.op, Transpose):
        return n.arg(0)
    if v.data is None or v.data.size == 1:
        return v
    data = v.data.reshape((1,) * (len(back) - v.data.ndim) + v.data.shape)
    data = np.ascontiguousarray(data.transpose(back))
    return Value(f"{v.name}.moved", replace(v.tensor, shape=data.shape), data)
