"""Contractions of quantized TFLite models: integers in, integers out, NHWC.

acc[o] = bias[o] + sum (x - zero_x) * (w - zero_w), then times multiplier[o] 2^(shift[o] - 31) with
TFLite's two roundings (`once`: one rounding, halves away from zero), plus
zero_y, clamped to [lo, hi]. Sums wrap in int32; `wide` ones (int16
activations) are int64. Inputs: x, w, bias or none, multiplier, shift (one each, or one per
channel of the result). Source of the arithmetic: TFLite's reference kernels (integer_ops).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.dtypes import DType
from onefold.ir.graph import Array, Node, Value
from onefold.ir.scalar import Inside, Scalar, TensorExpr
from onefold.ir.types import TensorType
from onefold.ops import fixedpoint as fx
from onefold.ops.base import Case, Lowering, Op, Refusal, operator

Window = tuple[int, int]


@dataclass(frozen=True)
class QuantContraction(Op):
    """What convolutions and fully connected layers share."""

    zero_x: int = 0
    zero_w: int = 0
    zero_y: int = 0
    lo: int = -128
    hi: int = 127
    dtype: DType = dtypes.i8
    wide: bool = False
    once: bool = False
    exact: ClassVar = True

    @property
    def acc(self) -> DType:
        return dtypes.i64 if self.wide else dtypes.i32

    def check(self, n: Node, channels: Dim) -> None:
        """Refuses multipliers and biases that do not fit the result's channels."""
        for k in (2, 3, 4):
            v = n.input(k)
            if v is not None and v.shape not in ((channels,), (1,)):
                raise Refusal(f"{v.name} has shape {v.shape} for {channels} channels")

    def finish(self, k: Lowering, acc: Scalar, channel: Dim) -> Scalar:
        """Bias, scale, zero point and clamp."""
        if k.has(2):
            acc = acc + k.x(2).broadcast((channel,)).cast(self.acc)
        m, s = k.x(3).broadcast((channel,)), k.x(4).broadcast((channel,))
        rule = "multiply_by_quantized_multiplier" + ("_away" if self.once else "")
        y = scalar.call(rule, acc, m, s, dtype=dtypes.i32)
        near = scalar.clamp(y, self.lo - self.zero_y, self.hi - self.zero_y)
        return (near + self.zero_y).cast(self.dtype)

    def result(self, acc: Array, bias: Array | None, m: Array, s: Array) -> Array:
        """The same in NumPy; acc is int64 [..., channels]."""
        if bias is not None:
            acc = acc + bias.astype(np.int64)
        if self.wide:
            y = fx.multiply_by_quantized_multiplier_i64(acc, m, s)
        elif self.once:
            y = rounded_once(fx.wrap(acc, 32), m, s)
        else:
            y = fx.multiply_by_quantized_multiplier(fx.wrap(acc, 32), m, s)
        return np.clip(y + self.zero_y, self.lo, self.hi).astype(self.dtype.numpy)

    def minus(self, x: Scalar, zero: int) -> Scalar:
        return x.cast(dtypes.i32) - zero if zero else x.cast(dtypes.i32)

    def times(self, x: Scalar, w: Scalar) -> Scalar:
        """One product, in the accumulator's type."""
        p = x * self.minus(w, self.zero_w)
        return p.cast(self.acc)


def rounded_once(x: Array, m: Array, s: Array) -> Array:
    """x m 2^(s - 31) to nearest, halves away from zero."""
    total = 31 - np.asarray(s, np.int64)
    p = x.astype(np.int64) * m
    y: Array = np.sign(p) * ((np.abs(p) + (np.int64(1) << (total - 1))) >> total)
    return y


def folded(k: Lowering, op: QuantContraction, axes: tuple[int, ...]) -> TensorExpr | None:
    """-zero_x * sum(w - zero_w) per channel, so that the sum may run over x * (w - zero_w);
    None where the weights are not constant. axes: those of w that are summed over."""
    w = k.node.arg(1)
    if w.data is None or op.wide:
        return None
    sums = (w.data.astype(np.int64) - op.zero_w).sum(axis=axes).reshape(-1) * -op.zero_x
    data = fx.wrap(sums, 32).astype(np.int32)
    v = Value(f"{w.name}.offset", TensorType(data.shape, dtypes.i32), data)
    return scalar.stored(v)


