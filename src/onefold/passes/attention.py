"""softmax(scale * q k^T + mask) v as one operator that never stores the scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onefold.ir.graph import Builder, Node, Value
from onefold.ops.attention import FLOATS, Attention
from onefold.ops.elementwise import Add, Div, Mul
from onefold.ops.logic import Where
from onefold.ops.matmul import MatMul
from onefold.ops.movement import Transpose
from onefold.ops.shape import Reshape
from onefold.ops.softmax import Softmax
from onefold.passes.match import finite, number, op_of, producer
from onefold.passes.rewrite import Patch, Scope, rewrite


@dataclass
class Scores:
    """The scores of an attention: scale * (q @ keys) + mask."""

    product: Node
    scale: float
    mask: Value | None
    nodes: list[Node]


def scores_of(v: Value, see: Scope) -> Scores | None:
    """Reads scale and mask between the product and the softmax, each at most once."""
    nodes: list[Node] = []
    mask: Value | None = None
    scale = 1.0
    for _ in range(3):
        n = v.producer
        if n is None or not see.sole(v):
            return None
        nodes.append(n)
        if isinstance(n.op, MatMul):
            return Scores(n, scale, mask, nodes)
        if isinstance(n.op, Add):
            i = 0 if producer(n.arg(0), MatMul, Mul, Div) is not None else 1
            if mask is not None or n.arg(i).shape != v.shape or scale != 1:
                return None
            mask, v = n.arg(1 - i), n.arg(i)
        elif isinstance(n.op, (Mul, Div)):
            i = 1 if isinstance(n.op, Mul) and n.arg(0).is_const else 0
            c = number(n.arg(1 - i))
            if not c or n.arg(i).shape != v.shape:
                return None
            scale, v = scale * (1 / c if isinstance(n.op, Div) else c), n.arg(i)
        else:
            return None
    return None


def always_sees(mask: Value | None) -> bool:
    """Whether no row of a mask can hide every key: then nothing depends on what that would mean
    (not a number by the formula, zeros in the operator)."""
    if mask is None:
        return True
    if mask.data is not None:
        return not bool(np.isneginf(mask.data.astype(np.float64)).all(-1).any())
    n = producer(mask, Where)
    if n is None:
        return False
    return all((c := v.data) is not None and finite(c) for v in (n.arg(1), n.arg(2)))


def scaled(v: Value, see: Scope) -> tuple[float, Value, list[Node]]:
    """(c, x, nodes) where v = c * x; exporters spread the scale over query and keys."""
    n = producer(v, Mul, Div)
    if n is None or not see.sole(v):
        return 1.0, v, []
    i = 1 if isinstance(n.op, Mul) and n.arg(0).is_const else 0
    c = number(n.arg(1 - i)) if n.arg(1 - i).tensor.size == 1 else None
    if not c:
        return 1.0, v, []
    return (1 / c if isinstance(n.op, Div) else c), n.arg(i), [n]


@rewrite("attention", MatMul)
def attention(n: Node, see: Scope) -> Patch | None:
    """Three or four axes: [B, S, E] is attention of one head."""
    soft = producer(n.arg(0), Softmax)
    rank = len(n.outputs[0].shape)
    if soft is None or rank not in (3, 4) or not see.sole(n.arg(0)):
        return None
    op = op_of(soft, Softmax)
    if op.axis % rank != rank - 1 or op.span != 1 or n.arg(1).is_const:
        return None
    found = scores_of(soft.arg(0), see)
    if found is None:
        return None
    q, keys, values = found.product.arg(0), found.product.arg(1), n.arg(1)
    shapes = (q.shape, keys.shape, values.shape)
    if any(len(s) != rank for s in shapes) or len({s[:-2] for s in shapes}) != 1:
        return None
    if q.dtype not in FLOATS or keys.is_const or not all(isinstance(d, int) for d in q.shape[1:-2]):
        return None
    mask = found.mask
    if mask is not None and (len(mask.shape) > rank or mask.dtype is not q.dtype
                             or not mask.shape or mask.shape[-1] != keys.shape[-1]):  # fmt: skip
        return None
    by_q, q, more_q = scaled(q, see)
    by_k, keys, more_k = scaled(keys, see)
    scale = found.scale * by_q * by_k
    covers = (n, soft, *found.nodes, *more_q, *more_k)

    def four(b: Builder, v: Value) -> Value:
        if rank == 4 or len(v.shape) < 3:
            return v
        return b.op(Reshape((v.shape[0], 1, *v.shape[1:])), v)

    def build(b: Builder) -> list[Value]:
        swap = (*range(rank - 2), rank - 1, rank - 2)
        k = b.op(Transpose(swap), keys)
        args = [four(b, q), four(b, k), four(b, values)]
        if mask is not None:
            args.append(four(b, mask))
        y = b.op(Attention(scale, undefined=not always_sees(mask)), *args)
        return [y if rank == 4 else b.op(Reshape(n.outputs[0].shape), y)]

    return Patch(covers, build)


RULES = (attention,)
