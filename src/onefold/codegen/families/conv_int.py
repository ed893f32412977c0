"""TFLite's integer convolutions and fully connected layers, bit for bit (of_conv_int.h)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onefold.backends import Options
from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.text import literal, loop
from onefold.codegen.tiles import (
    Finish,
    Machine,
    Plane,
    Run,
    Tile,
    Tiling,
    choose_tile,
    groups_of,
    lane_check,
)
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node
from onefold.ir.scalar import counter
from onefold.ops.quant_conv import (
    QuantContraction,
    QuantConv2D,
    QuantDepthwiseConv2D,
    QuantFullyConnected,
    QuantWindow,
)
from onefold.target import Target

SLACK = 64  # bytes behind the prepared rows that a last step or vector may read
SMALL = 8 << 10  # bytes of prepared rows that are always allowed
SHARE = 8  # more are where input and output together take so many times as much
LEAST = 4  # output rows at a time where neighbours share input rows, which are prepared again
LONG, FEW = 1024, 4  # elements of an input beyond which a copy counts, results that do not
LONGEST = 1 << 22  # products in a sum: beyond, i32 pairs could wrap before they are added up


@dataclass(frozen=True, slots=True)
class Form:
    """How elements meet: `step` of them at a time, as `kind`, `offset` added to the input first;
    interleaved: whether the elements of a step lie next to each other in the weights."""

    step: int
    kind: str
    interleaved: bool = True

    @property
    def size(self) -> int:
        return 4 // self.step


def form_of(target: Target, weights: Array) -> Form:
    """The dot product of the machine where the weights fit into bytes, else products of i16."""
    narrow = weights.size == 0 or (weights.min() >= -128 and weights.max() <= 127)
    if narrow and "avx512vnni" in target.features:
        return Form(4, "u8")
    if narrow and "dotprod" in target.features:
        return Form(4, "i8")
    return Form(2, "i16", target.arch == "x86_64")


def refused(node: Node, target: Target) -> str:
    """Why no integer kernel takes the node; empty where they do."""
    op = node.op
    assert isinstance(op, QuantContraction)
    if Machine.of(target) is None:
        return f"'{target.name}' has no vectors of 32-bit integers"
    x, w = node.arg(0), node.arg(1)
    if op.wide or x.dtype not in (dtypes.i8, dtypes.u8):
        return f"its input is of {x.dtype}"
    bias = node.input(2)
    consts = [w, node.arg(3), node.arg(4), *([] if bias is None else [bias])]
    if any(v.data is None for v in consts):
        return "its weights are not constant"
    if not x.tensor.static or 0 in x.shape or 0 in node.outputs[0].shape or w.data is None:
        return "its input has open sizes or is empty"
    if int(np.prod(w.data.shape[1:])) > LONGEST:
        return "its sums are too long"
    m, s = node.const(3), node.const(4)
    if m is None or s is None or m.min() < 0 or s.min() < -31 or s.max() > 30:
        return "its multipliers are out of the range of the vector form"
    return ""


@dataclass(frozen=True, slots=True)
class Image:
    """The prepared input; sizes in elements. It is prepared for a band of output rows at a time,
    since a whole one would be the largest thing in the arena."""

    size: tuple[int, int, int]
    border: tuple[int, int]  # top, left
    band: int  # output rows
    rows: int  # input rows that a band reads
    cols: int
    col: int

    @property
    def elements(self) -> int:
        return self.rows * self.cols * self.col


class IntKernel:
    """What the integer kernels share: the prepared input, and the end of a sum."""

    header = "of_conv_int.h"

    def __init__(self, node: Node, target: Target, form: Form, block: int) -> None:
        op, m = node.op, Machine.of(target)
        assert isinstance(op, QuantContraction) and m is not None
        self.node, self.op, self.m, self.form = node, op, m, form
        ints, out = node.arg(0).tensor.ints, node.outputs[0].tensor.ints
        if isinstance(op, QuantWindow):
            self.n, h, w, c = ints
            self.rows, self.columns = out[1], out[2]
            self.kernel = node.arg(1).tensor.ints[1:3]
            self.strides, self.dilations = op.strides, op.dilations
            top, left = op.pads[:2]
        else:
            self.n, h, w, c = 1, 1, *ints
            self.rows, self.columns = 1, ints[0]
            self.kernel, self.strides, self.dilations, top, left = (1, 1), (1, 1), (1, 1), 0, 0
        col = -(-c // block) * block
        cols = max(self._reach(self.columns, 1), left + w)
        room = max(SMALL, (int(np.prod(ints)) + int(np.prod(out))) // SHARE)
        band = self._band((room - SLACK) // (cols * col * form.size))
        self.image = Image((h, w, c), (top, left), band, self._reach(band, 0), cols, col)
        self.channels = out[-1]

    def _reach(self, outputs: int, axis: int) -> int:
        """Rows or columns of the input that neighbouring outputs read."""
        span = (self.kernel[axis] - 1) * self.dilations[axis]
        return (outputs - 1) * self.strides[axis] + span + 1

    def _band(self, most: int) -> int:
        """Output rows at a time whose input rows are at most so many, in bands of equal size."""
        least = LEAST if self._reach(1, 0) > self.strides[0] else 1
        fit = (most - self._reach(1, 0)) // self.strides[0] + 1
        bands = -(-self.rows // max(fit, least))
        return -(-self.rows // bands)

    @property
    def scratch(self) -> int:
        return self.image.elements * self.form.size + SLACK

    def zeros(self) -> tuple[int, int]:
        """What is added to an element of the input, and what stands for zero afterwards."""
        zero, signed = self.op.zero_x, self.node.arg(0).dtype is dtypes.i8
        if self.form.kind == "i16":
            return -zero, 0
        add = 128 if signed and self.form.kind == "u8" else 0
        add = -128 if not signed and self.form.kind == "i8" else add
        return add, zero + add

    def ends(self, weights: Array) -> list[Array]:
        """Bias less the share of the zero point, multiplier, shift: filled up to whole vectors.
        weights: [channels, ...] less their zero point."""
        blocks = -(-self.channels // self.m.lanes) * self.m.lanes
        total = weights.astype(np.int64).reshape(self.channels, -1).sum(axis=1)
        start = -self.zeros()[1] * total
        bias = self.node.const(2)
        if bias is not None:
            start = start + bias.astype(np.int64)
        out = []
        for a in (start, self.node.const(3), self.node.const(4)):
            assert a is not None
            full = np.zeros(blocks, np.int64)
            full[: self.channels] = a
            out.append(full.astype(np.uint32).view(np.int32))
        return out

    def body(
        self, r: Rendering, tile: Tile, x: str, scratch: str, call: Callable[..., str],
        finish: Finish,
    ) -> str:  # fmt: skip
        """C text: for each band of rows, the prepared input and the tiles on it.

        call: as for `Tiling`, its row counted from the band's first, its input `p`. The last band
        may be shorter: no row is computed twice, as the epilogue may work in place.
        """
        i, (add, fill) = self.image, self.zeros()
        batch, bands = counter(self.n, "i"), counter(-(-self.rows // i.band), "i")
        n = 0 if self.n == 1 else dims.atom(batch)
        start = dims.mul(0 if bands.extent == 1 else dims.atom(bands), i.band)
        rows = dims.minimum(i.band, dims.add(self.rows, dims.mul(start, -1)))

        def index(_: Dim, c: Dim, y: Dim, at: Dim) -> Sequence[Dim]:
            where = (n, dims.add(start, y), at, c)
            return where if isinstance(self.op, QuantWindow) else (at, c)

        plane = Plane(self.m.lanes, 1, self.channels, rows, self.columns, index)
        tiling = Tiling(plane, tile, r, call, lambda first, width: False, "int32_t", finish)
        top = r.dim(dims.add(i.border[0], dims.mul(start, -self.strides[0])))
        fields = (*i.size, f"(int)({top})", i.border[1], i.rows, i.cols, i.col)
        name = f"of_prepare_{self.node.arg(0).dtype.name}_{self.form.kind}"
        source = r.dim(dims.mul(n, int(np.prod(i.size))))
        lines = [
            f"const struct of_image image = {{{', '.join(map(str, fields))}}};",
            f"{name}(image, {x} + {source}, {add}, {fill}, p);",
            tiling.body(()),
        ]
        if start != 0:
            lines = loop(bands.name, str(bands.extent), lines)
        if n != 0:
            lines = loop(batch.name, str(self.n), lines)
        head = [lane_check(self.m.lanes), f"{self.ctype} *const p = ({self.ctype} *){scratch};"]
        return "\n".join([*head, *lines])

    @property
    def ctype(self) -> str:
        return dtypes.BY_NAME[self.form.kind].ctype

    def finish(self, r: Rendering, m: str, s: str) -> Finish:
        op = self.op
        fn = "of_multiply_by_quantized_multiplier_away_i32" if op.once else "of_requantize_i32"
        kind = op.dtype.ctype

        def text(total: str, channel: Dim) -> tuple[list[str], str]:
            at = r.dim(channel)
            lines = [
                f"const int32_t q = {fn}({total}, {m}[{at}], {s}[{at}]) + {op.zero_y};",
                f"const {kind} r = ({kind})of_min_i32(of_max_i32(q, {literal(op.lo, dtypes.i32)}), "
                f"{literal(op.hi, dtypes.i32)});",
            ]
            return lines, "r"

        return text


class IntConv(Family):
    """Dot products of runs of the window's rows with packed weights."""

    name = "conv_int"
    ops = ("QuantConv2D", "QuantFullyConnected")

    def match(self, node: Node, target: Target, options: Options) -> Choice | str:
        why = refused(node, target)
        if why:
            return why
        if node.arg(0).shape[-1] != node.arg(1).shape[-1]:
            return "it has several groups"
        long = isinstance(node.op, QuantFullyConnected) and node.arg(0).tensor.ints[-1] > LONG
        if long and node.outputs[0].tensor.ints[-1] <= FEW:
            return "its few results are not worth a copy of its long input"
        return _Conv(node, target).choice()


