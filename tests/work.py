"""Bounds on work that hold on any machine, however loaded: counts of calls, and an end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any

from onefold.dev.deadline import deadline


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


def must_end(seconds: float = 60) -> AbstractContextManager[None]:
    """Stops what is far beyond any time that it could take."""
    return deadline(seconds, TimeoutError(f"no end after {seconds} seconds"))
