"""In which order the steps run: a topological order whose peak of live bytes is low.

Finding the lowest peak is NP-hard for general graphs (Sethi, "Complete Register Allocation
Problems", SIAM J. Computing 4(3), 1975).  `choose_order` takes the best of several candidates and
never does worse than the order given:

- depth first in Sethi-Ullman fashion, the branch that needs most beyond its result first (Sethi
  and Ullman, JACM 17(4), 1970; Liu, SIAM J. Algebraic Discrete Methods 8(3), 1987, for trees with
  sizes);
- greedy list scheduling by the growth of live bytes;
- a search over sets of finished steps, kept to a bounded width (Ahn et al., "Ordering Chaos:
  Memory-Aware Scheduling of Irregularly Wired Neural Networks for Edge Devices", MLSys 2020, do
  the exact dynamic program).  Where the width suffices the result is optimal.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from onefold.errors import PlanError

SEARCH_LIMIT = 20_000
"""Most steps for which the search runs: its sets are bit masks, so that time grows squared."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one step reads and writes, as indices of values.

    A value with several writers lives from the first of them and its readers wait for all.
    `in_place` pairs (read, write) say that the write may take over the bytes of the read when this
    step is the last to read it.  `after` names further steps that must come before, for effects
    that no value shows.  `scratch` bytes are needed only while the step runs.
    """

    reads: tuple[int, ...]
    writes: tuple[int, ...]
    in_place: tuple[tuple[int, int], ...] = ()
    after: tuple[int, ...] = ()
    scratch: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """Step indices in running order, the peak of live bytes, and that of the order given."""

    steps: tuple[int, ...]
    peak: int
    file_peak: int
    algorithm: str


def choose_order(steps: Sequence[Step], sizes: Sequence[int], live_in: Collection[int] = (),
                 live_out: Collection[int] = (), *, effort: int | None = None) -> Order:
    """A topological order of `steps` with a low peak of live bytes; deterministic.

    `sizes` holds the bytes of each value, by its index.  Values in `live_in` are alive from the
    start, those in `live_out` to the end; a value in both, or an input that nothing reads, is
    always alive.  A value that no step writes and that is not in `live_in` is a constant and takes
    no room.  `effort` bounds the search in tried extensions (about 300,000 take a second; without
    it 30,000 plus 30 per step).  Raises `PlanError` when the given order is not topological.
    """
    flow = _Flow(steps, sizes, live_in, live_out)
    flow.check_file_order()
    count = len(steps)
    given = list(range(count))
    file_peak = flow.peak(given)
    best, name, peak = given, "as given", file_peak
    floor = flow.floor()
    for label, order in _candidates(flow):
        if peak <= floor:
            break
        found = flow.peak(order)
        if found < peak:
            best, name, peak = order, label, found
    if peak > floor and count <= SEARCH_LIMIT:
        tries = 30_000 + 30 * count if effort is None else effort
        searched = _search(flow, floor, peak, tries)
        if searched and (found := flow.peak(searched)) < peak:
            best, name, peak = searched, "search", found
    return Order(tuple(best), peak, file_peak, name)


def peak_bytes(order: Sequence[int], steps: Sequence[Step], sizes: Sequence[int],
               live_in: Collection[int] = (), live_out: Collection[int] = ()) -> int:
    """The most bytes alive at one step when the steps run in `order`."""
    return _Flow(steps, sizes, live_in, live_out).peak(order)


class _Flow:
    """Who makes, reads and ends each value, with bit masks over the steps for the search."""

    def __init__(self, steps: Sequence[Step], sizes: Sequence[int], live_in: Collection[int],
                 live_out: Collection[int]) -> None:
        self.steps, self.sizes = steps, sizes
        self.live_in = set(live_in)
        self.writers = _index(steps, lambda step: step.writes)
        readers = _index(steps, lambda step: step.reads)
        self.users: dict[int, list[int]] = {}
        for v in {*self.writers, *self.live_in}:
            ends = readers.get(v) or self.writers.get(v)
            if ends and v not in live_out:
                self.users[v] = ends
        self.makes = [[v for v in dict.fromkeys(step.writes) if v not in self.live_in]
                      for step in steps]
        self.uses: list[list[int]] = [[] for _ in steps]
        for v, ends in self.users.items():
            for s in ends:
                self.uses[s].append(v)
        self.before = [self._before(s) for s in range(len(steps))]
        self.next: list[list[int]] = [[] for _ in steps]
        for s, needed in enumerate(self.before):
            for p in needed:
                self.next[p].append(s)
        self.base = sum(sizes[v] for v in self.live_in)

    def _before(self, s: int) -> list[int]:
        step = self.steps[s]
        needed = dict.fromkeys(step.after)
        for v in step.reads:
            needed.update(dict.fromkeys(self.writers.get(v, ())))
        needed.pop(s, None)
        return list(needed)

    @cached_property
    def user_masks(self) -> dict[int, int]:
        return {v: _mask(ends) for v, ends in self.users.items()}

    @cached_property
    def before_masks(self) -> list[int]:
        return [_mask(needed) for needed in self.before]

    @cached_property
    def shared_writes(self) -> dict[int, int]:
        """The writers, as a mask, of values that have more than one."""
        return {v: _mask(w) for v, w in self.writers.items() if len(w) > 1}

    def check_file_order(self) -> None:
        for s, needed in enumerate(self.before):
            for p in needed:
                if p >= s:
                    raise PlanError("the steps are not in topological order", where=f"step {s}",
                                    why=f"it needs step {p}, which comes later in the list")

    def reused(self, s: int, dying: Collection[int], fresh: Collection[int]) -> int:
        """Bytes of the writes of step s that lie on reads that die there."""
        taken: set[int] = set()
        saved = 0
        for read, write in self.steps[s].in_place:
            if read in dying and write in fresh and read not in taken and write not in taken:
                taken |= {read, write}
                saved += min(self.sizes[read], self.sizes[write])
        return saved

    def floor(self) -> int:
        """A lower bound for every order: what the neediest single step touches."""
        most = self.base
        for s, step in enumerate(self.steps):
            touched = {v for v in step.reads + step.writes
                       if v in self.writers or v in self.live_in}
            always = sum(self.sizes[v] for v in self.live_in - touched if v not in self.users)
            needed = always + step.scratch + sum(self.sizes[v] for v in touched)
            most = max(most, needed - self.reused(s, self.uses[s], self.makes[s]))
        return most

    def peak(self, order: Sequence[int]) -> int:
        """The most bytes alive at one step of `order`."""
        sizes, left = self.sizes, {v: len(ends) for v, ends in self.users.items()}
        live = most = self.base
        written: set[int] = set()
        for s in order:
            fresh = [v for v in self.makes[s] if v not in written]
            written.update(fresh)
            dying = []
            for v in self.uses[s]:
                left[v] -= 1
                if not left[v]:
                    dying.append(v)
            for v in fresh:
                live += sizes[v]
            most = max(most, live + self.steps[s].scratch - self.reused(s, dying, fresh))
            for v in dying:
                live -= sizes[v]
        return most

    def extend(self, s: int, done: int) -> tuple[int, int]:
        """What running step s after the set `done` adds: bytes while it runs, and afterwards."""
        sizes, masks, after = self.sizes, self.user_masks, done | 1 << s
        fresh = self.makes[s]
        if self.shared_writes:
            fresh = [v for v in fresh if not self.shared_writes.get(v, 0) & done]
        dying = [v for v in self.uses[s] if masks[v] & after == masks[v]]
        made = sum([sizes[v] for v in fresh])
        freed = sum([sizes[v] for v in dying])
        step = self.steps[s]
        saved = self.reused(s, dying, fresh) if step.in_place else 0
        return made + step.scratch - saved, made - freed


def _index(steps: Sequence[Step], values: Callable[[Step], Sequence[int]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for s, step in enumerate(steps):
        for v in dict.fromkeys(values(step)):
            found.setdefault(v, []).append(s)
    return found


def _mask(steps: Sequence[int]) -> int:
    mask = 0
    for s in steps:
        mask |= 1 << s
    return mask


def _candidates(flow: _Flow) -> Iterator[tuple[str, list[int]]]:
    need, out = _needs(flow)
    count = len(flow.steps)
    yield "depth first by need", _depth_first(flow, lambda s: (out[s] - need[s], s))
    yield "depth first", _depth_first(flow, lambda s: (s, 0))
    yield "greedy by growth", _greedy(flow, lambda s, grown, age: (grown, s))
    yield "greedy by growth, newest first", _greedy(flow, lambda s, grown, age: (grown, -age))
    yield "newest first", _greedy(flow, lambda s, grown, age: (min(grown, 0), -age))
    yield "depth first, last branch first", _depth_first(flow, lambda s: (count - s, 0))


def _needs(flow: _Flow) -> tuple[list[int], list[int]]:
    """Peak and result bytes of each step's subtree, as if the graph were a tree."""
    out = [sum(flow.sizes[v] for v in made) for made in flow.makes]
    need: list[int] = []
    for s, needed in enumerate(flow.before):
        held = most = 0
        for p in sorted(needed, key=lambda p: out[p] - need[p]):
            most = max(most, held + need[p])
            held += out[p]
        need.append(max(most, held + out[s] + flow.steps[s].scratch))
    return need, out


