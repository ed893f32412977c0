"""Inputs and outputs of a compiled program, as its manifest tells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onefold.errors import InputError
from onefold.ir import dtypes


@dataclass(frozen=True)
class PortFacts:
    """shape holds sizes as `dims.to_data` writes them; capacity is the most elements."""

    name: str
    kind: dtypes.DType
    shape: tuple[Any, ...]
    capacity: int
    dtype: np.dtype[Any]
    quant: Mapping[str, float] | None

    @staticmethod
    def of(facts: Mapping[str, Any]) -> PortFacts:
        kind = dtypes.BY_NAME[facts["dtype"]]
        count = facts["bytes"] // max(kind.bytes, 1)
        return PortFacts(
            facts["name"], kind, tuple(facts["shape"]), count, kind.numpy, facts.get("quant")
        )

    @property
    def ints(self) -> tuple[int, ...]:
        """The shape of a port whose sizes are all known."""
        return tuple(int(d) for d in self.shape)

    def match(self, shape: tuple[int, ...], env: dict[str, int]) -> None:
        """Check a shape, learning the run-time dimensions that it tells.

        Raises InputError for a wrong rank or size.
        """
        if len(shape) != len(self.shape):
            raise self._wrong(shape, f"it has {len(shape)} dimensions, not {len(self.shape)}")
        for k, (size, want) in enumerate(zip(shape, self.shape, strict=True)):
            if not isinstance(want, int):
                name = want[1][2]
                if env.setdefault(name, size) != size:
                    raise self._wrong(shape, f"{name} is {env[name]} in another input")
            elif size != want:
                raise self._wrong(shape, f"dimension {k} is {size}, not {want}")

    def _wrong(self, shape: tuple[int, ...], why: str) -> InputError:
        text = ",".join(str(d) if isinstance(d, int) else d[1][2] for d in self.shape)
        return InputError(
            f"input '{self.name}' has shape {list(shape)}",
            why=why,
            remedy=f"Give an array of shape [{text}] and type {self.dtype.name}.",
        )


def shape_of(port: PortFacts, env: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(value_of(d, env) for d in port.shape)


def value_of(size: Any, env: Mapping[str, int]) -> int:
    """A size as `dims.to_data` writes it. Raises KeyError where it depends on one that is not in
    env."""
    if isinstance(size, int):
        return size
    from onefold.ir import dims  # not needed where all sizes are known

    return dims.value_of(size, env)
