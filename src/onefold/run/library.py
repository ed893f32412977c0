"""Loads a compiled shared object and calls it.

The contract with the generated code, for a program whose symbols begin with PREFIX:

    int32_t PREFIX_run(void *arena, const void *weights, void *state,
                       const void *const *inputs, void *const *outputs, int64_t *dims);

The return value is 0, or `1 + 16 * step + reason` with a reason of `REASONS`.  `arena`,
`weights` and `state` are aligned to 64 bytes; `dims` holds the run-time dimensions, given and
written back.  The function keeps nothing between calls outside of `state`, so that one library
serves any number of threads, each call with its own arena.  ctypes releases the GIL meanwhile.

A program for several threads also has

    int32_t PREFIX_run_team(void *team, ... the same ...);
    void PREFIX_work(void *team, int32_t part);

where PREFIX_work is what the other threads of a team are in, and PREFIX_run is without them.
"""

from __future__ import annotations

import ctypes
import mmap
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onefold.errors import InputError, RunError

if TYPE_CHECKING:
    from onefold.run.team import Team

ALIGN = 64

MISFIT = "shapes do not fit"
REASONS = ("error", "index out of range", "size above its bound", "division by zero",
           MISFIT, "loop limit exceeded", "out of memory", "value not allowed")
"""What a step can report; the generated code numbers them in this order."""

Array = np.ndarray[Any, Any]


class Library:
    """A loaded program.  `steps` are the layer names that an error number is decoded with.

    Raises `RunError` when the file cannot be loaded or has no such entry.
    """

    def __init__(
        self, path: Path, prefix: str, steps: Sequence[str] = (), threads: int = 1
    ) -> None:
        self.path, self.prefix, self.steps = path, prefix, tuple(steps)
        self.threads = threads
        try:
            self._handle = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
            self.run = self._handle[f"{prefix}_run{'_team' if threads > 1 else ''}"]
            self.work = self._handle[f"{prefix}_work"] if threads > 1 else None
        except (OSError, AttributeError) as error:
            raise RunError("the compiled program cannot be loaded", where=path.name,
                           why=str(error), kind=RunError.LOAD) from error
        self.run.restype = ctypes.c_int32

    def ticks(self, count: int) -> list[int]:
        """The counts of a program's steps, which begin anew, and the time now; empty where there
        are none."""
        function = getattr(self._handle, f"{self.prefix}_ticks", None)
        if function is None:
            return []
        function.restype = ctypes.POINTER(ctypes.c_uint64)
        counts = function()
        out = [int(counts[k]) for k in range(count + 1)]
        ctypes.memset(counts, 0, 8 * count)
        return out

    def error(self, code: int) -> RunError:
        """The error behind a return value other than 0."""
        step, reason = divmod(code - 1, 16)
        known = 0 <= reason < len(REASONS) and code > 0
        layer = self.steps[step] if 0 <= step < len(self.steps) else f"step {step}"
        why = REASONS[reason] if known else f"error number {code}"
        return RunError("the program stopped with an error", where=f"layer '{layer}'", why=why,
                        kind=RunError.SIZES if why == MISFIT else RunError.STEP)


