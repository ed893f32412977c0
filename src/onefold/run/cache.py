"""Compiled programs, stored by content.

An entry is a folder named by its key, the digest of everything the program depends on: the
model's bytes, the options, the toolchain, the kernels, the CPU features, Onefold's version.

* **Atomic.** An entry is built under a temporary name and renamed, so it exists whole or not at
  all; killed builders leave a temporary folder that the next builder of the key removes.
* **Built once.** A builder holds a file lock on its key; the lock ends with the process, so a
  stale lock does not exist.
* **Verified.** `.entry.json`, the cache's manifest, holds the digest of every file.  Small
  files (code, tables) are hashed at every load.  Large ones (weights) are hashed once per boot:
  then their inode, size, modification and change time are remembered, and as long as those and
  the boot id are the same the contents are taken as verified.  The change time cannot be set by
  a program, and a crash that loses pages changes the boot id.  A damaged entry is removed and
  built again.
* **Bounded.** Above the size limit the least recently used entries go.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onefold import events, hashes, knobs
from onefold.errors import CacheError
from onefold.run import store
from onefold.run.lock import KeyLock

MANIFEST = ".entry.json"
STAMPS = ".verified.json"
SMALL = 1 << 20
"""Files up to this size are hashed at every load (about a millisecond)."""

RECENT = 60.0
"""Seconds for which a used entry is not evicted, since its files may not be open yet."""

Build = Callable[[Path], Mapping[str, Any] | None]
Name = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True, slots=True)
class Entry:
    """A verified entry: its folder, what its builder noted, whether it was built just now."""

    key: str
    path: Path
    meta: Mapping[str, Any]
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of `onefold cache list`: bytes, seconds since the epoch of the last use."""

    key: str
    bytes: int
    used: float
    meta: Mapping[str, Any]


class _Damaged(Exception):
    """The entry cannot be used; the text says why."""


def key(*parts: bytes | str) -> str:
    """The digest of all parts; their borders count, so ("ab", "c") and ("a", "bc") differ."""
    digest = hashes.hasher()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


def get(key: str) -> Entry | None:
    """The entry, verified, or None when there is none or it is damaged (then it is removed)."""
    folder = _entries() / key
    try:
        return _open(key, folder)
    except FileNotFoundError:
        return None
    except _Damaged as error:
        events.emit("cache.damaged", key=key, why=str(error))
        with KeyLock(_root("locks"), key):
            try:  # another process may have repaired it meanwhile
                return _open(key, folder)
            except (FileNotFoundError, _Damaged):
                _remove(folder)
    return None


def get_or_build(key: str, build: Build, name: Name | None = None) -> Entry:
    """The entry, built by `build` if need be. name: the key to store it under, by what `build`
    returns, where that decides it.

    `build` receives an empty folder and fills it with files; what it returns is kept in the
    manifest (it must be JSON).  Of several processes only one builds, the others wait.
    Raises what `build` raises, `DiskError` when the disk is full, `CacheError` when the folder
    cannot be used.
    """
    found = get(key)
    if found is None:
        with KeyLock(_root("locks"), key):
            found = get_locked(key) or _build(key, build, name)
    events.emit("cache.build" if found.fresh else "cache.hit", key=found.key)
    return found


def get_locked(key: str) -> Entry | None:
    """As `get`, for a caller that holds the key's lock."""
    try:
        return _open(key, _entries() / key)
    except (FileNotFoundError, _Damaged):
        return None


def _build(key: str, build: Build, name: Name | None) -> Entry:
    _sweep(key)
    folder = _root("tmp") / f"{key}.{os.getpid()}"
    try:
        with store.guarded("storing a program", folder):
            folder.mkdir()
        with store.guarded("building a program", folder, only_full=True):
            meta = dict(build(folder) or {})
        if name is not None:
            key = name(meta)
            if there := get_locked(key):  # another process may have it open
                return there
        final = _entries() / key
        with store.guarded("storing a program", folder):
            total = _seal(folder, meta)
            _remove(final)
            folder.rename(final)
    finally:
        _remove(folder)
    _Budget.spend(total, key)
    return Entry(key, final, meta, fresh=True)


