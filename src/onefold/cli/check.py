"""`onefold check`: a model as it is compiled against another runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onefold.cli._options import Wishes, compile_options
from onefold.cli._output import Column, Out, finish, layer, number

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.dev.compare import Referee
    from onefold.forms import Program, Wanted

SHOWN = 20  # layers in the table that are within their budget


@click.command(short_help="Compare a model with another runtime.")
@click.argument("model")
@click.option(
    "--against",
    metavar="RUNTIME",
    help="onnxruntime, litert, tflm or reference (default: the format's own).",
)
@click.option("--each", is_flag=True, help="Every layer by itself, fed with the referee's values.")
@click.option("--data", metavar="FILE.npz", help="Samples: one array per input (default: random).")
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="How many random samples, or at most how many of the file.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="For random samples.")
@compile_options  # fmt: skip
def command(
    wishes: Wishes, model: str, against: str | None, each: bool, data: str | None, samples: int,
    seed: int,
) -> int:  # fmt: skip
    """Runs MODEL here and in another runtime and compares every output.

    Budgets: floats 1e-4 of the output's range; integers equal for TensorFlow Lite, one step for
    ONNX quantization. The exit code is 1 if any output, or with --each any layer, leaves it.
    """
    from onefold.dev.compare import compare, referee
    from onefold.dev.feed.gather import assuming

    loaded = wishes.load(model)
    judge = referee(loaded, against or "")
    inputs, assumed = _samples(loaded, wishes.wanted(), data, samples, seed)
    with assuming(assumed):
        program = wishes.compile(loaded)
        verdicts = compare(loaded, program, judge, inputs)
    facts: dict[str, Any] = {
        "model": loaded.name, "target": program.target.name, "against": judge.peer.name,
        "against_version": judge.peer.version(), "notes": [*judge.notes, *assumed],
        "samples": len(inputs), "data": data or "random", "seed": None if data else seed,
        "outputs": [_output(v) for v in verdicts], "layers": None, "first_wrong": None,
        "ok": all(v.ok for v in verdicts),
        "fallback": [list(r) for r in program.report.get("refusals", ())],
    }  # fmt: skip
    if each:
        feeds = {**_any_states(loaded, program, seed), **inputs[0], **program.wanted.values}
        _each(facts, loaded, program, judge, feeds)
    finish(facts, wishes.json, _show)
    return 0 if facts["ok"] else 1


def _samples(
    model: Model, wanted: Wanted, data: str | None, count: int, seed: int
) -> tuple[list[dict[str, Any]], list[str]]:
    from onefold.dev.feed import Style
    from onefold.dev.feed.gather import from_archive, gather

    if data:
        return from_archive(model, wanted, Path(data))[:count], []
    given = [gather(model, wanted, {}, Style(), seed + k) for k in range(count)]
    return [g.arrays for g in given], list(given[0].assumed)


def _any_states(model: Model, program: Program, seed: int) -> dict[str, Any]:
    """Contents for the inputs that are states: a layer by itself takes any."""
    from onefold.dev.feed import Style
    from onefold.dev.feed.gather import gather

    wanted = program.wanted
    arrays = gather(model, replace(wanted, states={}), {}, Style(), seed).arrays
    return {name: arrays[name] for name in wanted.states.values()}


def _output(v: Any) -> dict[str, Any]:
    return {
        "name": v.name, "max_abs": v.worst, "max_of_range": v.share, "differ": v.differ,
        "elements": v.size, "argmax_equal": v.same_class, "samples": v.samples,
        "budget": v.budget.text(), "ok": v.ok, "problem": v.problem,
    }  # fmt: skip


def _each(
    facts: dict[str, Any], model: Model, program: Program, judge: Referee, inputs: dict[str, Any]
) -> None:
    from onefold.dev.each import check_each
    from onefold.dev.peers import PeerRefuses, find
    from onefold.dev.peers.reference import Evaluator

    graph = Evaluator(model).graph(inputs)
    peer = judge.peer
    try:
        found = check_each(model, graph, peer, inputs, program.target, program.options)
    except PeerRefuses as e:
        facts["notes"].append(f"layers compared with our references, since {peer.name}: {e}")
        graph = Evaluator(model).graph(inputs)
        found = check_each(model, graph, find("reference"), inputs, program.target, program.options)
    rows = [
        {"layer": v.layer, "operators": list(v.operators), "output": v.output,
         "max_abs": v.distance.worst, "max_of_range": v.distance.share, "differ": v.distance.differ,
         "elements": v.distance.size, "budget": v.budget.text(), "ok": v.ok,
         "problem": v.distance.problem, "compiled": v.compiled}
        for v in found
    ]  # fmt: skip
    wrong = [r for r in rows if not r["ok"]]
    facts["layers"], facts["first_wrong"] = rows, wrong[0] if wrong else None
    facts["ok"] = facts["ok"] and not wrong


def _show(facts: dict[str, Any], out: Out) -> None:
    data = facts["data"] if facts["seed"] is None else f"random, seed {facts['seed']}"
    out.line(
        f"{facts['model']} on {facts['target']} against {facts['against']} "
        f"{facts['against_version']}, {facts['samples']} samples ({data})",
        style="bold",
    )
    for note in facts["notes"]:
        out.line(note)
    right = [Column(c, right=True) for c in ("largest error", "of range", "differ", "same largest")]
    rows = [
        (o["name"], *_errors(o), f"{o['argmax_equal']}/{o['samples']}", o["budget"], _verdict(o))
        for o in facts["outputs"]
    ]
    out.table(["output", *right, "budget", ""], rows)
    if facts["layers"] is not None:
        _show_layers(facts, out)
    out.line()
    if facts["ok"]:
        out.line("Everything is within its budget.", style="green")
    else:
        out.line(_what_is_wrong(facts), style="bold red")


def _errors(o: dict[str, Any]) -> tuple[str, str, str]:
    return number(o["max_abs"]), f"{o['max_of_range']:.2g}", f"{o['differ']:,} of {o['elements']:,}"


def _verdict(o: dict[str, Any]) -> tuple[str, str]:
    if o["ok"]:
        return "ok", "green"
    return o["problem"] or "WRONG", "bold red"


def _show_layers(facts: dict[str, Any], out: Out) -> None:
    layers = facts["layers"]
    wrong = [r for r in layers if not r["ok"]]
    worst = sorted((r for r in layers if r["ok"]), key=lambda r: -r["max_of_range"])[:SHOWN]
    shown = [r for r in layers if r in wrong or r in worst]
    out.title(f"{len(layers)} layers by themselves, {len(wrong)} wrong")
    right = [Column(c, right=True) for c in ("largest error", "of range", "differ")]
    rows = [
        (layer(r["layer"]), _operators(r), *_errors(r), r["budget"], _verdict(r))
        for r in shown
    ]  # fmt: skip
    out.table(
        [Column("layer", limit=48), Column("operators", limit=40), *right, "budget", ""], rows
    )
    if len(shown) < len(layers):
        out.line(f"and {len(layers) - len(shown)} more, closer to the referee (--json has all)")


def _operators(row: dict[str, Any]) -> str:
    return " ".join(row["operators"]) + ("" if row["compiled"] else " (NumPy)")


def _what_is_wrong(facts: dict[str, Any]) -> str:
    first = facts["first_wrong"]
    if first is not None:
        return (f"The first layer that leaves its budget is '{first['layer']}' "
                f"({' '.join(first['operators'])}).")  # fmt: skip
    names = ", ".join(o["name"] for o in facts["outputs"] if not o["ok"])
    if facts["layers"] is not None:
        return (
            f"Each layer alone is right, but {names} is not: small differences add up, or a pass "
            "or a fusion is wrong."
        )
    return f"Outside the budget: {names}. --each finds the layer."
