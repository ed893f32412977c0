"""Matrix products of f32 whose right side is constant: convolutions of one row with a window of
one element, the rows of the left side being the columns."""

from __future__ import annotations

from functools import partial

from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.sums import (
    Sums,
    index_of_row,
    pack_bias,
    pack_weights,
    prefers_rows,
    row_sums,
    sums_body,
)
from onefold.codegen.tiles import Machine, Tile, copies_of, f32_machine, tiles_for
from onefold.codegen.tiling import Plane
from onefold.ir import dims
from onefold.ir.graph import Array, Node, Value
from onefold.ops.elementwise import Elementwise
from onefold.ops.matmul import Gemm, MatMul
from onefold.ops.normalize import LayerNormalization, RMSNormalization
from onefold.options import Options
from onefold.target import Target


class PackedMatMul(Family):
    """x [..., k] @ constant w [k, n], also as a Gemm with a constant row added (of_conv.h)."""

    name = "matmul_packed"
    ops = ("Gemm", "MatMul")

    def match(self, node: Node, target: Target, options: Options) -> list[Choice] | str:
        found = packed_for(node, target)
        return found if isinstance(found, str) else found.choices()


def packed_for(node: Node, target: Target) -> Packed | str:
    """The product, or why it is none with a constant matrix that kernels take."""
    x, w = node.arg(0), node.arg(1)
    m = f32_machine(target, x.dtype)
    if isinstance(m, str):
        return m
    if w.data is None:
        return "its right side is not constant"
    if len(w.shape) != 2 or w.data.size == 0 or 0 in x.shape:
        return f"its right side has shape {list(w.shape)}"
    if not isinstance(x.shape[-1], int):
        return "the length of its sums is open"
    return _gemm_refused(node) or Packed(node, m)


def _gemm_refused(node: Node) -> str:
    """Why a Gemm is more than a product with a constant row added; empty where it is not."""
    op, c = node.op, node.input(2)
    if not isinstance(op, Gemm):
        return ""
    if op.transA or op.alpha != 1 or (c is not None and op.beta != 1):
        return "its left side is transposed or its terms are scaled"
    if c is None:
        return ""
    columns = node.outputs[0].shape[1]
    if c.data is None or c.data.size not in (1, columns) or (c.data.ndim == 2 and len(c.data) != 1):
        return f"it adds a C of shape {list(c.shape)} that is no constant row"
    return ""


BY_ROWS = (MatMul, Gemm, LayerNormalization, RMSNormalization)
FAR = 12  # readers that are looked through


def _goes_on_by_rows(v: Value, far: int = FAR) -> bool:
    """Whether all that is made of rows of a value, as far as the next kernels, is made row by
    row."""
    for n in v.uses:
        if n.outputs[0].shape[:-1] != v.shape[:-1]:
            return False
        if isinstance(n.op, Elementwise):
            if far == 0 or not _goes_on_by_rows(n.outputs[0], far - 1):
                return False
        elif not isinstance(n.op, BY_ROWS) or n.arg(0) is not v:
            return False
    return True


class Packed:
    """Such a product as a convolution of one row."""

    def __init__(self, node: Node, m: Machine) -> None:
        self.node, self.m = node, m
        self.turned = isinstance(node.op, Gemm) and node.op.transB
        ints = node.arg(1).tensor.ints
        self.k, self.n = ints[::-1] if self.turned else ints
        self.lead = node.arg(0).shape[:-1]
        self.rows, self.index = dims.product(self.lead), index_of_row(self.lead)
        self.kept = _goes_on_by_rows(node.outputs[0])

    def choices(self) -> list[Choice]:
        tiles = tiles_for(self.m, self.n, self.rows, self.k)
        return [self._choice(t, cost) for t, cost in tiles]

    def _choice(self, tile: Tile, cost: float) -> Choice:
        name = f"matmul_packed_{tile.columns}x{tile.vectors}"
        return Choice(
            name, self.node, (self.node.arg(0),), partial(self.packed, tile),
            partial(self.render, tile), lambda s: True, ("of_conv.h",), cost=cost,
            copies=copies_of(self.n, self.m.lanes, tile, self.rows),
        )  # fmt: skip

    def planes(self) -> Array:
        """The matrix as weights [columns, length of the sums, 1, 1]."""
        w = self.node.arg(1).data
        assert w is not None
        return (w if self.turned else w.T).reshape(self.n, self.k, 1, 1)

    @property
    def bias(self) -> Array | None:
        c = self.node.const(2)
        return None if c is None else c.reshape(-1)

    @property
    def sums(self) -> Sums:
        return row_sums(self.k, self.rows, whole=True)

    def packed(self, tile: Tile) -> tuple[Array, ...]:
        lanes = self.m.lanes
        return (
            pack_weights(self.planes(), lanes, tile.vectors, self.k),
            pack_bias(self.bias, self.n, lanes),
        )

    def render(self, tile: Tile, r: Rendering) -> str:
        x, w, bias = r.pointers
        rows = self._shares(r.team.parts)
        s = row_sums(self.k, self.rows, rows=rows)
        index = index_of_row(self.lead, rows)
        plane = Plane(self.m.lanes, 1, self.n, rows, s.size[1], index)
        return sums_body(r, s, plane, tile, lambda n: x, w, bias, kept=self.kept)

    def _shares(self, parts: int) -> int:
        """In how many equal shares threads compute the rows, so that what else is done with these
        rows may be shared in the same way; 1 where they share something else."""
        even = isinstance(self.rows, int) and self.rows % parts == 0
        return parts if even and prefers_rows(self.sums, self.n, self.kept) else 1