def _seal(folder: Path, meta: Mapping[str, Any]) -> int:
    """Writes the manifest; returns the bytes of the entry."""
    files: dict[str, list[int | str]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise CacheError("a program to store contains a link or a special file",
                             where=path.name)
        if path.is_file():
            files[str(path.relative_to(folder))] = [path.stat().st_size, _digest(path)]
    body = json.dumps({"files": files, "meta": meta})
    # The checksum comes first, so that nothing is parsed before it is verified.
    (folder / MANIFEST).write_text(f"{key(body)}\n{body}", "utf-8")
    _write_stamps(folder, files)
    return len(body) + sum(int(size) for size, _ in files.values())


def _open(key: str, folder: Path) -> Entry:
    """Raises `FileNotFoundError` (no entry) or `_Damaged`."""
    manifest = json.loads(_manifest(folder))
    try:
        _verify(folder, manifest["files"])
    except OSError as error:
        raise _Damaged(str(error)) from error
    _touch(folder)
    return Entry(key, folder, manifest["meta"])


def _manifest(folder: Path) -> bytes:
    try:
        digest, _, body = (folder / MANIFEST).read_bytes().partition(b"\n")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _Damaged(str(error)) from error
    if digest != key(body).encode():
        raise _Damaged("the manifest does not have its own checksum")
    return body


def _verify(folder: Path, files: Mapping[str, Any]) -> None:
    stamps = _read_stamps(folder)
    renew = False
    for name, (size, digest) in files.items():
        path = folder / name
        facts = path.stat()
        if facts.st_size != size:
            raise _Damaged(f"{name} has {facts.st_size} bytes instead of {size}")
        if size > SMALL and stamps.get(name) == _stamp(facts):
            continue
        if _digest(path) != digest:
            raise _Damaged(f"{name} does not have its checksum")
        renew |= size > SMALL
    if renew:
        _write_stamps(folder, files)


def _stamp(facts: os.stat_result) -> list[int]:
    return [facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""  # then every load hashes everything


def _read_stamps(folder: Path) -> Mapping[str, Any]:
    try:
        data = json.loads((folder / STAMPS).read_bytes())
        boot, files = data["boot"], data["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return files if boot and boot == _boot() and isinstance(files, dict) else {}


def _write_stamps(folder: Path, files: Mapping[str, Any]) -> None:
    large = {name: _stamp((folder / name).stat()) for name, (size, _) in files.items()
             if size > SMALL}
    if not large:
        return
    temporary = folder / f"{STAMPS}.{os.getpid()}"
    try:
        temporary.write_text(json.dumps({"boot": _boot(), "files": large}), "utf-8")
        temporary.replace(folder / STAMPS)
    except OSError:  # a full or read-only disk: the next load hashes again
        temporary.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashes.of_file(file)


def _touch(folder: Path) -> None:
    try:
        os.utime(folder / MANIFEST)
    except OSError:
        pass  # a read-only cache still serves; only the order of eviction suffers


# --- what is there, and how much -----------------------------------------------------------------


def entries() -> list[Listed]:
    """All entries, most recently used first, unverified."""
    return sorted(map(_listed, _entries().iterdir()), key=lambda one: -one.used)


def _listed(folder: Path) -> Listed:
    try:
        used = (folder / MANIFEST).stat().st_mtime
        meta = json.loads(_manifest(folder))["meta"]
    except (OSError, _Damaged):
        used, meta = 0.0, {}  # counted and evicted first
    return Listed(folder.name, _bytes(folder), used, meta)


def _bytes(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except OSError:
                pass  # removed meanwhile
    return total


def size() -> int:
    """Bytes of all entries."""
    return sum(_bytes(folder) for folder in _entries().iterdir())


def clear() -> int:
    """Removes all entries and everything half-built; returns the bytes freed."""
    freed = 0
    for folder in (*_entries().iterdir(), *_root("tmp").iterdir()):
        freed += _bytes(folder)
        _remove(folder)
    return freed


def evict(limit: int, spare: str = "", recent: float = RECENT) -> int:
    """Removes least recently used entries until at most `limit` bytes are left; bytes freed.

    The entry `spare` and those used in the last `recent` seconds stay.
    """
    listed = entries()
    total, freed, now = sum(one.bytes for one in listed), 0, time.time()
    for one in reversed(listed):
        if total - freed <= limit:
            break
        if one.key != spare and now - one.used >= recent:
            _remove(_entries() / one.key)
            freed += one.bytes
            events.emit("cache.evict", key=one.key, bytes=one.bytes)
    return freed


class _Budget:
    """When to look at the whole cache: at a process's first build, then per 2 % of the limit."""

    built = -1

    @classmethod
    def spend(cls, size: int, key: str) -> None:
        limit = knobs.CACHE_LIMIT.get()
        if cls.built < 0 or cls.built + size > limit // 50:
            evict(limit, spare=key)
            cls.built = 0
        else:
            cls.built += size


# --- folders -------------------------------------------------------------------------------------


def _root(name: str) -> Path:
    folder = store.cache_folder() / name
    if not folder.is_dir():
        with store.guarded("making a folder", folder):
            folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _entries() -> Path:
    return _root("programs")


def _sweep(key: str) -> None:
    """Removes what killed builders left: of this key at once, of others after a day."""
    limit = time.time() - 86400
    for folder in _root("tmp").iterdir():
        try:
            if folder.name.startswith(key) or folder.stat().st_mtime < limit:
                _remove(folder)
        except FileNotFoundError:
            pass  # its builder has finished


def _remove(folder: Path) -> None:
    """Removes a folder; a reader sees it whole or not at all."""
    import shutil
    grave = folder
    if folder.parent.name == "programs":
        grave = _root("tmp") / f"removed.{folder.name}.{os.getpid()}.{time.monotonic_ns()}"
        try:
            with store.guarded("removing a program", folder):
                folder.rename(grave)
        except FileNotFoundError:
            return
    if grave.is_dir() and not grave.is_symlink():
        shutil.rmtree(grave, ignore_errors=True)
    else:
        grave.unlink(missing_ok=True)
