"""Where each buffer lies in the arena: offsets for blocks whose lifetimes are known.

This is the dynamic storage allocation problem: rectangles whose sides along time are fixed are
pushed along the byte axis until none overlap, so that the highest edge is low.  It is NP-hard
(Garey and Johnson, 1979, problem SR2), but networks are kind: their lower bound, the most bytes
alive at one step, is nearly always reached.  `plan_arena` tries the constructive heuristics of
`plan.placement` and then improves the best of them by local search; `verify` knows none of this
and only looks at the result.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from onefold.errors import PlanError

Pairs = Collection[frozenset[int]]
"""Unordered pairs of block ids that may share bytes although both are alive."""


@dataclass(frozen=True, slots=True)
class Block:
    """A buffer of `size` bytes that is written or read from step `first` to `last` inclusive."""

    id: int
    size: int
    first: int
    last: int
    align: int = 64

    @property
    def aligned(self) -> int:
        """The size in bytes, rounded up to the alignment: what the block takes in the arena."""
        return -(-self.size // self.align) * self.align


@dataclass(frozen=True, slots=True)
class ArenaPlan:
    """Offsets in bytes by block id, the arena's size and how small it could be at best."""

    offsets: dict[int, int]
    size: int
    lower_bound: int
    algorithm: str

    @property
    def excess(self) -> float:
        """How far the size lies above the lower bound, as a fraction of the bound."""
        return self.size / self.lower_bound - 1 if self.lower_bound else 0.0


def plan_arena(blocks: Sequence[Block], overlap_ok: Pairs = frozenset(), *,
               effort: int = 1_500_000, seed: int = 1) -> ArenaPlan:
    """Places every block; the same input always gives the same plan.

    `effort` bounds the local search in visited conflicts (about 10 million take a second); the
    search ends as soon as the lower bound is reached.  Raises `PlanError` for a malformed block.
    """
    from onefold.plan.placement import Problem, solve

    check_blocks(blocks)
    bound = lower_bound(blocks, overlap_ok)
    solid = [b for b in blocks if b.size]
    offsets = {b.id: 0 for b in blocks}
    if not solid:
        return ArenaPlan(offsets, 0, 0, "empty")
    problem = Problem(
        sizes=[b.aligned for b in solid], aligns=[b.align for b in solid],
        first=[b.first for b in solid], last=[b.last for b in solid],
        rivals=_rivals(solid, overlap_ok), bound=bound)
    found = solve(problem, effort, seed)
    offsets.update(zip((b.id for b in solid), found.offsets, strict=True))
    return ArenaPlan(offsets, found.size, bound, found.algorithm)


def lower_bound(blocks: Iterable[Block], overlap_ok: Pairs = frozenset()) -> int:
    """The most aligned bytes alive at one step; no arena can be smaller.

    Of blocks alive together that may share bytes only the largest counts.
    """
    partners = _partners(overlap_ok)
    most = 0
    for alive in _alive_sets(blocks):
        taken: set[int] = set()
        total = 0
        for b in sorted(alive, key=lambda b: -b.aligned) if partners else alive:
            if partners and not taken.isdisjoint(partners.get(b.id, ())):
                continue
            taken.add(b.id)
            total += b.aligned
        most = max(most, total)
    return most


def verify(blocks: Sequence[Block], plan: ArenaPlan, overlap_ok: Pairs = frozenset()) -> None:
    """Raises `PlanError`, naming both blocks, if two blocks alive at one step share a byte.

    Also refuses a block without an offset, a misaligned one, and one that ends beyond the arena.
    """
    check_blocks(blocks)
    for b in blocks:
        offset = plan.offsets.get(b.id)
        if offset is None:
            raise PlanError(f"block {b.id} has no place in the arena", where=_text(b))
        if offset < 0 or offset % b.align:
            raise PlanError(f"block {b.id} lies at offset {offset}, which is not a multiple of "
                            f"its alignment {b.align}", where=_text(b))
        if offset + b.size > plan.size:
            raise PlanError(f"block {b.id} ends at byte {offset + b.size}, beyond the arena's "
                            f"{plan.size} bytes", where=_text(b))
    allowed = set(overlap_ok)
    for alive in _alive_sets(blocks):
        _verify_step(sorted((plan.offsets[b.id], b.id, b) for b in alive if b.size), allowed)


def _verify_step(placed: list[tuple[int, int, Block]], allowed: set[frozenset[int]]) -> None:
    """`placed` is sorted by offset; compares each block with all that begin below its end."""
    for i, (start, _, a) in enumerate(placed):
        for other, _, b in placed[i + 1:]:
            if other >= start + a.size:
                break
            if frozenset((a.id, b.id)) not in allowed:
                step = max(a.first, b.first)
                raise PlanError(
                    f"blocks {a.id} and {b.id} overlap", where=f"step {step}",
                    why=f"{_text(a)} at offset {start} and {_text(b)} at offset {other} are both "
                        f"alive at step {step}")


def check_blocks(blocks: Iterable[Block]) -> None:
    """Raises `PlanError` for a repeated id, a negative size, an empty lifetime or alignment < 1."""
    seen: set[int] = set()
    for b in blocks:
        if b.id in seen:
            raise PlanError(f"block {b.id} is given twice", where=_text(b))
        if b.size < 0 or b.align < 1 or b.last < b.first:
            raise PlanError(f"block {b.id} is not well-formed", where=_text(b),
                            why="a size is >= 0, an alignment >= 1, and a life ends no earlier "
                                "than it begins")
        seen.add(b.id)


def _alive_sets(blocks: Iterable[Block]) -> Iterable[list[Block]]:
    """The blocks alive at each step at which one begins (elsewhere no new pair meets)."""
    by_first = sorted(blocks, key=lambda b: b.first)
    alive: list[Block] = []
    for i, b in enumerate(by_first):
        alive.append(b)
        if i + 1 < len(by_first) and by_first[i + 1].first == b.first:
            continue
        alive = [a for a in alive if a.last >= b.first]
        yield alive


def _rivals(blocks: Sequence[Block], overlap_ok: Pairs) -> list[list[int]]:
    """For each block the indices of those that it may share no byte with."""
    partners = _partners(overlap_ok)
    rivals: list[list[int]] = [[] for _ in blocks]
    alive: list[int] = []
    for i in sorted(range(len(blocks)), key=lambda i: blocks[i].first):
        begin, free = blocks[i].first, partners.get(blocks[i].id, set())
        alive = [j for j in alive if blocks[j].last >= begin]
        for j in alive:
            if blocks[j].id not in free:
                rivals[i].append(j)
                rivals[j].append(i)
        alive.append(i)
    return rivals


def _partners(overlap_ok: Pairs) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for pair in overlap_ok:
        for a in pair:
            found.setdefault(a, set()).update(pair - {a})
    return found


def _text(b: Block) -> str:
    return f"block {b.id} ({b.size} bytes, steps {b.first} to {b.last})"
