"""Other runtimes, to compare with and to race against: one file each, found by being there.

A peer's module has a class `PEER`, which follows the contract of `Peer`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from onefold.errors import MissingExtraError, OptionError, did_you_mean

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.ir.graph import Array
    from onefold.ir.types import TensorType


class PeerRefuses(Exception):
    """The peer cannot take the model; the text is its own reason."""


class Running(Protocol):
    """A model loaded by a peer."""

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        """Outputs in the model's order for inputs by name; states go on from call to call."""

    def bind(self, inputs: Mapping[str, Any]) -> Callable[[], Any]:
        """A call on these inputs with as little around it as the peer allows."""

    def reset(self) -> None:
        """States that the peer keeps back to their initial contents."""


class Watching(Protocol):
    """A model loaded by a peer that tells every value on the way."""

    def values(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Every value that the peer computes, by the source format's name."""


class Peer(Protocol):
    """A runtime."""

    name: str
    package: str  # what to import
    extra: str  # of Onefold, that installs it; empty where none does
    formats: Sequence[str]  # source formats it reads
    trust: int  # the most trusted one that takes a model is its referee

    def version(self) -> str: ...

    def load(self, model: Model, threads: int = 1, exact: bool = False) -> Running:
        """The model, loaded; exact: by its reference kernels where it has some.

        Raises PeerRefuses.
        """

    def watch(self, model: Model, types: Mapping[str, TensorType]) -> Watching:
        """The model, loaded so that it tells the values of these names. Raises PeerRefuses."""


@cache
def peers() -> dict[str, Peer]:
    """Every peer by name, whether its package is installed or not."""
    names = [m.name for m in pkgutil.iter_modules(__path__)]
    found = [importlib.import_module(f"{__name__}.{n}").PEER() for n in names]
    return {p.name: p for p in found}


def available(peer: Peer) -> bool:
    """Whether its package is installed."""
    from importlib.util import find_spec

    return find_spec(peer.package) is not None


def find(name: str, format: str = "") -> Peer:
    """The peer of that name. Raises OptionError where there is none or it does not read the
    format, MissingExtraError where it is not installed."""
    known = peers()
    if name not in known:
        raise OptionError(f"there is no runtime '{name}' to compare with",
                          why=did_you_mean(name, known),
                          remedy="Known are " + ", ".join(known) + ".")  # fmt: skip
    peer = known[name]
    if format and format not in peer.formats:
        others = ", ".join(p.name for p in suited(format))
        raise OptionError(f"{name} does not read {format} models",
                          remedy=f"Compare with {others}.")  # fmt: skip
    if not available(peer):
        raise MissingExtraError(distribution(peer), peer.extra, f"comparing with {name}")
    return peer


def distribution(peer: Peer) -> str:
    """The name of its package where packages are installed from."""
    return peer.package.replace("_", "-")


def suited(format: str) -> list[Peer]:
    """The installed peers that read a format, the most trusted first."""
    fit = [p for p in peers().values() if format in p.formats and available(p)]
    return sorted(fit, key=lambda p: p.trust, reverse=True)


def absent(format: str) -> list[Peer]:
    """Runtimes that read a format and are not installed, the most trusted first."""
    fit = [p for p in peers().values() if format in p.formats and not available(p)]
    return sorted(fit, key=lambda p: p.trust, reverse=True)


def model_bytes(model: Model) -> bytes:
    """The model's file."""
    from pathlib import Path

    source = model.source
    if isinstance(source, Path):
        return source.read_bytes()
    return source if isinstance(source, bytes) else bytes(source.SerializeToString())
