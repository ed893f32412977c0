"""Ties an output of a graph to an input: the input becomes state."""

from __future__ import annotations

from collections.abc import Sequence

from onefold.errors import OptionError, did_you_mean
from onefold.ir.graph import Graph, State


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
    if result.tensor.shape != source.tensor.shape or result.dtype is not source.dtype:
        raise OptionError(
            f"'{output}' cannot become '{input}'",
            why=f"{result.type} is not {source.type}",
        )
    graph.inputs.remove(source)
    graph.outputs.remove(result)
    graph.states.append(State(input, source, result))
