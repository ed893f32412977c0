"""The LSTM of integer TFLite models: int8 in and out, int16 gates and cell.

Source of the arithmetic: TFLite's lstm_eval.cc, the 8x8_16 variant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes
from onefold.ir.graph import Node
from onefold.ir.types import TensorType
from onefold.ops import fixedpoint as fx
from onefold.ops.base import Case, Code, Lowered, Lowering, Op, Refusal, operator

Multiplier = tuple[int, int]


@operator
class QuantLstm(Op):
    """Gates in the order input, forget, cell, output, with 3 integer bits in int16.

    Inputs: x i8 [batch, steps, n] (time_major: [steps, batch, n]), w i8 [4, h, n], r i8 [4, h, h],
    bias i32 [4, h] and rest i32 [4, h] (what the zero points of x and of the output add), first
    output i8 [batch, h], first cell i16 [batch, h].
    Results: every output i8 [batch, steps, h] (or time first), last output, last cell.
    cell_bits: the cell's scale is 2^cell_bits; by_w, by_r: multipliers of the gates.
    """

    by_w: tuple[Multiplier, ...] = ()
    by_r: tuple[Multiplier, ...] = ()
    by_hidden: Multiplier = (0, 0)
    zero: int = 0
    cell_bits: int = -11
    clip: int = 0  # of the cell, 0 for none
    time_major: bool = False
    exact: ClassVar = True

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, w, r = (n.arg(k).tensor for k in range(3))
        if x.rank != 3 or w.rank != 3 or not (w.static and r.static):
            raise Refusal(f"an LSTM of {x} with weights {w}")
        h, width = w.ints[1], w.ints[2]
        batch = x.shape[1 if self.time_major else 0]
        want = [(4, h, width), (4, h, h), (4, h), (4, h), (batch, h), (batch, h)]
        got = [n.arg(k).shape for k in range(1, 7)]
        kinds = [n.arg(k).dtype.name for k in range(7)]
        if got != want or x.shape[2] != width or not h or not width:
            raise Refusal(f"an LSTM of {x.shape} with weights {got}")
        if kinds != ["i8", "i8", "i8", "i32", "i32", "i8", "i16"]:
            raise Refusal(f"an LSTM of types {kinds}")
        if not (len(self.by_w) == len(self.by_r) == 4 and -15 <= self.cell_bits <= -9):
            raise Refusal(f"a cell of scale 2^{self.cell_bits}")
        out = TensorType((*x.shape[:2], h), dtypes.i8)
        return [out, n.arg(5).tensor, n.arg(6).tensor]

    def macs(self, n: Node) -> int:
        x, w = n.arg(0).tensor, n.arg(1).tensor
        per = dims.product(w.shape) + 4 * dims.mul(w.shape[1], w.shape[1])
        return dims.upper(dims.mul(dims.product(x.shape[:2]), per))

    def ref(self, n: Node, *x: Any) -> Any:
        v, w, r, bias, rest, h, c = (a.astype(np.int64) for a in x)
        steps = v if self.time_major else np.swapaxes(v, 0, 1)
        out = []
        for step in steps:
            gates = [self._gate(g, step, h, w, r, bias, rest) for g in range(4)]
            i, f, o = (fx.FIXED16.logistic(gates[g], 3) for g in (0, 1, 3))
            new = fx.FIXED16.tanh(gates[2], 3)
            kept = fx.wrap(fx.rounding_divide_by_pot(f * c, 15), 16)
            added = fx.wrap(fx.rounding_divide_by_pot(i * new, 30 + self.cell_bits), 16)
            c = np.clip(kept + added, -32768, 32767)
            if self.clip:
                c = np.clip(c, -self.clip, self.clip)
            shown = o * fx.FIXED16.tanh(c, 15 + self.cell_bits)
            h = fx.multiply_by_quantized_multiplier(shown, *self.by_hidden) + self.zero
            h = np.clip(h, -128, 127)
            out.append(h)
        y = np.stack(out, 0 if self.time_major else 1) if out else x[0][..., :0]
        return y.astype(np.int8), h.astype(np.int8), c.astype(np.int16)

    def _gate(self, g: int, x: Any, h: Any, w: Any, r: Any, bias: Any, rest: Any) -> Any:
        mul = fx.multiply_by_quantized_multiplier
        a = np.clip(mul(x @ w[g].T + bias[g], *self.by_w[g]), -32768, 32767)
        return np.clip(a + mul(h @ r[g].T + rest[g], *self.by_r[g]), -32768, 32767)

    def lower(self, k: Lowering) -> Lowered:
        x, w = k.x(0).shape, k.x(1).type.ints
        steps, batch = (x[0], x[1]) if self.time_major else (x[1], x[0])
        h, width = w[1], w[2]
        t, b = k.dim(steps), k.dim(batch)
        row = f"(t * {b} + b)" if self.time_major else f"(b * {t} + t)"
        gates = ", ".join(f"{{{m}, {s}, {p}, {q}}}" for (m, s), (p, q) in
                          zip(self.by_w, self.by_r, strict=True))  # fmt: skip
        clip = f"m = m < -{self.clip} ? -{self.clip} : m > {self.clip} ? {self.clip} : m;"
        return Code(f"""
