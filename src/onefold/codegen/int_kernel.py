"""What the kernels of integer layers share (of_conv_int.h): how elements meet, the input as the
sums read it, bands of it, and the end of a sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onefold.codegen.family import Rendering
from onefold.codegen.int_layers import Layer, layer_of
from onefold.codegen.text import loop, number
from onefold.codegen.tiles import Machine, Tile, lane_check, padded
from onefold.codegen.tiling import Overlapped, Plane, Tiling
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.dtypes import DType
from onefold.ir.graph import Array, Node
from onefold.ir.scalar import counter, index_of
from onefold.target import Target

SLACK = 64  # bytes behind the prepared rows that a last step or vector may read
SMALL = 8 << 10  # bytes of prepared rows that are always allowed
SHARE = 8  # more are where input and output together take so many times as much
LEAST = 4  # output rows at a time where neighbours share input rows, which are prepared again
LONG, FEW = 1024, 4  # elements of an input beyond which a copy counts, results that do not
LONGEST = 1 << 22  # products in a sum: beyond, i32 pairs could wrap before they are added up


@dataclass(frozen=True, slots=True)
class Form:
    """How elements meet: `step` of them at a time, as `kind`; interleaved: whether the elements of
    a step lie next to each other in the weights; two: whether two columns meet two channels in one
    instruction."""

    step: int
    kind: str
    interleaved: bool = True
    two: bool = False

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return 2 if self.kind == "i16" else 1

    @property
    def name(self) -> str:
        return f"{self.kind}x2" if self.two else self.kind


def forms_of(target: Target, x: DType, weights: Array) -> list[Form]:
    """The dot products of the machine where the weights fit into bytes, else products of i16."""
    if fit_bytes(weights):
        if has_dots(target):
            return [Form(4, "u8")]
        if "i8mm" in target.features:  # takes either kind as it is
            return [Form(8, x.name, two=True), Form(4, "i8")]
        if "dotprod" in target.features:
            return [Form(4, "i8")]
    return [Form(2, "i16", target.arch == "x86_64")]


def has_dots(target: Target) -> bool:
    """Whether x86 has dot products of u8 and i8 for whole vectors."""
    return "avx512vnni" in target.features or (
        "avxvnni" in target.features and "avx512f" not in target.features
    )


def fit_bytes(weights: Array) -> bool:
    return weights.size == 0 or (weights.min() >= -128 and weights.max() <= 127)


def beyond_bytes(weights: Array) -> int:
    """What to take from weights so that they fit into bytes, 0 where they do or never would: those
    stored unsigned, less their zero point, may lie between -255 and 255, but no further apart."""
    low, high = (int(weights.min()), int(weights.max())) if weights.size else (0, 0)
    if (low >= -128 and high <= 127) or high - low > 255:
        return 0
    return high - 127 if high > 127 else low + 128


def find(node: Node, target: Target) -> Layer | str:
    """The layer, or why no integer kernel takes the node."""
    if Machine.of(target) is None:
        return f"'{target.name}' has no vectors of 32-bit integers"
    layer = layer_of(node)
    if isinstance(layer, Layer) and int(np.prod(layer.weights.shape[1:])) > LONGEST:
        return "its sums are too long"
    return layer


@dataclass(frozen=True, slots=True)
class Image:
    """The input as the sums read it: [blocks][rows][cols][col] elements. Where it is prepared, that
    is done for a band of output rows at a time, since a whole one would be the largest thing in the
    arena."""

    border: tuple[int, int]  # top, left
    band: int  # output rows
    rows: int  # input rows that a band reads
    cols: int
    col: int
    blocks: int = 1

    @property
    def block(self) -> int:
        return self.rows * self.cols * self.col

    @property
    def elements(self) -> int:
        return self.blocks * self.block


class IntKernel:
    """What the integer kernels share: the input, and the end of a sum."""

    header = "of_conv_int.h"
    unit = 1  # columns that a tile has, or a multiple: then it may lie in several rows

    def __init__(
        self, layer: Layer, target: Target, form: Form, block: int, apart: bool = False,
        more: int = 0,
    ) -> None:  # fmt: skip
        """block: channels of a column are filled up to whole ones; apart: blocks are images; more:
        what weights stand for beyond their bytes (see `beyond_bytes`)."""
        m = Machine.of(target)
        assert m is not None
        if layer.x.dtype.name == form.kind:
            layer = layer.in_one_row()
        self.layer, self.m, self.form, self.more = layer, m, form, more
        h, w, c = layer.size
        self.rows, self.columns, self.channels = layer.result
        blocks, col = (-(-c // block), block) if apart else (1, -(-c // block) * block)
        self.direct = col == c and self._fits()
        if self.direct:
            self.image = Image((0, 0), self.rows, h, w, c)
            return
        top, left = layer.pads
        cols = max(layer.reach(self.columns, 1), left + w)
        total = layer.batches * (h * w * c + int(np.prod(layer.result)))
        room = max(self.small(), total // SHARE)
        band = self._band((room - SLACK) // (cols * col * blocks * form.size))
        self.image = Image((top, left), band, layer.reach(band, 0), cols, col, blocks)

    def _fits(self) -> bool:
        """Whether the sums can read the input as it is: its type, channels last, no border."""
        t, (h, w, c) = self.layer, self.layer.size
        inside = t.reach(self.rows, 0) <= h and t.reach(self.columns, 1) <= w
        last = t.steps[1:] == (w * c, c, 1) or (h * w == 1 and t.steps[3] == 1)
        kind = t.x.dtype.name == self.form.kind and t.pads == (0, 0)
        run = c if t.dilations[1] > 1 else c * t.kernel[1]
        return kind and inside and last and run % self.form.step == 0

    def _band(self, most: int) -> int:
        """Output rows at a time whose input rows are at most so many, in bands of equal size."""
        t = self.layer
        least = LEAST if t.reach(1, 0) > t.strides[0] else 1
        fit = (most - t.reach(1, 0)) // t.strides[0] + 1
        bands = -(-self.rows // max(fit, least))
        return -(-self.rows // bands)

    def small(self) -> int:
        """Bytes of prepared rows that are always allowed."""
        return SMALL

    @property
    def scratch(self) -> int:
        seen = self.image.band * self.columns if self.more else 0
        return self._place_of_seen + seen * 4

    @property
    def _place_of_seen(self) -> int:
        """Behind the prepared rows, what each place of the result adds to its sums."""
        room = 0 if self.direct else self.image.elements * self.form.size + SLACK
        return -(-room // SLACK) * SLACK if self.more else room

    def zeros(self) -> tuple[int, int]:
        """What is added to an element of the input, and what stands for zero afterwards."""
        zero, signed = self.layer.zero_x, self.layer.x.dtype is dtypes.i8
        if self.form.kind == "i16":
            return -zero, 0
        add = 128 if signed and self.form.kind == "u8" else 0
        add = -128 if not signed and self.form.kind == "i8" else add
        return add, zero + add

    def ends(self) -> list[Array]:
        """Bias less the share of the zero point, and what the end of a sum takes: filled up to
        whole vectors."""
        total = self.layer.weights.astype(np.int64).reshape(self.channels, -1).sum(axis=1)
        start = -self.zeros()[1] * total
        if self.layer.bias is not None:
            start = start + self.layer.bias.astype(np.int64)
        out = []
        ends = self.layer.end.arrays()
        for a in (start.astype(np.uint32).view(np.int32), *ends):
            full = np.full(padded(a.size, self.m.lanes), a[0] if a.size == 1 else 0, a.dtype)
            full[: a.size] = a
            out.append(full)
        return out

    def body(
        self, r: Rendering, tile: Tile, call: Callable[..., str],
        overlapped: Overlapped | None = None,
    ) -> str:  # fmt: skip
        """C text: for each band of rows, the prepared input and the tiles on it.

        call, overlapped: as for `Tiling`, its row counted from the band's first, its input `p`. The
        last band may be shorter: no row is computed twice, as the epilogue may work in place.
        Threads prepare the input together, and then share the tiles.
        """
        t, i = self.layer, self.image
        batch, bands = counter(t.batches, "i"), counter(-(-self.rows // i.band), "i")
        n = index_of(batch)
        start = dims.mul(index_of(bands), i.band)
        rows = dims.minimum(i.band, dims.add(self.rows, dims.mul(start, -1)))

        def index(_: Dim, c: Dim, y: Dim, at: Dim) -> Sequence[Dim]:
            return t.index(n, c, dims.add(start, y), at)

        x = r.pointers[0]
        given = zip(r.pointers[1:], t.more, strict=False)
        more = [f"{p}[{0 if v.tensor.size == 1 else r.dim(n)}]" for p, v in given]
        names = r.pointers[3 + len(more) : 3 + len(more) + len(t.end.arrays())]
        plane = Plane(self.m.lanes, 1, self.channels, rows, self.columns, index)
        if self.unit > 1:
            whole = (i.band, self.columns)
            plane = Plane(
                self.m.lanes, 1, self.channels, 1, i.band * self.columns,
                lambda n, c, _, at: index(n, c, *dims.unravel(at, whole)),
            )  # fmt: skip
        finish = t.finish(self.m.lanes, names, more, r.dim, "seen" if self.more else "")
        read = int(np.prod(t.size)) * self.form.size
        tiling = Tiling(
            plane, tile, r, call, lambda first, width: False, "int32_t", finish,
            overlapped=overlapped, unit=self.unit,
            by_rows=t.depthwise or read > self.layer.weights.size,
        )  # fmt: skip
        again = start != 0 or n != 0
        source = r.dim(dims.mul(n, t.steps[0]))
        if self.direct:
            lines = [f"const {self.ctype} *const p = {x} + {source};"]
        else:
            zero = more[-1] if t.moving else ""
            lines = [*self.before(r, n), *self._prepared(r, x, source, start, zero)]
        lines += self._seen(r, rows) if self.more else []
        lines.append(tiling.body(()))
        if r.team.parts > 1 and again and (self.more or not self.direct):
            lines += r.team.wait()
        if start != 0:
            lines = loop(bands.name, str(bands.extent), lines)
        if n != 0:
            lines = loop(batch.name, str(t.batches), lines)
        head = [lane_check(self.m.lanes)]
        if not self.direct:
            head.append(f"{self.ctype} *const p = ({self.ctype} *){r.pointers[-1]};")
        if self.more:
            at = f"{r.pointers[-1]} + {self._place_of_seen}"
            head.append(f"int32_t *const seen = (int32_t *)({at});")
        return "\n".join([*head, *lines])

    def before(self, r: Rendering, n: Dim) -> list[str]:
        """Statements that come before the input of batch n is prepared."""
        return []

    def constants(self, r: Rendering) -> Sequence[str]:
        """Names of the weights and of what sums begin with."""
        return r.pointers[len(self.layer.reads) :][:2]

    def _prepared(self, r: Rendering, x: str, source: str, start: Dim, zero: str) -> list[str]:
        """zero: C text of the zero point where that is found out at run time."""
        t, i, (add, fill) = self.layer, self.image, self.zeros()
        top = r.dim(dims.add(i.border[0], dims.mul(start, -t.strides[0])))
        (h, w, c), rows, to = map(str, t.size), str(i.rows), "p"
        bounds: list[str] = []
        if r.team.parts > 1 and i.blocks > 1:  # each thread prepares blocks
            bounds = [r.team.bounds(str(i.blocks), names=("begin", "until"))]
            source, to = f"{source} + begin * {i.col * t.steps[3]}", f"p + begin * {i.block}"
            c = f"(int)(of_min_ix({c}, until * {i.col}) - begin * {i.col})"
        elif r.team.parts > 1:  # or rows
            bounds = [r.team.bounds(rows, names=("begin", "until"))]
            top, rows = f"{top} - begin", "(int)(until - begin)"
            to = f"p + begin * {i.cols * i.col}"
        add_text = str(add) if self.form.step == 4 else number(str(add), "int32_t")
        fill_text = number(str(fill), "int32_t") + (zero and f" + {zero}")
        fields = (h, w, c, f"(int)({top})", i.border[1], rows, i.cols, i.col, *t.steps[1:])
        name = f"of_prepare_{t.x.dtype.name}_{self.form.kind}"
        return [
            *bounds,
            f"const struct of_image image = {{{', '.join(map(str, fields))}}};\n"
            f"{name}(image, {x} + {source}, {add_text}, {fill_text}, {to});",
            *(r.team.wait() if bounds else []),
        ]

    def _seen(self, r: Rendering, rows: Dim) -> list[str]:
        """Statements that tell what each place of a band adds to its sums."""
        t, i = self.layer, self.image
        c, row = t.size[2], i.cols * i.col
        runs = (t.kernel[1] * c, 1) if i.col == c and t.dilations[1] == 1 else (c, t.kernel[1])
        fields = (
            runs[0], t.kernel[0], runs[1], self.columns, t.strides[0] * row, t.strides[1] * i.col,
            t.dilations[0] * row, t.dilations[1] * i.col, int(self.form.kind == "u8"),
        )  # fmt: skip
        places, ends = r.dim(dims.mul(rows, self.columns)), ("0", "")
        lines = [f"static const struct of_windows windows = {{{', '.join(map(str, fields))}}};"]
        if r.team.parts > 1:
            ends = ("low", "high")
            lines.append(r.team.bounds(places, names=ends))
        more = number(str(self.more), "int32_t")
        lines.append(f"of_seen(&windows, {ends[0]}, {ends[1] or places}, p, {more}, seen);")
        return lines + (r.team.wait() if r.team.parts > 1 else [])

    @property
    def ctype(self) -> str:
        return dtypes.BY_NAME[self.form.kind].ctype


def copied_for_little(kernel: IntKernel) -> str:
    """Why a product is better off without a kernel that copies its input; empty where it is not."""
    layer = kernel.layer
    product = layer.size[:2] == (1, 1) and not kernel.direct
    if product and layer.size[2] > LONG and layer.result[2] <= FEW:
        return "its few results are not worth a copy of its long input"
    return ""