class Block:
    """Memory of its own, zeroed, aligned to a page: an arena or a state."""

    __slots__ = ("_map", "_view", "address", "reference", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        # Private: a forked child must not write into what its parent computes.
        self._map = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if size >= 1 << 21 and hasattr(mmap, "MADV_HUGEPAGE"):
            try:
                self._map.madvise(mmap.MADV_HUGEPAGE)
            except OSError:  # a kernel without huge pages
                pass
        self._view = (ctypes.c_char * max(size, 1)).from_buffer(self._map)
        self.address = ctypes.addressof(self._view)
        self.reference = ctypes.byref(self._view)

    def fill(self, contents: bytes) -> None:
        """Overwrites the start with `contents` and clears the rest."""
        if len(contents) > self.size:
            raise ValueError(f"{len(contents)} bytes do not fit into {self.size}")
        ctypes.memmove(self.address, contents, len(contents))
        ctypes.memset(self.address + len(contents), 0, self.size - len(contents))


class Weights:
    """The weights file, mapped read-only; its pages are shared by all processes."""

    __slots__ = ("_array", "address", "reference", "size")

    def __init__(self, path: Path | None) -> None:
        self._array: Array | None = None
        self.address = self.size = 0
        self.reference: Any = None
        if path is not None and (size := path.stat().st_size):
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
            self._array = np.frombuffer(mapped, np.uint8)
            self.address, self.size = self._array.__array_interface__["data"][0], size
            self.reference = ctypes.byref(ctypes.c_char.from_address(self.address))


class ArenaPool:
    """Arenas of one program: as many as calls run at once, at most `keep` of them kept."""

    def __init__(self, size: int, keep: int = 8) -> None:
        self.size = size
        self._free: deque[Block] = deque(maxlen=keep)

    def take(self) -> Block:
        try:
            return self._free.pop()
        except IndexError:
            return Block(self.size)

    def give(self, block: Block) -> None:
        self._free.append(block)

    @contextmanager
    def arena(self) -> Iterator[Block]:
        """An arena for the time of the block."""
        block = self.take()
        try:
            yield block
        finally:
            self.give(block)


class Call:
    """A prepared call: all addresses bound once, so that calling costs less than a microsecond.

    It holds its arena and its arrays, and so may run once at a time. enter: runs the program and
    tells its return value.
    """

    __slots__ = ("_input_arrays", "_inputs", "_output_arrays", "_outputs", "_owners", "arena",
                 "arguments", "dims", "enter", "library")

    def __init__(self, library: Library, arena: Block, weights: Weights, state: Block | None,
                 inputs: Sequence[Array], outputs: Sequence[Array],
                 dims: Sequence[int] = ()) -> None:
        self.library, self.arena = library, arena
        # The arguments are plain addresses: what they point into must live as long as the call.
        self._input_arrays, self._output_arrays = list(inputs), list(outputs)
        self._owners = (weights, state)
        self._inputs = (ctypes.c_void_p * max(len(inputs), 1))(*map(address, inputs))
        self._outputs = (ctypes.c_void_p * max(len(outputs), 1))(
            *(address(a, write=True) for a in outputs))
        self.dims = (ctypes.c_int64 * max(len(dims), 1))(*dims)
        # ctypes converts references in half of the time that it takes for void pointers.
        self.arguments: tuple[Any, ...] = (
            arena.reference, weights.reference, state.reference if state else None,
            ctypes.byref(self._inputs), ctypes.byref(self._outputs), ctypes.byref(self.dims))
        self.enter: Callable[[], int] = partial(library.run, *self.arguments)
        if library.threads > 1:
            from onefold.run.team import TEAM

            self.arguments = (ctypes.c_void_p(TEAM.address), *self.arguments)
            self.enter = partial(_by_team, TEAM, library, self.arguments)

    def set_input(self, index: int, array: Array) -> None:
        """Binds another array to an input."""
        self._inputs[index] = address(array)
        self._input_arrays[index] = array

    def set_output(self, index: int, array: Array) -> None:
        """Binds another array to an output."""
        self._outputs[index] = address(array, write=True)
        self._output_arrays[index] = array

    def bind(self, inputs: list[Array], outputs: list[Array]) -> None:
        """Binds other arrays to all inputs and outputs; the outputs are known to be writable."""
        for k, a in enumerate(inputs):
            self._inputs[k] = a.__array_interface__["data"][0]
        for k, a in enumerate(outputs):
            self._outputs[k] = a.__array_interface__["data"][0]
        self._input_arrays, self._output_arrays = inputs, outputs

    def release(self) -> None:
        """Lets go of the arrays; `bind` comes before the next call."""
        self._input_arrays, self._output_arrays = [], []

    def __call__(self) -> None:
        """Runs the program.  Raises `RunError` when a step reports one."""
        if code := self.enter():
            raise self.library.error(code)


def _by_team(team: Team, library: Library, arguments: tuple[Any, ...]) -> int:
    if team.asked < library.threads:
        team.grow(library)
    code: int = library.run(*arguments)
    return code


def address(array: Array, write: bool = False, what: str = "the array") -> int:
    """Where the array's elements lie.

    Raises `InputError` unless they are contiguous, aligned, in native order, and writable where
    asked for.
    """
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned and array.dtype.isnative) or (
            write and not flags.writeable):
        raise InputError(f"{what} cannot be used where it lies",
                         why="it must be contiguous, aligned, in the machine's byte order"
                         + (" and writable" if write else ""),
                         remedy="Pass numpy.ascontiguousarray(array).")
    where: int = array.__array_interface__["data"][0]
    return where