static const int32_t by[4][4] = {{{gates}}};
int16_t *gate = (int16_t *)s;
for (ix i = 0; i < {b} * {h}; i++) y1[i] = x5[i], y2[i] = x6[i];
for (ix t = 0; t < {t}; t++)
  for (ix b = 0; b < {b}; b++) {{
    const int8_t *x = x0 + {row} * {width};
    int8_t *h = y1 + b * {h}, *y = y0 + {row} * {h};
    int16_t *c = y2 + b * {h};
    for (ix g = 0; g < 4; g++)
      for (ix j = 0; j < {h}; j++) {{
        const int8_t *w = x1 + (g * {h} + j) * {width}, *r = x2 + (g * {h} + j) * {h};
        int32_t a = x3[g * {h} + j], p = x4[g * {h} + j];
        for (ix i = 0; i < {width}; i++) a += x[i] * w[i];
        for (ix i = 0; i < {h}; i++) p += h[i] * r[i];
        a = of_clamp_i32(of_multiply_by_quantized_multiplier(a, by[g][0], by[g][1]), -32768, 32767);
        a += of_multiply_by_quantized_multiplier(p, by[g][2], by[g][3]);
        gate[g * {h} + j] = (int16_t)of_clamp_i32(a, -32768, 32767);
      }}
    for (ix j = 0; j < {h}; j++) {{
      const int16_t in = of_fixed_logistic_i16(gate[j], 3), keep = of_fixed_logistic_i16(gate[{h} + j], 3);
      const int16_t new = of_fixed_tanh_i16(gate[{2 * h} + j], 3), out = of_fixed_logistic_i16(gate[{3 * h} + j], 3);
      const int16_t kept = (int16_t)of_rounding_divide_by_pot(keep * c[j], 15);
      const int16_t more = (int16_t)of_rounding_divide_by_pot(in * new, {30 + self.cell_bits});
      int32_t m = of_clamp_i32(kept + more, -32768, 32767);
      {clip if self.clip else ""}
      c[j] = (int16_t)m;
      const int32_t shown = out * of_fixed_tanh_i16(c[j], {15 + self.cell_bits});
      const int32_t v = of_multiply_by_quantized_multiplier(shown, {self.by_hidden[0]}, {self.by_hidden[1]}) + ({self.zero});
      h[j] = y[j] = (int8_t)of_clamp_i32(v, -128, 127);
    }}
  }}""", scratch=8 * h)  # noqa: E501

    cases: ClassVar = tuple(
        Case((((2, 3, 5), "i8"), ((4, 6, 5), "i8"), ((4, 6, 6), "i8"),
              np.random.default_rng(seed).integers(-9999, 9999, (4, 6)).astype(np.int32),
              np.random.default_rng(seed + 9).integers(-9999, 9999, (4, 6)).astype(np.int32),
              ((rows, 6), "i8"), ((rows, 6), "i16")),
             {"by_w": ((1 << 30, -2), (1412348111, -3), (1 << 30, -1), (1 << 30, -2)),
              "by_r": ((1 << 30, -2),) * 4, "by_hidden": (1812348111, -22), "zero": 3,
              "cell_bits": -12, "clip": clip, "time_major": major}, seed)
        for seed, (rows, major, clip) in enumerate([(2, False, 0), (3, True, 0), (2, False, 3000)])
    )  # fmt: skip
