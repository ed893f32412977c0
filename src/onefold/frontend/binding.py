"""What the user fixes about a model before it becomes a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onefold.ir.dims import Dim
    from onefold.ir.graph import Array


@dataclass(frozen=True)
class Binding:
    """shapes: input name -> whole shape; dims: dimension name -> size or (lowest, highest);
    values: input name -> contents, which are then constant; states: output name -> input name
    that receives it at the next call.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dims: Mapping[str, int | tuple[int, int]] = field(default_factory=dict)
    values: Mapping[str, Array] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)

    def dim(self, name: str, taken: dict[str, str]) -> Dim:
        """The dimension called `name` in the model. taken: symbols given so far, by name; names
        that are equal in C get symbols of their own."""
        from onefold.codegen.text import c_name  # these are not needed on a warm start
        from onefold.ir import dims

        given = self.dims.get(name)
        if isinstance(given, int):
            return given
        if name not in taken:
            symbol = plain = "n_" + c_name(name)
            k = 1
            while symbol in taken.values():
                k += 1
                symbol = f"{plain}_{k}"
            taken[name] = symbol
        symbol = taken[name]
        lo, hi = given if given is not None else (0, dims.INF)
        return dims.sym(symbol, lo, hi)


class ValueNeeded(Exception):
    """The model cannot be compiled before these inputs' contents are known.

    taken: the layers before this one that were taken.
    """

    def __init__(self, inputs: tuple[str, ...], layer: str, reason: str) -> None:
        super().__init__(f"{layer}: {reason}")
        self.inputs = inputs
        self.layer = layer
        self.reason = reason
        self.taken: frozenset[str] = frozenset()
