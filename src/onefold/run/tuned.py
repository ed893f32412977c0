"""Measured times of kernels, remembered from one process to the next.

One file of JSON lines, each whole by itself: {"machine", "node", "times"}. What is added goes to
the end in one write under a lock, so that processes that end half-way, full disks and damage cost
the lines that they hit, and no others; the last line about a node counts. The next process that
writes removes what is damaged or superseded.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onefold import __version__, events, hashes
from onefold.errors import CacheError
from onefold.run import cache, store
from onefold.run.lock import KeyLock
from onefold.target import Target

NAME = "tuned.jsonl"
LONGEST = 1 << 16  # characters of a line
MOST = 1 << 26  # bytes of a file that are read


@dataclass(frozen=True)
class Record:
    """Seconds of each kernel that was measured for a node (`codegen.family.signature`)."""

    machine: str
    node: str
    times: Mapping[str, float]

    def line(self) -> str:
        facts = {"machine": self.machine, "node": self.node, "times": dict(self.times)}
        return json.dumps(facts, ensure_ascii=True) + "\n"


@dataclass
class Table:
    """What a file holds, and how many of its lines are damaged or superseded."""

    records: dict[tuple[str, str], Record] = field(default_factory=dict)
    damaged: int = 0
    superseded: int = 0

    def add(self, r: Record) -> None:
        key = r.machine, r.node
        self.superseded += key in self.records
        self.records[key] = r


def machine(target: Target) -> str:
    """What times hold for: the CPU by its name (for another target than the host, that target),
    what the compiler may use of it, and the versions of the compiler and of Onefold."""
    from onefold.run import toolchain
    from onefold.target.host import cpu_model

    name = cpu_model() if target.is_host else target.name
    return f"{name}; {target.arch} {target.cpu}; zig {toolchain.version()}; onefold {__version__}"


def times_for(target: Target) -> dict[str, Mapping[str, float]]:
    """The times measured on a machine, by node; empty where there is no file."""
    path = _path()
    try:
        if not path.exists():
            return {}
        here = machine(target)
        found = read(path)
    except OSError as e:
        raise CacheError("measured times cannot be read", where=str(path), why=str(e),
                         remedy="--no-tuned compiles without them.") from e  # fmt: skip
    if found.damaged:
        events.emit("tuned.damaged", where=str(path), lines=found.damaged)
    return {node: r.times for (m, node), r in found.records.items() if m == here}


# --- which of them a program was compiled with ----------------------------------------------------
#
# They belong to its key in the cache; but which nodes it asks for is known only after it has been
# planned. So that is kept beside the cache, by the rest of the key.


def used(asked: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """What a program asked for, and what was known of that, as short digests."""
    known = {node: times for node, times in asked.items() if times}
    return {"asked": sorted(map(_short, asked)), "known": _digests(known)}


def key_of(base: str, known: Mapping[str, Mapping[str, float]] | None) -> str:
    """The key of a program in the cache; empty where it is not known what the program asks for."""
    if not known:
        return _key(base, {})
    try:
        asked = set(json.loads(_memo(base).read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return ""
    return _key(base, {n: d for n, d in _digests(known).items() if n in asked})


def remembered(base: str, facts: Iterable[Mapping[str, Any]]) -> str:
    """The key of a program that has been compiled; facts: `used` of its parts. What it asked for
    is remembered."""
    asked: set[str] = set()
    known: dict[str, str] = {}
    for f in facts:
        asked.update(f["asked"])
        known.update(f["known"])
    memo = _memo(base)
    temporary = memo.with_suffix(f".{os.getpid()}")
    try:
        memo.parent.mkdir(mode=0o700, exist_ok=True)
        temporary.write_text(json.dumps(sorted(asked)), "utf-8")
        temporary.replace(memo)
    except OSError:  # a full or read-only disk: the next process asks again
        temporary.unlink(missing_ok=True)
    return _key(base, known)


def _memo(base: str) -> Path:
    return store.cache_folder() / "digests" / f"asked-{base[:40]}.json"


def _key(base: str, known: Mapping[str, str]) -> str:
    return cache.key(base, json.dumps(known, sort_keys=True))


def _digests(known: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    return {_short(node): _short(json.dumps(dict(times), sort_keys=True))
            for node, times in known.items()}  # fmt: skip


def _short(text: str) -> str:
    return hashes.of_bytes(text.encode())[:16]


# --- the file -------------------------------------------------------------------------------------


def _path() -> Path:
    return store.tuned_place() / NAME


def read(path: Path) -> Table:
    """The records of a file; lines that are none are counted."""
    table = Table()
    with path.open("rb") as file:
        raw = file.read(MOST)
    *lines, rest = raw.split(b"\n")
    table.damaged += bool(rest)  # written half
    for line in lines:
        r = _parsed(line)
        if r is None:
            table.damaged += 1
        else:
            table.add(r)
    return table


def _parsed(line: bytes) -> Record | None:
    try:
        facts = json.loads(line) if len(line) <= LONGEST else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(facts, dict):
        return None
    machine, node, times = (facts.get(k) for k in ("machine", "node", "times"))
    if not isinstance(machine, str) or not isinstance(node, str) or not isinstance(times, dict):
        return None
    if not times or not all(_is_time(t) for t in times.values()):
        return None
    if not all(text.isprintable() for text in (machine, node, *times)):
        return None  # half a pair of UTF-16, or what would steer a terminal
    return Record(machine, node, {k: float(t) for k, t in times.items()})


def _is_time(t: object) -> bool:
    if not isinstance(t, (int, float)) or isinstance(t, bool):
        return False
    try:
        return math.isfinite(t) and t > 0
    except OverflowError:  # a whole number with hundreds of digits
        return False


def table() -> Table:
    """All that is remembered here, of every machine."""
    try:
        return read(_path())
    except FileNotFoundError:
        return Table()
    except OSError as e:
        raise store.TUNED.unusable("measured times cannot be read", _path(), str(e)) from e


@contextmanager
def _alone(folder: Path, doing: str) -> Iterator[None]:
    """While no other process writes to the folder of measured times."""
    place = store.TUNED
    with KeyLock(folder, "tuned", place), store.guarded(doing, folder / NAME, place=place):
        yield


def add(records: Iterable[Record]) -> None:
    """Remembers records. Raises `DiskError` when the disk is full: what was there stays."""
    text = "".join(r.line() for r in records).encode()
    if not text:
        return
    folder = store.tuned_folder()
    path = folder / NAME
    with _alone(folder, "remembering measured times"):
        if path.exists():
            there = read(path)
            if there.damaged or there.superseded > len(there.records):
                _replace(path, there.records.values())
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            end = os.lseek(file, 0, os.SEEK_END)
            try:
                _write(file, text)
            except OSError:
                os.ftruncate(file, end)
                raise
        finally:
            os.close(file)


def forget(which: Callable[[Record], bool]) -> int:
    """Removes records, and whatever is damaged; returns how many records there were."""
    if not _path().exists():
        return 0
    folder = store.tuned_folder()
    path = folder / NAME
    with _alone(folder, "forgetting measured times"):
        records = read(path).records.values()
        kept = [r for r in records if not which(r)]
        _replace(path, kept)
    return len(records) - len(kept)


def _replace(path: Path, records: Iterable[Record]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        temporary.write_text("".join(r.line() for r in records), "ascii")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write(file: int, text: bytes) -> None:
    while text:
        text = text[os.write(file, text) :]
