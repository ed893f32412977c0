"""Transposed convolutions of f32 with one group: each residue of the output's row and column by
the strides is a convolution of its own, with the elements of the window that reach it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import gcd, prod

import numpy as np

from onefold.codegen.families.conv import machine_for, planar, size, strides_of
from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.loops import padded_channels
from onefold.codegen.sums import Sums, pack_bias, pack_weights, sums_body
from onefold.codegen.text import braced
from onefold.codegen.tiles import Machine, Tile, tiles_for
from onefold.codegen.tiling import Plane
from onefold.ir import dims
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node
from onefold.ops.conv import ConvTranspose
from onefold.ops.window import Axis
from onefold.options import Options
from onefold.target import Target


@dataclass(frozen=True, slots=True)
class Phase:
    """The outputs first, first + stride, ... along one axis: `count` of them. Output q of these
    reads inputs q + begin, q + begin + dilation, ... with the window's elements `taps`."""

    first: int
    count: int
    begin: int
    dilation: int
    taps: tuple[int, ...]


def phases_of(a: Axis, out: int) -> list[Phase]:
    """The phases of one axis; a is the axis of the convolution that is transposed."""
    found = []
    pad = size(a.begin)
    for p in range(min(a.stride, out)):
        taps = [k for k in range(size(a.kernel)) if (p + pad - k * a.dilation) % a.stride == 0]
        taps.reverse()
        begin = (p + pad - taps[0] * a.dilation) // a.stride if taps else 0
        count = -(-(out - p) // a.stride)
        dilation = a.dilation // gcd(a.stride, a.dilation)
        found.append(Phase(p, count, begin, dilation, tuple(taps)))
    return found


MOST_PHASES = 64  # each is a loop nest of its own


class TransposedConv(Family):
    """Direct convolutions of of_conv.h, one for each phase."""

    name = "conv_transposed"
    ops = ("ConvTranspose",)
    blocks = True

    def match(self, node: Node, target: Target, options: Options) -> list[Choice] | str:
        m = machine_for(node, target)
        if isinstance(m, str):
            return m
        op = node.op
        assert isinstance(op, ConvTranspose)
        if op.group != 1:
            return f"it has {op.group} groups"
        if prod(op.strides) > MOST_PHASES:
            return f"strides {op.strides} make too many phases"
        return _Transposed(node, m, op).choices()


class _Transposed:
    def __init__(self, node: Node, m: Machine, op: ConvTranspose) -> None:
        self.node, self.m = node, m
        x, w = node.arg(0), node.arg(1)
        self.ic, self.oc = w.tensor.ints[:2]
        rank = len(x.shape) - 2
        pads = op.pads or (0,) * (2 * rank)
        ones = (1,) * rank
        strides, dilations = op.strides or ones, op.dilations or ones
        axes = [
            Axis(x.shape[2 + k], w.shape[2 + k], strides[k], dilations[k], pads[k])
            for k in range(rank)
        ]
        self.rows, self.columns = planar(axes)
        outs = node.outputs[0].tensor.shape[2:]
        oh, ow = (1, size(outs[0])) if rank == 1 else (size(outs[0]), size(outs[1]))
        down, along = phases_of(self.rows, oh), phases_of(self.columns, ow)
        self.phases = [(p, q) for p in down for q in along]
        self.height, self.width = size(self.rows.size), size(self.columns.size)
        self.block, *self.strides = strides_of(node, self.height, self.width)
        self.rows_of_tiles = oh * min(self.columns.stride, ow)

    def choices(self) -> list[Choice]:
        steps = self.ic * max(len(p.taps) * len(q.taps) for p, q in self.phases)
        tiles = tiles_for(self.m, self.oc, self.phases[0][1].count, max(steps, 1))
        return [self._choice(t, cost * self.rows_of_tiles) for t, cost in tiles]

    def _choice(self, tile: Tile, cost: float) -> Choice:
        name = f"conv_transposed_{tile.columns}x{tile.vectors}"
        return Choice(
            name, self.node, (self.node.arg(0),), partial(self.packed, tile),
            partial(self.render, tile), lambda s: True, ("of_conv.h",), cost=cost,
        )  # fmt: skip

    def packed(self, tile: Tile) -> tuple[Array, ...]:
        w = self.node.const(1)
        assert w is not None
        w = w.astype(np.float32).reshape(self.ic, self.oc, -1, size(self.columns.kernel))
        w = w.transpose(1, 0, 2, 3)
        parts = [
            pack_weights(
                w[:, :, list(p.taps)][:, :, :, list(q.taps)], self.m.lanes, tile.vectors,
                self.block,
            )
            for p, q in self.phases
        ]  # fmt: skip
        bias = pack_bias(self.node.const(2), self.oc, self.m.lanes)
        return np.concatenate([*parts, np.zeros(self.m.lanes, np.float32)]), bias

    def render(self, tile: Tile, r: Rendering) -> str:
        x, w, bias = r.pointers
        n = self.node.arg(0).shape[0]
        batch = size(padded_channels(self.node.arg(0).tensor)) * self.height * self.width
        blocks = -(-self.oc // self.m.lanes)
        at, out = 0, []

        def source(n: Dim) -> str:
            return f"{x} + {r.dim(dims.mul(n, batch))}"

        for p, q in self.phases:
            sums = Sums(
                self.ic, self.block, (self.strides[0], self.strides[1], self.strides[2]),
                (self.height, self.width), (len(p.taps), len(q.taps)), (1, 1),
                (p.dilation, q.dilation), (-p.begin, -q.begin),
            )  # fmt: skip
            plane = Plane(self.m.lanes, n, self.oc, p.count, q.count, self._index(p, q))
            body = sums_body(r, sums, plane, tile, source, f"{w} + {at}", bias)
            out += braced(body.split("\n"))
            at += blocks * self.m.lanes * sums.per_output
        return "\n".join(out)

    def _index(self, p: Phase, q: Phase) -> Callable[[Dim, Dim, Dim, Dim], Sequence[Dim]]:
        def index(n: Dim, c: Dim, y: Dim, x: Dim) -> Sequence[Dim]:
            row = dims.add(dims.mul(y, self.rows.stride), p.first)
            column = dims.add(dims.mul(x, self.columns.stride), q.first)
            return (n, c, column) if len(self.node.outputs[0].shape) == 3 else (n, c, row, column)

        return index
