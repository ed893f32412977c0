"""What every importer gives: a model that has been read but not yet become a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from onefold.frontend.binding import Binding
from onefold.ir.graph import Graph


@dataclass(frozen=True, slots=True)
class Declared:
    """An input or output as the file declares it. dtype is a long name ("float32") or "" for
    what is no tensor; shape: None where the rank is open, elements None or a name where open."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None
    kind: str = "tensor"  # tensor | sequence | optional

    def __repr__(self) -> str:
        if self.kind != "tensor":
            return f"{self.name}: {self.kind}"
        dims = "?"
        if self.shape is not None:
            dims = ",".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name}: {self.dtype}[{dims}]"

    def dim_name(self, axis: int) -> str:
        """The name under which an open dimension is bound: the file's, or `input.axis`."""
        d = None if self.shape is None else self.shape[axis]
        return d if isinstance(d, str) and d else f"{self.name}.{axis}"


class SourceModel(Protocol):
    """A model as one of the source formats has it."""

    @property
    def format(self) -> str: ...

    @property
    def inputs(self) -> Sequence[Declared]: ...

    @property
    def outputs(self) -> Sequence[Declared]: ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """Producer, versions and such, for people."""

    @property
    def external_files(self) -> Sequence[str]:
        """Files, relative to the model's folder, in which it keeps weights."""

    @property
    def weights_bytes(self) -> int:
        """Bytes of all constants as the files hold them."""

    def graph(self, binding: Binding) -> Graph:
        """The graph. Raises UnsupportedModelError, ModelFormatError, ValueNeeded."""
