"""One stream of events: decisions, times, progress, damage found and repaired.

Everything that wants to tell something calls `emit`; everything that wants to know (progress
bars, `ONEFOLD_DEBUG`, `onefold why`, dumps, server logs, tests) subscribes.  While nobody
listens an event costs one test of an empty tuple.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: its kind (`cache.hit`, `step.begin`), time in seconds, facts."""

    kind: str
    time: float
    facts: dict[str, Any] = field(default_factory=dict)


Listener = Callable[[Event], None]
_listeners: tuple[Listener, ...] = ()
_lock = threading.Lock()


def emit(kind: str, /, **facts: Any) -> None:
    """Tells all listeners.  Where computing the facts is costly, ask `listening()` first."""
    if _listeners:
        event = Event(kind, time.perf_counter(), facts)
        for listener in _listeners:
            listener(event)


def listening() -> bool:
    """Whether anybody would hear an event."""
    return bool(_listeners)


def subscribe(listener: Listener) -> Callable[[], None]:
    """Adds a listener; the function returned removes it again."""
    global _listeners
    with _lock:
        _listeners = (*_listeners, listener)

    def remove() -> None:
        global _listeners
        with _lock:
            _listeners = tuple(one for one in _listeners if one is not listener)
    return remove


@contextmanager
def collected() -> Iterator[list[Event]]:
    """The events that happen inside the block, in order."""
    events: list[Event] = []
    keep = events.append  # one object, so that removing finds what adding put there
    remove = subscribe(keep)
    try:
        yield events
    finally:
        remove()


class Progress:
    """A task of several parts, told as `progress.begin`, `progress.step`, `progress.end`."""

    __slots__ = ("_begin", "done", "task", "total")

    def __init__(self, task: str, total: int | None = None) -> None:
        self.task, self.total, self.done = task, total, 0
        self._begin = time.perf_counter()

    def __enter__(self) -> Progress:
        emit("progress.begin", task=self.task, total=self.total)
        return self

    def step(self, name: str = "", count: int = 1) -> None:
        """One more part is done; `name` says which."""
        self.done += count
        emit("progress.step", task=self.task, done=self.done, total=self.total, name=name)

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        emit("progress.end", task=self.task, done=self.done, total=self.total,
             seconds=time.perf_counter() - self._begin, ok=error is None)
