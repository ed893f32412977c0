"""`onefold why`: what became of a layer, and why."""

from __future__ import annotations

from typing import Any

import click

from onefold.cli._options import Wishes, bind_options
from onefold.cli._output import Column, Out, finish, layer, macs


@click.command(short_help="What became of a layer, and why.")
@click.argument("model")
@click.argument("name", metavar="LAYER")
@bind_options
def command(wishes: Wishes, model: str, name: str) -> None:
    """Follows LAYER of MODEL (a layer's or a value's name) from the file to the steps that
    compute it."""
    from onefold.dev.why import facts, why
    from onefold.target import find

    story = why(wishes.load(model), name, wishes.binding(), find(wishes.target))
    finish(facts(story), wishes.json, _show)


def _show(facts: dict[str, Any], out: Out) -> None:
    for name in facts["layers"]:
        out.line(name, style="bold")
    out.line("became, when the file was read:")
    _nodes(facts["imported"], out)
    for p in facts["passes"]:
        out.line(f"the pass '{p['pass']}' made of it:" if p["nodes"] else
                 f"the pass '{p['pass']}' took it away")  # fmt: skip
        _nodes(p["nodes"], out)
    if not facts["passes"]:
        out.line("no pass changed it")
    for p in facts["placed"]:
        if p["refusal"]:
            out.line(f"{p['operator']} runs in its NumPy reference: {p['refusal']}", style="yellow")
        else:
            out.line(f"{p['operator']} runs on {p['backend']}")
    for s in facts["steps"]:
        _step(s, out)
    if facts["ending"]:
        out.line(facts["ending"])


def _nodes(rows: list[str], out: Out) -> None:
    for row in rows:
        out.line(f"    {row}")


def _step(s: dict[str, Any], out: Out) -> None:
    out.line()
    out.line(f"step {s['number']} of {s['of']}: {s['function']}()", style="bold")
    others = [layer(x) for x in s["layers"]]
    rows = [("computes", ", ".join(others)), ("by", s["algorithm"]), ("macs", macs(s["macs"]))]
    rows += [("reads", r) for r in s["reads"]] + [("writes", w) for w in s["writes"]]
    rows += [("not by", f"{o['name']}: {o['refusal']}") for o in s["other_kernels"]]
    out.table(["", Column("", limit=160)], rows)