def _depth_first(flow: _Flow, key: Callable[[int], tuple[int, int]]) -> list[int]:
    """Each step right after what it needs; of several predecessors the least key goes first."""
    order: list[int] = []
    done = [False] * len(flow.steps)
    sinks = [s for s, following in enumerate(flow.next) if not following]
    stack = [(s, False) for s in sorted(sinks, key=key, reverse=True)]
    while stack:
        s, ready = stack.pop()
        if done[s]:
            continue
        if ready:
            done[s] = True
            order.append(s)
            continue
        stack.append((s, True))
        waiting = [p for p in flow.before[s] if not done[p]]
        stack += [(p, False) for p in sorted(waiting, key=key, reverse=True)]
    return order


def _greedy(flow: _Flow, key: Callable[[int, int, int], tuple[int, int]]) -> list[int]:
    """List scheduling: always the ready step of least `key(step, growth in bytes, age)`.

    `age` counts steps run before the step became ready.  Keys only fall while a step waits, so
    that a stale entry in the heap is always found after a newer one.
    """
    sizes, users = flow.sizes, flow.users
    missing = [len(needed) for needed in flow.before]
    left = {v: len(ends) for v, ends in users.items()}
    grown = [sum(sizes[v] for v in made) for made in flow.makes]
    done, age = [False] * len(missing), [-1] * len(missing)
    heap: list[tuple[tuple[int, int], int]] = []
    order: list[int] = []

    def offer(s: int) -> None:
        heapq.heappush(heap, (key(s, grown[s], age[s]), s))

    def last_user(v: int) -> None:
        s = next(s for s in users[v] if not done[s])
        grown[s] -= sizes[v]
        if age[s] >= 0:
            offer(s)

    for v, ends in users.items():
        if len(ends) == 1:
            grown[ends[0]] -= sizes[v]
    for s, count in enumerate(missing):
        if not count:
            age[s] = 0
            offer(s)
    while heap:
        _, s = heapq.heappop(heap)
        if done[s]:
            continue
        done[s] = True
        order.append(s)
        for v in flow.uses[s]:
            left[v] -= 1
            if left[v] == 1:
                last_user(v)
        for t in flow.next[s]:
            missing[t] -= 1
            if not missing[t]:
                age[t] = len(order)
                offer(t)
    return order


