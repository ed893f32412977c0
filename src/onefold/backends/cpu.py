"""The built-in CPU: generated C, compiled for the target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onefold.backends import Options, Runnable
from onefold.ir.graph import Graph, Node
from onefold.target import Target


class Cpu:
    name = "cpu"

    def accepts(self, node: Node, target: Target) -> str:
        reason = node.op.compiled(node)
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
        from onefold.run.artifact import build

        program = plan(region, target)
        return build(program, target, folder, optimize=options.optimize).facts

    def load(self, folder: Path, region: Graph | None) -> Runnable:
        from onefold.run.artifact import Artifact
        from onefold.run.session import Loaded

        return Loaded(Artifact.open(folder))
