"""`onefold run`: one call of a model, on files or on random inputs."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onefold.cli._options import Wishes, compile_options, name_and_file
from onefold.cli._output import Column, Out, finish, number, seconds, tuned

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.dev.feed.gather import Given


def _numbers(ctx: Any, param: Any, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(x) for x in text.split(",")) if text else ()
    except ValueError:
        raise click.BadParameter(
            f"'{text}' is not a list of numbers such as 0.5 or 1,2,3."
        ) from None


@click.command(short_help="Run a model on files or random inputs.")
@click.argument("model")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=FILE",
    help="Contents of an input: .npy, .npz, .png, .jpg, .bmp, .wav; text as a .npy of strings. "
    "The name may be left out where the model has one input.",
)
@click.option("--labels", metavar="FILE", help="Names of the classes, one per line.")
@click.option(
    "--top",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    metavar="K",
    help="How many of the best classes to show.",
)
@click.option(
    "--mean",
    callback=_numbers,
    default="",
    metavar="M[,M,M]",
    help="Pictures: taken from each pixel, which is 0..255, or 0..1 where these numbers are at "
    "most 1 and one is a fraction. `--mean 0 --std 1` is the pixels as they are.",
)
@click.option(
    "--std",
    callback=_numbers,
    default="",
    metavar="S[,S,S]",
    help="Pictures: what it is then divided by.",
)
@click.option(
    "--layout",
    type=click.Choice(["NCHW", "NHWC"], case_sensitive=False),
    help="Pictures: order of the dimensions (default: by the shape).",
)
@click.option(
    "--channels",
    type=click.Choice(["rgb", "bgr"]),
    default="rgb",
    show_default=True,
    help="Pictures: order of the colours.",
)
@click.option(
    "--fit",
    type=click.Choice(["crop", "stretch", "pad"]),
    default="crop",
    show_default=True,
    help="Pictures: how they get the input's size.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="For random inputs.")
@click.option(
    "--runs",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="Calls to time, at most two seconds of them.",
)
@click.option("--save", metavar="FILE.npz", help="Write inputs and outputs to a file.")
@compile_options  # fmt: skip
def command(
    wishes: Wishes, model: str, inputs: tuple[str, ...], labels: str | None, top: int,
    mean: tuple[float, ...], std: tuple[float, ...], layout: str | None, channels: str, fit: str,
    seed: int, runs: int, save: str | None,
) -> None:  # fmt: skip
    """Runs MODEL once and shows its outputs, the best classes and the time of a call.

    Inputs come from files; those that are not given are random, from a seed that is printed.
    """
    from onefold.dev.classes import read_labels
    from onefold.dev.feed import Style
    from onefold.dev.feed.gather import assuming, gather
    from onefold.dev.feed.ports import quants_of

    loaded = wishes.load(model)
    named = read_labels(Path(labels)) if labels else []
    style = Style(mean, std, layout or "", channels, fit)
    given = gather(loaded, wishes.wanted(), _files(loaded, inputs), style, seed)
    with assuming(given.assumed):
        done = _call(wishes, loaded, given, runs)
    quants = quants_of(loaded)
    best = [_classes(n, a, quants.get(n, (1.0, 0)), named, top) for n, a in done.outputs.items()]
    facts = {
        "model": loaded.name, "target": wishes.target,
        "seed": seed if given.made_up else None, "inputs": _inputs(given),
        "assumed": list(given.assumed),
        "outputs": [_output(n, a) for n, a in done.outputs.items()],
        "top": [b for b in best if b is not None], "latency": done.latency,
        "emulated": done.emulated, "tuned": done.tuned, "fallback": done.refusals, "saved": save,
    }  # fmt: skip
    if save:
        _save(save, given, done.outputs)
    finish(facts, wishes.json, _show)


@dataclass(frozen=True)
class Done:
    """What a call gave. latency: None where it was not measured or the machine is emulated."""

    outputs: dict[str, Any]
    latency: dict[str, Any] | None = None
    emulated: bool = False
    tuned: int = 0
    refusals: list[list[str]] = field(default_factory=list)


def _call(wishes: Wishes, model: Model, given: Given, runs: int) -> Done:
    from onefold.dev.measure import again_and_again, timed
    from onefold.target import find, runs_here

    if not runs_here(find(wishes.target)):
        return _emulated(wishes, model, given)
    program = wishes.compile(model)
    outs = program(given.arrays)
    times = timed(again_and_again(program, given.arrays), runs, limit=2.0).facts() if runs else None
    refusals = [list(r) for r in program.report.get("refusals", ())]
    return Done(outs, times, refusals=refusals, tuned=program.report.get("tuned", 0))


def _emulated(wishes: Wishes, model: Model, given: Given) -> Done:
    """The program built for another machine, run there or in its emulator."""
    from onefold import ship

    sizes = {n: a.shape for n, a in given.arrays.items()}
    with tempfile.TemporaryDirectory(prefix="onefold-run-") as folder:
        bundle = ship.build(
            model, wishes.target, folder, shapes={**sizes, **wishes.shapes}, dims=wishes.dims,
            states=wishes.states, values=wishes.values, measure=False, threads=wishes.threads,
            optimize=wishes.optimize, exact=wishes.exact, tuned=wishes.tuned,
            precision=wishes.precision,
        )  # fmt: skip
        outs = bundle.run([given.arrays[name] for name, _, _ in bundle.inputs])
    named = dict(zip((n for n, _, _ in bundle.outputs), outs, strict=True))
    return Done(named, emulated=True, tuned=bundle.report["tuned"])


def _files(model: Model, texts: tuple[str, ...]) -> dict[str, Path]:
    from onefold.dev.feed.arrays import read_npz

    names = [d.name for d in model.inputs]
    out: dict[str, Path] = {}
    for text in texts:
        name, path = name_and_file(text, names)
        if name:
            out[name] = Path(path)
        else:
            out.update({n: Path(path) for n in read_npz(path) if n in names})
    return out


def _inputs(given: Given) -> list[dict[str, Any]]:
    return [
        {"name": n, "dtype": a.dtype.name, "shape": list(a.shape), "from": given.sources[n],
         "notes": list(given.notes[n])}
        for n, a in given.arrays.items()
    ]  # fmt: skip


def _output(name: str, array: Any) -> dict[str, Any]:
    import numpy as np

    if not isinstance(array, np.ndarray):
        return {
            "name": name,
            "dtype": type(array).__name__,
            "shape": [],
            "values": repr(array)[:500],
        }
    facts: dict[str, Any] = {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)}
    if array.size and array.dtype.kind in "biufV":
        real = array.astype(np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            facts |= {
                "min": float(np.nanmin(real)),
                "max": float(np.nanmax(real)),
                "mean": float(np.nanmean(real)),
                "nan": int(np.isnan(real).sum()),
            }
    if array.size <= 16 and array.dtype.kind in "biufO":
        facts["values"] = array.tolist()
    return facts


def _classes(
    name: str, array: Any, quant: tuple[float, int], labels: list[str], top: int
) -> dict[str, Any] | None:
    import numpy as np

    from onefold.dev.classes import best, looks_like_classes
    from onefold.dev.feed import dequantize

    if not isinstance(array, np.ndarray) or not looks_like_classes(array):
        return None
    ranked, note = best(dequantize(array, *quant), labels, top)
    rows = [{"class": r.index, "label": r.label, "score": r.score} for r in ranked]
    return {"output": name, "classes": rows, "note": note}


def _save(path: str, given: Given, outs: dict[str, Any]) -> None:
    import numpy as np

    from onefold.run import store

    arrays = {**given.arrays, **{f"output:{n}": a for n, a in outs.items()}}
    with store.writing(Path(path)), Path(path).open("wb") as file:
        np.savez(file, **arrays)


def _show(facts: dict[str, Any], out: Out) -> None:
    out.line(f"{facts['model']} on {facts['target']}", style="bold")
    rows = [(i["name"], _type(i), i["from"], "; ".join(i["notes"])) for i in facts["inputs"]]
    out.table(["input", "type", "from", Column("read as", limit=200)], rows)
    if facts["seed"] is not None:
        out.line(f"random inputs from seed {facts['seed']} (--seed)")
    for note in facts["assumed"]:
        out.line(note)
    out.line()
    columns: list[Any] = [
        "output",
        "type",
        *(Column(c, right=True) for c in ("min", "max", "mean")),
    ]
    rows = [
        (o["name"] + (f"  ({o['nan']} NaN)" if o.get("nan") else ""), _type(o),
         *(number(o.get(k, "")) for k in ("min", "max", "mean")))
        for o in facts["outputs"]
    ]  # fmt: skip
    out.table(columns, rows)
    for o in facts["outputs"]:
        if o["dtype"] == "object" and "values" in o:
            out.line(f"{o['name']}: {o['values']}")
    for best in facts["top"]:
        _show_classes(best, out)
    if facts["latency"]:
        t = facts["latency"]
        out.line()
        out.line(f"{seconds(t['median_s'])} a call (median of {t['runs']}, least "
                 f"{seconds(t['min_s'])}, the call from Python included)")  # fmt: skip
    if facts["tuned"]:
        out.line(tuned(facts['tuned']))
    if facts["emulated"]:
        out.line("built for another machine and run in its emulator, so no time is shown")
    if facts["saved"]:
        out.line(f"inputs and outputs are in {facts['saved']}")


def _show_classes(best: dict[str, Any], out: Out) -> None:
    out.title(f"best classes of {best['output']}")
    labelled = any(r["label"] for r in best["classes"])
    columns = [Column("class", right=True), Column("score", right=True)]
    rows = [(r["class"], f"{r['score']:.6g}", r["label"]) for r in best["classes"]]
    if labelled:
        out.table([*columns, "label"], rows)
    else:
        out.table(columns, [r[:2] for r in rows])
    if best["note"]:
        out.line(best["note"])


def _type(port: dict[str, Any]) -> str:
    return f"{port['dtype']}[{','.join(map(str, port['shape']))}]"
