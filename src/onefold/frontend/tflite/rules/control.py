"""IF and WHILE: subgraphs as bodies of our If and Loop."""

from __future__ import annotations

from collections.abc import Sequence

from onefold.frontend.tflite.rules import tflite_rule
from onefold.ir import dims
from onefold.ir.graph import Builder, Graph, Value
from onefold.ops.base import Refusal
from onefold.ops.control import If, make_loop
from onefold.ops.formats import TfliteNode


@tflite_rule("IF")
def if_(n: TfliteNode, b: Builder) -> Sequence[Value]:
    """The subgraph that the first input chooses, on the other inputs."""
    cond, args = n.arg(0), _present(n)[1:]
    branches = [int(n.option("then_subgraph_index", 0)), int(n.option("else_subgraph_index", 0))]
    if cond.data is not None:
        taken = branches[0] if bool(cond.data.reshape(-1)[0]) else branches[1]
        outs: list[Value] = n.importer.inline(taken, args)
        return outs
    if dims.upper(cond.tensor.size) != 1:
        raise Refusal("the condition is not a single boolean")
    regions = []
    for k in branches:
        graph = Graph(f"subgraph{k}")
        saved = b.nodes, b.graph
        b.nodes, b.graph = graph.nodes, graph
        try:
            graph.outputs = n.importer.inline(k, args)
        finally:
            b.nodes, b.graph = saved
        regions.append(graph)
    return b.ops(If(), cond, name=n.output_names, regions=regions)


@tflite_rule("WHILE")
def while_(n: TfliteNode, b: Builder) -> Sequence[Value]:
    """The body, as long as the condition's subgraph gives true for the values carried."""
    start = _present(n)
    test = int(n.option("cond_subgraph_index", 0))
    body = int(n.option("body_subgraph_index", 0))

    def make(formals: Sequence[Value]) -> Graph:
        graph = Graph("while", inputs=list(formals))
        saved = b.nodes, b.graph
        b.nodes, b.graph = graph.nodes, graph
        try:
            carried = n.importer.inline(body, formals[2:])
            graph.outputs = [*n.importer.inline(test, carried), *carried]
        finally:
            b.nodes, b.graph = saved
        return graph

    (first,) = n.importer.inline(test, start)
    return make_loop(b, None, first, start, make, n.output_names)


def _present(n: TfliteNode) -> list[Value]:
    out = [v for v in n.inputs if v is not None]
    if len(out) != len(n.inputs):
        raise Refusal(f"{n.op_type} needs all of its inputs")
    return out
