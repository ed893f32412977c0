"""The arena of a compiled model beside its bound, and beside what TFLite Micro takes."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onefold import events
from onefold.dev import peers

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.plan.program import Program

SHARE, ROOM = 0.05, 1024
"""An arena may exceed its bound by this share, or by so many bytes."""


@dataclass(frozen=True)
class Memory:
    """Bytes. bound: most aligned bytes alive at once in the chosen order; file_bound: in the
    file's own order; ports: of all inputs and outputs, which are the caller's here and lie in the
    arena of TFLite Micro; micro: what that takes altogether, micro_tensors its part for tensors
    and scratch (0 where it does not run the model)."""

    arena: int
    bound: int
    file_bound: int
    states: int
    weights: int
    ports: int
    micro: int = 0
    micro_tensors: int = 0

    def problems(self) -> list[str]:
        found = []
        if self.arena > max(self.bound * (1 + SHARE), self.bound + ROOM):
            found.append(f"arena {self.arena:,} above its bound {self.bound:,}")
        if self.bound > self.file_bound:
            found.append(f"bound {self.bound:,} above the file's order {self.file_bound:,}")
        if self.micro and self.arena > self.micro:
            found.append(f"arena {self.arena:,} above TFLite Micro's {self.micro:,}")
        return found


def memory(plans: Sequence[Program], micro: tuple[int, int]) -> Memory:
    """The memory of a model's compiled parts (one, where everything is compiled)."""
    ports = sum(p.buffer.bytes for plan in plans for p in (*plan.inputs, *plan.outputs))
    return Memory(
        max(p.arena_bytes for p in plans), max(p.arena_lower_bound for p in plans),
        max(p.file_order_bound for p in plans), sum(p.state_bytes for p in plans),
        sum(p.weights_bytes for p in plans), ports, *micro,
    )  # fmt: skip


def plans(heard: Sequence[events.Event]) -> list[Program]:
    """The plans among the events of a compilation."""
    return [e.facts["program"] for e in heard if e.kind == "plan"]


def micro_bytes(model: Model) -> tuple[int, int]:
    """The arena that the TFLite Micro interpreter reports: all of it, and its part for tensors;
    (0, 0) where it is not installed or does not take the model."""
    peer = peers.peers()["tflm"]
    if model.read.format != "tflite" or not peers.available(peer):
        return 0, 0
    from onefold.dev.peers.tflm import Interpreter

    try:
        interpreter = Interpreter(model).it
    except peers.PeerRefuses:
        return 0, 0
    told = _stderr_of(interpreter.print_allocations)
    found = dict(re.findall(r"Arena allocation (total|head) (\d+) bytes", told))
    return int(found["total"]), int(found["head"])


def _stderr_of(call: object) -> str:
    """What a call writes to stderr, from C++ too."""
    assert callable(call)
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            call()
        finally:
            os.dup2(saved, 2)
            os.close(saved)
        file.seek(0)
        return file.read().decode("utf-8", "replace")
