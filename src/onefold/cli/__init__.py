"""The command line: one file of this package per verb, found by being there.

A verb's module has a click command called `command`; modules whose names begin with an underscore
are shared by the verbs. Everything heavy is imported inside functions, so `onefold --help` is
instant.
"""

from __future__ import annotations

import importlib
import pkgutil
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click

from onefold.errors import DiskError, OnefoldError, OptionError

DONE, FAILED, USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


class Verbs(click.Group):
    """The verbs of this package, imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name[0] != "_")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{__name__}.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            from onefold.errors import did_you_mean, printable

            hint = did_you_mean(args[0], self.list_commands(ctx))
            raise click.UsageError(
                f"There is no verb '{printable(args[0], 60)}'. {hint}".rstrip(), ctx
            ) from None


def _version(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    if asked:
        from onefold import __version__

        click.echo(f"onefold {__version__}")
        ctx.exit()


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="Show the version and end.",
)
def onefold() -> None:
    """One model in, every edge device out.

    Compiles a neural network (ONNX, TensorFlow Lite) into plain C made for exactly that model on
    exactly that device, and runs, checks, measures and explains it.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `onefold` command; ends the process with 0, 1 (error) or 2 (usage)."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that what is open is closed
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: list[str]) -> int:
    """Runs a command line; returns its exit code. Every failure becomes a message."""
    from onefold.cli import _failure, _listen

    as_json = "--json" in arguments
    try:
        with _listen.listening():
            done: Any = onefold.main(arguments, prog_name="onefold", standalone_mode=False)
        sys.stdout.flush()
        return done if isinstance(done, int) else DONE
    except click.exceptions.Exit as e:
        return e.exit_code
    except click.ClickException as e:
        return _failure.usage(e, as_json)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except OnefoldError as e:
        _failure.known(e, as_json)
        return USAGE if isinstance(e, OptionError) else FAILED
    except BrokenPipeError:
        return _failure.no_output()
    except OSError as e:
        if not _failure.full(e):
            return _failure.unknown(e, as_json)
        _failure.known(DiskError("the output cannot be written", why=str(e)), as_json=False)
        return _failure.no_output()
    except Exception as e:
        return _failure.unknown(e, as_json)
