"""Matrix products of f32 of two computed sides: the right one is packed into scratch memory first,
which costs one pass over it, and then met as a constant one is."""

from __future__ import annotations

from collections.abc import Sequence

from onefold.codegen.families.conv import size
from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.sums import pack_bias, row_sums, sums_body
from onefold.codegen.team import parts_for
from onefold.codegen.tiles import Machine, Tile, copies_of, f32_machine, groups_of, tiles_for
from onefold.codegen.tiling import Plane, shares_batches
from onefold.ir import dims
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node
from onefold.options import Options
from onefold.target import Target

FEWEST = 4  # rows of the left side for which packing the right one pays


class BothMatMul(Family):
    """x [..., m, k] @ y [..., k, n], leading axes broadcast (of_conv.h)."""

    name = "matmul_both"
    ops = ("MatMul",)

    def match(self, node: Node, target: Target, options: Options) -> list[Choice] | str:
        x, y = node.arg(0), node.arg(1)
        m = f32_machine(target, x.dtype)
        if isinstance(m, str):
            return m
        if len(x.shape) < 2 or len(y.shape) < 2:
            return "a side is a vector"
        if not isinstance(x.shape[-1], int) or not dims.is_static(y.shape[-2:]):
            return "the length of its sums or rows is open"
        if 0 in (*x.shape, *y.shape):
            return "it is empty"
        if dims.bounds(x.shape[-2])[1] < FEWEST:
            return "its left side has too few rows for the right one to be packed"
        k, columns = size(x.shape[-1]), size(y.shape[-1])
        tiles = tiles_for(m, columns, x.shape[-2], k)
        return [_Both(node, m, options.threads, t, cost).choice() for t, cost in tiles]


class _Both:
    def __init__(self, node: Node, m: Machine, threads: int, tile: Tile, cost: float) -> None:
        self.node, self.m = node, m
        x, y = node.arg(0), node.arg(1)
        self.rows = x.shape[-2]
        self.k, self.n = size(x.shape[-1]), size(y.shape[-1])
        self.lead = tuple(node.outputs[0].shape[:-2])
        self.tile = tile
        self.blocks = -(-self.n // m.lanes)
        self.cost = (cost + self.blocks * self.k) * dims.upper(dims.product(self.lead))
        self.packed_bytes = 4 * self.blocks * m.lanes * self.k
        parts = parts_for(self.cost, threads)
        # Threads that take a matrix each pack each their own; else they pack one together.
        self.own = parts if parts > 1 and shares_batches(dims.product(self.lead), parts) else 1

    def choice(self) -> Choice:
        name = f"{BothMatMul.name}_{self.tile.columns}x{self.tile.vectors}"
        return Choice(
            name, self.node, (self.node.arg(0), self.node.arg(1)), self.packed, self.render,
            lambda s: True, ("of_conv.h",), self.own * self.packed_bytes, self.cost,
            copies=copies_of(self.n, self.m.lanes, self.tile, self.rows),
        )  # fmt: skip

    def packed(self) -> tuple[Array, ...]:
        return (pack_bias(None, self.n, self.m.lanes),)

    def _batch(self, shape: Sequence[Dim], n: Dim) -> Dim:
        """Elements before the matrix of a side that batch n of the result takes."""
        lead = shape[:-2]
        index = dims.unravel(n, self.lead)
        index = index[len(index) - len(lead) :]
        own = [0 if d == 1 else i for i, d in zip(index, lead, strict=True)]
        return dims.mul(dims.linear(own, lead), dims.mul(shape[-2], shape[-1]))

    def render(self, r: Rendering) -> str:
        first, second = self.node.arg(0), self.node.arg(1)
        x, bias, scratch = r.pointers[0], r.pointers[2], r.pointers[3]
        y, lanes, team = r.pointers[1], self.m.lanes, r.team
        together = team.parts > 1 and self.own == 1

        def pack(n: Dim) -> list[str]:
            source = f"{y} + {r.dim(self._batch(second.shape, n))}"
            lines = []
            for g in groups_of(self.n, lanes, self.tile.vectors):
                at, width = g.first * lanes, g.vectors * lanes
                end = min(at + g.count * width, self.n)
                if not together:
                    lines.append(
                        f"of_pack_columns({self.k}, {self.n}, {at}, {end}, {width}, {source}, "
                        f"w + {at * self.k});"
                    )
                    continue
                lines += [
                    "{", "  " + team.bounds(str(end - at), width),
                    f"  of_pack_columns({self.k}, {self.n}, {at} + from, {at} + to, {width}, "
                    f"{source}, w + ({at} + from) * {self.k});", "}",
                ]  # fmt: skip
            return lines

        plane = Plane(lanes, dims.product(self.lead), self.n, 1, self.rows, self._index)
        apart = team.parts > 1 and self.own > 1
        where = f"({scratch} + me.part * {self.packed_bytes})" if apart else scratch
        head = [f"float *const w = (float *){where};"]

        def left(n: Dim) -> str:
            return f"{x} + {r.dim(self._batch(first.shape, n))}"

        sums = row_sums(self.k, self.rows)
        return sums_body(r, sums, plane, self.tile, left, "w", bias, head, pack)

    def _index(self, n: Dim, c: Dim, y: Dim, x: Dim) -> Sequence[Dim]:
        return (*dims.unravel(n, self.lead), x, c)
