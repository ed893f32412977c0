"""A lock per cache key between processes and threads, by `flock`."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from onefold import events, knobs
from onefold.errors import CacheError
from onefold.run import store


class KeyLock:
    """Held inside the `with` block; the system releases it when the process ends in any way.

    Raises `CacheError` when another process holds it for longer than a compiler run may take.
    """

    def __init__(self, folder: Path, key: str, place: store.Place = store.CACHE) -> None:
        self._path = folder / f"{key}.lock"
        self._key = key
        self._place = place
        self._file = -1

    def __enter__(self) -> KeyLock:
        limit = time.monotonic() + 2 * knobs.COMPILE_TIMEOUT.get()
        pause = 0.001
        while not self._try():
            if pause == 0.001:
                events.emit("cache.wait", key=self._key)
            if time.monotonic() > limit:
                raise CacheError("another process has held the lock for too long",
                                 where=str(self._path), kind=CacheError.BUSY,
                                 remedy="End the other process, or set "
                                        f"{self._place.knob.name} to another folder.")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        return self

    def _try(self) -> bool:
        with store.guarded("being locked", self._path, place=self._place):
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if self._lock(file):
                    self._file = file
                    return True
            finally:
                if self._file != file:
                    os.close(file)
        return False

    def _lock(self, file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder removes the file before it lets go: what was locked may be gone.
            return os.stat(self._path).st_ino == os.fstat(file).st_ino
        except (BlockingIOError, FileNotFoundError):
            return False

    def __exit__(self, *_: object) -> None:
        try:
            os.unlink(self._path)
        finally:
            os.close(self._file)
            self._file = -1
