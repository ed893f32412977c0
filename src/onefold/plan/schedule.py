"""From a graph to steps: what is computed where it is read, what lies in memory, who calls what.

Every node is lowered with inputs that stand for whatever will be decided about them. A value is
either stored by a step of its own, or computed by whoever reads it (`inlined`). Then each stored
value becomes a step, values that are another shape of the same bytes share a buffer, and parts
of a concatenation are written where they belong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from onefold.codegen.family import KernelChoice
from onefold.ir import dims
from onefold.ir.dims import Dim, Sym
from onefold.ir.graph import Graph, Node, Value
from onefold.ir.scalar import (
    Acc,
    Call,
    Cast,
    Load,
    Reduce,
    Scalar,
    Select,
    TensorExpr,
    cast,
    counter,
    stored,
    walk,
)
from onefold.ops.base import Alias, Code, Lowered, Lowering, Pieces

SLOW_CALLS = {"div": 8, "exp": 12, "log": 12, "tanh": 16, "erf": 16, "sigmoid": 16, "sqrt": 6}
MAX_TREE = 160  # nodes of an expression before a value inside is stored after all
MAX_LOADS = 24


@dataclass
class Facts:
    """What one element of a value costs, and how often it reads each input."""

    cost: float = 0
    nodes: int = 0
    reduces: bool = False
    reads: dict[int, float] = field(default_factory=dict)  # id(value) -> elements read
    aligned: set[int] = field(default_factory=set)  # values only read at the output's own index


class Lowerings:
    """All nodes of a graph (regions apart) lowered, and the choice which values are stored."""

    def __init__(self, graph: Graph, forced: Sequence[Value], kernels: KernelChoice) -> None:
        self.graph = graph
        self.kernels = kernels
        self.forced = {id(v) for v in forced}
        self.lowered: dict[int, Lowered] = {}
        self.lowering: dict[int, Lowering] = {}
        self.exprs: dict[int, TensorExpr] = {}
        self.inlined: set[int] = set()
        self._stored: dict[int, TensorExpr] = {}
        self._values: dict[int, Value] = {}
        for n in graph.nodes:
            if not n.regions:
                self._lower(n)
        self._choose()

    def read(self, v: Value) -> TensorExpr:
        """The input v for a reader: decided when an element is asked for."""

        def element(*index: Dim) -> Scalar:
            if id(v) in self.inlined:
                s = self.exprs[id(v)](*index)
                narrow = v.dtype.compute is not v.dtype
                done = isinstance(s, Load) or (isinstance(s, Cast) and s.to is v.dtype)
                return cast(s, v.dtype, saturate=False) if narrow and not done else s
            return self.from_memory(v)(*index)

        out = TensorExpr(v.tensor, element)
        out._cache = _NoCache()
        return out

    def from_memory(self, v: Value) -> TensorExpr:
        if id(v) not in self._stored:
            self._stored[id(v)] = stored(v)
            self._values[id(v)] = v
        return self._stored[id(v)]

    def _lower(self, n: Node) -> None:
        k = Lowering(n, [None if v is None else self.read(v) for v in n.inputs])
        low = n.op.lower(k)
        if isinstance(low, Code) and self.kernels.find(n) is not None:
            low = [_result_of(n, n.outputs[0])]
        self.lowered[id(n)] = low
        self.lowering[id(n)] = k
        if isinstance(low, TensorExpr):
            low = [low]
        if isinstance(low, Alias):
            self.exprs[id(n.outputs[0])] = _reshaped(n.outputs[0], k.x(low.index))
        elif isinstance(low, (list, tuple)):
            family = self.kernels.find(n)
            for v, e in zip(n.outputs, low, strict=False):
                if family is not None and v is n.outputs[0]:
                    self.exprs[id(v)] = _result_of(n, v)
                else:
                    self.exprs[id(v)] = e

    def is_alias(self, v: Value) -> bool:
        n = v.producer
        return n is not None and isinstance(self.lowered.get(id(n)), Alias)

    def alias_input(self, v: Value) -> Value:
        n = v.producer
        assert n is not None
        low = self.lowered[id(n)]
        assert isinstance(low, Alias)
        return n.arg(low.index)

    def _choose(self) -> None:
        facts = {i: self._facts(i) for i in self.exprs}
        for e in self.exprs.values():
            e._cache.clear()
        order = [v for n in self.graph.nodes for v in n.outputs if id(v) in self.exprs]
        must = self.forced | self._read_whole()
        evals: dict[int, float] = {}
        for n in reversed(self.graph.nodes):
            low = self.lowered.get(id(n))
            if isinstance(low, Pieces):
                for _, part in low.parts:
                    size = float(dims.upper(dims.product(part.shape)))
                    for i in _direct_reads(part, self):
                        evals[i] = evals.get(i, 0) + size
                continue
            for v in n.outputs:
                f = facts.get(id(v))
                if f is None:
                    continue
                size = float(max(dims.upper(v.tensor.size), 1))
                if id(v) not in must and v.uses and self._worth(v, f, evals.get(id(v), 0), size):
                    self.inlined.add(id(v))
                    size = evals.get(id(v), 0)
                for i, k in f.reads.items():
                    evals[i] = evals.get(i, 0) + size * k
        self._join_branches(order)
        self._limit_trees(order, facts)
        self._keep_kernels_apart(order)

    def _join_branches(self, order: Sequence[Value]) -> None:
        """A kernel's result that several nodes read, all of which end in one expression that can
        follow in the kernel (x * sigmoid(x)), is computed there after all."""
        for v in order:
            n = v.producer
            if n is None or id(v) in self.inlined or id(v) in self.forced or len(v.uses) < 2:
                continue
            if self.kernels.find(n) is None or v is not n.outputs[0]:
                continue
            ends = self._stored_readers(v)
            if len(ends) != 1 or id(ends[0]) not in self.exprs or self.is_alias(ends[0]):
                continue
            self.inlined.add(id(v))
            if not self._follows(ends[0], n):
                self.inlined.discard(id(v))

    def _stored_readers(self, v: Value) -> list[Value]:
        """The stored values whose expressions read v, directly or through inlined ones."""
        out: dict[int, Value] = {}
        waiting = [v]
        while waiting:
            for n in waiting.pop().uses:
                for u in n.outputs:
                    if id(u) in self.inlined:
                        waiting.append(u)
                    else:
                        out[id(u)] = u
        return list(out.values())

    def _follows(self, v: Value, kernel: Node) -> bool:
        """Whether the expression of v is an epilogue of this kernel and of no other."""
        _, index = generic_index(v.shape)
        value = self.exprs[id(v)](*index)
        self.exprs[id(v)]._cache.clear()
        accs = [s for s in walk(value) if isinstance(s, Acc)]
        mine = any(a.node is kernel for a in accs)
        return mine and self._is_epilogue(v, index, value, accs)

    def _worth(self, v: Value, f: Facts, evals: float, size: float) -> bool:
        if v.quant is None and any(isinstance(n.op.name, str) and n.regions for n in v.uses):
            return False
        again = max(evals - size, 0)
        if again == 0:
            return True
        if f.reduces:
            return False
        return f.cost * again <= 3 * size * self._widening(v, f)

    def _widening(self, v: Value, f: Facts) -> float:
        """How many times the memory of what a value is computed from it would take."""
        read = [self._values[i] for i in f.reads if i in self._values]
        bits = [u.dtype.bits for u in read if u.shape == v.shape]
        return max(v.dtype.bits / max(bits), 1) if bits else 1

    def _read_whole(self) -> set[int]:
        """Values that some reader needs in memory."""
        out: set[int] = set()
        for n in self.graph.nodes:
            low = self.lowered.get(id(n))
            if n.regions:
                out.update(id(v) for v in (*n.present(), *n.captures()))
            elif isinstance(low, Code):
                out.update(id(v) for v in n.present())
            family = self.kernels.find(n)
            if family is not None:
                out.update(id(v) for v in family.reads)
        changed = True
        while changed:  # what an alias shows must lie in memory if the alias does
            more = {
                id(self.alias_input(v))
                for n in self.graph.nodes
                for v in n.outputs
                if id(v) in out and self.is_alias(v)
            }
            changed = not more <= out
            out |= more
        return out

    def _limit_trees(self, order: Sequence[Value], facts: dict[int, Facts]) -> None:
        total: dict[int, tuple[int, int]] = {}
        for v in order:
            f = facts[id(v)]
            nodes, loads = f.nodes, 0
            for i in f.reads:
                n, m = total.get(i, (1, 1)) if i in self.inlined else (1, 1)
                nodes, loads = nodes + n, loads + m
            if nodes > MAX_TREE or loads > MAX_LOADS:
                inner = [i for i in f.reads if i in self.inlined]
                for i in sorted(inner, key=lambda i: -total[i][0]):
                    if nodes <= MAX_TREE and loads <= MAX_LOADS:
                        break
                    self.inlined.discard(i)
                    nodes, loads = nodes - total[i][0] + 1, loads - total[i][1] + 1
            total[id(v)] = (nodes, loads)

    def _keep_kernels_apart(self, order: Sequence[Value]) -> None:
        """A kernel's result may only be inlined where it becomes the epilogue of that kernel."""
        holds: set[int] = set()
        for v in order:
            n = v.producer
            if n is not None and self.kernels.find(n) is None:
                if not any(id(u) in self.inlined & holds for u in n.present()):
                    continue
            _, index = generic_index(v.shape)
            while True:
                value = self.exprs[id(v)](*index)
                self.exprs[id(v)]._cache.clear()
                accs = [s for s in walk(value) if isinstance(s, Acc)]
                if accs:
                    holds.add(id(v))
                if self._is_epilogue(v, index, value, accs) or v.producer is None:
                    break
                inner = [u for u in v.producer.present() if id(u) in self.inlined & holds]
                if not inner:
                    break
                rank = {id(u): k for k, u in enumerate(order)}
                first = min(inner, key=lambda u: rank[id(u)])
                while (narrow := self._narrower(first, holds)) is not None:
                    holds.discard(id(first))
                    first = narrow
                self.inlined.discard(id(first))
                holds.discard(id(v))

    def _narrower(self, v: Value, holds: set[int]) -> Value | None:
        """What an inlined value is computed from alone, if that takes less memory: a dequantized
        result of a kernel is stored as integers."""
        n = v.producer
        inner = [] if n is None else [u for u in n.present() if id(u) in self.inlined & holds]
        if len(inner) != 1 or inner[0].shape != v.shape or inner[0].dtype.bits >= v.dtype.bits:
            return None
        return inner[0]

    def _is_epilogue(
        self, v: Value, index: Sequence[Dim], value: Scalar, accs: Sequence[Acc]
    ) -> bool:
        if not accs:
            return True
        first = accs[0].node
        if any(a.node is not first or a.index != tuple(index) for a in accs):
            return False
        family = self.kernels.find(first)
        if family is None or first.outputs[0].shape != v.shape:
            return False
        plain = not any(isinstance(s, Reduce) for s in walk(value))
        return plain and family.takes_epilogue(value)

    def _facts(self, i: int) -> Facts:
        expr = self.exprs[i]
        _, index = generic_index(expr.shape)
        value = expr(*index)
        f = Facts()
        _weigh(value, 1.0, f, set())
        return f


