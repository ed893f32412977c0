"""Which kernels are the fastest, measured: every layer's ways side by side on the machine."""

from __future__ import annotations

import ctypes
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from onefold import events
from onefold.codegen.family import Choice, kernel_of, signature
from onefold.dev.measure import Times
from onefold.dev.survey import Planned, Survey, plan_parts
from onefold.options import Options
from onefold.plan.trial import Trial, alternatives
from onefold.run import tuned

if TYPE_CHECKING:
    from onefold.ir.graph import Array, Graph
    from onefold.plan.program import Program, Step
    from onefold.target import Target

MOST = 12  # ways of a layer that are measured
HOPELESS = 3.0  # times the lowest estimate, from which a kernel's tiles are left out but for one
TOGETHER = 24  # ways in one program
ROOM = 1 << 28  # bytes of one program's memory
ROUNDS, LEAST, LIMIT = 25, 5, 1.5  # rounds of one program; seconds that end them early
BUSY = 0.1  # spread of the times from which something else is running
EVICTED = 1 << 26  # most bytes that are touched between two rounds


class Runner(Protocol):
    """Where kernels are measured."""

    def times(self, program: Program, image: Array, evict: int) -> list[list[float]]:
        """Seconds of each step, round by round. image: contents of the arena before each call;
        evict: bytes that a call of the real network touches, which push out what caches still hold
        of the last."""


@dataclass(frozen=True)
class Layer:
    """The ways to compute some layers that are alike. pick: what the planner takes by estimates;
    times: of those measured; cost: estimated cycles of all of the layers."""

    name: str
    node: str
    count: int
    pick: str
    cost: float
    times: Mapping[str, float]
    fresh: bool = False

    @property
    def best(self) -> str:
        return min(self.times, key=lambda k: self.times[k])

    @property
    def gain(self) -> float:
        """How many times longer the pick takes than the fastest."""
        return self.times[self.pick] / self.times[self.best]


@dataclass
class Task:
    """A node whose kernels are to be measured, and the first step that it stands for."""

    node: str
    step: Step
    planned: Planned
    pick: Choice
    ways: list[Choice]
    count: int = 1

    @property
    def cost(self) -> float:
        return self.pick.cost * self.count


@dataclass
class Result:
    """layers: those measured, now or before; left: how many the budget did not reach; alone: how
    many have one kernel only; open: how many have sizes that are not known; spreads: distances of
    the quartiles of what was measured now, as shares of the medians."""

    layers: list[Layer] = field(default_factory=list)
    left: int = 0
    alone: int = 0
    open: int = 0
    spreads: list[float] = field(default_factory=list)

    @property
    def busy(self) -> bool:
        """Whether something else kept the machine from measuring."""
        return bool(self.spreads) and statistics.median(self.spreads) > BUSY

    @property
    def loss(self) -> float:
        """Geometric mean, over layers, of the time of the pick over that of the fastest."""
        if not self.layers:
            return 1.0
        logs = [math.log(y.gain) * y.count for y in self.layers]
        return math.exp(sum(logs) / sum(y.count for y in self.layers))

    @property
    def picked(self) -> float:
        return sum(y.count * y.times[y.pick] for y in self.layers)

    @property
    def fastest(self) -> float:
        return sum(y.count * y.times[y.best] for y in self.layers)


def tune(
    graph: Graph, name: str, target: Target, options: Options, budget: float, runner: Runner,
    again: bool = False, clock: Callable[[], float] = time.perf_counter,
) -> Result:  # fmt: skip
    """Measures the kernels of an optimised graph for at most about `budget` seconds, the costliest
    layers first, and remembers them. again: also what is known already."""
    begin = clock()
    survey = Survey(graph, target)
    plan_parts(survey, options)
    result = Result()
    tasks = [t for p in survey.planned for t in _tasks(p, options, result)]
    machine = tuned.machine(target)
    known = {} if again else tuned.table().records
    waiting: list[Task] = []
    for t in sorted(tasks, key=lambda t: -t.cost):
        record = known.get((machine, t.node))
        if record is not None and {c.name for c in t.ways} <= record.times.keys():
            result.layers.append(_layer(t, record.times, fresh=False))
        else:
            waiting.append(t)
    touched = sum(p.program.weights_bytes + p.program.arena_bytes for p in survey.planned)
    warm = touched <= (target.caches[1] if len(target.caches) > 1 else 0)
    with events.Progress(f"tuning {name}", sum(len(t.ways) for t in waiting)) as progress:
        while waiting and clock() - begin < budget:
            group, trial, numbers = _group(waiting, warm)
            del waiting[: len(group)]
            program, image = trial.finish()
            rounds = runner.times(program, image, 0 if warm else min(touched, EVICTED))
            times = [Times(tuple(r)) for r in zip(*rounds, strict=True)]
            result.spreads += [t.spread for t in times]
            found = [
                {c.name: times[k].median for c, k in zip(t.ways, ks, strict=True)}
                for t, ks in zip(group, numbers, strict=True)
            ]
            records = [tuned.Record(machine, t.node, f)
                       for t, f in zip(group, found, strict=True)]  # fmt: skip
            tuned.add(records)
            result.layers += [_layer(t, f, fresh=True)
                              for t, f in zip(group, found, strict=True)]  # fmt: skip
            progress.step("", sum(len(t.ways) for t in group))
    result.left = sum(t.count for t in waiting)
    result.layers.sort(key=lambda y: -y.count * y.times[y.pick])
    return result


