"""Attention of f32: softmax(scale q k^T + mask) v, the scores of a few queries at a time."""

from __future__ import annotations

from collections.abc import Sequence

from onefold.codegen.families.conv import size
from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.team import is_even, parts_for
from onefold.codegen.text import loop, loop_over
from onefold.codegen.tiles import Machine, f32_machine, lane_check, padded, runs_of
from onefold.codegen.views import View, plain, view_of
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim, Sym
from onefold.ir.graph import Array, Node, Value
from onefold.ir.scalar import counter, index_of
from onefold.ops.attention import Attention
from onefold.options import Options
from onefold.target import Target

FEWEST = 4  # queries for which packing keys and values pays


class FusedAttention(Family):
    """Tiles of queries against packed keys and values (of_attention_tile.h)."""

    name = "attention"
    ops = ("Attention",)

    def match(self, node: Node, target: Target, options: Options) -> list[Choice] | str:
        op, q, k, v = node.op, node.arg(0), node.arg(1), node.arg(2)
        assert isinstance(op, Attention)
        m = f32_machine(target, q.dtype, k.dtype, v.dtype)
        if isinstance(m, str):
            return m
        if op.scores >= 0 or op.softcap or op.left >= 0 or op.right >= 0 or op.from_end:
            return "it gives its scores, caps them, or sees a window"
        if node.input(4) is not None or node.input(5) is not None:
            return "it has lengths or a sink"
        if not dims.is_static((*q.shape[1:], *k.shape[1:], *v.shape[1:])):
            return "its sizes are open"
        if 0 in (*q.shape, *k.shape, *v.shape):
            return "it is empty"
        if dims.bounds(q.shape[2])[1] < FEWEST:
            return "it has too few queries for packing the keys to pay"
        mask = node.input(3)
        if mask is not None:
            one = mask.is_const and mask.tensor.size == 1
            if mask.dtype not in (dtypes.f32, dtypes.b1) or one:
                return f"its mask is {mask.type}"
            if not mask.shape or mask.shape[-1] != k.shape[2]:
                return "its mask does not tell every key"
        most = min(m.sums // 2, 8, size(q.shape[2]))
        tiles = dict.fromkeys(min(t, most) for t in (8, 4, 6))
        return [_Attention(node, m, options.threads, t).choice() for t in tiles]


class _Attention:
    def __init__(self, node: Node, m: Machine, threads: int, tile: int) -> None:
        op, q, k, v = node.op, node.arg(0), node.arg(1), node.arg(2)
        assert isinstance(op, Attention)
        self.node, self.m, self.op = node, m, op
        self.batch = q.shape[0]
        self.heads, self.queries, self.e = (size(d) for d in q.shape[1:])
        self.groups, self.keys = size(k.shape[1]), size(k.shape[2])
        self.f = size(v.shape[3])
        self.views = [_rows(x) for x in (q, k, v)]
        self.mask = node.input(3)
        self.tile = tile  # queries at a time
        self.padded = padded(self.keys, m.lanes)
        self.width = padded(self.f, m.lanes)
        self.cost = self.op.macs(node) / m.lanes
        # Threads pack keys and values for themselves: they take heads, or queries of all heads.
        self.own = parts_for(self.cost, threads)
        self.by_heads = is_even(self.groups, self.own)

    def choice(self) -> Choice:
        reads = [v.base for v in self.views] + ([] if self.mask is None else [self.mask])
        return Choice(
            f"attention_{self.tile}", self.node, tuple(reads), self.packed, self.render,
            lambda s: True, ("of_attention_tile.h",), 4 * self.own * self._floats(), self.cost,
        )  # fmt: skip

    def _floats(self) -> int:
        """Scratch memory of one thread."""
        return self.padded * self.e + self.keys * self.width + self.tile * self.padded

    def packed(self) -> tuple[Array, ...]:
        return ()

    def render(self, r: Rendering) -> str:
        q, k, v = r.pointers[:3]
        scratch = r.pointers[-1]
        self.r = r
        b, g = counter(self.batch, "i"), counter(self.groups, "i")
        h = counter(self.heads // self.groups, "i")
        head = dims.add(dims.mul(index_of(g), self.heads // self.groups), index_of(h))
        keys = self._from(k, 1, (index_of(b), index_of(g), 0, 0))
        values = self._from(v, 2, (index_of(b), index_of(g), 0, 0))
        body = [
            f"of_attention_keys(a, {self.keys}, {keys}, {self._step(1)}, kt);",
            f"of_attention_values(a, {self.keys}, {values}, {self._step(2)}, pv);",
            *self._loop(h, self._head(q, index_of(b), head)),
        ]
        lines = self._loop(g, body)
        if r.team.parts > 1:
            scratch = f"({scratch} + me.part * {4 * self._floats()})"
            if self.by_heads:
                lines = loop(g.name, "to", body, "from")
        lines = self._loop(b, lines)
        if r.team.parts > 1:
            lines.insert(0, r.team.bounds(str(self.groups if self.by_heads else self.queries)))
        kt, pv = self.padded * self.e, self.keys * self.width
        scale = float(self.op.scale).hex()
        return "\n".join([
            lane_check(self.m.lanes),
            f"const struct of_attention a = {{{self.e}, {self.f}, {scale}}};",
            f"float *const kt = (float *){scratch}, *const pv = kt + {kt}, *const s = pv + {pv};",
            *lines,
        ])  # fmt: skip

    def _head(self, q: str, b: Dim, head: Dim) -> list[str]:
        """All queries of a head."""
        lines: list[str] = []
        for run in runs_of(self.queries, self.tile):
            t = counter(run.count, "i")
            first = dims.add(dims.mul(index_of(t), run.width), run.first)
            rows = self._from(q, 0, (b, head, first, 0))
            seen = str(self.keys)
            if self.op.causal:
                last = dims.add(first, dims.add(self.op.offset, run.width))
                seen = f"of_max_ix(0, of_min_ix({self.keys}, {self.r.dim(last)}))"
            body = [
                f"const ix seen = {seen};",
                f"of_attention_scores(a, {run.width}, seen, {rows}, {self._step(0)}, kt, s, "
                f"{self.padded});",
                *self._hide(b, head, first, run.width),
                f"float inv[{run.width}];",
                f"float acc[{run.width * self.width}] __attribute__((aligned(64)));",
                f"of_attention_softmax({run.width}, seen, {self.padded}, s, inv);",
                f"of_attention_sums(a, {run.width}, seen, s, {self.padded}, pv, inv, acc);",
                *self._undefined(run.width),
                *self._store(b, head, first, run.width),
            ]
            if self.r.team.parts == 1 or self.by_heads:
                lines += ["{", *["  " + x for x in self._loop(t, body)], "}"]
            else:
                tiles = f"{run.first}, {run.width}, {run.count}"
                lines += loop(t.name, f"of_tiles(to, {tiles})", body, f"of_tiles(from, {tiles})")
        return lines

    def _hide(self, b: Dim, head: Dim, first: Dim, width: int) -> list[str]:
        """The mask on the scores of a tile, and the keys that come later."""
        lines: list[str] = []
        t = counter(width, "i")
        row = f"s[{self.r.dim(index_of(t))} * {self.padded} + j]"
        if self.mask is not None:
            shape = (1,) * (4 - len(self.mask.shape)) + tuple(self.mask.shape)
            at: Dim = 0
            for i, d in zip((b, head, dims.add(first, index_of(t))), shape, strict=False):
                at = dims.add(dims.mul(at, d), 0 if d == 1 else i)
            load = f"{self.r.pointers[3]}[{self.r.dim(dims.mul(at, self.keys))} + j]"
            what = f"{row} += {load};"
            if self.mask.dtype is dtypes.b1:
                what = f"{row} = {load} ? {row} : -OF_INF_F32;"
            lines += ["OF_SIMD", *loop("j", "seen", [what])]
        if self.op.causal:
            end = self.r.dim(dims.add(dims.add(first, index_of(t)), dims.add(self.op.offset, 1)))
            lines += [f"for (ix j = of_max_ix(0, {end}); j < seen; j++) {row} = -OF_INF_F32;"]
        return self._loop(t, lines) if lines else []

    def _undefined(self, width: int) -> list[str]:
        """Queries that see nothing, where they are to be not a number."""
        if not self.op.undefined:
            return []
        each = f"for (ix f = 0; f < {self.width}; f++) acc[t * {self.width} + f] = OF_NAN_F32;"
        return loop("t", str(width), [f"if (inv[t] == 0) {each}"])

    def _store(self, b: Dim, head: Dim, first: Dim, width: int) -> list[str]:
        t, f = counter(width, "i"), counter(self.f, "i")
        acc = dims.add(dims.mul(index_of(t), self.width), index_of(f))
        place = (b, head, dims.add(first, index_of(t)), index_of(f))
        body = self.r.store(place, f"acc[{self.r.dim(acc)}]")
        inner = ["OF_SIMD", *self._loop(f, body)] if f.extent != 1 else body
        return self._loop(t, inner)

    def _from(self, pointer: str, k: int, index: Sequence[Dim]) -> str:
        return f"{pointer} + {self.r.dim(self.views[k].at(index))}"

    def _step(self, k: int) -> str:
        """Elements from one row of the queries, keys or values to the next."""
        return self.r.dim(self.views[k].steps[2])

    def _loop(self, c: Sym, body: Sequence[str]) -> list[str]:
        return loop_over(c, self.r.dim, body)


def _rows(v: Value) -> View:
    """Rows whose elements lie side by side."""
    found = view_of(v)
    return found if found.steps[3] == 1 or v.shape[3] == 1 else plain(v)