@dataclass(frozen=True)
class QuantWindow(QuantContraction):
    """Convolutions: pads are top, left, bottom, right."""

    strides: Window = (1, 1)
    dilations: Window = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def out_size(self, x: TensorType, kernel: Sequence[Dim]) -> tuple[Dim, Dim]:
        out = []
        for a in (0, 1):
            if dims.upper(kernel[a]) < 1 or min(self.strides[a], self.dilations[a]) < 1:
                raise Refusal(
                    f"a window of {kernel[a]} with a stride of {self.strides[a]} and a dilation "
                    f"of {self.dilations[a]}"
                )
            span = (kernel[a] - 1) * self.dilations[a] + 1
            size = x.shape[1 + a] + self.pads[a] + self.pads[2 + a] - span
            if dims.bounds(size)[1] < 0:
                raise Refusal(f"the window {span} is larger than the padded input")
            out.append(dims.floordiv(size, self.strides[a]) + 1)
        return out[0], out[1]

    def at(self, y: Dim, tap: Dim, a: int) -> Dim:
        """Where in the input tap `tap` of result `y` lies on spatial axis a."""
        return y * self.strides[a] + tap * self.dilations[a] - self.pads[a]

    @property
    def padded(self) -> bool:
        return any(self.pads)

    def guarded(self, x: TensorExpr, y: Dim, q: Dim, value: Scalar) -> Scalar:
        """value where (y, q) lies inside x, else 0; tested only on padded axes."""
        tests = [
            Inside(i, 0, x.shape[1 + a])
            for a, i in enumerate((y, q))
            if self.pads[a] or self.pads[2 + a]
        ]
        for t in tests[1:]:
            tests = [tests[0] & t]  # type: ignore[list-item]
        return scalar.where(tests[0], value, 0) if tests else value

    def patches(self, x: Array, kernel: Window, size: Window) -> Any:
        """(row tap, column tap, what it multiplies: [batch, oh, ow, channels] minus zero_x)."""
        top, left, bottom, right = self.pads
        shifted = x.astype(np.int64) - self.zero_x
        wide = np.pad(shifted, ((0, 0), (top, bottom), (left, right), (0, 0)))
        for r in range(kernel[0]):
            for q in range(kernel[1]):
                a, b = r * self.dilations[0], q * self.dilations[1]
                yield r, q, wide[
                    :, a : a + (size[0] - 1) * self.strides[0] + 1 : self.strides[0],
                    b : b + (size[1] - 1) * self.strides[1] + 1 : self.strides[1],
                ]  # fmt: skip


def _case(x: Any, w: Any, channels: int, seed: int, **attrs: Any) -> Case:
    rng = np.random.default_rng(seed)
    return Case(
        (x, w, rng.integers(-5000, 5000, channels).astype(np.int32),
         rng.integers(1 << 30, (1 << 31) - 1, channels).astype(np.int32),
         rng.integers(-9, -5, channels).astype(np.int32)),
        attrs, seed,
    )  # fmt: skip


