"""Streams of weights that a kernel fetches while it computes (of_stream.h), as C text."""

from __future__ import annotations

STREAMED = 1 << 18  # bytes of weights that do not stay in a cache from one call to the next
STEP = 16  # OF_STEP
NO_STREAM = "OF_NO_STREAM"


def share_of(number: str, tiles: int, steps: int, size: int, following: str) -> str:
    """What tile `number` of `tiles` fetches in its steps, of `size` bytes from `following` on."""
    return f"of_share({number}, {tiles}, {steps}, {size}, {following})"
