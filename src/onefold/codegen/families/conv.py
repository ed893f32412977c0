"""Convolutions of f32 with one group, over one or two spatial axes, of any memory layout."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.loops import padded_channels
from onefold.codegen.sums import (
    Sums,
    pack_bias,
    pack_weights,
    prefers_rows,
    rows_of,
    sums_body,
)
from onefold.codegen.tiles import Machine, Tile, copies_of, f32_machine, padded, tiles_for
from onefold.codegen.tiling import Index, Plane
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node
from onefold.ops.conv import Conv, ConvTranspose
from onefold.ops.window import Axis
from onefold.options import Options
from onefold.target import Target


class DirectConv(Family):
    """Sums in registers, weights packed, no padded copy (of_conv.h)."""

    name = "conv_direct"
    ops = ("Conv",)
    blocks = True

    def match(self, node: Node, target: Target, options: Options) -> list[Choice] | str:
        m = machine_for(node, target)
        if isinstance(m, str):
            return m
        op = node.op
        assert isinstance(op, Conv)
        if op.group != 1:
            return f"it has {op.group} groups"
        return Direct(node, m).choices()


def machine_for(node: Node, target: Target, narrow: bool = False) -> Machine | str:
    """What a kernel for convolutions may use of the target, or why it does not take the node;
    narrow: whether it reads 16-bit floats from memory."""
    m, x = f32_machine(target), node.arg(0).tensor
    if isinstance(m, str):
        return m
    if not narrow and x.memory is not x.dtype:
        return f"its input lies in memory as {x.memory}"
    return refused(node) or m


def refused(node: Node) -> str:
    """Why no kernel for convolutions takes the node; empty where they do."""
    op, x, w, b = node.op, node.arg(0), node.arg(1), node.input(2)
    assert isinstance(op, (Conv, ConvTranspose))
    if x.dtype is not dtypes.f32:
        return f"it computes in {x.dtype}, not f32"
    if w.data is None or (b is not None and b.data is None):
        return "its weights are not constant"
    if len(x.shape) not in (3, 4):
        return f"it has {len(x.shape) - 2} spatial axes"
    if not dims.is_static(x.shape[1:]) or not dims.is_static(op.pads):
        return "its input has open sizes"
    if w.data.size == 0 or 0 in node.outputs[0].shape or 0 in x.shape:
        return "it is empty"
    return ""


def size(d: Dim) -> int:
    """A size that `refused` has made sure is known."""
    assert isinstance(d, int)
    return d


def planar(axes: Sequence[Axis]) -> tuple[Axis, Axis]:
    """Two spatial axes, the first of one element where there is only one."""
    return (axes[0], axes[1]) if len(axes) == 2 else (Axis(1, 1), axes[0])


def strides_of(node: Node, height: int, width: int) -> tuple[int, int, int, int]:
    """Of the input: block of channels, and elements to the next block, row, and column."""
    t = node.arg(0).tensor
    if height * width == 1 and not t.layout:
        return size(t.shape[1]), 1, 1, 1
    c = t.layout or 1
    return c, height * width * c, width * c, c


class Direct:
    """Such a convolution as sums over channels and a window."""

    def __init__(self, node: Node, m: Machine) -> None:
        op, x, w = node.op, node.arg(0), node.arg(1)
        assert isinstance(op, Conv) and w.data is not None
        self.node, self.m, self.weights = node, m, w.data
        a, b = planar(op.axes(node))
        h, wd, oh, ow = (size(d) for d in (a.size, b.size, a.out, b.out))
        block, *strides = strides_of(node, h, wd)
        self.block = block
        self.height, self.width = oh, ow  # of the result
        flat = (a.kernel, b.kernel, a.stride, b.stride, oh, ow) == (1, 1, 1, 1, h, wd)
        if flat:  # every row goes on where the one before ends
            h, wd, oh, ow = 1, h * wd, 1, oh * ow
        self.flat, self.rows, self.columns = flat, oh, ow
        ic = w.tensor.ints[1]
        self.sums = Sums(
            ic, block, (strides[0], strides[1], strides[2]), (h, wd),
            (size(a.kernel), size(b.kernel)), (a.stride, b.stride), (a.dilation, b.dilation),
            (size(a.begin), size(b.begin)),
        )  # fmt: skip
        self.oc = w.tensor.ints[0]
        channels = padded_channels(x.tensor)
        self.batch = size(channels) * size(a.size) * size(b.size)

    def choices(self) -> list[Choice]:
        tiles = tiles_for(self.m, self.oc, self.columns, self.sums.per_output)
        return [self._choice(t, cost) for t, cost in tiles]

    def _choice(self, tile: Tile, cost: float) -> Choice:
        name = f"conv_direct_{tile.columns}x{tile.vectors}"
        cost *= self.rows * dims.upper(self.node.arg(0).shape[0])
        return Choice(
            name, self.node, (self.node.arg(0),), partial(self.packed, tile),
            partial(self.render, tile), lambda s: True, ("of_conv.h",), cost=cost,
            stored=4 * padded(self.oc, self.m.lanes) * (self.sums.per_output + 1),
            copies=copies_of(self.oc, self.m.lanes, tile, self.columns),
        )  # fmt: skip

    def planes(self) -> Array:
        """The weights [channels, input channels, kh, kw]."""
        w = self.weights.astype(np.float32, copy=False)
        return w.reshape(*w.shape[:2], *self.sums.window)

    def packed(self, tile: Tile) -> tuple[Array, ...]:
        bias = self.node.const(2)
        lanes = self.m.lanes
        return (
            pack_weights(self.planes(), lanes, tile.vectors, self.block),
            pack_bias(bias, self.oc, lanes),
        )

    def render(self, tile: Tile, r: Rendering) -> str:
        x, w, bias = r.pointers
        n = self.node.arg(0).shape[0]
        s, rows = self.sums, self.rows
        index: Index = self.index
        if self.flat and self.height % r.team.parts == 0 and prefers_rows(s, self.oc):
            rows = r.team.parts
            s, index = rows_of(s, rows), self._joined(self.columns // rows)
        columns = self.columns // (rows // self.rows)
        plane = Plane(self.m.lanes, n, self.oc, rows, columns, index)

        def source(n: Dim) -> str:
            return f"{x} + {r.dim(dims.mul(n, self.batch))}"

        return sums_body(r, s, plane, tile, source, w, bias)

    def _joined(self, columns: int) -> Index:
        """`index`, the one long row being shared out in rows of so many columns."""
        return lambda n, c, y, x: self.index(n, c, 0, dims.add(dims.mul(y, columns), x))

    def index(self, n: Dim, c: Dim, y: Dim, x: Dim) -> Sequence[Dim]:
        if self.flat:
            y, x = dims.floordiv(x, self.width), dims.mod(x, self.width)
        return (n, c, x) if len(self.node.outputs[0].shape) == 3 else (n, c, y, x)
