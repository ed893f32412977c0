"""Compiled programs in this process."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onefold.errors import RunError
from onefold.ir import dims, dtypes
from onefold.ir.graph import Array
from onefold.run.artifact import LIBRARY, WEIGHTS, Artifact

REASONS = {1: "an index read from a tensor is out of range", 2: "a size is out of its bounds",
           3: "an input holds a value that the operator does not take"}  # fmt: skip


class Loaded:
    """An artifact loaded into this process; `run` may be called from several threads."""

    def __init__(self, artifact: Artifact) -> None:
        f = artifact.facts
        self.facts: Mapping[str, Any] = f
        self._lib = ctypes.CDLL(str(artifact.path / LIBRARY))
        self._run = getattr(self._lib, f"{f['prefix']}_run")
        weights = artifact.path / WEIGHTS
        size = f["weights_bytes"]
        self._weights = np.memmap(weights, np.uint8, "r") if size else np.zeros(64, np.uint8)
        self._state = np.zeros(f["state_bytes"] + 64, np.uint8)
        self.reset()

    def reset(self) -> None:
        """State back to its initial contents."""
        self._state[:] = 0
        for s in self.facts["states"]:
            if s["initial"] is not None:
                raw = np.frombuffer(bytes.fromhex(s["initial"]), np.uint8)
                self._state[s["offset"] : s["offset"] + raw.size] = raw

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Outputs for inputs in the program's order, types and shapes already checked."""
        f = self.facts
        env: dict[str, int] = {}
        ins = [np.asarray(a, order="C") for a in inputs]
        for a, port in zip(ins, f["inputs"], strict=True):
            for size, d in zip(a.shape, port["shape"], strict=True):
                if not isinstance(d, int):
                    env[d[1][2]] = size
        sizes = [env.get(d["name"], 0) for d in f["dims"]] + [0] * len(f["found"])
        table = (ctypes.c_int64 * max(len(sizes), 1))(*sizes)
        outs = [np.empty(p["bytes"] + 64, np.uint8) for p in f["outputs"]]
        arena = np.empty(f["arena_bytes"] + 64, np.uint8)
        start = -arena.ctypes.data % 64
        code = self._run(
            ctypes.c_void_p(arena.ctypes.data + start), ctypes.c_void_p(self._weights.ctypes.data),
            ctypes.c_void_p(self._state.ctypes.data), _pointers(ins), _pointers(outs), table,
        )  # fmt: skip
        if code:
            raise self.failure(code)
        for d, size in zip(f["dims"] + f["found"], table, strict=False):
            env[d["name"]] = size
        return [self._shaped(o, p, env) for o, p in zip(outs, f["outputs"], strict=True)]

    def failure(self, code: int) -> RunError:
        step, reason = divmod(code, 16)
        labels = self.facts["labels"]
        where = labels[step - 1] if 0 < step <= len(labels) else self.facts["name"]
        return RunError("the program stopped", where=where, why=REASONS.get(reason, str(reason)))

    def _shaped(self, raw: Array, port: Mapping[str, Any], env: Mapping[str, int]) -> Array:
        shape = tuple(dims.value_of(d, env) for d in port["shape"])
        kind = dtypes.BY_NAME[port["dtype"]]
        size = int(np.prod(shape, dtype=np.int64)) * kind.bytes
        return raw[:size].view(kind.numpy).reshape(shape)


def _pointers(arrays: Sequence[Array]) -> Any:
    return (ctypes.c_void_p * max(len(arrays), 1))(*[a.ctypes.data for a in arrays])
