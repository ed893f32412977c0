"""The contract of kernel families: hand-written C headers that compute one operator fast.

A family looks at a node and takes it or says why not. What it takes it renders as the body of a C
function: the call of its header with the shape as constants, and the epilogue, which is whatever
elementwise work the planner found behind the node, printed for the index at hand.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

from onefold.codegen.team import Team
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
    """

    pointers: tuple[str, ...]
    out: str
    store: Callable[[Sequence[Dim], str], list[str]]
    dim: Callable[[Dim], str]
    place: Callable[[Sequence[Dim]], Dim]
    blocked: bool
    team: Team = field(default_factory=Team)


@dataclass(frozen=True)
class Choice:
    """One kernel chosen for one node.

    reads: values that must lie in memory; packed: makes constants in the kernel's own order, at
    compile time; takes_epilogue: whether the elementwise expression can follow in the kernel;
    blocks: that of its family; stored: bytes of its constants, 0 where they are about those of
    the node.
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
    blocks: bool = False
    next_best: str = ""  # the kernel that would have been taken instead, and how much it costs


class Family:
    """Base of families; subclasses in `onefold.codegen.families` are found by being there."""

    name: str = ""
    ops: tuple[str, ...] = ()
    blocks: bool = False  # reads and writes channel blocks, not rows only

    def match(
        self, node: Node, target: Target, options: Options
    ) -> Choice | Sequence[Choice] | str:
        """A choice, or several, or the reason why this family does not take the node."""
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


class KernelChoice:
    """Which kernel each node gets: the cheapest of those that take it, unless another was settled
    on (see plan/budget.py). Remembers the refusals."""

    def __init__(self, target: Target, options: Options) -> None:
        self.target, self.options = target, options
        self.refusals: dict[int, list[tuple[str, str]]] = {}
        self._offers: dict[int, tuple[Choice, ...]] = {}
        self._chosen: dict[int, Choice | None] = {}

    def find(self, node: Node) -> Choice | None:
        if id(node) not in self._chosen:
            self.settle(node, min(self.offers(node), key=lambda c: c.cost, default=None))
        return self._chosen[id(node)]

    def offers(self, node: Node) -> tuple[Choice, ...]:
        """All kernels that take the node."""
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
                            found.append(replace(c, blocks=f.blocks))
            self.refusals[id(node)] = said
            self._offers[id(node)] = tuple(found)
        return self._offers[id(node)]

    def settle(self, node: Node, choice: Choice | None) -> None:
        """Let the node have this one of its offers."""
        others = [c for c in self.offers(node) if c is not choice]
        if choice is not None and choice.cost and others:
            second = min(others, key=lambda c: c.cost)
            told = f"{second.name} ({second.cost / choice.cost:.2g}x)"
            choice = replace(choice, next_best=told)
        self._chosen[id(node)] = choice


def _in_blocks(values: Sequence[Value]) -> bool:
    return any(v.tensor.layout for v in values)