@operator
class QuantConv2D(QuantWindow):
    """x [n, h, w, c], w [o, kh, kw, c / groups]; result [n, oh, ow, o]."""

    cases: ClassVar = (
        _case(((1, 5, 6, 4), "i8"), ((3, 1, 1, 4), "i8"), 3, 1, zero_x=-3, zero_y=5),
        _case(((2, 7, 8, 3), "i8"), ((4, 3, 2, 3), "i8"), 4, 2, zero_x=7, strides=(2, 1),
              pads=(1, 0, 1, 1), lo=0),
        _case(((1, 9, 9, 4), "u8"), ((4, 3, 3, 2), "u8"), 4, 3, zero_x=128, zero_w=121,
              zero_y=3, lo=0, hi=255, dtype=dtypes.u8, dilations=(2, 2), pads=(2, 2, 2, 2)),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, w = n.arg(0).tensor, n.arg(1).tensor
        if x.rank != 4 or w.rank != 4:
            raise Refusal(f"a convolution of ranks {x.rank} and {w.rank}")
        o, kh, kw, c = w.shape
        if not (isinstance(c, int) and isinstance(x.shape[3], int) and isinstance(o, int)):
            raise Refusal("the numbers of channels must be known")
        if c < 1 or x.shape[3] < c or x.shape[3] % c or o % (x.shape[3] // c or 1):
            raise Refusal(f"{x.shape[3]} channels do not fit weights of {c}")
        self.check(n, o)
        return [TensorType((x.shape[0], *self.out_size(x, (kh, kw)), o), self.dtype)]

    def ref(self, n: Node, *x: Any) -> Any:
        o, kh, kw, c = x[1].shape
        size = n.outputs[0].tensor.ints[1:3] if n.outputs else self.infer(n)[0].ints[1:3]
        groups = x[0].shape[3] // c
        w = x[1].astype(np.float64) - self.zero_w
        acc = np.zeros((x[0].shape[0], *size, o))
        share = o // groups
        for r, q, part in self.patches(x[0], (kh, kw), (size[0], size[1])):
            for g in range(groups):
                to = slice(g * share, (g + 1) * share)
                acc[..., to] += part[..., g * c : (g + 1) * c] @ w[to, r, q].T
        return self.result(acc.astype(np.int64), x[2], x[3], x[4])

    def macs(self, n: Node) -> int:
        per = dims.product(n.arg(1).shape[1:])
        return dims.upper(n.outputs[0].tensor.size * per)

    def lower(self, k: Lowering) -> TensorExpr:
        x, w = k.x(0), k.x(1)
        o, kh, kw, c = w.shape
        assert isinstance(o, int) and isinstance(c, int) and isinstance(x.shape[3], int)
        share = o // (x.shape[3] // c)
        fold = None if self.padded else folded(k, self, (1, 2, 3))
        zero = self.zero_x if fold is None else 0

        def element(b: Dim, y: Dim, q: Dim, oc: Dim) -> Scalar:
            first = dims.mul(dims.floordiv(oc, share), c)

            def tap(r: Dim, s: Dim) -> Scalar:
                ih, iw = self.at(y, r, 0), self.at(q, s, 1)
                inner = scalar.reduce("sum", (c,), lambda i: self.times(
                    self.minus(x(b, ih, iw, first + i), zero), w(oc, r, s, i)))  # fmt: skip
                return self.guarded(x, ih, iw, inner)

            acc = scalar.reduce("sum", (kh, kw), tap)
            if fold is not None and self.zero_x:
                acc = acc + fold(oc)
            return self.finish(k, acc, oc)

        return k.map(element)


@operator
class QuantDepthwiseConv2D(QuantWindow):
    """x [n, h, w, c], w [1, kh, kw, c * m]; result [n, oh, ow, c * m]."""

    cases: ClassVar = (
        _case(((1, 7, 6, 4), "i8"), ((1, 3, 3, 4), "i8"), 4, 1, zero_x=-3, zero_y=5),
        _case(((2, 7, 8, 3), "i8"), ((1, 3, 2, 6), "i8"), 6, 2, zero_x=7, strides=(2, 1),
              pads=(1, 0, 1, 1), lo=0),
        _case(((1, 9, 9, 2), "u8"), ((1, 3, 3, 2), "u8"), 2, 3, zero_x=128, zero_w=121,
              zero_y=3, lo=0, hi=255, dtype=dtypes.u8, dilations=(2, 2), pads=(2, 2, 2, 2)),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, w = n.arg(0).tensor, n.arg(1).tensor
        if x.rank != 4 or w.rank != 4:
            raise Refusal(f"a convolution of ranks {x.rank} and {w.rank}")
        o, c = w.shape[3], x.shape[3]
        if not (isinstance(c, int) and isinstance(o, int)) or w.shape[0] != 1 or c < 1 or o % c:
            raise Refusal(f"weights {w.shape} do not fit {c} channels")
        self.check(n, o)
        return [TensorType((x.shape[0], *self.out_size(x, w.shape[1:3]), o), self.dtype)]

    def ref(self, n: Node, *x: Any) -> Any:
        _, kh, kw, o = x[1].shape
        size = n.outputs[0].tensor.ints[1:3] if n.outputs else self.infer(n)[0].ints[1:3]
        w = x[1].astype(np.int64) - self.zero_w
        acc = np.zeros((x[0].shape[0], *size, o), np.int64)
        for r, q, part in self.patches(x[0], (kh, kw), (size[0], size[1])):
            acc += np.repeat(part, o // x[0].shape[3], axis=3) * w[0, r, q]
        return self.result(acc, x[2], x[3], x[4])

    def macs(self, n: Node) -> int:
        per = dims.product(n.arg(1).shape[1:3])
        return dims.upper(n.outputs[0].tensor.size * per)

    def lower(self, k: Lowering) -> TensorExpr:
        x, w = k.x(0), k.x(1)
        _, kh, kw, o = w.shape
        assert isinstance(o, int) and isinstance(x.shape[3], int)
        share = o // x.shape[3]
        fold = None if self.padded else folded(k, self, (1, 2))
        zero = self.zero_x if fold is None else 0

        def element(b: Dim, y: Dim, q: Dim, oc: Dim) -> Scalar:
            def tap(r: Dim, s: Dim) -> Scalar:
                ih, iw = self.at(y, r, 0), self.at(q, s, 1)
                from_x = self.minus(x(b, ih, iw, dims.floordiv(oc, share)), zero)
                return self.guarded(x, ih, iw, self.times(from_x, w(0, r, s, oc)))

            acc = scalar.reduce("sum", (kh, kw), tap)
            if fold is not None and self.zero_x:
                acc = acc + fold(oc)
            return self.finish(k, acc, oc)

        return k.map(element)


@operator
class QuantFullyConnected(QuantContraction):
    """x [n, k], w [o, k]; result [n, o]."""

    cases: ClassVar = (
        _case(((1, 17), "i8"), ((5, 17), "i8"), 5, 1, zero_x=-3, zero_y=5),
        _case(((3, 64), "i8"), ((4, 64), "i8"), 4, 2, zero_x=7, lo=0, once=True),
        _case(((2, 9), "u8"), ((6, 9), "u8"), 6, 3, zero_x=128, zero_w=121, zero_y=3, lo=0, hi=255,
              dtype=dtypes.u8),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, w = n.arg(0).tensor, n.arg(1).tensor
        if x.rank != 2 or w.rank != 2 or x.shape[1] != w.shape[1]:
            raise Refusal(f"shapes {x.shape} and {w.shape} cannot be multiplied")
        self.check(n, w.shape[0])
        return [TensorType((x.shape[0], w.shape[0]), self.dtype)]

    def ref(self, n: Node, *x: Any) -> Any:
        acc = (x[0].astype(np.float64) - self.zero_x) @ (x[1].astype(np.float64) - self.zero_w).T
        return self.result(acc.astype(np.int64), x[2], x[3], x[4])

    def macs(self, n: Node) -> int:
        return dims.upper(n.outputs[0].tensor.size * n.arg(1).shape[1])

    def lower(self, k: Lowering) -> TensorExpr:
        x, w = k.x(0), k.x(1)
        fold = folded(k, self, (1,))
        zero = self.zero_x if fold is None else 0

        def element(b: Dim, oc: Dim) -> Scalar:
            acc = scalar.reduce("sum", (w.shape[1],), lambda i: self.times(
                self.minus(x(b, i), zero), w(oc, i)))  # fmt: skip
            if fold is not None and self.zero_x:
                acc = acc + fold(oc)
            return self.finish(k, acc, oc)

        return k.map(element)
