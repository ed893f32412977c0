"""`onefold tune`: measures which kernels are the fastest, and remembers them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onefold.cli._options import Wishes, compile_options
from onefold.cli._output import Column, Out, finish, layer, seconds
from onefold.errors import OptionError, TargetError

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.dev.tune import Result
    from onefold.ir.graph import Graph

CALLS = 25  # rounds in which whole calls are compared


@click.command(short_help="Measure which kernels are the fastest, and remember them.")
@click.argument("model", required=False)
@click.option(
    "--budget",
    type=click.FloatRange(0),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Begin no further measurement after so long.",
)
@click.option("--again", is_flag=True, help="Also measure what is known already.")
@click.option(
    "--whole/--no-whole",
    default=True,
    show_default=True,
    help="Compare whole calls with and without what was found.",
)
@click.option("--list", "listed", is_flag=True, help="Show what is remembered.")
@click.option(
    "--forget", is_flag=True, help="Forget what is remembered of MODEL; without MODEL, everything."
)
@click.option("--export", metavar="FILE", help="Write what is remembered of this machine.")
@click.option("--import", "imported", metavar="FILE", help="Remember what such a file says.")
@compile_options  # fmt: skip
def command(
    wishes: Wishes, model: str | None, budget: float, again: bool, whole: bool, listed: bool,
    forget: bool, export: str | None, imported: str | None,
) -> None:  # fmt: skip
    """Measures the ways to compute each layer of MODEL side by side on this machine, the costliest
    layers first, and remembers the times: from then on programs are compiled with the fastest.

    What is measured is kept by layer, so that it counts for every model with such layers, on
    machines with the same CPU, compiler and version of Onefold. Without MODEL, the options tell
    what to do with what is remembered.
    """
    jobs = [listed, forget, export is not None, imported is not None]
    if sum(jobs) > 1 or (not any(jobs) and model is None) or (model is not None and any(jobs)
                                                             and not forget):  # fmt: skip
        raise click.UsageError("Give a MODEL, or one of --list, --forget, --export, --import.")
    if listed:
        finish(_listed(), wishes.json, _show_list)
    elif forget:
        finish({"forgotten": _forget(wishes, model)}, wishes.json,
               lambda f, out: out.line(f"{_records(f['forgotten'])} forgotten"))  # fmt: skip
    elif export is not None:
        finish({"file": export, "records": _export(wishes, Path(export))}, wishes.json,
               lambda f, out: out.line(f"{_records(f['records'])} in {f['file']}"))  # fmt: skip
    elif imported is not None:
        finish(_import(wishes, Path(imported)), wishes.json, _show_import)
    else:
        assert model is not None
        finish(_tune(wishes, wishes.load(model), budget, again, whole), wishes.json, _show)


def _records(n: int) -> str:
    return f"times of {n} layer" + "s" * (n != 1)


def _damaged(n: int) -> str:
    return "1 damaged line is" if n == 1 else f"{n} damaged lines are"


# --- measuring ------------------------------------------------------------------------------------


def _tune(wishes: Wishes, model: Model, budget: float, again: bool, whole: bool) -> dict[str, Any]:
    from onefold.dev.tune import HostRunner, tune
    from onefold.options import check_optimize, check_precision
    from onefold.run.tuned import machine
    from onefold.target import find, runs_here

    _one_precision(wishes)
    if math.isnan(budget):
        raise click.BadParameter("it is not a number.", param_hint="'--budget'")
    target = find(wishes.target)
    if not runs_here(target):
        raise TargetError(
            f"kernels for '{target.name}' cannot be measured here", kind=TargetError.CANNOT,
            why="this machine is another one, and emulators tell no times",
            remedy=f"Run `onefold tune --target {target.name}` on such a machine, and carry the "
                   "result here with --export and --import.",
        )  # fmt: skip
    check_precision(wishes.precision, target)
    options = wishes.options()
    check_optimize(options.optimize)
    graph, notes = _optimised(wishes, model)
    result = tune(graph, model.name, target, options, budget, HostRunner(target, options), again)
    calls = None
    if whole and any(y.gain > 1 for y in result.layers):
        calls = _whole(wishes, model, notes)
    return {
        "model": model.name, "machine": machine(target), "notes": notes,
        "layers": [
            {"layer": y.name, "node": y.node, "count": y.count, "pick": y.pick, "best": y.best,
             "pick_s": y.times[y.pick], "best_s": y.times[y.best], "gain": y.gain,
             "new": y.fresh, "times": dict(y.times)}
            for y in result.layers
        ],
        **_summary(result), "calls": calls,
    }  # fmt: skip


def _optimised(wishes: Wishes, model: Model) -> tuple[Graph, list[str]]:
    """The graph that is planned, and notes on the sizes that it has."""
    from onefold.dev.survey import bound
    from onefold.passes import pipeline

    graph, notes = bound(model, wishes.binding())
    pipeline.run(graph)
    return graph, notes


def _one_precision(wishes: Wishes) -> None:
    """Raises OptionError for `auto`: a time belongs to the type in which it was measured."""
    if wishes.precision == "auto":
        raise OptionError(
            "times are kept for one precision", why="auto compiles for several and takes one",
            remedy="Tune for f32, and for bf16 or f16 where this machine has it; then compile with "
                   "--precision auto.",
        )  # fmt: skip


def _summary(r: Result) -> dict[str, Any]:
    return {"loss": r.loss, "picked_s": r.picked, "fastest_s": r.fastest, "left": r.left,
            "alone": r.alone, "open": r.open, "busy": r.busy}  # fmt: skip


def _whole(wishes: Wishes, model: Model, notes: list[str]) -> dict[str, Any]:
    """Times of whole calls, by estimates and as tuned."""
    from onefold import events
    from onefold.dev.feed import Style
    from onefold.dev.feed.gather import assuming, gather
    from onefold.dev.measure import again_and_again, interleaved, ratios

    given = gather(model, wishes.wanted(), {}, Style(), 0)
    calls = {}
    with assuming(notes):
        for name, tuned in (("estimated", False), ("tuned", True)):
            program = wishes.compile(model, tuned=tuned)
            calls[name] = again_and_again(program, given.arrays)
        with events.Progress(f"measuring {model.name}", CALLS) as progress:
            times = interleaved(calls, CALLS, progress.step)
    return {
        "estimated_s": times["estimated"].median, "tuned_s": times["tuned"].median,
        "gain": ratios(times["estimated"].rounds, times["tuned"].rounds),
    }  # fmt: skip


def _show(facts: dict[str, Any], out: Out) -> None:
    out.line(f"{facts['model']} on {facts['machine'].partition(';')[0]}", style="bold")
    for note in facts["notes"]:
        out.line(note)
    numbers = [Column(n, right=True) for n in ("layers", "its time", "time", "gain")]
    rows = [
        (layer(y["layer"])[-48:], y["count"], y["pick"], seconds(y["pick_s"]),
         y["best"] if y["gain"] > 1 else "the same", seconds(y["best_s"]),
         f"{y['gain'] - 1:.1%}" if y["gain"] > 1 else "")
        for y in facts["layers"]
    ]  # fmt: skip
    if rows:
        out.table(["layer", numbers[0], "by estimate", numbers[1], "fastest", *numbers[2:]], rows)
        out.line(f"the estimate's kernels take {facts['loss']:.3f} times as long as the fastest "
                 f"(geometric mean), {seconds(facts['picked_s'])} instead of "
                 f"{seconds(facts['fastest_s'])} in sum")  # fmt: skip
    fresh = sum(y["new"] for y in facts["layers"])
    out.line(f"{fresh} measured now, {len(facts['layers']) - fresh} known before; "
             f"{facts['alone']} layers have one kernel only")  # fmt: skip
    if facts["open"]:
        out.line(f"{facts['open']} layers have open sizes: fix them with --dim or --shape")
    if facts["busy"]:
        out.line("times differ much from round to round, as on a busy machine: measure again "
                 "(--again) when it is quiet", style="yellow")  # fmt: skip
    if facts["left"]:
        out.line(f"{facts['left']} layers are left: run it again, or with a larger --budget",
                 style="yellow")  # fmt: skip
    if facts["calls"]:
        c = facts["calls"]
        out.line(f"a call: {seconds(c['estimated_s'])} by estimates, {seconds(c['tuned_s'])} "
                 f"tuned ({c['gain']:.3f} times as fast)")  # fmt: skip


# --- what is remembered ---------------------------------------------------------------------------


def _listed() -> dict[str, Any]:
    from onefold.run import store, tuned

    table = tuned.table()
    machines: dict[str, list[dict[str, Any]]] = {}
    for r in table.records.values():
        best = min(r.times, key=lambda k: r.times[k])
        machines.setdefault(r.machine, []).append(
            {"node": r.node, "best": best, "seconds": r.times[best], "kernels": len(r.times)}
        )
    return {"folder": str(store.tuned_place()), "machines": machines, "damaged": table.damaged}


def _show_list(facts: dict[str, Any], out: Out) -> None:
    for name, rows in facts["machines"].items():
        out.line(f"{name}: {_records(len(rows))}", style="bold")
        out.table(
            [Column("node", limit=160), "fastest", Column("time", right=True),
             Column("of", right=True)],
            [(r["node"], r["best"], seconds(r["seconds"]), r["kernels"]) for r in rows],
        )  # fmt: skip
    if not facts["machines"]:
        out.line("Nothing has been measured yet.")
    if facts["damaged"]:
        out.line(f"{facts['folder']}: {_damaged(facts['damaged'])} ignored", style="yellow")


def _forget(wishes: Wishes, model: str | None) -> int:
    from onefold.dev.survey import Survey, plan_parts
    from onefold.run import tuned
    from onefold.target import find

    _one_precision(wishes)
    if model is None:
        return tuned.forget(lambda r: True)
    target = find(wishes.target)
    survey = Survey(_optimised(wishes, wishes.load(model))[0], target)
    plan_parts(survey, wishes.options())
    nodes = {n for p in survey.planned for n in p.assembler.kernels.asked}
    machine = tuned.machine(target)
    return tuned.forget(lambda r: r.machine == machine and r.node in nodes)


def _export(wishes: Wishes, path: Path) -> int:
    from onefold.run import store, tuned
    from onefold.target import find

    machine = tuned.machine(find(wishes.target))
    mine = [r for r in tuned.table().records.values() if r.machine == machine]
    if not mine:
        raise OptionError("nothing has been measured on this machine", why=machine,
                          remedy="Run `onefold tune MODEL` first.")  # fmt: skip
    with store.writing(path):
        path.write_text("".join(r.line() for r in mine), "ascii")
    return len(mine)


def _import(wishes: Wishes, path: Path) -> dict[str, Any]:
    from onefold.run import tuned
    from onefold.target import find

    try:
        found = tuned.read(path)
    except OSError as e:
        raise OptionError(f"the file '{path}' cannot be read", why=e.strerror or str(e),
                          remedy="Give a file that `onefold tune --export` has written.") from e
    if not found.records:
        raise OptionError(f"the file '{path}' has no measured times in it",
                          remedy="Give a file that `onefold tune --export` has written.")
    tuned.add(found.records.values())
    machine = tuned.machine(find(wishes.target))
    here = sum(m == machine for m, _ in found.records)
    return {"records": len(found.records), "damaged": found.damaged, "here": here,
            "machines": sorted({m for m, _ in found.records})}  # fmt: skip


def _show_import(facts: dict[str, Any], out: Out) -> None:
    out.line(f"{_records(facts['records'])} remembered, {facts['here']} of them of this machine")
    if facts["damaged"]:
        out.line(f"{_damaged(facts['damaged'])} left out", style="yellow")
