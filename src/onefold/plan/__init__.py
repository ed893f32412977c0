"""Decisions: what is computed where, by which kernel, in which order, and where it lies."""

from __future__ import annotations

from onefold import events
from onefold.codegen.family import KernelChoice
from onefold.ir.graph import Graph
from onefold.passes.pipeline import specialise
from onefold.plan.assemble import assemble
from onefold.plan.memory import arrange, place
from onefold.plan.program import Program
from onefold.target import Target


def plan(graph: Graph, target: Target) -> Program:
    """The program of a graph on a target. Raises PlanError, Refusal."""
    specialise(graph, target)
    program, assembler = assemble(graph, KernelChoice(target))
    arrange(program, assembler.drafts)
    assembler.render(program.steps)
    place(program)
    events.emit("plan", program=program, assembler=assembler)
    return program