def _layer(t: Task, times: Mapping[str, float], fresh: bool) -> Layer:
    ours = {c.name: times[c.name] for c in t.ways}
    return Layer(str(t.step.origin) or t.step.op, t.node, t.count, t.pick.name, t.cost, ours,
                 fresh)  # fmt: skip


def _tasks(planned: Planned, options: Options, result: Result) -> list[Task]:
    """The nodes with several kernels, those alike once."""
    kernels = planned.assembler.kernels
    found: dict[str, Task] = {}
    for step in planned.program.flat():
        draft = planned.assembler.drafts[id(step)]
        if draft.choice is None:
            continue
        node = draft.choice.node
        ways = _promising(alternatives(draft, kernels.offers(node)), draft.choice)
        name = signature(node, kernels.target, options)
        if step.sizes or step.kernel.stops:
            result.open += 1
        elif len(ways) < 2:
            result.alone += 1
        elif name in found:
            found[name].count += 1
        else:
            found[name] = Task(name, step, planned, draft.choice, ways)
    return list(found.values())


def _promising(offers: Sequence[Choice], pick: Choice) -> list[Choice]:
    """The cheapest by estimate, the cheapest of each kernel, and what the planner takes."""
    firsts = {kernel_of(c): c for c in reversed(offers)}
    kept = [c for c in offers[:MOST] if c.cost <= HOPELESS * offers[0].cost]
    found = {c.name: c for c in (*kept, *firsts.values(), pick)}
    return sorted(found.values(), key=lambda c: c.cost)


def _group(waiting: Sequence[Task], warm: bool) -> tuple[list[Task], Trial, list[list[int]]]:
    """The next nodes that are measured together, all of one plan."""
    planned = waiting[0].planned
    trial = Trial(planned.program, planned.assembler, warm)
    group: list[Task] = []
    numbers: list[list[int]] = []
    for t in waiting:
        ways = sum(len(g.ways) for g in group)
        if group and (ways + len(t.ways) > TOGETHER or trial.bytes > ROOM):
            break
        if t.planned is not planned:
            break
        numbers.append(trial.add(t.step, t.ways))
        group.append(t)
    return group, trial, numbers


@dataclass(frozen=True)
class HostRunner:
    """Measures in this process."""

    target: Target
    options: Options

    def times(self, program: Program, image: Array, evict: int) -> list[list[float]]:
        from onefold.dev.profile import ticks_per_second
        from onefold.run.building import build
        from onefold.run.library import Call
        from onefold.run.session import Loaded

        with tempfile.TemporaryDirectory(prefix="onefold-tune-") as folder:
            level = self.options.level(self.target)
            loaded = Loaded(
                build(program, self.target, Path(folder), optimize=level, profile=True,
                      flags=self.options.flags)
            )  # fmt: skip
            arena = loaded.arenas.take()
            call = Call(loaded.library, arena, loaded.weights, None, [], [])
            others = np.zeros(evict, np.uint8)
            counts: list[list[int]] = []  # the first round is no measurement
            end = time.perf_counter() + LIMIT
            while len(counts) < LEAST or (len(counts) < ROUNDS and time.perf_counter() < end):
                ctypes.memmove(arena.address, image.ctypes.data, image.nbytes)
                if evict:
                    others.max()
                loaded.ticks()
                call()
                counts.append(loaded.ticks()[:-1])
            (rate,) = ticks_per_second(lambda: loaded.ticks()[-1:])
        return [[max(c, 1) / rate for c in r] for r in counts[1:]]
