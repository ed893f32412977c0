"""What is rounded when it is stored: where layers compute in bf16, values between them lie in
memory as bf16, which halves what moves."""

from __future__ import annotations

from dataclasses import replace

from onefold.codegen.family import KernelChoice
from onefold.codegen.narrow import MATRIX
from onefold.ir import dtypes
from onefold.ir.graph import Graph, Node, Value
from onefold.ops.movement import Concat
from onefold.options import Options
from onefold.target import Target


def choose_storage(graph: Graph, target: Target, options: Options) -> int:
    """Round values in channel blocks whose readers all take them so; returns how many there are.

    Readers are kernels that say so, and whatever is computed element by element.
    """
    if options.precision != "bf16" or not target.features >= MATRIX:
        return 0
    kernels = KernelChoice(target, options)
    found = {
        id(v): v for n in graph.nodes for v in n.outputs
        if _fits(v) and v.uses and all(_takes(u, v, kernels) for u in v.uses)
    }  # fmt: skip
    changed = True
    while changed:  # parts of a concatenation are written where they belong: all or none
        changed = False
        for n in graph.nodes:
            parts = [v for v in (*n.present(), *n.outputs) if id(v) in found]
            if isinstance(n.op, Concat) and 0 < len(parts) < len({*map(id, n.present())}) + 1:
                changed = True
                for v in parts:
                    found.pop(id(v), None)
    for v in found.values():
        v.type = replace(v.tensor, rounded=dtypes.bf16)
    return len(found)


def _fits(v: Value) -> bool:
    t = v.tensor
    return t.layout > 0 and t.dtype is dtypes.f32


def _takes(reader: Node, v: Value, kernels: KernelChoice) -> bool:
    choice = kernels.find(reader)
    return choice is None or choice.narrow or all(u is not v for u in choice.reads)
