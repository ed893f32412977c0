"""Removes what nobody reads."""

from __future__ import annotations

from onefold.ir.graph import Graph, detach


def remove_dead(graph: Graph) -> int:
    """Take out nodes whose results are neither read nor outputs; returns how many."""
    removed = 0
    for g in list(graph.regions_and_self()):
        removed += _sweep(g, graph)
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
