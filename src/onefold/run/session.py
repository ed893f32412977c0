"""Compiled programs in this process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from onefold.errors import InputError, OptionError, RunError
from onefold.feeds import check_names
from onefold.run.artifact import LIBRARY, WEIGHTS, Artifact
from onefold.run.library import ArenaPool, Block, Call, Library, Weights, address
from onefold.run.ports import PortFacts, shape_of, value_of

if TYPE_CHECKING:
    from onefold.ir.graph import Array


class Loaded:
    """An artifact loaded into this process. `run` may be called from several threads: each call
    has an arena of its own; programs with state take one call at a time."""

    def __init__(self, artifact: Artifact) -> None:
        f = artifact.facts
        self.facts: Mapping[str, Any] = f
        self.inputs = [PortFacts.of(p) for p in f["inputs"]]
        self.outputs = [PortFacts.of(p) for p in f["outputs"]]
        self.names = [d["name"] for d in (*f["dims"], *f["found"])]
        self.library = Library(artifact.path / LIBRARY, f["prefix"], f["labels"], f["threads"])
        self.weights = Weights(artifact.path / WEIGHTS if f["weights_bytes"] else None)
        self.arenas = ArenaPool(f["arena_bytes"] + 64)
        self.state = Block(f["state_bytes"]) if f["state_bytes"] else None
        self._lock = threading.Lock()
        self._calls: deque[Call] = deque(maxlen=8)
        self._fixed: list[tuple[tuple[int, ...], np.dtype[Any]]] | None = None
        if not self.names:
            self._fixed = [(p.ints, p.dtype) for p in self.outputs]
            self._shapes = [p.ints for p in self.inputs]
        self.reset()

    def reset(self) -> None:
        """State back to its initial contents."""
        self._grown = {d["name"]: d["lo"] for d in self.facts["dims"] if d.get("next") is not None}
        if self.state is None:
            return
        image = bytearray(self.state.size)
        for s in self.facts["states"]:
            if s["initial"] is not None:
                raw = bytes.fromhex(s["initial"])
                image[s["offset"] : s["offset"] + len(raw)] = raw
        self.state.fill(bytes(image))

    def ticks(self) -> list[int]:
        """Time that each step has taken since the last call, and the time now, in units of the
        machine's clock; empty where the program does not count it."""
        return self.library.ticks(len(self.facts["steps"]))

    def sizes(self, inputs: Sequence[Array]) -> dict[str, int]:
        """The run-time dimensions that the inputs' shapes tell.

        Raises InputError where two inputs disagree or a size is out of its bounds.
        """
        env: dict[str, int] = dict(self._grown)
        for a, port in zip(inputs, self.inputs, strict=True):
            port.match(a.shape, env)
        for d in self.facts["dims"]:
            size = env.get(d["name"])
            if size is None:
                continue
            if d.get("next") is not None:
                size = value_of(d["next"], env)
            if not d["lo"] <= size <= d["hi"]:
                raise _out_of_bounds(d, size)
        return env

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Outputs for inputs in the program's order, element types already checked."""
        ins = [np.asarray(a, order="C") for a in inputs]
        if self._fixed is not None and self.state is None:
            return self._run_fixed(ins, self._fixed)
        if self.state is None:
            return self._run(ins)
        with self._lock:
            return self._run(ins)

    def _run_fixed(
        self, ins: list[Array], fixed: Sequence[tuple[tuple[int, ...], np.dtype[Any]]]
    ) -> list[Array]:
        """A program whose sizes are all known: prepared calls are kept and bound anew."""
        if [a.shape for a in ins] != self._shapes:
            self.sizes(ins)
        outs = [np.empty(shape, dtype) for shape, dtype in fixed]
        try:
            call = self._calls.pop()
        except IndexError:
            call = Call(self.library, self.arenas.take(), self.weights, None, ins, outs)
        else:
            call.bind(ins, outs)
        call()
        call.release()
        self._calls.append(call)
        return outs

    def _run(self, ins: Sequence[Array]) -> list[Array]:
        env = self.sizes(ins)
        static = not self.names
        outs = [np.empty(self._room(p, env), p.dtype) for p in self.outputs]
        table = [env.get(n, 0) for n in self.names]
        with self.arenas.arena() as arena:
            call = Call(self.library, arena, self.weights, self.state, ins, outs, table)
            call()
        if static:
            return outs
        for name, size in zip(self.names, call.dims, strict=False):
            if name in self._grown:
                self._grown[name] = size
            else:
                env[name] = size
        return [_shaped(o, shape_of(p, env)) for o, p in zip(outs, self.outputs, strict=True)]

    def _room(self, port: PortFacts, env: Mapping[str, int]) -> tuple[int, ...]:
        """The shape of an output, or its largest size where the program finds the size out."""
        try:
            return shape_of(port, env)
        except KeyError:
            return (port.capacity,)

    def prepare(
        self, inputs: Sequence[Array] | None, outputs: Mapping[str, Any] | None
    ) -> PreparedCall:
        """See Program.prepare; inputs in the program's order, element types already checked."""
        if self._grown or self.facts["found"] or (inputs is None and self.names):
            raise OptionError(
                "a call cannot be prepared for sizes that are not known beforehand",
                why="a state grows" if self._grown else "sizes are found out by the program"
                if self.facts["found"] else "dimensions are open: "
                + ", ".join(d["name"] for d in self.facts["dims"]),
                remedy="Call the program itself." if self._grown or self.facts["found"]
                else "Give the inputs: their sizes are those of the call.",
            )  # fmt: skip
        if inputs is None:
            inputs = [np.zeros(p.ints, p.dtype) for p in self.inputs]
        env = self.sizes(inputs)
        given = dict(outputs or {})
        check_names("output", given, [p.name for p in self.outputs])
        outs = [_output(p, shape_of(p, env), given.get(p.name)) for p in self.outputs]
        _check_apart(self, inputs, outs)
        table = [env[n] for n in self.names]
        call = Call(
            self.library, self.arenas.take(), self.weights, self.state, inputs, outs, table
        )
        lock = self._lock if self.state is not None else None
        return PreparedCall(
            call, {p.name: a for p, a in zip(self.inputs, inputs, strict=True)},
            {p.name: a for p, a in zip(self.outputs, outs, strict=True)}, lock,
        )  # fmt: skip


