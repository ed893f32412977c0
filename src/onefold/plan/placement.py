"""Heuristics behind `plan_arena`: constructive orders, a skyline, and a local search.

Every placement is a pure function of an order of the blocks, so the search space is the set of
permutations.  Sources of the ideas:

- orders by size and by breadth: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural
  Net Inference", 2020 (arXiv:2001.03288), sections 4 and 5;
- the skyline: Burke, Kendall and Whitwell, "A New Placement Heuristic for the Orthogonal
  Stock-Cutting Problem", Operations Research 52(4), 2004, applied to lifetimes by Sekiyama et al.,
  "Profile-guided memory optimization for deep neural networks", 2018 (arXiv:1804.10001);
- pulling forward what ended too high: Joslin and Clements, "Squeaky Wheel Optimization", JAIR 10,
  1999.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

TOLERANCE = 0.05
TOLERANCE_BYTES = 1024
"""A plan this far above its bound (the larger of the two) needs no further search."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Blocks by index.  `sizes` are aligned; `rivals[i]` may share no byte with block i."""

    sizes: list[int]
    aligns: list[int]
    first: list[int]
    last: list[int]
    rivals: list[list[int]]
    bound: int

    @property
    def goal(self) -> int:
        """A size at which search ends: below the bound plus one step of the coarsest alignment."""
        return self.bound + max(self.aligns) - 1

    @property
    def conflicts(self) -> int:
        """Work of one placement: the number of rival pairs, counted from both sides."""
        return len(self.sizes) + sum(map(len, self.rivals))


@dataclass(frozen=True, slots=True)
class Placement:
    """Offsets by block index.  `overflow` sums the bytes by which blocks end above the bound."""

    offsets: list[int]
    size: int
    overflow: int
    algorithm: str
    order: Sequence[int]
    fit: Fit

    @property
    def cost(self) -> tuple[int, int]:
        return self.size, self.overflow


Fit = Callable[[list[tuple[int, int]], int, int], int]
"""From the occupied (start, end) ranges in order, a size and an alignment to an offset."""


