"""How a failed command ends: a message, never a traceback."""

from __future__ import annotations

import errno
import json
import os
import sys
from typing import Any

import click

from onefold.errors import MemoryLimitError, OnefoldError, OptionError, ShapeError, printable


def usage(error: click.ClickException, as_json: bool) -> int:
    """A command line that cannot be understood."""
    if as_json:
        context = getattr(error, "ctx", None)  # of most kinds
        told = OptionError(error.format_message(), where=context and context.command_path)
        _json(told.to_json() | {"error": "UsageError"})
    else:
        error.show(sys.stderr)
    return 2


def known(error: OnefoldError, as_json: bool) -> None:
    """An error of the tree: its own text, or its fields."""
    if as_json:
        _json(error.to_json())
    else:
        click.echo(str(error), err=True)
    _traceback()


def unknown(error: Exception, as_json: bool) -> int:
    """Anything else: named where it has a name in the tree, else called what it is, a defect."""
    known(translated(error), as_json)
    return 1


def translated(error: Exception) -> OnefoldError:
    """The error of the tree that says what an exception of another kind means to the user."""
    # Importing here could fail as whatever failed did; what is not loaded has raised nothing.
    binding: Any = sys.modules.get("onefold.frontend.binding")
    if hasattr(binding, "ValueNeeded") and isinstance(error, binding.ValueNeeded):
        names = ", ".join(error.inputs)
        return ShapeError(
            error.reason, where=f"layer '{error.layer}'",
            why=f"it depends on the contents of {names}",
            remedy=f"Give them: --value {error.inputs[0] if error.inputs else 'NAME'}=FILE.npy "
                   "or --value NAME=1,2,3.",
        )  # fmt: skip
    if isinstance(error, MemoryError):
        return MemoryLimitError(
            "there is not enough memory", why=printable(error) or "malloc failed"
        )
    return OnefoldError(
        f"unexpected {type(error).__name__}: {printable(error, 300)}",
        why="this is a defect in Onefold, not in your model or your command line",
        remedy="Report it with the command line and, if you may, the model; ONEFOLD_DEBUG=1 shows "
               "the traceback that belongs into the report.",
    )  # fmt: skip


def full(error: OSError) -> bool:
    """Whether what has been printed cannot be written; errors of files have the file's name."""
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def no_output() -> int:
    """Whoever read the output has left (`onefold ... | head`), or it cannot be written; nothing
    more is said there."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _traceback() -> None:
    from onefold import knobs

    try:
        wanted = knobs.DEBUG.get() > 0
    except OptionError:  # that may be the error which is being told
        wanted = False
    if wanted:
        import traceback

        traceback.print_exc()


def _json(data: dict[str, Any]) -> None:
    click.echo(json.dumps(data, indent=1))