class _Conv(IntKernel):
    def __init__(self, node: Node, target: Target) -> None:
        op, w = node.op, node.const(1)
        assert isinstance(op, (QuantConv2D, QuantFullyConnected)) and w is not None
        weights = w.astype(np.int32) - op.zero_w
        form = form_of(target, weights)
        whole = not isinstance(op, QuantConv2D) or op.dilations[1] == 1
        super().__init__(node, target, form, 1 if whole else form.step)
        self.weights = weights.reshape(self.channels, *self.kernel, -1)
        kh, kw = self.kernel
        c = self.image.size[2]
        # elements of a run, rows of the window, runs in one row of it
        self.window = (kw * c, kh, 1) if whole else (c, kh, kw)
        self.steps = -(-self.window[0] // form.step)
        self.products = self.steps * form.step * kh * self.window[2]
        self.tile, cost = choose_tile(
            self.m, self.channels, self.columns, self.steps * kh * self.window[2]
        )
        self.cost = cost * self.rows * self.n

    def choice(self) -> Choice:
        name = f"{IntConv.name}_{self.form.kind}_{self.tile.columns}x{self.tile.vectors}"
        return Choice(
            name, self.node, (self.node.arg(0),), self.packed, self.render, lambda s: True,
            (self.header,), self.scratch, self.cost,
        )  # fmt: skip

    def packed(self) -> tuple[Array, ...]:
        lanes, step = self.m.lanes, self.form.step
        run, kh, kw = self.window
        oc = self.channels
        blocks = -(-oc // lanes)
        full = np.zeros((blocks * lanes, kh, kw, self.steps * step), np.int32)
        full[:oc, :, :, :run] = self.weights.reshape(oc, kh, kw, run)
        parts = []
        for g in groups_of(oc, lanes, self.tile.vectors):
            n = g.count * g.vectors * lanes
            part = full[g.first * lanes : g.first * lanes + n]
            part = part.reshape(g.count, g.vectors, lanes, kh, kw, self.steps, step)
            order = (0, 3, 4, 5, 1, 2, 6) if self.form.interleaved else (0, 3, 4, 5, 1, 6, 2)
            parts.append(part.transpose(order).reshape(-1))
        kind = np.int16 if step == 2 else np.int8
        return (np.concatenate(parts).astype(kind), *self.ends(self.weights))

    def render(self, r: Rendering) -> str:
        x, w, bias, m, s, scratch = r.pointers
        run, kh, kw = self.window
        i, lanes = self.image, self.m.lanes
        steps = (*self.strides, *self.dilations, i.cols * i.col, i.col)
        fields = (run, kh, kw, *steps, self.form.step)

        def call(vectors: int, t: Run, n: Dim, block: Dim, row: Dim, column: Dim) -> str:
            packed = r.dim(dims.mul(block, lanes * self.products))
            return (
                f"of_conv_int_tile(k, {t.width}, {vectors}, {r.dim(row)}, {r.dim(column)}, "
                f"p, {w} + {packed}, {bias} + "
                f"{r.dim(dims.mul(block, lanes))}, acc);"
            )

        head = f"const struct of_conv_int k = {{{', '.join(map(str, fields))}}};\n"
        return head + self.body(r, self.tile, x, scratch, call, self.finish(r, m, s))


class IntDepthwise(Family):
    """One vector of channels times T columns, products of i16."""

    name = "conv_depthwise_int"
    ops = ("QuantDepthwiseConv2D",)

    def match(self, node: Node, target: Target, options: Options) -> Choice | str:
        why = refused(node, target)
        if why:
            return why
        if node.arg(0).shape[3] != node.outputs[0].shape[3]:
            return "it makes several channels of one"
        if node.arg(1).tensor.ints[2] > 15:
            return "its window is too wide to be unrolled"
        return _Depthwise(node, target).choice()


class _Depthwise(IntKernel):
    def __init__(self, node: Node, target: Target) -> None:
        op, w, m = node.op, node.const(1), Machine.of(target)
        assert isinstance(op, QuantDepthwiseConv2D) and w is not None and m is not None
        super().__init__(node, target, Form(2, "i16"), m.lanes)
        self.weights = (w.astype(np.int32) - op.zero_w).reshape(-1, self.channels)
        self.tile = Tile(min(8, self.columns), 1)

    def choice(self) -> Choice:
        cost = self.node.op.macs(self.node) / self.m.lanes
        return Choice(
            f"{IntDepthwise.name}_{self.tile.columns}", self.node, (self.node.arg(0),), self.packed,
            self.render, lambda s: True, (self.header,), self.scratch, cost,
        )  # fmt: skip

    def packed(self) -> tuple[Array, ...]:
        lanes, taps = self.m.lanes, len(self.weights)
        blocks = -(-self.channels // lanes)
        full = np.zeros((taps, blocks * lanes), np.int16)
        full[:, : self.channels] = self.weights
        packed = full.reshape(taps, blocks, lanes).transpose(1, 0, 2).reshape(-1)
        return (packed, *self.ends(self.weights.T))

    def render(self, r: Rendering) -> str:
        x, w, bias, m, s, scratch = r.pointers
        i, lanes = self.image, self.m.lanes
        taps = self.kernel[0] * self.kernel[1]
        fields = (0, *self.kernel, *self.strides, *self.dilations, i.cols * i.col, i.col, 2)

        def call(vectors: int, t: Run, n: Dim, block: Dim, row: Dim, column: Dim) -> str:
            return (
                f"of_depthwise_int_tile(k, {t.width}, {r.dim(row)}, {r.dim(column)}, "
                f"p + {r.dim(dims.mul(block, lanes))}, "
                f"{w} + {r.dim(dims.mul(block, lanes * taps))}, "
                f"{bias} + {r.dim(dims.mul(block, lanes))}, acc);"
            )

        head = f"const struct of_conv_int k = {{{', '.join(map(str, fields))}}};\n"
        return head + self.body(r, self.tile, x, scratch, call, self.finish(r, m, s))
