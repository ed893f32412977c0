"""Ties an output of a graph to an input: the input becomes state."""

from __future__ import annotations

from collections.abc import Sequence

from onefold.errors import OptionError, did_you_mean
from onefold.ir import dims
from onefold.ir.dims import Dim, Sym
from onefold.ir.graph import Graph, State, Value


def tie(graph: Graph, output: str, input: str, output_names: Sequence[str]) -> None:
    """After each call the contents of `output` are those of `input` at the next; both leave the
    graph's interface. Raises OptionError for unknown names or types that differ."""
    source = next((v for v in graph.inputs if v.name == input), None)
    names = [v.name for v in graph.inputs]
    if source is None:
        raise OptionError(f"there is no input '{input}'", why=did_you_mean(input, names))
    if output not in output_names:
        raise OptionError(f"there is no output '{output}'", why=did_you_mean(output, output_names))
    result = graph.outputs[list(output_names).index(output)]
    grows = _growth(source, result)
    if grows is None:
        raise OptionError(
            f"'{output}' cannot become '{input}'",
            why=f"{result.type} is not {source.type}",
            remedy="Only a dimension that is bounded at run time (--dim NAME=0..2048) may grow.",
        )
    graph.inputs.remove(source)
    graph.outputs.remove(result)
    graph.states.append(State(input, source, result, None, grows))


def _growth(source: Value, result: Value) -> tuple[tuple[Sym, Dim], ...] | None:
    """What the symbols of an input's shape become; None where the types do not fit."""
    if result.dtype is not source.dtype or result.tensor.rank != source.tensor.rank:
        return None
    out = []
    for d, e in zip(source.shape, result.shape, strict=True):
        if d == e:
            continue
        found = dims.symbols(d)
        if len(found) != 1 or d != dims.atom(found[0]):
            return None
        out.append((found[0], e))
    return tuple(out)
