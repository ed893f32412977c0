"""`onefold bench`: how fast a model is, beside other runtimes and this machine's peak."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onefold.cli._options import Wishes, compile_options
from onefold.cli._output import Column, Out, finish, macs, seconds, size
from onefold.errors import OptionError

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.dev.profile import StepTime
    from onefold.dev.race import Result


@click.command(short_help="Measure models beside other runtimes and the machine's peak.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--against",
    metavar="LIST",
    help="Runtimes, separated by commas; `none` for none (default: the installed ones "
    "that read the format).",
)
@click.option(
    "--rounds",
    type=click.IntRange(3),
    default=25,
    show_default=True,
    help="Rounds; in each every contestant runs once.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="For the random inputs.")
@click.option(
    "--profile",
    is_flag=True,
    help="Also the time of every step, until all threads are through with it.",
)
@click.option(
    "--roofline",
    metavar="FILE.svg",
    help="Draw the steps of the first MODEL against the machine's peak and memory.",
)
@compile_options  # fmt: skip
def command(
    wishes: Wishes, models: tuple[str, ...], against: str | None, rounds: int, seed: int,
    profile: bool, roofline: str | None,
) -> None:  # fmt: skip
    """Measures each MODEL on random inputs, in turns with other runtimes.

    Times are of a call from Python with its inputs and outputs. The peak is that of f32
    multiply-adds on the cores used, measured in the same rounds; int8 networks may exceed it.
    """
    from onefold.dev.race import race

    if roofline and wishes.threads > 1:
        raise OptionError("a roofline is one core's", remedy="Leave --threads or --roofline out.")
    listed = None if against is None else [a for a in against.split(",") if a and a != "none"]
    facts: dict[str, Any] = {"threads": wishes.threads, "rounds": rounds, "seed": seed}
    facts["models"] = []
    for k, m in enumerate(models):
        model = wishes.load(m)
        result = race(model, wishes.compile, wishes.wanted(), listed, rounds, seed)
        facts["models"].append(_facts(result))
        if profile or (roofline and k == 0):
            steps = _steps(wishes, model, rounds, seed)
            if profile:
                facts["models"][-1]["steps"] = [
                    {**asdict(s), "of_peak": 2 * s.macs_per_s / result.peak_flops} for s in steps
                ]
            if roofline and k == 0:
                _draw(Path(roofline), steps, result.peak_flops)
    finish(facts, wishes.json, _show)


def _steps(wishes: Wishes, model: Model, rounds: int, seed: int) -> list[StepTime]:
    from onefold.dev.feed import Style
    from onefold.dev.feed.gather import gather
    from onefold.dev.measure import again_and_again
    from onefold.dev.profile import profile

    given = gather(model, wishes.wanted(), {}, Style(), seed)
    program = wishes.compile(model, profile=True)
    return profile(program, again_and_again(program, given.arrays), rounds)


def _draw(path: Path, steps: list[StepTime], flops: float) -> None:
    from onefold.dev.roofline import read_bandwidth, svg
    from onefold.run import store

    with store.writing(path):
        path.write_text(svg(steps, flops, read_bandwidth()), "utf-8")


def _facts(r: Result) -> dict[str, Any]:
    return {
        "model": r.model, "macs": r.macs, "peak_flops": r.peak_flops, "notes": list(r.notes),
        "results": [
            {"runtime": c.name, "version": c.version, **c.times.facts(),
             "of_peak": c.of_peak, "times_onefold": c.times_onefold}
            for c in r.contestants
        ],
    }  # fmt: skip


def _show(facts: dict[str, Any], out: Out) -> None:
    for m in facts["models"]:
        out.line(f"{m['model']}: {macs(m['macs'])} multiply-adds, {facts['threads']} thread(s), "
                 f"peak {m['peak_flops'] / 1e9:.0f} GFLOP/s f32", style="bold")  # fmt: skip
        for note in m["notes"]:
            out.line(note)
        names = ("median", "least", "spread", "GMAC/s", "of f32 peak", "times Onefold")
        numbers = (Column(n, right=True) for n in names)
        rows = [
            (r["runtime"], r["version"], seconds(r["median_s"]), seconds(r["min_s"]),
             f"{r['spread']:.1%}", f"{m['macs'] / r['median_s'] / 1e9:.2f}", f"{r['of_peak']:.1%}",
             f"{r['times_onefold']:.2f}x")
            for r in m["results"]
        ]  # fmt: skip
        out.table(["runtime", "version", *numbers], rows)
        if "steps" in m:
            _show_steps(m["steps"], out)
        out.line()


SMALL = 0.005  # share of the time below which steps are shown together


def _show_steps(steps: list[dict[str, Any]], out: Out) -> None:
    names = ("time", "share", "of f32 peak", "bytes", "GB/s")
    rows = []
    for s in sorted(steps, key=lambda s: -s["seconds"]):
        if s["share"] < SMALL:
            continue
        rate = f"{s['bytes'] / s['seconds'] / 1e9:.1f}" if s["seconds"] else ""
        rows.append((s["layer"][-48:], s["kernel"], seconds(s["seconds"]), f"{s['share']:.1%}",
                     f"{s['of_peak']:.0%}" if s["macs"] else "", size(s["bytes"]), rate,
                     s["next_best"]))  # fmt: skip
    small = [s for s in steps if s["share"] < SMALL]
    if small:
        rows.append((f"{len(small)} smaller steps", "", seconds(sum(s["seconds"] for s in small)),
                     f"{sum(s['share'] for s in small):.1%}", "", "", "", ""))  # fmt: skip
    numbers = (Column(n, right=True) for n in names)
    out.table(["layer", "kernel", *numbers, "next best"], rows)
