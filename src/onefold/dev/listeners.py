"""ONEFOLD_DEBUG and ONEFOLD_DUMP: two listeners of the event stream."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from onefold import events, knobs
from onefold.errors import printable

LEVELS = {
    "target": 1, "fallback": 1, "cache.damaged": 1, "progress.end": 2, "cache.hit": 2,
    "cache.build": 2, "cache.evict": 2, "cache.wait": 2, "emulator.run": 2, "pass": 3,
    "kernel": 3, "toolchain.run": 4, "sources": 4, "patch": 6,
}  # fmt: skip
"""From which level on an event is told; others at the highest."""

HIGHEST = 6
IR_LEVEL = 5


@contextmanager
def installed() -> Iterator[None]:
    """The listeners that the environment asks for, for the time of the block. A block inside
    another one adds none."""
    with ExitStack() as stack:
        if not _Installed.now:
            _Installed.now = True
            stack.callback(setattr, _Installed, "now", False)
            for listener in _wanted():
                stack.callback(events.subscribe(listener))
        yield


class _Installed:
    now = False


def _wanted() -> Iterator[events.Listener]:
    level, folder = knobs.DEBUG.get(), knobs.DUMP.get()
    if level:
        yield Teller(level)
    if folder is not None:
        from onefold.dev.dump import Dump

        yield Dump(folder)


class Teller:
    """Prints events up to a level on stderr, one line each."""

    def __init__(self, level: int) -> None:
        self.level = level

    def __call__(self, event: events.Event) -> None:
        if LEVELS.get(event.kind, HIGHEST) > self.level:
            return
        facts = {k: v for k, v in event.facts.items() if isinstance(v, (str, int, float, list))}
        told = " ".join(f"{k}={_short(v)}" for k, v in facts.items())
        print(f"[{event.kind}] {printable(told, 2000)}", file=sys.stderr)
        if event.kind == "pass" and event.facts.get("changes") and self.level >= IR_LEVEL:
            print(event.facts["graph"], file=sys.stderr)


def _short(v: object) -> str:
    return f"{v:.4g}" if isinstance(v, float) else str(v)
