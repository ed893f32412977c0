"""`onefold explain`: what an error code means, its usual causes, and what to do."""

from __future__ import annotations

from typing import Any

import click

from onefold.cli._options import Wishes, json_option
from onefold.cli._output import Out, finish


@click.command(short_help="What an error code means.")
@click.argument("code", required=False)
@json_option
def command(wishes: Wishes, code: str | None) -> None:
    """What the error CODE (such as OF301) means; without a code, all of them."""
    from onefold import errors

    if code is None:
        rows = [
            {"code": c, "title": kind.title, "error": cls.__name__}
            for c, (kind, cls) in errors.all_kinds().items()
        ]
        finish({"codes": rows}, wishes.json, _show_all)
        return
    kind = errors.explain(code)
    facts = {"code": kind.code, "title": kind.title, "meaning": kind.meaning,
             "causes": list(kind.causes), "remedy": kind.remedy, "text": kind.text()}  # fmt: skip
    finish(facts, wishes.json, lambda f, out: out.block(f["text"]))


def _show_all(facts: dict[str, Any], out: Out) -> None:
    out.table(["code", "title", "raised as"],
              [(r["code"], r["title"], r["error"]) for r in facts["codes"]])  # fmt: skip
    out.line("`onefold explain CODE` tells more of one of them.")
