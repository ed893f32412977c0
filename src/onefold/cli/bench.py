"""`onefold bench`: how fast a model is, beside other runtimes and this machine's peak."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onefold.cli._options import Wishes, compile_options
from onefold.cli._output import Column, Out, finish, macs, seconds

if TYPE_CHECKING:
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
@compile_options  # fmt: skip
def command(
    wishes: Wishes, models: tuple[str, ...], against: str | None, rounds: int, seed: int
) -> None:
    """Measures each MODEL on random inputs, in turns with other runtimes.

    Times are of a call from Python with its inputs and outputs. The peak is that of f32
    multiply-adds on the cores used, measured in the same rounds; int8 networks may exceed it.
    """
    from onefold.dev.race import race

    listed = None if against is None else [a for a in against.split(",") if a and a != "none"]
    results = [
        race(wishes.load(m), wishes.compile, wishes.wanted(), listed, rounds, seed) for m in models
    ]
    facts = {"threads": wishes.threads, "rounds": rounds, "seed": seed,
             "models": [_facts(r) for r in results]}  # fmt: skip
    finish(facts, wishes.json, _show)


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
        out.line()
