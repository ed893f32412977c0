"""`onefold build`: the sources, the library and the runner of a model for a target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onefold.cli._options import Wishes, build_options
from onefold.cli._output import Column, Out, count, finish, tuned


@click.command(short_help="Write sources, library and report of a model for a target.")
@click.argument("model")
@click.option("--out", "folder", required=True, metavar="DIR", help="Folder to write into.")
@click.option(
    "--prefix", default="", metavar="NAME", help="Begins every symbol (default: the model's name)."
)
@click.option(
    "--measure/--no-measure",
    default=True,
    show_default=True,
    help="Run once, in the emulator if need be, to read how much stack it takes.",
)
@build_options  # fmt: skip
def command(wishes: Wishes, model: str, folder: str, prefix: str, measure: bool) -> None:
    """Compiles MODEL for a target and writes model.c, a library, a program that runs it on files,
    a manifest and report.json."""
    from onefold import ship
    from onefold.run import store

    loaded = wishes.load(model)
    with store.writing(Path(folder)):
        bundle = ship.build(
            loaded, wishes.target, folder, shapes=wishes.shapes, dims=wishes.dims,
            states=wishes.states, values=wishes.values, prefix=prefix, optimize=wishes.optimize,
            measure=measure, threads=wishes.threads, exact=wishes.exact,
            tuned=wishes.tuned, precision=wishes.precision,
        )  # fmt: skip
    files = sorted(p.relative_to(bundle.folder) for p in bundle.folder.rglob("*") if p.is_file())
    facts = {"folder": str(bundle.folder), "prefix": bundle.prefix,
             "library": bundle.library.name, "program": bundle.program.name,
             "files": [str(f) for f in files], "report": dict(bundle.report)}  # fmt: skip
    finish(facts, wishes.json, _show)


_ROWS = (
    ("macs", "multiply-adds of one call"), ("source_bytes", "weights in the model's file"),
    ("code_bytes", "code and its constants"), ("weights_bytes", "weights"),
    ("flash_bytes", "flash: code and weights"), ("library_bytes", "library with the weights"),
    ("arena_bytes", "arena"), ("arena_lower_bound", "  lower bound of the arena"),
    ("state_bytes", "states"), ("stack_bytes", "stack, as measured"),
    ("ram_bytes", "RAM: arena, states, stack, data"),
)  # fmt: skip


def _show(facts: dict[str, Any], out: Out) -> None:
    r = facts["report"]
    out.line(f"{r['model']} for {r['target']} in {facts['folder']}", style="bold")
    known = r["stack_bytes"] is not None
    rows = [
        (text if known else text.replace("states, stack", "states"),
         "not known" if r.get(key) is None else count(r[key]))
        for key, text in _ROWS
    ]  # fmt: skip
    out.table(["", Column("bytes", right=True)], rows)
    for v in r.get("levels", ()):
        out.line(f"level {v['name']}: {count(v['code_bytes'])} bytes of code, reads "
                 f"{count(v['weights_bytes'])} bytes of weights")  # fmt: skip
    if r.get("stack_note"):
        out.line(f"the stack is not known: {r['stack_note']}")
    if r["tuned"]:
        out.line(tuned(r['tuned']))
    top = dict.fromkeys(f.partition("/")[0] + "/" * ("/" in f) for f in facts["files"])
    out.line(f"files: {', '.join(top)}")
    out.line(f"link {facts['library']} and include {facts['prefix']}.h; {facts['program']} runs it "
             "on input0.bin, input1.bin, ... and writes output0.bin, ...")  # fmt: skip
