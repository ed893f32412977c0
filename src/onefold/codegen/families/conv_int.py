"""Integer convolutions and products with constant matrices (of_conv_int.h)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from onefold.codegen.families.depthwise import widths
from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.int_layers import Layer, layer_of
from onefold.codegen.streams import STREAMED
from onefold.codegen.text import loop
from onefold.codegen.tiles import (
    Machine,
    Run,
    Tile,
    groups_of,
    lane_check,
    padded,
    runs_of,
    tiles_for,
)
from onefold.codegen.tiling import Older, Overlapped, Plane, Tiling
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node
from onefold.ir.scalar import counter, index_of
from onefold.options import Options
from onefold.target import Target

SLACK = 64  # bytes behind the prepared rows that a last step or vector may read
SMALL = 8 << 10  # bytes of prepared rows that are always allowed
CACHED = 64 << 10  # the same where all weights are read anew for each band
SHARE = 8  # more are where input and output together take so many times as much
LEAST = 4  # output rows at a time where neighbours share input rows, which are prepared again
LONG, FEW = 1024, 4  # elements of an input beyond which a copy counts, results that do not
TILE = 16  # rows and columns of a matrix unit's tile
CLOSE = 24 << 10  # bytes of weights that stay in the first cache
START = 200  # cycles until it has been set up
LONGEST = 1 << 22  # products in a sum: beyond, i32 pairs could wrap before they are added up


@dataclass(frozen=True, slots=True)
class Form:
    """How elements meet: `step` of them at a time, as `kind`, `offset` added to the input first;
    interleaved: whether the elements of a step lie next to each other in the weights."""

    step: int
    kind: str
    interleaved: bool = True

    @property
    def size(self) -> int:
        return 4 // self.step


def form_of(target: Target, weights: Array) -> Form:
    """The dot product of the machine where the weights fit into bytes, else products of i16."""
    narrow = weights.size == 0 or (weights.min() >= -128 and weights.max() <= 127)
    if narrow and "avx512vnni" in target.features:
        return Form(4, "u8")
    if narrow and "dotprod" in target.features:
        return Form(4, "i8")
    return Form(2, "i16", target.arch == "x86_64")


def beyond_bytes(weights: Array) -> int:
    """What to take from weights so that they fit into bytes, 0 where they do or never would: those
    stored unsigned, less their zero point, may lie between -255 and 255, but no further apart."""
    low, high = (int(weights.min()), int(weights.max())) if weights.size else (0, 0)
    if (low >= -128 and high <= 127) or high - low > 255:
        return 0
    return high - 127 if high > 127 else low + 128


def find(node: Node, target: Target) -> Layer | str:
    """The layer, or why no integer kernel takes the node."""
    if Machine.of(target) is None:
        return f"'{target.name}' has no vectors of 32-bit integers"
    layer = layer_of(node)
    if isinstance(layer, Layer) and int(np.prod(layer.weights.shape[1:])) > LONGEST:
        return "its sums are too long"
    return layer


@dataclass(frozen=True, slots=True)
class Image:
    """The input as the sums read it: [blocks][rows][cols][col] elements. Where it is prepared, that
    is done for a band of output rows at a time, since a whole one would be the largest thing in the
    arena."""

    border: tuple[int, int]  # top, left
    band: int  # output rows
    rows: int  # input rows that a band reads
    cols: int
    col: int
    blocks: int = 1

    @property
    def block(self) -> int:
        return self.rows * self.cols * self.col

    @property
    def elements(self) -> int:
        return self.blocks * self.block


class IntKernel:
    """What the integer kernels share: the input, and the end of a sum."""

    header = "of_conv_int.h"
    unit = 1  # columns that a tile has, or a multiple: then it may lie in several rows

    def __init__(
        self, layer: Layer, target: Target, form: Form, block: int, apart: bool = False
    ) -> None:
        """block: channels of a column are filled up to whole ones; apart: blocks are images."""
        m = Machine.of(target)
        assert m is not None
        if layer.x.dtype.name == form.kind:
            layer = layer.in_one_row()
        self.layer, self.m, self.form = layer, m, form
        h, w, c = layer.size
        self.rows, self.columns, self.channels = layer.result
        blocks, col = (-(-c // block), block) if apart else (1, -(-c // block) * block)
        self.direct = col == c and self._fits()
        if self.direct:
            self.image = Image((0, 0), self.rows, h, w, c)
            return
        top, left = layer.pads
        cols = max(layer.reach(self.columns, 1), left + w)
        total = layer.batches * (h * w * c + int(np.prod(layer.result)))
        room = max(self.small(), total // SHARE)
        band = self._band((room - SLACK) // (cols * col * blocks * form.size))
        self.image = Image((top, left), band, layer.reach(band, 0), cols, col, blocks)

    def _fits(self) -> bool:
        """Whether the sums can read the input as it is: its type, channels last, no border."""
        t, (h, w, c) = self.layer, self.layer.size
        inside = t.reach(self.rows, 0) <= h and t.reach(self.columns, 1) <= w
        last = t.steps[1:] == (w * c, c, 1) or (h * w == 1 and t.steps[3] == 1)
        kind = t.x.dtype.name == self.form.kind and t.pads == (0, 0)
        run = c if t.dilations[1] > 1 else c * t.kernel[1]
        return kind and inside and last and run % self.form.step == 0

    def _band(self, most: int) -> int:
        """Output rows at a time whose input rows are at most so many, in bands of equal size."""
        t = self.layer
        least = LEAST if t.reach(1, 0) > t.strides[0] else 1
        fit = (most - t.reach(1, 0)) // t.strides[0] + 1
        bands = -(-self.rows // max(fit, least))
        return -(-self.rows // bands)

    def small(self) -> int:
        """Bytes of prepared rows that are always allowed."""
        return SMALL

    @property
    def scratch(self) -> int:
        return 0 if self.direct else self.image.elements * self.form.size + SLACK

    def zeros(self) -> tuple[int, int]:
        """What is added to an element of the input, and what stands for zero afterwards."""
        zero, signed = self.layer.zero_x, self.layer.x.dtype is dtypes.i8
        if self.form.kind == "i16":
            return -zero, 0
        add = 128 if signed and self.form.kind == "u8" else 0
        add = -128 if not signed and self.form.kind == "i8" else add
        return add, zero + add

    def ends(self) -> list[Array]:
        """Bias less the share of the zero point, and what the end of a sum takes: filled up to
        whole vectors."""
        blocks = -(-self.channels // self.m.lanes) * self.m.lanes
        total = self.layer.weights.astype(np.int64).reshape(self.channels, -1).sum(axis=1)
        start = -self.zeros()[1] * total
        if self.layer.bias is not None:
            start = start + self.layer.bias.astype(np.int64)
        out = []
        for a in (start.astype(np.uint32).view(np.int32), *self.layer.end.arrays()):
            full = np.zeros(blocks, a.dtype)
            full[: self.channels] = a
            out.append(full)
        return out

    def body(
        self, r: Rendering, tile: Tile, call: Callable[..., str],
        overlapped: Overlapped | None = None,
    ) -> str:  # fmt: skip
        """C text: for each band of rows, the prepared input and the tiles on it.

        call, overlapped: as for `Tiling`, its row counted from the band's first, its input `p`. The
        last band may be shorter: no row is computed twice, as the epilogue may work in place.
        Threads prepare the input together, and then share the tiles.
        """
        t, i = self.layer, self.image
        batch, bands = counter(t.batches, "i"), counter(-(-self.rows // i.band), "i")
        n = 0 if t.batches == 1 else dims.atom(batch)
        start = dims.mul(index_of(bands), i.band)
        rows = dims.minimum(i.band, dims.add(self.rows, dims.mul(start, -1)))

        def index(_: Dim, c: Dim, y: Dim, at: Dim) -> Sequence[Dim]:
            return t.index(n, c, dims.add(start, y), at)

        x, names = r.pointers[0], r.pointers[3 : 3 + len(t.end.arrays())]
        plane = Plane(self.m.lanes, 1, self.channels, rows, self.columns, index)
        if self.unit > 1:
            whole = (i.band, self.columns)
            plane = Plane(
                self.m.lanes, 1, self.channels, 1, i.band * self.columns,
                lambda n, c, _, at: index(n, c, *dims.unravel(at, whole)),
            )  # fmt: skip
        finish = t.finish(self.m.lanes, names, r.dim)
        read = int(np.prod(t.size)) * self.form.size
        tiling = Tiling(
            plane, tile, r, call, lambda first, width: False, "int32_t", finish,
            overlapped=overlapped, unit=self.unit,
            by_rows=t.depthwise or read > self.layer.weights.size,
        )  # fmt: skip
        again = start != 0 or n != 0
        source = r.dim(dims.mul(n, t.steps[0]))
        if self.direct:
            lines = [f"const {self.ctype} *const p = {x} + {source};", tiling.body(())]
        else:
            lines = [*self.before(r, n), *self._prepared(r, x, source, start), tiling.body(())]
            lines += r.team.wait() if r.team.parts > 1 and again else []
        if start != 0:
            lines = loop(bands.name, str(bands.extent), lines)
        if n != 0:
            lines = loop(batch.name, str(t.batches), lines)
        head = [lane_check(self.m.lanes)]
        if not self.direct:
            head.append(f"{self.ctype} *const p = ({self.ctype} *){r.pointers[-1]};")
        return "\n".join([*head, *lines])

    def before(self, r: Rendering, n: Dim) -> list[str]:
        """Statements that come before the input of batch n is prepared."""
        return []

    def _prepared(self, r: Rendering, x: str, source: str, start: Dim) -> list[str]:
        t, i, (add, fill) = self.layer, self.image, self.zeros()
        top = r.dim(dims.add(i.border[0], dims.mul(start, -t.strides[0])))
        (h, w, c), rows, to = map(str, t.size), str(i.rows), "p"
        bounds: list[str] = []
        if r.team.parts > 1 and i.blocks > 1:  # each thread prepares blocks
            bounds = [r.team.bounds(str(i.blocks), names=("begin", "until"))]
            source, to = f"{source} + begin * {i.col * t.steps[3]}", f"p + begin * {i.block}"
            c = f"(int)(of_min_ix({c}, until * {i.col}) - begin * {i.col})"
        elif r.team.parts > 1:  # or rows
            bounds = [r.team.bounds(rows, names=("begin", "until"))]
            top, rows = f"{top} - begin", "(int)(until - begin)"
            to = f"p + begin * {i.cols * i.col}"
        fields = (h, w, c, f"(int)({top})", i.border[1], rows, i.cols, i.col, *t.steps[1:])
        name = f"of_prepare_{t.x.dtype.name}_{self.form.kind}"
        return [
            *bounds,
            f"const struct of_image image = {{{', '.join(map(str, fields))}}};\n"
            f"{name}(image, {x} + {source}, {add}, {fill}, {to});",
            *(r.team.wait() if bounds else []),
        ]

    @property
    def ctype(self) -> str:
        return dtypes.BY_NAME[self.form.kind].ctype


class IntConv(Family):
    """Dot products of runs of the window's rows with packed weights."""

    name = "conv_int"
    ops = ("QuantConv2D", "QuantFullyConnected", "QConv", "QMatMul")
    blocks = True

    def match(self, node: Node, target: Target, options: Options) -> list[Choice] | str:
        layer = find(node, target)
        if isinstance(layer, str):
            return layer
        if layer.groups != 1:
            return "it has several groups"
        kernel = _Conv(layer, target)
        return _copied_for_little(kernel) or kernel.choices()


