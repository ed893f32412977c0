"""The files that a model lies in, and whether they are still what they were."""

from __future__ import annotations

import os
from pathlib import Path

from onefold.errors import ModelFormatError


def facts_of(file: int | Path) -> list[int]:
    """What tells a file and its contents: device, inode, size, modification and change time."""
    facts = os.stat(file)
    return [facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]


class Files:
    """What is compiled is stored under a digest of the model's files, so all of it must come from
    one state of them; and to read a mapped file that has become shorter ends the process."""

    def __init__(self) -> None:
        self._seen: dict[Path, list[int]] = {}

    def look(self, path: Path, handle: int | None = None) -> None:
        """Raises ModelFormatError where the file is gone, or another one than at the first look.
        handle: that of the file where it is open."""
        try:
            facts = facts_of(path if handle is None else handle)[:4]
        except OSError as e:
            raise ModelFormatError(f"the file '{path}' cannot be read",
                                   why=e.strerror or str(e),
                                   kind=ModelFormatError.MISSING) from None  # fmt: skip
        if self._seen.setdefault(path.absolute(), facts) != facts:
            raise _changed(path)

    def check_unwritten(self, path: Path | None = None) -> None:
        """Raises ModelFormatError where the file, or any, was written to since the first look.
        Another file under its name changes nothing: what was opened stays as it was."""
        for at in self._seen if path is None else (path.absolute(),):
            try:
                facts = facts_of(at)[:4]
            except OSError:
                continue
            if facts[:2] == self._seen[at][:2] and facts != self._seen[at]:
                raise _changed(at)


def _changed(path: Path) -> ModelFormatError:
    return ModelFormatError(f"the file '{path}' has changed since it was first read",
                            remedy="Load the model again.",
                            kind=ModelFormatError.MISSING)  # fmt: skip
