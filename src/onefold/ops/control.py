"""Control flow: If and Loop. Scan, and TFLite's IF and WHILE, become these two.

Bodies are graphs inside the node; they become C control flow, not calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.errors import MemoryLimitError, UnsupportedModelError
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Builder, Graph, Node, Value, detach
from onefold.ir.types import AnyType, TensorType
from onefold.ops.base import NeedsValue, Op, Refusal, operator, registry
from onefold.ops.formats import OnnxNode

UNROLLED = 64  # most turns of a loop whose body is copied per turn


@operator
class If(Op):
    """The outputs of regions[0] where the condition holds, else those of regions[1]."""

    onnx: ClassVar = ("If",)

    def infer(self, n: Node) -> Sequence[AnyType]:
        then, other = n.regions
        if len(then.outputs) != len(other.outputs):
            raise Refusal("the branches have different numbers of outputs")
        return [
            self._joined(n, a, b) for a, b in zip(then.outputs, other.outputs, strict=True)
        ]

    def _joined(self, n: Node, a: Value, b: Value) -> AnyType:
        s, t = a.type, b.type
        if not isinstance(s, TensorType) or not isinstance(t, TensorType):
            return s
        if s.dtype is not t.dtype or s.rank != t.rank:
            raise NeedsValue(n.arg(0), f"the branches give {s} and {t}")
        shape = tuple(
            p if p == q else _either(p, q) for p, q in zip(s.shape, t.shape, strict=True)
        )
        return TensorType(shape, s.dtype)

    def ref_in(self, n: Node, env: Any, *x: Any) -> Any:
        taken = n.regions[0] if bool(np.asarray(x[0]).reshape(-1)[0]) else n.regions[1]
        return env.run(taken, [])

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        cond = n.arg(0)
        if cond.data is not None:
            if cond.data.size != 1:
                raise Refusal("the condition is not a single boolean")
            name = "then_branch" if bool(cond.data.reshape(-1)[0]) else "else_branch"
            outs: list[Value] = n.importer.inline(n.attrs[name], [])
            return outs
        if dims.upper(cond.tensor.size) != 1:
            raise Refusal("the condition is not a single boolean")
        regions = [_branch(n, cond, name) for name in ("then_branch", "else_branch")]
        return b.ops(cls(), cond, name=n.output_names, regions=regions)


def _branch(n: OnnxNode, cond: Value, name: str) -> Graph:
    """A branch as a graph. One that does not fit the shapes at hand is never taken with them, so
    the condition must be known. Raises NeedsValue."""
    misses = n.importer.misses
    before = len(misses)
    try:
        graph = n.region(name, [])
    except LookupError:
        graph = None
    if len(misses) > before or graph is None:
        why = misses[before].reason if len(misses) > before else "it has no outputs"
        del misses[before:]
        raise NeedsValue(cond, f"its {name} does not fit the shapes at hand: {why}")
    return graph


def _either(p: Dim, q: Dim) -> Dim:
    """A size that one of two branches decides."""
    (a, b), (c, d) = dims.bounds(p), dims.bounds(q)
    return dims.sym(dims.fresh_name("either"), min(a, c), max(b, d))


@operator
class Loop(Op):
    """Runs its body while the condition holds, at most as often as its first input says.

    inputs: trip count (i64, absent: no limit), condition (absent: true), carried values.
    body: (turn, condition, carried...) -> (condition, carried..., scanned...). outputs: the last
    carried values, and each scanned value of all turns stacked along a new first axis.
    turns names the number of turns where it is not fixed; host: why it cannot be compiled.
    """

    carried: int = 0
    turns: str = ""
    host: str = ""

    onnx: ClassVar = ("Loop",)

    def trip_bound(self, n: Node) -> int | None:
        """The trip count where it is known."""
        m = n.input(0)
        return None if m is None or m.data is None else max(int(_single(m)), 0)

    def count(self, n: Node) -> Dim:
        """Number of turns: fixed, or a symbol."""
        bound = self.trip_bound(n)
        if not self.turns:
            return bound or 0
        hi = dims.INF if bound is None else bound
        return dims.sym(self.turns, 0, hi) if hi else 0

    def infer(self, n: Node) -> Sequence[AnyType]:
        (body,) = n.regions
        out: list[AnyType] = [v.type for v in body.outputs[1 : 1 + self.carried]]
        for v in body.outputs[1 + self.carried :]:
            t = v.tensor
            out.append(TensorType((self.count(n), *t.shape), t.dtype))
        return out

    def compiled(self, n: Node) -> str:
        return self.host or super().compiled(n)

    def ref_in(self, n: Node, env: Any, *x: Any) -> Any:
        (body,) = n.regions
        limit = 1 << 62 if x[0] is None else int(np.asarray(x[0]).reshape(-1)[0])
        go = True if x[1] is None else bool(np.asarray(x[1]).reshape(-1)[0])
        carried = list(x[2:])
        scans: list[list[Any]] = [[] for _ in body.outputs[1 + self.carried :]]
        turn = 0
        while turn < limit and go:
            outs = env.run(body, [np.asarray(turn, np.int64), np.asarray(go), *carried])
            go = bool(np.asarray(outs[0]).reshape(-1)[0])
            carried = outs[1 : 1 + self.carried]
            for kept, s in zip(scans, outs[1 + self.carried :], strict=True):
                kept.append(s)
            turn += 1
        stacked = [
            np.stack(kept) if kept else np.zeros((0, *_ints(v)), v.dtype.numpy)
            for kept, v in zip(scans, body.outputs[1 + self.carried :], strict=True)
        ]
        return [*carried, *stacked]

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        start = [v for v in n.inputs[2:] if v is not None]
        record, trips = n.attrs["body"], n.input(0)
        if trips is not None and not trips.dtype.is_int:
            raise Refusal(f"the trip count '{trips.name}' is {trips.type}, not an integer")

        def body(inputs: Sequence[Value]) -> Graph:
            return n.region("body", inputs)

        if len(record.inputs) != 2 + len(start):
            raise Refusal(f"the body takes {len(record.inputs)} inputs, not {2 + len(start)}")
        before = len(n.importer.misses)
        try:
            outs = make_loop(b, trips, n.input(1), start, body, n.output_names)
            if len(n.importer.misses) == before:
                return outs
        except (UnsupportedModelError, MemoryLimitError, Refusal, LookupError, TypeError):
            if not _unrollable(trips):
                raise
        if not _unrollable(trips):
            return outs
        del n.importer.misses[before:]
        return _unrolled(n, b, start)


def _unrollable(trips: Value | None) -> bool:
    """Whether the loop runs a fixed, small number of turns; NeedsValue where a run-time input
    says how many."""
    if trips is None:
        return False
    if trips.data is None:
        raise NeedsValue(trips, "its trip count decides the sizes inside its body")
    return 0 <= int(_single(trips)) <= UNROLLED


def _unrolled(n: OnnxNode, b: Builder, start: Sequence[Value]) -> Sequence[Value]:
    """One copy of the body per turn: for bodies whose sizes or sequences change from turn to
    turn. Raises NeedsValue or Refusal where it is not known when the loop ends."""
    trips, cond = n.arg(0), n.input(1)
    if cond is not None and cond.data is None:
        raise NeedsValue(cond, "it decides how often a body of changing sizes runs")
    go = cond is None or bool(_single(cond))
    carried = list(start)
    scans: list[list[Value]] = []
    for turn in range(int(_single(trips))):
        if not go:
            break
        first = [b.const(np.array(turn, np.int64)), b.const(np.array(True))]
        outs = n.importer.inline(n.attrs["body"], [*first, *carried])
        if outs[0].data is None:
            raise Refusal("sizes in its body change, and when it ends is not known")
        go = bool(_single(outs[0]))
        carried = list(outs[1 : 1 + len(start)])
        scans.append(list(outs[1 + len(start) :]))
    return [*carried, *_stacked(n, b, scans)]


def _stacked(n: OnnxNode, b: Builder, scans: Sequence[Sequence[Value]]) -> list[Value]:
    count = len(n.output_names) - len(n.inputs[2:])
    if not scans:
        if count > 0:
            raise Refusal("it never runs, so that the sizes of its results are not known")
        return []
    out = []
    for column in zip(*scans, strict=True):
        rows = [b.op(registry.make("Reshape", shape=(1, *v.shape)), v) for v in column]
        out.append(b.op(registry.make("Concat", axis=0), *rows))
    return out


def _single(v: Value) -> Any:
    """The only element of a constant. Raises Refusal where it has another number of them."""
    if v.data is None or v.data.size != 1:
        raise Refusal(f"'{v.name}' is {v.type}, not one number")
    return v.data.reshape(-1)[0]


def _ints(v: Value) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else 0 for d in v.shape)


def make_loop(
    b: Builder, trips: Value | None, cond: Value | None, start: Sequence[Value],
    body: Any, names: Sequence[str],
) -> list[Value]:  # fmt: skip
    """A Loop node. body(inputs) makes the body's graph for formal inputs (turn, condition,
    carried...); it is made again with wider types where a carried value changes shape."""
    types: list[AnyType] = [v.type for v in start]
    host = ""
    for attempt in range(6):
        turn = Value(b.name("turn"), TensorType((), dtypes.i64))
        go = Value(b.name("go"), TensorType((), dtypes.b1))
        formals = [Value(b.name("carried"), t) for t in types]
        graph: Graph = body([turn, go, *formals])
        carried = graph.outputs[1 : 1 + len(start)]
        if len(carried) != len(start):
            raise Refusal("the body gives fewer values than it carries")
        wider = [_wider(t, v.type, attempt) for t, v in zip(types, carried, strict=True)]
        if wider == types:
            break
        for node in graph.nodes:
            detach(node)
        host = "a value that it carries changes its shape from turn to turn"
        types = wider
    else:
        raise Refusal("the types of the carried values do not settle")
    ends = _ends_early(cond, graph, go)
    scans = graph.outputs[1 + len(start) :]
    known = trips is not None and trips.data is not None
    if scans and trips is not None and not known:
        for node in graph.nodes:
            detach(node)
        raise NeedsValue(trips, "its trip count decides the size of its results")
    if cond is None and ends:
        cond = b.const(np.array(True))
    turns = dims.fresh_name("turns") if ends or not known else ""
    op = Loop(carried=len(start), turns=turns, host=host)
    return b.ops(op, trips, cond if ends else None, *start, name=names, regions=[graph])


def _ends_early(cond: Value | None, body: Graph, go: Value) -> bool:
    """Whether the condition can ever be false."""
    first = cond is None or (cond.data is not None and bool(_single(cond)))
    if not first:
        return True
    last = body.outputs[0]
    if last.data is not None:
        return not bool(_single(last))
    while last.producer is not None and last.producer.op.name == "Identity":
        last = last.producer.arg(0)
    return last is not go


def _wider(t: AnyType, u: AnyType, attempt: int) -> AnyType:
    """A type that takes in both; sizes that differ become open."""
    if t == u:
        return t
    if not isinstance(t, TensorType) or not isinstance(u, TensorType):
        return t
    if t.dtype is not u.dtype or t.rank != u.rank:
        raise Refusal(f"a carried value is {t} at first and {u} after a turn")
    shape = tuple(
        p if p == q or not isinstance(p, int)
        else dims.sym(dims.fresh_name("carried"))
        for p, q in zip(t.shape, u.shape, strict=True)
    )  # fmt: skip
    return TensorType(shape, t.dtype)


def slice_at(b: Builder, x: Value, axis: int, at: Value) -> Value:
    """x[..., at, ...] along an axis; `at` is a scalar."""
    return b.op(registry.make("Gather", axis=axis), x, at)


__all__ = ["If", "Loop", "make_loop", "slice_at"]
