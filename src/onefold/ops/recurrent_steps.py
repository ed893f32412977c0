"""The steps of recurrent cells behind the products of their inputs, for targets with vectors.

A pass has multiplied all inputs with their weights at once; what is left of a step is the product
with the hidden state, whose weights are packed so that each is read once and in order, and the
gates, computed for a few vectors of hidden units as soon as their sums are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from onefold.codegen.text import braced, loop
from onefold.codegen.tiles import Group, groups_of, lane_check, padded
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node, Origin, Value
from onefold.ir.types import TensorType
from onefold.ops.base import Code, Lowering, Op, Refusal, operator, registry
from onefold.ops.recurrent import Function, Places, Recurrent, activation, clipped

ROWS = 16  # sequences of a tile
ROUGH = {"sigmoid": "of_sigmoid_rough", "tanh": "of_tanh_rough"}  # where weights are narrow
TO = 32  # hidden units that a rounded hidden state is filled up to


@dataclass(frozen=True)
class Kind:
    """How the hidden state meets its weights.

    dtype: of the weights; sums: vectors of them at once; run: hidden units of one step; pair: those
    that meet together, which lie side by side where they are `mixed`.
    """

    dtype: dtypes.DType
    header: str
    sums: int = 8  # OF_MAX_B
    run: int = 2
    pair: int = 2
    mixed: bool = True


KINDS = {
    "f32": Kind(dtypes.f32, "of_cells.h", run=1, pair=1),
    "bf16": Kind(dtypes.bf16, "of_cells_narrow.h"),
    "f16": Kind(dtypes.f16, "of_cells_narrow.h", mixed=False),
    "tiles": Kind(dtypes.bf16, "of_cells_tiles.h", sums=4, run=TO),
}


@dataclass(frozen=True)
class _Steps:
    """Where the text of some gates stands: weights from `at` on; texts of the row of the products,
    of the result and of the state; sequences of a tile; direction."""

    k: Lowering
    gates: Sequence[int]
    at: int
    where: tuple[str, str, str]
    high: int
    d: int


@operator
class RecurrentSteps(Op):
    """The cell `cell` (LSTM, GRU or RNN, with its attributes) without the products of its input.

    Inputs: those products with all biases, [T, N, D * blocks * G * lanes] (layout 1: batch first),
    blocks of `lanes` hidden units gate by gate, the last one filled up; the recurrent weights as
    `pack` makes them [D, size]; the bias [D, H] of a candidate whose product the reset gate scales;
    sequence_lens, initial_h, initial_c and peepholes as the cell has them. Results: the cell's.
    kind: one of KINDS; where it is not f32 the hidden state is rounded before it meets the weights.
    """

    cell: str = "RNN"
    hidden: int = 1
    lanes: int = 4
    direction: str = "forward"
    activations: tuple[Function, ...] = ()
    clip: float = 0.0
    layout: int = 0
    linear_before_reset: bool = False
    input_forget: bool = False
    cell_clip: float = 0.0
    kind: str = "f32"

    def made(self) -> Recurrent:
        """The whole cell."""
        cls: Any = registry.by_name[self.cell]
        op = cls(**{f.name: getattr(self, f.name) for f in fields(cls)})
        assert isinstance(op, Recurrent)
        return op

    def phases(self) -> tuple[tuple[int, ...], ...]:
        """Gates whose sums are made together."""
        if self.cell == "GRU" and not self.linear_before_reset:
            return ((0, 1), (2,))
        return (tuple(range(self.made().gates)),)

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    @property
    def padded(self) -> int:
        """Hidden units of whole vectors."""
        return padded(self.hidden, self.lanes)

    @property
    def way(self) -> Kind:
        return KINDS[self.kind]

    @property
    def rows(self) -> int:
        """Hidden units of whole steps, as the weights have them."""
        return padded(self.hidden, self.way.run)

    @property
    def width(self) -> int:
        """Products of one direction."""
        return self.made().gates * self.padded

    def groups(self, gates: Sequence[int]) -> list[Group]:
        """The vectors of hidden units whose gates are summed at once."""
        return groups_of(self.hidden, self.lanes, max(self.way.sums // len(gates), 1))

    def columns(self, w: Array) -> Array:
        """Gates [..., G * H] as the products of the input have them, [..., blocks * G * lanes]."""
        lead, g = w.shape[:-1], self.made().gates
        out = np.zeros((*lead, self.padded // self.lanes, g, self.lanes), w.dtype)
        rows = np.zeros((*lead, g, self.padded), w.dtype)
        rows[..., : self.hidden] = w.reshape(*lead, g, self.hidden)
        out[...] = rows.reshape(*lead, g, -1, self.lanes).swapaxes(-2, -3)
        return out.reshape(*lead, -1)

    def pack(self, r: Array) -> Array:
        """Recurrent weights [D, H, G * H], group by group
        [H / run][vectors][gates][run / pair][lanes][pair], or [pair][lanes] where not mixed."""
        d, way = r.shape[0], self.way
        wide = np.zeros((d, self.rows, r.shape[2]), r.dtype)
        wide[:, : self.hidden] = r
        blocks = self.columns(wide)
        blocks = blocks.reshape(d, -1, way.run // way.pair, way.pair, self.padded // self.lanes,
                                self.made().gates, self.lanes)  # fmt: skip
        parts = []
        for gates in self.phases():
            for g in self.groups(gates):
                for k in range(g.count):
                    at = g.first + k * g.vectors
                    part = blocks[..., at : at + g.vectors, list(gates), :]
                    order = (0, 1, 4, 5, 2, 6, 3) if way.mixed else (0, 1, 4, 5, 2, 3, 6)
                    parts.append(part.transpose(order).reshape(d, -1))
        return np.ascontiguousarray(np.concatenate(parts, 1))

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, r = n.arg(0), n.arg(1)
        known = self.cell in ("LSTM", "GRU", "RNN") and self.kind in KINDS
        if not known or self.hidden < 1 or self.lanes < 1:
            raise Refusal(f"steps of {self.hidden} cells {self.cell!r}")
        if len(x.shape) != 3 or x.shape[2] != self.directions * self.width:
            raise Refusal(f"{self.cell} has products {x.type}")
        if r.shape != (self.directions, self.rows * self.width):
            raise Refusal(f"{self.cell} has packed weights {r.type}")
        if x.dtype is not dtypes.f32 or r.dtype is not self.way.dtype:
            raise Refusal(f"{self.cell} of {x.dtype} and {r.dtype} in packed form")
        t, batch = (x.shape[1], x.shape[0]) if self.layout else x.shape[:2]
        y: tuple[Dim, ...] = (batch, t, self.directions, self.hidden)
        state: tuple[Dim, ...] = (batch, self.directions, self.hidden)
        if not self.layout:
            y = (t, self.directions, batch, self.hidden)
            state = (self.directions, batch, self.hidden)
        return [TensorType(y, dtypes.f32), *[TensorType(state, dtypes.f32)] * self.made().states]

    def ref(self, n: Node, *inputs: Any) -> Any:
        given: list[Any] = [*inputs, *[None] * 7]
        x, r, bias, lens, h0, c0, p = given[:7]
        cell, d, h = self.made(), self.directions, self.hidden
        size = cell.gates * h
        places = self.columns(np.arange(1, size + 1)[None])[0]
        split = x.reshape(*x.shape[:2], d, -1)
        own = np.zeros((*split.shape[:3], size), np.float32)
        own[..., places[places > 0] - 1] = split[..., places > 0]
        order = self.pack(np.arange(1, h * size + 1).reshape(1, h, size))[0]
        w = np.zeros((d, h * size), np.float32)
        w[:, order[order > 0] - 1] = r[:, order > 0].astype(np.float32)
        both = np.zeros((d, 2 * size), np.float32)
        if bias is not None:
            both[:, -h:] = bias
        select = np.zeros((d, d * size, size), np.float32)
        for k in range(d):
            select[k, k * size : (k + 1) * size] = np.eye(size)
        arrays = [own.reshape(*x.shape[:2], -1), select, w.reshape(d, h, size), both, lens, h0,
                  *([c0, p] if cell.states == 2 else [])]  # fmt: skip
        values = [None if a is None else Value("", TensorType(a.shape, dtypes.of(a.dtype)), a)
                  for a in arrays]  # fmt: skip
        outs = [Value("", v.type) for v in n.outputs]
        return cell.ref(Node(cell, values, outs, Origin()), *arrays)

    def macs(self, n: Node) -> int:
        x = n.arg(0).shape
        each = self.made().gates * self.hidden * self.hidden * self.directions
        return dims.upper(dims.product((*x[:2], each)))

    # -- compiled --------------------------------------------------------------------------------

    def lower(self, k: Lowering) -> Code:
        batch = k.y().shape[0] if self.layout else k.y().shape[2]
        lines = [lane_check(self.lanes)]
        rows: Dim = 0
        if not k.has(4):
            lines += ["float *const none = (float *)s;",
                      f"for (ix j = 0; j < {self.hidden}; j++) none[j] = 0;"]  # fmt: skip
            rows = self.padded
        if len(self.phases()) == 2:
            lines.append(f"float *const z = (float *)s + {rows}, "
                         f"*const reset = z + {k.dim(batch)} * {self.padded};")  # fmt: skip
            rows = dims.add(rows, dims.mul(batch, 2 * self.padded))
        size = dims.mul(rows, 4)
        if self.kind != "f32":
            lines.append(f"uint16_t *const near = (uint16_t *)((float *)s + {k.dim(rows)});")
            size = dims.add(size, dims.mul(dims.add(batch, ROWS), 2 * self.pitch))
        for d in range(self.directions):
            lines += braced(self._direction(k, d))
        return Code("\n".join(lines), (self.way.header,), size, stops=k.has(3))

    def _direction(self, k: Lowering, d: int) -> list[str]:
        h, n_d = self.hidden, self.directions
        y = k.y().shape
        t, n = (k.dim(y[1]), k.dim(y[0])) if self.layout else (k.dim(y[0]), k.dim(y[2]))
        state = f"(b * {n_d} + {d}) * {h}" if self.layout else f"({d} * {n} + b) * {h}"
        if self.layout:
            row, place, pitch = f"(b * {t} + t)", f"((b * {t} + t) * {n_d} + {d})", f"{t} * {n_d}"
        else:
            row, place, pitch = f"(t * {n} + b)", f"((t * {n_d} + {d}) * {n} + b)", "1"
        back = self.direction == "reverse" or d == 1
        word = "float" if self.kind == "f32" else "uint16_t"
        lines = [f"const {word} *const r = (const {word} *)x1 + {d * self.rows * self.width};"]
        if k.has(2):
            lines.append(f"const float *const more = x2 + {d * h};")
        if k.has(6):
            lines.append(f"const float *const p = x6 + {3 * d * h};")
        body = [f"const ix first = 0, last = {n}, count = {t};"]
        if k.has(3):
            body = ["const ix first = o, last = o + 1, count = x3[o];",
                    f"if (count < 0 || count > {t}) OF_STOP(OF_BAD_VALUE);"]  # fmt: skip
        high = min(dims.upper(k.y().shape[0 if self.layout else 2]), ROWS)
        if self.kind == "tiles":
            body.append(f"of_tiles_begin({high}, {2 * TO});")
        each = "for (ix b = first; b < last; b++)"
        units = f"for (ix j = 0; j < {h}; j++)"
        if self.made().states == 2:
            begin = f"x5[{state} + j]" if k.has(5) else "0"
            body.append(f"{each} {units} y2[{state} + j] = {begin};")
        step = f"{h * (n_d if self.layout else 1)}"
        begin = state.replace("b", "0", 1) if self.layout else f"{d} * {n} * {h}"
        body.append(f"const float *h = {f'x4 + {begin}' if k.has(4) else 'none'};")
        body.append(f"ix hs = {step if k.has(4) else 0};")
        inner = [f"const ix t = {'count - 1 - k' if back else 'k'};"]
        at = 0
        for gates in self.phases():
            if self.kind != "f32":
                inner.append(f"{each} of_cell_round_{self.way.dtype}({h}, {self._left(gates)}, "
                             f"near + b * {self.pitch});")  # fmt: skip
            inner += self._sums(_Steps(k, gates, at, (row, place, state), high, d))
            at += self.padded * len(gates) * self.rows
        own = place.replace(" + b)", ")") if not self.layout else place.replace("(b * ", "(0 * ")
        inner += [f"h = y0 + {own} * {h};", f"hs = {pitch} * {h};"]
        body += loop("k", "count", inner)
        body.append(f"{each} {units} y1[{state} + j] = h[b * hs + j];")
        if self.kind == "tiles":
            body.append("of_tiles_end();")
        if not k.has(3):
            return [*lines, *body]
        body.append(f"for (ix b = o, t = count; t < {t}; t++) {units} y0[{place} * {h} + j] = 0;")
        return [*lines, *loop("o", n, body)]

    @property
    def pitch(self) -> int:
        """Elements from one rounded hidden state to the next."""
        return padded(self.hidden, TO)

    def _left(self, gates: Sequence[int]) -> str:
        """What meets the weights of these gates, for sequence b."""
        return "h + b * hs" if gates[0] != 2 else f"reset + b * {self.padded}"

    def _sums(self, s: _Steps) -> list[str]:
        """Sums and gates of all hidden units, a few vectors at a time: every other step begins with
        the weights that the one before ended with."""
        out: list[str] = []
        at, steps = s.at, self.rows // self.way.run
        for g in self.groups(s.gates):
            count = g.vectors * len(s.gates)
            per = count * self.lanes
            weights = f"r + {at} + q * {per * self.rows}"
            near = f"near + b * {self.pitch}"
            body = [f"float g[{per}] __attribute__((aligned(64)));"]
            if self.kind == "f32":
                left = self._left(s.gates)
                body.append(f"of_cell_sums({self.hidden}, {count}, k & 1, {left}, {weights}, g);")
            elif self.kind == "tiles":
                body = [f"const float *const g = sums + (b - some) * {self.lanes};"]
            else:
                rest = f"{near}, {weights}, g"
                body.append(f"of_cell_sums_{self.kind}({steps}, {count}, k & 1, {rest});")
            body += self._units(s, g)
            rows = loop("b", "last", body, "first")
            if self.kind == "tiles":
                rows = loop("b", f"of_min_ix(some + {s.high}, last)", body, "some")
                rows = [
                    f"for (ix some = first; some < last; some += {s.high}) {{",
                    f"  float sums[{per * s.high}] __attribute__((aligned(64)));",
                    f"  of_cell_tiles({steps}, {count}, k & 1, near + some * {self.pitch}, "
                    f"{self.pitch}, {weights}, {s.high}, sums);",
                    *("  " + line for line in rows), "}",
                ]  # fmt: skip
            turn = f"k & 1 ? {g.count - 1} - i : i" if g.count > 1 else "0"
            out += loop("i", str(g.count), [f"const ix q = {turn};", *rows])
            at += g.count * per * self.rows
        return out

    def _units(self, s: _Steps, g: Group) -> list[str]:
        """The gates of piece q of a group for sequence b, whose sums are at g."""
        row, place, state = s.where
        lanes, h, total = self.lanes, self.hidden, self.made().gates
        body = [
            f"const ix u = {g.first * lanes} + q * {g.vectors * lanes};",
            f"const float *const x = x0 + {row} * {self.directions * self.width} + "
            f"{s.d * self.width} + u * {total};",
            "const float *const before = h + b * hs + u;",
            f"float *const y = y0 + {place} * {h} + u;",
        ]
        if self.made().states == 2:
            body.append(f"float *const c = y2 + {state} + u;")
        full = g.vectors if g.tail == lanes else g.vectors - 1
        for first, end, used in ((0, full, lanes), (full, g.vectors, g.tail)):
            if first < end:
                inner = ["OF_SIMD", *loop("l", str(used), self._gates(s))]
                body += ["OF_UNROLL", *loop("v", str(end), inner, str(first))]
        return body

    def _gates(self, s: _Steps) -> list[str]:
        """Statements for hidden unit j, lane l of vector v."""
        k, gates, d = s.k, s.gates, s.d
        apart = self.lanes * s.high if self.kind == "tiles" else self.lanes
        cell, lanes, total = self.made(), self.lanes, self.made().gates

        def act(which: int, text: str, bound: bool = True) -> str:
            f, clip = cell.acts(d)[which], self.clip if bound else 0.0
            if self.kind != "f32" and f[0] in ROUGH:
                return f"{ROUGH[f[0]]}({clipped(text, dtypes.f32, clip)})"
            return activation(f, text, dtypes.f32, clip)

        def given(g: int) -> str:
            return f"x[(v * {total} + {g}) * {lanes} + l]"

        def summed(g: int) -> str:
            return f"g[(v * {len(gates)} + {gates.index(g)}) * {apart} + l]"

        def pre(g: int) -> str:
            return f"({given(g)} + {summed(g)})"

        lines = [f"const ix j = v * {lanes} + l;"]
        if self.cell != "GRU":
            peep = [f"p[{g * self.hidden} + u + j]" for g in range(3)] if k.has(6) else []
            return [*lines, *cell.update(pre, Places("y[j]", "c[j]", peep), act)]
        kept = f"b * {self.padded} + u + j"
        if gates == (0, 1):
            return [*lines, f"z[{kept}] = {act(0, pre(0))};",
                    f"reset[{kept}] = {act(0, pre(1))} * before[j];"]  # fmt: skip
        update, new = f"z[{kept}]", pre(2)
        if self.linear_before_reset:
            own = f"({summed(2)} + more[u + j])" if k.has(2) else summed(2)
            lines += [f"const float m = {act(0, pre(0))};"]
            update, new = "m", f"{given(2)} + {act(0, pre(1))} * {own}"
        return [*lines, f"y[j] = (1 - {update}) * {act(1, new)} + {update} * before[j];"]
