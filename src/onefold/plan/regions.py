"""If and Loop as steps: their bodies share the arena and write where the results are wanted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onefold.errors import PlanError
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim, Sym
from onefold.ir.graph import Node, Value
from onefold.ir.scalar import TensorExpr, stored
from onefold.ir.types import TensorType
from onefold.ops.control import If, Loop
from onefold.plan.program import AnyStep, Buffer, IfStep, LoopStep, Step

if TYPE_CHECKING:
    from onefold.plan.assemble import Assembler


def assemble_region(a: Assembler, n: Node) -> list[AnyStep]:
    """Steps of a node with bodies."""
    if isinstance(n.op, If):
        return _if(a, n)
    if isinstance(n.op, Loop):
        return _loop(a, n, n.op)
    raise PlanError(f"{n.op.name} has bodies but no steps", where=str(n.origin))


def _home(a: Assembler, v: Value) -> Buffer:
    if id(v) not in a.place:
        a.place[id(v)] = a.buffer(v.name, "arena", v.tensor)
    return a.place[id(v)]


def _if(a: Assembler, n: Node) -> list[AnyStep]:
    outs = [_home(a, v) for v in n.outputs]
    sizes: list[list[tuple[Sym, Dim]]] = []
    blocks: list[list[AnyStep]] = []
    for g in n.regions:
        blocks.append(a.block(g, outs))
        learned: list[tuple[Sym, Dim]] = []
        for v, inner in zip(n.outputs, g.outputs, strict=True):
            for d, e in zip(v.shape, inner.shape, strict=True):
                if d != e:
                    (s,) = dims.symbols(d)
                    learned.append((s, e))
        sizes.append(learned)
    a.found += [s for s, _ in sizes[0]] or [s for s, _ in sizes[1]]
    return [
        IfStep(a.of(n.arg(0)), blocks[0], blocks[1], n.origin, tuple(sizes[0]), tuple(sizes[1]))
    ]


def _loop(a: Assembler, n: Node, op: Loop) -> list[AnyStep]:
    (body,) = n.regions
    turn, go, *formals = body.inputs
    start = n.inputs[2:]
    before: list[AnyStep] = []
    kept = [_home(a, v) for v in n.outputs[: op.carried]]
    for v, formal, b in zip(start, formals, kept, strict=True):
        assert v is not None
        before.append(a.copy(v, b))
        a.place[id(formal)] = b
    cond = None
    if n.input(1) is not None:
        cond = a.place[id(go)] = a.buffer(go.name, "arena", go.tensor)
        before.append(a.copy(n.arg(1), cond))
    elif go.uses or any(v is go for v in body.outputs):
        always = a.place[id(go)] = a.buffer(go.name, "arena", go.tensor)
        before.append(a.copy(_true(a), always))
    counter = None
    if turn.uses or any(v is turn for v in body.outputs):
        counter = a.place[id(turn)] = a.buffer(turn.name, "arena", turn.tensor)
    name = op.turns or f"turns_at{len(a.buffers)}"
    turns = Sym(name, 0, dims.upper(op.count(n)))
    a.found.append(turns)
    steps = a.block(body, [None] * len(body.outputs))
    steps += _store_scans(a, n, op, turns)
    steps += _carry(a, [*([(body.outputs[0], cond)] if cond else []),
                        *zip(body.outputs[1 : 1 + op.carried], kept, strict=True)])  # fmt: skip
    bound = op.trip_bound(n)
    trips: Buffer | Dim | None = bound if bound is not None else (
        a.of(n.arg(0)) if n.input(0) is not None else None
    )  # fmt: skip
    return [*before, LoopStep(trips, cond, counter, steps, turns, n.origin)]


def _true(a: Assembler) -> Value:
    import numpy as np

    v = Value("true", TensorType((), dtypes.b1), np.array(True))
    a.keep.append(v)
    return v


def _store_scans(a: Assembler, n: Node, op: Loop, turns: Sym) -> list[AnyStep]:
    (body,) = n.regions
    steps: list[AnyStep] = []
    here = dims.atom(replace(turns, hi=max(turns.hi - 1, 0)))
    for v, inner in zip(n.outputs[op.carried :], body.outputs[1 + op.carried :], strict=True):
        steps.append(_slice_store(a, v, _home(a, v), inner, here, n))
    return steps


def _slice_store(a: Assembler, out: Value, b: Buffer, inner: Value, at: Dim, n: Node) -> Step:
    source = stored(inner)
    t = TensorType((1, *inner.shape), inner.dtype)
    part = TensorExpr(t, lambda *i: source(*i[1:]))
    start = [at] + [0] * inner.tensor.rank
    return a.store(out, b, part, n.origin, n, start)


def _carry(a: Assembler, pairs: list[tuple[Value, Buffer]]) -> list[AnyStep]:
    """Copies of the body's results to where the next turn reads them. A result that lies where
    another one is written goes by way of a buffer of its own."""
    steps: list[AnyStep] = []
    targets = {id(b.root) for _, b in pairs}
    late: list[tuple[Value, Buffer]] = []
    for v, b in pairs:
        if v.data is None and a.of(v) is b:
            continue
        if v.data is None and id(a.of(v).root) in targets:
            aside = a.buffer(f"{v.name}.next", "arena", v.tensor)
            steps.append(a.copy(v, aside))
            moved = Value(f"{v.name}.next", v.type)
            a.keep.append(moved)
            a.place[id(moved)] = aside
            late.append((moved, b))
        else:
            late.append((v, b))
    return steps + [a.copy(v, b) for v, b in late]



