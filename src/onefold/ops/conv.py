"""Convolutions. x [N, C, *spatial], w [M, C / group, *kernel] -> [N, M, *out], as ONNX has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.dtypes import DType
from onefold.ir.graph import Array, Builder, Node, Value
from onefold.ir.scalar import Index, Inside, Scalar
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Lowering, Op, Refusal, agree, operator
from onefold.ops.formats import OnnxNode
from onefold.ops.window import (
    Axis,
    all_of,
    check_axes,
    patches,
    spatial,
    window_of,
)

Dims = tuple[Dim, ...]


def wide(x: Array) -> Array:
    """x in the type that sums are made in by references: f64 for floats, i64 for integers."""
    kind = dtypes.of(x.dtype)
    return x.astype(np.float64 if kind.is_float else np.int64)


class Convolution(Op):
    """What Conv and its integer relatives share; fields empty means 1, pads empty means 0."""

    strides: tuple[int, ...] = ()
    pads: Dims = ()
    dilations: tuple[int, ...] = ()
    group: int = 1

    def axes(self, n: Node) -> list[Axis]:
        """The window along each spatial axis."""
        return self.axes_of(n.arg(0).shape, n.arg(1).shape)

    def axes_of(self, x: Dims, w: Dims) -> list[Axis]:
        rank = len(x) - 2
        strides = spatial(self.strides, rank, 1, "strides")
        dilations = spatial(self.dilations, rank, 1, "dilations")
        pads = self.pads or (0,) * (2 * rank)
        if len(pads) != 2 * rank:
            raise Refusal(f"pads has {len(pads)} entries for {rank} spatial axes")
        return [
            Axis(x[2 + k], w[2 + k], strides[k], dilations[k], pads[k], pads[rank + k])
            for k in range(rank)
        ]

    def result_shape(self, x: Dims, w: Dims) -> Dims:
        """[N, M, *out]. Raises Refusal for shapes that do not fit."""
        if len(x) < 3 or len(w) != len(x):
            raise Refusal(f"{self.name} of ranks {len(x)} and {len(w)}; equal ones >= 3 are needed")
        g = self.group
        if g < 1:
            raise Refusal(f"{self.name} has group {g}")
        uneven = isinstance(w[0], int) and w[0] % g != 0
        if uneven or not agree(x[1], dims.mul(w[1], g)):
            raise Refusal(
                f"{self.name} of {x[1]} channels in {g} groups with weights for {w[1]} inputs "
                f"and {w[0]} outputs"
            )
        axes = self.axes_of(x, w)
        check_axes(axes, self.name)
        return (x[0], w[0], *(a.out for a in axes))

    def sum_of_products(
        self, n: Node, index: Sequence[Dim], x: Any, w: Any, outside: Scalar | float | int = 0
    ) -> Scalar:
        """sum over channels and window of x(...) * w(...); x and w map an index to a Scalar.

        Where the window leaves the input the product is `outside`."""
        axes = self.axes(n)
        batch, m, *place = index
        channels = n.arg(1).shape[1]
        first = 0
        if self.group > 1:
            first = dims.mul(dims.floordiv(m, self._per_group(n)), channels)  # type: ignore[assignment]

        def term(c: Dim, *r: Dim) -> Scalar:
            at = [a.at(o, k) for a, o, k in zip(axes, place, r, strict=True)]
            inside = all_of([a.inside(p) for a, p in zip(axes, at, strict=True)])
            value: Scalar = x(batch, dims.add(first, c), *at) * w(m, c, *r)
            return value if inside is None else scalar.where(inside, value, outside)

        return scalar.reduce("sum", [channels, *(a.kernel for a in axes)], term)

    def _per_group(self, n: Node) -> Dim:
        return dims.floordiv(n.arg(1).shape[0], self.group)

    def ref_sum(self, x: Array, w: Array) -> Array:
        """The sums in f64 or i64."""
        axes = self.axes_of(x.shape, w.shape)
        g, rank = self.group, len(axes)
        p = patches(wide(x), axes, 0)
        n, c, out = p.shape[0], p.shape[1], p.shape[2 : 2 + rank]
        window = int(np.prod(w.shape[2:]))
        p = p.reshape(n, g, c // g, int(np.prod(out)), window)
        v = wide(w).reshape(g, w.shape[0] // g, c // g, window)
        y: Array = np.einsum("ngcok,gmck->ngmo", p, v, optimize=True)
        return y.reshape(n, w.shape[0], *out)

    def macs(self, n: Node) -> int:
        per = dims.product((*n.arg(1).shape[1:],))
        return dims.upper(dims.mul(n.outputs[0].tensor.size, per))


def conv_fields(n: OnnxNode, x: Value, w: Value) -> dict[str, Any]:
    """strides, pads, dilations, group of an ONNX convolution, auto_pad resolved."""
    if len(x.shape) < 3 or len(w.shape) != len(x.shape):
        raise Refusal(f"{n.op_type} of ranks {len(x.shape)} and {len(w.shape)}")
    win = window_of(n, x.shape[2:], w.shape[2:])
    if any(isinstance(k, int) and k != d for k, d in zip(win.kernel, w.shape[2:], strict=True)):
        raise Refusal(f"kernel_shape {list(win.kernel)} is not that of the weights {list(w.shape)}")
    return {"strides": win.strides, "pads": win.pads, "dilations": win.dilations,
            "group": int(n.attr("group", 1))}  # fmt: skip


def with_bias(acc: Scalar, k: Lowering, i: int, channel: Dim) -> Scalar:
    return acc + k.x(i)(channel) if k.has(i) else acc


def check_bias(n: Node, i: int, channels: Dim, kind: DType) -> None:
    """Raises Refusal unless input i is absent or [channels] of this element type."""
    v = n.input(i)
    if v is None:
        return
    if len(v.shape) != 1 or not agree(v.shape[0], channels):
        raise Refusal(f"{n.op.name} has a bias of shape {list(v.shape)} for {channels} channels")
    if v.dtype is not kind:
        raise Refusal(f"{n.op.name} has a bias of {v.dtype}, not {kind}")


@operator
class Conv(Convolution):
    """Cross-correlation plus an optional bias [M]. Sums of f16 and bf16 are made in f32."""

    strides: tuple[int, ...] = ()
    pads: Dims = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    onnx: ClassVar = ("Conv",)
    cases: ClassVar = (
        Case((((1, 3, 7, 6), "f32"), ((4, 3, 3, 3), "f32"), ((4,), "f32")), {"pads": (1, 1, 1, 1)}),
        Case((((2, 4, 9), "f32"), ((6, 2, 3), "f32")), {"group": 2, "strides": (2,)}, seed=1),
        Case((((1, 4, 8, 8), "f32"), ((4, 1, 3, 3), "f32")),
             {"group": 4, "dilations": (2, 1), "pads": (2, 0, 1, 2)}, seed=2),
        Case((((1, 2, 4, 5, 3), "f32"), ((3, 2, 2, 2, 2), "f32")), {"pads": (0, 1, 0, 1, 0, 1)}),
        Case((((0, 2, 5, 5), "f32"), ((3, 2, 3, 3), "f32"))),
        Case((((1, 2, 6, 5), "f64"), ((3, 2, 2, 3), "f64")), {"strides": (3, 2)}),
        Case((((1, 2, 6, 5), "f16"), ((3, 2, 2, 3), "f16")), {"pads": (1, 0, 2, 1)}),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, w = n.arg(0), n.arg(1)
        if x.dtype is not w.dtype:
            raise Refusal(f"Conv of {x.dtype} with weights of {w.dtype}")
        shape = self.result_shape(x.shape, w.shape)
        check_bias(n, 2, w.shape[0], x.dtype)
        return [TensorType(shape, x.dtype)]

    def ref(self, n: Node, x: Any, w: Any, b: Any = None) -> Any:
        y = self.ref_sum(x, w)
        if b is not None:
            y = y + wide(b).reshape(1, -1, *[1] * (x.ndim - 2))
        return y.astype(x.dtype)

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        x, w = k.x(0), k.x(1)
        return k.map(lambda *i: with_bias(self.sum_of_products(k.node, i, x, w), k, 2, i[1]))

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        x, w = n.arg(0), n.arg(1)
        return b.ops(cls(**conv_fields(n, x, w)), x, w, n.input(2), name=n.output_names)


@operator
class ConvInteger(Convolution):
    """Convolution of u8 or i8 in i32, zero points taken off first: x_zero_point a scalar,
    w_zero_point a scalar or [M]. Sums wrap."""

    strides: tuple[int, ...] = ()
    pads: Dims = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    onnx: ClassVar = ("ConvInteger",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((1, 3, 7, 6), "u8"), ((4, 3, 3, 3), "i8"), np.array(7, np.uint8)),
             {"pads": (1, 1, 1, 1)}),
        Case((((1, 4, 5), "i8"), ((2, 2, 3), "i8"), None, np.array([1, -2], np.int8)),
             {"group": 2}),
        Case((((1, 2, 5, 5), "u8"), ((3, 2, 2, 2), "u8")), {"strides": (2, 2)}),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, w = n.arg(0), n.arg(1)
        check_bytes(n, (0, 1))
        shape = self.result_shape(x.shape, w.shape)
        check_zero(n, 2, x.dtype, None)
        check_zero(n, 3, w.dtype, w.shape[0])
        return [TensorType(shape, dtypes.i32)]

    def ref(self, n: Node, x: Any, w: Any, xz: Any = None, wz: Any = None) -> Any:
        a = wide(x) - (0 if xz is None else int(np.ravel(xz)[0]))
        v = wide(w)
        if wz is not None:
            v = v - wide(wz).reshape(-1, *[1] * (w.ndim - 1))
        return self.ref_sum(a, v).astype(np.int32)

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        def x(*i: Dim) -> Scalar:
            return less_zero(k, 0, i, 2, 0)

        def w(*i: Dim) -> Scalar:
            return less_zero(k, 1, i, 3, i[0])

        return k.map(lambda *i: self.sum_of_products(k.node, i, x, w))

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        fields = conv_fields(n, n.arg(0), n.arg(1))
        return b.ops(cls(**fields), *n.inputs, name=n.output_names)


def less_zero(k: Lowering, i: int, at: Sequence[Dim], zero: int, channel: Dim) -> Scalar:
    """Element `at` of input i as i32, less its zero point (a scalar, or one per channel)."""
    value = scalar.cast(k.x(i)(*at), dtypes.i32)
    if not k.has(zero):
        return value
    return value - scalar.cast(one_of(k.x(zero), channel), dtypes.i32)


def one_of(t: scalar.TensorExpr, channel: Dim) -> Scalar:
    """The element for a channel of a tensor that holds one, or one per channel."""
    if len(t.shape) == 0:
        return t()
    return t(*(0 if d == 1 else channel for d in t.shape))


def check_bytes(n: Node, which: Sequence[int]) -> None:
    for i in which:
        if n.arg(i).dtype not in (dtypes.i8, dtypes.u8):
            raise Refusal(f"{n.op.name} of {n.arg(i).dtype}; u8 or i8 is needed")


def check_zero(n: Node, i: int, kind: DType, channels: Dim | None) -> None:
    """Raises Refusal unless input i is absent, one element, or (channels given) one a channel."""
    v = n.input(i)
    if v is None:
        return
    if v.dtype is not kind:
        raise Refusal(f"{n.op.name} has a zero point of {v.dtype} for data of {kind}")
    if v.tensor.size == 1:
        return
    fits = not isinstance(channels, int) or v.shape[:1] == (channels,)
    if channels is None or len(v.shape) != 1 or not fits:
        raise Refusal(f"{n.op.name} has zero points of shape {list(v.shape)}")


@operator
class ConvTranspose(Op):
    """The gradient of a convolution. w [C, M / group, *kernel]; out = stride * (in - 1) +
    output_padding + reach - begin - end."""

    strides: tuple[int, ...] = ()
    pads: Dims = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    output_padding: Dims = ()
    onnx: ClassVar = ("ConvTranspose",)
    cases: ClassVar = (
        Case((((1, 2, 3, 4), "f32"), ((2, 3, 3, 3), "f32"), ((3,), "f32")), {"strides": (2, 2)}),
        Case((((2, 4, 5), "f32"), ((4, 3, 4), "f32")),
             {"group": 2, "strides": (3,), "pads": (1, 2), "output_padding": (1,)}, seed=1),
        Case((((1, 2, 4, 3), "f32"), ((2, 2, 3, 2), "f32")), {"dilations": (2, 3)}, seed=2),
        Case((((1, 1, 2, 3, 2), "f32"), ((1, 2, 2, 2, 3), "f32")), {"pads": (1, 0, 1, 0, 1, 1)}),
        Case((((1, 2, 3, 3), "f16"), ((2, 1, 2, 2), "f16")), {"strides": (2, 1)}),
    )  # fmt: skip

    def _each(self, values: Sequence[Any], rank: int, default: int) -> tuple[Any, ...]:
        return tuple(values) if values else (default,) * rank

    def outs(self, x: Dims, w: Dims) -> Dims:
        rank = len(x) - 2
        strides = spatial(self.strides, rank, 1, "strides")
        dilations = spatial(self.dilations, rank, 1, "dilations")
        more = spatial(self.output_padding, rank, 0, "output_padding")
        pads = self._each(self.pads, 2 * rank, 0)
        if len(pads) != 2 * rank:
            raise Refusal(f"pads has {len(pads)} entries for {rank} spatial axes")
        if any(v < 1 for v in (*strides, *dilations)):
            raise Refusal("ConvTranspose has a stride or dilation below 1")
        out: list[Dim] = []
        for k in range(rank):
            reach = Axis(0, w[2 + k], 1, dilations[k]).reach
            full = dims.add(dims.mul(dims.add(x[2 + k], -1), strides[k]), dims.add(reach, more[k]))
            out.append(dims.add(full, dims.mul(dims.add(pads[k], pads[rank + k]), -1)))
            if dims.upper(out[-1]) < 0:
                raise Refusal(f"the padding takes everything along spatial axis {k}")
        return tuple(out)

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, w = n.arg(0), n.arg(1)
        if len(x.shape) < 3 or len(w.shape) != len(x.shape):
            raise Refusal(f"ConvTranspose of ranks {len(x.shape)} and {len(w.shape)}")
        if x.dtype is not w.dtype:
            raise Refusal(f"ConvTranspose of {x.dtype} with weights of {w.dtype}")
        c, g = x.shape[1], self.group
        if g < 1 or (isinstance(c, int) and c % g) or not agree(c, w.shape[0]):
            raise Refusal(f"{c} channels in {g} groups with weights for {w.shape[0]} of them")
        m = dims.mul(w.shape[1], g)
        check_bias(n, 2, m, x.dtype)
        return [TensorType((x.shape[0], m, *self.outs(x.shape, w.shape)), x.dtype)]

    def ref(self, n: Node, x: Any, w: Any, b: Any = None) -> Any:
        rank, g = x.ndim - 2, self.group
        outs = [int(d) for d in n.outputs[0].tensor.ints[2:]]
        m = w.shape[1] * g
        strides, dilations = self._each(self.strides, rank, 1), self._each(self.dilations, rank, 1)
        pads = self._each(self.pads, 2 * rank, 0)
        y = np.zeros((x.shape[0], m, *outs))
        xg = wide(x).reshape(x.shape[0], g, x.shape[1] // g, int(np.prod(x.shape[2:])))
        for at in np.ndindex(*w.shape[2:]):
            wk = wide(w)[(slice(None), slice(None), *at)].reshape(g, -1, max(w.shape[1], 1))
            part = np.einsum("ngcs,gcm->ngms", xg, wk).reshape(x.shape[0], m, *x.shape[2:])
            src, dst = [], []
            for k in range(rank):
                o = np.arange(x.shape[2 + k]) * strides[k] + at[k] * dilations[k] - pads[k]
                ok = np.flatnonzero((o >= 0) & (o < outs[k]))
                src.append(ok)
                dst.append(o[ok])
            grid = np.ix_(*[np.arange(d) for d in y.shape[:2]], *dst)
            y[grid] += part[np.ix_(*[np.arange(d) for d in y.shape[:2]], *src)]
        if b is not None:
            y = y + wide(b).reshape(1, -1, *[1] * rank)
        return y.astype(x.dtype)

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        x, w = k.x(0), k.x(1)
        rank = len(x.shape) - 2
        strides, dilations = self._each(self.strides, rank, 1), self._each(self.dilations, rank, 1)
        pads = self._each(self.pads, 2 * rank, 0)
        per_in, per_out = dims.floordiv(x.shape[1], self.group), w.shape[1]

        def element(*index: Dim) -> Scalar:
            batch, m, *place = index
            first = dims.mul(dims.floordiv(m, per_out), per_in) if self.group > 1 else 0

            def term(c: Dim, *r: Dim) -> Scalar:
                at: list[Dim] = []
                tests: list[Scalar | None] = []
                for j in range(rank):
                    full = dims.add(dims.add(place[j], pads[j]), dims.mul(r[j], -dilations[j]))
                    at.append(dims.floordiv(full, strides[j]))
                    rest = dims.mod(full, strides[j])
                    tests.append(None if rest == 0 else Index(rest).eq(0))
                    tests.append(Inside(at[j], 0, x.shape[2 + j]))
                ch = dims.add(first, c)
                value = x(batch, ch, *at) * w(ch, dims.mod(m, per_out), *r)
                test = all_of(tests)
                return value if test is None else scalar.where(test, value, 0)

            acc = scalar.reduce("sum", [per_in, *w.shape[2:]], term)
            return with_bias(acc, k, 2, m)

        return k.map(element)

    def macs(self, n: Node) -> int:
        return dims.upper(dims.mul(n.arg(0).tensor.size, dims.product(n.arg(1).shape[1:])))

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        x, w = n.arg(0), n.arg(1)
        op = cls(**_transpose_fields(n, x.shape, w.shape))
        return b.ops(op, x, w, n.input(2), name=n.output_names)


def _transpose_fields(n: OnnxNode, x: Dims, w: Dims) -> dict[str, Any]:
    """Attributes with auto_pad and output_shape resolved."""
    rank = len(x) - 2
    if rank < 1 or len(w) != len(x):
        raise Refusal(f"ConvTranspose of ranks {len(x)} and {len(w)}")
    strides = spatial(n.attr("strides"), rank, 1, "strides")
    dilations = spatial(n.attr("dilations"), rank, 1, "dilations")
    more: list[Dim] = list(spatial(n.attr("output_padding"), rank, 0, "output_padding"))
    mode = n.attr("auto_pad", "NOTSET") or "NOTSET"
    given = n.attr("output_shape")
    pads = list(n.attr("pads") or (0,) * (2 * rank))
    if mode == "VALID":
        pads = [0] * (2 * rank)
    if len(pads) != 2 * rank:
        raise Refusal(f"{len(pads)} pads for {rank} spatial axes")
    if given or mode.startswith("SAME"):
        wanted: Sequence[Dim] = [dims.mul(d, s) for d, s in zip(x[2:], strides, strict=True)]
        if given:
            wanted = spatial(list(given)[-rank:], rank, 0, "output_shape")
        for k in range(rank):
            reach = Axis(0, w[2 + k], 1, dilations[k]).reach
            full = dims.add(dims.mul(dims.add(x[2 + k], -1), strides[k]), dims.add(reach, more[k]))
            total = dims.add(full, dims.mul(wanted[k], -1))
            excess = dims.maximum(total, 0)
            # a result larger than the sum reaches is filled up with zeros
            more[k] = dims.add(more[k], dims.add(excess, dims.mul(total, -1)))
            half = dims.floordiv(excess, 2)
            rest = dims.add(excess, dims.mul(half, -1))
            pads[k], pads[rank + k] = (half, rest) if mode == "SAME_UPPER" else (rest, half)
    return {"strides": strides, "dilations": dilations, "pads": tuple(pads),
            "group": int(n.attr("group", 1)), "output_padding": tuple(more)}  # fmt: skip
