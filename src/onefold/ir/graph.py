"""The graph: values, nodes, and the builder through which every node is made.

Only `Value`, `Node` and `Graph` have identity; names are for people. A node is an operator
(a frozen record of its attributes) applied to values. `Builder.op` infers types at once and folds
what is constant, so a graph is typed at every moment.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from onefold.ir import dims, dtypes
from onefold.ir.limits import WORK_LIMIT, FoldBudget, refusal
from onefold.ir.types import AnyType, Quant, TensorType

if TYPE_CHECKING:
    from onefold.ops.base import Op

Array = np.ndarray[Any, np.dtype[Any]]

WRONG_DATA = (ValueError, IndexError, OverflowError, ArithmeticError)
"""What a reference raises for contents that its operator does not take."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Which layers of the user's own model a node comes from, and by which passes it was made."""

    layers: tuple[str, ...] = ()
    path: tuple[str, ...] = ()

    def __or__(self, other: Origin) -> Origin:
        return Origin(
            tuple(dict.fromkeys(self.layers + other.layers)),
            tuple(dict.fromkeys(self.path + other.path)),
        )

    def via(self, name: str) -> Origin:
        return Origin(self.layers, self.path if name in self.path else (*self.path, name))

    def __str__(self) -> str:
        return " + ".join(self.layers)


class Value:
    """One tensor. `data` is set for constants; `content` holds the elements of a small integer
    tensor as dimensions, where they are known before the program runs."""

    __slots__ = ("content", "data", "name", "producer", "type", "uses")

    def __init__(self, name: str, type: AnyType, data: Array | None = None) -> None:
        self.name = name
        self.type: AnyType = type
        self.data = data
        self.producer: Node | None = None
        self.uses: list[Node] = []
        self.content: tuple[dims.Dim, ...] | None = None
        if data is not None and data.ndim <= 1 and data.size <= 64 and data.dtype.kind in "iu":
            self.content = tuple(int(v) for v in data.reshape(-1))

    @property
    def tensor(self) -> TensorType:
        """The type, of a value that is a tensor."""
        if not isinstance(self.type, TensorType):
            from onefold.ops.base import Refusal

            raise Refusal(f"'{self.name}' is {self.type}, not a tensor")
        return self.type

    @property
    def shape(self) -> dims.Shape:
        return self.tensor.shape

    @property
    def dtype(self) -> dtypes.DType:
        return self.tensor.dtype

    @property
    def quant(self) -> Quant | None:
        return self.tensor.quant

    @property
    def is_const(self) -> bool:
        return self.data is not None

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type!r}"


class Node:
    """An operator applied to values. An absent optional input is None."""

    __slots__ = ("inputs", "op", "origin", "outputs", "regions")

    def __init__(
        self,
        op: Op,
        inputs: Sequence[Value | None],
        outputs: Sequence[Value],
        origin: Origin,
        regions: Sequence[Graph] = (),
    ) -> None:
        self.op = op
        self.inputs: tuple[Value | None, ...] = tuple(inputs)
        self.outputs: tuple[Value, ...] = tuple(outputs)
        self.origin = origin
        self.regions: tuple[Graph, ...] = tuple(regions)
        for v in self.outputs:
            v.producer = self
        for v in self.present():
            v.uses.append(self)

    def present(self) -> Iterator[Value]:
        """The inputs that are there."""
        return (v for v in self.inputs if v is not None)

    def input(self, i: int) -> Value | None:
        """Input i, None where it is absent or left out."""
        return self.inputs[i] if i < len(self.inputs) else None

    def arg(self, i: int) -> Value:
        """Input i, which the operator requires. Raises Refusal where it is absent."""
        v = self.input(i)
        if v is None:
            from onefold.ops.base import Refusal

            raise Refusal(f"{self.op.name} needs its input {i}")
        return v

    def const(self, i: int) -> Array | None:
        """The data of input i where it is constant."""
        v = self.input(i)
        return None if v is None else v.data

    def replace_input(self, old: Value, new: Value) -> None:
        count = sum(v is old for v in self.inputs)
        self.inputs = tuple(new if v is old else v for v in self.inputs)
        for _ in range(count):
            old.uses.remove(self)
            new.uses.append(self)

    def captures(self) -> list[Value]:
        """Values of enclosing graphs that this node's regions read."""
        out: dict[int, Value] = {}
        for g in self.regions:
            inner = {id(v) for v in g.all_values()}
            for n in g.nodes:
                for v in itertools.chain(n.present(), n.captures()):
                    if id(v) not in inner and not v.is_const:
                        out[id(v)] = v
            for v in g.outputs:
                if id(v) not in inner and not v.is_const:
                    out[id(v)] = v
        return list(out.values())

    def __repr__(self) -> str:
        outs = ", ".join(f"%{v.name}" for v in self.outputs)
        ins = ", ".join("-" if v is None else f"%{v.name}" for v in self.inputs)
        return f"{outs} = {self.op!r}({ins})"


