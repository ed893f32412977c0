"""`onefold doctor`: what is installed, and what each missing part would give."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from onefold.cli._options import Wishes, json_option
from onefold.cli._output import Column, Out, finish


@click.command(short_help="What is installed, and what each missing part would give.")
@click.option(
    "--prepare",
    "prepared",
    multiple=True,
    metavar="TARGET",
    help="Build what the toolchain builds once for a target (its C library).",
)
@json_option  # fmt: skip
def command(wishes: Wishes, prepared: tuple[str, ...]) -> int:
    """Lists every part that Onefold can use. The exit code is 1 if a required one is missing."""
    if prepared:
        finish({"prepared": [_prepare(name) for name in prepared]}, wishes.json, _show_prepared)
        return 0
    from onefold.dev.health import healthy, parts

    found = parts()
    facts = {
        "ok": healthy(found),
        "parts": [{"name": p.name, "found": p.found, "gives": p.gives, "how": p.how,
                   "required": p.required} for p in found],
        "formats": _formats(),
        "knobs": _knobs(),
    }  # fmt: skip
    finish(facts, wishes.json, _show)
    return 0 if facts["ok"] else 1


def _prepare(name: str) -> dict[str, Any]:
    from onefold.run import toolchain
    from onefold.target import find

    target = find(name)
    with tempfile.TemporaryDirectory(prefix="onefold-prepare-") as folder:
        return {"target": target.name, "seconds": toolchain.prepare(target, Path(folder))}


def _show_prepared(facts: dict[str, Any], out: Out) -> None:
    for p in facts["prepared"]:
        out.line(f"{p['target']} is ready after {p['seconds']:.1f} s")


def _formats() -> list[dict[str, str]]:
    from onefold.frontend import importers

    return [{"name": i.format, "title": i.title} for i in importers().values()]


def _knobs() -> list[dict[str, Any]]:
    import os

    from onefold import knobs

    return [{"name": k.name, "help": k.help, "value": os.environ.get(k.name, "")}
            for k in knobs.REGISTRY.values()]  # fmt: skip


def _show(facts: dict[str, Any], out: Out) -> None:
    rows = [
        (p["name"], _found(p), p["gives"], "" if p["found"] else p["how"]) for p in facts["parts"]
    ]
    long = [Column("found", limit=200), Column("gives", limit=400)]
    out.table(["part", *long, "how to get it"], rows)
    out.title("model formats")
    out.table(["", ""], [(f["name"], f["title"]) for f in facts["formats"]])
    out.title("environment variables")
    out.table(
        [Column("", limit=40), Column("", limit=400), ""],
        [(k["name"], k["help"], k["value"] and f"now {k['value']}") for k in facts["knobs"]],
    )
    missing = [p["name"] for p in facts["parts"] if p["required"] and not p["found"]]
    out.line()
    if missing:
        out.line("Missing and required: " + ", ".join(missing) + ".", style="bold red")
    else:
        out.line("Everything required is there.", style="green")


def _found(part: dict[str, Any]) -> tuple[str, str]:
    if part["found"]:
        return part["found"], "green"
    return "missing", "bold red" if part["required"] else "yellow"
