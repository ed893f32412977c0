"""Removes what nobody reads."""

from __future__ import annotations

from onefold.ir.graph import Graph, detach


def remove_dead(graph: Graph) -> int:
    """Take out nodes whose results are neither read nor outputs; returns how many."""
    return _clean(graph, graph)


def _clean(g: Graph, whole: Graph) -> int:
    removed = _sweep(g, whole)
    for n in g.nodes:  # those that are left: the bodies of the others went with them
        for body in n.regions:
            removed += _clean(body, whole)
    return removed


def _sweep(g: Graph, whole: Graph) -> int:
    pinned = whole.pinned()
    kept = []
    removed = 0
    for n in reversed(g.nodes):
        if n.op.pure and not any(v.uses or id(v) in pinned for v in n.outputs):
            detach(n)
            removed += 1
        else:
            kept.append(n)
    g.nodes = list(reversed(kept))
    return removed
