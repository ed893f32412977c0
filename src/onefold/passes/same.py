"""Common subexpressions: equal constants become one, and equal nodes on equal values too."""

from __future__ import annotations

from typing import Any

import numpy as np

from onefold.ir.graph import Array, Graph, Node, Value

SAMPLE = 64  # bytes of a constant that are looked at before all of it is


def merge_equal(graph: Graph) -> int:
    """Merge what is equal, in every body by itself; returns how many values went."""
    done = _merge_constants(graph)
    pinned = graph.pinned()
    for g in list(graph.regions_and_self()):
        done += _merge_nodes(g, pinned)
    return done


def _merge_constants(graph: Graph) -> int:
    groups: dict[Any, list[Value]] = {}
    done = 0
    for v in graph.constants():
        if v.data is None or v.data.dtype.kind == "O":
            continue
        kept = groups.setdefault((v.type, v.content, _sample(v.data)), [])
        twin = next((u for u in kept if u.data is not None and _equal(u.data, v.data)), None)
        if twin is None:
            kept.append(v)
            continue
        for n in list(dict.fromkeys(v.uses)):
            n.replace_input(v, twin)
        done += 1
    return done


def _bytes(a: Array) -> Array:
    return np.ascontiguousarray(a).reshape(-1).view(np.uint8)


def _sample(a: Array) -> bytes:
    """Some bytes from all over an array, which may be a view of a large file."""
    places = np.linspace(0, max(a.size - 1, 0), 16).astype(np.int64) if a.size else ()
    found = a[np.unravel_index(places, a.shape)] if a.size and a.ndim else a
    return bytes(np.ascontiguousarray(found).tobytes()[: 4 * SAMPLE])


def _equal(a: Array, b: Array) -> bool:
    return a is b or bool(np.array_equal(_bytes(a), _bytes(b)))


def _merge_nodes(g: Graph, pinned: set[int]) -> int:
    seen: dict[Any, Node] = {}
    gone: list[Node] = []
    for n in g.nodes:
        key = _key(n)
        if key is None:
            continue
        try:
            twin = seen.setdefault(key, n)
        except TypeError:  # an attribute that cannot be hashed
            continue
        if twin is n or any(id(v) in pinned for v in n.outputs):
            continue
        for old, new in zip(n.outputs, twin.outputs, strict=True):
            for user in list(dict.fromkeys(old.uses)):
                user.replace_input(old, new)
        twin.origin = twin.origin | n.origin.via("same")
        gone.append(n)
    g.remove(gone)
    return len(gone)


def _key(n: Node) -> Any:
    """What two nodes must share to be the same; None for what may not be merged."""
    if n.regions or not n.op.pure:
        return None
    inputs = tuple(None if v is None else id(v) for v in n.inputs)
    return type(n.op), n.op, inputs, tuple(v.type for v in n.outputs)
