"""Digests of model files, remembered for large ones."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from onefold.run import store

LARGE = 64 << 20
"""Files from this size on are remembered; hashing less takes under a tenth of a second."""

SETTLED = 2.0
"""Seconds since a file's last change before its digest is remembered (clocks of file systems
are coarse, and a change right after hashing could carry the same time)."""


def file_digest(path: Path) -> str:
    """SHA-256 of the file's bytes.

    For a large file the digest is kept beside the cache with the file's device, inode, size,
    modification and change time, and taken from there while all of them are the same.
    Raises `OSError` when the file cannot be read.
    """
    with path.open("rb") as file:
        facts = _facts(file.fileno())
        if facts[2] < LARGE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        memo = _memo(path)
        known = _read(memo, facts)
        if known:
            return known
        began = time.time()
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        changed = max(facts[3], facts[4]) / 1e9
        if _facts(file.fileno()) == facts and began - changed >= SETTLED:
            _write(memo, facts, digest)
    return digest


def _facts(descriptor: int) -> list[int]:
    facts = os.fstat(descriptor)
    return [facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]


def _memo(path: Path) -> Path:
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
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
