"""Attention of f32: softmax(scale q k^T + mask) v, the scores of a few queries at a time."""

from __future__ import annotations

from collections.abc import Sequence

from onefold.codegen.families.conv import size
from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.team import is_even, parts_for
from onefold.codegen.text import braced, loop, loop_over
from onefold.codegen.tiles import Machine, Run, f32_machine, lane_check, padded, runs_of
from onefold.codegen.views import View, plain, view_of
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim, Sym
from onefold.ir.graph import Array, Node, Value
from onefold.ir.scalar import counter, index_of
from onefold.ops.attention import Attention
from onefold.options import Options
from onefold.target import Target

SIZES = {"float": 4, "uint16_t": 2}
FEWEST = 4  # queries for which packing keys and values pays


class FusedAttention(Family):
    """Tiles of queries against packed keys and values (of_attention_tile.h)."""

    name = "attention"
    ops = ("Attention",)

    def match(self, node: Node, target: Target, options: Options) -> list[Choice] | str:
        m = machine_for(node, target)
        if isinstance(m, str):
            return m
        most = min(m.sums // 2, 8, size(node.arg(0).shape[2]))
        tiles = dict.fromkeys(min(t, most) for t in (8, 4, 6))
        return [_Fused(node, m.lanes, options.threads, t).choice() for t in tiles]


def machine_for(node: Node, target: Target) -> Machine | str:
    """The vectors by which attention is computed for a few queries at a time, or why it is not."""
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
    return m


class Tiled:
    """Attention for `tile` queries at a time: the loops, the mask and the result. How keys and
    values are packed and met is said by subclasses."""

    kind = "attention"
    headers: tuple[str, ...] = ()

    def __init__(self, node: Node, threads: int, tile: int, steps: tuple[int, int]) -> None:
        op, q, k, v = node.op, node.arg(0), node.arg(1), node.arg(2)
        assert isinstance(op, Attention)
        self.node, self.op = node, op
        self.batch = q.shape[0]
        self.heads, self.queries, self.e = (size(d) for d in q.shape[1:])
        self.groups, self.keys = size(k.shape[1]), size(k.shape[2])
        self.f = size(v.shape[3])
        self.views = [_rows(x) for x in (q, k, v)]
        self.mask = node.input(3)
        self.tile = tile
        # columns of a row of scores, and of a row of the result
        self.padded, self.width = padded(self.keys, steps[0]), padded(self.f, steps[1])
        # Threads pack keys and values for themselves: they take heads, or queries of all heads.
        self.own = parts_for(self.cost, threads)
        self.by_heads = is_even(self.groups, self.own)

    # -- of the kernel ---------------------------------------------------------------------------

    @property
    def cost(self) -> float:
        """Estimated cycles."""
        raise NotImplementedError

    @property
    def parts(self) -> tuple[tuple[str, str, int], ...]:
        """Scratch memory of one thread: type, name and elements of each part; among them `s`, the
        scores of a tile, in rows of `pitch`."""
        raise NotImplementedError

    @property
    def pitch(self) -> int:
        """Elements from one row of scores to the next."""
        return self.padded

    def runs(self) -> list[Run]:
        """The tiles of the queries."""
        return runs_of(self.queries, self.tile)

    def pack(self, keys: str, values: str) -> list[str]:
        """Packs the keys and values of a head."""
        raise NotImplementedError

    def scores(self, width: int, rows: str) -> list[str]:
        """Statements that give `s` for `width` queries and the first `seen` keys."""
        raise NotImplementedError

    def sums(self, width: int) -> list[str]:
        """Statements that give acc[width][self.width] from `s`, and inv[width]."""
        raise NotImplementedError

    # -- text ------------------------------------------------------------------------------------

    def choice(self) -> Choice:
        reads = [v.base for v in self.views] + ([] if self.mask is None else [self.mask])
        return Choice(
            f"{self.kind}_{self.tile}", self.node, tuple(reads), self.packed, self.render,
            lambda s: True, self.headers, self.own * self._bytes(), self.cost,
        )  # fmt: skip

    def _bytes(self) -> int:
        """Scratch memory of one thread."""
        return sum(padded(SIZES[kind] * count, 64) for kind, _, count in self.parts)

    def packed(self) -> tuple[Array, ...]:
        return ()

    def render(self, r: Rendering) -> str:
        q, k, v = r.pointers[:3]
        self.r = r
        b, g = counter(self.batch, "i"), counter(self.groups, "i")
        h = counter(self.heads // self.groups, "i")
        head = dims.add(dims.mul(index_of(g), self.heads // self.groups), index_of(h))
        keys = self._from(k, 1, (index_of(b), index_of(g), 0, 0))
        values = self._from(v, 2, (index_of(b), index_of(g), 0, 0))
        body = [*self.pack(keys, values), *self._loop(h, self._head(q, index_of(b), head))]
        lines = self._loop(g, body)
        place = r.pointers[-1]
        if r.team.parts > 1:
            place = f"({place} + me.part * {self._bytes()})"
            if self.by_heads:
                lines = loop(g.name, "to", body, "from")
        lines = self._loop(b, lines)
        if r.team.parts > 1:
            lines.insert(0, r.team.bounds(str(self.groups if self.by_heads else self.queries)))
        head_lines = []
        at = 0
        for kind, name, count in self.parts:
            head_lines.append(f"{kind} *const {name} = ({kind} *)({place} + {at});")
            at += padded(SIZES[kind] * count, 64)
        return "\n".join([*head_lines, *lines])

    def _head(self, q: str, b: Dim, head: Dim) -> list[str]:
        """All queries of a head."""
        lines: list[str] = []
        for run in self.runs():
            t = counter(run.count, "i")
            first = dims.add(dims.mul(index_of(t), run.width), run.first)
            rows = self._from(q, 0, (b, head, first, 0))
            seen = str(self.keys)
            if self.op.causal:
                last = dims.add(first, dims.add(self.op.offset, run.width))
                seen = f"of_max_ix(0, of_min_ix({self.keys}, {self.r.dim(last)}))"
            body = [
                f"const ix seen = {seen};",
                *self.scores(run.width, rows),
                *self._hide(b, head, first, run.width),
                f"float inv[{run.width}];",
                f"float acc[{self.room(run.width) * self.width}] __attribute__((aligned(64)));",
                *self.sums(run.width),
                *self._undefined(run.width),
                *self._store(b, head, first, run.width),
            ]
            if self.r.team.parts == 1 or self.by_heads:
                lines += braced(self._loop(t, body))
            else:
                tiles = f"{run.first}, {run.width}, {run.count}"
                lines += loop(t.name, f"of_tiles(to, {tiles})", body, f"of_tiles(from, {tiles})")
        return lines

    def room(self, width: int) -> int:
        """Rows of acc for so many queries."""
        return width

    def _hide(self, b: Dim, head: Dim, first: Dim, width: int) -> list[str]:
        """The mask on the scores of a tile, and the keys that come later."""
        lines: list[str] = []
        t = counter(width, "i")
        row = f"s[{self.r.dim(index_of(t))} * {self.pitch} + j]"
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

    def apart(self, k: int) -> str:
        """Elements from one row of the queries, keys or values to the next."""
        return self.r.dim(self.views[k].steps[2])

    def _loop(self, c: Sym, body: Sequence[str]) -> list[str]:
        return loop_over(c, self.r.dim, body)


class _Fused(Tiled):
    """By vectors, in f32."""

    headers = ("of_attention_tile.h",)

    def __init__(self, node: Node, lanes: int, threads: int, tile: int) -> None:
        self.lanes = lanes
        super().__init__(node, threads, tile, (lanes, lanes))

    @property
    def cost(self) -> float:
        return self.op.macs(self.node) / self.lanes

    @property
    def parts(self) -> tuple[tuple[str, str, int], ...]:
        return (
            ("float", "kt", self.padded * self.e), ("float", "pv", self.keys * self.width),
            ("float", "s", self.tile * self.padded),
        )  # fmt: skip

    def render(self, r: Rendering) -> str:
        sizes = f"{{{self.e}, {self.f}, {float(self.op.scale).hex()}}}"
        head = [lane_check(self.lanes), f"const struct of_attention a = {sizes};"]
        return "\n".join([*head, super().render(r)])

    def pack(self, keys: str, values: str) -> list[str]:
        return [
            f"of_attention_keys(a, {self.keys}, {keys}, {self.apart(1)}, kt);",
            f"of_attention_values(a, {self.keys}, {values}, {self.apart(2)}, pv);",
        ]

    def scores(self, width: int, rows: str) -> list[str]:
        rest = f"{rows}, {self.apart(0)}, kt, s, {self.pitch}"
        return [f"of_attention_scores(a, {width}, seen, {rest});"]

    def sums(self, width: int) -> list[str]:
        return [
            f"of_attention_softmax({width}, seen, {self.pitch}, s, inv);",
            f"of_attention_sums(a, {width}, seen, s, {self.pitch}, pv, inv, acc);",
        ]


def _rows(v: Value) -> View:
    """Rows whose elements lie side by side."""
    found = view_of(v)
    return found if found.steps[3] == 1 or v.shape[3] == 1 else plain(v)
