"""Common subexpressions: equal constants become one, and equal nodes on equal values too."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

import numpy as np

from onefold.ir.graph import Array, Graph, Node, Value

SAMPLE = 16  # elements of a constant that are looked at before all of it is


def merge_equal(graph: Graph) -> int:
    """Merge what is equal, in every body by itself; returns how many values went."""
    done = _merge_constants(graph)
    pinned = graph.pinned()
    for g in list(graph.regions_and_self()):
        done += _merge_nodes(g, pinned)
    return done


def _merge_constants(graph: Graph) -> int:
    groups: dict[Any, list[tuple[Value, Array]]] = defaultdict(list)
    for v in graph.constants():
        if v.data is not None and v.data.dtype.kind != "O":
            groups[v.type, v.content, _sample(v.data)].append((v, v.data))
    done = 0
    for group in groups.values():
        first: dict[bytes, Value] = {}
        for v, data in group if len(group) > 1 else ():
            twin = first.setdefault(_digest(data), v)
            if twin is not v:
                _redirect(v, twin)
                done += 1
    return done


def _redirect(old: Value, new: Value) -> None:
    for n in list(dict.fromkeys(old.uses)):
        n.replace_input(old, new)


def _sample(a: Array) -> bytes:
    """Some elements from all over an array: what differs there need not be read whole."""
    flat = a.reshape(-1)
    return np.ascontiguousarray(flat[:: max(1, flat.size // SAMPLE)][:SAMPLE]).tobytes()


def _digest(a: Array) -> bytes:
    flat = np.ascontiguousarray(a).reshape(-1)
    return hashlib.blake2b(flat.view(np.uint8).data, digest_size=32).digest()


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
            _redirect(old, new)
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
