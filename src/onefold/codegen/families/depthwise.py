"""Depthwise convolutions of f32 on channel blocks as wide as a vector."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from onefold.codegen.families.conv import machine_for, planar, size
from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.loops import padded_channels
from onefold.codegen.sums import Sums, pack_bias
from onefold.codegen.tiles import (
    Machine,
    Run,
    Tile,
    copies_of,
    end_cycles,
    lane_check,
    padded,
    runs_of,
)
from onefold.codegen.tiling import Call, Plane, Tiling
from onefold.ir import dims
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node
from onefold.ops.conv import Conv
from onefold.ops.window import Axis
from onefold.options import Options
from onefold.target import Target

WIDTHS = (8, 4, 6, 10, 12, 14)  # columns of a tile


def widths(columns: int, most: int) -> list[int]:
    """Columns of tiles for so many columns, those that make as many tiles once."""
    found: dict[int, int] = {}
    for w in WIDTHS:
        if w <= most:
            found.setdefault(-(-columns // min(w, columns)), min(w, columns))
    return list(found.values())


class Depthwise(Family):
    """One vector of channels times T columns, taps unrolled along a row (of_depthwise.h)."""

    name = "conv_depthwise"
    ops = ("Conv",)
    blocks = True

    def match(self, node: Node, target: Target, options: Options) -> list[Choice] | str:
        m = machine_for(node, target, narrow=True)
        if isinstance(m, str):
            return m
        op, x, w = node.op, node.arg(0), node.arg(1)
        assert isinstance(op, Conv)
        if op.group == 1 or op.group != x.shape[1] or op.group != w.shape[0]:
            return f"it has {op.group} groups for {x.shape[1]} and {w.shape[0]} channels"
        if x.tensor.layout != m.lanes:
            return "its input is not in channel blocks"
        if size(planar(op.axes(node))[1].kernel) > 15:
            return "its window is too wide to be unrolled"
        return _Depthwise(node, m, op.axes(node)).choices()


class Windows:
    """Windows over channel blocks, one vector of channels times the columns of a tile."""

    def __init__(self, node: Node, m: Machine, axes: Sequence[Axis]) -> None:
        self.node, self.m = node, m
        self.channels = size(node.arg(0).shape[1])
        a, b = planar(axes)
        self.rows, self.columns = size(a.out), size(b.out)
        self.sums = Sums(
            1, 1, (0, 0, 0), (a.size, b.size), (size(a.kernel), size(b.kernel)),
            (a.stride, b.stride), (a.dilation, b.dilation), (size(a.begin), size(b.begin)),
        )  # fmt: skip
        self.plane = size(a.size) * size(b.size)

    @property
    def fields(self) -> tuple[Dim, ...]:
        """Sizes, window, steps, dilations and padding, by rows and columns."""
        s = self.sums
        return (*s.size, *s.window, *s.steps, *s.dilations, *s.pads)

    def source(self, r: Rendering, n: Dim, block: Dim) -> str:
        """Text of the address of a block of the input."""
        batch = size(padded_channels(self.node.arg(0).tensor)) * self.plane
        at = dims.add(dims.mul(n, batch), dims.mul(block, self.m.lanes * self.plane))
        return f"{r.pointers[0]} + {r.dim(at)}"

    def body(self, tile: Tile, r: Rendering, call: Call, head: Sequence[str]) -> str:
        n = self.node.arg(0).shape[0]
        plane = Plane(self.m.lanes, n, self.channels, self.rows, self.columns, self._index)
        return Tiling(plane, tile, r, call, self.sums.is_edge, by_rows=True).body(head)

    def _index(self, n: Dim, c: Dim, y: Dim, x: Dim) -> Sequence[Dim]:
        return (n, c, x) if len(self.node.outputs[0].shape) == 3 else (n, c, y, x)


class _Depthwise(Windows):
    def choices(self) -> list[Choice]:
        return [self._choice(w) for w in widths(self.columns, self._most())]

    def _most(self) -> int:
        """Columns of a tile that fit into the registers, beside what several taps see of the
        input: all of a row, or some of it where products read it from memory."""
        m, window, step = self.m, self.sums.window[1], self.sums.steps[1]
        if m.taken == 1:
            return m.registers * 2 // 3
        return max((m.registers - window + step) // (1 + step), 4)

    def _choice(self, width: int) -> Choice:
        tile = Tile(width, 1)
        return Choice(
            f"conv_depthwise_{width}", self.node, (self.node.arg(0),), self.packed,
            partial(self.render, tile), lambda s: True, ("of_depthwise.h",),
            cost=self._cost(width), narrow=True,
            copies=copies_of(self.channels, self.m.lanes, tile, self.columns),
        )  # fmt: skip

    def _cost(self, width: int) -> float:
        """Cycles: a tap loads its weights once, and an element for each column."""
        taps, total = int(np.prod(self.sums.window)), 0.0
        for r in runs_of(self.columns, width):
            assert isinstance(r.count, int)
            step = max(r.width + 1, self.m.latency) / 2
            total += r.count * (step * taps + end_cycles(r.width))
        blocks = -(-self.channels // self.m.lanes)
        return total * self.rows * blocks * dims.upper(self.node.arg(0).shape[0])

    def packed(self) -> tuple[Array, ...]:
        w, lanes = self.node.const(1), self.m.lanes
        assert w is not None
        taps = int(np.prod(self.sums.window))
        full = np.zeros((padded(self.channels, lanes), taps), np.float32)
        full[: self.channels] = w.reshape(self.channels, taps)
        packed = np.ascontiguousarray(full.reshape(-1, lanes, taps).transpose(0, 2, 1))
        return packed.reshape(-1), pack_bias(self.node.const(2), self.channels, lanes)

    def render(self, tile: Tile, r: Rendering) -> str:
        _, w, bias = r.pointers
        lanes = self.m.lanes
        head = [
            lane_check(lanes),
            f"const struct of_window k = {{{', '.join(r.dim(p) for p in self.fields)}}};",
        ]
        taps = self.sums.window[0] * self.sums.window[1]
        kind = self.node.arg(0).tensor.memory

        def call(vectors: int, run: Run, n: Dim, block: Dim, row: Dim, column: Dim) -> str:
            return (
                f"of_depthwise_tile_{kind}(k, {run.width}, {int(run.edge)}, {r.dim(row)}, "
                f"{r.dim(column)}, {self.source(r, n, block)}, "
                f"{w} + {r.dim(dims.mul(block, lanes * taps))}"
                f", {bias} + {r.dim(dims.mul(block, lanes))}, acc);"
            )

        return self.body(tile, r, call, head)
