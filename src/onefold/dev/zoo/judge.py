"""One model against its referee: every output of every call, accuracy, memory, time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import onefold
from onefold import events
from onefold.dev import peers
from onefold.dev.budget import (
    SHARES,
    SLIVER,
    bounded,
    budget_of,
    rounded_from_float,
    steps_of,
)
from onefold.dev.budget import measure as distance
from onefold.dev.compare import Referee, referee
from onefold.dev.measure import Call, interleaved
from onefold.dev.peers.reference import Evaluator
from onefold.dev.zoo import scores
from onefold.dev.zoo.inputs import Run, runs_of, settled
from onefold.dev.zoo.memory import Memory, memory, micro_bytes, plans
from onefold.dev.zoo.records import Record, records
from onefold.errors import AcceleratorModelError, OnefoldError
from onefold.forms import Wanted

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.forms import Program

Outputs = dict[str, Any]
ROUNDS = 7
TRIALS = 16
LAST_BIT = 1e-7  # of an input's range
FRAMES = 50  # of a stream that are run again with the states inside
MANY = 3  # samples on an edge that are believed


@dataclass
class Gauge:
    """One output over the calls of one kind: the largest difference and the referee's range."""

    worst: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    differ: int = 0
    size: int = 0
    least: float = 0.0  # of a range that counts
    problem: str = ""

    def add(self, ours: Any, theirs: Any) -> None:
        d = distance(ours, theirs)
        self.worst = max(self.worst, d.worst)
        self.differ += d.differ
        self.size += d.size
        self.problem = self.problem or d.problem
        finite = theirs[np.isfinite(theirs)] if theirs.dtype.kind == "f" else theirs
        if finite.size:
            self.low = min(self.low, float(finite.min()))
            self.high = max(self.high, float(finite.max()))

    @property
    def share(self) -> float:
        """Of the range; of the size where all values are the same."""
        span = max(self.high - self.low, self.least)
        return self.worst / (span or abs(self.high) or 1.0) if self.worst else 0.0


@dataclass
class Output:
    """One output of the model. exact: integers, which must be equal; budget: of floats, as a
    share of the range, or `step`, one step of the integers that they were last; rounded: whether
    a float was rounded to integers on the way; least: the least range that counts."""

    name: str
    exact: bool
    budget: float
    step: float = 0.0
    rounded: bool = False
    least: float = 0.0
    edges: list[str] = field(default_factory=list)
    gauges: dict[str, Gauge] = field(default_factory=dict)
    fast: list[float] = field(default_factory=list)
    """Largest differences from LiteRT's optimised kernels, and from XNNPACK."""
    same_class: int = 0
    other_class: int = 0
    ties: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        return max((g.share for g in self.gauges.values()), default=0.0)

    @property
    def worst(self) -> float:
        return max((g.worst for g in self.gauges.values()), default=0.0)

    @property
    def differ(self) -> int:
        return sum(g.differ for g in self.gauges.values())

    def problems(self) -> list[str]:
        found = [f"{self.name}: {g.problem}" for g in self.gauges.values() if g.problem]
        if self.exact and self.worst > 0:
            found.append(f"{self.name}: {self.differ:,} integers differ, by up to {self.worst:g}")
        if not self.exact and self.share > self.budget and self.worst > self.step:
            found.append(f"{self.name}: {self.share:.1e} of the range")
        if len(self.edges) > MANY:
            found.append(f"{self.name}: {len(self.edges)} samples on an edge")
        if self.other_class:
            found.append(f"{self.name}: {self.other_class} other classes")
        return found


@dataclass
class Row:
    """What became of one model."""

    file: str
    format: str
    variant: str = ""
    referee: str = ""
    refused: str = ""  # the error of a model compiled for an accelerator
    real: int = 0
    random: int = 0
    outputs: list[Output] = field(default_factory=list)
    accuracy: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    memory: Memory | None = None
    compile_s: float = 0.0
    ours_ms: float = 0.0
    theirs_ms: float = 0.0
    timed_against: str = ""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def name(self) -> str:
        return f"{self.file} ({self.variant})" if self.variant else self.file


@dataclass(frozen=True)
class Player:
    """A runtime with the model loaded: outputs by name for inputs by name."""

    call: Callable[[Mapping[str, Any]], Outputs]
    reset: Callable[[], None]


def judge(path: Path, data: Path, take: int = 0, timing: bool = True) -> Iterator[Row]:
    """A row for each record of a model. take: at most so many samples of each data set."""
    for variant, record in records(path.name).items():
        row = Row(path.name, path.parent.name, variant)
        try:
            _judge(row, path, record, data, take, timing)
        except AcceleratorModelError as e:
            row.refused = str(e.what)
        except (OnefoldError, peers.PeerRefuses) as e:
            row.problems.append(f"{type(e).__name__}: {e}".replace("\n", " "))
        yield row


