"""Decisions: what is computed where, by which kernel, in which order, and where it lies."""

from __future__ import annotations

from onefold import events, knobs
from onefold.codegen.family import KernelChoice
from onefold.defects import defects
from onefold.errors import MemoryLimitError
from onefold.ir.graph import Graph
from onefold.options import DEFAULTS, Options
from onefold.passes.pipeline import specialise
from onefold.plan.assemble import assemble
from onefold.plan.budget import spend
from onefold.plan.memory import arrange, place
from onefold.plan.program import Program
from onefold.target import Target


def plan(graph: Graph, target: Target, options: Options = DEFAULTS) -> Program:
    """The program of a graph on a target. Raises PlanError, MemoryLimitError."""
    specialise(graph, target, options)
    with defects("planning"):
        kernels = KernelChoice(target, options)
        spend(graph, kernels)
        program, assembler = assemble(graph, kernels)
        arrange(program, assembler.drafts)
        assembler.render(program)
        place(program, target)
        program.asked = assembler.kernels.asked
    check_size(program)
    events.emit("plan", program=program, assembler=assembler)
    return program


def check_size(program: Program) -> None:
    """Raises MemoryLimitError, naming the largest buffer, where running would take too much."""
    limit = knobs.MEMORY_LIMIT.get()
    for what, kind, total in (("intermediate results", "arena", program.arena_bytes),
                              ("constants", "const", program.weights_bytes),
                              ("states", "state", program.state_bytes)):  # fmt: skip
        if total > limit:
            largest = max((b for b in program.buffers if b.kind == kind), key=lambda b: b.bytes)
            raise MemoryLimitError(
                f"the {what} of the model take {total} bytes, more than the limit of {limit}",
                where=f"layer '{largest.name}'",
                why=f"the largest of them is {largest.type!r} with {largest.bytes} bytes",
            )  # fmt: skip
