"""com.microsoft's fused normalisations of transformers."""

from __future__ import annotations

from collections.abc import Sequence

from onefold.frontend.onnx.rules import rule
from onefold.ir import dtypes
from onefold.ir.graph import Builder, Value
from onefold.ops.base import Refusal
from onefold.ops.cast import Cast, FilledLike
from onefold.ops.elementwise import Add
from onefold.ops.embed import EmbeddingSum
from onefold.ops.formats import OnnxNode
from onefold.ops.normalize import LayerNormalization, RMSNormalization
from onefold.ops.reduce import ReduceSum


def _sum(b: Builder, *parts: Value | None) -> Value:
    total = parts[0]
    assert total is not None
    for p in parts[1:]:
        total = total if p is None else b.op(Add(), total, p)
    return total


def _outputs(n: OnnxNode, results: Sequence[Value], total: Value) -> list[Value]:
    """Y, mean, 1 / deviation, sum: of the last three only what the operator has."""
    first, *stats = results
    spare = [stats[0] if stats else first, stats[-1] if stats else first]
    return [first, *spare, total][: max(len(n.output_names), 1)]


@rule("com.microsoft:SkipLayerNormalization")
def skip_layer_normalization(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """LayerNormalization of x + skip + bias; the sum itself is the fourth output."""
    total = _sum(b, n.tensor(0), n.tensor(1), n.input(4))
    stats = n.wants(1) or n.wants(2)
    op = LayerNormalization(-1, float(n.attr("epsilon", 1e-5)), stats)
    return _outputs(n, b.ops(op, total, n.tensor(2), n.input(3), name=n.output_names[0]), total)


@rule("com.microsoft:SkipSimplifiedLayerNormalization")
def skip_simplified_layer_normalization(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """RMSNormalization of x + skip + bias; the sum itself is the fourth output."""
    if n.wants(1):
        raise Refusal("it has no mean to return")
    total = _sum(b, n.tensor(0), n.tensor(1), n.input(3))
    op = RMSNormalization(-1, float(n.attr("epsilon", 1e-5)), n.wants(2))
    return _outputs(n, b.ops(op, total, n.tensor(2), name=n.output_names[0]), total)


@rule("com.microsoft:EmbedLayerNormalization")
def embed_layer_normalization(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """LayerNormalization of the sum of word, position and segment embeddings.

    The second output counts the mask's ones per row, zeros without a mask.
    """
    ids, segments = n.tensor(0), n.input(1)
    total = b.op(EmbeddingSum(), ids, n.tensor(2), n.tensor(3), n.input(8), segments, n.input(4))
    op = LayerNormalization(-1, float(n.attr("epsilon", 1e-12)))
    out = [b.op(op, total, n.tensor(5), n.tensor(6), name=n.output_names[0])]
    if n.wants(1) or n.wants(2):
        mask = n.input(7)
        source = mask if mask is not None else ids
        counted = b.op(ReduceSum((1,), False), source)
        if mask is None:
            counted = b.op(FilledLike(0, dtypes.i32), counted)
        out += [counted if counted.dtype is dtypes.i32 else b.op(Cast(dtypes.i32), counted), total]
    return out
