"""Integer depthwise convolutions (of_conv_int.h)."""

from __future__ import annotations

from functools import partial

import numpy as np

from onefold.codegen.families.depthwise import widths
from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.int_kernel import Form, IntKernel, find, fit_bytes, has_dots
from onefold.codegen.int_layers import Layer
from onefold.codegen.tiles import Machine, Run, Tile, copies_of, groups_of, padded
from onefold.ir import dims
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node
from onefold.options import Options
from onefold.target import Target


class IntDepthwise(Family):
    """One vector of channels times T columns: dot products of taps, or products of i16."""

    name = "conv_depthwise_int"
    ops = ("QuantDepthwiseConv2D", "HybridDepthwiseConv2D", "QConv")
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
            return _Products(layer, target).choices()
        taps = _Taps(layer, target)
        few = [] if options.goal == "latency" or taps.share == 1 else [_Taps(layer, target, 1)]
        return [c for kernel in (taps, *few) for c in kernel.choices()]


class _ByChannel(IntKernel):
    """One vector of channels, or some, times some columns."""

    name: str
    speed: int  # products in a cycle
    stored: int  # bytes of packed weights
    vectors = 1

    @property
    def most(self) -> int:
        """Columns that fit into the registers."""
        return self.m.registers - 2

    def choices(self) -> list[Choice]:
        return [self._choice(w) for w in widths(self.columns, self.most)]

    def _choice(self, width: int) -> Choice:
        node, tile = self.layer.node, Tile(width, self.vectors)
        return Choice(
            f"{self.name}_{width}", node, self.layer.reads, self.packed,
            partial(self.render, tile), lambda s: True, (self.header,), self.scratch,
            node.op.macs(node) / self.speed, stored=self.stored,
            copies=copies_of(self.channels, self.m.lanes, tile, self.columns),
        )  # fmt: skip

    def packed(self) -> tuple[Array, ...]:
        raise NotImplementedError

    def render(self, tile: Tile, r: Rendering) -> str:
        raise NotImplementedError


class _Taps(_ByChannel):
    """Four taps of a vector of channels at a time. share: outputs, at most, that one load of
    columns serves, each with weights of its own."""

    def __init__(self, layer: Layer, target: Target, share: int = 4) -> None:
        m = Machine.of(target)
        assert m is not None
        lanes = m.lanes
        super().__init__(layer, target, Form(4, "u8"), lanes, apart=True)
        self.groups = -(-layer.kernel[1] // 4)
        fit = (4 * self.groups - layer.kernel[1]) // layer.strides[1] + 1
        self.share = min(fit, share)
        self.name = f"{IntDepthwise.name}_u8" + ("_alone" if self.share < fit else "")
        self.speed = lanes * (4 if self.share == fit else 3)
        taps = 4 * layer.kernel[0] * self.share * self.groups
        self.stored = self.image.blocks * lanes * (taps + 8)

    @staticmethod
    def fit(layer: Layer, target: Target) -> bool:
        return has_dots(target) and fit_bytes(layer.weights) and layer.dilations == (1, 1)

    def packed(self) -> tuple[Array, ...]:
        kh, kw = self.layer.kernel
        blocks, lanes, width = self.image.blocks, self.m.lanes, self.groups * 4
        full = np.zeros((blocks * lanes, kh, self.share, width), np.int8)
        for s in range(self.share):
            first = s * self.layer.strides[1]
            full[: self.channels, :, s, first : first + kw] = self.layer.weights[:, :, :, 0]
        parts = full.reshape(blocks, lanes, kh, self.share, self.groups, 4)
        return (parts.transpose(0, 2, 3, 4, 1, 5).reshape(-1), *self.ends())

    def render(self, tile: Tile, r: Rendering) -> str:
        w, bias = self.constants(r)
        i, t, lanes = self.image, self.layer, self.m.lanes
        fields = (t.kernel[0], *t.strides, i.cols * lanes, self.groups, self.share)
        size = t.kernel[0] * self.share * self.groups * lanes * 4

        def call(vectors: int, t: Run, n: Dim, block: Dim, row: Dim, column: Dim) -> str:
            return (
                f"of_depthwise_dot_tile(k, {t.width}, {r.dim(row)}, {r.dim(column)}, "
                f"p + {r.dim(dims.mul(block, i.block))}, {w} + {r.dim(dims.mul(block, size))}, "
                f"{bias} + {r.dim(dims.mul(block, lanes))}, acc);"
            )

        head = f"const struct of_depthwise_dot k = {{{', '.join(map(str, fields))}}};\n"
        return head + self.body(r, tile, call)


class _Products(_ByChannel):
    """Products of i16, a tap at a time. On Arm a register of i16 is two vectors of sums."""

    name = IntDepthwise.name

    def __init__(self, layer: Layer, target: Target) -> None:
        m = Machine.of(target)
        assert m is not None
        super().__init__(layer, target, Form(2, "i16"), m.lanes)
        self.vectors = 2 if target.arch == "aarch64" else 1
        self.speed = m.lanes
        self.stored = padded(self.channels, m.lanes) * (2 * int(np.prod(layer.kernel)) + 8)

    @property
    def most(self) -> int:
        """Beside sums of several vectors, what the taps of a row see of the input."""
        window, step = self.layer.kernel[1], self.layer.strides[1]
        room = self.m.registers - window + step
        return super().most if self.vectors == 1 else max(room // (self.vectors + step), 4)

    def packed(self) -> tuple[Array, ...]:
        weights = self.layer.weights.reshape(self.channels, -1).T
        lanes, taps = self.m.lanes, len(weights)
        full = np.zeros((taps, padded(self.channels, lanes)), np.int16)
        full[:, : self.channels] = weights
        parts = []
        for g in groups_of(self.channels, lanes, self.vectors):
            width = g.vectors * lanes
            some = full[:, g.first * lanes :][:, : g.count * width].reshape(taps, -1, width)
            parts.append(some.transpose(1, 0, 2).reshape(-1))
        return (np.concatenate(parts), *self.ends())

    def render(self, tile: Tile, r: Rendering) -> str:
        w, bias = self.constants(r)
        i, lanes, t = self.image, self.m.lanes, self.layer
        taps = t.kernel[0] * t.kernel[1]
        fields = (0, *t.kernel, *t.strides, *t.dilations, i.cols * i.col, i.col, 2)

        def call(vectors: int, t: Run, n: Dim, block: Dim, row: Dim, column: Dim) -> str:
            name = "of_depthwise_int_pair" if vectors == 2 else "of_depthwise_int_tile"
            return (
                f"{name}(k, {t.width}, {r.dim(row)}, {r.dim(column)}, "
                f"p + {r.dim(dims.mul(block, lanes))}, "
                f"{w} + {r.dim(dims.mul(block, lanes * taps))}, "
                f"{bias} + {r.dim(dims.mul(block, lanes))}, acc);"
            )

        head = f"const struct of_conv_int k = {{{', '.join(map(str, fields))}}};\n"
        return head + self.body(r, tile, call)
