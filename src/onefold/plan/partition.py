"""Which backend runs which nodes: regions as large as the order of the data allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onefold.backends import Backend
from onefold.ir import dtypes
from onefold.ir.graph import Graph, Node, Value, constant_bytes
from onefold.ir.types import TensorType
from onefold.target import Target


@dataclass(frozen=True)
class Part:
    """A region and who runs it; refusals tell why the backends before it did not take a node:
    (layer, operator, backend, reason)."""

    backend: Backend
    graph: Graph
    refusals: tuple[tuple[str, str, str, str], ...] = ()


def partition(graph: Graph, backends: Sequence[Backend], target: Target) -> list[Part]:
    """Cut a graph into parts, in order of execution.

    Each node goes to the first backend that takes it; the last one takes everything. A node's
    stage is the least number of changes of backend on any way to it, and nodes of one stage and
    one backend are a part.
    """
    owner: dict[int, int] = {}
    stage: dict[int, int] = {}
    why: dict[int, list[tuple[str, str, str, str]]] = {}
    for n in graph.nodes:
        k, refused = _choose(n, backends, target)
        owner[id(n)], why[id(n)] = k, refused
        s = 0
        for v in (*n.present(), *n.captures()):
            p = v.producer
            if p is not None and id(p) in owner:
                s = max(s, stage[id(p)] + (owner[id(p)] != k))
        stage[id(n)] = s
    keys = sorted({(stage[id(n)], owner[id(n)]) for n in graph.nodes})
    refused = [w for n in graph.nodes for w in why[id(n)]]
    border = _foreign(graph, backends[0].name)
    if len(keys) <= 1 and not border:
        return [Part(backends[keys[0][1] if keys else 0], graph, tuple(refused))]
    if len(keys) <= 1 or graph.states:  # states live in one place
        return [Part(backends[-1], graph, (*refused, *border))]
    parts = []
    for s, k in keys:
        nodes = [n for n in graph.nodes if (stage[id(n)], owner[id(n)]) == (s, k)]
        refused = [w for n in nodes for w in why[id(n)]]
        parts.append(Part(backends[k], region(graph, nodes), tuple(refused)))
    return parts


def _foreign(graph: Graph, backend: str) -> list[tuple[str, str, str, str]]:
    """Inputs and outputs that no compiled program can have."""
    found = []
    for what, values in (("input", graph.inputs), ("output", graph.outputs)):
        for v in values:
            if not isinstance(v.type, TensorType) or v.type.dtype is dtypes.string:
                found.append((v.name, what, backend, f"it is a {v.type}, which lives on the host"))
    return found


def _choose(
    n: Node, backends: Sequence[Backend], target: Target
) -> tuple[int, list[tuple[str, str, str, str]]]:
    refused: list[tuple[str, str, str, str]] = []
    for k, b in enumerate(backends):
        reason = b.accepts(n, target)
        if not reason or k == len(backends) - 1:
            return k, refused
        refused.append((str(n.origin), n.op.name, b.name, reason))
    raise ValueError("there is no backend")


def region(graph: Graph, nodes: Sequence[Node]) -> Graph:
    """The given nodes as a graph of their own; values are shared with the whole."""
    inside = {id(n) for n in nodes}
    made = {id(v) for n in nodes for v in n.outputs}
    ins: dict[int, Value] = {}
    for n in nodes:
        for v in (*n.present(), *n.captures()):
            if not v.is_const and id(v) not in made:
                ins[id(v)] = v
    pinned = graph.pinned()
    outs = [
        v for n in nodes for v in n.outputs
        if id(v) in pinned or any(id(u) not in inside for u in _readers(v, graph))
    ]  # fmt: skip
    part = Graph(graph.name, list(ins.values()), outs, list(nodes))
    part.source_bytes = graph.source_bytes * constant_bytes(part) // max(constant_bytes(graph), 1)
    return part


def _readers(v: Value, graph: Graph) -> list[Node]:
    """Top-level nodes that read v, themselves or in a body."""
    top = {id(n) for n in graph.nodes}
    direct = [u for u in v.uses if id(u) in top]
    if len(direct) == len(v.uses):
        return direct
    return direct + [n for n in graph.nodes if n.regions and v in n.captures()]
