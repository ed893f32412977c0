"""A model compiled by us and loaded by others, measured in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onefold import __version__, events
from onefold.dev import peers
from onefold.dev.compare import states_of
from onefold.dev.measure import Call, Times, again_and_again, interleaved, peak_call, ratios

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.forms import Program, Wanted

OURS, PEAK = "onefold", "peak"

BUSY = 0.25
"""Spread above which a measurement says that it is none."""


@dataclass(frozen=True)
class Contestant:
    """of_peak: share of the machine's f32 peak; times_onefold: its time over ours, median of the
    quotients within rounds."""

    name: str
    version: str
    times: Times
    of_peak: float
    times_onefold: float


@dataclass(frozen=True)
class Result:
    model: str
    macs: int
    peak_flops: float  # of the threads used
    contestants: tuple[Contestant, ...]
    notes: tuple[str, ...]


def race(
    model: Model, compile: Callable[[Model], Program], wanted: Wanted,
    against: Sequence[str] | None, rounds: int, seed: int,
) -> Result:  # fmt: skip
    """Measures a model; against None: every installed runtime that reads its format.

    A runtime that refuses the model is left out, with a note.
    """
    from onefold.dev.feed import Style
    from onefold.dev.feed.gather import assuming, gather

    given = gather(model, wanted, {}, Style(), seed)
    inputs = {**given.arrays, **wanted.values}
    notes = list(given.assumed)
    with assuming(notes):
        program = compile(model)
        program(given.arrays)
    if count := program.report.get("tuned"):
        notes.append(f"{count} layers use kernels that `onefold tune` has measured")
    first = states_of(model, program)
    if first:
        notes.append("the other runtimes begin each call with the first contents of the states")
    inputs |= first
    calls: dict[str, Call] = {OURS: again_and_again(program, given.arrays)}
    versions = {OURS: __version__}
    for peer in _peers(model, against, notes):
        try:
            running = peer.load(model, program.options.threads)
            calls[peer.name] = running.bind(inputs)
            versions[peer.name] = peer.version()
        except (peers.PeerRefuses, KeyError) as e:
            notes.append(f"{peer.name} refuses the model: {str(e)[:100]}")
    peak, flops = peak_call()
    with events.Progress(f"measuring {model.name}", rounds) as progress:
        times = interleaved({**calls, PEAK: peak}, rounds, progress.step)
    program.reset()
    if max(t.spread for t in times.values()) > BUSY:
        notes.append("times differ much from round to round: the machine is busy")
    return _result(model, program, inputs, times, versions, flops, notes)


def _peers(model: Model, against: Sequence[str] | None, notes: list[str]) -> list[peers.Peer]:
    if against is None:
        return [p for p in peers.suited(model.read.format) if p.trust > 2]
    found = [peers.find(name) for name in against]
    format = model.read.format
    notes += [f"{p.name} does not read {format} models" for p in found if format not in p.formats]
    return [p for p in found if format in p.formats]


def _result(
    model: Model, program: Program, inputs: Mapping[str, Any], times: Mapping[str, Times],
    versions: Mapping[str, str], flops: float, notes: Sequence[str],
) -> Result:  # fmt: skip
    from onefold.dev.peers.reference import Evaluator
    from onefold.dev.survey import macs_of

    macs = sum(macs_of(n) for n in Evaluator(model).graph(inputs).nodes)
    threads, ours, peak = program.options.threads, times[OURS].rounds, times[PEAK].rounds
    rows = []
    for name, version in versions.items():
        rounds = times[name].rounds
        shares = [2 * macs / t / (threads * flops / p) for t, p in zip(rounds, peak, strict=True)]
        rows.append(Contestant(name, version, times[name], statistics.median(shares),
                               ratios(rounds, ours)))  # fmt: skip
    best = threads * flops / statistics.median(peak)
    return Result(model.name, macs, best, tuple(rows), tuple(notes))
