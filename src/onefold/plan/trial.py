"""A program that computes single steps of another one in several ways, one after another, so that
they can be timed: each with the epilogue, the layouts and the weights that it has there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onefold.codegen.family import Choice
from onefold.ir import dtypes
from onefold.ir.graph import Array
from onefold.plan.assemble import Assembler
from onefold.plan.memory import align
from onefold.plan.numbers import settle
from onefold.plan.program import Buffer, Program, Step
from onefold.plan.render import Draft, render
from onefold.plan.schedule import generic_index
from onefold.plan.spaces import Arena

SETTLE = 3  # by then a step takes as long as when it is repeated further; the first one 15 % longer


def alternatives(draft: Draft, offers: Sequence[Choice]) -> list[Choice]:
    """Those of the offers that compute a step from the same values, epilogue included."""
    assert draft.choice is not None and draft.expr is not None
    _, index = generic_index(draft.expr.shape)
    value = draft.expr(*index)
    draft.expr._cache.clear()
    reads = {id(v) for v in draft.choice.reads}
    return [c for c in offers if {id(v) for v in c.reads} == reads and c.takes_epilogue(value)]


class Trial:
    """Made of steps of a planned program, which cannot be written as C any more: its buffers get
    places of their own, inputs and outputs in the arena, so that every step finds what it reads.

    warm: each way runs twice, and the second time counts.
    """

    def __init__(self, program: Program, assembler: Assembler, warm: bool) -> None:
        self.program, self.assembler, self.warm = program, assembler, warm
        self.own = Assembler(assembler.kernels)
        self.steps: list[Step] = []

    def add(self, step: Step, choices: Sequence[Choice]) -> list[int]:
        """The numbers of the steps that are to be timed, one for each way."""
        # Some more first, with weights of their own, so that the first that counts finds its input
        # in the caches as the others do, and its weights not.
        self.steps += [self._step(step, choices[0]) for _ in range(SETTLE)]
        numbers = []
        for c in choices:
            s = self._step(step, c)
            self.steps += [s, s] if self.warm else [s]
            numbers.append(len(self.steps) - 1)
        return numbers

    def _step(self, step: Step, choice: Choice) -> Step:
        """The step by another kernel."""
        old = self.assembler.drafts[id(step)]
        draft = replace(old, choice=choice, packed=[], scratch=None)
        made = self.own.step(draft, draft.ins, draft.outs, step.origin, choice.node)
        made.algorithm = choice.name
        return made

    @property
    def bytes(self) -> int:
        return sum(b.bytes for b in self._roots())

    def _roots(self) -> list[Buffer]:
        found = {id(b.root): b.root for s in self.steps for b in (*s.reads, *s.writes)}
        return list(found.values())

    def finish(self) -> tuple[Program, Array]:
        """The program, and what its arena holds before a call."""
        roots = self._roots()
        weights = arena = 0
        for b in roots:
            if b.kind == "const":
                b.offset, weights = weights, align(weights + b.bytes)
            else:
                b.kind = "arena"
                b.offset, arena = arena, align(arena + b.bytes)
        options = self.assembler.kernels.options
        threads = options.threads
        own = list({id(s): s for s in self.steps}.values())
        for s in own:
            render(s, self.own.drafts[id(s)], threads)
        settle(own, options.goal == "size")
        made = Program("trial", self.program.graph, [], [], [], list(self.steps), [], [], roots)
        made.arenas = [Arena("", arena, arena, "apart")]
        made.arena_bytes, made.weights_bytes = arena, weights
        made.threads = threads if any(s.kernel.split for s in self.steps) else 1
        return made, _contents([b for b in roots if b.kind == "arena"], arena)


def _contents(roots: Sequence[Buffer], size: int) -> Array:
    """Numbers as a network has them; zeros where they could be indices."""
    rng = np.random.Generator(np.random.PCG64(0))
    image = np.zeros(size, np.uint8)
    for b in roots:
        if b.type.dtype is dtypes.f32:
            part = rng.uniform(-1, 1, b.bytes // 4).astype(np.float32).view(np.uint8)
        elif b.type.dtype in (dtypes.i8, dtypes.u8):
            part = rng.integers(0, 256, b.bytes, np.uint8)
        else:
            continue
        image[b.offset : b.offset + part.size] = part
    return image
