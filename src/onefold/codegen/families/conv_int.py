"""Integer convolutions and products with constant matrices (of_conv_int.h)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.int_kernel import (
    Form,
    IntKernel,
    beyond_bytes,
    copied_for_little,
    find,
    forms_of,
)
from onefold.codegen.int_layers import Layer
from onefold.codegen.tiles import (
    PAIRED,
    Machine,
    Run,
    Tile,
    copies_of,
    groups_of,
    padded,
    tiles_for,
)
from onefold.ir import dims
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node
from onefold.options import Options
from onefold.target import Target


class IntConv(Family):
    """Dot products of runs of the window's rows with packed weights."""

    name = "conv_int"
    ops = (
        "QuantConv2D", "QuantDepthwiseConv2D", "QuantFullyConnected", "QConv", "QMatMul",
        "HybridConv2D", "HybridDepthwiseConv2D", "HybridMatMul", "ConvInteger", "MatMulInteger",
    )  # fmt: skip
    blocks = True

    def match(self, node: Node, target: Target, options: Options) -> list[Choice] | str:
        layer = find(node, target)
        if isinstance(layer, str):
            return layer
        if layer.groups != 1:
            return "it has several groups"
        more = beyond_bytes(layer.weights)
        forms = forms_of(target, layer.x.dtype, layer.weights - more)
        kernels = [_Conv(layer, target, f, more if f.size == 1 else 0) for f in forms]
        return copied_for_little(kernels[0]) or [c for k in kernels for c in k.choices()]


def _room(m: Machine, form: Form) -> Machine:
    """What tiles have where two columns are multiplied at once, or a step is one instruction on
    sixteen registers; less where products are made in a register before they are added."""
    if form.two:
        return PAIRED
    if m.lanes != 8:
        apart = form.step == 2 and form.interleaved and m.lanes < 16
        return replace(m, registers=m.registers - 2) if apart else m
    return replace(m, registers=12) if form.step == 2 else replace(m, registers=16, latency=10)


class _Conv(IntKernel):
    def __init__(self, layer: Layer, target: Target, form: Form, more: int) -> None:
        whole = layer.dilations[1] == 1
        super().__init__(layer, target, form, 1 if whole else form.step, more=more)
        layer = self.layer
        kh, kw = layer.kernel
        c = layer.size[2]
        # elements of a run, rows of the window, runs in one row of it
        self.window = (kw * c, kh, 1) if whole else (c, kh, kw)
        self.steps = -(-self.window[0] // form.step)
        self.products = self.steps * form.step * kh * self.window[2]

    def choices(self) -> list[Choice]:
        steps = self.steps * self.window[1] * self.window[2]
        tiles = tiles_for(_room(self.m, self.form), self.channels, self.columns, steps)
        return [self._choice(t, cost) for t, cost in tiles]

    def _choice(self, tile: Tile, cost: float) -> Choice:
        name = f"{IntConv.name}_{self.form.name}_{tile.columns}x{tile.vectors}"
        cost *= self.rows * self.layer.batches
        return Choice(
            name, self.layer.node, self.layer.reads, partial(self.packed, tile),
            partial(self.render, tile), lambda s: True, (self.header,), self.scratch, cost,
            copies=copies_of(self.channels, self.m.lanes, tile, self.columns),
        )  # fmt: skip

    def packed(self, tile: Tile) -> tuple[Array, ...]:
        lanes, step = self.m.lanes, self.form.step
        run, kh, kw = self.window
        oc = self.channels
        full = np.zeros((padded(oc, lanes), kh, kw, self.steps * step), np.int32)
        full[:oc, :, :, :run] = self.layer.weights.reshape(oc, kh, kw, run) - self.more
        parts = []
        for g in groups_of(oc, lanes, tile.vectors):
            n = g.count * g.vectors * lanes
            part = full[g.first * lanes : g.first * lanes + n]
            part = part.reshape(g.count, g.vectors, lanes, kh, kw, self.steps, step)
            order = (0, 3, 4, 5, 1, 2, 6) if self.form.interleaved else (0, 3, 4, 5, 1, 6, 2)
            parts.append(part.transpose(order).reshape(-1))
        kind = np.int16 if self.form.size == 2 else np.int8
        return (np.concatenate(parts).astype(kind), *self.ends())

    def render(self, tile: Tile, r: Rendering) -> str:
        w, bias = self.constants(r)
        run, kh, kw = self.window
        i, lanes = self.image, self.m.lanes
        steps = (*self.layer.strides, *self.layer.dilations, i.cols * i.col, i.col)
        fields = (run, kh, kw, *steps, self.form.step, int(self.form.kind == "u8"))
        kernel = "of_conv_int_pairs" if self.form.two else "of_conv_int_tile"

        def call(vectors: int, t: Run, n: Dim, block: Dim, row: Dim, column: Dim) -> str:
            packed = r.dim(dims.mul(block, lanes * self.products))
            return (
                f"{kernel}(k, {t.width}, {vectors}, {r.dim(row)}, {r.dim(column)}, "
                f"p, {w} + {packed}, {bias} + "
                f"{r.dim(dims.mul(block, lanes))}, acc);"
            )

        head = f"const struct of_conv_int k = {{{', '.join(map(str, fields))}}};\n"
        return head + self.body(r, tile, call)