@dataclass(eq=False, slots=True)
class State:
    """A value that outlives a call: read through `value`, given its next contents by `update`.

    initial None means zeros. It lives in the context beside the arena. A state may grow: `value`
    then has symbols in its shape, and `grows` says what each of them is at the next call; at the
    first it is its lower bound.
    """

    name: str
    value: Value
    update: Value | None = None
    initial: Array | None = None
    grows: tuple[tuple[dims.Sym, dims.Dim], ...] = ()


@dataclass(eq=False, slots=True)
class Graph:
    """Nodes in topological order. Regions (bodies of If, Loop, Scan) are graphs whose nodes may
    read values of the graph around them."""

    name: str = "main"
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    source_bytes: int = 0  # of the constants as the model's files hold them, where it has files

    def all_values(self) -> Iterator[Value]:
        """Inputs, states and everything that a node of this graph produces (not of its regions)."""
        yield from self.inputs
        for s in self.states:
            yield s.value
        for n in self.nodes:
            yield from n.outputs

    def walk(self) -> Iterator[Node]:
        """Every node, those of regions after the node that holds them."""
        for n in self.nodes:
            yield n
            for g in n.regions:
                yield from g.walk()

    def constants(self) -> list[Value]:
        """Every constant in use, each once."""
        out: dict[int, Value] = {}
        for n in self.walk():
            for v in n.present():
                if v.is_const:
                    out[id(v)] = v
            for g in n.regions:
                out.update({id(v): v for v in g.outputs if v.is_const})
        out.update({id(v): v for v in self.outputs if v.is_const})
        return list(out.values())

    def replace(self, old: Value, new: Value) -> None:
        """Let every reader of `old`, and the graph's own outputs, read `new` instead."""
        for n in list(dict.fromkeys(old.uses)):
            n.replace_input(old, new)
        for g in self.regions_and_self():
            g.outputs = [new if v is old else v for v in g.outputs]
            for s in g.states:
                if s.update is old:
                    s.update = new

    def regions_and_self(self) -> Iterator[Graph]:
        yield self
        for n in self.nodes:
            for g in n.regions:
                yield from g.regions_and_self()

    def remove(self, nodes: Iterable[Node]) -> None:
        """Take nodes out; their outputs must have no reader left."""
        gone = {id(n) for n in nodes}
        for n in self.nodes:
            if id(n) in gone:
                detach(n)
        self.nodes = [n for n in self.nodes if id(n) not in gone]

    def pinned(self) -> set[int]:
        """ids of the values that must stay: outputs and state updates of every graph inside."""
        keep: set[int] = set()
        for g in self.regions_and_self():
            keep.update(id(v) for v in g.outputs)
            keep.update(id(s.update) for s in g.states if s.update is not None)
        return keep

    def __repr__(self) -> str:
        from onefold.ir.text import show

        return show(self)


def constant_bytes(graph: Graph) -> int:
    """Bytes of every constant in use."""
    return sum(v.data.nbytes for v in graph.constants() if v.data is not None)


def detach(node: Node) -> None:
    for v in node.present():
        v.uses.remove(node)
    for g in node.regions:
        for n in g.nodes:
            detach(n)


