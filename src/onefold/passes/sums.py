"""Sums of two quantized values become one operation in f32, where that gives the same bytes.

Two bytes have 65536 values, so that a shorter way to the result is tried on all of them: with its
numbers as they are, and moved by some units in the last place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from onefold.codegen.tiles import Machine
from onefold.ir.graph import WRONG_DATA, Array, Graph, Node, Value
from onefold.ops.activation import Relu
from onefold.ops.elementwise import Add, Clip, Sub
from onefold.ops.quant_arith import QuantAdd
from onefold.ops.quantize import DequantizeLinear, QuantizeLinear
from onefold.ops.rounded_sum import BYTES, RoundedSum
from onefold.passes.match import number, op_of, producer
from onefold.passes.rewrite import Patch, Scope, apply_rules, rewrite
from onefold.target import Target

NEAR = (0, 1, -1, 2, -2, 4, -4, 8, -8)  # units in the last place that a number is moved
CLOSE = 1e-3  # to a half: results that such a move may change


@dataclass(frozen=True)
class Found:
    """Nodes that compute, in order, round(x a + y b + c) + zero for bytes x and y."""

    nodes: Sequence[Node]
    x: Value
    y: Value
    a: float
    b: float
    c: float
    zero: int


@rewrite("quantized-sum", QuantizeLinear, QuantAdd)
def quantized_sum(n: Node, see: Scope) -> Patch | None:
    """A sum of two quantized values, and what follows it."""
    if n.outputs[0].dtype not in BYTES:
        return None
    found = _tflite(n) if isinstance(n.op, QuantAdd) else _onnx(n)
    if found is None or found.x.dtype not in BYTES or found.y.dtype not in BYTES:
        return None
    if not found.x.shape == found.y.shape == n.outputs[0].shape:
        return None
    op = _exact(found)
    covers = tuple(reversed(found.nodes))
    return None if op is None else Patch(covers, lambda b: [b.op(op, found.x, found.y)])


def _tflite(n: Node) -> Found:
    op = op_of(n, QuantAdd)
    (a, p), (b, q), (y, r) = op.by_a, op.by_b, op.by_y
    common = y * 2.0 ** (r - 31) * 2.0**op.left
    scales = a * 2.0 ** (p - 31) * common, b * 2.0 ** (q - 31) * common * (-1 if op.minus else 1)
    shift = -op.zero_a * scales[0] - op.zero_b * scales[1]
    return Found((n,), n.arg(0), n.arg(1), *scales, shift, op.zero_y)


def _onnx(n: Node) -> Found | None:
    inner, kind = n.arg(0).producer, op_of(n, QuantizeLinear)
    scale, zero = number(n.input(1)), _zero(n)
    nodes = [n]
    if inner is not None and isinstance(inner.op, (Relu, Clip)):
        nodes.insert(0, inner)
        inner = inner.arg(0).producer
    if inner is None or not isinstance(inner.op, (Add, Sub)) or kind.precision is not None:
        return None
    sides = [producer(v, DequantizeLinear) for v in inner.present()]
    if None in sides or scale is None or not scale > 0 or zero is None:
        return None
    shares: list[tuple[float, float]] = []
    for side, sign in zip(sides, (1, -1 if isinstance(inner.op, Sub) else 1), strict=True):
        assert side is not None
        size, offset = number(side.input(1)), _zero(side)
        if size is None or offset is None:
            return None
        shares.append((sign * size / scale, -sign * offset * size / scale))
    (a, p), (b, q) = shares
    first, second = (m for m in sides if m is not None)
    every = [*dict.fromkeys((first, second)), inner, *nodes]
    return Found(every, first.arg(0), second.arg(0), a, b, p + q, zero)


def _zero(n: Node) -> int | None:
    """The one zero point of a node; 0 where it has none."""
    if n.input(2) is None:
        return 0
    found = number(n.input(2))
    return None if found is None else int(found)


def _exact(f: Found) -> RoundedSum | None:
    """The operation, where it gives what the nodes give for all bytes."""
    axes = (np.arange(v.dtype.lo, v.dtype.hi + 1).astype(v.dtype.numpy) for v in (f.x, f.y))
    x, y = np.meshgrid(*axes, indexing="ij")
    want = _evaluated(f, x, y)
    if want is None or not np.isfinite((f.a, f.b, f.c)).all():
        return None
    kind = f.nodes[-1].outputs[0].dtype
    lo, hi = int(want.min()), int(want.max())
    place = x * f.a + y * f.b + f.c
    close = (np.abs(place - np.floor(place) - 0.5) < CLOSE).nonzero()
    for a, b, c in product(*(_moved(v) for v in (f.a, f.b, f.c))):
        op = RoundedSum(a, b, c, f.zero, lo, hi, kind)
        if op.gives(x[close], y[close], want[close]) and op.gives(x, y, want):
            return op
    return None


def _moved(v: float) -> list[float]:
    return [float(np.float32(v + k * np.spacing(np.float32(max(abs(v), 1))))) for k in NEAR]


def _evaluated(f: Found, x: Array, y: Array) -> Array | None:
    """The results for all pairs of bytes."""
    known: dict[int, Array] = {id(f.x): x, id(f.y): y}
    for n in f.nodes:
        args = [None if v is None else known.get(id(v), v.data) for v in n.inputs]
        if any(v is not None and a is None for v, a in zip(n.inputs, args, strict=True)):
            return None
        try:
            known[id(n.outputs[0])] = np.asarray(n.op.ref(n, *args))
        except WRONG_DATA:
            return None
    return known[id(f.nodes[-1].outputs[0])]


def shorten_sums(graph: Graph, target: Target) -> int:
    """Where there are vectors of f32; elsewhere integers are as fast."""
    return 0 if Machine.of(target) is None else apply_rules(graph, (quantized_sum,))
