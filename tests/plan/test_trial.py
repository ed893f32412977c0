"""Programs that compute a step in several ways: who reads and writes what."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from onefold import events, plan
from onefold.ir import dtypes
from onefold.ir.graph import Builder, Graph, Origin, Value
from onefold.ir.types import TensorType
from onefold.ops.activation import Relu
from onefold.ops.conv import Conv
from onefold.plan.assemble import Assembler
from onefold.plan.program import Program, Step
from onefold.plan.trial import Trial, alternatives
from onefold.target import find


def planned() -> tuple[Program, Assembler]:
    """Two convolutions with an epilogue each."""
    rng = np.random.default_rng(0)
    graph = Graph("net")
    b = Builder(graph, Origin(("net",)), fold=False)
    x = Value("x", TensorType((1, 16, 14, 14), dtypes.f32))
    graph.inputs.append(x)
    for _ in range(2):
        w = b.const(rng.normal(size=(16, 16, 3, 3)).astype(np.float32))
        x = b.op(Relu(), b.op(Conv(pads=(1, 1, 1, 1)), x, w, None))
    graph.outputs.append(x)
    with events.collected() as heard:
        program = plan.plan(graph, find("x86-64-v3"))
    return program, next(e.facts["assembler"] for e in heard if e.kind == "plan")


def trial(warm: bool) -> tuple[Program, list[list[int]], list[list[str]]]:
    program, assembler = planned()
    made = Trial(program, assembler, warm)
    numbers, names = [], []
    for s in program.flat():
        draft = assembler.drafts[id(s)]
        if draft.choice is None:
            continue
        ways = alternatives(draft, assembler.kernels.offers(draft.choice.node))
        assert len(ways) > 2
        numbers.append(made.add(s, ways))
        names.append([c.name for c in ways])
    return made.finish()[0], numbers, names


def weights(s: Step) -> set[int]:
    return {id(b.root) for b in s.reads if b.root.kind == "const"}


def test_each_way_is_there_once_with_weights_of_its_own() -> None:
    program, numbers, names = trial(warm=False)
    steps = list(program.flat())
    for some, wanted in zip(numbers, names, strict=True):
        assert [steps[k].algorithm for k in some] == wanted
        for k in some:
            others = [s for i, s in enumerate(steps) if i != k]
            assert weights(steps[k]) and not any(weights(steps[k]) & weights(s) for s in others)


def test_where_a_call_finds_its_weights_in_a_cache_each_way_runs_twice() -> None:
    program, numbers, _ = trial(warm=True)
    steps = list(program.flat())
    for k in (k for some in numbers for k in some):
        assert steps[k] is steps[k - 1]


def test_the_ways_of_a_step_read_and_write_the_same_and_nothing_overlaps() -> None:
    program, numbers, _ = trial(warm=False)
    steps = list(program.flat())
    for some in numbers:
        ends = {(steps[k].reads[0].root.offset, steps[k].writes[0].root.offset) for k in some}
        assert len(ends) == 1
    for kind, size in (("arena", program.arena_bytes), ("const", program.weights_bytes)):
        places = sorted((b.offset, b.offset + b.bytes) for b in program.buffers if b.kind == kind)
        assert places and places[-1][1] <= size
        assert all(a[1] <= b[0] for a, b in pairwise(places))
    assert not program.inputs and not program.outputs


def test_what_it_reads_is_there() -> None:
    program, assembler = planned()
    step = next(s for s in program.flat() if assembler.drafts[id(s)].choice)
    made = Trial(program, assembler, warm=False)
    draft = assembler.drafts[id(step)]
    assert draft.choice is not None
    made.add(step, [draft.choice])
    found, image = made.finish()
    assert image.nbytes == found.arena_bytes
    x = draft.ins[0].root
    values = image[x.offset : x.offset + x.bytes].view(np.float32)
    assert np.isfinite(values).all() and 0.3 < values.std() < 0.8
