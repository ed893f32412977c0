"""Inputs of a model from files, or made up: one reader per kind of file, found by being there.

A reader's module has `SUFFIXES` and a function `read(path, port, style) -> Fed`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onefold.errors import InputError, OptionError

if TYPE_CHECKING:
    from onefold.ir.graph import Array


@dataclass(frozen=True)
class Port:
    """An input to fill. shape: sizes, None where open; whole None where the rank is open;
    scale: of a quantized input (real = scale * (stored - zero_point)), 0 where it is not."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None
    scale: float = 0.0
    zero_point: int = 0
    channels_last: bool = False  # what the source format prefers where a shape fits both

    @property
    def quantized(self) -> bool:
        return self.scale > 0


@dataclass(frozen=True)
class Style:
    """How pictures and sounds become numbers; empty fields are guessed from the port."""

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: str = ""  # NCHW | NHWC
    channels: str = "rgb"  # rgb | bgr
    fit: str = "crop"  # crop | stretch | pad


@dataclass(frozen=True)
class Fed:
    """An array for a port, and in words what was assumed on the way."""

    array: Array
    notes: tuple[str, ...] = field(default=())


def read(path: Path, port: Port, style: Style) -> Fed:
    """The array in a file, made to fit a port.

    Raises InputError for contents that do not fit, OptionError for an unknown kind of file.
    """
    suffix = path.suffix.lower()
    found = {s: m for m in _readers() for s in m.SUFFIXES}
    if suffix not in found:
        raise OptionError(f"inputs cannot be read from '{path.name}'",
                          remedy="Known endings are " + ", ".join(sorted(found)) + ".")  # fmt: skip
    if not path.is_file():
        raise InputError(f"there is no file '{path}'", where=f"input '{port.name}'",
                         remedy="Check the path.")  # fmt: skip
    fed: Fed = found[suffix].read(path, port, style)
    return fed


def _readers() -> Sequence[Any]:
    names = [m.name for m in pkgutil.iter_modules(__path__)]
    modules = [importlib.import_module(f"{__name__}.{n}") for n in names]
    return [m for m in modules if hasattr(m, "SUFFIXES")]


def quantize(real: Array, port: Port) -> Array:
    """Real numbers as stored ones: scaled, rounded half to even, saturated."""
    info = np.iinfo(port.dtype)
    stored = np.rint(real / port.scale) + port.zero_point
    saturated: Array = np.clip(stored, info.min, info.max).astype(port.dtype)
    return saturated


def dequantize(stored: Array, scale: float, zero_point: int) -> Array:
    """Stored numbers as real ones."""
    return (stored.astype(np.float64) - zero_point) * scale


def fit_shape(array: Array, port: Port) -> tuple[Array, list[str]]:
    """The array in the port's rank: dimensions of size 1 in front are added or taken away."""
    if port.shape is None or _fits(array.shape, port.shape):
        return array, []
    trial = array
    while trial.ndim > len(port.shape) and trial.shape[0] == 1:
        trial = trial[0]
    while trial.ndim < len(port.shape):
        trial = trial[None]
    if _fits(trial.shape, port.shape):
        return trial, [f"shape {list(array.shape)} taken as {list(trial.shape)}"]
    want = [("?" if d is None else d) for d in port.shape]
    raise InputError(f"the data for '{port.name}' has shape {list(array.shape)}",
                     why=f"the model wants {want}")  # fmt: skip


def _fits(shape: tuple[int, ...], want: tuple[int | None, ...]) -> bool:
    return len(shape) == len(want) and all(
        w is None or w == s for s, w in zip(shape, want, strict=True)
    )