def element_cost(expr: TensorExpr) -> float:
    """What one element costs, in operations of about a cycle."""
    _, index = generic_index(expr.shape)
    f = Facts()
    _weigh(expr(*index), 1.0, f, set())
    expr._cache.clear()
    return f.cost


class _NoCache(dict):  # type: ignore[type-arg]
    """An input's element depends on decisions still to come, so nothing is remembered."""

    def __setitem__(self, key: object, value: object) -> None:
        pass


def generic_index(shape: dims.Shape) -> tuple[list[Sym], tuple[Dim, ...]]:
    cs = [counter(n, "i") for n in shape]
    return cs, tuple(0 if n == 1 else dims.atom(c) for c, n in zip(cs, shape, strict=True))


def _reshaped(v: Value, x: TensorExpr) -> TensorExpr:
    shape = v.shape

    def element(*index: Dim) -> Scalar:
        return x(*dims.reindex(index, shape, x.shape))

    return TensorExpr(v.tensor, element)


def _result_of(n: Node, v: Value) -> TensorExpr:
    return TensorExpr(v.tensor, lambda *i: Acc(n, i, v.dtype.compute))


def _direct_reads(part: TensorExpr, low: Lowerings) -> set[int]:
    _, index = generic_index(part.shape)
    value = part(*index)
    part._cache.clear()
    return {id(s.value) for s in walk(value) if isinstance(s, Load)}


def _weigh(s: Scalar, times: float, f: Facts, seen: set[int]) -> None:
    if id(s) in seen:
        return
    seen.add(id(s))
    f.nodes += 1
    if isinstance(s, Load):
        f.reads[id(s.value)] = f.reads.get(id(s.value), 0) + times
        f.cost += 0.5 * times
    elif isinstance(s, Call):
        f.cost += times * SLOW_CALLS.get(s.fn, 10 if s.fn[0].isalpha() and len(s.fn) > 3 else 1)
    elif isinstance(s, (Cast, Select)):
        f.cost += times
    if isinstance(s, Acc):
        f.reduces = True
    if isinstance(s, Reduce):
        f.reduces = True
        for c in s.counters:
            times *= max(dims.upper(c.extent), 1) if c.extent is not None else 1
    for p in s.parts():
        _weigh(p, times, f, seen)
    for d in s.indices():
        for a in dims.atoms(d):
            if isinstance(a, dims.Loaded):
                _weigh(a.scalar, times, f, seen)