def _copied_for_little(kernel: IntKernel) -> str:
    """Why a product is better off without a kernel that copies its input; empty where it is not."""
    layer = kernel.layer
    product = layer.size[:2] == (1, 1) and not kernel.direct
    if product and layer.size[2] > LONG and layer.result[2] <= FEW:
        return "its few results are not worth a copy of its long input"
    return ""


def _room(m: Machine, form: Form) -> Machine:
    """What is left to tiles where products are made in a register before they are added."""
    apart = form.step == 2 and form.interleaved and m.lanes < 16
    return replace(m, registers=m.registers - 2) if apart else m


class _Conv(IntKernel):
    def __init__(self, layer: Layer, target: Target) -> None:
        self.more = beyond_bytes(layer.weights)
        form = form_of(target, layer.weights - self.more)
        if form.step != 4:
            self.more = 0
        whole = layer.dilations[1] == 1
        super().__init__(layer, target, form, 1 if whole else form.step)
        layer = self.layer
        kh, kw = layer.kernel
        c = layer.size[2]
        # elements of a run, rows of the window, runs in one row of it
        self.window = (kw * c, kh, 1) if whole else (c, kh, kw)
        self.steps = -(-self.window[0] // form.step)
        self.products = self.steps * form.step * kh * self.window[2]

    def choices(self) -> list[Choice]:
        steps = self.steps * self.window[1] * self.window[2]
        tiles = tiles_for(_room(self.m, self.form), self.channels, self.columns, steps)
        return [self._choice(t, cost) for t, cost in tiles]

    def _choice(self, tile: Tile, cost: float) -> Choice:
        name = f"{IntConv.name}_{self.form.kind}_{tile.columns}x{tile.vectors}"
        cost *= self.rows * self.layer.batches
        return Choice(
            name, self.layer.node, (self.layer.x,), partial(self.packed, tile),
            partial(self.render, tile), lambda s: True, (self.header,), self.scratch, cost,
        )  # fmt: skip

    def packed(self, tile: Tile) -> tuple[Array, ...]:
        lanes, step = self.m.lanes, self.form.step
        run, kh, kw = self.window
        oc = self.channels
        blocks = -(-oc // lanes)
        full = np.zeros((blocks * lanes, kh, kw, self.steps * step), np.int32)
        full[:oc, :, :, :run] = self.layer.weights.reshape(oc, kh, kw, run) - self.more
        parts = []
        for g in groups_of(oc, lanes, tile.vectors):
            n = g.count * g.vectors * lanes
            part = full[g.first * lanes : g.first * lanes + n]
            part = part.reshape(g.count, g.vectors, lanes, kh, kw, self.steps, step)
            order = (0, 3, 4, 5, 1, 2, 6) if self.form.interleaved else (0, 3, 4, 5, 1, 6, 2)
            parts.append(part.transpose(order).reshape(-1))
        kind = np.int16 if step == 2 else np.int8
        return (np.concatenate(parts).astype(kind), *self.ends())

    def render(self, tile: Tile, r: Rendering) -> str:
        w, bias = r.pointers[1:3]
        run, kh, kw = self.window
        i, lanes = self.image, self.m.lanes
        steps = (*self.layer.strides, *self.layer.dilations, i.cols * i.col, i.col)
        fields = (run, kh, kw, *steps, self.form.step, self.more)

        def call(vectors: int, t: Run, n: Dim, block: Dim, row: Dim, column: Dim) -> str:
            packed = r.dim(dims.mul(block, lanes * self.products))
            return (
                f"of_conv_int_tile(k, {t.width}, {vectors}, {r.dim(row)}, {r.dim(column)}, "
                f"p, {w} + {packed}, {bias} + "
                f"{r.dim(dims.mul(block, lanes))}, acc);"
            )

        head = f"const struct of_conv_int k = {{{', '.join(map(str, fields))}}};\n"
        return head + self.body(r, tile, call)


class IntConvTiles(Family):
    """The same by a matrix unit: sixteen columns times sixteen channels (of_conv_tiles.h)."""

    name = "conv_tiles"
    ops = IntConv.ops
    blocks = True

    def match(self, node: Node, target: Target, options: Options) -> list[Choice] | str:
        if not {"amx-int8", "avx512vnni"} <= target.features:
            return f"'{target.name}' has no matrix unit"
        layer = find(node, target)
        if isinstance(layer, str):
            return layer
        if layer.groups != 1:
            return "it has several groups"
        if form_of(target, layer.weights).kind != "u8":
            return "its weights do not fit into bytes"
        if layer.dilations[1] != 1:
            return "its windows are not dense"
        kernel = _Tiles(layer, target)
        return _copied_for_little(kernel) or kernel.choices()


class _Tiles(IntKernel):
    """A row of the window in steps of 64 bytes, or all of it in one."""

    def __init__(self, layer: Layer, target: Target) -> None:
        form = Form(4, "u8")
        dense = layer.kernel[1] * layer.size[2] % form.step == 0
        super().__init__(layer, target, form, 1 if dense else form.step)
        layer = self.layer
        self.run = layer.kernel[1] * self.image.col
        self.bytes = min(self.run, 64)
        self.steps = -(-self.run // 64)
        self.size = layer.kernel[0] * self.steps * 16 * self.bytes
        per_row = -(-self.columns // TILE)
        together = self.rows > 1 and self.columns % per_row == 0
        together = together and self.rows % self.image.band == 0
        if together:
            self.unit = self.columns // per_row
        self.outputs = self.columns * (self.image.band if together else 1)

    def small(self) -> int:
        """All weights are read anew for each band."""
        return max(CACHED, self.layer.weights.size)

    def _band(self, most: int) -> int:
        """Bands of equal size, so that tiles may lie in several rows."""
        band = super()._band(most)
        return next((b for b in range(band, band // 2, -1) if self.rows % b == 0), band)

    def choices(self) -> list[Choice]:
        """Of each number of registers the best tile."""
        blocks = -(-self.channels // 16)
        best: dict[Tile, None] = {}
        for n, v in ((2, 2), (4, 1), (3, 1), (1, 2), (2, 1), (1, 1)):
            tiles = list(self._tiles(n, v))
            if tiles and v <= blocks:
                best[min(tiles, key=self._cost)] = None
        return [self._choice(tile) for tile in best]

    def _tiles(self, n: int, vectors: int) -> Iterator[Tile]:
        """Tiles with n registers of columns, none of which has fewer columns than a register."""
        if self.unit > 1:
            if n * self.unit <= self.outputs:
                yield Tile(n * self.unit, vectors)
            return
        for width in range(n * TILE, (n - 1) * TILE, -4):
            tile = Tile(min(width, self.columns), vectors)
            if width - 4 < self.columns and min(self._runs(tile))[0] >= self._high(tile):
                yield tile

    def _high(self, tile: Tile) -> int:
        """Columns of a register."""
        if self.unit > 1:
            return self.unit
        widest = max(r.width for r in runs_of(self.columns, tile.columns))
        return -(-widest // -(-widest // TILE))

    def _runs(self, tile: Tile) -> Iterator[tuple[int, int]]:
        """Columns of tiles, and how many such tiles there are."""
        for r in runs_of(self.outputs // self.unit, tile.columns // self.unit):
            assert isinstance(r.count, int)
            yield r.width * self.unit, r.count

    def _cost(self, tile: Tile) -> float:
        """Cycles: a product of tiles takes as many as it has rows, a load half of that, and sums
        that depend on each other wait for longer than either."""
        total, high = 0.0, self._high(tile)
        runs = list(self._runs(tile))
        again = tile.vectors * self.size > CLOSE and sum(count for _, count in runs) > 1
        for g in groups_of(self.channels, 16, tile.vectors):
            for width, count in runs:
                n, v = -(-width // high), g.vectors
                load = 9 * n * high / TILE + (20 if again else 9) * v
                step = max(52, 1.1 * high * n * v, load)
                end = 27 * n * v + (2.5 if v > 1 else 3) * width * v
                total += g.count * count * (step * self.steps * self.layer.kernel[0] + end)
        planes = self.layer.batches * self.rows * self.columns / self.outputs
        return total * planes + START

    def _choice(self, tile: Tile) -> Choice:
        name = f"{IntConvTiles.name}_{tile.columns}x{tile.vectors}"
        return Choice(
            name, self.layer.node, (self.layer.x,), partial(self.packed, tile),
            partial(self.render, tile), lambda s: True, ("of_conv_tiles.h",), self.scratch,
            self._cost(tile),
        )  # fmt: skip

    def packed(self, tile: Tile) -> tuple[Array, ...]:
        oc, kh, size = self.channels, self.layer.kernel[0], self.bytes
        blocks = -(-oc // 16)
        full = np.zeros((blocks * 16, kh, self.steps, size), np.int8)
        unused = self.image.col - self.layer.size[2]
        rows = np.pad(self.layer.weights, ((0, 0), (0, 0), (0, 0), (0, unused)))
        rows = rows.reshape(oc, kh, self.run)
        whole = (self.steps - 1) * size
        full[:oc, :, :-1] = rows[:, :, :whole].reshape(oc, kh, -1, size)
        full[:oc, :, -1, size - (self.run - whole) :] = rows[:, :, whole:]
        parts = []
        for g in groups_of(oc, 16, tile.vectors):
            part = full[g.first * 16 : (g.first + g.count * g.vectors) * 16]
            part = part.reshape(g.count, g.vectors, 16, kh, self.steps, size // 4, 4)
            parts.append(part.transpose(0, 3, 4, 1, 5, 2, 6).reshape(-1))
        return (np.concatenate(parts), *self.ends())

    def render(self, tile: Tile, r: Rendering) -> str:
        w, bias = r.pointers[1:3]
        i, t = self.image, self.layer
        fields = (
            self.run, t.kernel[0], self.steps, self.bytes, *t.strides, t.dilations[0],
            i.cols * i.col, i.col, self._high(tile), self.columns if self.unit > 1 else 0,
        )  # fmt: skip
        passes = sum(count for _, count in self._runs(tile))
        steps = t.kernel[0] * self.steps

        def ahead(vectors: int, run: Run, block: Dim, column: Dim) -> str:
            """The share of the next group's weights that a tile fetches."""
            if t.weights.size < STREAMED:
                return "OF_NO_NEXT"
            lines = -(-vectors * self.size // (64 * passes * steps))
            number = dims.mul(dims.floordiv(column, run.width), steps * lines * 64)
            place = dims.add(dims.mul(dims.add(block, vectors), self.size), number)
            return f"((struct of_next){{{w} + {r.dim(place)}, {lines}}})"

        def both(
            vectors: int, run: Run, n: Dim, block: Dim, row: Dim, column: Dim, acc: str, end: Older
        ) -> list[str]:
            return [
                f"OF_CONV_TILES({end.more}, k, {run.width}, {vectors}, {r.dim(row)}, "
                f"{r.dim(column)}, p, {w} + {r.dim(dims.mul(block, self.size))}, {bias} + "
                f"{r.dim(dims.mul(block, 16))}, {ahead(vectors, run, block, column)}, {acc}, "
                f"{end.at}, {end.count},",
                *("  " + line for line in end.lines),
                ")",
            ]

        def call(vectors: int, run: Run, n: Dim, block: Dim, row: Dim, column: Dim) -> str:
            none = Older("1", "none", "0", ())
            return "\n".join(both(vectors, run, n, block, row, column, "acc", none))

        return "\n".join([
            f"const struct of_conv_tiles k = {{{', '.join(map(str, fields))}}};",
            f"of_tiles_begin({self._high(tile)}, {self.bytes});",
            self.body(r, tile, call, both),
            "of_tiles_end();",
        ])  # fmt: skip


class IntDepthwise(Family):
    """One vector of channels times T columns: dot products of taps, or products of i16."""

    name = "conv_depthwise_int"
    ops = ("QuantDepthwiseConv2D", "QConv")
    blocks = True

    def match(self, node: Node, target: Target, options: Options) -> list[Choice] | str:
        layer = find(node, target)
        if isinstance(layer, str):
            return layer
        if not layer.depthwise:
            return "it is not one channel to one channel"
        if layer.kernel[1] > 15:
            return "its window is too wide to be unrolled"
        if not _Taps.fit(layer, target):
            return _Depthwise(layer, target).choices()
        taps = _Taps(layer, target).choices()
        return taps if options.goal == "latency" else taps + _Depthwise(layer, target).choices()


class _Taps(IntKernel):
    """Four taps of sixteen channels at a time."""

    def __init__(self, layer: Layer, target: Target) -> None:
        super().__init__(layer, target, Form(4, "u8"), 16, apart=True)
        self.groups = -(-layer.kernel[1] // 4)
        self.share = (4 * self.groups - layer.kernel[1]) // layer.strides[1] + 1

    @staticmethod
    def fit(layer: Layer, target: Target) -> bool:
        return form_of(target, layer.weights).kind == "u8" and layer.dilations == (1, 1)

    def choices(self) -> list[Choice]:
        return [self._choice(w) for w in widths(self.columns, self.m.registers - 2)]

    def _choice(self, width: int) -> Choice:
        layer, node = self.layer, self.layer.node
        return Choice(
            f"{IntDepthwise.name}_u8_{width}", node, (self.layer.x,), self.packed,
            partial(self.render, Tile(width, 1)), lambda s: True, (self.header,), self.scratch,
            node.op.macs(node) / 64,
            stored=self.image.blocks * 16 * (4 * layer.kernel[0] * self.share * self.groups + 8),
        )  # fmt: skip

    def packed(self) -> tuple[Array, ...]:
        kh, kw = self.layer.kernel
        blocks, width = self.image.blocks, self.groups * 4
        full = np.zeros((blocks * 16, kh, self.share, width), np.int8)
        for s in range(self.share):
            first = s * self.layer.strides[1]
            full[: self.channels, :, s, first : first + kw] = self.layer.weights[:, :, :, 0]
        parts = full.reshape(blocks, 16, kh, self.share, self.groups, 4)
        return (parts.transpose(0, 2, 3, 4, 1, 5).reshape(-1), *self.ends())

    def render(self, tile: Tile, r: Rendering) -> str:
        w, bias = r.pointers[1:3]
        i, t = self.image, self.layer
        fields = (t.kernel[0], *t.strides, i.cols * 16, self.groups, self.share)
        size = t.kernel[0] * self.share * self.groups * 64

        def call(vectors: int, t: Run, n: Dim, block: Dim, row: Dim, column: Dim) -> str:
            return (
                f"of_depthwise_dot_tile(k, {t.width}, {r.dim(row)}, {r.dim(column)}, "
                f"p + {r.dim(dims.mul(block, i.block))}, {w} + {r.dim(dims.mul(block, size))}, "
                f"{bias} + {r.dim(dims.mul(block, 16))}, acc);"
            )

        head = f"const struct of_depthwise_dot k = {{{', '.join(map(str, fields))}}};\n"
        return head + self.body(r, tile, call)


class _Depthwise(IntKernel):
    def __init__(self, layer: Layer, target: Target) -> None:
        m = Machine.of(target)
        assert m is not None
        super().__init__(layer, target, Form(2, "i16"), m.lanes)

    def choices(self) -> list[Choice]:
        return [self._choice(w) for w in widths(self.columns, self.m.registers - 2)]

    def _choice(self, width: int) -> Choice:
        layer, node = self.layer, self.layer.node
        return Choice(
            f"{IntDepthwise.name}_{width}", node, (self.layer.x,), self.packed,
            partial(self.render, Tile(width, 1)), lambda s: True, (self.header,), self.scratch,
            node.op.macs(node) / self.m.lanes,
            stored=padded(self.channels, self.m.lanes) * (2 * int(np.prod(layer.kernel)) + 8),
        )  # fmt: skip

    def packed(self) -> tuple[Array, ...]:
        weights = self.layer.weights.reshape(self.channels, -1).T
        lanes, taps = self.m.lanes, len(weights)
        blocks = -(-self.channels // lanes)
        full = np.zeros((taps, blocks * lanes), np.int16)
        full[:, : self.channels] = weights
        packed = full.reshape(taps, blocks, lanes).transpose(1, 0, 2).reshape(-1)
        return (packed, *self.ends())

    def render(self, tile: Tile, r: Rendering) -> str:
        w, bias = r.pointers[1:3]
        i, lanes, t = self.image, self.m.lanes, self.layer
        taps = t.kernel[0] * t.kernel[1]
        fields = (0, *t.kernel, *t.strides, *t.dilations, i.cols * i.col, i.col, 2, 0)

        def call(vectors: int, t: Run, n: Dim, block: Dim, row: Dim, column: Dim) -> str:
            return (
                f"of_depthwise_int_tile(k, {t.width}, {r.dim(row)}, {r.dim(column)}, "
                f"p + {r.dim(dims.mul(block, lanes))}, "
                f"{w} + {r.dim(dims.mul(block, lanes * taps))}, "
                f"{bias} + {r.dim(dims.mul(block, lanes))}, acc);"
            )

        head = f"const struct of_conv_int k = {{{', '.join(map(str, fields))}}};\n"
        return head + self.body(r, tile, call)