class Builder:
    """Makes nodes: infers their types, folds constants, gives names that are unique.

    nodes: where new nodes go. `origin` and `path` mark what is made.
    """

    def __init__(self, graph: Graph, origin: Origin | None = None, fold: bool = True) -> None:
        self.graph = graph
        self.nodes: list[Node] = graph.nodes
        self.origin = origin or Origin()
        self.fold = fold
        self._names: dict[str, int] = {}
        self._budget = FoldBudget()

    def name(self, hint: str) -> str:
        """A name like `hint` that this builder has not given before."""
        n = self._names.get(hint, 0)
        name = hint if n == 0 else f"{hint}.{n}"
        while n and name in self._names:
            n += 1
            name = f"{hint}.{n}"
        self._names[hint] = n + 1
        self._names.setdefault(name, 1)
        return name

    def const(self, data: Any, dtype: dtypes.DType | None = None, name: str = "c") -> Value:
        try:
            array = np.asarray(data) if dtype is None else np.asarray(data, dtype.numpy)
        except OverflowError:
            from onefold.ops.base import Refusal

            raise Refusal(f"{data} does not fit elements of type {dtype}") from None
        kind = dtypes.of(array.dtype)
        return Value(self.name(name), TensorType(array.shape, kind), array)

    def op(
        self,
        op: Op,
        *inputs: Value | None,
        name: str | Sequence[str] = "",
        regions: Sequence[Graph] = (),
        types: Sequence[AnyType] | None = None,
    ) -> Value:
        """One node with one result; see `ops` for several."""
        return self.ops(op, *inputs, name=name, regions=regions, types=types)[0]

    def ops(
        self,
        op: Op,
        *inputs: Value | None,
        name: str | Sequence[str] = "",
        regions: Sequence[Graph] = (),
        types: Sequence[AnyType] | None = None,
    ) -> list[Value]:
        """Apply an operator. `types` overrides inference (quantized results)."""
        node = Node(op, inputs, (), self.origin, regions)
        try:
            kinds = list(types) if types is not None else list(op.infer(node))
            why, too_large = refusal(kinds)
            if why:
                from onefold.ops.base import Refusal, TooLarge

                raise TooLarge(why) if too_large else Refusal(why)
            hints = [name] if isinstance(name, str) else list(name)
            hints += [""] * (len(kinds) - len(hints))
            outs = [
                Value(self.name(h or f"{op.name.lower()}"), k)
                for h, k in zip(hints, kinds, strict=False)
            ]
            node.outputs = tuple(outs)
            for v, c in zip(outs, _contents(op, node), strict=False):
                v.content = c if c is not None and _fits(c, v.dtype) else None
            folded = self._folded(node)
        except BaseException:
            detach(node)
            raise
        if folded is not None:
            detach(node)
            return folded
        for v in outs:
            v.producer = node
        self.nodes.append(node)
        return outs

    def _folded(self, node: Node) -> list[Value] | None:
        """Constants in place of the node's outputs, where they are known."""
        if not self.fold or node.regions or not node.op.pure or node.op.lazy:
            return None
        outs = node.outputs
        if all(_known(v) for v in outs):
            arrays = [np.array(v.content, v.dtype.numpy).reshape(v.tensor.ints) for v in outs]
        elif self._may_fold(node):
            try:
                result = node.op.ref(node, *[None if v is None else v.data for v in node.inputs])
            except WRONG_DATA:  # only matters if the program ever comes here
                return None
            arrays = list(result) if isinstance(result, (tuple, list)) else [result]
        else:
            return None
        folded = []
        for v, a in zip(outs, arrays, strict=False):
            t = v.tensor
            # A view stays one: transposed weights of a mapped file are not read for it.
            a = np.asarray(a, t.dtype.numpy)
            self._budget.take(a)
            c = Value(v.name, TensorType(a.shape, t.dtype, t.quant), a)
            folded.append(c)
        return folded

    def _may_fold(self, node: Node) -> bool:
        if not node.inputs:
            return False
        for v in node.present():
            if v.data is None:
                return False
            self._budget.give(v.data)
        if not self._budget.allows([v.type for v in node.outputs]) or _open(node.op):
            return False
        return node.op.work(node) <= WORK_LIMIT


def _contents(op: Op, node: Node) -> Sequence[tuple[dims.Dim, ...] | None]:
    try:
        return op.contents(node)
    except WRONG_DATA:
        return ()


def _fits(content: Sequence[dims.Dim], kind: dtypes.DType) -> bool:
    """False where a number would wrap in the value's own type."""
    return all(not isinstance(d, int) or kind.lo <= d <= kind.hi for d in content)


def _open(op: Op) -> bool:
    """Whether an attribute is a size that only run time knows."""
    values = [getattr(op, f.name) for f in fields(op)]  # type: ignore[arg-type]
    return any(
        isinstance(d, dims.Expr) for x in values for d in (x if isinstance(x, tuple) else (x,))
    )


def _known(v: Value) -> bool:
    return (
        v.content is not None
        and isinstance(v.type, TensorType)
        and v.type.dtype.is_int
        and v.type.static
        and all(isinstance(d, int) for d in v.content)
    )
