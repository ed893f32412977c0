"""Sampling of images at places that run-time data gives."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Builder, Node, Value
from onefold.ir.scalar import Const, Index, Inside, Scalar, TensorExpr
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Lowered, Lowering, Op, Refusal, operator
from onefold.ops.formats import OnnxNode
from onefold.ops.known import Sized, checked_shape, dims_of, inside, ints_of, may_differ, numbers

_MODES = {"bilinear": "linear", "bicubic": "cubic"}
CUBIC = -0.75


def real(d: Dim, like: Scalar) -> Scalar:
    """A size as a number of the type of `like`."""
    return Const(float(d), like.dtype) if isinstance(d, int) else scalar.cast(Index(d), like.dtype)


def clamped(at: Scalar, extent: Dim) -> Dim:
    """The index nearest to a position (a whole number in a float) of an axis."""
    whole = scalar.cast(at, dtypes.i64)
    place = scalar.maximum(scalar.minimum(whole, Index(dims.add(extent, -1))), 0)
    return scalar.loaded(place, extent, check=dims.bounds(extent)[0] < 1, wrap=False)


@operator
class GridSample(Op):
    """x [n, c, d1, ...] read at grid [n, o1, ..., r], where -1 and 1 are the borders of x.

    The grid's last axis counts the axes of x from the last. mode "nearest", "linear" or "cubic";
    padding_mode "zeros", "border" or "reflection" says what lies outside.
    """

    mode: str = "linear"
    padding_mode: str = "zeros"
    align_corners: bool = False
    onnx: ClassVar = ("GridSample",)
    cases: ClassVar = tuple(
        Case((((1, 2, 3, 4), "f32"), ((1, 2, 3, 2), "f32")), {"mode": m, "padding_mode": p},
             low=-1.5, high=1.5)
        for m, p in itertools.product(("nearest", "linear", "cubic"),
                                      ("zeros", "border", "reflection"))
    ) + (
        Case((((2, 1, 2, 3, 4), "f32"), ((2, 1, 2, 3, 3), "f32")), {"align_corners": True}),
        Case((((1, 1, 1, 5), "f64"), ((1, 4, 1, 2), "f64")),
             {"padding_mode": "reflection", "align_corners": True}),
        Case((((0, 1, 2, 2), "f32"), ((0, 3, 3, 2), "f32"))),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, g = n.arg(0).tensor, n.arg(1).tensor
        if self.mode not in ("nearest", "linear", "cubic"):
            raise Refusal(f"mode '{self.mode}' is not nearest, linear or cubic")
        if self.padding_mode not in ("zeros", "border", "reflection"):
            raise Refusal(f"padding_mode '{self.padding_mode}' is not understood")
        if x.rank < 3 or g.rank != x.rank or g.shape[-1] != x.rank - 2 or not g.dtype.is_float:
            raise Refusal(f"grid {g} for an image {x}")
        if may_differ(g.shape[0], x.shape[0]) or 0 in x.shape[2:]:
            raise Refusal(f"grid {g} for an image {x}")
        if not (x.dtype.is_float or (self.mode == "nearest" and x.dtype.kind != "complex")):
            raise Refusal(f"interpolation of elements of type {x.dtype.long}")
        return [TensorType(checked_shape((*x.shape[:2], *g.shape[1:-1])), x.dtype)]

    def ref(self, n: Node, x: Any, grid: Any) -> Any:
        wide = np.float64 if dtypes.of(grid.dtype) is dtypes.f64 else np.float32
        extents = x.shape[2:]
        at = [self._place_ref(grid[..., -1 - a].astype(wide), d) for a, d in enumerate(extents)]
        batch = np.arange(x.shape[0]).reshape(-1, *[1] * (grid.ndim - 2))
        kind = np.float64 if x.dtype == np.float64 else np.float32
        parts = [self._taps_ref(p, d) for p, d in zip(at, extents, strict=True)]
        y: Any = None
        for taps in itertools.product(*parts):
            index = tuple(np.clip(i, 0, d - 1) for (i, _, _), d in zip(taps, extents, strict=True))
            v = np.moveaxis(x[(batch, slice(None), *index)], -1, 1)
            ok = np.logical_and.reduce([t[1] for t in taps])[:, None]
            if self.mode == "nearest":
                return np.where(ok, v, 0).astype(x.dtype)
            w = np.multiply.reduce([t[2] for t in taps])[:, None]
            term = np.where(ok, v.astype(kind), 0) * w
            y = term if y is None else y + term
        return y.astype(x.dtype)

    def _place_ref(self, g: Array, d: int) -> Array:
        corners = self.align_corners
        p = (g + 1) / 2 * (d - 1) if corners else ((g + 1) * d - 1) / 2
        if self.mode == "nearest":
            p = np.rint(p)
        if self.padding_mode == "border":
            return np.clip(p, 0, d - 1)
        return self._mirror_ref(p, d) if self.padding_mode == "reflection" else p

    def _mirror_ref(self, p: Array, d: int) -> Array:
        low, span = (0.0, d - 1.0) if self.align_corners else (-0.5, float(d))
        if span == 0:
            return np.zeros_like(p)
        r = np.fmod(np.abs(p - low), 2 * span)
        return (low + np.where(r > span, 2 * span - r, r)).astype(p.dtype)

    def _taps_ref(self, p: Array, d: int) -> list[tuple[Array, Array, Array]]:
        low = p if self.mode == "nearest" else np.floor(p)
        share = p - low
        first, count = self._span()
        out = []
        for t in range(count):
            q = low + (first + t)
            if self.padding_mode == "reflection":
                q = self._mirror_ref(q, d)
            i = np.nan_to_num(q, nan=0, posinf=d, neginf=-1).clip(-1, d).astype(np.int64)
            ok = np.ones(q.shape, bool)
            if self.padding_mode == "zeros":
                ok = (q >= 0) & (q <= d - 1)
            out.append((i, ok, _weight_ref(self.mode, share, first + t)))
        return out

    def _span(self) -> tuple[int, int]:
        """The first element's offset from the one below the position, and the number of them."""
        return {"nearest": (0, 1), "linear": (0, 2), "cubic": (-1, 4)}[self.mode]

    def lower(self, k: Lowering) -> Lowered:
        x, grid = k.x(0), k.x(1)
        axes = range(2, len(x.shape))
        first, count = self._span()

        def element(*i: Dim) -> Scalar:
            lead = inside(i[0], grid.shape[0]) if grid.shape[0] != x.shape[0] else i[0]
            where = [self._place(grid(lead, *i[2:], len(axes) - 1 - a), x.shape[2 + a])
                     for a in range(len(axes))]  # fmt: skip
            low = [p if self.mode == "nearest" else scalar.call("floor", p) for p in where]

            def term(*taps: Dim) -> Scalar:
                at: list[Dim] = []
                tests: list[Scalar] = []
                weight: Scalar | None = None
                for a, t in enumerate(taps):
                    d = x.shape[2 + a]
                    q = low[a] + scalar.cast(Index(dims.add(t, first)), low[a].dtype)
                    if self.padding_mode == "reflection":
                        q = self._mirror(q, d)
                    if self.padding_mode == "zeros":
                        tests += [q >= 0, q <= real(d, q) - 1]
                    at.append(clamped(q, d))
                    w = _weight(self.mode, where[a] - low[a], dims.add(t, first))
                    weight = w if weight is None or w is None else weight * w
                v = x(*i[:2], *at)
                v = v if weight is None else v * scalar.cast(weight, v.dtype)
                return scalar.where(_all(tests), v, 0) if tests else v

            return scalar.reduce("sum", [count] * len(axes), term)

        return k.map(element)

    def _place(self, g: Scalar, d: Dim) -> Scalar:
        n = real(d, g)
        p = (g + 1) / 2 * (n - 1) if self.align_corners else ((g + 1) * n - 1) / 2
        if self.mode == "nearest":
            p = scalar.call("round_even", p)
        if self.padding_mode == "border":
            return scalar.minimum(scalar.maximum(p, 0), n - 1)
        return self._mirror(p, d) if self.padding_mode == "reflection" else p

    def _mirror(self, p: Scalar, d: Dim) -> Scalar:
        n = real(d, p)
        low, span = (0.0, n - 1) if self.align_corners else (-0.5, n)
        twice = span * 2
        r = scalar.call("fmod", scalar.call("abs", p - low), twice)
        turned = scalar.where(r > span, twice - r, r) + low
        return scalar.where(twice.eq(0), 0, turned)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        mode = n.attr("mode", "bilinear" if n.opset < 20 else "linear")
        op = cls(_MODES.get(mode, mode), n.attr("padding_mode", "zeros"),
                 bool(n.attr("align_corners", 0)))  # fmt: skip
        return [b.op(op, n.arg(0), n.arg(1), name=n.output_names)]


