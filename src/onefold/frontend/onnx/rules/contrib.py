"""com.microsoft's fused contractions and attention operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onefold.frontend.onnx.rules import rule
from onefold.frontend.onnx.rules.attention import (
    default_scale,
    join_heads,
    need_rank,
    split_heads,
)
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Builder, Value
from onefold.ops.activation import HardSigmoid, LeakyRelu, Relu, Sigmoid
from onefold.ops.attention import Attention, RotaryEmbedding
from onefold.ops.base import Op, Refusal
from onefold.ops.cache import AppendTokens, TokenPositions
from onefold.ops.cast import Cast
from onefold.ops.conv import Conv, conv_fields
from onefold.ops.elementwise import Add, Clip, Mul, Sub
from onefold.ops.formats import OnnxNode
from onefold.ops.matmul import MatMul, gemm_from_onnx
from onefold.ops.movement import Concat, Slice, Transpose
from onefold.ops.recurrent import LSTM, functions
from onefold.ops.shape import Reshape
from onefold.ops.unary import Tanh


def activated(b: Builder, y: Value, name: str, params: Sequence[float]) -> Value:
    """The activation that a fused operator names; params: its alpha, beta (or minimum, maximum)."""
    plain: dict[str, Op] = {"Relu": Relu(), "Sigmoid": Sigmoid(), "Tanh": Tanh()}
    if not name:
        return y
    if name in plain:
        return b.op(plain[name], y)
    if name == "LeakyRelu":
        return b.op(LeakyRelu(alpha=float(params[0]) if params else 0.01), y)
    if name == "HardSigmoid" and len(params) >= 2:
        return b.op(HardSigmoid(alpha=float(params[0]), beta=float(params[1])), y)
    if name == "Clip" and len(params) >= 2:
        return b.op(Clip(), y, b.const(params[0], y.dtype), b.const(params[1], y.dtype))
    raise Refusal(f"the activation {name!r} with {len(params)} parameters is not known")


@rule("com.microsoft:FusedConv")
def fused_conv(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """activation(Conv(x, w, bias) + z)."""
    x, w = n.arg(0), n.arg(1)
    y = b.op(Conv(**conv_fields(n, x, w)), x, w, n.input(2))
    if n.input(3) is not None:
        y = b.op(Add(), y, n.arg(3))
    return [activated(b, y, n.attr("activation", ""), n.attr("activation_params") or ())]


@rule("com.microsoft:FusedGemm")
def fused_gemm(n: OnnxNode, b: Builder) -> Sequence[Value]:
    (y,) = gemm_from_onnx(n, b)
    name = n.attr("activation", "")
    params: list[float] = []
    for k in ("activation_alpha", "activation_beta"):
        if n.attr(k) is not None:
            params.append(float(n.attr(k)))
    return [activated(b, y, name, params)]


@rule("com.microsoft:FusedMatMul", "com.microsoft:TransposeMatMul")
def fused_matmul(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """alpha * a' @ b'; transBatch moves the first axis behind the batch, trans swaps the last
    two."""
    sides = []
    for i, s in enumerate("AB"):
        v = n.arg(i)
        perm = list(range(len(v.shape)))
        if n.attr(f"transBatch{s}", 0) and len(perm) > 2:
            perm = [*perm[1:-1], 0, perm[-1]]
        if n.attr(f"trans{s}", 0) and len(perm) > 1:
            perm[-2:] = perm[:-3:-1]
        sides.append(v if perm == sorted(perm) else b.op(Transpose(tuple(perm)), v))
    y = b.op(MatMul(), *sides)
    alpha = float(n.attr("alpha", 1.0))
    return [y if alpha == 1 else b.op(Mul(), y, b.const(alpha, y.dtype))]


@rule("com.microsoft:DynamicQuantizeLSTM")
def dynamic_quantize_lstm(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """An LSTM with integer weights [D, input, 4 H]; its activations stay in float, where ONNX
    Runtime quantizes them for speed."""
    w, r = (_weights(n, b, i, s) for i, s in ((1, 8), (2, 10)))
    d = 2 if n.attr("direction", "forward") == "bidirectional" else 1
    texts = [t.decode() if isinstance(t, bytes) else str(t) for t in n.attr("activations") or ()]
    acts = functions(
        texts or LSTM.default * d, n.attr("activation_alpha") or (), n.attr("activation_beta") or ()
    )
    op = LSTM(**(n.fields(LSTM) | {"activations": acts}))
    rest = [n.input(i) for i in range(3, 8)]
    return b.ops(op, n.arg(0), w, r, *rest, name=n.output_names)


def _weights(n: OnnxNode, b: Builder, i: int, scale: int) -> Value:
    """Integer weights [D, input, 4 H] as floats; scales are one or 4 H of them a direction."""
    q, s, z = n.arg(i), n.arg(scale), n.input(scale + 1)
    if len(q.shape) != 3:
        raise Refusal(f"weights of shape {list(q.shape)}; rank 3 is needed")
    shape = (q.shape[0], 1, s.shape[1]) if len(s.shape) == 2 else (q.shape[0], 1, 1)
    y = b.op(Cast(dtypes.f32), q)
    if z is not None:
        y = b.op(Sub(), y, b.op(Reshape(shape), b.op(Cast(dtypes.f32), z)))
    return b.op(Mul(), y, b.op(Reshape(shape), s))


# -- attention -----------------------------------------------------------------------------------


def part(b: Builder, x: Value, axis: int, start: Dim, size: Dim) -> Value:
    """x[start : start + size] along an axis."""
    if len(x.shape) <= axis:
        raise Refusal(f"{list(x.shape)} has no axis {axis}")
    starts: list[Dim] = [0] * len(x.shape)
    sizes = list(x.shape)
    starts[axis], sizes[axis] = start, size
    return b.op(Slice(tuple(starts), tuple(sizes), (1,) * len(sizes)), x)


def padding_bias(n: OnnxNode, b: Builder, mask: Value, q: Value, total: Dim) -> Value:
    """A 0/1 mask [B, T] or [B, S, T] as what is added to scores [B, H, S, T]."""
    need_rank(q, 4, "the query")
    fill = float(n.attr("mask_filter_value", -10000.0))
    batch = q.shape[0]
    if len(mask.shape) == 2:
        shape: tuple[Dim, ...] = (batch, 1, 1, mask.shape[1])
    elif len(mask.shape) == 3:
        shape = (batch, 1, q.shape[2], mask.shape[2])
    else:
        raise Refusal(f"a mask of shape {list(mask.shape)} is not supported")
    if isinstance(total, int) and isinstance(shape[3], int) and shape[3] != total:
        raise Refusal(f"a mask of {shape[3]} columns for {total} keys")
    seen = b.op(Cast(q.dtype), b.op(Cast(dtypes.b1), b.op(Reshape(shape), mask)))
    hidden = b.op(Sub(), b.const(1, q.dtype), seen)
    return b.op(Mul(), hidden, b.const(fill, q.dtype))


def masked_attention(
    n: OnnxNode, b: Builder, q: Value, k: Value, v: Value, mask: Value | None, extra: Value | None,
    offset: Dim, scores: int = -1,
) -> list[Value]:  # fmt: skip
    """Attention with a padding mask in one of its forms, and something more to add to scores."""
    lengths: Value | None = None
    bias = extra
    if mask is not None and len(mask.shape) == 1:
        if mask.shape != q.shape[:1]:
            raise Refusal(f"mask indices of shape {list(mask.shape)} are not supported")
        lengths = mask
    elif mask is not None:
        bias = padding_bias(n, b, mask, q, k.shape[2])
        bias = bias if extra is None else b.op(Add(), extra, bias)
    op = Attention(
        default_scale(q, n.attr("scale")), causal=bool(n.attr("unidirectional", 0)), offset=offset,
        scores=scores,
    )
    return b.ops(op, q, k, v, bias, lengths)


@rule("com.microsoft:MultiHeadAttention")
def multi_head_attention(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """q, k, v, bias, padding mask, scores to add, past keys and values."""
    heads = int(n.attr("num_heads", 0))
    if n.input(8) is not None or n.input(9) is not None:
        raise Refusal("MultiHeadAttention with shared buffers or beams is not supported")
    q, k, v = _projected(n, b, heads)
    offset: Dim = 0
    if n.input(6) is not None:
        past_k, past_v = need_rank(n.arg(6), 4, "past keys"), need_rank(n.arg(7), 4, "past values")
        offset = past_k.shape[2]
        k, v = b.op(Concat(2), past_k, k), b.op(Concat(2), past_v, v)
    scores = 3 if n.wants(3) else -1
    y, *p = masked_attention(n, b, q, k, v, n.input(4), n.input(5), offset, scores)
    return [join_heads(b, y), k, v, *p]


def _projected(n: OnnxNode, b: Builder, heads: int) -> tuple[Value, Value, Value]:
    """Query, key and value as [B, H, T, E]: separate, or packed together, the bias added."""
    q, k, v, bias = n.arg(0), n.input(1), n.input(2), n.input(3)
    parts: list[Value]
    if len(q.shape) == 5:
        parts = [_packed(b, q, i) for i in range(3)]
    elif k is not None and len(k.shape) == 5:
        parts = [q, _packed(b, k, 0), _packed(b, k, 1)]
    elif k is not None and v is not None:
        parts = [q, k, v]
    else:
        raise Refusal("MultiHeadAttention needs keys and values")
    out = []
    start: Dim = 0
    for x in parts:
        width = x.shape[2] if len(x.shape) == 3 else 0
        if bias is not None and len(x.shape) == 3:
            x = b.op(Add(), x, part(b, bias, 0, start, width))
            start = dims.add(start, width)
        out.append(split_heads(b, x, heads) if len(x.shape) == 3 else need_rank(x, 4, "keys"))
    return out[0], out[1], out[2]


def _packed(b: Builder, x: Value, i: int) -> Value:
    """Tensor i of x [B, S, H, 3 or 2, E], as [B, S, H * E]."""
    n, s, h, _, e = x.shape
    return b.op(Reshape((n, s, dims.mul(h, e))), part(b, x, 3, i, 1))


@rule("com.microsoft:Attention")
def attention_contrib(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """x, weights, bias, mask, past [2, B, H, P, E], scores to add."""
    x, w, bias, past = n.arg(0), n.arg(1), n.input(2), n.input(4)
    if n.attr("do_rotary", 0) or n.attr("past_present_share_buffer", 0):
        raise Refusal("Attention with rotation or shared buffers is not supported")
    heads = int(n.attr("num_heads", 0))
    if len(w.shape) != 2 or not isinstance(w.shape[1], int):
        raise Refusal(f"Attention has weights of shape {list(w.shape)}")
    sizes = [int(s) for s in n.attr("qkv_hidden_sizes") or (w.shape[1] // 3,) * 3]
    if len(sizes) != 3 or sum(sizes) != w.shape[1]:
        raise Refusal(f"Attention has weights for {w.shape[1]} columns, not {sizes}")
    y = b.op(MatMul(), x, w)
    y = y if bias is None else b.op(Add(), y, bias)
    starts = (0, sizes[0], sizes[0] + sizes[1])
    q, k, v = (
        split_heads(b, part(b, y, 2, s, size), heads) for s, size in zip(starts, sizes, strict=True)
    )
    offset: Dim = 0
    if past is not None:
        _, batch, h, offset, e = need_rank(past, 5, "past keys and values").shape
        old = [b.op(Reshape((batch, h, offset, e)), part(b, past, 0, i, 1)) for i in (0, 1)]
        k, v = b.op(Concat(2), old[0], k), b.op(Concat(2), old[1], v)
    out, *_ = masked_attention(n, b, q, k, v, n.input(3), n.input(5), offset)
    results = [join_heads(b, out)]
    if n.wants(1):
        whole = [b.op(Reshape((1, *t.shape)), t) for t in (k, v)]
        results.append(b.op(Concat(0), *whole))
    return results


@rule("com.microsoft:GroupQueryAttention")
def group_query_attention(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """q (or all three packed), k, v, past keys and values, last position of each sequence, total
    length, cosines, sines, positions, scores to add, sinks."""
    _refuse_variants(n)
    heads, groups = int(n.attr("num_heads", 0)), int(n.attr("kv_num_heads", 0))
    q, k, v = _grouped(n, b, heads, groups)
    lengths = b.op(Add(), n.arg(5), b.const(1, n.arg(5).dtype))
    if len(lengths.shape) != 1:
        lengths = b.op(Reshape((q.shape[0],)), lengths)
    places = b.op(TokenPositions(q.shape[2]), lengths)
    if n.attr("do_rotary", 0):
        at = n.input(9)
        turn = RotaryEmbedding(interleaved=bool(n.attr("rotary_interleaved", 0)))
        q = b.op(turn, q, n.arg(7), n.arg(8), places if at is None else at)
        k = b.op(turn, k, n.arg(7), n.arg(8), places if at is None else at)
    if n.input(3) is not None:
        past_k, past_v = need_rank(n.arg(3), 4, "past keys"), need_rank(n.arg(4), 4, "past values")
        total = _total(n, past_k.shape[2], k.shape[2])
        k = b.op(AppendTokens(total), past_k, k, places)
        v = b.op(AppendTokens(total), past_v, v, places)
    window = int(n.attr("local_window_size", -1))
    sink = n.input(11)
    if sink is None and n.attr("smooth_softmax", 0):
        sink = b.const([0.0] * heads, q.dtype)
    kind = int(n.attr("qk_output", 0))
    op = Attention(
        default_scale(q, n.attr("scale")), causal=bool(n.attr("causal", 1)),
        softcap=float(n.attr("softcap", 0.0)), from_end=True, padded=True,
        left=window - 1 if window > 0 else -1, scores={0: -1, 1: 2, 2: 3}.get(kind, -1),
    )  # fmt: skip
    y, *scores = b.ops(op, q, k, v, n.input(10), lengths, sink)
    return [join_heads(b, y), k, v, *scores]


def _refuse_variants(n: OnnxNode) -> None:
    if n.attr("sliding_window_cache", 0) or any(n.input(i) is not None for i in (12, 13)):
        raise Refusal("GroupQueryAttention with a sliding or quantized cache is not supported")
    if n.input(14) is not None or n.input(15) is not None:
        raise Refusal("GroupQueryAttention with normalised heads is not supported")


def _grouped(n: OnnxNode, b: Builder, heads: int, groups: int) -> tuple[Value, Value, Value]:
    q, k, v = n.arg(0), n.input(1), n.input(2)
    if k is not None and v is not None:
        return split_heads(b, q, heads), split_heads(b, k, groups), split_heads(b, v, groups)
    width: Any = need_rank(q, 3, "the query").shape[2]
    if heads < 1 or groups < 1 or not isinstance(width, int) or width % (heads + 2 * groups):
        raise Refusal(f"{width} columns cannot hold {heads} and twice {groups} heads")
    e = width // (heads + 2 * groups)
    return (
        split_heads(b, part(b, q, 2, 0, heads * e), heads),
        split_heads(b, part(b, q, 2, heads * e, groups * e), groups),
        split_heads(b, part(b, q, 2, (heads + groups) * e, groups * e), groups),
    )


def _total(n: OnnxNode, past: Dim, new: Dim) -> Dim:
    """Positions of the present cache: room for the total length where that is known, else one for
    each token."""
    v = n.input(6)
    if v is not None and v.content is not None and len(v.content) == 1:
        return dims.maximum(past, v.content[0])
    return dims.add(past, new)


