"""Layers of f32 computed in bf16 or f16, with sums in f32 (of_conv_narrow.h, of_narrow_tiles.h).

A band of the input at a time is rounded into scratch memory, in the order that the products want,
and then met by weights that were rounded at compile time. Results are f32 or, where all who read
them round them anyway, lie in memory as bf16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onefold.codegen.family import Choice, Rendering
from onefold.codegen.streams import NO_STREAM, STREAMED, share_of
from onefold.codegen.sums import Sums, pack_bias
from onefold.codegen.team import is_even
from onefold.codegen.text import Ends, braced, loop, loop_over
from onefold.codegen.tiles import (
    Group,
    Machine,
    Run,
    choose_tile,
    groups_of,
    lane_check,
    padded,
    tiles_of,
)
from onefold.codegen.tiling import Held, Index, Plane, Tiling, stored
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node
from onefold.ir.scalar import counter, index_of
from onefold.options import PRODUCTS, Options
from onefold.target import Target

MATRIX = frozenset({"amx-bf16", "amx-int8", "avx512bf16"})
HIGH = 16  # rows of a tile of the matrix unit
COLUMN = 32  # elements of a column of a block
FEW = 16  # channels up to which the row of a window is one run
BAND = 384 << 10  # bytes of prepared input at a time
START = 300  # cycles until the matrix unit has been set up
SLOW = 4.0  # cycles in which a scattered element is rounded


@dataclass(frozen=True)
class Layer:
    """A convolution of one group, or a product with a constant matrix.

    sums: the input (see `Sums`); batch: its elements from one batch to the next; index: of an
    element of the result by batch, channel, row, column.
    """

    node: Node
    sums: Sums
    batches: int
    batch: int
    channels: int
    rows: int
    columns: int
    weights: Callable[[], Array]  # [channels, input channels, kh, kw]
    bias: Array | None
    index: Index

    def dense(self) -> Layer:
        """A window of one element without steps: they are the input's."""
        s = self.sums
        if s.window != (1, 1) or s.pads != (0, 0) or s.steps == (1, 1):
            return self
        sc, sy, sx = s.strides
        strides = (sc, dims.mul(sy, s.steps[0]), dims.mul(sx, s.steps[1]))
        return replace(
            self, sums=replace(s, strides=strides, size=(self.rows, self.columns), steps=(1, 1))
        )


def refused(options: Options, target: Target) -> str:
    """Why nothing is computed in a narrow type; empty where it is."""
    if options.precision not in PRODUCTS:
        return "bf16 and f16 were not asked for"
    if not PRODUCTS[options.precision] & target.features:
        return f"'{target.name}' has no products of {options.precision}"
    return ""


def choose(layer: Layer, target: Target, options: Options) -> Choice | str:
    """The kernel for a layer, or why there is none."""
    why = refused(options, target)
    if why:
        return why
    m = Machine.of(target)
    assert m is not None
    tiles = options.precision == "bf16" and target.features >= MATRIX
    return (_Tiles if tiles else _Dots)(layer.dense(), m, options).choice()


