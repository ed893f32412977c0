"""Checks that a graph is what every stage relies on."""

from __future__ import annotations

from onefold.errors import GraphError
from onefold.ir.graph import Graph, Node, Value


def verify(graph: Graph, after: str = "") -> None:
    """Raises GraphError for a value used before it is made, made twice, or not linked to its
    readers; `after` names the pass that ran last."""
    _check(graph, {}, after)


def _check(g: Graph, outer: dict[int, Value], after: str) -> None:
    known = dict(outer)
    for v in [*g.inputs, *(s.value for s in g.states)]:
        known[id(v)] = v
    for n in g.nodes:
        for v in n.present():
            if not v.is_const and id(v) not in known:
                raise _bad(f"%{v.name} is used before it is made", n, after)
            if not any(u is n for u in v.uses):
                raise _bad(f"%{v.name} does not know that it is used", n, after)
        for r in n.regions:
            _check(r, known, after)
        for v in n.outputs:
            if id(v) in known:
                raise _bad(f"%{v.name} is made twice", n, after)
            if v.producer is not n:
                raise _bad(f"%{v.name} does not know who makes it", n, after)
            known[id(v)] = v
    for v in [*g.outputs, *(s.update for s in g.states if s.update is not None)]:
        if not v.is_const and id(v) not in known:
            raise GraphError(f"the output %{v.name} is never made", why=_why(after))


def _bad(what: str, n: Node, after: str) -> GraphError:
    return GraphError(what, where=str(n.origin) or n.op.name, why=_why(after))


def _why(after: str) -> str:
    return f"the graph is broken after the pass '{after}'" if after else "the graph is broken"
