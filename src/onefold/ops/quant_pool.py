"""Pooling, softmax and reductions of quantized TFLite models (NHWC).

Source of the arithmetic: TFLite's reference kernels (integer_ops/pooling.h, softmax.h, reduce.h).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.dtypes import DType
from onefold.ir.graph import Node
from onefold.ir.scalar import Index, Scalar, TensorExpr
from onefold.ir.types import TensorType
from onefold.ops import fixedpoint as fx
from onefold.ops.base import Case, Code, Lowered, Lowering, Op, Refusal, axis_of, operator
from onefold.ops.quant_arith import Multiplier, rescaled
from onefold.ops.window import Axis, all_of, check_axes


@operator
class QuantPool2D(Op):
    """x [n, h, w, c]: the largest or the mean element of each window, clamped to [lo, hi].

    pads: top, left, bottom, right; padding never counts. A mean is rounded, halves away from 0.
    """

    kind: str = "average"  # or "max"
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    lo: int = -128
    hi: int = 127
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((1, 6, 5, 3), "i8"),), {"kernel": (3, 2), "strides": (2, 1)}),
        Case((((2, 5, 5, 2), "i8"),), {"kernel": (3, 3), "pads": (1, 1, 1, 1)}, seed=1),
        Case((((2, 5, 5, 2), "u8"),), {"kernel": (2, 3), "strides": (2, 2), "pads": (0, 1, 1, 1),
             "lo": 3, "hi": 250}, seed=2),
        Case((((1, 4, 4, 2), "i8"),), {"kind": "max", "kernel": (3, 3), "pads": (1, 1, 1, 1)}),
    )  # fmt: skip

    def axes(self, shape: Sequence[Dim]) -> list[Axis]:
        p = self.pads
        return [
            Axis(shape[1 + a], self.kernel[a], self.strides[a], 1, p[a], p[2 + a]) for a in (0, 1)
        ]

    def infer(self, n: Node) -> Sequence[TensorType]:
        x = n.arg(0).tensor
        if x.rank != 4 or not x.dtype.is_int:
            raise Refusal(f"pooling of rank {x.rank} and type {x.dtype}")
        axes = self.axes(x.shape)
        check_axes(axes, self.kind)
        return [TensorType((x.shape[0], axes[0].out, axes[1].out, x.shape[3]), x.dtype, x.quant)]

    def ref(self, n: Node, *x: Any) -> Any:
        a, b = self.axes(x[0].shape)
        rows, cols = dims.upper(a.out), dims.upper(b.out)
        y = np.zeros((x[0].shape[0], rows, cols, x[0].shape[3]), np.int64)
        for i in range(rows):
            for j in range(cols):
                r, q = dims.upper(a.at(i, 0)), dims.upper(b.at(j, 0))
                h, w = self.kernel
                part = x[0][:, max(r, 0) : r + h, max(q, 0) : q + w]
                if self.kind == "max":
                    y[:, i, j] = part.max(axis=(1, 2))
                else:
                    count = part.shape[1] * part.shape[2]
                    s = part.astype(np.int64).sum(axis=(1, 2))
                    y[:, i, j] = np.sign(s) * ((np.abs(s) + count // 2) // count)
        return np.clip(y, self.lo, self.hi).astype(x[0].dtype)

    def lower(self, k: Lowering) -> TensorExpr:
        x = k.x(0)
        axes = self.axes(x.shape)
        most = self.kind == "max"

        def element(b: Dim, y: Dim, q: Dim, c: Dim) -> Scalar:
            def tap(r: Dim, s: Dim) -> Scalar:
                at = [axes[0].at(y, r), axes[1].at(q, s)]
                inside = all_of([a.inside(i) for a, i in zip(axes, at, strict=True)])
                v = x(b, at[0], at[1], c).cast(dtypes.i32)
                return v if inside is None else scalar.where(inside, v, -32768 if most else 0)

            acc = scalar.reduce("max" if most else "sum", self.kernel, tap)
            if not most:
                count = dims.product(
                    a.count(i, 0, a.size) if a.guarded else a.kernel
                    for a, i in zip(axes, (y, q), strict=True)
                )
                acc = scalar.call("rounded_quotient", acc, Index(count).cast(dtypes.i32))
            return scalar.clamp(acc, self.lo, self.hi).cast(x.dtype)

        return k.map(element)


@operator
class QuantSoftmax(Op):
    """Softmax over the last axis of 8-bit values; the result's scale is 1/256, its zero the
    smallest value of `dtype` (1/32768 for i16).

    Inputs: x, table [256] of i32: exp(-scale * beta * d) for the difference d to the row's
    maximum, with 0 integer bits, 0 where too small to count.
    """

    dtype: DType = dtypes.i8
    exact: ClassVar = True

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, t = n.arg(0).tensor, n.arg(1).tensor
        if x.rank < 1 or x.dtype.bits != 8 or t.shape != (256,) or t.dtype is not dtypes.i32:
            raise Refusal(f"softmax of {x.dtype} with a table of {t.shape}")
        return [TensorType(x.shape, self.dtype)]

    def ref(self, n: Node, *x: Any) -> Any:
        v = x[0].astype(np.int64)
        e = x[1].astype(np.int64)[v.max(axis=-1, keepdims=True, initial=-128) - v]
        total = fx.wrap(fx.rounding_divide_by_pot(e, 12).sum(axis=-1, keepdims=True), 32)
        scale, over = fx.get_reciprocal(total, 12)
        share = fx.sat_rounding_doubling_high_mul(scale, e)
        y = fx.rounding_divide_by_pot(share, over + 31 - self.dtype.bits) + self.dtype.lo
        return np.clip(y, self.dtype.lo, self.dtype.hi).astype(self.dtype.numpy)

    def lower(self, k: Lowering) -> Lowered:
        shape = k.x(0).shape
        rows, depth = k.dim(dims.product(shape[:-1])), k.dim(shape[-1])
        put = k.store(0, "i", f"({self.dtype.ctype})(v < {self.dtype.hi} ? v : {self.dtype.hi})")
        return Code(f"""
