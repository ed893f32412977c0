"""The arena of a planned program over time, for the drawings of `plan.picture`."""

from __future__ import annotations

from onefold.plan.arena import ArenaPlan, Block
from onefold.plan.memory import timeline
from onefold.plan.picture import picture, svg
from onefold.plan.program import ALIGN, Program


def blocks_of(program: Program) -> tuple[list[Block], ArenaPlan, dict[int, str]]:
    """Blocks with their lifetimes in steps, the plan that placed them, and their names."""
    times = timeline(program.steps)
    roots = [
        b for b in program.buffers
        if b.kind == "arena" and b.parent is None and b.bytes and id(b) in times.first
    ]  # fmt: skip
    blocks = [
        Block(k, b.bytes, times.first[id(b)], times.last[id(b)], ALIGN) for k, b in enumerate(roots)
    ]
    plan = ArenaPlan(
        {k: b.offset for k, b in enumerate(roots)}, program.arena_bytes,
        program.arena_lower_bound, program.arena_algorithm,
    )  # fmt: skip
    return blocks, plan, {k: b.name for k, b in enumerate(roots)}


def text(program: Program, width: int = 72, height: int = 40) -> str:
    """The arena over time as text."""
    blocks, plan, labels = blocks_of(program)
    return picture(blocks, plan, width, height, labels)


def drawing(program: Program, width: int = 900, height: int = 500) -> str:
    """The arena over time as SVG."""
    blocks, plan, labels = blocks_of(program)
    return svg(blocks, plan, width, height, labels)
