"""ONNX's attention operators in terms of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onefold.frontend.onnx.rules import rule
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Builder, Value
from onefold.ir.types import TensorType
from onefold.ops.attention import Attention, RotaryEmbedding
from onefold.ops.base import Refusal
from onefold.ops.cast import Cast
from onefold.ops.elementwise import Mul
from onefold.ops.formats import OnnxNode
from onefold.ops.matmul import MatMul
from onefold.ops.movement import Concat, Transpose
from onefold.ops.shape import Reshape
from onefold.ops.softmax import Softmax


def need_rank(v: Value, rank: int, what: str) -> Value:
    """v. Raises Refusal unless it has this rank."""
    if len(v.shape) != rank:
        raise Refusal(f"{what} {list(v.shape)} should have rank {rank}")
    return v


def split_heads(b: Builder, x: Value, heads: int) -> Value:
    """[B, S, H * E] as [B, H, S, E]."""
    if len(x.shape) != 3 or heads < 1 or not isinstance(x.shape[2], int) or x.shape[2] % heads:
        raise Refusal(f"{list(x.shape)} cannot be split into {heads} heads")
    y = b.op(Reshape((x.shape[0], x.shape[1], heads, x.shape[2] // heads)), x)
    return b.op(Transpose((0, 2, 1, 3)), y)


def join_heads(b: Builder, x: Value) -> Value:
    """[B, H, S, E] as [B, S, H * E]."""
    n, h, s, e = x.shape
    return b.op(Reshape((n, s, dims.mul(h, e))), b.op(Transpose((0, 2, 1, 3)), x))


def default_scale(q: Value, given: Any) -> float:
    """1 / sqrt(E) of q [B, H, S, E] where no scale is given."""
    if given:
        return float(given)
    e = need_rank(q, 4, "the query").shape[3]
    if not isinstance(e, int) or e < 1:
        raise Refusal(f"heads of {e} elements; their size must be known")
    return float(e**-0.5)


@rule("Attention")
def attention(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Opsets 23 to 25: q, k, v, mask, past_key, past_value, lengths of an external cache."""
    q, k, v = n.arg(0), n.arg(1), n.arg(2)
    packed = len(q.shape) == 3
    if packed:
        heads, groups = int(n.attr("q_num_heads", 0)), int(n.attr("kv_num_heads", 0))
        q, k, v = split_heads(b, q, heads), split_heads(b, k, groups), split_heads(b, v, groups)
    if len(q.shape) != 4 or len(k.shape) != 4 or len(v.shape) != 4:
        raise Refusal("Attention needs query, key and value of rank 3 or 4")
    past_k, past_v, lengths = n.input(4), n.input(5), n.input(6)
    offset: Dim = 0
    if past_k is not None and past_v is not None:
        if len(past_k.shape) != 4:
            raise Refusal(f"the past keys have shape {list(past_k.shape)}; rank 4 is needed")
        offset = past_k.shape[2]
        k, v = b.op(Concat(2), past_k, k), b.op(Concat(2), past_v, v)
    given = n.attr("scale")
    op = Attention(
        scale=default_scale(q, None) if given is None else float(given),
        causal=bool(n.attr("is_causal", 0)), softcap=float(n.attr("softcap", 0.0)),
        offset=offset, from_end=lengths is not None and past_k is None,
        left=int(n.attr("left_window_size", -1)), right=int(n.attr("right_window_size", -1)),
        scores=int(n.attr("qk_matmul_output_mode", 0)) if n.wants(3) else -1,
    )  # fmt: skip
    y, *scores = b.ops(op, q, k, v, n.input(3), lengths)
    return [join_heads(b, y) if packed else y, k, v, *scores]


