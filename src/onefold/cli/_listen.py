"""Who listens to the event stream while a command runs: the progress bar, debug lines, dumps."""

from __future__ import annotations

import sys
import threading
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
        bar = Bar() if sys.stderr.isatty() else Lines()
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


class Lines:
    """A line on stderr for what is built once and takes long, where no bar can be shown."""

    def __init__(self) -> None:
        self._waiting: dict[str, threading.Timer] = {}

    def __call__(self, event: events.Event) -> None:
        if event.kind == "progress.begin" and event.facts["total"] is None:
            task = event.facts["task"]
            self._waiting[task] = timer = threading.Timer(PATIENCE, self._say, [task])
            timer.daemon = True
            timer.start()
        elif event.kind == "progress.end" and event.facts["task"] in self._waiting:
            self._waiting.pop(event.facts["task"]).cancel()

    def _say(self, task: str) -> None:
        click.echo(f"{printable(task, 60)}: this may take a minute", err=True)

    def close(self) -> None:
        for timer in self._waiting.values():
            timer.cancel()


class Bar:
    """A progress bar on stderr for tasks that take more than a second."""

    def __init__(self) -> None:
        self._display: Any = None
        self._shown: dict[str, Any] = {}
        self._running: dict[str, dict[str, Any]] = {}  # the latest facts of each task
        self._lock = threading.RLock()  # events come from the compiler's threads too

    def __call__(self, event: events.Event) -> None:
        if not event.kind.startswith("progress."):
            return
        task = event.facts["task"]
        with self._lock:
            if event.kind == "progress.begin":
                self._running[task] = dict(event.facts)
                self._later(task)
            elif event.kind == "progress.step" and task in self._running:
                self._running[task] = dict(event.facts)
                if task in self._shown:
                    self._display.update(self._shown[task], completed=event.facts["done"])
            elif event.kind == "progress.end":
                self._end(task)

    def _later(self, task: str) -> None:
        timer = threading.Timer(PATIENCE, self._show, [task])
        timer.daemon = True
        timer.start()

    def _show(self, task: str) -> None:
        with self._lock:
            facts = self._running.get(task)
            if facts is None or task in self._shown:
                return
            if self._display is None:
                self._display = _display()
                self._display.start()
            self._shown[task] = self._display.add_task(
                printable(task, 60), total=facts["total"], completed=facts.get("done", 0)
            )

    def _end(self, task: str) -> None:
        self._running.pop(task, None)
        shown = self._shown.pop(task, None)
        if shown is not None:
            self._display.remove_task(shown)
        if not self._shown:
            self._stop()

    def _stop(self) -> None:
        if self._display is not None:
            self._display.stop()
            self._display = None

    def close(self) -> None:
        """Nothing is shown any more."""
        with self._lock:
            self._running.clear()
            self._shown.clear()
            self._stop()


def _display() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False), BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
