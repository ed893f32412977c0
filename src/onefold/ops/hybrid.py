"""Hybrid operators of TFLite: float activations are made integers on the fly, weights are int8.

q = round(x / scale) + zero per batch; a sum of products of integers then becomes a float again by
both scales. Source of the arithmetic: TFLite's tensor_utils and hybrid reference kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.graph import Node
from onefold.ir.scalar import Scalar, TensorExpr
from onefold.ir.types import TensorType
from onefold.ops import fixedpoint as fx
from onefold.ops.base import Case, Code, Lowered, Lowering, Op, Refusal, operator
from onefold.ops.window import Axis, all_of, check_axes

F = np.float32

NANS = np.array([[np.nan, 1, -2, 3], [1, 2, np.nan, 3], [np.nan] * 4], F)


@operator
class DynamicQuantize(Op):
    """x [n, ...] f32 -> q i8 of x's shape, scale f32 [n], zero i32 [n] (0 unless asymmetric). NaN
    becomes the least integer."""

    asymmetric: bool = False
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3, 7), "f32"),)),
        Case((((2, 3, 5), "f32"),), {"asymmetric": True}, low=-1, high=4),
        Case((np.zeros((2, 4), F),), {"asymmetric": True}),
        Case((np.array([[1, np.inf, 2, -1], [3, 0, -np.inf, 1]], F),), {"asymmetric": True}),
        Case((NANS,)),
        Case((NANS,), {"asymmetric": True}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        x = n.arg(0).tensor
        if x.rank < 1 or x.dtype is not dtypes.f32:
            raise Refusal(f"hybrid quantization of rank {x.rank} and type {x.dtype}")
        rows = (x.shape[0],)
        return [TensorType(x.shape, dtypes.i8), TensorType(rows, dtypes.f32),
                TensorType(rows, dtypes.i32)]  # fmt: skip

    def ref(self, n: Node, *x: Any) -> Any:
        q, scales, zeros = np.zeros(x[0].shape, np.int8), [], []
        for k, row in enumerate(x[0]):
            scale, zero, inverse = (_asymmetric if self.asymmetric else _symmetric)(row)
            low = -128 if self.asymmetric else -127
            if inverse:
                real = fx.round_away((F(zero) + row * inverse).astype(F))
                q[k] = np.clip(np.where(np.isnan(real), low, real), low, 127)
            scales.append(scale)
            zeros.append(zero)
        return q, np.array(scales, F), np.array(zeros, np.int32)

    def lower(self, k: Lowering) -> Lowered:
        shape = k.x(0).shape
        rows, size = k.dim(shape[0]), k.dim(dims.product(shape[1:]))
        return Code(f"""
