"""A program: everything decided, nothing rendered.

Steps call kernels on buffers; a buffer lies in the arena, among the constants or the states, or
belongs to the caller. The same object feeds C, the reports, and the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from onefold.codegen.team import Shares
from onefold.ir import dims
from onefold.ir.dims import Dim, Sym
from onefold.ir.graph import Array, Graph, Origin
from onefold.ir.types import TensorType

if TYPE_CHECKING:
    from onefold.plan.spaces import Arena

ALIGN = 64
Kind = Literal["arena", "const", "input", "output", "state"]


@dataclass(frozen=True, eq=False)
class Recipe:
    """A large constant that is made again when it is written, instead of being held."""

    make: Callable[[], Array]
    shape: tuple[int, ...]


@dataclass(eq=False, slots=True)
class Buffer:
    """Memory for one or more values. bytes is the largest size; offset is set by the planner.

    A buffer with a parent lies inside it, `offset` bytes from its start.
    """

    name: str
    kind: Kind
    type: TensorType
    bytes: int
    parent: Buffer | None = None
    offset: int = 0
    index: int = 0  # which input, output or state
    data: Array | Recipe | None = None
    space: str = ""

    @property
    def root(self) -> Buffer:
        return self if self.parent is None else self.parent.root

    @property
    def start(self) -> int:
        """Bytes from the start of the root buffer."""
        return 0 if self.parent is None else self.parent.start + self.offset


@dataclass(frozen=True, slots=True)
class Param:
    """A C parameter of a kernel: a pointer to elements, or a size."""

    name: str
    ctype: str
    const: bool = True


@dataclass(frozen=True)
class Kernel:
    """A C function: equal text is one function, however many steps call it.

    pointers and sizes are its parameters in order, then numbers that differ between its calls
    (plan/numbers.py); outs are sizes that it finds out itself. split: it computes the share of
    the part `me` of the threads; shares: which memory belongs to whom. streams: it fetches weights
    ahead, and `next` are those of the next such kernel; the pointer by which it reads its own, and
    whether threads begin at equal distances in them.
    """

    params: tuple[Param, ...]
    sizes: tuple[str, ...]
    outs: tuple[str, ...]
    body: str
    includes: tuple[str, ...] = ()
    stops: bool = False
    split: bool = False
    numbers: tuple[Param, ...] = ()
    shares: Shares | None = field(default=None, compare=False)
    streams: tuple[str, bool] | None = None


EMPTY = Kernel((), (), (), "")  # before a step is rendered


@dataclass(eq=False, slots=True)
class Step:
    """One call. reads and writes are what the memory planner needs to know."""

    kernel: Kernel
    args: tuple[Buffer, ...]
    sizes: tuple[Sym, ...]
    outs: tuple[Sym, ...]
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    origin: Origin
    op: str
    macs: int = 0
    algorithm: str = "loops"
    next_best: str = ""  # the kernel that came second, and its cost as estimated or measured
    tuned: bool = False  # the algorithm was chosen by measured times
    numbers: tuple[str, ...] = ()  # C texts of those of the kernel


@dataclass(eq=False, slots=True)
class IfStep:
    """then or otherwise, by the boolean in cond."""

    cond: Buffer
    then: list[AnyStep]
    otherwise: list[AnyStep]
    origin: Origin
    then_sizes: tuple[tuple[Sym, Dim], ...] = ()
    otherwise_sizes: tuple[tuple[Sym, Dim], ...] = ()


@dataclass(eq=False, slots=True)
class LoopStep:
    """A counted and guarded loop.

    trips: buffer with the largest count (i64) or None; cond: buffer that must hold true before
    each turn, or None; counter: buffer that receives the turn's number; before runs once.
    sizes carries symbols from turn to turn: (symbol, its value before, its value after a turn).
    """

    trips: Buffer | Dim | None
    cond: Buffer | None
    counter: Buffer | None
    body: list[AnyStep]
    turns: Sym | None
    origin: Origin
    sizes: tuple[tuple[Sym, Dim, Dim], ...] = ()
    limit: int = 1 << 62


AnyStep = Step | IfStep | LoopStep


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the program: name in the model, type, and its buffer."""

    name: str
    type: TensorType
    buffer: Buffer


@dataclass(eq=False)
class Program:
    """See the module. dims: the symbols that the caller gives, in the order of the ABI, then
    `found`, those that the program finds out and gives back."""

    name: str
    graph: Graph
    inputs: list[Port]
    outputs: list[Port]
    states: list[tuple[str, Buffer, Array | None]]
    steps: list[AnyStep]
    dims: list[Sym]
    found: list[Sym]
    buffers: list[Buffer] = field(default_factory=list)
    arena_bytes: int = 0
    arena_lower_bound: int = 0
    file_order_bound: int = 0
    arenas: list[Arena] = field(default_factory=list)
    weights_bytes: int = 0
    state_bytes: int = 0
    notes: list[str] = field(default_factory=list)
    threads: int = 1
    asked: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What is known of the nodes that kernels were chosen for (`KernelChoice.asked`)."""

    @property
    def arena_algorithm(self) -> str:
        """How the plans of the arenas were found."""
        return ", ".join(dict.fromkeys(a.algorithm for a in self.arenas))

    @property
    def grown(self) -> dict[str, Dim]:
        """Sizes of states: symbol name -> what it is at the next call."""
        return {s.name: d for st in self.graph.states for s, d in st.grows}

    def flat(self) -> Iterator[Step]:
        """Every call, in the order of the text."""
        yield from flat(self.steps)

    @property
    def macs(self) -> int:
        return sum(s.macs for s in self.flat())


def flat(steps: Sequence[AnyStep]) -> Iterator[Step]:
    for s in steps:
        if isinstance(s, Step):
            yield s
        elif isinstance(s, IfStep):
            yield from flat(s.then)
            yield from flat(s.otherwise)
        else:
            yield from flat(s.body)


def used_constants(program: Program) -> list[Buffer]:
    """The constants that steps read, each once."""
    found = {id(b.root): b.root for s in program.flat() for b in s.reads}
    return [b for b in found.values() if b.kind == "const"]


def byte_size(t: TensorType) -> int:
    """Largest number of bytes that a tensor of this type takes.

    Raises OverflowError where the size has no bound.
    """
    from onefold.codegen.loops import stored_size

    n = dims.upper(stored_size(t))
    if n >= dims.INF:
        raise OverflowError(f"{t} has no upper bound")
    return n * t.memory.bytes
