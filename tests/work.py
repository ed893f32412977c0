"""Bounds on work that hold on any machine, however loaded: counts of calls, and an end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def calls(do: Callable[[], Any]) -> int:
    """How many calls of Python functions it takes."""
    count = 0

    def look(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        do()
    finally:
        sys.setprofile(before)
    return count


@contextmanager
def must_end(seconds: float = 60) -> Iterator[None]:
    """Stops what is far beyond any time that it could take."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"no end after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
