"""The threads of this process that help programs compiled for several.

There is one team for all programs, so that several of them do not ask for more threads than the
machine has CPUs: a call takes the helpers that are there, and while another call has them it runs
on its own thread alone. Helpers spend their life inside a compiled library, without the
interpreter's lock, asleep unless a call needs them. They start with the first call that could use
them, and are daemons: nothing waits for them when the interpreter ends.
"""

from __future__ import annotations

import ctypes
import os
import threading

from onefold import knobs
from onefold.codegen.team import BYTES
from onefold.run.library import Block, Library


class Team:
    """Helpers and the memory in which they meet their callers."""

    def __init__(self) -> None:
        self.memory = Block(BYTES)
        # Helpers look at the memory until the very end of the process: it is never given back.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.memory))
        self.address = self.memory.address
        self.threads = self.asked = 1  # with a caller
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        """The child has the memory, but none of the helpers."""
        self.memory.fill(b"")
        self.threads = self.asked = 1
        self._lock = threading.Lock()

    def grow(self, library: Library) -> None:
        """Helpers for the calls of a program, as far as there are CPUs; they serve in its code."""
        with self._lock:
            self.asked = max(self.asked, library.threads)
            while self.threads < min(library.threads, usable()):
                helper = threading.Thread(
                    target=library.work, args=(ctypes.c_void_p(self.address), self.threads),
                    daemon=True, name=f"onefold-{self.threads}",
                )  # fmt: skip
                self.threads += 1  # whatever happens: a seat is given once
                try:
                    helper.start()
                except RuntimeError:  # the system has no more threads: calls do with fewer
                    return


def usable() -> int:
    """The threads that calls may run on at once: as many as this process has CPUs, unless
    ONEFOLD_THREADS says otherwise."""
    return knobs.THREADS.get() or len(os.sched_getaffinity(0))


TEAM = Team()