def _judge(
    row: Row, path: Path, record: Record, data: Path, take: int, timing: bool
) -> None:  # fmt: skip
    model = onefold.load(path)
    ports = settled(model, Wanted.of(record.shapes, None, None, None))
    runs = runs_of(record, ports, data, take)
    first = next(runs)
    feeds = _first_feeds(first, record, ports)
    with events.collected() as heard:
        start = time.perf_counter()
        program = model.compile(shapes=record.shapes, fallback=False)
        program(feeds)
        row.compile_s = time.perf_counter() - start
    if plans(heard):  # none where it was in the cache
        row.memory = memory(plans(heard), micro_bytes(model))
        row.problems += row.memory.problems()
    refused = [f"{op} runs in NumPy: {why}" for _, op, _, why in program.report["refusals"]]
    row.problems += refused
    # The reference kernels define the integers of TFLite; ONNX Runtime is taken as it comes.
    found = referee(model) if row.format == "tflite" else _runtime(model)
    row.referee = found.peer.name
    row.notes += found.notes
    sides = [_ours(program), _theirs(model, found.running)]
    fast = _fast(model, found)
    sides += [_theirs(model, f) for f in fast]
    row.outputs = _outputs(model, feeds)
    _compare(row, record, [first, *runs], ports, sides)
    _explain(row, record, model, data, take, ports, program)
    if record.feedback:
        _tie(row, record, model, program, first, ports)
    if timing:
        _time(row, model, program, found, fast, feeds)


def _runtime(model: Model) -> Referee:
    peer = peers.suited(model.read.format)[0]
    return Referee(peer, peer.load(model), ())


def _fast(model: Model, found: Referee) -> list[peers.Running]:
    """LiteRT's optimised kernels, and as a user runs it, with XNNPACK."""
    if found.peer.name != "litert":
        return []
    from onefold.dev.peers.litert import Interpreter

    return [Interpreter(model, 1, False, delegates=False), found.peer.load(model)]


def _ours(program: Program) -> Player:
    return Player(program, program.reset)


def _theirs(model: Model, running: peers.Running) -> Player:
    names = [d.name for d in model.outputs]
    return Player(lambda feeds: dict(zip(names, running.run(feeds), strict=True)), running.reset)


# --- outputs --------------------------------------------------------------------------------------


def _first_feeds(run: Run, record: Record, ports: Mapping[str, Any]) -> dict[str, Any]:
    return {**_zeros(record, ports), **run.calls[0]}


def _zeros(record: Record, ports: Mapping[str, Any]) -> dict[str, Any]:
    return {n: np.zeros(ports[n].shape, ports[n].dtype) for n in record.feedback.values()}


def _play(run: Run, record: Record, ports: Mapping[str, Any], side: Player) -> Iterator[Outputs]:
    """Outputs call by call; each side goes on from its own states."""
    side.reset()
    states = _zeros(record, ports)
    for call in run.calls:
        outs = side.call({**states, **call})
        states = {into: outs[out] for out, into in record.feedback.items()}
        yield outs


def _compare(
    row: Row, record: Record, runs: Sequence[Run], ports: Mapping[str, Any],
    sides: Sequence[Player],
) -> None:  # fmt: skip
    measures = {n: scores.find(n) for n in record.score}
    tallies = {n: np.zeros((len(sides), 2)) for n in measures}
    for run in runs:
        kept: list[list[Outputs]] = [[] for _ in sides]
        for outs in zip(*(_play(run, record, ports, s) for s in sides), strict=True):
            _add(row, record, run, outs, sides[1])
            for k, o in enumerate(outs):
                kept[k].append(o)
        if run.kind == "real":
            row.real += len(run.calls)
        else:
            row.random += len(run.calls)
        if run.sample is None:
            continue
        for name, score in measures.items():
            for k, o in enumerate(kept):
                tallies[name][k] += score(o, run.sample, record)
    _accuracy(row, tallies)


def _add(
    row: Row, record: Record, run: Run, outs: Sequence[Outputs], judge: Player
) -> None:  # fmt: skip
    """One call's outputs: ours, the referee's, and those of its optimised kernels."""
    ours, theirs = outs[0], outs[1]
    classes = dict(record.classes)
    if not classes and set(record.score) & {"top1"}:
        classes[row.outputs[0].name] = -1
    for o in row.outputs:
        a, b = np.asarray(ours[o.name]), np.asarray(theirs[o.name])
        gauge = o.gauges.setdefault(run.kind, Gauge(least=o.least))
        if not (o.rounded and _off(o, a, b) and _on_edge(o, run, a, b, judge)):
            gauge.add(a, b)
        if o.name in classes and a.shape == b.shape:
            _classes(o, run, a, b, classes[o.name])
        fast = [distance(a, np.asarray(other[o.name])).worst for other in outs[2:]]
        o.fast = [max(pair) for pair in zip(fast, o.fast or fast, strict=True)]


def _outputs(model: Model, feeds: Mapping[str, Any]) -> list[Output]:
    graph = Evaluator(model).graph(feeds)
    found = []
    for d, v, step in zip(model.outputs, graph.outputs, steps_of(graph), strict=True):
        exact, rounded = not v.dtype.is_float, rounded_from_float(v)
        share = budget_of(v.dtype, model.read.format).share
        found.append(Output(d.name, exact, share, 0.0 if exact else step, rounded and not exact,
                            SLIVER / share if share and bounded(v) else 0.0))  # fmt: skip
    return found


