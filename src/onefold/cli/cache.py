"""`onefold cache`: the compiled programs that are kept."""

from __future__ import annotations

import time
from typing import Any

import click

from onefold.cli._options import Wishes, json_option
from onefold.cli._output import Column, Out, finish, size


@click.group(
    short_help="Compiled programs that are kept: list, size, clear.", invoke_without_command=True
)
@json_option
@click.pass_context
def command(context: click.Context, wishes: Wishes) -> None:
    """Compiled programs are kept by content, so that a model compiles once. Alone: `list`."""
    if context.invoked_subcommand is None:
        context.invoke(list_entries, json=wishes.json)
    elif wishes.json:
        raise click.UsageError(f"Write: {context.command_path} {context.invoked_subcommand} --json")


@command.command("list")
@json_option
def list_entries(wishes: Wishes) -> None:
    """What is there, most recently used first."""
    from onefold.run import cache

    rows = [
        {"key": e.key, "model": str(e.meta.get("model", "?")), "bytes": e.bytes,
         "target": str(e.meta.get("report", {}).get("target", "?")), "used": e.used}
        for e in cache.entries()
    ]  # fmt: skip
    finish({"entries": rows, "bytes": sum(r["bytes"] for r in rows)}, wishes.json, _show)


def _show(facts: dict[str, Any], out: Out) -> None:
    rows = facts["entries"]
    if not rows:
        out.line("The cache is empty.")
        return
    out.table(
        ["model", "target", Column("size", right=True), Column("last used", right=True), "key"],
        [(r["model"], r["target"], size(r["bytes"]), ago(time.time() - r["used"]), r["key"][:12])
         for r in rows],
    )  # fmt: skip
    out.line(f"{len(rows)} programs, {size(facts['bytes'])}")


def ago(seconds: float) -> str:
    """A time span in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


@command.command("size")
@json_option
def size_of_all(wishes: Wishes) -> None:
    """How much room it takes, where it is, and how much it may take."""
    from onefold import knobs
    from onefold.run import cache, store

    facts = {"folder": str(store.cache_folder()), "bytes": cache.size(),
             "limit": knobs.CACHE_LIMIT.get()}  # fmt: skip
    finish(facts, wishes.json, lambda f, out: out.line(
        f"{size(f['bytes'])} of {size(f['limit'])} in {f['folder']}"))  # fmt: skip


@command.command("clear")
@json_option
def clear(wishes: Wishes) -> None:
    """Removes every compiled program."""
    from onefold.run import cache

    finish({"freed": cache.clear()}, wishes.json,
           lambda f, out: out.line(f"{size(f['freed'])} freed"))  # fmt: skip
