"""Where Onefold keeps files of its own, and that nobody else can write there."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from onefold import knobs
from onefold.errors import CacheError, DiskError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Place:
    """A folder of our own: what errors call it, and the knob that moves it."""

    name: str
    knob: knobs.Knob[Path | None]

    def unusable(self, what: str, where: Path, why: str = "") -> CacheError:
        return CacheError(what, where=str(where), why=why,
                          remedy=f"Set {self.knob.name} to a folder you can write to.")

    def unsafe(self, what: str, where: Path, why: str) -> CacheError:
        return CacheError(what, where=str(where), why=why, kind=CacheError.UNSAFE,
                          remedy="Remove the folder or `chmod 700` it, or set "
                                 f"{self.knob.name} to another one.")


CACHE = Place("cache folder", knobs.CACHE_DIR)
TOOLCHAIN = Place("toolchain's folder", knobs.TOOLCHAIN_DIR)
TUNED = Place("folder of measured times", knobs.TUNED_DIR)


@contextmanager
def guarded(
    doing: str, where: Path, only_full: bool = False, place: Place = CACHE
) -> Iterator[None]:
    """Turns a failed file operation into `DiskError` (no space left) or `CacheError`.

    `FileNotFoundError` passes: another process may remove what this one looks at.  With
    `only_full` every error but a full disk passes.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise DiskError(f"no space left while {doing}", where=str(where),
                            why=str(error)) from error
        if only_full:
            raise
        what = f"the {place.name} failed while {doing}"
        raise place.unusable(what, where, str(error)) from error


@contextmanager
def writing(where: Path) -> Iterator[None]:
    """Turns a failed write of the user's or the compiler's files into `DiskError`."""
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL
        raise DiskError("no space left" if full else "a file cannot be written", where=str(where),
                        why=str(error), kind=DiskError.FULL if full else DiskError.WRITE
                        ) from error


def cache_folder() -> Path:
    """The folder of compiled programs, made private to its owner.

    Raises `CacheError` when it belongs to somebody else or others may write to it.
    """
    return _private(knobs.CACHE_DIR.get() or _default(), CACHE)


def toolchain_folder() -> Path:
    """The folder of what the toolchain builds once per target; not counted by the cache."""
    folder = knobs.TOOLCHAIN_DIR.get() or _default().with_name("onefold-toolchain")
    return _private(folder, TOOLCHAIN)


def tuned_folder() -> Path:
    """The folder of measured times."""
    if tuned_place().parent == knobs.CACHE_DIR.get():
        cache_folder()
    return _private(tuned_place(), TUNED)


def tuned_place() -> Path:
    """Where that folder is, or will be."""
    if chosen := knobs.TUNED_DIR.get():
        return chosen
    if beside := knobs.CACHE_DIR.get():
        return beside / "tuned"
    import platformdirs

    return Path(platformdirs.user_data_dir("onefold"))


@cache
def _default() -> Path:
    import platformdirs
    return Path(platformdirs.user_cache_dir("onefold"))


def _made(folder: Path, place: Place) -> os.stat_result:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder.stat()
    except FileNotFoundError as error:  # as some file systems answer where nothing can be made
        raise place.unusable(f"the {place.name} cannot be made", folder, str(error)) from error


def _private(folder: Path, place: Place) -> Path:
    """Makes the folder if needed and checks its owner and permissions."""
    with guarded("being opened", folder, place=place):
        try:
            facts = folder.stat()
        except FileNotFoundError:
            facts = _made(folder, place)
    if not stat.S_ISDIR(facts.st_mode):
        raise place.unusable(f"the {place.name} is not a folder", folder)
    if facts.st_uid != os.geteuid():
        raise place.unsafe(f"the {place.name} belongs to another user", folder,
                           f"its owner has the number {facts.st_uid}, you have {os.geteuid()}")
    if facts.st_mode & 0o022:
        raise place.unsafe(f"other users may write to the {place.name}", folder,
                           f"its permissions are {stat.S_IMODE(facts.st_mode):o}")
    return folder

