"""The progress bar: shown after a while, told how far it is, gone at the end."""

from __future__ import annotations

import time
from typing import Any

import pytest

from onefold import events
from onefold.cli import _listen


class Display:
    """Takes the place of the drawing."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def start(self) -> None:
        self.said.append(("start",))

    def stop(self) -> None:
        self.said.append(("stop",))

    def add_task(self, name: str, total: int | None, completed: int) -> int:
        self.said.append(("add", name, total, completed))
        return 7

    def update(self, task: int, completed: int) -> None:
        self.said.append(("update", completed))

    def remove_task(self, task: int) -> None:
        self.said.append(("remove",))


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Display()
    monkeypatch.setattr(_listen, "_display", lambda: made)
    monkeypatch.setattr(_listen, "PATIENCE", 0.02)
    bar = _listen.Bar()
    remove = events.subscribe(bar)
    yield made
    remove()
    bar.close()


def test_a_long_task_is_shown(display: Display) -> None:
    with events.Progress("com\x1bpile", 3) as progress:
        progress.step()
        time.sleep(0.2)
        progress.step()
    assert display.said == [("start",), ("add", "com\\x1bpile", 3, 1), ("update", 2), ("remove",),
                            ("stop",)]  # fmt: skip


def test_a_line_where_no_bar_can_be_shown(capsys, monkeypatch) -> None:
    monkeypatch.setattr(_listen, "PATIENCE", 0.02)
    lines = _listen.Lines()
    remove = events.subscribe(lines)
    with events.Progress("library, built once"), events.Progress("compile", 3):
        time.sleep(0.2)
    with events.Progress("quick, built once"):
        pass
    time.sleep(0.1)
    remove()
    lines.close()
    assert capsys.readouterr().err == "library, built once: this may take a minute\n"


def test_a_short_task_is_not_shown(display: Display) -> None:
    with events.Progress("compile", 3):
        pass
    time.sleep(0.1)
    assert display.said == []


def test_a_task_that_fails_leaves_nothing_behind(display: Display) -> None:
    with pytest.raises(KeyError), events.Progress("compile"):
        time.sleep(0.2)
        raise KeyError
    assert display.said[-1] == ("stop",)
