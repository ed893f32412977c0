"""Contractions between DequantizeLinear and QuantizeLinear become integer contractions.

    DequantizeLinear(x), DequantizeLinear(w) [, DequantizeLinear(bias)]
      -> Conv | MatMul [-> Add(bias)] | Gemm [-> Relu | Clip] -> QuantizeLinear

becomes QConv or QMatMul. Float weights that are constant have been folded by then, so that only
what the exporter left as integers is taken. The bias must be i32 in units of x_scale * w_scale,
as the QDQ convention has it; any other bias, or a bias in float, is a reason to leave the pattern.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onefold.ir import dtypes
from onefold.ir.graph import Builder, Graph, Node, Value
from onefold.ops.base import Refusal
from onefold.ops.conv import Conv
from onefold.ops.elementwise import Add
from onefold.ops.matmul import Gemm, MatMul
from onefold.ops.movement import Transpose
from onefold.ops.quantize import DequantizeLinear, QuantizeLinear
from onefold.ops.quantized import ACTIVATIONS, WEIGHTS, QConv, QMatMul, multiplier

TOLERANCE = 1e-4  # by which the scale of a bias may differ from x_scale * w_scale


@dataclass
class Match:
    """One pattern: quantized operands, and what stands between the contraction and its end."""

    node: Node
    x: Node
    w: Node
    bias: Node | None
    end: Node
    low: float = -np.inf
    high: float = np.inf


def fuse_qdq(graph: Graph) -> int:
    """Fuse every pattern; returns how many. Nodes left without readers stay for dead-code
    elimination."""
    done = 0
    for g in list(graph.regions_and_self()):
        for end in list(g.nodes):
            if isinstance(end.op, QuantizeLinear):
                m = _match(end, graph.pinned())
                if m is not None and _apply(g, m):
                    done += 1
    return done


def _single(v: Value, pinned: set[int]) -> Node | None:
    """The producer of a value that has one reader."""
    return v.producer if len(v.uses) == 1 and id(v) not in pinned else None


def _match(end: Node, pinned: set[int]) -> Match | None:
    op = end.op
    assert isinstance(op, QuantizeLinear)
    if op.to not in ACTIVATIONS or op.block_size or end.arg(1).tensor.size != 1:
        return None
    if end.arg(1).dtype is not dtypes.f32 or op.precision not in (None, dtypes.f32):
        return None
    node = _single(end.arg(0), pinned)
    low, high = -np.inf, np.inf
    if node is not None and node.op.name in ("Relu", "Clip"):
        found = _limits(node)
        if found is None:
            return None
        low, high = found
        node = _single(node.arg(0), pinned)
    if node is None:
        return None
    bias: Node | None = None
    if isinstance(node.op, Add):
        sides = [v.producer for v in node.present()]
        for k in (0, 1):
            inner = _single(node.arg(k), pinned)
            other = sides[1 - k]
            if inner is not None and isinstance(inner.op, MatMul) and _dequantized(other):
                node, bias = inner, other
                break
    return _operands(node, bias, end, low, high)


def _operands(
    node: Node, bias: Node | None, end: Node, low: float, high: float
) -> Match | None:
    op = node.op
    if isinstance(op, Gemm) and (op.alpha != 1 or op.beta != 1 or op.transA):
        return None
    if not isinstance(op, (Conv, MatMul, Gemm)):
        return None
    x, w = node.arg(0).producer, node.arg(1).producer
    if x is None or w is None or not _dequantized(x) or not _dequantized(w):
        return None
    third = node.input(2)
    if third is not None:
        bias = third.producer
        if not _dequantized(bias):
            return None
    if x.arg(0).dtype not in ACTIVATIONS or w.arg(0).dtype not in WEIGHTS:
        return None
    if x.arg(1).tensor.size != 1 or x.arg(1).dtype is not dtypes.f32:
        return None
    if w.arg(1).tensor.size != 1 and not _per_channel(op, w):
        return None
    m = Match(node, x, w, bias, end, low, high)
    return m if bias is None or _bias_fits(m, bias) else None


def _dequantized(node: Node | None) -> bool:
    return node is not None and isinstance(node.op, DequantizeLinear) and not node.op.block_size


def _per_channel(op: object, w: Node) -> bool:
    assert isinstance(w.op, DequantizeLinear)
    rank = len(w.arg(0).shape)
    axis = w.op.axis % rank
    if isinstance(op, Conv) or (isinstance(op, Gemm) and op.transB):
        return axis == 0
    return rank > 1 and axis == rank - 1


def _limits(node: Node) -> tuple[float, float] | None:
    """The range of a Relu or of a Clip with constant limits."""
    if node.op.name == "Relu":
        return 0.0, np.inf
    out = []
    for i, default in ((1, -np.inf), (2, np.inf)):
        v = node.input(i)
        if v is None:
            out.append(default)
        elif v.data is not None and v.data.size == 1:
            out.append(float(v.data.reshape(-1)[0]))
        else:
            return None
    return out[0], out[1]


def _bias_fits(m: Match, bias: Node) -> bool:
    """An i32 bias with zero point 0 and scale x_scale * w_scale."""
    if bias.arg(0).dtype is not dtypes.i32:
        return False
    zero = bias.const(2)
    if bias.input(2) is not None and (zero is None or zero.any()):
        return False
    have, x, w = bias.const(1), m.x.const(1), m.w.const(1)
    if have is None or x is None or w is None:
        return False
    want = x.reshape(-1).astype(np.float64) * w.reshape(-1)
    if have.size not in (1, want.size):
        return False
    return bool(np.allclose(have.reshape(-1), want, rtol=TOLERANCE, atol=0))


def _quantized_limit(value: float, end: Node, default: int) -> int | None:
    """The stored value of a limit; None where the scale is not known."""
    if not np.isfinite(value):
        return default
    scale, zero = end.const(1), end.const(2)
    if scale is None or (end.input(2) is not None and zero is None):
        return None
    offset = 0 if zero is None else int(zero.reshape(-1)[0])
    real = np.rint(np.float32(value) / scale.reshape(-1)[0].astype(np.float32))
    return int(np.clip(real + offset, -(1 << 15), 1 << 15))


def _apply(graph: Graph, m: Match) -> bool:
    op, end = m.node.op, m.end
    assert isinstance(end.op, QuantizeLinear)
    kind = end.op.to
    qmin = _quantized_limit(m.low, end, kind.lo)
    qmax = _quantized_limit(m.high, end, kind.hi)
    if qmin is None or qmax is None:
        return False
    limits = {"qmin": qmin if qmin > kind.lo else None, "qmax": qmax if qmax < kind.hi else None}
    made = Graph(graph.name)
    b = Builder(made, m.node.origin.via("qdq"))
    x, w = m.x.arg(0), m.w.arg(0)
    zero = end.input(2)
    try:
        scale = multiplier(b, m.x.arg(1), m.w.arg(1), end.arg(1))
        new: QConv | QMatMul
        if isinstance(op, Conv):
            new = QConv(op.strides, op.pads, op.dilations, op.group, **limits)
        else:
            new = QMatMul(**limits)
            if isinstance(op, Gemm) and op.transB:
                w = b.op(Transpose((1, 0)), w)
        y = b.op(
            new, x, w, None if m.bias is None else m.bias.arg(0), m.x.input(2), m.w.input(2),
            scale, b.const(0, kind) if zero is None else zero,
        )  # fmt: skip
    except Refusal:
        for n in made.nodes:
            for v in n.present():
                v.uses.remove(n)
        return False
    at = graph.nodes.index(end)
    graph.nodes[at:at] = made.nodes
    y.name = end.outputs[0].name
    graph.replace(end.outputs[0], y)
    return True