for (ix n = 0; n < {rows}; n++) {{
  const float *x = x0 + n * {size};
  int8_t *q = y0 + n * {size};
  float lo, hi, inverse;
  of_range_f32(x, {size}, &lo, &hi);
  y2[n] = {"of_asymmetric_range" if self.asymmetric else "of_symmetric_range"}(lo, hi, &y1[n], &inverse);
  const float zero = (float)y2[n];
  if (inverse == 0.0f)
    for (ix i = 0; i < {size}; i++) q[i] = 0;
  else
    OF_EACH for (ix i = 0; i < {size}; i++)
      q[i] = (int8_t)of_quantize_clamped_i32(zero + x[i] * inverse, {-128 if self.asymmetric else -127});
}}""")  # noqa: E501


def _symmetric(row: Any) -> tuple[Any, int, Any]:
    top = np.fmax.reduce(np.abs(row), axis=None, initial=F(0))
    return (F(1), 0, F(0)) if top == 0 else (F(top / F(127)), 0, F(127) / top)


def _asymmetric(row: Any) -> tuple[Any, int, Any]:
    lo, hi = (float(f.reduce(row, axis=None, initial=F(0))) for f in (np.fmin, np.fmax))
    if lo == hi:
        return F(1), 0, F(0)
    scale = (hi - lo) / 255.0
    if np.isinf(scale):
        return F(scale), 0, F(0)
    from_lo, from_hi = -128.0 - lo / scale, 127.0 - hi / scale
    better = 128.0 + abs(lo / scale) < 127.0 + abs(hi / scale)
    zero = np.clip(np.floor(abs(z := from_lo if better else from_hi) + 0.5) * np.sign(z), -128, 127)
    return F(scale), int(zero), F(1) / F(scale)


@dataclass(frozen=True)
class Hybrid(Op):
    """Inputs: q, w, bias or none, scale and zero per batch, scales of the weights."""

    def finish(self, k: Lowering, acc: Scalar, batch: Dim, channel: Dim) -> Scalar:
        y = acc.cast(dtypes.f32) * k.x(5).broadcast((channel,)) * k.x(3)(batch)
        return y + k.x(2)(channel) if k.has(2) else y

    def result(self, acc: Any, x: Sequence[Any]) -> Any:
        rows = (-1, *[1] * (acc.ndim - 1))
        y = acc.astype(F) * x[5] * x[3].reshape(rows)
        return np.asarray(y if x[2] is None else y + x[2], F)

    def check(self, n: Node, channels: Dim) -> None:
        x, w = n.arg(0), n.arg(1)
        if x.dtype is not dtypes.i8 or w.dtype is not dtypes.i8:
            raise Refusal(f"a hybrid operator of {x.dtype} and {w.dtype}")
        if n.arg(5).shape not in ((1,), (channels,)):
            raise Refusal(f"{n.arg(5).shape} scales for {channels} channels")
        bias = n.input(2)
        if bias is not None and bias.shape != (channels,):
            raise Refusal(f"a bias of {bias.shape} for {channels} channels")


def _case(x: Any, w: Any, channels: int, rows: int, seed: int, **attrs: Any) -> Case:
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.01, 0.02, rows).astype(F)
    zero = rng.integers(-9, 9, rows).astype(np.int32)
    return Case((x, w, ((channels,), "f32"), scale, zero, scale[:1]), attrs, seed)


@operator
class HybridMatMul(Hybrid):
    """q [n, k], w [o, k] -> f32 [n, o]."""

    cases: ClassVar = (
        _case(((1, 9), "i8"), ((4, 9), "i8"), 4, 1, 0),
        _case(((3, 5), "i8"), ((2, 5), "i8"), 2, 3, 1),
        _case(((2, 1), "i8"), ((1, 1), "i8"), 1, 2, 2),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, w = n.arg(0).tensor, n.arg(1).tensor
        if x.rank != 2 or w.rank != 2 or x.shape[1] != w.shape[1]:
            raise Refusal(f"shapes {x.shape} and {w.shape} cannot be multiplied")
        self.check(n, w.shape[0])
        return [TensorType((x.shape[0], w.shape[0]), dtypes.f32)]

    def ref(self, n: Node, *x: Any) -> Any:
        q = x[0].astype(np.int64) - x[4][:, None]
        return self.result(q @ x[1].astype(np.int64).T, x)

    def macs(self, n: Node) -> int:
        return dims.upper(n.outputs[0].tensor.size * n.arg(1).shape[1])

    def lower(self, k: Lowering) -> TensorExpr:
        x, w, zero = k.x(0), k.x(1), k.x(4)

        def element(b: Dim, o: Dim) -> Scalar:
            acc = scalar.reduce("sum", (w.shape[1],), lambda i: (
                x(b, i).cast(dtypes.i32) - zero(b)) * w(o, i).cast(dtypes.i32))  # fmt: skip
            return self.finish(k, acc, b, o)

        return k.map(element)


@dataclass(frozen=True)
class HybridWindow(Hybrid):
    """pads: top, left, bottom, right; padding counts as zero."""

    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def axes(self, x: dims.Shape, w: dims.Shape) -> list[Axis]:
        return [
            Axis(x[1 + a], w[1 + a], self.strides[a], self.dilations[a], self.pads[a],
                 self.pads[2 + a])
            for a in (0, 1)
        ]  # fmt: skip

    def shape_of(self, n: Node, channels: Dim) -> Sequence[TensorType]:
        x, w = n.arg(0).shape, n.arg(1).shape
        axes = self.axes(x, w)
        check_axes(axes, self.name)
        self.check(n, channels)
        return [TensorType((x[0], axes[0].out, axes[1].out, channels), dtypes.f32)]

    def taps(self, x: Any, w: Any, zero: Any) -> Any:
        """(row tap, column tap, what it multiplies [n, oh, ow, c])."""
        axes = self.axes(x.shape, w.shape)
        p = self.pads
        q = x.astype(np.int64) - zero.reshape(-1, 1, 1, 1)
        q = np.pad(q, ((0, 0), (p[0], p[2]), (p[1], p[3]), (0, 0)))
        for r in range(w.shape[1]):
            for s in range(w.shape[2]):
                rows = r * self.dilations[0] + np.arange(dims.upper(axes[0].out)) * self.strides[0]
                cols = s * self.dilations[1] + np.arange(dims.upper(axes[1].out)) * self.strides[1]
                yield r, s, q[:, rows][:, :, cols]


@operator
class HybridConv2D(HybridWindow):
    """q [n, h, w, c], w [o, kh, kw, c] -> f32 [n, oh, ow, o]."""

    cases: ClassVar = (
        _case(((2, 5, 6, 3), "i8"), ((4, 3, 2, 3), "i8"), 4, 2, 0, pads=(1, 1, 1, 0)),
        _case(((1, 5, 6, 3), "i8"), ((4, 1, 1, 3), "i8"), 4, 1, 1, strides=(2, 2)),
        _case(((1, 7, 7, 2), "i8"), ((1, 3, 3, 2), "i8"), 1, 1, 2, dilations=(2, 3)),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, w = n.arg(0).shape, n.arg(1).shape
        if len(x) != 4 or len(w) != 4 or x[3] != w[3]:
            raise Refusal(f"weights {w} do not fit an image {x}")
        return self.shape_of(n, w[0])

    def ref(self, n: Node, *x: Any) -> Any:
        w = x[1].astype(np.int64)
        return self.result(sum(q @ w[:, r, s].T for r, s, q in self.taps(x[0], w, x[4])), x)

    def macs(self, n: Node) -> int:
        return dims.upper(n.outputs[0].tensor.size * dims.product(n.arg(1).shape[1:]))

    def lower(self, k: Lowering) -> TensorExpr:
        x, w, zero = k.x(0), k.x(1), k.x(4)
        axes = self.axes(x.shape, w.shape)

        def element(b: Dim, y: Dim, q: Dim, o: Dim) -> Scalar:
            def tap(r: Dim, s: Dim) -> Scalar:
                at = [axes[0].at(y, r), axes[1].at(q, s)]
                inner = scalar.reduce("sum", (w.shape[3],), lambda i: (
                    x(b, *at, i).cast(dtypes.i32) - zero(b)) * w(o, r, s, i).cast(dtypes.i32))
                test = all_of([a.inside(i) for a, i in zip(axes, at, strict=True)])
                return inner if test is None else scalar.where(test, inner, 0)

            return self.finish(k, scalar.reduce("sum", w.shape[1:3], tap), b, o)

        return k.map(element)


@operator
class HybridDepthwiseConv2D(HybridWindow):
    """q [n, h, w, c], w [1, kh, kw, c * m] -> f32 [n, oh, ow, c * m]."""

    cases: ClassVar = (
        _case(((2, 5, 6, 3), "i8"), ((1, 3, 2, 3), "i8"), 3, 2, 0, pads=(1, 1, 1, 0)),
        _case(((1, 5, 6, 2), "i8"), ((1, 1, 1, 4), "i8"), 4, 1, 1, strides=(2, 2)),
        _case(((1, 7, 7, 1), "i8"), ((1, 3, 3, 1), "i8"), 1, 1, 2, dilations=(2, 3)),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, w = n.arg(0).shape, n.arg(1).shape
        fits = len(x) == 4 and len(w) == 4 and isinstance(x[3], int) and isinstance(w[3], int)
        if not fits or w[0] != 1 or not x[3] or w[3] % x[3]:
            raise Refusal(f"weights {w} do not fit an image {x}")
        return self.shape_of(n, w[3])

    def ref(self, n: Node, *x: Any) -> Any:
        w, m = x[1].astype(np.int64), x[1].shape[3] // x[0].shape[3]
        parts = (np.repeat(q, m, 3) * w[0, r, s] for r, s, q in self.taps(x[0], w, x[4]))
        return self.result(sum(parts), x)

    def macs(self, n: Node) -> int:
        return dims.upper(n.outputs[0].tensor.size * dims.product(n.arg(1).shape[1:3]))

    def lower(self, k: Lowering) -> TensorExpr:
        x, w, zero = k.x(0), k.x(1), k.x(4)
        axes = self.axes(x.shape, w.shape)
        m = dims.floordiv(w.shape[3], x.shape[3])

        def element(b: Dim, y: Dim, q: Dim, o: Dim) -> Scalar:
            def tap(r: Dim, s: Dim) -> Scalar:
                at = [axes[0].at(y, r), axes[1].at(q, s)]
                v = x(b, *at, dims.floordiv(o, m)).cast(dtypes.i32) - zero(b)
                v = v * w(0, r, s, o).cast(dtypes.i32)
                test = all_of([a.inside(i) for a, i in zip(axes, at, strict=True)])
                return v if test is None else scalar.where(test, v, 0)

            return self.finish(k, scalar.reduce("sum", w.shape[1:3], tap), b, o)

        return k.map(element)