class PreparedCall:
    """A program bound to arrays: each call reads `inputs` and writes `outputs`, where they lie.

    Both are dicts by name; `call` holds what C is called with. The arrays are the same at every
    call, so that what is to be kept must be copied; an array put into a dict later is not looked
    at. It holds all that it needs, also when program and model are gone. One thread at a time may
    be in it; others prepare their own.
    """

    __slots__ = ("_free", "call", "inputs", "outputs")

    def __init__(
        self, call: Call, inputs: dict[str, Array], outputs: dict[str, Array],
        state: threading.Lock | None,
    ) -> None:  # fmt: skip
        self.inputs, self.outputs = inputs, outputs
        self.call = call
        # What runs the program, while no thread is in this call: a list is quicker than a lock.
        self._free = [call.enter if state is None else partial(_one_by_one, state, call.enter)]

    def __call__(self) -> dict[str, Array]:
        """Runs the program; the result is `outputs`. Raises RunError when a step reports an error,
        or another thread is in this call."""
        try:
            enter = self._free.pop()
        except IndexError:
            what = "this prepared call is running already"
            raise RunError(what, kind=RunError.BUSY) from None
        try:
            if code := enter():
                raise self.call.library.error(code)
        finally:
            self._free.append(enter)
        return self.outputs


def _one_by_one(lock: threading.Lock, enter: Callable[[], int]) -> int:
    with lock:
        return enter()


def _output(port: PortFacts, shape: tuple[int, ...], given: Any) -> Array:
    """The array for an output: the given one if it fits, or a new one. Raises InputError."""
    if given is None:
        return np.empty(shape, port.dtype)
    if not isinstance(given, np.ndarray) or given.dtype != port.dtype or given.shape != shape:
        found = f"{given.dtype.name}{list(given.shape)}" if isinstance(given, np.ndarray) else ""
        raise InputError(
            f"the array for output '{port.name}' does not fit",
            why=f"it is {found or type(given).__name__}, not {port.dtype.name}{list(shape)}",
            remedy="Leave it out to have it made.",
        )
    return given


def _check_apart(loaded: Loaded, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
    """Raises InputError for arrays that cannot be used where they lie, and for an output that
    shares memory with another array: programs rely on it that they do not."""
    named = [(f"input '{p.name}'", a) for p, a in zip(loaded.inputs, inputs, strict=True)]
    for name, array in named:
        address(array, what=name)
    for port, array in zip(loaded.outputs, outputs, strict=True):
        name = f"output '{port.name}'"
        address(array, write=True, what=name)
        for other, against in named:
            if np.may_share_memory(array, against):
                raise InputError(f"{name} shares memory with {other}",
                                 remedy="Give it memory of its own.")  # fmt: skip
        named.append((name, array))


def _out_of_bounds(d: Mapping[str, Any], size: int) -> InputError:
    why = f"the program was compiled for {d['lo']} to {d['hi']}"
    if d.get("next") is not None:
        return InputError(
            f"the state is full: {d['name']} would become {size}", why=why,
            kind=InputError.FULL,
        )  # fmt: skip
    return InputError(f"the dimension {d['name']} is {size}", why=why,
                      remedy="Compile with a wider range: --dim NAME=LO..HI.")  # fmt: skip


def _shaped(raw: Array, shape: tuple[int, ...]) -> Array:
    size = 1
    for d in shape:
        size *= d
    return raw.reshape(-1)[:size].reshape(shape)
