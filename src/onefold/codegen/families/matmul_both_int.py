"""Integer products of two computed matrices: the right one is packed for each batch."""

from __future__ import annotations

from copy import copy

from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.int_kernel import SLACK, Form, IntKernel
from onefold.codegen.int_layers import Layer, product_of
from onefold.codegen.text import loop, number
from onefold.codegen.tiles import Machine, Run, Tile, groups_of, padded, tiles_for
from onefold.ir import dims
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node
from onefold.ir.scalar import counter, index_of
from onefold.options import Options
from onefold.target import Target


class IntBoth(Family):
    """Products of 16-bit pairs, zero points taken off before (of_conv_int.h)."""

    name = "matmul_both_int"
    ops = ("QMatMul",)

    def match(self, node: Node, target: Target, options: Options) -> list[Choice] | str:
        if Machine.of(target) is None:
            return f"'{target.name}' has no vectors of 32-bit integers"
        layer = product_of(node)
        return layer if isinstance(layer, str) else _Both(layer, target).choices()


class _Both(IntKernel):
    def __init__(self, layer: Layer, target: Target) -> None:
        super().__init__(layer, target, Form(2, "i16", target.arch == "x86_64"), 2)
        self.steps = self.image.col // 2
        self.tile = Tile(1, 1)  # of each choice its own
        self.packs = padded(self.channels, self.m.lanes) * self.image.col  # elements

    @property
    def scratch(self) -> int:
        return self._place + self.packs * 2

    @property
    def _place(self) -> int:
        """Of the packed matrix, behind the prepared one."""
        return -(-super().scratch // SLACK) * SLACK

    def choices(self) -> list[Choice]:
        tiles = tiles_for(self.m, self.channels, self.columns, self.steps)
        return [self._choice(t, cost) for t, cost in tiles]

    def _choice(self, tile: Tile, cost: float) -> Choice:
        node = self.layer.node
        way = copy(self)
        way.tile = tile
        return Choice(
            f"{IntBoth.name}_{tile.columns}x{tile.vectors}", node, (node.arg(0), node.arg(1)),
            way.packed, way.render, lambda s: True, (self.header,), self.scratch,
            (cost + self.packs) * self.layer.batches,
        )  # fmt: skip

    def packed(self) -> tuple[Array, ...]:
        return tuple(self.ends())

    def before(self, r: Rendering, n: Dim) -> list[str]:
        """Statements that pack the right matrix of a batch."""
        lanes, k = self.m.lanes, self.layer.size[2]
        source = f"{r.pointers[1]} + {r.dim(dims.mul(n, k * self.channels))}"
        zero = number(str(self.layer.zero_w), "int32_t")
        lines: list[str] = []
        for g in groups_of(self.channels, lanes, self.tile.vectors):
            c = counter(g.count, "i")
            at = index_of(c)
            first = dims.mul(dims.add(dims.mul(at, g.vectors), g.first), lanes)
            call = (
                f"of_pack_pairs_{self.layer.node.arg(1).dtype.name}({k}, {self.channels}, "
                f"{r.dim(first)}, {g.vectors}, {source}, {zero}, "
                f"packed + {r.dim(dims.mul(first, self.image.col))});"
            )
            lines += [call] if g.count == 1 else loop(c.name, str(g.count), [call])
        return ["if (me.part == 0) {", *lines, "}"] if r.team.parts > 1 else lines

    def render(self, r: Rendering) -> str:
        i, lanes, bias = self.image, self.m.lanes, r.pointers[2]
        fields = (i.col, 1, 1, 1, 1, 1, 1, i.cols * i.col, i.col, self.form.step)

        def call(vectors: int, t: Run, n: Dim, block: Dim, row: Dim, column: Dim) -> str:
            at = r.dim(dims.mul(block, lanes * i.col))
            return (
                f"of_conv_int_tile(k, {t.width}, {vectors}, {r.dim(row)}, {r.dim(column)}, "
                f"p, packed + {at}, {bias} + {r.dim(dims.mul(block, lanes))}, acc);"
            )

        return "\n".join([
            f"const struct of_conv_int k = {{{', '.join(map(str, fields))}}};",
            f"int16_t *const packed = (int16_t *)({r.pointers[-1]} + {self._place});",
            self.body(r, self.tile, call),
        ])  # fmt: skip
