"""Rules for what stands between quantized layers.

A function of one 8-bit value is a table of 256, computed once as the layers would compute it. What
only moves elements, or picks the largest, needs no scale if it keeps the one that it finds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onefold.ir import dtypes
from onefold.ir.graph import WRONG_DATA, Array, Node, Value
from onefold.ir.types import TensorType
from onefold.ops.activation import LeakyRelu, Relu
from onefold.ops.elementwise import Add, Clip, Elementwise, Max, Min, Mul, Sub
from onefold.ops.movement import Transpose
from onefold.ops.pool import MaxPool
from onefold.ops.quant_arith import (
    AffineDequantize,
    AffineQuantize,
    QuantAdd,
    QuantMul,
    QuantRescale,
    QuantTable,
)
from onefold.ops.quantize import DequantizeLinear, QuantizeLinear
from onefold.ops.shape import Reshape
from onefold.passes.match import number, op_of, producer
from onefold.passes.rewrite import Patch, Scope, rewrite

SCALES = (DequantizeLinear, QuantizeLinear)
POINTWISE = (Elementwise, Clip, *SCALES)
CHEAP = (Add, Clip, LeakyRelu, Max, Min, Mul, Relu, Sub, *SCALES)
FEW = 5  # cheap nodes, which had rather end a kernel than be a look-up of their own
MOST = 24  # nodes of a function
BYTES = (dtypes.i8, dtypes.u8)
CHAINED = (
    Elementwise, Clip, AffineQuantize, AffineDequantize, QuantAdd, QuantMul, QuantRescale,
    QuantTable,
)  # fmt: skip

Level = tuple[list[Node], dict[int, Value]]
"""Nodes in order, and the 8-bit values that they are computed from."""


@rewrite("table", QuantizeLinear)
def table(n: Node, see: Scope) -> Patch | None:
    """A chain of elementwise layers that begins with one 8-bit value becomes a look-up."""
    if n.outputs[0].dtype not in BYTES:
        return None
    found = _function(n)
    if found is None:
        return None
    nodes, x = found
    if len(nodes) <= FEW and all(isinstance(m.op, CHEAP) for m in nodes):
        return None
    if x.shape != n.outputs[0].shape or x.tensor.size == 0:
        return None
    data = _evaluated(nodes, x)
    if data is None:
        return None
    covers = tuple(dict.fromkeys(reversed(nodes)))
    return Patch(covers, lambda b: [b.op(QuantTable(), x, b.const(data))])


@rewrite("chain-of-bytes", AffineQuantize, QuantAdd, QuantMul, QuantRescale)
def chain_of_bytes(n: Node, see: Scope) -> Patch | None:
    """Several of TensorFlow Lite's elementwise layers, from one 8-bit value to another, with
    nothing else than single numbers beside it, become a look-up."""
    out = n.outputs[0]
    if out.dtype not in BYTES:
        return None
    nodes: list[Node] = []
    found: tuple[list[Node], Value] | None = None
    at: Node | None = n
    while at is not None and isinstance(at.op, CHAINED) and len(nodes) < MOST:
        x = _only_input(at)
        if x is None or x.tensor.shape != out.tensor.shape:
            break
        nodes.insert(0, at)
        if x.dtype in BYTES:
            found = list(nodes), x
        at = x.producer
    if found is None or len(found[0]) < 2 or found[1].tensor.size == 0:
        return None
    covers, first = found
    data = _evaluated(covers, first)
    if data is None:
        return None
    return Patch(tuple(reversed(covers)), lambda b: [b.op(QuantTable(), first, b.const(data))])


def _only_input(n: Node) -> Value | None:
    """The one input of a node that is computed, where the others are single numbers."""
    if isinstance(n.op, QuantTable):
        return None if n.input(1) is None or n.arg(1).data is None else n.arg(0)
    if len(n.outputs) != 1 or (isinstance(n.op, AffineDequantize) and len(n.op.scale) != 1):
        return None
    computed = [v for v in n.present() if not v.is_const]
    one = len(computed) == 1 and isinstance(computed[0].type, TensorType)
    alone = all(number(v) is not None for v in n.present() if v.is_const)
    return computed[0] if one and alone else None


def _function(root: Node) -> tuple[list[Node], Value] | None:
    """The nodes of a function of one 8-bit value that ends with this node, in order, and the value.
    Other 8-bit values on the way must be functions of it too."""
    level = _level(root)
    if level is None:
        return None
    nodes, inputs = level
    while len(inputs) > 1:
        inner = next((f for f in (_inner(v, inputs) for v in inputs.values()) if f), None)
        if inner is None or len(nodes) + len(inner[0]) > MOST:
            return None
        nodes = [*inner[0], *nodes]
        del inputs[id(inner[0][-1].outputs[0])]
    return (nodes, next(iter(inputs.values()))) if inputs else None


def _inner(v: Value, others: dict[int, Value]) -> Level | None:
    """How a value follows from the others."""
    n = producer(v, QuantTable, QuantizeLinear)
    level = None if n is None else _level(n)
    fits = level is not None and id(v) not in level[1] and level[1].keys() <= others.keys()
    return level if fits else None


def _level(root: Node) -> Level | None:
    """The elementwise nodes that end with this one, as far as values that are dequantized."""
    if isinstance(root.op, QuantTable):
        return [root], {id(root.arg(0)): root.arg(0)}
    order: dict[int, Node] = {}
    inputs: dict[int, Value] = {}

    def visit(n: Node) -> bool:
        if id(n) in order:
            return True
        if not isinstance(n.op, POINTWISE) or len(n.outputs) != 1 or len(order) >= MOST:
            return False
        for v in n.present():
            if v.is_const:
                if v.tensor.size != 1:
                    return False
            elif v.dtype in BYTES and isinstance(n.op, DequantizeLinear):
                inputs[id(v)] = v
            elif v.producer is None or not visit(v.producer):
                return False
        order[id(n)] = n
        return True

    return (list(order.values()), inputs) if visit(root) else None


def _evaluated(nodes: Sequence[Node], x: Value) -> Array | None:
    """The results for all values of x."""
    values = np.arange(x.dtype.lo, x.dtype.hi + 1).astype(x.dtype.numpy)
    known: dict[int, Array] = {id(x): values}
    for n in nodes:
        args = [None if v is None else known.get(id(v), _one(n, v)) for v in n.inputs]
        try:
            result = n.op.ref(n, *args)
        except WRONG_DATA:
            return None
        known[id(n.outputs[0])] = np.broadcast_to(np.asarray(result).reshape(-1), (256,))
    return np.ascontiguousarray(known[id(nodes[-1].outputs[0])])


def _one(n: Node, v: Value) -> Array | None:
    """A constant that a node reads, without its shape where all of it is one number."""
    if v.data is None or number(v) is None or isinstance(n.op, QuantTable):
        return v.data
    return np.asarray(v.data.reshape(-1)[0])


@rewrite("kept-scale", QuantizeLinear)
def kept_scale(n: Node, see: Scope) -> Patch | None:
    """Quantizing what was dequantized by the same scale, with movement or MaxPool between."""
    mid = producer(n.arg(0), MaxPool, Reshape, Transpose)
    inner = producer(n.arg(0) if mid is None else mid.arg(0), DequantizeLinear)
    if inner is None or not _same_scale(inner, n):
        return None
    if mid is None:
        return Patch((n, inner), lambda b: [inner.arg(0)])
    if isinstance(mid.op, MaxPool) and mid.op.indices:
        return None
    return Patch((n, mid, inner), lambda b: [b.op(mid.op, inner.arg(0), *mid.inputs[1:])])


def _same_scale(a: Node, b: Node) -> bool:
    """One scale and one zero point for all elements, the same to dequantize and to quantize."""
    p, q = op_of(a, DequantizeLinear), op_of(b, QuantizeLinear)
    if p.block_size or q.block_size or a.arg(0).dtype is not q.to or q.to not in BYTES:
        return False
    scales, zeros = (a.const(1), b.const(1)), (a.const(2), b.const(2))
    if scales[0] is None or scales[1] is None or max(s.size for s in scales if s is not None) != 1:
        return False
    if any(n.input(2) is not None and z is None for n, z in zip((a, b), zeros, strict=True)):
        return False
    if scales[0].dtype != np.float32 or scales[0].reshape(-1)[0] != scales[1].reshape(-1)[0]:
        return False
    if not 0 < float(scales[0].reshape(-1)[0]) < np.inf or q.precision is not None:
        return False
    first, second = (0 if z is None else int(z.reshape(-1)[0]) for z in zeros)
    return first == second and all(z is None or z.size == 1 for z in zeros)


RULES = (kept_scale, table, chain_of_bytes)