class _Narrow:
    """What the kernels share: the prepared input, bands of it, and the loops around the tiles."""

    def __init__(self, layer: Layer, m: Machine, options: Options) -> None:
        self.layer, self.m, self.options = layer, m, options
        self.kind = options.precision
        s = layer.sums
        kh, kw = s.window
        c = s.channels
        self.runs = c <= FEW and s.dilations[1] == 1
        self.col = -(-c // 2) * 2 if self.runs else COLUMN
        if c == 3 and self.runs:
            self.col = 4
        self.blocks = 1 if self.runs else -(-c // COLUMN)
        # positions of the window, and pairs of elements in each of them
        self.window = (kh, 1) if self.runs else (kh, kw)
        self.pairs = (kw if self.runs else 1) * self.col // 2
        height, width = s.size
        assert isinstance(height, int) and isinstance(width, int)
        self.height, self.width = height, width
        self.cols = self._reach(layer.columns, 1)
        self.cols = max(self.cols, s.pads[1] + width)
        # where bands are columns
        self.flat = layer.rows == 1 and s.window == (1, 1) and s.pads == (0, 0)
        self.band = self._band()

    def _reach(self, count: int, axis: int) -> int:
        """Input rows or columns that so many output ones read."""
        s = self.layer.sums
        return (count - 1) * s.steps[axis] + (s.window[axis] - 1) * s.dilations[axis] + 1

    def _band(self) -> int:
        """Output rows (columns, where there is one row) at a time, in bands of nearly equal size;
        a multiple of what a tile takes."""
        t = self.layer
        total = t.columns if self.flat else t.rows
        step = 2 * HIGH if self.flat else self.together
        line = 2 * self.col * self.blocks * (1 if self.flat else self.cols)
        each = line * t.sums.steps[1 if self.flat else 0]
        fit = max(BAND // each // step * step, step)
        bands = -(-total // fit)
        return min(-(-total // (bands * step)) * step, total)

    @property
    def together(self) -> int:
        """Output rows that one tile takes."""
        return 1

    def image(self, band: int) -> tuple[int, int]:
        """Rows and columns of the prepared input of a band."""
        return (1, band) if self.flat else (self._reach(band, 0), self.cols)

    @property
    def slack(self) -> int:
        """Bytes behind the prepared input that a last tile may read."""
        return 3 * HIGH * self.layer.sums.steps[1] * self.col * 2 + 64

    @property
    def scratch(self) -> int:
        rows, cols = self.image(self.band)
        return rows * cols * self.blocks * self.col * 2 + self.slack

    @property
    def moved(self) -> float:
        """Cycles for preparing the input."""
        t = self.layer
        rows, cols = self.image(self.band)
        total = t.columns if self.flat else t.rows
        elements = rows * cols * self.blocks * self.col * -(-total // self.band)
        quick = self.col == 4 or (self.col == COLUMN and self.layer.sums.block != 1)
        return t.batches * elements * (0.2 if quick else SLOW / 2 if self.runs else SLOW)

    def packed_as(self, vectors: int, steps: int, interleaved: bool) -> tuple[Array, ...]:
        """Weights [blocks][kh][kw][steps][vectors][pairs / steps][lanes][2] of each group of
        vectors, and bias."""
        t, lanes = self.layer, self.m.lanes
        w = t.weights()
        oc, ic, kh, kw = w.shape
        wide = np.zeros((padded(oc, lanes), self.blocks * self.col, kh, kw), np.float32)
        wide[:oc, :ic] = w
        if self.runs:  # a row of the window, its columns of channels
            wide = wide.transpose(0, 2, 3, 1).reshape(len(wide), 1, kh, 1, -1)
        else:
            wide = wide.reshape(len(wide), self.blocks, self.col, kh, kw).transpose(0, 1, 3, 4, 2)
        wide = wide.reshape(*wide.shape[:4], steps, -1, 2)
        parts = []
        for g in groups_of(oc, lanes, vectors):
            part = wide[g.first * lanes : (g.first + g.count * g.vectors) * lanes]
            part = part.reshape(g.count, g.vectors, lanes, *wide.shape[1:])
            order = (0, 3, 4, 5, 6, 1, 7, 2, 8) if interleaved else (0, 3, 4, 5, 6, 1, 7, 8, 2)
            parts.append(part.transpose(order).reshape(-1))
        narrow = dtypes.BY_NAME[self.kind].numpy
        with np.errstate(over="ignore"):
            rounded = np.concatenate(parts).astype(narrow).view(np.uint16)
        return rounded, pack_bias(t.bias, oc, lanes)

    @property
    def size(self) -> int:
        """Elements of the weights of a block of output channels."""
        kh, kw = self.window
        return self.blocks * kh * kw * self.pairs * 2 * self.m.lanes

    def fields(self, band: int) -> str:
        s = self.layer.sums
        rows, cols = self.image(band)
        line = cols * self.col * 2
        parts = (
            self.blocks, *self.window, self.pairs, *s.steps, *s.dilations,
            rows * line, line, self.col * 2,
        )  # fmt: skip
        return f"const struct of_narrow k = {{{', '.join(map(str, parts))}}};"

    # -- loops -----------------------------------------------------------------------------------

    def body(self, r: Rendering) -> str:
        """C text: for each band, the prepared input and the tiles on it. Threads prepare it
        together, and then share the tiles."""
        t = self.layer
        batch = counter(t.batches, "i")
        n = index_of(batch)
        total = t.columns if self.flat else t.rows
        whole, rest = divmod(total, self.band)
        bands = counter(whole, "i")
        lines: list[str] = []
        again = t.batches > 1 or total > self.band
        for count, size, first in (
            (whole, self.band, dims.mul(index_of(bands), self.band)),
            (1 if rest else 0, rest, whole * self.band),
        ):
            if not count:
                continue
            some = [*self._prepared(r, n, size, first), *self._tiles(r, n, size, first)]
            some += r.team.wait() if r.team.parts > 1 and again else []
            lines += loop(bands.name, str(count), some) if count > 1 else braced(some)
        lines = loop_over(batch, r.dim, lines)
        head = [lane_check(self.m.lanes), f"uint16_t *const p = (uint16_t *){r.pointers[-1]};"]
        return "\n".join([*head, *lines])

    @property
    def source(self) -> str:
        """The kernel's name for what the input is rounded from, or that it is rounded already."""
        memory = self.layer.node.arg(0).tensor.memory
        return f"{self.kind}_{memory}"

    def _prepared(self, r: Rendering, n: Dim, band: int, first: Dim) -> list[str]:
        """Rounds the input of a band that begins at an output row or column."""
        s, team = self.layer.sums, r.team
        rows, cols = self.image(band)
        sc, sy, sx = s.strides
        start = dims.mul(n, self.layer.batch)
        wide, top = self.width, dims.add(s.pads[0], dims.mul(first, -s.steps[0]))
        if self.flat:
            wide, top, start = band, 0, dims.add(start, dims.mul(first, sx))
        fields = (
            self.height, wide, s.channels, s.block, *map(r.dim, (sc, sy, sx)), s.pads[1], rows,
            cols, self.col,
        )  # fmt: skip
        units, ends = str(self.blocks * rows), ("0", str(self.blocks * rows))
        lines: list[str] = []
        if team.parts > 1:
            lines.append(team.bounds(units, names=("begin", "until")))
            ends = ("begin", "until")
        lines += [
            self.fields(band),
            f"const struct of_narrow_image image = {{{', '.join(map(str, fields))}}};",
            f"of_narrow_image_{self.source}(image, {r.dim(top)}, {ends[0]}, {ends[1]}, "
            f"{r.pointers[0]} + {r.dim(start)}, p);",
        ]
        return lines + (team.wait() if team.parts > 1 else [])

    def _tiles(self, r: Rendering, n: Dim, band: int, first: Dim) -> list[str]:
        raise NotImplementedError


class _Tiles(_Narrow):
    """By the matrix unit: two tiles of columns times two of channels.

    joined: tiles go on from one row to the next, through the border between them.
    """

    joined = False

    def __init__(self, layer: Layer, m: Machine, options: Options) -> None:
        super().__init__(layer, m, options)
        least = -(-self.pairs * 4 // 64)
        self.steps = next(n for n in range(least, self.pairs + 1) if self.pairs % n == 0)
        self.bytes = self.pairs * 4 // self.steps
        self.vectors = min(2, -(-layer.channels // m.lanes))
        self.high = HIGH if layer.columns * layer.rows > 1 else 1
        s = layer.sums
        if layer.rows > 1 and self.cols * s.steps[0] % s.steps[1] == 0:
            apart, self.joined = self.cost, True
            self.joined = self.cost < apart
        self.band = self._band()

    @property
    def together(self) -> int:
        """Rows of few columns go together into two tiles, the columns between them unused."""
        t = self.layer
        if t.rows == 1 or t.columns > HIGH or self.joined:
            return 1
        best = 1
        for n in range(2, t.rows + 1):
            if self._covered(n):
                best = n
        return best

    @property
    def pitch(self) -> int:
        """Columns of a tile from one output row to the next."""
        s = self.layer.sums
        return self.cols * s.steps[0] // s.steps[1]

    def _covered(self, rows: int) -> bool:
        """Whether two tiles of sixteen columns have room for so many rows."""
        t, s = self.layer, self.layer.sums
        if self.cols * s.steps[0] % s.steps[1]:
            return False
        ends = [(k * self.pitch, k * self.pitch + t.columns) for k in range(rows)]
        second = max(ends[-1][1] - HIGH, HIGH)
        return all(b <= HIGH or a >= second for a, b in ends) and ends[-1][1] <= 3 * HIGH

    def choice(self) -> Choice:
        columns = 2 * HIGH if self.joined else min(self.layer.columns, 2 * HIGH)
        name = f"conv_{self.kind}_tiles_{self.together}x{columns}"
        return Choice(
            name, self.layer.node, (self.layer.node.arg(0),), self.packed, self.render,
            lambda s: True, ("of_narrow_tiles.h",), self.scratch, self.cost, narrow=True,
        )  # fmt: skip

    @property
    def cost(self) -> float:
        """Cycles: a product of tiles takes as many as it has rows, loads a little less."""
        t = self.layer
        steps = self.blocks * self.window[0] * self.window[1] * self.steps
        total = 0.0
        for g in groups_of(t.channels, self.m.lanes, self.vectors):
            rows, columns = self._plane(t.rows, t.columns)
            for height, count in self._heights(rows):
                for run in self._runs(columns):
                    n = 2 if self._second(height, run.width) else 1
                    step = max(self.high * n * g.vectors, 8 * n + 10 * g.vectors)
                    store = (3 if self.joined else 1.5) * height * run.width * g.vectors
                    each = step * steps + 40 * n * g.vectors + store
                    total += g.count * count * tiles_of([run]) * each
        return total * t.batches + self.moved + START

    def packed(self) -> tuple[Array, ...]:
        return self.packed_as(self.vectors, self.steps, True)

    def render(self, r: Rendering) -> str:
        return "\n".join([
            f"of_tiles_begin({self.high}, {self.bytes});", self.body(r), "of_tiles_end();"
        ])  # fmt: skip

    def _plane(self, rows: int, columns: int) -> tuple[int, int]:
        """The rows and columns of results that tiles walk over: joined rows are one."""
        return (1, (rows - 1) * self.pitch + columns) if self.joined else (rows, columns)

    def _heights(self, rows: int) -> list[tuple[int, int]]:
        """(rows that go together, how often)"""
        whole, rest = divmod(rows, self.together)
        return [(h, n) for h, n in ((self.together, whole), (rest, 1)) if h and n]

    def _runs(self, columns: int) -> list[Run]:
        """Pairs of full tiles, and what is left over."""
        whole, rest = divmod(columns, 2 * HIGH)
        out = [Run(0, 2 * HIGH, whole)] if whole else []
        return out + ([Run(whole * 2 * HIGH, rest, 1)] if rest else [])

    def _second(self, height: int, width: int) -> int:
        """Where the second tile begins; 0 where one suffices."""
        span = (height - 1) * self.pitch + width
        return 0 if span <= HIGH else max(span - HIGH, HIGH)

    def _tiles(self, r: Rendering, n: Dim, band: int, first: Dim) -> list[str]:
        t, team = self.layer, r.team
        rows, columns = (1, band) if self.flat else self._plane(band, t.columns)
        base = (0, first) if self.flat else (first, 0)
        groups = groups_of(t.channels, self.m.lanes, self.vectors)
        pieces = sum(g.count for g in groups)
        heights = self._heights(rows)
        runs = self._runs(columns)
        by_rows = team.parts > 1 and not is_even(pieces, team.parts) and len(heights) == 1
        units = heights[0][1] if rows > 1 else tiles_of(runs[:1])
        by_rows = by_rows and is_even(units, team.parts)
        lines: list[str] = []
        if team.parts > 1:
            lines.append(team.bounds(r.dim(units if by_rows else pieces)))
        done = 0
        across = tiles_of(runs)
        passes = sum(count for _, count in heights) * across
        for g in groups:
            group = counter(g.count, "i")
            block = dims.add(dims.mul(index_of(group), g.vectors), g.first)
            inner: list[str] = []
            ends: Ends | None
            start = before = 0
            for height, count in heights:
                y = counter(count, "i")
                row = dims.add(dims.mul(index_of(y), height), start)
                start += height * count
                some: list[str] = []
                for run in runs:
                    x = counter(run.count, "i")
                    column = dims.add(dims.mul(index_of(x), run.width), run.first)
                    number = dims.add(dims.mul(index_of(y), across), index_of(x))
                    number = dims.add(number, before + run.first // (2 * HIGH))
                    ahead = self._ahead(r, g, block, number, passes)
                    at = (n, block, row, column)
                    tile = self._tile(r, g, at, base, (height, run.width), ahead, band)
                    last = by_rows and rows == 1 and run.first  # what is left over
                    tile = braced(tile, f"if (to == {r.dim(units)} && from < to)" if last else "")
                    ends = ("from", "to") if by_rows and rows == 1 and run.first == 0 else None
                    some += loop_over(x, r.dim, tile, ends)
                before += across * count
                ends = ("from", "to") if by_rows and rows > 1 else None
                inner += loop_over(y, r.dim, some, ends)
            ends = None
            if team.parts > 1 and not by_rows:
                share = f"{done}, 1, {g.count}"
                ends = (f"of_tiles(from, {share})", f"of_tiles(to, {share})")
            lines += loop_over(group, r.dim, inner, ends)
            done += g.count
        return lines

    def _ahead(self, r: Rendering, g: Group, block: Dim, number: Dim, passes: int) -> str:
        """The share of the next group's weights that a tile fetches."""
        if 2 * self.size * -(-self.layer.channels // HIGH) < STREAMED:
            return NO_STREAM
        steps = self.blocks * self.window[0] * self.window[1] * self.steps
        after = r.dim(dims.mul(dims.add(block, g.vectors), self.size))
        size = 2 * g.vectors * self.size
        return share_of(r.dim(number), passes, steps, size, f"{r.pointers[1]} + {after}")

    def _tile(
        self, r: Rendering, g: Group, at: tuple[Dim, Dim, Dim, Dim], base: tuple[Dim, Dim],
        shape: tuple[int, int], ahead: str, band: int,
    ) -> list[str]:  # fmt: skip
        n, block, row, column = at
        height, width = shape
        second = self._second(height, width)
        room = second + HIGH
        call = (
            f"of_narrow_tiles(k, {self.steps}, {self.bytes}, {second}, {g.vectors}, {room}, "
            f"{r.dim(row)}, {r.dim(column)}, p, "
            f"{r.pointers[1]} + {r.dim(dims.mul(block, self.size))}, "
            f"{r.pointers[2]} + {r.dim(dims.mul(block, self.m.lanes))}, {ahead}, acc);"
        )
        if self.joined:
            store = self._through(r, g, at, base[0], (width, room), band)
        else:
            place = (n, block, dims.add(row, base[0]), dims.add(column, base[1]))
            held = Held("acc", room, width, height, self.pitch)
            store = stored(r, self.m.lanes, self.layer.index, g, place, held)
        return [
            f"float acc[{g.vectors * room * self.m.lanes}] __attribute__((aligned(64)));",
            call, *store,
        ]  # fmt: skip

    def _through(
        self, r: Rendering, g: Group, at: tuple[Dim, Dim, Dim, Dim], top: Dim,
        shape: tuple[int, int], band: int,
    ) -> list[str]:  # fmt: skip
        """Stores what lies in rows of the result, of a tile that goes through the border."""
        n, block, _, first = at
        (width, room), lanes, pitch = shape, self.m.lanes, self.pitch
        y, x = counter(band, "i"), counter(self.layer.columns, "i")
        begin = r.dim(first)
        held = Held(f"(acc + ({y.name} * {pitch} + {x.name} - ({begin})) * {lanes})", room, 1)
        place = (n, block, dims.add(index_of(y), top), index_of(x))
        body = stored(r, lanes, self.layer.index, g, place, held)
        row = f"{y.name} * {pitch}"
        left = f"of_max_ix(0, ({begin}) - {row})"
        right = f"of_min_ix({self.layer.columns}, ({begin}) + {width} - {row})"
        inner = [f"for (ix {x.name} = {left}; {x.name} < {right}; {x.name}++) {{",
                 *("  " + line for line in body), "}"]  # fmt: skip
        end = f"{y.name} < {band} && {row} < ({begin}) + {width}"
        return [f"for (ix {y.name} = ({begin}) / {pitch}; {end}; {y.name}++) {{",
                *("  " + line for line in inner), "}"]  # fmt: skip


class _Dots(_Narrow):
    """Pair by pair, sums in vector registers."""

    def __init__(self, layer: Layer, m: Machine, options: Options) -> None:
        super().__init__(layer, m, options)
        kh, kw = self.window
        steps = self.blocks * kh * kw * self.pairs
        self.tile, cost = choose_tile(m, layer.channels, layer.columns, steps)
        self.cost = cost * layer.rows * layer.batches + self.moved

    def choice(self) -> Choice:
        name = f"conv_{self.kind}_{self.tile.columns}x{self.tile.vectors}"
        return Choice(
            name, self.layer.node, (self.layer.node.arg(0),), self.packed, self.render,
            lambda s: True, ("of_conv_narrow.h",), self.scratch, self.cost, narrow=True,
        )  # fmt: skip

    def packed(self) -> tuple[Array, ...]:
        return self.packed_as(self.tile.vectors, self.pairs, self.kind == "bf16")

    def render(self, r: Rendering) -> str:
        return self.body(r)

    def _tiles(self, r: Rendering, n: Dim, band: int, first: Dim) -> list[str]:
        t = self.layer
        rows, columns = (1, band) if self.flat else (band, t.columns)

        def index(_: Dim, c: Dim, y: Dim, x: Dim) -> Sequence[Dim]:
            y, x = (y, dims.add(x, first)) if self.flat else (dims.add(y, first), x)
            return t.index(n, c, y, x)

        def call(vectors: int, run: Run, _: Dim, block: Dim, row: Dim, column: Dim) -> str:
            return (
                f"of_narrow_tile_{self.kind}(k, {run.width}, {vectors}, {r.dim(row)}, "
                f"{r.dim(column)}, p, {r.pointers[1]} + {r.dim(dims.mul(block, self.size))}, "
                f"{r.pointers[2]} + {r.dim(dims.mul(block, self.m.lanes))}, acc);"
            )

        plane = Plane(self.m.lanes, 1, t.channels, rows, columns, index)
        tiling = Tiling(plane, self.tile, r, call, lambda first, width: False)
        return tiling.body(()).split("\n")
