"""Scaled dot-product attention as one operator, and what stands around it in transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.codegen.text import from_storage, literal
from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node
from onefold.ir.scalar import Scalar
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Code, Lowering, Op, Refusal, agree, operator

Dims = tuple[Dim, ...]
FLOATS = (dtypes.f32, dtypes.f64, dtypes.f16, dtypes.bf16)
RAW, CAPPED, BIASED, PROBABILITIES = range(4)


def same_dims(n: Node, what: str, *pairs: tuple[Dim, Dim]) -> None:
    """Raises Refusal where two known sizes differ."""
    for a, b in pairs:
        if not agree(a, b):
            raise Refusal(f"{n.op.name}: {what} do not fit, {a} against {b}")


@operator
class Attention(Op):
    """softmax(cap(scale * q k^T) + mask) v, for q [B, H, S, E], k [B, G, T, E], v [B, G, T, F],
    where H is a multiple of G and query head h reads key head h // (H / G).

    mask: bool (true may be seen) or float (added), broadcast to [B, H, S, M] from the right; keys
    from M <= T on are hidden. lengths [B]: keys from there on are hidden. sink [H]: the logit of
    one more key without a value. The query i stands at position i + offset of the keys, with
    from_end at i + lengths[b] - S (no less than i where padded is set); causal hides later keys,
    left and right (-1: without bound) those further away. softcap: cap(x) = softcap *
    tanh(x / softcap), 0 for none. A query that sees nothing gives zeros, or, where undefined is
    set, what the formula gives: not a number. scores >= 0 asks for a second result [B, H, S, T]:
    the scaled product (0), capped (1), masked (2), or the probabilities (3).
    """

    scale: float = 1.0
    causal: bool = False
    softcap: float = 0.0
    offset: Dim = 0
    from_end: bool = False
    padded: bool = False
    left: int = -1
    right: int = -1
    scores: int = -1
    undefined: bool = False
    cases: ClassVar = (
        Case((((2, 4, 3, 8), "f32"), ((2, 2, 5, 8), "f32"), ((2, 2, 5, 6), "f32")),
             {"scale": 0.3, "causal": True, "offset": 2, "scores": 3}),
        Case((((1, 2, 6, 9), "f32"), ((1, 2, 7, 9), "f32"), ((1, 2, 7, 20), "f32"),
              np.array([[0, 1, -2, 0, -np.inf, 3, 0], [-np.inf] * 7] * 3, np.float32)),
             {"scale": 0.3, "undefined": True}),
        Case((((2, 4, 9, 16), "f32"), ((2, 2, 35, 16), "f32"), ((2, 2, 35, 16), "f32"),
              np.array([[1] * 20 + [0] * 15, [0] * 35, [1] * 35] * 3, bool)),
             {"scale": 0.3, "causal": True, "offset": 26}),
        Case((((1, 2, 3, 9), "f32"), ((1, 2, 7, 9), "f32"), ((1, 2, 7, 4), "f32"),
              np.array([[1, 0, 1, 1, 0], [0] * 5, [1] * 5], bool), np.array([4], np.int64)),
             {"scale": 0.3, "softcap": 2.0, "from_end": True, "left": 2, "scores": 2}),
        Case((((2, 2, 2, 4), "f32"), ((2, 1, 3, 4), "f32"), ((2, 1, 3, 4), "f32"),
              ((2, 1, 2, 3), "f32"), None, ((2,), "f32")), {"right": 1, "scores": 0}),
        Case((((1, 1, 2, 4), "f16"), ((1, 1, 3, 4), "f16"), ((1, 1, 3, 4), "f16"))),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        q, k, v = n.arg(0), n.arg(1), n.arg(2)
        if any(len(t.shape) != 4 for t in (q, k, v)):
            raise Refusal("Attention needs query, key and value of rank 4")
        if q.dtype not in FLOATS or k.dtype is not q.dtype or v.dtype not in FLOATS:
            raise Refusal(f"Attention of {q.dtype}, {k.dtype}, {v.dtype}")
        same_dims(n, "shapes of query, key and value", (q.shape[0], k.shape[0]),
                  (k.shape[0], v.shape[0]), (k.shape[1], v.shape[1]), (k.shape[2], v.shape[2]),
                  (q.shape[3], k.shape[3]))  # fmt: skip
        heads, groups = q.shape[1], k.shape[1]
        if not (isinstance(heads, int) and isinstance(groups, int)):
            raise Refusal("Attention needs a known number of heads")
        if groups < 1 or heads % groups:
            raise Refusal(f"Attention of {heads} query heads over {groups} key heads")
        if self.left < -1 or self.right < -1 or not -1 <= self.scores <= 3 or self.softcap < 0:
            raise Refusal("Attention has a bad window, softcap or kind of scores")
        self._check_rest(n)
        shape = (q.shape[0], heads, q.shape[2], v.shape[3])
        out = [TensorType(shape, q.dtype)]
        if self.scores >= 0:
            out.append(TensorType((*shape[:3], k.shape[2]), q.dtype))
        return out

    def _check_rest(self, n: Node) -> None:
        q, k = n.arg(0), n.arg(1)
        mask, lengths, sink = n.input(3), n.input(4), n.input(5)
        if mask is not None:
            if mask.dtype is not dtypes.b1 and not mask.dtype.is_float:
                raise Refusal(f"Attention has a mask of {mask.dtype}")
            if len(mask.shape) > 4:
                raise Refusal(f"Attention has a mask of rank {len(mask.shape)}")
            want = (*q.shape[:3], k.shape[2])
            for own, full in zip(reversed(mask.shape[:-1]), reversed(want[:-1]), strict=False):
                if own != 1:
                    same_dims(n, "mask and result", (own, full))
            if mask.shape:
                if not agree(dims.minimum(mask.shape[-1], k.shape[2]), mask.shape[-1]):
                    raise Refusal(f"Attention has a mask for {mask.shape[-1]} of {k.shape[2]} keys")
        if lengths is not None and (not lengths.dtype.is_int or len(lengths.shape) != 1):
            raise Refusal(f"Attention has lengths of {lengths.dtype}{list(lengths.shape)}")
        if lengths is not None:
            same_dims(n, "lengths and batch", (lengths.shape[0], q.shape[0]))
        if self.from_end and lengths is None:
            raise Refusal("Attention counts positions from the end without lengths")
        if sink is not None and (sink.shape != (q.shape[1],) or not sink.dtype.is_float):
            raise Refusal(f"Attention has a sink of {sink.dtype}{list(sink.shape)}")

    # -- reference -------------------------------------------------------------------------------

    def ref(self, n: Node, *inputs: Any) -> Any:
        given: list[Any] = [*inputs, *[None] * 6]
        q, k, v, mask, lengths, sink = given[:6]
        kind = q.dtype
        repeat = q.shape[1] // k.shape[1]
        qs, ks, vs = (a.astype(np.float64) for a in (q, k, v))
        ks, vs = np.repeat(ks, repeat, 1), np.repeat(vs, repeat, 1)
        with np.errstate(all="ignore"):
            raw = np.einsum("bhse,bhte->bhst", qs, ks) * self.scale
            capped = self.softcap * np.tanh(raw / self.softcap) if self.softcap else raw
            bias = self._bias(raw.shape, mask, lengths)
            hidden = np.isneginf(bias)
            biased = np.where(hidden, -np.inf, capped + bias)
            top = np.max(biased, -1, keepdims=True, initial=-np.inf)
            if sink is not None:
                top = np.maximum(top, sink.astype(np.float64).reshape(-1, 1, 1))
            weight = np.where(hidden, 0, np.exp(biased - np.where(np.isneginf(top), 0, top)))
            total = weight.sum(-1, keepdims=True)
            if sink is not None:
                total = total + np.exp(sink.astype(np.float64).reshape(-1, 1, 1) - top)
            empty = np.nan if self.undefined else 0
            p = np.where(hidden.all(-1, keepdims=True), empty,
                         weight / np.where(total == 0, 1, total))  # fmt: skip
            y = np.einsum("bhst,bhtf->bhsf", p, np.where(np.isfinite(vs), vs, 0))
        if self.scores < 0:
            return y.astype(kind)
        return y.astype(kind), (raw, capped, biased, p)[self.scores].astype(kind)

    def _bias(self, shape: tuple[int, ...], mask: Any, lengths: Any) -> Array:
        b, _, s, t = shape
        bias = np.zeros(shape)
        if mask is not None:
            m = np.where(mask, 0.0, -np.inf) if mask.dtype == bool else mask.astype(np.float64)
            m = np.atleast_1d(m)
            if m.shape[-1] < t:
                gap = [(0, 0)] * (m.ndim - 1) + [(0, t - m.shape[-1])]
                m = np.pad(m, gap, constant_values=-np.inf)
            bias = bias + m
        j = np.arange(t)
        ends = np.full(b, t) if lengths is None else np.asarray(lengths).astype(np.int64)
        first = np.maximum(ends - s, 0) if self.padded else ends - s
        start = first if self.from_end else np.full(b, int(str(self.offset)))
        at = (np.arange(s) + start[:, None])[:, None, :, None]
        seen = j < ends[:, None, None, None]
        if self.causal:
            seen = seen & (j <= at)
        if self.left >= 0:
            seen = seen & (j >= at - self.left)
        if self.right >= 0:
            seen = seen & (j <= at + self.right)
        return np.where(np.broadcast_to(seen, shape), bias, -np.inf)

    # -- compiled --------------------------------------------------------------------------------

    def lower(self, k: Lowering) -> Code:
        q, v = k.x(0), k.x(2)
        b, h, s, e = q.shape
        t, f = v.shape[2], v.shape[3]
        c = q.dtype.compute
        T, S, E, F = k.dim(t), k.dim(s), k.dim(e), k.dim(f)
        per = dims.floordiv(h, k.x(1).shape[1])
        lines = [
            f"{c.ctype} *const p = ({c.ctype} *)s, *const row = p + {T}, *const acc = row + {E};",
            f"for (ix b = 0; b < {k.dim(b)}; b++) {{",
            *self._ends(k, T, S),
            f"  for (ix h = 0; h < {k.dim(h)}; h++) {{",
            f"    const ix kv = (b * {k.dim(k.x(1).shape[1])} + h / {k.dim(per)}) * {T};",
            f"    for (ix i = 0; i < {S}; i++) {{",
            f"      const ix q = (b * {k.dim(h)} + h) * {S} + i;",
            *("      " + line for line in self._range(T)),
            f"      for (ix e = 0; e < {E}; e++)",
            f"        row[e] = {from_storage(f'x0[q * {E} + e]', q.dtype)} * "
            f"{literal(self.scale, c)};",
            *("      " + line for line in self._row(k, T, E, c)),
            *("      " + line for line in self._sum(k, T, F, c)),
            "    }", "  }", "}",
        ]  # fmt: skip
        rows = dims.add(dims.add(t, e), f)
        return Code("\n".join(lines), ("of_attention.h",), dims.mul(rows, c.bytes))

    def _ends(self, k: Lowering, T: str, S: str) -> list[str]:
        end, start = T, k.dim(self.offset)
        if k.has(4):
            end = f"of_max_ix(0, of_min_ix({T}, (ix)x4[b]))"
            first = f"(ix)x4[b] - {S}"
            first = f"of_max_ix(0, {first})" if self.padded else first
            start = first if self.from_end else start
        return [f"  const ix end = {end}, start = {start};"]

    def _range(self, T: str) -> list[str]:
        """The keys [lo, hi) that query i may see, masks apart."""
        lo, hi = "0", "end"
        if self.left >= 0:
            lo = f"of_max_ix(0, i + start - {self.left})"
        if self.causal or self.right >= 0:
            more = 0 if self.causal else self.right
            hi = f"of_max_ix(0, of_min_ix(end, i + start + {more + 1}))"
        return [f"const ix lo = {lo}, hi = {hi};"]

    def _mask(self, k: Lowering, c: dtypes.DType) -> tuple[list[str], str, str]:
        """(statements, condition to see key j, bias)."""
        if not k.has(3):
            return [], "true", ""
        m = k.x(3)
        shape = (1,) * (4 - len(m.shape)) + tuple(m.shape)
        at = "0"
        for name, size in zip("bhi", shape[:3], strict=True):
            at = f"({at}) * {k.dim(size)}" + ("" if size == 1 else f" + {name}")
        width = k.dim(shape[3])
        j = "0" if shape[3] == 1 else "j"
        lines = [f"const ix m = ({at}) * {width};"]
        known = "true" if shape[3] in (1, k.x(1).shape[2]) else f"j < {width}"
        load = from_storage(f"x3[m + {j}]", m.dtype)
        if m.dtype is dtypes.b1:
            return lines, f"{known} && {load}", ""
        seen = f"{known} && {load} != {literal(-np.inf, m.dtype.compute)}"
        return lines, seen, f"({c.ctype}){load}"

    def _row(self, k: Lowering, T: str, E: str, c: dtypes.DType) -> list[str]:
        """p[j]: the logit of every key that is seen; top, their maximum; any."""
        kind = k.x(0).dtype
        every = self.scores in (RAW, CAPPED, BIASED)
        least = literal(-np.inf, c)
        before, see, bias = self._mask(k, c)
        inside = "j >= lo && j < hi" if every else "true"
        product = f"of_dot_{kind.name}(row, x1 + (kv + j) * {E}, {E})"
        keep = k.store(1, f"q * {T} + j", "x") if every else ""
        lines = [*before, f"{c.ctype} top = {least}; bool any = false;"]
        if not every:
            lines.append("for (ix j = lo; j < hi; j++) {")
            lines.append(f"  if (!({see})) {{ p[j] = {least}; continue; }}")
        else:
            lines.append(f"for (ix j = 0; j < {T}; j++) {{")
        lines.append(f"  {c.ctype} x = {product};")
        if self.scores == RAW:
            lines.append("  " + keep)
        if self.softcap:
            cap = literal(self.softcap, c)
            lines.append(f"  x = {cap} * of_tanh_{c.name}(x / {cap});")
        if self.scores == CAPPED:
            lines.append("  " + keep)
        if bias:
            lines.append(f"  if ({see}) x += {bias};" if every else f"  x += {bias};")
        if every:
            lines.append(f"  const bool seen = {inside} && {see};")
            lines.append(f"  if (!seen) x = {least};")
        if self.scores == BIASED:
            lines.append("  " + keep)
        lines += ["  p[j] = x;", "  any |= seen;" if every else "  any = true;",
                  "  if (x > top || x != x) top = x;", "}"]  # fmt: skip
        return lines

    def _sum(self, k: Lowering, T: str, F: str, c: dtypes.DType) -> list[str]:
        """From logits to probabilities and the sum of values."""
        zero, least = literal(0, c), literal(-np.inf, c)
        total = zero
        add = f"of_add_scaled_{k.x(2).dtype.name}"
        lines: list[str] = []
        if k.has(5):
            sink = f"({c.ctype}){from_storage('x5[h]', k.x(5).dtype)}"
            lines.append(f"if ({sink} > top) top = {sink};")
            total = f"of_exp_{c.name}({sink} - top)"
        lines += [
            f"{c.ctype} total = {total};",
            "for (ix j = lo; j < hi; j++) {",
            f"  p[j] = p[j] == {least} ? {zero} : of_exp_{c.name}(p[j] - top);",
            "  total += p[j];",
            "}",
            f"const {c.ctype} share = any ? 1 / total : {zero};",
            f"for (ix f = 0; f < {F}; f++) acc[f] = {self._nothing(c, 'any')};",
            "if (any) {",
            "  for (ix j = lo; j < hi; j++) {",
            f"    if (p[j] != {zero})",
            f"      {add}(acc, p[j] * share, x2 + (kv + j) * {F}, {F});",
            "  }",
            "}",
            f"for (ix f = 0; f < {F}; f++) {k.store(0, f'q * {F} + f', 'acc[f]')}",
        ]
        if self.scores == PROBABILITIES:
            value = f"(any && j >= lo && j < hi ? p[j] * share : {zero})"
            lines.append(f"for (ix j = 0; j < {T}; j++) {k.store(1, f'q * {T} + j', value)}")
        return lines

    def _nothing(self, c: dtypes.DType, any: str) -> str:
        """Where the sum of values begins."""
        return f"{any} ? 0 : {literal(np.nan, c)}" if self.undefined else literal(0, c)

    def macs(self, n: Node) -> int:
        q, v = n.arg(0), n.arg(2)
        per = dims.mul(v.shape[2], dims.add(q.shape[3], v.shape[3]))
        return dims.upper(dims.product((*q.shape[:3], per)))


@operator
class RotaryEmbedding(Op):
    """Turns pairs of elements of x by angles given as cosines and sines.

    x [B, H, S, E] or [B, S, H * E] (heads given); cos, sin [P, R / 2] with positions [B, S] or [1]
    (position of the first query), or [B, S, R / 2] without. Pairs lie R / 2 apart, or side by side
    where interleaved is set; elements from R = 2 * cos.shape[-1] on stay.
    """

    heads: int = 0
    interleaved: bool = False
    cases: ClassVar = (
        Case((((2, 3, 4, 8), "f32"), ((10, 4), "f32"), ((10, 4), "f32"),
              np.array([[1, 2, 3, 9], [0, 1, 2, 3]], np.int64))),
        Case((((2, 3, 16), "f32"), ((2, 3, 2), "f32"), ((2, 3, 2), "f32")),
             {"heads": 2, "interleaved": True}),
        Case((((2, 3, 16), "f16"), ((7, 3), "f16"), ((7, 3), "f16"), np.array([2], np.int64)),
             {"heads": 2}),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, cos, sin, at = n.arg(0), n.arg(1), n.arg(2), n.input(3)
        if len(x.shape) not in (3, 4) or not x.dtype.is_float:
            raise Refusal(f"RotaryEmbedding of {x.dtype}{list(x.shape)}")
        if len(x.shape) == 3:
            width = x.shape[2]
            if self.heads < 1 or not isinstance(width, int) or width % self.heads:
                raise Refusal(f"RotaryEmbedding of {width} elements in {self.heads} heads")
        if cos.shape != sin.shape or len(cos.shape) != (2 if at is not None else 3):
            raise Refusal(f"RotaryEmbedding has tables {list(cos.shape)} and {list(sin.shape)}")
        half = cos.shape[-1]
        e = self._size(x.shape)
        if not isinstance(half, int) or not isinstance(e, int) or not 0 < 2 * half <= e:
            raise Refusal(f"RotaryEmbedding of heads of {e} elements with tables for {half} pairs")
        if at is not None and not at.dtype.is_int:
            raise Refusal(f"RotaryEmbedding has positions of {at.dtype}")
        if at is not None and at.tensor.size != 1 and len(at.shape) != 2:
            raise Refusal(f"RotaryEmbedding has positions of shape {list(at.shape)}")
        return [x.tensor]

    def _size(self, shape: Dims) -> Dim:
        return shape[3] if len(shape) == 4 else dims.floordiv(shape[2], self.heads)

    def ref(self, n: Node, x: Any, cos: Any, sin: Any, at: Any = None) -> Any:
        y = x.astype(np.float64)
        if x.ndim == 3:
            y = y.reshape(*x.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)
        c, s = cos.astype(np.float64), sin.astype(np.float64)
        if at is not None:
            if at.size == 1 and y.shape[0] * y.shape[2] != 1:
                at = np.tile(at.reshape(()) + np.arange(y.shape[2]), (y.shape[0], 1))
            c, s = c[at], s[at]
        c, s = c[:, None], s[:, None]
        half = c.shape[-1]
        if self.interleaved:
            one, two = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
        else:
            one, two = slice(0, half), slice(half, 2 * half)
        a, b = y[..., one], y[..., two]
        turned = a * c - b * s, a * s + b * c
        y = y.copy()
        y[..., one], y[..., two] = turned
        if x.ndim == 3:
            y = y.transpose(0, 2, 1, 3).reshape(x.shape)
        return y.astype(x.dtype)

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        x, cos, sin = k.x(0), k.x(1), k.x(2)
        half = cos.shape[-1]
        size = self._size(x.shape)
        rank3 = len(x.shape) == 3
        whole = dims.mul(half, 2)

        def element(*index: Dim) -> Scalar:
            batch, token = index[0], index[1] if rank3 else index[2]
            e = dims.mod(index[-1], size) if rank3 else index[-1]
            if self.interleaved:
                second, pair = dims.mod(e, 2), dims.floordiv(e, 2)
                step = dims.add(1, dims.mul(second, -2))
            else:
                second, pair = dims.floordiv(e, half), dims.mod(e, half)
                step = dims.add(half, dims.mul(second, dims.mul(whole, -1)))
            other = (*index[:-1], dims.add(index[-1], step))
            place = self._place(k, batch, token)
            sine = sin(*place, pair)
            sine = scalar.where(scalar.Index(second).eq(0), -sine, sine)
            turned = x(*index) * cos(*place, pair) + x(*other) * sine
            if whole == size:
                return turned
            return scalar.where(scalar.Inside(e, 0, whole), turned, x(*index))

        return k.map(element)

    def _place(self, k: Lowering, batch: Dim, token: Dim) -> tuple[Dim, ...]:
        if not k.has(3):
            return batch, token
        at = k.x(3)
        rows = k.x(1).shape[0]
        if at.type.size == 1:
            first = scalar.cast(at(*[0] * len(at.shape)), dtypes.i64)
            return (scalar.loaded(first + scalar.Index(token), rows, wrap=False),)
        where = [0 if d == 1 else i for d, i in zip(at.shape, (batch, token), strict=True)]
        return (scalar.loaded(at(*where), rows, wrap=False),)
