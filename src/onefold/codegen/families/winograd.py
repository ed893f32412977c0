"""Convolutions of f32 with a window of 3x3 and strides of one by Winograd's minimal filtering.

F(4x4) takes 2.25 products for each output and channel, F(2x2) four, the plain sum nine. The price
is transformed weights, four or 1.8 times as many, and rounding errors that are, for F(4x4), a few
times those of a plain sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

import numpy as np

from onefold.codegen.families.conv import machine_for, planar, size
from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.loops import padded_channels
from onefold.codegen.streams import NO_STREAM, STEP, STREAMED, after, share_of
from onefold.codegen.sums import pack_bias, pack_weights
from onefold.codegen.team import parts_for
from onefold.codegen.text import Ends, braced, loop
from onefold.codegen.tiles import (
    Machine,
    Tile,
    choose_tile,
    groups_of,
    lane_check,
    runs_of,
    tiles_for,
)
from onefold.ir import dims
from onefold.ir.dims import Dim, Sym
from onefold.ir.graph import Array, Node
from onefold.ir.scalar import counter, index_of
from onefold.ops.conv import Conv
from onefold.options import Options
from onefold.target import Target

POINTS = {2: (0, 1, -1), 4: (0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))}  # and infinity


def weight_transform(n: int) -> Array:
    """The matrix G [n + 2, 3] of F(n x n); the other two are in of_winograd.h."""
    points = POINTS[n]
    rows = [[p**k / np.prod([p - q for q in points if q != p]) for k in range(3)] for p in points]
    return np.array([*rows, [0, 0, 1]])


TRANSFORMS = {2: (50, 45), 4: (150, 170)}  # cycles, there and back, of a tile of a block
FEWEST = 8  # tiles at a time
CACHED = 600_000  # bytes between the transforms that stay in a cache near the core
DOUBT = 1.1  # how much better it must look than plain sums, which need less memory
LARGE = 1 << 20  # bytes of weights that are not expected in a cache when the layer begins
CROSSING = 10.0  # bytes in a cycle that a core gets of what another one has just written
NEAR, FAR = 16.0, 5.0  # bytes a cycle from a shared cache, and from memory


class Winograd(Family):
    """Transformed tiles, multiplied channel by channel (of_winograd.h)."""

    name = "conv_winograd"
    ops = ("Conv",)
    blocks = True

    def match(self, node: Node, target: Target, options: Options) -> list[Choice] | str:
        m = machine_for(node, target)
        if isinstance(m, str):
            return m
        if options.exact:
            return "its rounding errors are larger than those of plain sums"
        if options.goal == "size":
            return "its weights take more memory than those of plain sums"
        op = node.op
        assert isinstance(op, Conv)
        axes = op.axes(node)
        if op.group != 1:
            return f"it has {op.group} groups"
        if len(axes) != 2 or any((a.kernel, a.stride, a.dilation) != (3, 1, 1) for a in axes):
            return "its window is not 3x3 with steps of one"
        if node.arg(0).tensor.layout != m.lanes:
            return "its input is not in channel blocks"
        ways = [w for n in (2, 4) for w in _Winograd(node, m, n).ways() if w.fits]
        if not ways:
            return "what lies between its transforms is larger than its input and result"
        found: dict[str, Choice] = {}
        for w in ways:  # threads may make the same of several: the first, which costs least
            c = w.choice(options.threads)
            found.setdefault(c.name, c)
        return list(found.values())


class _Winograd:
    def __init__(self, node: Node, m: Machine, n: int) -> None:
        op, w = node.op, node.arg(1).data
        assert isinstance(op, Conv) and w is not None
        self.node, self.n, self.weights = node, n, w
        self.m = replace(m, latency=m.slowest)  # as many tiles at a time as that takes
        self.oc, self.ic = w.shape[0], w.shape[1]
        self.y_axis, self.x_axis = planar(op.axes(node))
        self.height, self.width = size(self.y_axis.out), size(self.x_axis.out)
        self.across = -(-self.width // n)
        self.tiles = self.across * -(-self.height // n)
        self.in_blocks, self.out_blocks = -(-self.ic // m.lanes), -(-self.oc // m.lanes)
        self.points = (n + 2) ** 2
        self.weight_bytes = self.points * self.oc * self.ic * 4
        self.at_once, self.tile, self.cost = 0, Tile(1, 1), 0.0  # decided by `ways`
        self.own = 1  # scratch memories: one for all threads, or one for each

    def ways(self) -> list[_Winograd]:
        """The plan with the lowest estimate, half and twice as many tiles at a time, and other
        tiles of the products."""
        plans = self._plans()
        best = min(plans, key=lambda p: p[2])
        found = [best]
        for share in (0.5, 2.0):
            near = min(plans, key=lambda p: abs(p[0] - share * best[0]))
            found += [near] if near not in found else []
        tiles = tiles_for(self.m, self.oc, best[0], self.ic)
        scale = best[2] / tiles[0][1]
        found += [(best[0], tile, cost * scale) for tile, cost in tiles[1:3]]
        out = []
        for at_once, tile, cost in found:
            way = copy(self)
            way.at_once, way.tile, way.cost = at_once, tile, cost
            out.append(way)
        return out

    def _plans(self) -> list[tuple[int, Tile, float]]:
        """Tiles at a time, the tile of the products, and the estimate of cycles, for each number
        of rounds that memory allows."""
        found: list[tuple[int, Tile, float]] = []
        there, back = TRANSFORMS[self.n]
        moved = self.tiles * (self.in_blocks * there + self.out_blocks * back)
        room = max(self._moved_bytes() * 2 // 5, self.weight_bytes // 4)
        most = max(self.tiles // FEWEST, 1)
        for rounds in range(1, most + 1):
            at_once = -(-self.tiles // rounds)
            if self._scratch(at_once) > room and rounds < most:
                continue
            tile, cycles = self._rounds(rounds, at_once)
            found.append((at_once, tile, DOUBT * (cycles + moved)))
        return found

    def _rounds(self, rounds: int, at_once: int) -> tuple[Tile, float]:
        """The tile of the products, and the estimate of cycles of so many rounds, but for the
        arithmetic of the transforms."""
        tile, product = choose_tile(self.m, self.oc, at_once, self.ic)
        between = self.points * (self.in_blocks + self.out_blocks) * self.m.lanes * 4 * at_once
        carried = rounds * between / (NEAR if between > CACHED else 4 * NEAR)
        first = FAR if self.weight_bytes >= LARGE else NEAR
        read = self.weight_bytes * (1 / first + (rounds - 1) / NEAR)
        return tile, max(rounds * self.points * product, read) + carried

    def _share(self, parts: int) -> None:
        """How threads share the tiles: each takes some and all that comes of them, with a scratch
        memory of its own; or, where tiles are few, they share each transform and the points of the
        products of one round after another."""
        room = 2 * max(self._scratch(self.at_once), CACHED)
        rounds = -(-self.tiles // self.at_once)
        crossing = 4 * self.points * sum(self._steps(self.at_once)) / CROSSING
        best = (self._rounds(rounds, self.at_once)[1] + rounds * crossing) / parts
        for turns in range(1, max(self.tiles // parts, 1) + 1):  # of each thread
            at_once = -(-self.tiles // (turns * parts))
            if parts * self._scratch(at_once) > room and at_once > FEWEST:
                continue
            tile, cycles = self._rounds(turns, at_once)
            if cycles < best:
                best, self.at_once, self.tile, self.own = cycles, at_once, tile, parts

    def choice(self, threads: int) -> Choice:
        cost = self.cost * dims.upper(self.node.arg(0).shape[0])
        parts = parts_for(cost, threads)
        if parts > 1:
            self._share(parts)
        name = f"conv_winograd{self.n}_{self.tile.columns}x{self.tile.vectors}_{self.at_once}"
        return Choice(
            name, self.node, (self.node.arg(0),), self.packed, self.render, lambda s: True,
            ("of_winograd.h",), cost=cost, stored=4 * self.m.lanes * self.out_blocks
            * (self.points * self.ic + 1),
            scratch=self.own * self._scratch(self.at_once),
        )  # fmt: skip

    @property
    def fits(self) -> bool:
        """Whether the memory between the transforms is in proportion."""
        room: int = max(self._moved_bytes(), self.weight_bytes // 4)
        return self._scratch(self.at_once) <= room

    def _scratch(self, at_once: int) -> int:
        """Bytes of one scratch memory."""
        elements: int = self.points * sum(self._steps(at_once))
        return 4 * elements

    def _moved_bytes(self) -> int:
        """Bytes of one batch of the input and the result."""
        pixels = size(self.y_axis.size) * size(self.x_axis.size), self.height * self.width
        blocks = self.in_blocks * pixels[0] + self.out_blocks * pixels[1]
        return int(4 * self.m.lanes * blocks)

    def _steps(self, at_once: int) -> tuple[int, ...]:
        """Elements from one point to the next, of transformed inputs and of products: one vector
        more than they take, lest a tile's points fall into one set of the cache."""
        lanes = self.m.lanes
        return tuple((b * at_once + 1) * lanes for b in (self.in_blocks, self.out_blocks))

    def packed(self) -> tuple[Array, ...]:
        g = weight_transform(self.n)
        u = np.einsum("ar,oirs,bs->aboi", g, self.weights.astype(np.float64), g, optimize=True)
        u = u.reshape(self.points, self.oc, self.ic, 1, 1).astype(np.float32)
        lanes, vectors = self.m.lanes, self.tile.vectors
        w = np.concatenate([pack_weights(p, lanes, vectors, lanes) for p in u])
        return w, pack_bias(self.node.const(2), self.oc, lanes)

    def render(self, r: Rendering) -> str:
        x, w, bias, scratch = r.pointers
        lanes = self.m.lanes
        fields = (
            self.n, self.ic, size(self.y_axis.size), size(self.x_axis.size),
            size(self.y_axis.begin), size(self.x_axis.begin), self.across, self.at_once,
            *self._steps(self.at_once),
        )  # fmt: skip
        spread = self.points * self._steps(self.at_once)[0]
        batch = counter(self.node.arg(0).shape[0], "i")
        plane = size(padded_channels(self.node.arg(0).tensor)) * fields[2] * fields[3]
        at = r.dim(dims.mul(index_of(batch), plane))
        source, team = f"{x} + {at}", r.team
        apart, together = team.parts > 1 and self.own > 1, team.parts > 1 and self.own == 1
        body = ["const ix used = of_min_ix(k.p, tiles - first);"]
        if together:
            body += [
                team.bounds("used"), team.bounds(str(self.points), names=("q0", "q1")),
                f"of_winograd_spread(k, first + from, to - from, {source}, v + from * {lanes});",
                *team.wait(), *self._products(r, w, ("q0", "q1"), "tiles"),
                *team.wait(), *self._gather(r, batch, bias, "from", "to"), *team.wait(),
            ]  # fmt: skip
        else:
            body += [
                f"of_winograd_spread(k, first, used, {source}, v);",
                *self._products(r, w, ("0", str(self.points)), "to" if apart else "tiles"),
                *self._gather(r, batch, bias),
            ]  # fmt: skip
        ends = ("from", "to") if apart else ("0", "tiles")
        step = f"for (ix first = {ends[0]}; first < {ends[1]}; first += {self.at_once})"
        lines = braced(body, step)
        if apart:
            lines.insert(0, team.bounds("tiles", self.at_once))
            scratch = f"({scratch} + me.part * {self._scratch(self.at_once)})"
        if batch.extent != 1:
            lines = loop(batch.name, r.dim(batch.extent or 1), lines)
        return "\n".join([
            lane_check(lanes),
            f"const struct of_winograd k = {{{', '.join(map(str, fields))}}};",
            f"enum {{ tiles = {self.tiles} }};",
            f"float *const v = (float *){scratch}, *const m = v + {spread};",
            *lines,
        ])  # fmt: skip

    def _products(self, r: Rendering, w: str, points: Ends, tiles: str) -> list[str]:
        """For each point a product of the tiles' matrix and a matrix of weights; tiles: C text of
        the end of all that the thread computes, some at a time."""
        lanes, at_once = self.m.lanes, self.at_once
        lines = [
            "const float *vq = v + q * k.vstep;",
            f"const float *wq = {w} + q * {self.out_blocks * lanes * self.ic};",
            "float *mq = m + q * k.mstep;",
        ]
        runs = runs_of(at_once, self.tile.columns)
        passes = sum(r.count for r in runs if isinstance(r.count, int))
        for g in groups_of(self.oc, lanes, self.tile.vectors):
            inner: list[str] = []
            before = 0  # tiles of the runs before
            for run in runs:
                ahead = NO_STREAM
                if self.weight_bytes >= STREAMED:
                    number = f"{before} + t" if run.count != 1 else str(before)
                    steps = -(-self.ic // min(STEP, lanes))
                    size = 4 * g.vectors * lanes * self.ic
                    there = f"wq + (b + {g.vectors}) * {lanes * self.ic}"
                    more = f"q + 1 < {points[1]} || b + {g.vectors} < {self.out_blocks}"
                    if self.at_once < self.tiles:
                        each = self.out_blocks * lanes * self.ic
                        there = f"({more} ? {there} : {w} + {points[0]} * {each})"
                        more = f"{more} || first + {at_once} < {tiles}"
                    there = after(r, w, there, more, points[0] != "0")
                    ahead = share_of(number, passes, steps, size, there)
                assert isinstance(run.count, int)
                before += run.count
                at = f"(t * {run.width} + {run.first})" if run.count != 1 else str(run.first)
                call = (
                    f"of_winograd_product(k, {run.width}, {g.vectors}, vq + {at} * {lanes}, "
                    f"wq + b * {lanes * self.ic}, {ahead}, mq + (b * {at_once} + {at}) * {lanes});"
                )
                inner += [call] if run.count == 1 else loop("t", str(run.count), [call])
            end_of_group = g.first + g.count * g.vectors
            step = f"for (ix b = {g.first}; b < {end_of_group}; b += {g.vectors})"
            lines += braced(inner, step)
        return loop("q", points[1], lines, points[0])

    def _gather(
        self, r: Rendering, batch: Sym, bias: str, begin: str = "0", end: str = "used"
    ) -> list[str]:
        """Transforms back and finishes the elements of each tile that lie inside of the result."""
        lanes, n = self.m.lanes, self.n
        full = self.oc // lanes
        out: list[str] = []
        for first, count, used in ((0, full, lanes), (full, 1, self.oc - full * lanes)):
            if not count or not used:
                continue
            block, row, column = counter(count, "i"), counter(self.height, "i"), counter(self.width)
            at = dims.add(index_of(block), first)
            text = r.dim(at)
            inner = [
                f"const ix {row.name} = (first + t) / k.across * {n};",
                f"const ix {column.name} = (first + t) % k.across * {n};",
                f"float acc[{n * n * lanes}] __attribute__((aligned(64)));",
                f"of_winograd_gather(k, m + ({text} * k.p + t) * {lanes}, {bias} + {text} * "
                f"{lanes}, acc);",
                *self._store(r, index_of(batch), at, (row, column), used),
            ]
            lines = loop("t", end, inner, begin)
            out += loop(block.name, str(count), lines) if count != 1 else lines
        return out

    def _store(
        self, r: Rendering, n: Dim, block: Dim, corner: tuple[Sym, Sym], used: int
    ) -> list[str]:
        lanes = self.m.lanes
        i, j, lane = counter(self.n, "i"), counter(self.n, "i"), counter(used, "i")
        place: Sequence[Dim] = [dims.add(dims.atom(c), dims.atom(k))
                                for c, k in zip(corner, (i, j), strict=True)]  # fmt: skip
        channel = dims.add(dims.mul(block, lanes), index_of(lane))
        vector = dims.add(dims.mul(index_of(i), self.n), index_of(j))
        acc = dims.add(dims.mul(vector, lanes), index_of(lane))
        body = r.store((n, channel, *place), f"acc[{r.dim(acc)}]")
        if used > 1:
            body = [r.simd, *loop(lane.name, str(used), body)]
        if r.blocked and used < lanes:
            pad = counter(lanes - used, "i")
            ch = dims.add(dims.mul(block, lanes), dims.add(index_of(pad), used))
            target = r.dim(r.place((n, ch, *place)))
            clear = [f"{r.out}[{target}] = 0;"]
            body += loop(pad.name, str(lanes - used), clear) if lanes - used > 1 else clear
        for c, at, total in ((j, corner[1], self.width), (i, corner[0], self.height)):
            whole = total % self.n == 0
            end = str(self.n) if whole else f"of_min_ix({self.n}, {total} - {at.name})"
            body = [*(["OF_UNROLL"] if whole else []), *loop(c.name, end, body)]
        return body
