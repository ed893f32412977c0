"""Arrays from .npy and .npz files; nothing in them is unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from onefold.dev.feed import Fed, Port, Style, fit_shape
from onefold.errors import InputError
from onefold.ir.graph import Array

SUFFIXES = (".npy", ".npz")


def read_npy(path: str | Path) -> Array:
    """The array of a .npy file. Raises InputError where there is none."""
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        raise InputError(f"'{path}' is not an array file", why=str(e),
                         remedy="Write it with numpy.save.") from None  # fmt: skip
    return array


def read_npz(path: str | Path) -> dict[str, Array]:
    """All arrays of a .npz file by name. Raises InputError where it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as e:
        raise InputError(f"'{path}' is not an archive of arrays", why=str(e),
                         remedy="Write it with numpy.savez.") from None  # fmt: skip


def read(path: Path, port: Port, style: Style) -> Fed:
    """The array of the port's name, or the only one."""
    if path.suffix.lower() == ".npy":
        return fitted(read_npy(path), port)
    arrays = read_npz(path)
    if port.name in arrays:
        return fitted(arrays[port.name], port)
    if len(arrays) != 1:
        raise InputError(f"'{path.name}' has no array '{port.name}'",
                         why="it has " + (", ".join(sorted(arrays)) or "none"))  # fmt: skip
    return fitted(next(iter(arrays.values())), port)


def fitted(array: Array, port: Port) -> Fed:
    """The array in the port's rank and element type, where no value changes its meaning."""
    array, notes = fit_shape(array, port)
    if array.dtype.kind == "U" and port.dtype == object:  # text is kept as objects
        return Fed(array.astype(object), tuple(notes))
    if array.dtype == port.dtype:
        return Fed(array, tuple(notes))
    with np.errstate(all="ignore"):
        converted = array.astype(port.dtype) if array.dtype.kind in "biuf" else array
    both_float = array.dtype.kind == "f" and port.dtype.kind in "fV"
    if both_float or (converted.dtype == port.dtype and _same(converted, array)):
        notes.append(f"{array.dtype.name} converted to {port.dtype.name}")
        return Fed(converted, tuple(notes))
    if array.dtype.kind == "f" and port.quantized:
        from onefold.dev.feed import quantize

        notes.append(f"real numbers quantized by {port.scale:.6g}, zero {port.zero_point}")
        return Fed(quantize(array.astype(np.float64), port), tuple(notes))
    raise InputError(
        f"the data for '{port.name}' is {array.dtype.name}, not {port.dtype.name}",
        why="converting it would change values",
    )


def _same(a: Array, b: Array) -> bool:
    return bool(np.array_equal(a.astype(np.float64), b.astype(np.float64)))
