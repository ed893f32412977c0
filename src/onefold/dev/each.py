"""Every layer by itself: fed with the referee's own values, compared with what it made of them.

The imported graph is cut at every value that the referee knows by name. What lies between the
cuts is a layer of the source model, however many nodes it became. All of them are compiled as one
program, whose inputs and outputs are the cuts, so that hundreds of layers take one compilation.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onefold.dev.budget import Budget, Distance, bounded, budget_of, measure
from onefold.dev.peers import Peer
from onefold.ir.graph import Graph, Node, Origin, Value
from onefold.ir.types import TensorType

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.options import Options
    from onefold.target import Target


@dataclass(frozen=True)
class LayerVerdict:
    """One value that a layer makes."""

    layer: str
    operators: tuple[str, ...]
    output: str
    budget: Budget
    distance: Distance
    compiled: bool

    @property
    def ok(self) -> bool:
        return self.distance.within(self.budget)


def types_of(graph: Graph) -> dict[str, TensorType]:
    """Every tensor on the way, by the source's name; names given twice are left out."""
    seen: dict[str, TensorType | None] = {}
    for v in graph.all_values():
        kind = v.type if isinstance(v.type, TensorType) and v.type.static else None
        seen[v.name] = None if v.name in seen else kind
    return {n: t for n, t in seen.items() if t is not None}


def check_each(
    model: Model, graph: Graph, peer: Peer, inputs: Mapping[str, Any], target: Target,
    options: Options,
) -> list[LayerVerdict]:  # fmt: skip
    """Verdicts in the graph's order. The graph is used up.

    Raises PeerRefuses where the referee does not tell its values.
    """
    types = types_of(graph)
    known = peer.watch(model, types).values(inputs)
    known = {n: a for n, a in known.items() if n in types and _fits(a, types[n])}
    feeds = {id(v): inputs[v.name] for v in graph.inputs}
    groups = _operators(graph, known)
    made = cut(graph, known, feeds)
    narrow = [bounded(v) for v in made]  # before passes change what makes them
    results = run_parts(graph, feeds, target, options)
    format, precision = model.read.format, options.precision
    verdicts = []
    for v, narrows, (ours, compiled) in zip(made, narrow, results, strict=True):
        layer, operators = groups[v.name]
        budget = budget_of(v.dtype, format, precision, bounded=narrows)
        distance = measure(ours, known[v.name])
        verdicts.append(LayerVerdict(str(layer), operators, v.name, budget, distance, compiled))
    return verdicts


def _fits(array: Any, kind: TensorType) -> bool:
    return tuple(np.shape(array)) == kind.ints and np.asarray(array).dtype == kind.dtype.numpy


def cut(graph: Graph, known: Mapping[str, Any], feeds: dict[int, Any]) -> list[Value]:
    """Cuts the graph at the known values: its nodes read the referee's, and what they make of
    them are the graph's outputs, which are returned. Adds the new inputs to `feeds`."""
    made: list[Value] = []
    for n in graph.nodes:
        outs = list(n.outputs)
        for k, v in enumerate(outs):
            if v.name not in known:
                continue
            fresh = Value(v.name, v.type)
            fresh.producer, v.producer = n, None
            outs[k] = fresh
            made.append(fresh)
            if v.uses or any(v in m.captures() for m in graph.nodes if m.regions):
                graph.inputs.append(v)
                feeds[id(v)] = np.ascontiguousarray(known[v.name])
        n.outputs = tuple(outs)
    graph.outputs = list(made)
    for s in graph.states:
        if s.update is not None and s.update.producer is None:
            s.update = None  # the referee's value takes its place
    return made


def _operators(graph: Graph, known: Mapping[str, Any]) -> dict[str, tuple[Origin, tuple[str, ...]]]:
    """For each known value the layers and operators that it is made by since the last cut."""
    found: dict[str, tuple[Origin, tuple[str, ...]]] = {}
    for n in graph.nodes:
        for v in n.outputs:
            if v.name in known:
                nodes = _behind(n, known)
                origin = Origin()
                for m in nodes:
                    origin = origin | m.origin
                found[v.name] = origin, tuple(dict.fromkeys(m.op.name for m in nodes))
    return found


def _behind(last: Node, known: Mapping[str, Any]) -> list[Node]:
    """The nodes that `last` and what it reads consist of, in order."""
    seen: dict[int, Node] = {}
    waiting = [last]
    while waiting:
        n = waiting.pop()
        if id(n) not in seen:
            seen[id(n)] = n
            waiting += [
                v.producer for v in n.present() if v.producer is not None and v.name not in known
            ]
    return list(reversed(seen.values()))


def run_parts(
    graph: Graph, feeds: Mapping[int, Any], target: Target, options: Options
) -> list[tuple[Any, bool]]:
    """Compiles and runs a graph once: its outputs, each with whether a compiled part made it.

    Passes may put other values in the outputs' places, but keep their order.
    """
    from onefold.backends import Backend
    from onefold.backends.cpu import Cpu
    from onefold.backends.reference import Reference
    from onefold.passes import pipeline
    from onefold.plan.partition import partition

    pipeline.run(graph)
    backends: Sequence[Backend] = [Cpu(), Reference()]
    values: dict[int, Any] = dict(feeds)
    values.update({id(v): v.data for v in graph.outputs if v.is_const})
    compiled: set[int] = set()
    with tempfile.TemporaryDirectory(prefix="onefold-each-") as folder:
        for k, part in enumerate(partition(graph, backends, target)):
            sub = Path(folder) / str(k)
            sub.mkdir()
            part.backend.compile(part.graph, target, sub, options)
            ready = part.backend.load(sub, part.graph)
            outs = ready.run([values[id(v)] for v in part.graph.inputs])
            values.update(zip((id(v) for v in part.graph.outputs), outs, strict=True))
            if part.backend.name == "cpu":
                compiled.update(id(v) for v in part.graph.outputs)
    return [(values[id(v)], id(v) in compiled) for v in graph.outputs]
