"""Sums of f32 over channels and a window (of_conv.h): what they read, in which parts they are
summed, how weights are packed for them, and the body of their kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onefold.codegen.family import Rendering
from onefold.codegen.streams import NO_STREAM, STEP, STREAMED, after, share_of
from onefold.codegen.tiles import Run, Tile, groups_of, lane_check, padded
from onefold.codegen.tiling import STRIP, Index, Parts, Plane, Tiling, shared_units
from onefold.ir import dims
from onefold.ir.dims import Dim
from onefold.ir.graph import Array
from onefold.ir.scalar import counter, index_of

ELSEWHERE = 3  # times as long takes what another core has written as weights fetched ahead
CHAIN = 288  # products that are summed one after the other; longer sums have several parts


@dataclass(frozen=True)
class Sums:
    """The input of a tile kernel, as `struct of_conv` has it; rows and columns are output ones."""

    channels: int
    block: int
    strides: tuple[Dim, Dim, Dim]  # of a channel block, a row, a column
    size: tuple[Dim, Dim]
    window: tuple[int, int] = (1, 1)
    steps: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int] = (0, 0)  # top, left

    def text(self, dim: Callable[[Dim], str]) -> str:
        parts = (
            self.channels, self.block, *self.strides, *self.size, *self.window, *self.steps,
            *self.dilations, *self.pads,
        )  # fmt: skip
        return f"const struct of_conv k = {{{', '.join(dim(p) for p in parts)}}};"

    @property
    def per_output(self) -> int:
        """Products in one sum."""
        return self.channels * self.window[0] * self.window[1]

    @property
    def blocks_of_part(self) -> int:
        """Channel blocks that are summed one after the other."""
        whole = max(self.channels // self.block, 1)
        at_once = max(CHAIN // max(self.block * self.window[0] * self.window[1], 1), 1)
        return -(-whole // -(-whole // at_once))

    @property
    def parts(self) -> int:
        return max(-(-(self.channels // self.block) // self.blocks_of_part), 1)

    @property
    def steps_of_block(self) -> int:
        """Steps of a stream of weights in a channel block."""
        return self.window[0] * self.window[1] * -(-self.block // STEP)

    def is_edge(self, first: int, width: int) -> bool:
        """Whether output columns from `first` on read columns outside of the input."""
        reach = (self.window[1] - 1) * self.dilations[1]
        lo = first * self.steps[1] - self.pads[1]
        hi = (first + width - 1) * self.steps[1] - self.pads[1] + reach
        return lo < 0 or (isinstance(self.size[1], int) and hi >= self.size[1])


def pack_weights(w: Array, lanes: int, vectors: int, block: int) -> Array:
    """w [oc, ic, kh, kw] as of_conv.h reads it: for each group of vectors
    [ic / block][kh][kw][ic % block][vectors][lanes], unused lanes zero."""
    oc, ic, *window = w.shape
    per = lanes * int(np.prod(w.shape[1:]))  # elements of a block of channels
    out = np.zeros(-(-oc // lanes) * per, np.float32)
    for g in groups_of(oc, lanes, vectors):
        part = w[g.first * lanes : (g.first + g.count * g.vectors) * lanes]
        if g.tail < lanes:
            part = np.concatenate([part, np.zeros((lanes - g.tail, *w.shape[1:]), w.dtype)])
        part = part.reshape(g.count, g.vectors, lanes, ic, *window)
        rows = out[g.first * per :][: g.count * g.vectors * per].reshape(g.count, -1)
        at = 0
        for i in range(0, ic, block):
            some = part[:, :, :, i : i + block].transpose(0, 4, 5, 3, 1, 2)
            size = int(np.prod(some.shape[1:]))
            rows[:, at : at + size].reshape(some.shape)[...] = some
            at += size
    return out


def pack_bias(b: Array | None, channels: int, lanes: int) -> Array:
    """A bias filled up to whole vectors; zeros where there is none."""
    out = np.zeros(padded(channels, lanes), np.float32)
    if b is not None:
        out[:channels] = b
    return out


def prefers_rows(s: Sums, channels: int, kept: bool = False) -> bool:
    """Whether threads rather share the rows of the result than its channels: each then reads all
    weights, instead of the input that other threads have written; kept: nor do they write what
    others read, since they go on with the same rows."""
    moved = dims.add(s.channels, channels if kept else 0)
    moved = dims.mul(dims.mul(s.size[0], s.size[1]), moved)
    return ELSEWHERE * dims.upper(moved) > s.per_output * channels


def block_of_row(elements: int, columns: Dim) -> int:
    """How many elements of a row a part of its sums takes: all where few tiles share them."""
    if elements <= CHAIN or dims.upper(columns) < 2 * STRIP:
        return elements
    return -(-elements // -(-elements // CHAIN) // STEP) * STEP


def row_sums(elements: int, columns: Dim, whole: bool = False, rows: int = 1) -> Sums:
    """Sums of products with rows of elements, as a convolution whose columns they are, of one row
    or of several with an equal number each; whole: none is summed part by part."""
    block = elements if whole else block_of_row(elements, columns)
    return rows_of(Sums(elements, block, (block, 0, elements), (1, columns)), rows)


def rows_of(s: Sums, rows: int) -> Sums:
    """Sums of one row as those of several rows with an equal number of columns each."""
    columns = dims.floordiv(s.size[1], rows)
    block, _, step = s.strides
    return replace(s, strides=(block, dims.mul(columns, step), step), size=(rows, columns))


def index_of_row(lead: Sequence[Dim], rows: int = 1) -> Index:
    """Where the elements of such a product lie, the rows being counted through leading axes."""
    columns = dims.floordiv(dims.product(lead), rows)
    return lambda n, c, y, x: (*dims.unravel(dims.add(dims.mul(y, columns), x), lead), c)


def sums_body(
    r: Rendering, s: Sums, plane: Plane, tile: Tile, x: Callable[[Dim], str], w: str, bias: str,
    head: Sequence[str] = (), before: Callable[[Dim], list[str]] | None = None, kept: bool = False,
) -> str:  # fmt: skip
    """Body of a kernel of of_conv.h; x: text of the input's address in a batch; before: what makes
    the weights of a batch, if they are no constants; kept: as of `prefers_rows`."""
    lanes = plane.lanes

    by_rows = before is None and prefers_rows(s, plane.channels, kept)
    shared = shared_units(plane, tile, r.team.parts, by_rows, before is not None)
    per_row = dims.ceildiv(plane.columns, tile.columns)
    rows, columns = plane.rows, per_row  # of tiles that one thread meets with a group of weights
    if shared == "rows" and plane.rows == 1:
        columns = dims.ceildiv(per_row, r.team.parts)
    elif shared == "rows":
        rows = dims.ceildiv(rows, r.team.parts)
    tiles = dims.upper(dims.mul(columns, rows))
    streams = before is None and s.per_output * plane.channels * 4 >= STREAMED
    steps = -(-s.channels // s.block) * s.steps_of_block
    units = plane.columns if plane.rows == 1 else plane.rows

    def ahead(vectors: int, run: Run, block: Dim, row: Dim, column: Dim) -> str:
        """The share of the next group's weights that a tile fetches."""
        if not streams or tiles < vectors:
            return NO_STREAM
        number = dims.mod(dims.floordiv(column, run.width), columns)
        number = dims.add(dims.mul(dims.mod(row, rows), columns), number)
        end = dims.add(block, vectors)
        size = 4 * vectors * lanes * s.per_output
        there = f"{w} + {r.dim(dims.mul(end, lanes * s.per_output))}"
        by_blocks = shared == "blocks"
        more = f"{r.dim(dims.mul(end, units))} < to" if by_blocks else (
            f"{r.dim(end)} < {-(-plane.channels // lanes)}"
        )  # fmt: skip
        there = after(r, w, there, more, by_blocks)
        return share_of(r.dim(number), tiles, steps, size, there)

    def place(block: Dim, n: Dim, row: Dim, column: Dim) -> str:
        packed = r.dim(dims.mul(block, lanes * s.per_output))
        return f"{r.dim(row)}, {r.dim(column)}, {x(n)}, {w} + {packed}"

    def from_bias(block: Dim) -> str:
        return f"{bias} + {r.dim(dims.mul(block, lanes))}"

    def call(vectors: int, run: Run, n: Dim, block: Dim, row: Dim, column: Dim) -> str:
        return (
            f"of_conv_tile(k, {run.width}, {vectors}, {int(run.edge)}, "
            f"{place(block, n, row, column)}, {from_bias(block)}, "
            f"{ahead(vectors, run, block, row, column)}, acc);"
        )

    def begin(vectors: int, width: int, block: Dim, where: str) -> str:
        return f"of_sums_bias({width}, {vectors}, {from_bias(block)}, {where});"

    def add(
        part: str, where: str, vectors: int, run: Run, n: Dim, block: Dim, row: Dim, column: Dim
    ) -> str:
        return (
            f"of_conv_part(k, {run.width}, {vectors}, {int(run.edge)}, {s.blocks_of_part}, {part}, "
            f"{place(block, n, row, column)}, {s.steps_of_block}, "
            f"{ahead(vectors, run, block, row, column)}, {where});"
        )

    def reads(row: Dim) -> list[tuple[str, Dim]]:
        """The input, where the sums of a row need nothing of another one."""
        c, at = counter(-(-s.channels // s.block), "i"), counter(s.strides[1], "i")
        place = dims.add(dims.mul(row, s.strides[1]), index_of(at))
        if dims.bounds(s.strides[0])[0] > dims.upper(s.strides[1]):
            place = dims.add(place, dims.mul(index_of(c), s.strides[0]))
        return [(r.pointers[0], place)]

    own = plane.batches == 1 and s.window == s.steps == (1, 1) and s.pads == (0, 0)
    return Tiling(
        plane, tile, r, call, s.is_edge, before=before,
        parts=Parts(s.parts, begin, add) if s.parts > 1 else None,
        by_rows=by_rows,
        reads=reads if own else None,
    ).body([lane_check(lanes), s.text(r.dim), *head])  # fmt: skip
