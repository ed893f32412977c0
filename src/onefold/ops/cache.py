"""Keys and values kept between calls, and states of linear attention and causal convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.codegen.text import literal
from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.scalar import Index, Inside, Scalar
from onefold.ir.types import TensorType
from onefold.ops.attention import FLOATS, same_dims
from onefold.ops.base import Case, Code, Lowering, Op, Refusal, operator
from onefold.ops.formats import OnnxNode


@operator
class TokenPositions(Op):
    """Positions [B, count] of the last `count` of lengths[b] tokens, from 0 on where there are
    fewer."""

    count: Dim = 1
    exact: ClassVar = True
    cases: ClassVar = (
        Case((np.array([5, 2], np.int32),), {"count": 3}),
        Case((np.array([7], np.int64),)),
        Case((np.array([0], np.int64),), {"count": 4}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        v = n.arg(0)
        if len(v.shape) != 1 or not v.dtype.is_int:
            raise Refusal(f"lengths of {v.dtype}{list(v.shape)}; a list of integers is needed")
        return [TensorType((v.shape[0], self.count), dtypes.i64)]

    def ref(self, n: Node, lengths: Any) -> Any:
        count = int(str(self.count))
        first = np.maximum(lengths.astype(np.int64) - count, 0)
        return first[:, None] + np.arange(count)

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        def element(b: Dim, i: Dim) -> Scalar:
            last = scalar.cast(k.x(0)(b), dtypes.i64) - Index(self.count)
            return scalar.maximum(last, 0) + Index(i)

        return k.map(element)


@operator
class AppendTokens(Op):
    """The first at[b, 0] tokens of past [B, G, P, E] and behind them new [B, G, S, E], in a result
    of `total` >= P positions that is zero from there on. at [B, S] are the positions of new."""

    total: Dim = 1
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((2, 1, 4, 3), "f32"), ((2, 1, 2, 3), "f32"), np.array([[4, 5], [1, 2]], np.int64)),
             {"total": 6}),
        Case((((1, 2, 5, 3), "f16"), ((1, 2, 1, 3), "f16"), np.array([[2]], np.int64)),
             {"total": 5}),
        Case((((1, 2, 0, 3), "f32"), ((1, 2, 3, 3), "f32"), np.array([[0, 1, 2]], np.int64)),
             {"total": 3}),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        past, new, at = n.arg(0), n.arg(1), n.arg(2)
        if len(past.shape) != 4 or len(new.shape) != 4 or past.dtype is not new.dtype:
            raise Refusal(f"{past.type} cannot take {new.type}")
        same_dims(n, "past and new tokens", (past.shape[0], new.shape[0]),
                  (past.shape[1], new.shape[1]), (past.shape[3], new.shape[3]))  # fmt: skip
        if at.dtype is not dtypes.i64 or len(at.shape) != 2:
            raise Refusal(f"positions of {at.dtype}{list(at.shape)}")
        return [TensorType((*past.shape[:2], self.total, past.shape[3]), past.dtype)]

    def ref(self, n: Node, past: Any, new: Any, at: Any) -> Any:
        y = np.zeros(n.outputs[0].tensor.ints, past.dtype)
        for b in range(len(past)):
            keep = min(int(at[b, 0]), past.shape[2]) if at.shape[1] else past.shape[2]
            y[b, :, :keep] = past[b, :, :keep]
            y[b][:, at[b]] = new[b]
        return y

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        past, new, at = k.x(0), k.x(1), k.x(2)

        def element(b: Dim, g: Dim, t: Dim, e: Dim) -> Scalar:
            start = scalar.loaded(at(b, 0), dims.add(self.total, 1), wrap=False)
            own = dims.add(t, dims.mul(start, -1))
            kept = Inside(t, 0, past.shape[2]) & Inside(t, 0, start)
            old = scalar.where(kept, past(b, g, t, e), 0)
            return scalar.where(Inside(own, 0, new.shape[2]), new(b, g, own, e), old)

        return k.map(element)


@operator
class CausalConvWithState(Op):
    """Each channel of x [B, C, L] convolved with its own w [C, 1, K], behind K - 1 earlier samples
    past [B, C, K - 1] (zeros if absent), plus a bias [C]; silu: y * sigmoid(y). The second result
    is the last K - 1 samples."""

    silu: bool = False
    onnx: ClassVar = ("CausalConvWithState",)
    cases: ClassVar = (
        Case((((2, 3, 6), "f32"), ((3, 1, 4), "f32"), ((3,), "f32"), ((2, 3, 3), "f32"))),
        Case((((2, 3, 2), "f32"), ((3, 1, 4), "f32")), {"silu": True}),
        Case((((1, 2, 5), "f16"), ((2, 1, 1), "f16"))),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, w = n.arg(0), n.arg(1)
        if len(x.shape) != 3 or len(w.shape) != 3 or w.shape[1] != 1 or not x.dtype.is_float:
            raise Refusal(f"CausalConvWithState of {x.type} with {w.type}")
        if any(v.dtype is not x.dtype for v in n.present()):
            raise Refusal("CausalConvWithState of different element types")
        k = w.shape[2]
        if not isinstance(k, int) or k < 1:
            raise Refusal(f"CausalConvWithState has a window of {k}")
        same_dims(n, "channels", (x.shape[1], w.shape[0]))
        state = (x.shape[0], x.shape[1], k - 1)
        bias, past = n.input(2), n.input(3)
        if bias is not None and bias.shape != (x.shape[1],):
            raise Refusal(f"CausalConvWithState has a bias of shape {list(bias.shape)}")
        if past is not None:
            if len(past.shape) != 3:
                raise Refusal(f"CausalConvWithState has a state of shape {list(past.shape)}")
            same_dims(n, "states", *zip(past.shape, state, strict=True))
        return [x.tensor, TensorType(state, x.dtype)]

    def ref(self, n: Node, x: Any, w: Any, bias: Any = None, past: Any = None) -> Any:
        k = w.shape[2]
        before = np.zeros((*x.shape[:2], k - 1)) if past is None else past.astype(np.float64)
        whole = np.concatenate([before, x.astype(np.float64)], 2)
        y = sum(whole[:, :, r : r + x.shape[2]] * w[:, 0, r, None] for r in range(k))
        if bias is not None:
            y = y + bias[:, None].astype(np.float64)
        if self.silu:
            y = y / (1 + np.exp(-y))
        state = whole[:, :, whole.shape[2] - (k - 1) :]
        return np.asarray(y).astype(x.dtype), state.astype(x.dtype)

    def lower(self, k: Lowering) -> Sequence[scalar.TensorExpr]:
        x, w = k.x(0), k.x(1)
        size = w.shape[2]
        lag = dims.add(size, -1)

        def sample(b: Dim, c: Dim, t: Dim) -> Scalar:
            """Element t of the past followed by x."""
            own = dims.add(t, dims.mul(lag, -1))
            now = x(b, c, own)
            if lag == 0:
                return now
            earlier: Any = k.x(3)(b, c, t) if k.has(3) else 0
            return scalar.where(Inside(own, 0, x.shape[2]), now, earlier)

        def output(b: Dim, c: Dim, t: Dim) -> Scalar:
            y = scalar.reduce("sum", [size], lambda r: sample(b, c, dims.add(t, r)) * w(c, 0, r))
            if k.has(2):
                y = y + k.x(2)(c)
            return y * scalar.call("sigmoid", y) if self.silu else y

        def state(b: Dim, c: Dim, t: Dim) -> Scalar:
            return sample(b, c, dims.add(t, x.shape[2]))

        return [k.map(output), k.map(state, 1)]

    def macs(self, n: Node) -> int:
        return dims.upper(dims.mul(n.arg(0).tensor.size, n.arg(1).shape[2]))

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        name = n.attr("activation", "none")
        if name not in ("none", "silu", "swish"):
            raise Refusal(f"CausalConvWithState has the activation {name!r}")
        return b.ops(cls(name != "none"), *n.inputs, name=n.output_names)


RULES = ("linear", "gated", "delta", "gated_delta")


@operator
class LinearAttention(Op):
    """The recurrence S' = exp(g) S + beta k (v - exp(g) S^T k)^T, o = scale S'^T q, head by head.

    q [B, T, H * D], k [B, T, G * D], v [B, T, G * F], past S [B, G, D, F] or absent, decay g
    [B, T, G * D] or [B, T, G], beta [B, T, G] or [B, T, 1]. Rules: "linear" (no decay, S' = S +
    k v^T), "gated" (with decay), "delta" (the whole without decay), "gated_delta". Results:
    [B, T, H * F] and the last S. scale 0 means 1 / sqrt(D).
    """

    q_num_heads: int = 1
    kv_num_heads: int = 1
    scale: float = 0.0
    update_rule: str = "gated_delta"
    onnx: ClassVar = ("LinearAttention",)
    cases: ClassVar = (
        Case((((2, 3, 8), "f32"), ((2, 3, 4), "f32"), ((2, 3, 6), "f32"), ((2, 1, 4, 6), "f32"),
              ((2, 3, 4), "f32"), ((2, 3, 1), "f32")), {"q_num_heads": 2}, low=-1, high=0.5),
        Case((((1, 3, 8), "f32"), ((1, 3, 8), "f32"), ((1, 3, 4), "f32")),
             {"q_num_heads": 2, "kv_num_heads": 2, "update_rule": "linear"}, low=-1, high=1),
        Case((((1, 2, 4), "f16"), ((1, 2, 4), "f16"), ((1, 2, 4), "f16"), None,
              ((1, 2, 1), "f16")), {"update_rule": "gated", "scale": 0.5}, low=-1, high=0),
    )  # fmt: skip

    def head_sizes(self, n: Node) -> tuple[int, int]:
        """(D, F)."""
        q, k, v = n.arg(0), n.arg(1), n.arg(2)
        h, g = self.q_num_heads, self.kv_num_heads
        if h < 1 or g < 1 or h % g or any(len(t.shape) != 3 for t in (q, k, v)):
            raise Refusal(f"LinearAttention of {h} heads over {g}, ranks must be 3")
        sizes = [q.shape[2], k.shape[2], v.shape[2]]
        if not all(isinstance(s, int) for s in sizes):
            raise Refusal("LinearAttention needs known sizes of its heads")
        a, c, f = (int(str(s)) for s in sizes)
        if a % h or c % g or f % g or a // h != c // g or a < h or f < g:
            raise Refusal(f"LinearAttention of {a}, {c}, {f} elements in {h} and {g} heads")
        return a // h, f // g

    def infer(self, n: Node) -> Sequence[TensorType]:
        q, k, v = n.arg(0), n.arg(1), n.arg(2)
        d, f = self.head_sizes(n)
        if self.update_rule not in RULES:
            raise Refusal(f"LinearAttention has the rule {self.update_rule!r}")
        if any(t.dtype not in FLOATS for t in n.present()):
            raise Refusal(f"LinearAttention of {q.dtype}")
        for i, name in ((4, "gated"), (5, "delta")):
            if name in self.update_rule and n.input(i) is None:
                raise Refusal(f"the rule {self.update_rule} needs input {i}")
        for t in (k, v):
            same_dims(n, "batches or tokens", *zip(t.shape[:2], q.shape[:2], strict=True))
        state = (q.shape[0], self.kv_num_heads, d, f)
        past = n.input(3)
        if past is not None:
            if len(past.shape) != 4:
                raise Refusal(f"LinearAttention has a state of shape {list(past.shape)}")
            same_dims(n, "states", *zip(past.shape, state, strict=True))
        g = self.kv_num_heads
        for i, widths in ((4, (g, g * d)), (5, (1, g))):
            w = n.input(i)
            if w is not None and (len(w.shape) != 3 or w.shape[2] not in widths):
                raise Refusal(f"LinearAttention has input {i} of shape {list(w.shape)}")
        kind = q.dtype if past is None else past.dtype
        return [TensorType((q.shape[0], q.shape[1], self.q_num_heads * f), q.dtype),
                TensorType(state, kind)]  # fmt: skip

    def factor(self, d: int) -> float:
        return self.scale if self.scale else float(d**-0.5)

    def ref(self, n: Node, *inputs: Any) -> Any:
        given: list[Any] = [*inputs, *[None] * 6]
        q, k, v, past, decay, beta = given[:6]
        d, f = self.head_sizes(n)
        h, g = self.q_num_heads, self.kv_num_heads
        b, t = q.shape[:2]
        sized = ((q, d), (k, d), (v, f))
        qs, ks, vs = (a.astype(np.float64).reshape(b, t, -1, size) for a, size in sized)
        state = np.zeros((b, g, d, f)) if past is None else past.astype(np.float64)
        y = np.zeros((b, t, h, f))
        for i in range(t):
            if "gated" in self.update_rule:
                state = np.exp(decay[:, i].astype(np.float64)).reshape(b, g, -1, 1) * state
            new = vs[:, i]
            if "delta" in self.update_rule:
                rate = beta[:, i].astype(np.float64).reshape(b, -1, 1)
                new = rate * (new - np.einsum("bgdf,bgd->bgf", state, ks[:, i]))
            state = state + ks[:, i][..., None] * new[:, :, None]
            y[:, i] = np.einsum("bhdf,bhd->bhf", np.repeat(state, h // g, 1), qs[:, i])
        y = (y * self.factor(d)).reshape(b, t, h * f)
        return y.astype(q.dtype), state.astype(n.outputs[1].dtype.numpy)

    def lower(self, k: Lowering) -> Code:
        d, f = self.head_sizes(k.node)
        h, g = self.q_num_heads, self.kv_num_heads
        c = k.x(0).dtype.compute
        b, t = k.dim(k.x(0).shape[0]), k.dim(k.x(0).shape[1])
        first = k.load(3, "at + i") if k.has(3) else "0"
        lines = [
            f"{c.ctype} *const S = ({c.ctype} *)s, *const u = S + {d * f};",
            f"for (ix b = 0; b < {b}; b++) for (ix g = 0; g < {g}; g++) {{",
            f"  const ix at = (b * {g} + g) * {d * f};",
            f"  for (ix i = 0; i < {d * f}; i++) S[i] = {first};",
            f"  for (ix t = 0; t < {t}; t++) {{",
            f"    const ix row = b * {t} + t;",
        ]
        if "gated" in self.update_rule:
            wide = k.x(4).shape[2] != g
            at = f"row * {g * d} + g * {d} + i" if wide else f"row * {g} + g"
            lines += [
                f"    for (ix i = 0; i < {d}; i++) {{",
                f"      const {c.ctype} a = of_exp_{c.name}(({c.ctype}){k.load(4, at)});",
                f"      for (ix j = 0; j < {f}; j++) S[i * {f} + j] *= a;",
                "    }",
            ]
        key = k.load(1, f"row * {g * d} + g * {d} + i")
        value = k.load(2, f"row * {g * f} + g * {f} + j")
        lines.append(f"    for (ix j = 0; j < {f}; j++) u[j] = {value};")
        if "delta" in self.update_rule:
            at = "row" if k.x(5).shape[2] == 1 else f"row * {g} + g"
            lines += [
                f"    for (ix i = 0; i < {d}; i++) {{",
                f"      const {c.ctype} x = {key};",
                f"      for (ix j = 0; j < {f}; j++) u[j] -= x * S[i * {f} + j];",
                "    }",
                f"    for (ix j = 0; j < {f}; j++) u[j] *= {k.load(5, at)};",
            ]
        lines += [
            f"    for (ix i = 0; i < {d}; i++) {{",
            f"      const {c.ctype} x = {key};",
            f"      for (ix j = 0; j < {f}; j++) S[i * {f} + j] += x * u[j];",
            "    }",
            f"    for (ix h = g * {h // g}; h < (g + 1) * {h // g}; h++) {{",
            f"      for (ix j = 0; j < {f}; j++) u[j] = 0;",
            f"      for (ix i = 0; i < {d}; i++) {{",
            f"        const {c.ctype} x = {literal(self.factor(d), c)} * "
            f"{k.load(0, f'row * {h * d} + h * {d} + i')};",
            f"        for (ix j = 0; j < {f}; j++) u[j] += x * S[i * {f} + j];",
            "      }",
            f"      for (ix j = 0; j < {f}; j++) "
            f"{k.store(0, f'row * {h * f} + h * {f} + j', 'u[j]')}",
            "    }",
            "  }",
            f"  for (ix i = 0; i < {d * f}; i++) {k.store(1, 'at + i', 'S[i]')}",
            "}",
        ]
        return Code("\n".join(lines), (), (d * f + f) * c.bytes)

    def macs(self, n: Node) -> int:
        d, f = self.head_sizes(n)
        heads = self.q_num_heads + 2 * self.kv_num_heads
        q = n.arg(0).shape
        return dims.upper(dims.product((q[0], q[1], heads * d * f)))