def _all(tests: Sequence[Scalar]) -> Scalar:
    out = tests[0]
    for t in tests[1:]:
        out = out & t
    return out


def _weight_ref(mode: str, share: Array, offset: int) -> Any:
    d = np.abs(offset - share)
    if mode == "linear":
        return 1 - d
    a = CUBIC
    if offset in (0, 1):
        return ((a + 2) * d - (a + 3)) * d * d + 1
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a


def _weight(mode: str, share: Scalar, offset: Dim) -> Scalar | None:
    """Weight of the element `offset` places after the one below, `share` of a step before."""
    if mode == "nearest":
        return None
    d = scalar.call("abs", scalar.cast(Index(offset), share.dtype) - share)
    if mode == "linear":
        return 1.0 - d
    a = CUBIC
    near = (d * (a + 2) - (a + 3)) * d * d + 1.0
    far = ((d * a - 5 * a) * d + 8 * a) * d - 4 * a
    return scalar.where(Inside(offset, 0, 2), near, far)


@operator
class AffineGrid(Sized):
    """theta [n, r, r + 1] applied to the places of an image of `size` (r = 2 or 3 axes), which
    lie between -1 and 1: [n, *size, r], the last axis of the image first."""

    size: tuple[Dim, ...] = (1, 1)
    align_corners: bool = False
    onnx: ClassVar = ("AffineGrid",)
    cases: ClassVar = (
        Case((((2, 2, 3), "f32"),), {"size": (3, 4)}),
        Case((((1, 3, 4), "f32"),), {"size": (2, 1, 3), "align_corners": True}),
        Case((((0, 2, 3), "f64"),), {"size": (2, 2)}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t, r = n.arg(0).tensor, len(self.size)
        if r not in (2, 3) or t.shape[1:] != (r, r + 1) or not t.dtype.is_float:
            raise Refusal(f"theta {t} for an image of {list(self.size)}")
        return [TensorType(checked_shape((t.shape[0], *self.size, r)), t.dtype)]

    def _line(self, i: Any, d: Any) -> Any:
        """Where element i of d lies between -1 and 1."""
        return i * 2 / (d - 1) - 1 if self.align_corners else (i * 2 + 1) / d - 1

    def ref(self, n: Node, theta: Any) -> Any:
        kind = np.float64 if theta.dtype == np.float64 else np.float32
        sizes = numbers(self.size)
        with np.errstate(all="ignore"):
            lines = [self._line(np.arange(d, dtype=kind), kind(d)) for d in sizes]
        lines = [np.where(np.isfinite(v), v, kind(-1)) for v in lines]
        grid = np.stack([*reversed(np.meshgrid(*lines, indexing="ij")), np.ones(sizes, kind)], -1)
        return np.einsum("nrk,...k->n...r", theta.astype(kind), grid).astype(theta.dtype)

    def lower(self, k: Lowering) -> Lowered:
        theta = k.x()
        r = len(self.size)

        def element(*i: Dim) -> Scalar:
            total = theta(i[0], i[-1], r)
            for a, d in enumerate(self.size):
                at = scalar.cast(Index(i[1 + a]), total.dtype)
                p: Scalar = Const(-1.0, total.dtype)
                if not (self.align_corners and d == 1):
                    p = self._line(at, real(d, at))
                total = total + theta(i[0], i[-1], r - 1 - a) * p
            return total

        return k.map(element)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        size = dims_of(n.arg(1), "size of AffineGrid")
        op = cls(tuple(size[2:]), bool(n.attr("align_corners", 0)))
        return [b.op(op, n.arg(0), name=n.output_names)]


@operator
class Col2Im(Op):
    """Columns [n, c * block, places] added up in an image [n, c, *image]; pads: begins, ends."""

    image: tuple[int, ...] = ()
    block: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    onnx: ClassVar = ("Col2Im",)
    cases: ClassVar = (
        Case((((1, 5, 5), "f32"),), {"image": (5, 5), "block": (1, 5), "strides": (1, 1),
                                     "pads": (0, 0, 0, 0), "dilations": (1, 1)}),
        Case((((2, 8, 9), "f32"),), {"image": (5, 5), "block": (2, 2), "strides": (2, 2),
                                     "pads": (1, 1, 0, 0), "dilations": (1, 1)}),
        Case((((1, 6, 4), "i32"),), {"image": (8,), "block": (3,), "strides": (1,),
                                     "pads": (0, 0), "dilations": (2,)}),
    )  # fmt: skip

    def _counts(self) -> list[int]:
        """Places of the block along each axis."""
        r = len(self.image)
        return [
            (self.image[a] + self.pads[a] + self.pads[r + a]
             - self.dilations[a] * (self.block[a] - 1) - 1) // self.strides[a] + 1
            for a in range(r)
        ]  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        t, r = n.arg(0).tensor, len(self.image)
        lengths = [len(v) for v in (self.block, self.strides, self.dilations)]
        if not r or lengths != [r] * 3 or len(self.pads) != 2 * r or t.rank != 3:
            raise Refusal(f"columns {t} for an image {list(self.image)}")
        if min(*self.image, *self.block, *self.strides, *self.dilations) < 1 or min(self.pads) < 0:
            raise Refusal("an extent, stride, dilation or pad of Col2Im is not valid")
        size = int(np.prod([float(v) for v in self.block]))
        if isinstance(t.shape[1], int) and t.shape[1] % size:
            raise Refusal(f"{t.shape[1]} rows are not made of blocks of {size}")
        counts = self._counts()
        if min(counts) < 1 or may_differ(t.shape[2], dims.product(counts)):
            raise Refusal(f"{t.shape[2]} columns for {counts} places")
        shape = (t.shape[0], dims.floordiv(t.shape[1], size), *self.image)
        return [TensorType(checked_shape(shape), t.dtype)]

    def ref(self, n: Node, x: Any) -> Any:
        r, counts = len(self.image), self._counts()
        size = int(np.prod(self.block))
        whole = [d + self.pads[a] + self.pads[r + a] for a, d in enumerate(self.image)]
        c = x.shape[1] // size
        y = np.zeros((x.shape[0], c, *whole), dtypes.of(x.dtype).compute.numpy)
        cells = x.reshape(x.shape[0], c, *self.block, *counts)
        for at in np.ndindex(*self.block):
            place = tuple(
                slice(i * d, i * d + s * (m - 1) + 1, s)
                for i, d, s, m in zip(at, self.dilations, self.strides, counts, strict=True)
            )
            y[(slice(None), slice(None), *place)] += cells[(slice(None), slice(None), *at)]
        inner = tuple(slice(self.pads[a], self.pads[a] + d) for a, d in enumerate(self.image))
        return y[(slice(None), slice(None), *inner)].astype(x.dtype)

    def lower(self, k: Lowering) -> Lowered:
        x, counts = k.x(), self._counts()
        size = dims.product(self.block)

        def element(*i: Dim) -> Scalar:
            def term(*at: Dim) -> Scalar:
                tests: list[Scalar] = []
                column: Dim = 0
                for a, (b, m) in enumerate(zip(at, counts, strict=True)):
                    back = dims.mul(b, -self.dilations[a])
                    way = dims.add(i[2 + a], dims.add(self.pads[a], back))
                    s = self.strides[a]
                    place = dims.floordiv(way, s)
                    tests.append(Inside(place, 0, m))
                    if s > 1:
                        tests.append(Inside(dims.mod(way, s), 0, 1))
                    column = dims.add(dims.mul(column, m), place)
                row = dims.add(dims.mul(i[1], size), dims.linear(at, self.block))
                safe = inside(column, x.shape[2]) if not isinstance(x.shape[2], int) else column
                return scalar.where(_all(tests), x(i[0], row, safe), 0)

            return scalar.reduce("sum", self.block, term)

        return k.map(element)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        image = ints_of(n.arg(1), "image shape of Col2Im")
        block = ints_of(n.arg(2), "block shape of Col2Im")
        one = (1,) * len(image)
        op = cls(image, block, tuple(n.attr("strides", one)),
                 tuple(n.attr("pads", (0,) * 2 * len(image))), tuple(n.attr("dilations", one)))
        return [b.op(op, n.arg(0), name=n.output_names)]  # fmt: skip


@operator
class DeformConv(Op):
    """Convolution of x [n, c, h, w] whose taps are moved by offsets and weighted by a mask.

    Inputs: x, weights [m, c / group, kh, kw], offset [n, offset_group * kh * kw * 2, oh, ow]
    (y before x), bias [m], mask [n, offset_group * kh * kw, oh, ow]. Outside of x lies zero.
    """

    strides: tuple[int, ...] = (1, 1)
    pads: tuple[int, ...] = (0, 0, 0, 0)
    dilations: tuple[int, ...] = (1, 1)
    group: int = 1
    offset_group: int = 1
    onnx: ClassVar = ("DeformConv",)
    cases: ClassVar = (
        Case((((1, 2, 4, 5), "f32"), ((3, 2, 2, 2), "f32"), ((1, 8, 3, 4), "f32"))),
        Case((((2, 4, 5, 5), "f32"), ((2, 2, 3, 3), "f32"), ((2, 36, 3, 3), "f32"),
              ((2,), "f32"), ((2, 18, 3, 3), "f32")),
             {"strides": (2, 2), "pads": (1, 1, 1, 1), "group": 2, "offset_group": 2}),
        Case((((1, 1, 5, 4), "f32"), ((1, 1, 2, 2), "f32"), ((1, 8, 3, 2), "f32"), None,
              ((1, 4, 3, 2), "f32")), {"dilations": (2, 2)}),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, w, offset = n.arg(0).tensor, n.arg(1).tensor, n.arg(2).tensor
        if x.rank != 4 or w.rank != 4 or offset.rank != 4 or not x.dtype.is_float:
            raise Refusal(f"deformable convolution of {x} by {w} with offsets {offset}")
        if len(self.strides) != 2 or len(self.pads) != 4 or len(self.dilations) != 2:
            raise Refusal("strides, pads and dilations are not those of an image")
        if min(*self.strides, *self.dilations, self.group, self.offset_group) < 1:
            raise Refusal("a stride, dilation or group is not positive")
        c, kh, kw = x.shape[1], w.shape[2], w.shape[3]
        taps = dims.product((kh, kw, self.offset_group))
        if not all(isinstance(d, int) for d in (c, *w.shape)):
            raise Refusal("the number of channels and the kernel must be known")
        if (c != dims.mul(w.shape[1], self.group) or dims.mod(w.shape[0], self.group) != 0
                or dims.mod(c, self.offset_group) != 0):  # fmt: skip
            raise Refusal(f"{c} channels in {self.group} groups for weights {w}")
        out = [self._extent(x.shape[2 + a], w.shape[2 + a], a) for a in range(2)]
        want = [(offset.shape, (x.shape[0], dims.mul(taps, 2), *out))]
        if n.input(3) is not None:
            want.append((n.arg(3).shape, (w.shape[0],)))
        if n.input(4) is not None:
            want.append((n.arg(4).shape, (x.shape[0], taps, *out)))
        for have, need in want:
            if tuple(have) != tuple(need):
                raise Refusal(f"an input of shape {list(have)} should be {list(need)}")
        return [TensorType(checked_shape((x.shape[0], w.shape[0], *out)), x.dtype)]

    def _extent(self, size: Dim, kernel: Dim, a: int) -> Dim:
        reach = dims.mul(dims.add(kernel, -1), self.dilations[a])
        room = dims.add(size, self.pads[a] + self.pads[2 + a])
        return dims.add(dims.floordiv(dims.add(room, dims.add(dims.mul(reach, -1), -1)),
                                      self.strides[a]), 1)  # fmt: skip

    def macs(self, n: Node) -> int:
        w = n.arg(1).shape
        return dims.upper(dims.product((n.outputs[0].tensor.size, *w[1:])))

    def ref(self, n: Node, x: Any, w: Any, offset: Any, bias: Any = None, mask: Any = None) -> Any:
        kind = np.float64 if x.dtype == np.float64 else np.float32
        m, per, kh, kw = w.shape
        batch, c, _, _ = x.shape
        oh, ow = offset.shape[2:]
        moves = offset.reshape(batch, self.offset_group, kh, kw, 2, oh, ow).astype(kind)
        gate = np.ones((batch, self.offset_group, kh, kw, oh, ow), kind)
        if mask is not None:
            gate = mask.reshape(gate.shape).astype(kind)
        y = np.zeros((batch, m, oh, ow), kind)
        rows, columns = np.arange(oh)[:, None], np.arange(ow)
        for b, i, p, q in itertools.product(range(batch), range(c), range(kh), range(kw)):
            g = i // (c // self.offset_group)
            top = rows * self.strides[0] - self.pads[0] + p * self.dilations[0]
            left = columns * self.strides[1] - self.pads[1] + q * self.dilations[1]
            v = _bilinear_ref(x[b, i].astype(kind), top + moves[b, g, p, q, 0],
                              left + moves[b, g, p, q, 1]) * gate[b, g, p, q]  # fmt: skip
            mine = slice(i // per * (m // self.group), (i // per + 1) * (m // self.group))
            y[b, mine] += v * w[mine, i % per, p, q].astype(kind)[:, None, None]
        if bias is not None:
            y += bias.reshape(-1, 1, 1)
        return y.astype(x.dtype)

    def lower(self, k: Lowering) -> Lowered:
        x, w, offset = k.x(0), k.x(1), k.x(2)
        m, per, kh, kw = w.shape
        group_m = dims.floordiv(m, self.group)
        group_c = dims.floordiv(x.shape[1], self.offset_group)

        def element(b: Dim, o: Dim, i: Dim, j: Dim) -> Scalar:
            def term(c: Dim, p: Dim, q: Dim) -> Scalar:
                channel = dims.add(dims.mul(dims.floordiv(o, group_m), per), c)
                g = dims.floordiv(channel, group_c)
                tap = dims.linear((g, p, q), (self.offset_group, kh, kw))
                where = [
                    offset(b, dims.add(dims.mul(tap, 2), a), i, j)
                    + scalar.cast(Index(self._start(a, (i, j)[a], (p, q)[a])), x.dtype.compute)
                    for a in range(2)
                ]
                v = _bilinear(x, (b, channel), where) * w(o, c, p, q)
                return v * k.x(4)(b, tap, i, j) if k.has(4) else v

            total = scalar.reduce("sum", [per, kh, kw], term)
            return total + k.x(3)(o) if k.has(3) else total

        return k.map(element)

    def _start(self, a: int, place: Dim, tap: Dim) -> Dim:
        moved = dims.add(dims.mul(place, self.strides[a]), dims.mul(tap, self.dilations[a]))
        return dims.add(moved, -self.pads[a])


def _bilinear_ref(x: Array, row: Array, column: Array) -> Any:
    h, w = x.shape
    low_r, low_c = np.floor(row), np.floor(column)
    y: Any = 0
    for dr, dc in itertools.product((0, 1), (0, 1)):
        r, c = low_r + dr, low_c + dc
        ok = (r >= 0) & (r <= h - 1) & (c >= 0) & (c <= w - 1)
        safe_r, safe_c = np.where(ok, r, 0).astype(int), np.where(ok, c, 0).astype(int)
        share = (1 - np.abs(row - r)) * (1 - np.abs(column - c))
        y = y + np.where(ok, x[safe_r, safe_c], 0) * share
    return y


def _bilinear(x: TensorExpr, lead: Sequence[Dim], where: Sequence[Scalar]) -> Scalar:
    """x[*lead, where[0], where[1]] between four elements, zero outside."""
    low = [scalar.call("floor", p) for p in where]
    total: Scalar | None = None
    for taps in itertools.product((0.0, 1.0), (0.0, 1.0)):
        at = [p + t if t else p for p, t in zip(low, taps, strict=True)]
        extents = x.shape[-2:]
        pairs = list(zip(at, extents, strict=True))
        tests = [t for q, d in pairs for t in (q >= 0, q <= real(d, q) - 1)]
        shares = [p - q for p, q in zip(where, low, strict=True)]
        w = [f if t else 1.0 - f for f, t in zip(shares, taps, strict=True)]
        place = [clamped(q, d) for q, d in zip(at, extents, strict=True)]
        v = scalar.where(_all(tests), x(*lead, *place) * (w[0] * w[1]), 0)
        total = v if total is None else total + v
    assert total is not None
    return total
