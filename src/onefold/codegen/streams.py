"""Streams of weights that a kernel fetches while it computes (of_stream.h), as C text."""

from __future__ import annotations

from onefold.codegen.family import Rendering

STREAMED = 1 << 18  # bytes of weights that do not stay in a cache from one call to the next
STEP = 16  # OF_STEP
NO_STREAM = "OF_NO_STREAM"


def share_of(number: str, tiles: int, steps: int, size: int, following: str) -> str:
    """What tile `number` of `tiles` fetches in its steps, of `size` bytes from `following` on."""
    return f"of_share({number}, {tiles}, {steps}, {size}, {following})"


def after(r: Rendering, weights: str, there: str, more: str, by_parts: bool) -> str:
    """The address of what is fetched behind a group of weights: `there`, if the C condition `more`
    says that there is more to be read, else what the next step reads first; by_parts: threads
    begin at equal distances in these weights rather than all at their start."""
    return f"({more} ? (const void *)({there}) : {r.next(weights.split()[0], by_parts)})"
