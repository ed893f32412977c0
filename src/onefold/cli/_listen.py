"""Who listens to the event stream while a command runs: the progress bar, debug lines, dumps."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import click

from onefold import events
from onefold.errors import printable

PATIENCE = 1.0
"""Seconds before a task is worth a progress bar."""


@contextmanager
def listening() -> Iterator[None]:
    """Listeners for the time of one command."""
    from onefold.dev import listeners

    with ExitStack() as stack:
        stack.enter_context(listeners.installed())
        stack.enter_context(_plain_warnings())
        if sys.stderr.isatty():
            bar = Bar()
            stack.callback(events.subscribe(bar))
            stack.callback(bar.close)
        yield


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings of ours as one line each on stderr; those of the libraries not at all."""

    def show(message: Any, *_: Any) -> None:
        click.echo(f"warning: {printable(message, 1000)}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=UserWarning, module="onefold")
        warnings.showwarning = cast(Any, show)
        yield


class Bar:
    """A progress bar on stderr for tasks that take more than a second."""

    def __init__(self) -> None:
        self._display: Any = None
        self._tasks: dict[str, Any] = {}
        self._since: dict[str, float] = {}

    def __call__(self, event: events.Event) -> None:
        task = event.facts.get("task", "")
        if event.kind == "progress.begin":
            self._since[task] = event.time
            if event.facts.get("total") is None:  # it will not tell how far it is
                self._show(task, event.facts)
        elif event.kind == "progress.step" and task in self._since:
            if task in self._tasks or event.time - self._since[task] > PATIENCE:
                self._show(task, event.facts)
        elif event.kind == "progress.end":
            self._since.pop(task, None)
            shown = self._tasks.pop(task, None)
            if shown is not None:
                self._display.remove_task(shown)
            if not self._tasks:
                self.close()

    def _show(self, task: str, facts: dict[str, Any]) -> None:
        if self._display is None:
            self._display = _display()
            self._display.start()
        if task not in self._tasks:
            name = printable(task, 60)
            self._tasks[task] = self._display.add_task(name, total=facts.get("total"))
        self._display.update(self._tasks[task], completed=facts.get("done", 0))

    def close(self) -> None:
        if self._display is not None:
            self._display.stop()
            self._display, self._tasks = None, {}


def _display() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False), BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
