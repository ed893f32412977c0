"""Runs a graph node by node in the operators' NumPy references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onefold.defects import told
from onefold.errors import OnefoldError, RunError
from onefold.ir import dims
from onefold.ir.graph import Graph, Node, Value
from onefold.ir.types import TensorType

Watch = Callable[[Node, Sequence[Any], Sequence[Any]], None]


class Environment:
    """Values known so far, by identity."""

    def __init__(self, watch: Watch | None = None) -> None:
        self.values: dict[int, Any] = {}
        self.sizes: dict[str, int] = {}  # run-time dimensions, by the name of their symbol
        self.watch = watch

    def get(self, v: Value | None) -> Any:
        if v is None:
            return None
        return v.data if v.data is not None else self.values[id(v)]

    def run(self, graph: Graph, inputs: Sequence[Any]) -> list[Any]:
        """Outputs of a graph or of a body."""
        for v, x in zip(graph.inputs, inputs, strict=True):
            self.put(v, x)
        for n in graph.nodes:
            self.node(n)
        return [self.get(v) for v in graph.outputs]

    def put(self, v: Value, x: Any) -> None:
        """Remember a value, and the dimensions that its actual shape tells."""
        self.values[id(v)] = x
        if isinstance(v.type, TensorType):
            for d, size in zip(v.type.shape, np.shape(x), strict=False):
                if isinstance(d, dims.Expr) and len(dims.atoms(d)) == 1:
                    a = dims.atoms(d)[0]
                    if isinstance(a, dims.Sym) and d == dims.atom(a):
                        self.sizes[a.name] = int(size)

    def node(self, n: Node) -> None:
        xs = [self.get(v) for v in n.inputs]
        try:
            with np.errstate(all="ignore"):
                out = n.op.ref_in(n, self, *xs)
        except OnefoldError:
            raise
        except (ValueError, IndexError, TypeError, OverflowError, ArithmeticError) as e:
            raise RunError(f"{n.op.name} cannot be computed", where=str(n.origin),
                           why=str(e)) from e  # fmt: skip
        except Exception as e:
            raise RunError(f"{n.op.name} cannot be computed", where=str(n.origin),
                           why=told(e, str(n.origin), n.op.name)) from e  # fmt: skip
        outs = out if isinstance(out, (tuple, list)) else [out]
        for v, y in zip(n.outputs, outs, strict=False):
            if isinstance(v.type, TensorType) and not isinstance(y, np.ndarray):
                y = np.asarray(y, v.type.dtype.numpy)
            self.put(v, y)
        if self.watch is not None:
            self.watch(n, xs, outs)


def evaluate(graph: Graph, inputs: Sequence[Any], watch: Watch | None = None) -> list[Any]:
    """The outputs of a graph for inputs in its order; states begin at their initial contents."""
    env = Environment(watch)
    for s in graph.states:
        t = s.value.tensor
        zeros = np.zeros(t.ints, t.dtype.numpy)
        env.values[id(s.value)] = zeros if s.initial is None else s.initial
    return env.run(graph, inputs)
