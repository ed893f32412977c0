"""Which memory of a machine each buffer of the arena lies in.

Memories come in the target's order, the fastest first. A buffer stays in the first one unless
that overflows; then what is touched least often, the largest first, moves on to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onefold.errors import PlanError
from onefold.plan.arena import ArenaPlan, Block, plan_arena
from onefold.plan.arena import verify as verify_arena
from onefold.plan.program import ALIGN, Buffer, Program
from onefold.target import Target

STACK = 8192  # bytes kept free in the first memory for the stack


@dataclass(frozen=True, slots=True)
class Arena:
    """One memory's share: its name ("" for a machine with one), bytes, their lower bound, and
    how the plan was found."""

    space: str
    bytes: int
    lower_bound: int
    algorithm: str


def place_arenas(
    program: Program, target: Target, roots: Sequence[Buffer], blocks: Sequence[Block]
) -> list[Arena]:
    """Offsets and spaces for all buffers of the arena; one `Arena` for each memory in use.

    Raises PlanError where a machine without a heap has no room for them.
    """
    whole = _plan(roots, blocks)
    rooms = _rooms(program, target)
    if not rooms or whole.size <= rooms[0][1]:
        return [Arena("", whole.size, whole.lower_bound, whole.algorithm)]
    left = list(zip(roots, blocks, strict=True))
    arenas = []
    for name, room in rooms:
        here, left = _fit(program, left, room)
        plan = _plan([b for b, _ in here], [k for _, k in here])
        for b, _ in here:
            b.space = name
        arenas.append(Arena(name, plan.size, plan.lower_bound, plan.algorithm))
        if not left:
            break
    if left:
        largest = max((b for b, _ in left), key=lambda b: b.bytes)
        raise PlanError(
            f"the model's buffers do not fit into the memory of '{target.name}'",
            where=f"layer '{largest.name}'",
            why=f"they take {whole.size} bytes at once; there is room for "
            + ", ".join(f"{room} in '{name}'" for name, room in rooms)
            + f" beside the inputs, outputs, states and {STACK} bytes of stack",
            remedy="Use a smaller input (--shape, --dim), a smaller or integer model, or a "
            "device with more memory.",
            kind=PlanError.FIT,
        )
    return arenas


def _rooms(program: Program, target: Target) -> list[tuple[str, int]]:
    """The RAM of a machine without a heap: (name, bytes left for the arena)."""
    if target.has_heap:
        return []
    ports = sum(p.buffer.bytes + ALIGN for p in (*program.inputs, *program.outputs))
    states = sum(b.bytes for _, b, _ in program.states)
    rooms = [(m.name, m.size - ALIGN) for m in target.memories if m.kind == "ram"]
    if rooms:
        rooms[0] = (rooms[0][0], max(rooms[0][1] - ports - states - STACK, 0))
    return rooms


Placed = list[tuple[Buffer, Block]]


def _fit(program: Program, wanted: Placed, room: int) -> tuple[Placed, Placed]:
    """What stays in a memory with this much room, and what must go elsewhere."""
    touched: dict[int, int] = {}
    for s in program.flat():
        for b in (*s.reads, *s.writes):
            touched[id(b.root)] = touched.get(id(b.root), 0) + 1
    order = sorted(wanted, key=lambda w: (touched.get(id(w[0]), 0), -w[0].bytes))
    away: Placed = []
    while order and plan_arena([k for _, k in order]).size > room:
        away.append(order.pop(0))
    return order, away


def _plan(roots: Sequence[Buffer], blocks: Sequence[Block]) -> ArenaPlan:
    plan = plan_arena(blocks)
    verify_arena(blocks, plan)
    for b, k in zip(roots, blocks, strict=True):
        b.offset = plan.offsets[k.id]
    return plan