@rule("RotaryEmbedding")
def rotary_embedding(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """x, cos, sin, positions."""
    x, cos, sin = n.arg(0), n.arg(1), n.arg(2)
    heads = int(n.attr("num_heads", 0))
    return b.ops(_rotary(x, cos, heads, n), x, cos, sin, n.input(3), name=n.output_names)


@rule("com.microsoft:RotaryEmbedding")
def rotary_embedding_contrib(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """x, positions, cos, sin; a factor `scale` on the result."""
    x, at, cos, sin = n.arg(0), n.arg(1), n.arg(2), n.arg(3)
    heads = int(n.attr("num_heads", 0))
    if len(x.shape) == 3 and not heads:
        width, half = x.shape[2], cos.shape[-1]
        if not isinstance(width, int) or not isinstance(half, int) or half < 1:
            raise Refusal("RotaryEmbedding needs a known size of its heads")
        heads = width // (2 * half)
    if n.attr("is_packed_batching", 0):
        raise Refusal("RotaryEmbedding of packed batches is not supported")
    y = b.op(_rotary(x, cos, heads, n), x, cos, sin, at)
    scale = float(n.attr("scale", 1.0))
    return [y if scale == 1 else b.op(Mul(), y, b.const(scale, y.dtype))]


def _rotary(x: Value, cos: Value, heads: int, n: OnnxNode) -> RotaryEmbedding:
    given = int(n.attr("rotary_embedding_dim", 0))
    if given and cos.shape and cos.shape[-1] != given // 2:
        raise Refusal(f"rotary_embedding_dim {given} is not twice the width of the cosines")
    return RotaryEmbedding(heads, bool(n.attr("interleaved", 0)))


@rule("ai.onnx.preview:FlexAttention")
def flex_attention(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """q, k, v; the bodies score_mod and prob_mod change scores and probabilities."""
    q, k, v = n.arg(0), n.arg(1), n.arg(2)
    if any(len(t.shape) != 4 for t in (q, k, v)):
        raise Refusal("FlexAttention needs query, key and value of rank 4")
    if "score_mod" not in n.attrs and "prob_mod" not in n.attrs:
        return b.ops(Attention(default_scale(q, n.attr("scale"))), q, k, v, name=n.output_names)
    default = dtypes.f64 if q.dtype is dtypes.f64 else dtypes.f32
    kind = PRECISION.get(int(n.attr("softmax_precision", 0)), default)
    batch, heads, s, e = q.shape
    groups, t = k.shape[1], k.shape[2]
    per = dims.floordiv(heads, groups)
    q5 = b.op(Reshape((batch, groups, per, s, e)), q)
    k5 = b.op(Reshape((batch, groups, 1, t, e)), k)
    v5 = b.op(Reshape((batch, groups, 1, t, v.shape[3])), v)
    scores = b.op(MatMul(), _as(b, q5, kind), b.op(Transpose((0, 1, 2, 4, 3)), _as(b, k5, kind)))
    scores = b.op(Reshape((batch, heads, s, t)), scores)
    scores = b.op(Mul(), scores, b.const(default_scale(q, n.attr("scale")), kind))
    if "score_mod" in n.attrs:
        scores = _modified(n, "score_mod", scores)
    p = b.op(Softmax(axis=-1), scores)
    if "prob_mod" in n.attrs:
        p = _modified(n, "prob_mod", p)
    p = b.op(Reshape((batch, groups, per, s, t)), _as(b, p, q.dtype))
    y = b.op(MatMul(), p, v5)
    return b.ops(Reshape((batch, heads, s, v.shape[3])), y, name=n.output_names)


def _modified(n: OnnxNode, name: str, x: Value) -> Value:
    """x after the body that changes it, which keeps its shape."""
    body = n.attrs[name]
    if len(body.inputs) != 1 or len(body.outputs) != 1:
        raise Refusal(f"the body '{name}' must take and give one tensor")
    (y,) = n.importer.inline(body, [x])
    if not isinstance(y.type, TensorType) or y.shape != x.shape:
        raise Refusal(f"the body '{name}' gives {y.type}, not the shape {list(x.shape)}")
    return y  # type: ignore[no-any-return]


PRECISION = {1: dtypes.f32, 10: dtypes.f16, 11: dtypes.f64, 16: dtypes.bf16}


def _as(b: Builder, v: Value, kind: dtypes.DType) -> Value:
    return v if v.dtype is kind else b.op(Cast(kind), v)


