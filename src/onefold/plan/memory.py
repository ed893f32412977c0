"""Live ranges, work in place, and places in memory."""

from __future__ import annotations

from collections.abc import Sequence

from onefold.codegen.loops import address
from onefold.ir.scalar import Load, walk
from onefold.plan.arena import Block, lower_bound
from onefold.plan.order import Step as OrderStep
from onefold.plan.order import choose_order
from onefold.plan.program import ALIGN, AnyStep, Buffer, IfStep, LoopStep, Program, Step
from onefold.plan.render import Draft
from onefold.plan.schedule import generic_index
from onefold.plan.spaces import place_arenas
from onefold.target import Target


def align(n: int) -> int:
    return -(-n // ALIGN) * ALIGN


class Timeline:
    """When each root buffer is first and last touched. A loop's body runs again, so what it
    touches of the world outside lives through all of it."""

    def __init__(self) -> None:
        self.first: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self.roots: dict[int, Buffer] = {}
        self.now = 0
        self.at: dict[int, int] = {}  # id(step) -> time
        self.loops: list[tuple[int, int]] = []

    def touch(self, b: Buffer, time: int) -> None:
        r = b.root
        self.roots[id(r)] = r
        self.first[id(r)] = min(self.first.get(id(r), time), time)
        self.last[id(r)] = max(self.last.get(id(r), time), time)

    def block(self, steps: Sequence[AnyStep]) -> None:
        for s in steps:
            if isinstance(s, Step):
                self.at[id(s)] = self.now
                for b in (*s.reads, *s.writes):
                    self.touch(b, self.now)
                self.now += 1
            elif isinstance(s, IfStep):
                self.touch(s.cond, self.now)
                self.now += 1
                self.block(s.then)
                self.block(s.otherwise)
            else:
                self._loop(s)

    def _loop(self, s: LoopStep) -> None:
        outside = set(self.first)
        start = self.now
        for b in (s.cond, s.counter, s.trips if isinstance(s.trips, Buffer) else None):
            if b is not None:
                self.touch(b, start)
        self.now += 1
        self.block(s.body)
        end = self.now
        self.now += 1
        touched = {i for i in self.first if self.last[i] >= start}
        for b in (s.cond, s.counter):
            if b is not None:
                self.touch(b, end)
        for i in touched & outside:
            self.last[i] = max(self.last[i], end)
        self.loops.append((start, end))

    def settle(self) -> None:
        """What a loop fills turn by turn for those after it must not be touched from its first
        turn on."""
        for start, end in self.loops:
            for i, first in self.first.items():
                if start < first <= end < self.last[i]:
                    self.first[i] = start


def timeline(steps: Sequence[AnyStep]) -> Timeline:
    t = Timeline()
    t.block(steps)
    t.settle()
    return t


def arrange(program: Program, drafts: dict[int, Draft]) -> None:
    """Choose the order of the steps and what works in place: whichever order, the given one or
    the one found, has the lower bound for the arena."""
    given = list(program.steps)
    found = _found_order(program, drafts)  # before buffers are shared: each has one writer
    merged = work_in_place(program, drafts)
    file_bound = live_bound(program)
    program.file_order_bound = file_bound
    if found is None or found == given:
        return
    _undo(merged)
    program.steps = found
    merged = work_in_place(program, drafts)
    if live_bound(program) >= file_bound:
        _undo(merged)
        program.steps = given
        work_in_place(program, drafts)


def _undo(merged: Sequence[Buffer]) -> None:
    for b in merged:
        b.parent, b.offset = None, 0


def live_bound(program: Program) -> int:
    """The largest sum of aligned bytes alive at once."""
    return lower_bound(_blocks(program, timeline(program.steps))[1])


def _found_order(program: Program, drafts: dict[int, Draft]) -> list[AnyStep] | None:
    """An order with a low peak, or None where data-dependent sizes tie the steps together."""
    if program.found or len(program.steps) < 3:
        return None
    steps = [s for s in program.steps if isinstance(s, Step)]
    if len(steps) != len(program.steps) or _parts_read_early(steps):
        return None
    index: dict[int, int] = {}
    values: list[int] = []

    def number(b: Buffer) -> int:
        r = b.root
        if id(r) not in index:
            index[id(r)] = len(values)
            values.append(align(r.bytes) if r.kind == "arena" else 0)
        return index[id(r)]

    moves = ("arena", "output")
    made = []
    readers: dict[int, list[int]] = {}
    for k, s in enumerate(steps):
        after: list[int] = []
        for b in s.writes:
            if b.root.kind == "state":
                after += readers.get(id(b.root), [])
        for b in s.reads:
            if b.root.kind == "state":
                readers.setdefault(id(b.root), []).append(k)
        reads = tuple(dict.fromkeys(number(b) for b in s.reads if b.root.kind in moves))
        writes = tuple(dict.fromkeys(number(b) for b in s.writes if b.root.kind in moves))
        reads = tuple(r for r in reads if r not in writes)
        hints = []
        if writes and s.writes[0].root.kind == "arena" and s.writes[0].parent is None:
            for b in _overwritable(s, drafts[id(s)]):
                if b.parent is None and b.kind == "arena" and b.bytes >= s.writes[0].bytes:
                    hints.append((number(b), number(s.writes[0])))
        made.append(OrderStep(reads, writes, tuple(hints), tuple(after)))
    outs = {index[id(p.buffer.root)] for p in program.outputs if id(p.buffer.root) in index}
    order = choose_order(made, values, (), outs)
    return [steps[k] for k in order.steps]


def _parts_read_early(steps: Sequence[Step]) -> bool:
    """Whether a step reads one part of a buffer before another part is written: as one value, the
    buffer would be read before it is complete."""
    last = {id(b.root): k for k, s in enumerate(steps) for b in s.writes}
    return any(last.get(id(b.root), -1) > k for k, s in enumerate(steps) for b in s.reads)


def work_in_place(program: Program, drafts: dict[int, Draft]) -> list[Buffer]:
    """Let a step write over an input that nobody reads after it, where each element is read
    only to compute the element that takes its place. Returns the buffers that gave up their own
    memory."""
    merged: list[Buffer] = []
    times = timeline(program.steps)
    inside = _loop_members(program.steps)
    for s in program.flat():
        if len(s.writes) < 1 or id(s) in inside:
            continue
        draft = drafts[id(s)]
        out = s.writes[0]
        if out.parent is not None or out.kind != "arena":
            continue
        now = times.at[id(s)]
        if times.first[id(out)] != now:
            continue
        for b in _overwritable(s, draft):
            r = b.root
            fits = b.parent is None and r.kind == "arena" and r.bytes >= out.bytes
            if fits and times.last[id(r)] == now and times.first[id(r)] < now:
                out.parent, out.offset = r, 0
                times.last[id(r)] = times.last[id(out)]
                merged.append(out)
                break
    return merged


def _loop_members(steps: Sequence[AnyStep]) -> set[int]:
    out: set[int] = set()
    for s in steps:
        if isinstance(s, LoopStep):
            out |= _all_ids(s.body)
        elif isinstance(s, IfStep):
            out |= _all_ids(s.then) | _all_ids(s.otherwise)
    return out


def _all_ids(steps: Sequence[AnyStep]) -> set[int]:
    from onefold.plan.program import flat

    return {id(s) for s in flat(steps)}


def _overwritable(s: Step, draft: Draft) -> list[Buffer]:
    if draft.code is not None:
        assert draft.node is not None
        present = [i for i, v in enumerate(draft.node.inputs) if v is not None]
        return [
            draft.ins[present.index(i)] for o, i in draft.code.inplace if o == 0 and i in present
        ]
    if draft.expr is None or draft.start is not None:
        return []
    whole = set() if draft.choice is None else {id(v) for v in draft.choice.reads}
    _, index = generic_index(draft.expr.shape)
    value = draft.expr(*index)
    draft.expr._cache.clear()
    target = address(draft.out.tensor, index)
    bad: set[int] = set(whole)
    for n in walk(value):
        if isinstance(n, Load):
            same = address(n.value.tensor, n.index) == target
            kinds = n.value.tensor.memory.ctype, draft.out.tensor.memory.ctype
            if not same or kinds[0] != kinds[1]:  # one C pointer for both
                bad.add(id(n.value))
    good = [b for v, b in zip(draft.reads, draft.ins, strict=True) if id(v) not in bad]
    blocked = {id(b.root) for v, b in zip(draft.reads, draft.ins, strict=True) if id(v) in bad}
    return [b for b in good if id(b.root) not in blocked]


def place(program: Program, target: Target) -> None:
    """Offsets for everything: the arena by live ranges, in one or several memories; constants
    and states one after another."""
    roots, blocks = _blocks(program, timeline(program.steps))
    program.arena_lower_bound = lower_bound(blocks)
    program.arenas = place_arenas(program, target, roots, blocks)
    program.arena_bytes = sum(a.bytes for a in program.arenas)
    program.weights_bytes = _line_up(program, "const")
    program.state_bytes = _line_up(program, "state")


def _blocks(program: Program, times: Timeline) -> tuple[list[Buffer], list[Block]]:
    """What the planner of the arena is asked to place, and the buffers behind it."""
    roots = [b for b in program.buffers if b.kind == "arena" and b.parent is None and b.bytes]
    roots = [b for b in roots if id(b) in times.first]
    return roots, [
        Block(k, b.bytes, times.first[id(b)], times.last[id(b)], ALIGN)
        for k, b in enumerate(roots)
    ]


def _line_up(program: Program, kind: str) -> int:
    used = {id(b.root) for s in program.flat() for b in (*s.reads, *s.writes)}
    at = 0
    for b in program.buffers:
        if b.kind == kind and b.parent is None and (kind == "state" or id(b) in used):
            b.offset = at
            at = align(at + b.bytes)
    return at