for (ix row = 0; row < {rows}; row++) {{
  const {k.ctype(0)} *x = x0 + row * {depth};
  int32_t top = x[0], sum = 0;
  for (ix c = 1; c < {depth}; c++) top = x[c] > top ? x[c] : top;
  for (ix c = 0; c < {depth}; c++) sum += of_rounding_divide_by_pot(x1[top - x[c]], 12);
  int over;
  const int32_t scale = of_get_reciprocal(sum, 12, &over);
  for (ix c = 0; c < {depth}; c++) {{
    const ix i = row * {depth} + c;
    const int32_t share = of_sat_rounding_doubling_high_mul(scale, x1[top - x[c]]);
    const int32_t v = of_rounding_divide_by_pot(share, over + {31 - self.dtype.bits}) + ({self.dtype.lo});
    {put}
  }}
}}""")  # noqa: E501

    cases: ClassVar = tuple(
        Case((((*rows, 11), kind), np.sort(np.random.default_rng(1).integers(
            0, (1 << 31) - 1, 256).astype(np.int32))[::-1].copy()), {"dtype": to}, s)
        for rows, kind, to, s in [((3,), "i8", dtypes.i8, 0), ((), "u8", dtypes.u8, 1),
                                  ((2, 2), "i8", dtypes.i16, 2)]
    )  # fmt: skip


@operator
class QuantSum(Op):
    """Sum over `axes` of x - zero_x, times a multiplier (which holds 1/count for a mean)."""

    axes: tuple[int, ...] = ()
    keepdims: bool = False
    zero_x: int = 0
    zero_y: int = 0
    by_y: Multiplier = (1 << 30, 1)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((2, 3, 4, 5), "i8"),), {"axes": (1, 2), "zero_x": -3, "by_y": (1987654321, -4)}),
        Case((((2, 7), "u8"),), {"axes": (-1,), "keepdims": True, "zero_x": 128, "zero_y": 9,
             "by_y": (1987654321, -3)}),
        Case((((3,), "i16"),), {"axes": (0,)}),
    )  # fmt: skip

    def resolved(self, rank: int) -> tuple[int, ...]:
        return tuple(sorted({axis_of(a, rank) for a in self.axes}))

    def infer(self, n: Node) -> Sequence[TensorType]:
        x = n.arg(0).tensor
        gone = self.resolved(x.rank)
        if self.keepdims:
            shape = tuple(1 if a in gone else d for a, d in enumerate(x.shape))
        else:
            shape = tuple(d for a, d in enumerate(x.shape) if a not in gone)
        return [TensorType(shape, x.dtype)]

    def ref(self, n: Node, *x: Any) -> Any:
        gone = self.resolved(x[0].ndim)
        s = (x[0].astype(np.int64) - self.zero_x).sum(axis=gone, keepdims=self.keepdims)
        y = fx.multiply_by_quantized_multiplier(fx.wrap(s, 32), *self.by_y) + self.zero_y
        kind = np.iinfo(x[0].dtype)
        return np.asarray(np.clip(y, kind.min, kind.max).astype(x[0].dtype))

    def lower(self, k: Lowering) -> TensorExpr:
        x = k.x(0)
        gone = self.resolved(len(x.shape))

        def element(*i: Dim) -> Scalar:
            rest = iter(d for a, d in enumerate(i) if not (self.keepdims and a in gone))
            base: list[Dim] = [0 if a in gone else next(rest) for a in range(len(x.shape))]

            def term(*r: Dim) -> Scalar:
                at = list(base)
                for a, d in zip(gone, r, strict=True):
                    at[a] = d
                return x(*at).cast(dtypes.i32) - self.zero_x

            acc = scalar.reduce("sum", [x.shape[a] for a in gone], term)
            y = rescaled(acc, self.by_y) + self.zero_y
            return scalar.clamp(y, x.dtype.lo, x.dtype.hi).cast(x.dtype)

        return k.map(element)
