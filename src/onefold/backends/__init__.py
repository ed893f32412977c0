"""The contract between the compiler and whoever runs a part of a model.

A backend says which nodes it takes, turns a region into files, and loads those files into
something that can be called. The built-in CPU stands behind the same contract as everyone else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from onefold.ir.graph import Array, Graph, Node
    from onefold.options import Options
    from onefold.target import Target


class Runnable(Protocol):
    """A loaded region."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Outputs for inputs, both in the region's order."""

    def reset(self) -> None:
        """State back to its initial contents."""

    def ticks(self) -> list[int]:
        """Time that each step has taken, and the time now, by a clock of its own; the counts begin
        anew. Empty where it is not counted."""


class Backend(Protocol):
    @property
    def name(self) -> str:
        """Shown in reports."""

    def accepts(self, node: Node, target: Target) -> str:
        """Empty where the node can run here, else the reason why not."""

    def compile(
        self, region: Graph, target: Target, folder: Path, options: Options
    ) -> Mapping[str, Any]:
        """Write what running needs into the folder; returns facts for the report."""

    def load(self, folder: Path, region: Graph | None) -> Runnable:
        """What `compile` wrote, ready to be called; region is None on a warm start."""
