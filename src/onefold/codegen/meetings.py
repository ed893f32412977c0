"""Which steps need their threads to meet in between.

A thread may begin a step while others are still in the one before, unless one of the two writes
memory that the other one's threads read or write too: memory of the arena is used again and again,
so that this is asked of addresses, not of values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from onefold.codegen.team import Reach, Shares
from onefold.ir import dtypes
from onefold.plan.program import Buffer, Step


@dataclass(frozen=True)
class _Access:
    """What a step gets at through one pointer: `size` bytes from `start` on in some memory."""

    memory: tuple[str, object]
    start: int
    size: int
    reads_only: bool
    shares: Shares | None
    reach: Reach | None  # in bytes


def must_meet(first: Step, then: Step, threads: int) -> bool:
    """Whether all of up to so many threads have to be through with a step before one begins
    another."""
    if not (_is_plain(first) and _is_plain(then)):
        return True
    return any(_clash(a, b, threads) for a in _accesses(first) for b in _accesses(then))


def _is_plain(s: Step) -> bool:
    """Whether a step neither stops the program nor finds sizes."""
    return s.kernel.split and not s.kernel.stops and not s.outs


def _accesses(s: Step) -> Iterator[_Access]:
    shares = s.kernel.shares
    reach = dict(shares.reach) if shares else {}
    for param, b in zip(s.kernel.params, s.args, strict=True):
        found = reach.get(param.name)
        if found is not None:
            item = _bytes_of(param.ctype.strip())
            found = Reach(item * found.unit, item * found.period)
        yield _Access(*_where(b), b.bytes, param.const, shares, found)


def _where(b: Buffer) -> tuple[tuple[str, object], int]:
    root = b.root
    if root.kind in ("arena", "const", "state"):
        return (root.kind, root.space), root.offset + b.start
    return (root.kind, root.index), b.start


@cache
def _bytes_of(ctype: str) -> int:
    return next(t.bytes for t in dtypes.ALL if t.ctype == ctype)


def _clash(a: _Access, b: _Access, threads: int) -> bool:
    """Whether a thread may get at what another one writes."""
    if (a.reads_only and b.reads_only) or a.memory != b.memory:
        return False
    if a.start + a.size <= b.start or b.start + b.size <= a.start:
        return False
    if not (a.shares and a.reach and b.shares and b.reach) or a.reach.period != b.reach.period:
        return True
    if a.reach.period and a.start != b.start:
        return True
    return any(_cross(a, b, parts) for parts in range(2, threads + 1))


def _cross(a: _Access, b: _Access, parts: int) -> bool:
    """Whether the share of one of so many threads meets that of another one."""
    assert a.shares and a.reach and b.shares and b.reach
    left = [a.start + a.reach.unit * n for n in a.shares.cuts(parts)]
    right = [b.start + b.reach.unit * n for n in b.shares.cuts(parts)]
    return any(
        min(left[k + 1], right[k]) > max(left[k], right[0])
        or min(left[k + 1], right[-1]) > max(left[k], right[k + 1])
        for k in range(parts)
    )
