"""The built-in CPU: generated C, compiled for the target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onefold.backends import Runnable
from onefold.defects import told
from onefold.ir import dims
from onefold.ir.graph import Graph, Node
from onefold.ir.types import TensorType
from onefold.ops.base import Lowering, NeedsValue, Refusal, as_inputs
from onefold.options import Options
from onefold.target import Target


class Cpu:
    name = "cpu"

    def accepts(self, node: Node, target: Target) -> str:
        reason = node.op.compiled(node) or _unlowered(node)
        if reason:
            return reason
        for g in node.regions:
            for n in g.nodes:
                inner = self.accepts(n, target)
                if inner:
                    return f"its body has a layer that cannot be compiled: {inner}"
        return ""

    def compile(
        self, region: Graph, target: Target, folder: Path, options: Options
    ) -> Mapping[str, Any]:
        from onefold.plan import plan
        from onefold.run.building import build

        program = plan(region, target, options)
        return build(program, target, folder, optimize=options.level(target),
                     profile=options.profile, flags=options.flags).facts

    def load(self, folder: Path, region: Graph | None) -> Runnable:
        from onefold.run.artifact import Artifact
        from onefold.run.session import Loaded

        return Loaded(Artifact.open(folder))


def _unlowered(node: Node) -> str:
    """Why a node has no compiled form although its operator has one; empty where it has."""
    for v in node.outputs:
        if isinstance(v.type, TensorType) and dims.upper(v.type.size) >= dims.INF:
            return f"the size of its result '{v.name}' has no bound"
    if node.regions:
        return ""
    try:
        node.op.lower(Lowering(node, as_inputs(node)))
    except (Refusal, NeedsValue) as e:
        return str(e)
    except Exception as e:
        return told(e, str(node.origin), node.op.name)
    return ""
