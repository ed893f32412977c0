"""Where the bytes of a model come from: a mapped file, bytes in memory, and files beside it."""

from __future__ import annotations

import mmap
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from onefold.errors import ModelFormatError
from onefold.files import Files

Bytes = bytes | bytearray | memoryview

SMALL = 1 << 24
"""Bytes up to which a file is read, so that nothing that is written to it later is seen."""


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes of one model, and the folder in which files that it names may lie.

    `data` is read-only and, for a large file, a mapping: nothing is read before it is looked at.
    The mapping lives as long as any view of it.
    """

    name: str
    data: memoryview
    folder: Path | None = None
    files: Files = field(default_factory=Files, repr=False, compare=False)
    _open: dict[Path, memoryview] = field(default_factory=dict, repr=False, compare=False)

    def external(self, location: str) -> memoryview:
        """The contents of the file that the model names as `location`, relative to its folder.

        Raises `ModelFormatError` (OF103) for a path that is absolute, climbs with `..`, or leaves
        the folder through a symbolic link, and for anything but a readable regular file; OF104
        for one that has changed since it was first looked at.
        """
        path = self.locate(location)
        assert self.folder is not None
        name = self.folder / location
        if name not in self._open:
            self._open[name] = read_file(path, f"external data '{location}'", self.files, name)
        self.files.check_unwritten(name)
        return self._open[name]

    def locate(self, location: str) -> Path:
        """The path of a file that the model names; raises as `external` does."""
        def refuse(why: str) -> ModelFormatError:
            return ModelFormatError(
                f"external data file '{location}' is refused", where=self.name, why=why,
                kind=ModelFormatError.EXTERNAL)

        if self.folder is None:
            raise refuse("the model was given as bytes, so it has no folder to look in")
        parts = location.replace("\\", "/").split("/")
        if not location or "\0" in location or ".." in parts:
            raise refuse("the path is empty, or climbs out of the model's folder with '..'")
        if parts[0] == "" or re.match("[A-Za-z]:", location):
            raise refuse("the path is absolute; only files in the model's own folder are read")
        folder = self.folder.resolve()
        try:
            path = folder.joinpath(*parts).resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise refuse(f"it cannot be opened: {os_reason(error)}") from None
        if not path.is_relative_to(folder):
            raise refuse("a symbolic link leads out of the model's folder")
        return path


def open_source(model: str | os.PathLike[str] | Bytes, *,
                folder: str | os.PathLike[str] | None = None, name: str | None = None,
                files: Files | None = None) -> Source:
    """Makes a `Source` of a path (mapped where it is large) or of any bytes-like object (not
    copied).

    `folder` is where external data is looked for when `model` is not a path; `files` have been
    looked at before.
    Raises `ModelFormatError` (OF104) when the path cannot be read.
    """
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        files = Files() if files is None else files
        data = read_file(path, f"model file '{path.name or path}'", files, path)
        return Source(name or path.name, data, path.parent, files)
    view = memoryview(model)
    if not view.c_contiguous:
        view = memoryview(bytes(view))
    base = None if folder is None else Path(folder)
    return Source(name or "<bytes>", view.cast("B").toreadonly(), base)


def read_file(path: Path, what: str, files: Files, name: Path) -> memoryview:
    """The contents of a regular file of any size, mapped where it is large; raises where `files`
    have seen another one under the name."""
    try:
        # O_NONBLOCK: opening a named pipe must not wait for a writer.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
                         | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise ModelFormatError(f"{what} cannot be read", where=str(path), why=os_reason(error),
                               kind=ModelFormatError.MISSING) from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ModelFormatError(f"{what} cannot be read", where=str(path), why=f"it is {kind}",
                                   kind=ModelFormatError.MISSING)
        files.look(name, handle)
        if status.st_size > SMALL:
            return memoryview(mmap.mmap(handle, 0, access=mmap.ACCESS_READ))
        with open(handle, "rb", closefd=False) as file:
            data = file.read()
        files.look(name, handle)
        return memoryview(data)
    except (OSError, ValueError) as error:  # ValueError: it became empty before it was mapped
        raise ModelFormatError(f"{what} cannot be read", where=str(path),
                               why=os_reason(error), kind=ModelFormatError.MISSING) from None
    finally:
        os.close(handle)


def os_reason(error: Exception) -> str:
    """The operating system's own words, without the path (which the message has already)."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
