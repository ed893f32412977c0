"""The NumPy references of the operators: right, slow, only inside a host session."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onefold.backends import Runnable
from onefold.ir.graph import Array, Graph, Node
from onefold.options import Options
from onefold.target import Target


class Reference:
    name = "reference"

    def accepts(self, node: Node, target: Target) -> str:
        return ""

    def compile(
        self, region: Graph, target: Target, folder: Path, options: Options
    ) -> Mapping[str, Any]:
        return {"steps": [{"op": n.op.name, "origin": str(n.origin)} for n in region.nodes]}

    def load(self, folder: Path, region: Graph | None) -> Runnable:
        if region is None:
            raise ValueError("a reference part cannot be loaded without its graph")
        return Evaluated(region)


class Evaluated:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._state: dict[int, Array] = {}
        self._lock = threading.Lock()
        self._taken = [0] * len(graph.nodes)
        self.reset()

    def reset(self) -> None:
        for s in self.graph.states:
            t = s.value.tensor
            zeros = np.zeros(t.ints, t.dtype.numpy)
            self._state[id(s)] = zeros if s.initial is None else s.initial

    def ticks(self) -> list[int]:
        taken, self._taken = self._taken, [0] * len(self._taken)
        return [*taken, time.perf_counter_ns()]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        if not self.graph.states:
            return self._run(inputs)
        with self._lock:
            return self._run(inputs)

    def _run(self, inputs: Sequence[Array]) -> list[Array]:
        from onefold.dev.reference import Environment

        env = Environment()
        for s in self.graph.states:
            env.values[id(s.value)] = self._state[id(s)]
        for v, x in zip(self.graph.inputs, inputs, strict=True):
            env.put(v, x)
        for k, n in enumerate(self.graph.nodes):
            begin = time.perf_counter_ns()
            env.node(n)
            self._taken[k] += time.perf_counter_ns() - begin
        outs = [env.get(v) for v in self.graph.outputs]
        for s in self.graph.states:
            if s.update is not None:
                self._state[id(s)] = env.get(s.update)
        # Views and the arrays themselves of inputs, constants and states are not the caller's.
        return [np.array(y) if isinstance(y, np.ndarray) else y for y in outs]
