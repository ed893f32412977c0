"""Digests of model files, remembered for large ones."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from onefold import hashes
from onefold.files import facts_of
from onefold.run import store

LARGE = 1 << 20
"""Files from this size on are remembered; hashing less takes about a millisecond."""

SETTLED = 2.0
"""Seconds since a file's last change before its digest is remembered (clocks of file systems
are coarse, and a change right after hashing could carry the same time)."""


def file_digest(path: Path) -> str:
    """The digest of the file's bytes.

    For a large file the digest is kept beside the cache with the file's device, inode, size,
    modification and change time, and taken from there while all of them are the same.
    Raises `OSError` when the file cannot be read.
    """
    with path.open("rb") as file:
        facts = facts_of(file.fileno())
        if facts[2] < LARGE:
            return hashes.of_file(file)
        memo = _memo(path)
        known = _read(memo, facts)
        if known:
            return known
        began = time.time()
        digest = hashes.of_file(file)
        changed = max(facts[3], facts[4]) / 1e9
        if facts_of(file.fileno()) == facts and began - changed >= SETTLED:
            _write(memo, facts, digest)
    return digest


def _memo(path: Path) -> Path:
    name = hashes.of_bytes(os.fsencode(path.resolve()))[:32]
    return store.cache_folder() / "digests" / f"{name}.json"


def _read(memo: Path, facts: list[int]) -> str | None:
    try:
        data = json.loads(memo.read_bytes())
        digest = data["digest"] if data["facts"] == facts else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return digest if isinstance(digest, str) else None


def _write(memo: Path, facts: list[int], digest: str) -> None:
    temporary = memo.with_suffix(f".{os.getpid()}")
    try:
        memo.parent.mkdir(mode=0o700, exist_ok=True)
        temporary.write_text(json.dumps({"facts": facts, "digest": digest}), "utf-8")
        temporary.replace(memo)
    except OSError:  # a full or read-only disk: the next run hashes again
        temporary.unlink(missing_ok=True)


def model_digest(source: Any) -> str:
    """The digest of a model given as bytes or as an `onnx.ModelProto`."""
    raw = source if isinstance(source, bytes) else source.SerializeToString()
    return hashes.of_bytes(raw)


def with_externals(
    path: Path, digest_of: Callable[[Path], str], find: Callable[[], Sequence[str]]
) -> str:
    """The digest of a model file together with the files it keeps weights in.

    Which files those are follows from the model's bytes, so `find`, which reads the model, is
    asked only once per digest; the answer is kept beside the cache.
    """
    digest = digest_of(path)
    memo = store.cache_folder() / "digests" / f"externals-{digest[:40]}.json"
    try:
        names = json.loads(memo.read_bytes())
    except (OSError, ValueError):
        names = sorted(set(find()))
        _write_names(memo, names)
    if not names:
        return digest
    parts = [digest]
    for name in names:
        file = path.parent / name
        try:
            parts.append(digest_of(file) if file.is_file() else "missing")
        except (OSError, ValueError):  # the importer says what is wrong with it
            parts.append("missing")
    return hashes.of_bytes("\n".join(parts).encode())


def _write_names(memo: Path, names: Sequence[str]) -> None:
    temporary = memo.with_suffix(f".{os.getpid()}")
    try:
        memo.parent.mkdir(mode=0o700, exist_ok=True)
        temporary.write_text(json.dumps(names), "utf-8")
        temporary.replace(memo)
    except OSError:
        temporary.unlink(missing_ok=True)


@cache
def package_digest() -> str:
    """A digest of this package's own sources, by name, size and time of each file: whatever
    generated code depends on. Installed files do not change behind a running process."""
    root = Path(__file__).resolve().parent.parent
    facts = []
    for folder, _, files in sorted(os.walk(root)):
        for name in sorted(files):
            if name.endswith((".py", ".h", ".toml", ".c")):
                found = os.stat(os.path.join(folder, name))
                facts.append(f"{folder}/{name} {found.st_size} {found.st_mtime_ns}")
    return hashes.of_bytes("\n".join(facts).encode())
