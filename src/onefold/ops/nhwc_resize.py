"""Resizing of NHWC images as TFLite does it, its rounding included.

The positions are computed when the model is compiled, since the size of the result is known then.
Source of the arithmetic: TFLite's reference kernels resize_bilinear.h, resize_nearest_neighbor.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node
from onefold.ir.scalar import Scalar, TensorExpr
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Lowering, Op, Refusal, operator
from onefold.ops.known import MAX_TABLE, checked_shape, table

F = np.float32


@dataclass(frozen=True)
class Resize2D(Op):
    """x [n, h, w, c] -> [n, size[0], size[1], c]; with first = 2 the image is [n, c, h, w]."""

    size: tuple[int, int] = (1, 1)
    align_corners: bool = False
    half_pixel_centers: bool = False
    first: int = 1  # the axis of the rows

    def infer(self, n: Node) -> Sequence[TensorType]:
        x = n.arg(0).tensor
        fits = len(self.size) == 2 and 1 <= min(self.size) <= max(self.size) <= MAX_TABLE
        if x.rank != 4 or not fits:
            raise Refusal(f"resizing rank {x.rank} to {self.size}")
        if self.first not in (1, 2):
            raise Refusal(f"an image cannot begin at axis {self.first}")
        rest = x.shape[self.first + 2 :]
        for d in x.shape[self.first : self.first + 2]:
            if not isinstance(d, int) or d < 1:
                raise Refusal(f"the size of the image must be known, it is {d}")
        return [TensorType(checked_shape((*x.shape[: self.first], *self.size, *rest)), x.dtype)]

    def extents(self, shape: Sequence[Any]) -> list[tuple[int, int]]:
        """(input, output) extent of each spatial axis."""
        return [(int(shape[self.first]), self.size[0]), (int(shape[self.first + 1]), self.size[1])]

    def ref(self, n: Node, *x: Any) -> Any:
        if self.first == 1:
            return self.numpy(x[0], x[0].shape)
        return np.moveaxis(self.numpy(np.moveaxis(x[0], 1, -1), x[0].shape), -1, 1)

    def numpy(self, v: Any, shape: Sequence[Any]) -> Any:
        """The reference on [n, h, w, c]; shape is that of the input as it is."""
        raise NotImplementedError(self.name)

    def nhwc(self, index: Sequence[Dim]) -> tuple[Dim, ...]:
        """An index of the result, or of the input, as batch, row, column, channel."""
        b, i, j, k = index
        return (b, i, j, k) if self.first == 1 else (b, j, k, i)

    def own(self, b: Dim, y: Dim, q: Dim, c: Dim) -> tuple[Dim, ...]:
        """The other way round."""
        return (b, y, q, c) if self.first == 1 else (b, c, y, q)


@dataclass(frozen=True)
class Positions:
    """Per result row: the rows below and above, and the share of the upper one."""

    low: Array
    high: Array
    share: Array  # f32, or i32 in 1/1024


def _float_positions(src: int, dst: int, corners: bool, half: bool) -> Positions:
    scale = F(src) / F(dst)
    if corners and dst > 1:
        scale = F(src - 1) / F(dst - 1)
    at = np.arange(dst).astype(F)
    at = (at + F(0.5)) * scale - F(0.5) if half else at * scale
    low = np.maximum(np.floor(at).astype(np.int64), 0)
    high = np.minimum(np.ceil(at).astype(np.int64), src - 1)
    return Positions(np.minimum(low, src - 1), np.maximum(high, 0), (at - low.astype(F)).astype(F))


def _int_positions(src: int, dst: int, corners: bool, half: bool) -> Positions:
    scale = ((src << 10) + dst // 2) // dst
    if corners and dst > 1:
        scale = (((src - 1) << 10) + (dst - 1) // 2) // (dst - 1)
    at = np.arange(dst, dtype=np.int64) * scale
    if half:
        at = at + scale // 2 - 512
    low = np.maximum(np.fix(at / 1024).astype(np.int64), 0)
    high = np.minimum(np.fix((at + 1023) / 1024).astype(np.int64), src - 1)
    low = np.minimum(low, src - 1)
    return Positions(low, np.maximum(high, 0), (at - 1024 * low).astype(np.int32))


@operator
class ResizeBilinear2D(Resize2D):
    """Linear interpolation: in f32 (of u8 then rounded), of i8 and i16 in steps of 1/1024."""

    size: tuple[int, int] = (1, 1)
    cases: ClassVar = (
        Case((((1, 3, 4, 2), "f32"),), {"size": (7, 5), "half_pixel_centers": True}),
        Case((((2, 3, 4, 2), "i8"),), {"size": (7, 5)}, seed=1),
        Case((((1, 5, 4, 1), "u8"),), {"size": (9, 7), "align_corners": True}, seed=2),
        Case((((1, 1, 1, 3), "i16"),), {"size": (2, 2), "half_pixel_centers": True}, seed=3),
        Case((((1, 2, 3, 4), "f32"),), {"size": (7, 5), "first": 2}),
    )

    def positions(self, kind: np.dtype[Any], shape: Sequence[Any]) -> list[Positions]:
        make = _int_positions if kind in (np.int8, np.int16) else _float_positions
        return [
            make(a, b, self.align_corners, self.half_pixel_centers) for a, b in self.extents(shape)
        ]

    def infer(self, n: Node) -> Sequence[TensorType]:
        if n.arg(0).dtype.name not in ("f32", "u8", "i8", "i16"):
            raise Refusal(f"bilinear resizing of {n.arg(0).dtype}")
        return super().infer(n)

    def numpy(self, v: Any, shape: Sequence[Any]) -> Any:
        kind = v.dtype
        rows, cols = self.positions(kind, shape)
        whole = kind in (np.int8, np.int16)
        one: Any = 1024 if whole else F(1)
        wide = v.astype(np.int64) if whole else v.astype(F)
        fy = rows.share[:, None, None].astype(np.int64 if whole else F)
        fx = cols.share[None, :, None].astype(np.int64 if whole else F)
        total = 0
        for r, wy, c, wx in (
            (rows.low, one - fy, cols.low, one - fx), (rows.high, fy, cols.low, one - fx),
            (rows.low, one - fy, cols.high, fx), (rows.high, fy, cols.high, fx),
        ):  # fmt: skip
            total = total + wide[:, r][:, :, c] * wy * wx
        if whole:
            s = np.sign(total) + (total == 0) * -1
            return np.fix((total + s * (1 << 19)) / (1 << 20)).astype(kind)
        real = np.asarray(total)
        return (np.floor(real + F(0.5)) if kind == np.uint8 else real).astype(kind)

    def lower(self, k: Lowering) -> TensorExpr:
        x = k.x(0)
        pos = self.positions(x.dtype.numpy, x.shape)
        whole = x.dtype in (dtypes.i8, dtypes.i16)
        kind = dtypes.i64 if whole else dtypes.f32
        lows = [table(p.low.astype(np.int32)) for p in pos]
        highs = [table(p.high.astype(np.int32)) for p in pos]
        shares = [table(p.share) for p in pos]

        def element(*index: Dim) -> Scalar:
            b, y, q, c = self.nhwc(index)
            at = (y, q)
            lo, hi = [
                [scalar.loaded(t[a](at[a]), x.shape[self.first + a], check=False) for a in (0, 1)]
                for t in (lows, highs)
            ]
            f = [shares[a](at[a]).cast(kind) for a in (0, 1)]
            rest = [(1024 if whole else 1.0) - v for v in f]
            total: Scalar | None = None
            for r, wy, s, wx in (
                (lo[0], rest[0], lo[1], rest[1]), (hi[0], f[0], lo[1], rest[1]),
                (lo[0], rest[0], hi[1], f[1]), (hi[0], f[0], hi[1], f[1]),
            ):  # fmt: skip
                part = x(*self.own(b, r, s, c)).cast(kind) * wy * wx
                total = part if total is None else total + part
            assert total is not None
            if whole:
                half = scalar.where(total > 0, total * 0 + (1 << 19), total * 0 - (1 << 19))
                total = scalar.binary("/", total + half, scalar.Const(1 << 20, kind))
            if x.dtype is dtypes.u8:
                total = scalar.call("floor", total + 0.5)
            return total.cast(x.dtype)

        return k.map(element)


@operator
class ResizeNearest2D(Resize2D):
    """The nearest element of the input."""

    size: tuple[int, int] = (1, 1)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((1, 3, 4, 2), "f32"),), {"size": (7, 5)}),
        Case((((1, 3, 4, 2), "i8"),), {"size": (6, 2), "half_pixel_centers": True}),
        Case((((1, 3, 4, 2), "u8"),), {"size": (5, 9), "align_corners": True}),
        Case((((1, 2, 3, 4), "u8"),), {"size": (5, 9), "first": 2}),
    )

    def places(self, shape: Sequence[Any]) -> list[Array]:
        out = []
        for src, dst in self.extents(shape):
            if self.align_corners and dst > 1:
                scale = F(src - 1) / F(dst - 1)
            else:
                scale = F(src) / F(dst)
            at = (np.arange(dst).astype(F) + F(0.5 if self.half_pixel_centers else 0)) * scale
            whole = np.floor(at + F(0.5)) if self.align_corners else np.floor(at)
            out.append(np.clip(whole.astype(np.int32), 0, src - 1))
        return out

    def numpy(self, v: Any, shape: Sequence[Any]) -> Any:
        rows, cols = self.places(shape)
        return v[:, rows][:, :, cols]

    def lower(self, k: Lowering) -> TensorExpr:
        x = k.x(0)
        rows, cols = map(table, self.places(x.shape))

        def element(*index: Dim) -> Scalar:
            b, y, q, c = self.nhwc(index)
            r = scalar.loaded(rows(y), x.shape[self.first], check=False)
            s = scalar.loaded(cols(q), x.shape[self.first + 1], check=False)
            return x(*self.own(b, r, s, c))

        return k.map(element)
