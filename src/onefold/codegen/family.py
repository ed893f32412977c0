"""The contract of kernel families: hand-written C headers that compute one operator fast.

A family looks at a node and takes it or says why not. What it takes it renders as the body of a C
function: the call of its header with the shape as constants, and the epilogue, which is whatever
elementwise work the planner found behind the node, printed for the index at hand.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from onefold.codegen.team import Team
from onefold.ir import dims
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node, Value
from onefold.ir.scalar import Scalar

if TYPE_CHECKING:
    from onefold.options import Options
    from onefold.target import Target


@dataclass(frozen=True)
class Rendering:
    """What a kernel's text is made with.

    pointers: C names of `Choice.reads`, then of `Choice.packed`; store(index, acc) gives the C
    statements that finish one element: index as sizes (symbols that the text declares as ix), acc
    as C text of the accumulator, of type `Choice.node`'s compute type; dim: C text of a size.
    `out` is the pointer that store writes through, place(index) the position that it writes, and
    `blocked` tells whether the output has channel blocks, whose unused lanes want zeros.
    `team`: the threads that may share the work; who does not ask it for a share computes all.
    `simd`: the pragma before a loop over lanes. next(weights, by_parts): for a kernel that fetches
    ahead, the address of the weights that the next such kernel begins with; it tells in turn by
    which pointer it reads its own, and whether threads begin at equal distances in them or all at
    their start.
    """

    pointers: tuple[str, ...]
    out: str
    store: Callable[[Sequence[Dim], str], list[str]]
    dim: Callable[[Dim], str]
    place: Callable[[Sequence[Dim]], Dim]
    blocked: bool
    team: Team = field(default_factory=Team)
    simd: str = "OF_SIMD"
    next: Callable[[str, bool], str] = lambda weights, by_parts: weights


@dataclass(frozen=True)
class Choice:
    """One kernel chosen for one node.

    name: of this way to compute the node, among all that its families offer; reads: values that
    must lie in memory; packed: makes constants in the kernel's own order, at compile time;
    takes_epilogue: whether the elementwise expression can follow in the kernel; stored: bytes of
    its constants, 0 where they are about those of the node; family, blocks: those of its family;
    seconds: as measured, 0 where it has not been; copies: how often its code is there, for tiles
    of different sizes; narrow: whether what it reads may lie in memory as bf16.
    """

    name: str
    node: Node
    reads: tuple[Value, ...]
    packed: Callable[[], tuple[Array, ...]]
    render: Callable[[Rendering], str]
    takes_epilogue: Callable[[Scalar], bool]
    includes: tuple[str, ...] = ()
    scratch: int = 0
    cost: float = 0.0  # estimated cycles
    stored: int = 0
    family: str = ""
    blocks: bool = False
    seconds: float = 0.0
    copies: int = 1
    narrow: bool = False
    next_best: str = ""  # the kernel that would have been taken instead, and how much it costs


class Family:
    """Base of families; subclasses in `onefold.codegen.families` are found by being there."""

    name: str = ""
    ops: tuple[str, ...] = ()
    blocks: bool = False  # reads and writes channel blocks, not rows only

    def match(
        self, node: Node, target: Target, options: Options
    ) -> Choice | Sequence[Choice] | str:
        """The ways in which this family computes the node, one or several, each with its name and
        its estimated cost; or the reason why it does not take it."""
        raise NotImplementedError


@cache
def families() -> tuple[Family, ...]:
    """All families, in order of name."""
    try:
        package = importlib.import_module("onefold.codegen.families")
    except ModuleNotFoundError:
        return ()
    for m in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{m.name}")
    return tuple(sorted((c() for c in Family.__subclasses__()), key=lambda f: f.name))


COPY = 0.02  # share of its cycles that a kernel may take more for each copy less, for size
NOISE = 1.02  # times of a kernel that differ by less do not outweigh the estimates


class KernelChoice:
    """Which kernel each node gets: the cheapest of those that take it, by measured times where
    there are any, unless another was settled on (see plan/budget.py). Remembers the refusals, and
    what was asked: the signatures of nodes that had a choice, each with what was known of it."""

    def __init__(self, target: Target, options: Options) -> None:
        self.target, self.options = target, options
        self.refusals: dict[int, list[tuple[str, str]]] = {}
        self.asked: dict[str, Mapping[str, float]] = {}
        self._offers: dict[int, tuple[Choice, ...]] = {}
        self._chosen: dict[int, Choice | None] = {}

    def find(self, node: Node) -> Choice | None:
        if id(node) not in self._chosen:
            self.settle(node, next(iter(self.offers(node)), None))
        return self._chosen[id(node)]

    def offers(self, node: Node) -> tuple[Choice, ...]:
        """All ways to compute the node, the cheapest first; those measured, where some are."""
        if id(node) not in self._offers:
            found: list[Choice] = []
            said: list[tuple[str, str]] = []
            for f in families():
                if node.op.name in f.ops:
                    got = f.match(node, self.target, self.options)
                    some = (got,) if isinstance(got, (str, Choice)) else got
                    for c in some:
                        if not isinstance(c, str) and not f.blocks and _in_blocks(c.reads):
                            c = "its input lies in channel blocks"
                        if isinstance(c, str):
                            said.append((f.name, c))
                        else:
                            found.append(replace(c, family=f.name, blocks=f.blocks))
            self.refusals[id(node)] = said
            found.sort(key=lambda c: c.cost)
            if len(found) > 1:
                name = signature(node, self.target, self.options)
                times = self.asked[name] = (self.options.tuned or {}).get(name, {})
                found = _measured(found, times)
            if self.options.goal == "size":
                dear = [replace(c, cost=c.cost * (1 + COPY * (c.copies - 1))) for c in found]
                found = sorted(dear, key=lambda c: c.cost)
            self._offers[id(node)] = tuple(found)
        return self._offers[id(node)]

    def settle(self, node: Node, choice: Choice | None) -> None:
        """Let the node have this one of its offers."""
        if choice is not None and choice.cost:
            others = [c for c in self.offers(node) if c is not choice]
            if not choice.seconds:  # tiles of one kernel differ little by estimate
                others = [c for c in others if kernel_of(c) != kernel_of(choice)]
            second = min(others, key=lambda c: c.seconds or c.cost, default=None)
            if second is not None:
                choice = replace(choice, next_best=_told(second, choice))
        self._chosen[id(node)] = choice


def _measured(found: Sequence[Choice], times: Mapping[str, float]) -> list[Choice]:
    """Those measured, their times in the unit of estimates; all where there are none."""
    known = [replace(c, seconds=times[c.name]) for c in found if c.name in times]
    if not known:
        return list(found)
    unit = known[0].cost / known[0].seconds
    least = min(c.seconds for c in known)
    near = NOISE * least
    known = [replace(c, cost=unit * (least if c.seconds <= near else c.seconds)) for c in known]
    return sorted(known, key=lambda c: c.cost)


def _told(other: Choice, best: Choice) -> str:
    if best.seconds:
        return f"{other.name} ({other.seconds / best.seconds:.2f}x, measured)"
    return f"{other.name} ({other.cost / best.cost:.2g}x)"


def kernel_of(c: Choice) -> str:
    """The name without the sizes of tiles."""
    return re.sub(r"(_\d+(x\d+)?)+$", "", c.name)


def signature(node: Node, target: Target, options: Options) -> str:
    """What the time of a node's kernels depends on, on one machine: the operator, what is whole
    numbers and words of its attributes, types and layouts, precision, threads, and the compiler's
    level.
    What scales values (factors, quantization) is left out."""
    op = node.op
    assert is_dataclass(op)
    values = {f.name: getattr(op, f.name) for f in fields(op)}
    attributes = [f"{name}={value!r}" for name, value in values.items() if _decides(value)]
    ins = ["-" if v is None else _kind(v) for v in node.inputs]
    outs = [_kind(v) for v in node.outputs]
    return (
        f"{op.name}({', '.join(attributes)})({', '.join(ins)}) -> {', '.join(outs)}"
        f" {options.precision} {options.level(target)} x{options.threads}"
    )


def _decides(value: object) -> bool:
    if isinstance(value, tuple):
        return len(value) <= 8 and all(map(_decides, value))
    return isinstance(value, (int, str))


def _kind(v: Value) -> str:
    t = v.tensor
    sizes = ",".join(_extent(d) for d in t.shape)
    layout = f"c{t.layout}" if t.layout else ""
    rounded = f" as {t.rounded}" if t.rounded else ""
    return f"{'const ' if v.is_const else ''}{t.dtype.name}[{sizes}]{layout}{rounded}"


def _extent(d: Dim) -> str:
    return str(d) if isinstance(d, int) else "{}..{}".format(*dims.bounds(d))


def _in_blocks(values: Sequence[Value]) -> bool:
    return any(v.tensor.layout for v in values)
