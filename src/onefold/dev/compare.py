"""A model as we compile it against a runtime that is taken for right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onefold.dev import peers
from onefold.dev.budget import Budget, Distance, bounded, budget_of, measure, steps_of
from onefold.errors import InputError, OptionError, pip_words
from onefold.ir import dtypes

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.forms import Program


@dataclass(frozen=True)
class Verdict:
    """One output over all samples: the worst of each measure."""

    name: str
    budget: Budget
    worst: float
    share: float
    differ: int
    size: int
    same_class: int  # samples whose largest element is the referee's
    samples: int
    ok: bool
    problem: str = ""


@dataclass(frozen=True)
class Referee:
    """Who decides, and why not somebody else."""

    peer: peers.Peer
    running: peers.Running
    notes: tuple[str, ...]


def referee(model: Model, against: str = "") -> Referee:
    """The runtime to compare with: the one named, else the source format's own; where that
    refuses the model, the next one that takes it.

    Raises OptionError where the named one refuses, MissingExtraError where it is not installed.
    """
    format = model.read.format
    if against:
        peer = peers.find(against, format)
        try:
            return Referee(peer, peer.load(model, exact=True), ())
        except peers.PeerRefuses as e:
            raise OptionError(
                f"{against} does not take this model",
                why=str(e),
                remedy="Compare with another one: --against reference.",
            ) from None
    notes: list[str] = []
    for peer in peers.suited(format):
        try:
            running = peer.load(model, exact=True)
        except peers.PeerRefuses as e:
            notes.append(f"{peer.name} refuses the model: {str(e)[:100]}")
            continue
        if peer.name == "reference":  # the last one, and not an independent judge
            notes += [f"{p.name} is not installed ({pip_words(peers.distribution(p), p.extra)})"
                      for p in peers.absent(format)[:1]]  # fmt: skip
        return Referee(peer, running, tuple(notes))
    raise OptionError("no runtime takes this model", why="; ".join(notes))


def compare(
    model: Model, program: Program, judge: Referee, samples: Sequence[Mapping[str, Any]]
) -> list[Verdict]:
    """Every output on every sample; both sides see the samples as consecutive calls.

    Raises InputError where the referee does not take a sample.
    """
    tied = program.wanted.states
    names = [d.name for d in model.outputs]
    kept = [n for n in names if n not in tied]
    found: dict[str, list[tuple[Distance, Budget]]] = {n: [] for n in kept}
    states: dict[str, Any] = {}
    budgets: dict[str, Budget] = {}
    program.reset()
    for sample in samples:
        if judge.peer.name == "reference":  # the references begin anew at each call
            program.reset()
            states = {}
        ours = program(dict(sample))
        feeds = {**sample, **program.wanted.values, **states_of(model, program, states)}
        try:
            answer = judge.running.run(feeds)
        except peers.PeerRefuses as e:
            raise InputError(
                f"{judge.peer.name} refuses the inputs", why=str(e),
                remedy="Give inputs that it takes (--data FILE.npz), or compare with another one: "
                       "--against reference.",
            ) from None  # fmt: skip
        theirs = dict(zip(names, answer, strict=True))
        states = {into: theirs[out] for out, into in tied.items()}
        budgets = budgets or _budgets(model, program, judge, feeds, theirs)
        for n in kept:
            found[n].append((measure(ours[n], theirs[n]), budgets[n]))
    return [_verdict(n, pairs) for n, pairs in found.items()]


def states_of(
    model: Model, program: Program, states: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Contents of the inputs that are states: at first zeros, and of what grows the least."""
    out: dict[str, Any] = dict(states or {})
    declared = {d.name: d for d in model.inputs}
    for into in program.wanted.states.values():
        if into not in out:
            d = declared[into]
            sizes = [
                n if isinstance(n, int) else _fixed(program, d.dim_name(k))
                for k, n in enumerate(d.shape or ())
            ]
            shape = program.wanted.shapes.get(into, tuple(sizes))
            out[into] = np.zeros(shape, dtypes.BY_NAME[d.dtype].numpy)
    return out


def _fixed(program: Program, name: str) -> int:
    size = program.wanted.dims.get(name, 1)
    return size if isinstance(size, int) else size[0]


def _budgets(
    model: Model, program: Program, judge: Referee, feeds: Mapping[str, Any],
    theirs: Mapping[str, Any],
) -> dict[str, Budget]:  # fmt: skip
    from onefold.dev.peers.reference import Evaluator

    format, precision = model.read.format, program.options.precision
    graph = Evaluator(model).graph(feeds)
    return {
        n: budget_of(dtypes.of(np.asarray(a).dtype), format, precision, step, bounded(v))
        for (n, a), step, v in zip(theirs.items(), steps_of(graph), graph.outputs, strict=True)
    }


def _verdict(name: str, pairs: Sequence[tuple[Distance, Budget]]) -> Verdict:
    distances = [d for d, _ in pairs]
    budget = pairs[0][1]
    return Verdict(
        name, budget, max(d.worst for d in distances), max(d.share for d in distances),
        sum(d.differ for d in distances), sum(d.size for d in distances),
        sum(d.same_class for d in distances), len(distances),
        all(d.within(b) for d, b in pairs), next((d.problem for d in distances if d.problem), ""),
    )  # fmt: skip
