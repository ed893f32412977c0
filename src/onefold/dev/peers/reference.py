"""Our own NumPy references of the operators: slow, but there for every model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onefold.dev.reference import evaluate
from onefold.frontend.binding import Binding, ValueNeeded

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.ir.graph import Graph
    from onefold.ir.types import TensorType


class Reference:
    name = "reference"
    package = "numpy"
    extra = ""
    formats: Sequence[str] = ("onnx", "tflite")
    trust = 1

    def version(self) -> str:
        from onefold import __version__

        return __version__

    def load(self, model: Model, threads: int = 1, exact: bool = False) -> Evaluator:
        return Evaluator(model)

    def watch(self, model: Model, types: Mapping[str, TensorType]) -> Evaluator:
        return Evaluator(model)


class Evaluator:
    def __init__(self, model: Model) -> None:
        self.model = model

    def graph(self, inputs: Mapping[str, Any]) -> Graph:
        """The graph for the shapes of these inputs, and for their contents where it needs them."""
        shapes = {n: a.shape for n, a in inputs.items() if isinstance(a, np.ndarray)}
        values: dict[str, Any] = {}
        while True:
            try:
                return self.model.bind(Binding(shapes=shapes, values=values))
            except ValueNeeded as e:
                if not set(e.inputs) - set(values):
                    raise
                values.update({n: inputs[n] for n in e.inputs})

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        graph = self.graph(inputs)
        return evaluate(graph, [inputs[v.name] for v in graph.inputs])

    def bind(self, inputs: Mapping[str, Any]) -> Callable[[], Any]:
        graph = self.graph(inputs)
        arrays = [inputs[v.name] for v in graph.inputs]
        return lambda: evaluate(graph, arrays)

    def reset(self) -> None:
        """States begin anew at each call."""

    def values(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        graph = self.graph(inputs)
        found: dict[str, Any] = {}
        evaluate(
            graph,
            [inputs[v.name] for v in graph.inputs],
            lambda n, xs, ys: found.update(zip((v.name for v in n.outputs), ys, strict=False)),
        )
        return found


PEER = Reference