def first_fit(taken: list[tuple[int, int]], size: int, align: int) -> int:
    """The lowest free offset."""
    at = 0
    for start, end in taken:
        if at + size <= start:
            return at
        if end > at:
            at = -(-end // align) * align
    return at


def best_fit(taken: list[tuple[int, int]], size: int, align: int) -> int:
    """The lowest offset in the tightest gap; above everything if no gap is large enough."""
    at, best, slack = 0, -1, -1
    for start, end in taken:
        room = start - at - size
        if room >= 0 and (best < 0 or room < slack):
            best, slack = at, room
        if end > at:
            at = -(-end // align) * align
    return at if best < 0 else best


def place(problem: Problem, order: Sequence[int], fit: Fit, algorithm: str) -> Placement:
    """Puts the blocks down one after the other, each where `fit` says among its placed rivals."""
    sizes, aligns, rivals = problem.sizes, problem.aligns, problem.rivals
    count = len(sizes)
    offsets, ends = [-1] * count, [0] * count
    for i in order:
        taken = [(offsets[j], ends[j]) for j in rivals[i] if ends[j]]
        taken.sort()
        at = fit(taken, sizes[i], aligns[i])
        offsets[i], ends[i] = at, at + sizes[i]
    bound = problem.bound
    overflow = sum(end - bound for end in ends if end > bound)
    return Placement(offsets, max(ends), overflow, algorithm, order, fit)


def skyline(problem: Problem, order: Sequence[int], algorithm: str) -> Placement:
    """Fills the lowest stretch of the skyline over time with the first block that fits inside it.

    A stretch into which no block fits is raised to its lower neighbour.  The offsets then settle
    by a first-fit pass in the order found, which also closes gaps left by raising.
    """
    first, last = problem.first, problem.last
    waiting: dict[int, list[tuple[int, int, int]]] = {}
    for rank, i in enumerate(order):
        waiting.setdefault(first[i], []).append((rank, last[i], i))
    lines = [(0, min(first), max(last))]
    chosen: list[int] = []
    while waiting:
        k = lines.index(min(lines))
        height, begin, end = lines[k]
        entry = _first_inside(waiting, begin, end)
        if entry is None:
            _raise_line(lines, k)
            continue
        i = entry[2]
        waiting[first[i]].remove(entry)
        if not waiting[first[i]]:
            del waiting[first[i]]
        chosen.append(i)
        top = -(-height // problem.aligns[i]) * problem.aligns[i] + problem.sizes[i]
        parts = [(height, begin, first[i] - 1), (top, first[i], last[i]),
                 (height, last[i] + 1, end)]
        lines[k:k + 1] = [part for part in parts if part[1] <= part[2]]
    return place(problem, chosen, first_fit, algorithm)


def _first_inside(waiting: dict[int, list[tuple[int, int, int]]], begin: int,
                  end: int) -> tuple[int, int, int] | None:
    """The entry (rank, last step, block) of least rank whose life lies within the stretch."""
    steps = range(begin, end + 1) if end - begin < len(waiting) else [
        t for t in waiting if begin <= t <= end]
    best = None
    for t in steps:
        for entry in waiting.get(t, ()):
            if best is not None and entry > best:
                break
            if entry[1] <= end:
                best = entry
                break
    return best


def _raise_line(lines: list[tuple[int, int, int]], k: int) -> None:
    """Lifts line k to the lower of its neighbours and joins it with those of equal height."""
    sides = [lines[j][0] for j in (k - 1, k + 1) if 0 <= j < len(lines)]
    height = min(sides)
    lo, hi = k, k
    while lo > 0 and lines[lo - 1][0] == height:
        lo -= 1
    while hi + 1 < len(lines) and lines[hi + 1][0] == height:
        hi += 1
    lines[lo:hi + 1] = [(height, lines[lo][1], lines[hi][2])]


def _groups(problem: Problem) -> Iterator[list[int]]:
    """The blocks alive at each step at which one begins."""
    alive: list[int] = []
    by_first = sorted(range(len(problem.sizes)), key=lambda i: problem.first[i])
    for at, i in enumerate(by_first):
        alive.append(i)
        begin = problem.first[i]
        if at + 1 == len(by_first) or problem.first[by_first[at + 1]] != begin:
            alive = [j for j in alive if problem.last[j] >= begin]
            yield alive


def pressures(problem: Problem) -> list[int]:
    """For each block the most bytes alive at any step of its life."""
    most = [0] * len(problem.sizes)
    for alive in _groups(problem):
        load = sum(problem.sizes[i] for i in alive)
        for i in alive:
            most[i] = max(most[i], load)
    return most


def breadth_order(problem: Problem) -> list[int]:
    """Blocks of the step with most live bytes first, largest first inside; then the next step."""
    sizes = problem.sizes
    groups = sorted(_groups(problem), key=lambda group: -sum(sizes[i] for i in group))
    order: dict[int, None] = {}
    for alive in groups:
        order.update(dict.fromkeys(sorted(alive, key=lambda i: (-sizes[i], i))))
    return list(order)


def constructions(problem: Problem) -> Iterator[Placement]:
    """The fixed portfolio, the most often successful first."""
    size, first, last = problem.sizes, problem.first, problem.last
    keys: dict[str, Callable[[int], tuple[int, ...]]] = {
        "size": lambda i: (-size[i], first[i], i),
        "area": lambda i: (-size[i] * (last[i] - first[i] + 1), i),
        "lifetime": lambda i: (first[i] - last[i], -size[i], i),
        "first use": lambda i: (first[i], -size[i], i),
        "last use": lambda i: (-last[i], -size[i], i),
    }
    orders = {name: sorted(range(len(size)), key=key) for name, key in keys.items()}
    orders["breadth"] = breadth_order(problem)
    for name in ("size", "breadth", "area", "lifetime", "first use", "last use"):
        yield place(problem, orders[name], first_fit, f"greedy by {name}, first fit")
        yield place(problem, orders[name], best_fit, f"greedy by {name}, best fit")
    for name in ("lifetime", "size", "area"):
        yield skyline(problem, orders[name], f"skyline by {name}")


def samples(problem: Problem, rng: random.Random) -> Iterator[Placement]:
    """Endless constructions in orders of size^a * lifetime^b * pressure^c * noise, drawn anew.

    No single weighting wins on crowded instances, but some weighting nearly always does well.
    """
    size, pressure = problem.sizes, pressures(problem)
    life = [last - first + 1 for first, last in zip(problem.first, problem.last, strict=True)]
    while True:
        a, b, c = rng.uniform(-0.5, 1.5), rng.uniform(0, 1.5), rng.choice((0, 0, rng.uniform(0, 6)))
        noise = rng.choice((0.0, 0.05, 0.2, 0.5))
        weight = [size[i] ** a * life[i] ** b * (pressure[i] / problem.bound) ** c
                  * 2 ** rng.gauss(0, noise) for i in range(len(size))]
        order = sorted(range(len(size)), key=lambda i: -weight[i])
        yield skyline(problem, order, "sampled skyline")
        yield place(problem, order, first_fit, "sampled greedy, first fit")


def solve(problem: Problem, effort: int, seed: int) -> Placement:
    """The best construction, improved while it lies above the bound and `effort` lasts.

    `effort` counts visited conflicts.  A placement that is still more than the tolerance above
    the bound gets up to four times as much.
    """
    best: list[Placement] = []
    for found in constructions(problem):
        if found.size <= problem.goal:
            return found
        best.append(found)
    rng = random.Random(seed)
    rounds = max(8, effort // problem.conflicts)
    drawn = samples(problem, rng)
    for _ in range(4):
        for found in itertools.islice(drawn, rounds // 3):
            best.append(found)
            if found.size <= problem.goal:
                return found
        best = sorted(best, key=lambda p: p.cost)[:3]
        best = [_climb(problem, start, rounds // 6, rng) for start in best]
        top = min(best, key=lambda p: p.cost)
        if top.size <= problem.goal + max(TOLERANCE * problem.bound, TOLERANCE_BYTES):
            break
    return top


def _climb(problem: Problem, start: Placement, rounds: int, rng: random.Random) -> Placement:
    """Moves blocks that end too high earlier in the order; equal cost is accepted, worse rarely."""
    best = now = start
    name = start.algorithm.removesuffix(", local search") + ", local search"
    for _ in range(rounds):
        if best.size <= problem.goal:
            break
        order = _pull_forward(problem, now, rng)
        found = place(problem, order, start.fit, name)
        if found.cost <= now.cost or rng.random() < 0.01:
            now = found
        if found.cost < best.cost:
            best = found
        elif now.size > best.size * 1.1:
            now = best
    return best


def _pull_forward(problem: Problem, now: Placement, rng: random.Random) -> list[int]:
    """A neighbour of the order: an offending block goes before one of its rivals, or far ahead."""
    sizes, offsets = problem.sizes, now.offsets
    top = [i for i, at in enumerate(offsets) if at + sizes[i] == now.size]
    high = top if rng.random() < 0.7 else [
        i for i, at in enumerate(offsets) if at + sizes[i] > problem.bound]
    order = list(now.order)
    where = {block: at for at, block in enumerate(order)}
    for _ in range(1 if rng.random() < 0.7 else 2):
        block = rng.choice(high)
        here = where[block]
        ahead = [where[j] for j in problem.rivals[block] if where[j] < here]
        there = rng.choice(ahead) if ahead and rng.random() < 0.8 else rng.randrange(here + 1)
        if rng.random() < 0.5:
            order[here], order[there] = order[there], order[here]
        else:
            order.insert(there, order.pop(here))
        where = {b: at for at, b in enumerate(order)}
    return order