@dataclass(frozen=True, slots=True)
class _State:
    """A set of finished steps, as a mask, with the cheapest way found to reach it."""

    done: int
    ready: tuple[int, ...]
    live: int
    peak: int
    step: int
    parent: _State | None


def _search(flow: _Flow, floor: int, peak: int, effort: int) -> list[int]:
    """The best order below `peak` that a search over sets of finished steps finds, or nothing.

    Level k holds sets of k steps.  A step that neither raises the peak nor leaves more bytes alive
    than before is taken at once, since putting it off can never help.  Each level keeps its
    cheapest sets, as many as their share of `effort` allows to extend.
    """
    count = len(flow.steps)
    ready = tuple(s for s, needed in enumerate(flow.before) if not needed)
    level = [_State(0, ready, flow.base, max(floor, flow.base), -1, None)]
    for k in range(count):
        found: dict[int, _State] = {}
        for state in level:
            effort -= _expand(flow, state, peak, found)
        level = []
        share = effort // (count - k)
        for state in sorted(found.values(), key=lambda state: (state.peak, state.live)):
            grown = _with_ready(flow, state)
            share -= len(grown.ready)
            if level and share < 0:
                break
            level.append(grown)
    return _trace(level[0]) if level else []


def _expand(flow: _Flow, state: _State, limit: int, found: dict[int, _State]) -> int:
    """Adds the extensions of `state` with a peak below `limit`; returns the work spent."""
    options = []
    for s in state.ready:
        running, grown = flow.extend(s, state.done)
        peak = max(state.peak, state.live + running)
        if grown <= 0 and peak == state.peak:
            options = [(s, peak, grown)]
            break
        options.append((s, peak, grown))
    for s, peak, grown in options:
        done, live = state.done | 1 << s, state.live + grown
        known = found.get(done)
        if peak < limit and (known is None or peak < known.peak):
            found[done] = _State(done, (), live, peak, s, state)
    return len(state.ready)


def _with_ready(flow: _Flow, state: _State) -> _State:
    """Fills in the steps that can run next, which only the sets that are kept need."""
    assert state.parent is not None
    masks, done = flow.before_masks, state.done
    ready = tuple(s for s in state.parent.ready if s != state.step)
    ready += tuple(t for t in flow.next[state.step] if masks[t] & done == masks[t])
    return _State(done, ready, state.live, state.peak, state.step, state.parent)


def _trace(state: _State) -> list[int]:
    order = []
    at: _State | None = state
    while at is not None and at.parent is not None:
        order.append(at.step)
        at = at.parent
    return order[::-1]
