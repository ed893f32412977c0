"""Where Onefold keeps files of its own, and that nobody else can write there."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from onefold import knobs
from onefold.errors import CacheError, DiskError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def guarded(doing: str, where: Path, only_full: bool = False) -> Iterator[None]:
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
        raise CacheError(f"the cache failed while {doing}", where=str(where),
                         why=str(error)) from error


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
    return _private(knobs.CACHE_DIR.get() or _default())


def toolchain_folder() -> Path:
    """The folder of what the toolchain builds once per target; not counted by the cache."""
    return _private(knobs.TOOLCHAIN_DIR.get() or _default().with_name("onefold-toolchain"))


def tuned_folder() -> Path:
    """The folder of measured times."""
    if tuned_place().parent == knobs.CACHE_DIR.get():
        cache_folder()
    return _private(tuned_place())


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


def _made(folder: Path) -> os.stat_result:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder.stat()
    except FileNotFoundError as error:  # as some file systems answer where nothing can be made
        raise CacheError("the cache folder cannot be made", where=str(folder),
                         why=str(error)) from error


def _private(folder: Path) -> Path:
    """Makes the folder if needed and checks its owner and permissions."""
    with guarded("opening its folder", folder):
        try:
            facts = folder.stat()
        except FileNotFoundError:
            facts = _made(folder)
    if not stat.S_ISDIR(facts.st_mode):
        raise CacheError("the cache folder is not a folder", where=str(folder))
    if facts.st_uid != os.geteuid():
        raise CacheError("the cache folder belongs to another user", where=str(folder),
                         why=f"its owner has the number {facts.st_uid}, you have {os.geteuid()}",
                         kind=CacheError.UNSAFE)
    if facts.st_mode & 0o022:
        raise CacheError("other users may write to the cache folder", where=str(folder),
                         why=f"its permissions are {stat.S_IMODE(facts.st_mode):o}",
                         kind=CacheError.UNSAFE)
    return folder

