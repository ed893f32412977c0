"""Integer convolutions and products with constant matrices by a matrix unit (of_conv_tiles.h)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from onefold.codegen.families.conv_int import IntConv
from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.int_kernel import (
    Form,
    IntKernel,
    beyond_bytes,
    copied_for_little,
    find,
    fit_bytes,
)
from onefold.codegen.int_layers import Layer
from onefold.codegen.streams import NO_STREAM, STREAMED, share_of
from onefold.codegen.tiles import Run, Tile, copies_of, groups_of, padded, runs_of
from onefold.codegen.tiling import Older
from onefold.ir import dims
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node
from onefold.options import Options
from onefold.target import Target

CACHED = 64 << 10  # bytes of prepared rows always allowed: weights are read anew for each band
TILE = 16  # rows and columns of a matrix unit's tile
CLOSE = 24 << 10  # bytes of weights that stay in the first cache
START = 200  # cycles until it has been set up


class IntConvTiles(Family):
    """Sixteen columns times sixteen channels at a time."""

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
        more = beyond_bytes(layer.weights)
        if not fit_bytes(layer.weights - more):
            return "its weights do not fit into bytes"
        if layer.dilations[1] != 1:
            return "its windows are not dense"
        kernel = _Tiles(layer, target, options.goal == "size", more)
        return copied_for_little(kernel) or kernel.choices()


class _Tiles(IntKernel):
    """A row of the window in steps of 64 bytes, or all of it in one. even: in so many steps as
    well, but of equal bytes, so that few weights are zeros."""

    def __init__(self, layer: Layer, target: Target, even: bool, more: int) -> None:
        form = Form(4, "u8")
        dense = layer.kernel[1] * layer.size[2] % form.step == 0
        super().__init__(layer, target, form, 1 if dense else form.step, more=more)
        layer = self.layer
        self.run = layer.kernel[1] * self.image.col
        self.steps = -(-self.run // 64)
        self.bytes = 4 * -(-self.run // (4 * self.steps)) if even else min(self.run, 64)
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
        for r in runs_of(self.outputs // self.unit, self._in_units(tile).columns):
            assert isinstance(r.count, int)
            yield r.width * self.unit, r.count

    def _in_units(self, tile: Tile) -> Tile:
        return Tile(tile.columns // self.unit, tile.vectors)

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
            name, self.layer.node, self.layer.reads, partial(self.packed, tile),
            partial(self.render, tile), lambda s: True, ("of_conv_tiles.h",), self.scratch,
            self._cost(tile),
            copies=copies_of(self.channels, TILE, self._in_units(tile), self.outputs // self.unit),
        )  # fmt: skip

    def packed(self, tile: Tile) -> tuple[Array, ...]:
        oc, kh, size = self.channels, self.layer.kernel[0], self.bytes
        full = np.zeros((padded(oc, 16), kh, self.steps, size), np.int8)
        unused = self.image.col - self.layer.size[2]
        rows = np.pad(self.layer.weights - self.more, ((0, 0), (0, 0), (0, 0), (0, unused)))
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
        w, bias = self.constants(r)
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
                return NO_STREAM
            number = r.dim(dims.floordiv(column, run.width))
            after = r.dim(dims.mul(dims.add(block, vectors), self.size))
            return share_of(number, passes, steps, vectors * self.size, f"{w} + {after}")

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