def _off(o: Output, a: Any, b: Any) -> bool:
    d = distance(a, b)
    return d.share > o.budget and d.worst > o.step


def _on_edge(o: Output, run: Run, a: Any, b: Any, judge: Player) -> bool:
    """Whether the referee itself is as far from its own output, if an input changes by less than
    its last bit: then a float on the way lies on the edge between two integers."""
    if len(run.calls) != 1:
        return False
    call, worst = run.calls[0], distance(a, b)
    for seed in range(TRIALS):
        rng = np.random.Generator(np.random.PCG64(seed))
        moved = judge.call({n: _moved(x, rng) for n, x in call.items()})
        if distance(moved[o.name], b).worst >= worst.worst * 0.9:
            o.edges.append(f"{run.name}: {worst.share:.1e} of the range")
            return True
    return False


def _moved(x: Any, rng: np.random.Generator) -> Any:
    if x.dtype.kind != "f":
        return x
    return (x + rng.uniform(-1, 1, x.shape) * LAST_BIT * float(np.ptp(x))).astype(x.dtype)


def _classes(o: Output, run: Run, a: Any, b: Any, axis: int) -> None:
    """Whether the largest elements along an axis are the referee's; where not, whether its own
    margin is below the budget."""
    if a.shape[axis] < 2:
        return
    mine, right = (np.expand_dims(x.argmax(axis=axis), axis) for x in (a, b))
    wide = b.astype(np.float64)
    margin = np.take_along_axis(wide, right, axis) - np.take_along_axis(wide, mine, axis)
    span = float(wide.max() - wide.min()) or 1.0
    near = (margin <= SHARES["f32"] * span) & (mine != right)
    o.same_class += int((mine == right).sum())
    o.other_class += int(((mine != right) & ~near).sum())
    for gap in margin[near]:
        o.ties.append(f"{run.name}: margin {gap / span:.1e} of the range")


def _accuracy(row: Row, tallies: Mapping[str, Any]) -> None:
    """Ours and the referee's; they may differ by the near ties."""
    ties = sum(len(o.ties) for o in row.outputs)
    for name, t in tallies.items():
        if not t[0, 1]:
            continue
        row.accuracy[name] = (float(t[0, 0]), float(t[1, 0]), float(t[1, 1]))
        if len(t) > 2 and t[-1, 0] != t[1, 0]:
            row.notes.append(f"with XNNPACK {name} is {t[-1, 0]:g} of {t[-1, 1]:g}, "
                             f"with the reference kernels {t[1, 0]:g}")  # fmt: skip
        if abs(t[0, 0] - t[1, 0]) > max(ties, 1e-6):
            row.problems.append(f"{name} is {t[0, 0]:g}, the referee's {t[1, 0]:g}")


def _explain(
    row: Row, record: Record, model: Model, data: Path, take: int, ports: Mapping[str, Any],
    program: Program,
) -> None:  # fmt: skip
    """Judgements of the outputs; for a float network that is far off, what the referee says of
    itself without its graph optimisations."""
    for o in row.outputs:
        row.problems += o.problems()
    if row.format != "onnx" or all(o.share < o.budget / 4 for o in row.outputs):
        return
    runs = list(runs_of(record, ports, data, take))
    plain = Row(row.file, row.format)
    plain.outputs = _outputs(model, _first_feeds(runs[0], record, ports))
    exact = peers.find("onnxruntime").load(model, exact=True)
    _compare(plain, record, runs, ports, [_ours(program), _theirs(model, exact)])
    for o, p in zip(row.outputs, plain.outputs, strict=True):
        row.notes.append(f"{o.name}: {o.share:.1e} of the range from ONNX Runtime, {p.share:.1e} "
                         "from it without graph optimisations")  # fmt: skip


def _tie(
    row: Row, record: Record, model: Model, program: Program, run: Run, ports: Mapping[str, Any]
) -> None:  # fmt: skip
    """The same stream with the states kept by the program instead of the caller: equal bits."""
    tied = model.compile(shapes=record.shapes, states=record.feedback, fallback=False)
    short = Run(run.name, run.kind, run.calls[:FRAMES])
    for call, outs in zip(short.calls, _play(short, record, ports, _ours(program)), strict=True):
        for name, kept in tied(dict(call)).items():
            if not np.array_equal(kept, outs[name]):
                row.problems.append(f"{name} differs where the program keeps its states itself")
                return


# --- time -----------------------------------------------------------------------------------------


def _time(
    row: Row, model: Model, program: Program, found: Referee, fast: Sequence[peers.Running],
    feeds: Mapping[str, Any],
) -> None:  # fmt: skip
    call: Call = program.prepare(feeds)
    calls = {"ours": call, "theirs": (fast[-1] if fast else found.running).bind(feeds)}
    times = interleaved(calls, ROUNDS)
    row.ours_ms, row.theirs_ms = times["ours"].median * 1e3, times["theirs"].median * 1e3
    row.timed_against = found.peer.name
