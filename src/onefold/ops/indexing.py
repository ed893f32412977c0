"""Operators that read places which run-time data name; every index is checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Builder, Node, Value
from onefold.ir.scalar import Const, Index, Scalar
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Lowered, Lowering, Op, Refusal, axis_of, operator
from onefold.ops.formats import OnnxNode
from onefold.ops.known import (
    Movement,
    Sized,
    checked_shape,
    dims_array,
    floats_of,
    inside,
    may_differ,
    number,
    one_dim,
)


def is_index(n: Node, i: int) -> TensorType:
    """The type of an input that holds indices. Raises Refusal unless it is of integers."""
    t = n.arg(i).tensor
    if not t.dtype.is_int:
        raise Refusal(f"indices of type {t.dtype} are not integers")
    return t


def check_constant(n: Node, i: int, extent: Dim) -> None:
    """Raises Refusal where constant indices leave an axis of known extent."""
    data = n.arg(i).data
    if data is None or not isinstance(extent, int) or not data.size:
        return
    wide = data.astype(np.int64)
    if int(wide.min()) < -extent or int(wide.max()) >= extent:
        raise Refusal(f"an index lies outside of an axis of {extent}")


def wrapped(index: Any, extent: int) -> Any:
    """Indices with negative ones counted from the end. Raises IndexError outside the axis."""
    i = np.asarray(index).astype(np.int64)
    if i.size and (i.min() < -extent or i.max() >= extent):
        raise IndexError(f"an index lies outside of an axis of {extent}")
    return np.where(i < 0, i + extent, i)


class Indexed(Movement):
    """Input 0 holds elements, input 1 indices."""

    def symbolic(self, n: Node) -> list[Array | None] | None:
        data, index = dims_array(n.arg(0)), n.arg(1).data
        if index is None and n.arg(1).content is not None:
            index = dims_array(n.arg(1))
            if index is not None and any(isinstance(d, dims.Expr) for d in index.reshape(-1)):
                return None
        if data is None or index is None:
            return None
        return [data, np.asarray(index, np.int64)]


@operator
class Gather(Indexed):
    """Slices of the input along an axis, at the indices; negative ones count from the end."""

    axis: int = 0
    onnx: ClassVar = ("Gather",)
    cases: ClassVar = (
        Case((((5, 3), "f32"), np.array([[4, 0], [-1, 2]]))),
        Case((((2, 6, 3), "i8"), np.array([5, 5, -6], np.int32)), {"axis": -2}),
        Case((((5,), "f16"), np.array(3))),
        Case((((5, 2), "f32"), np.zeros((0,), np.int64))),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t, index = n.arg(0).tensor, is_index(n, 1)
        if not t.rank:
            raise Refusal("a scalar has no axis to gather from")
        axis = axis_of(self.axis, t.rank)
        check_constant(n, 1, t.shape[axis])
        shape = (*t.shape[:axis], *index.shape, *t.shape[axis + 1 :])
        quant = None if t.quant is not None and t.quant.per_axis else t.quant
        return [TensorType(checked_shape(shape), t.dtype, quant)]

    def ref(self, n: Node, x: Any, index: Any) -> Any:
        return np.take(x, wrapped(index, np.shape(x)[self.axis]), self.axis)

    def lower(self, k: Lowering) -> Lowered:
        x, index = k.x(0), k.x(1)
        axis, rank = axis_of(self.axis, len(x.shape)), len(index.shape)
        extent = x.shape[axis]

        def element(*i: Dim) -> Scalar:
            at = self._place(index(*i[axis : axis + rank]), extent)
            return x(*i[:axis], at, *i[axis + rank :])

        return k.map(element)

    def _place(self, at: Scalar, extent: Dim) -> Dim:
        if isinstance(at, Const):
            fixed = int(at.value)
            return inside(dims.add(extent, fixed) if fixed < 0 else fixed, extent)
        return scalar.loaded(at, extent)


@operator
class GatherElements(Indexed):
    """result[i, j] = x[i, index[i, j]] for axis 1, and so on: an index for every element."""

    axis: int = 0
    onnx: ClassVar = ("GatherElements",)
    cases: ClassVar = (
        Case((((3, 3), "f32"), np.array([[1, 2, 0], [2, 0, 0]]))),
        Case((((2, 3), "i8"), np.array([[-1, 0, 2, 2]], np.int32)), {"axis": 1}),
        Case((((2, 2, 3), "f16"), np.array([[[1], [0]], [[2], [-3]]])), {"axis": -1}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t, index = n.arg(0).tensor, is_index(n, 1)
        if t.rank != index.rank or not t.rank:
            raise Refusal(f"indices of rank {index.rank} for data of rank {t.rank}")
        axis = axis_of(self.axis, t.rank)
        check_constant(n, 1, t.shape[axis])
        for a, (d, e) in enumerate(zip(t.shape, index.shape, strict=True)):
            if a != axis and isinstance(d, int) and isinstance(e, int) and e > d:
                raise Refusal(f"indices {list(index.shape)} exceed data {list(t.shape)}")
        return [TensorType(index.shape, t.dtype, t.quant)]

    def ref(self, n: Node, x: Any, index: Any) -> Any:
        axis = axis_of(self.axis, x.ndim)
        at = list(np.indices(index.shape))
        at[axis] = wrapped(index, x.shape[axis])
        return x[tuple(at)]

    def lower(self, k: Lowering) -> Lowered:
        x, index = k.x(0), k.x(1)
        axis = axis_of(self.axis, len(x.shape))

        def element(*i: Dim) -> Scalar:
            at = [a if e == d or dims.below(a, d) else inside(a, d)
                  for a, d, e in zip(i, x.shape, index.shape, strict=True)]  # fmt: skip
            at[axis] = scalar.loaded(index(*i), x.shape[axis])
            return x(*at)

        return k.map(element)


@operator
class GatherND(Indexed):
    """Each row of the indices names the leading axes (after the batch axes) of a slice."""

    batch_dims: int = 0
    onnx: ClassVar = ("GatherND",)
    cases: ClassVar = (
        Case((((2, 2), "i32"), np.array([[0, 0], [1, -1]]))),
        Case((((2, 3, 4), "f32"), np.array([[[1]], [[2]]])), {"batch_dims": 1}),
        Case((((2, 3, 4), "f32"), np.array([[[0, 1]], [[1, 0]]], np.int32))),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t, index = n.arg(0).tensor, is_index(n, 1)
        width = index.shape[-1] if index.rank else 0
        b = self.batch_dims
        if not isinstance(width, int) or not 1 <= width <= t.rank - b or not 0 <= b < index.rank:
            raise Refusal(f"indices {list(index.shape)} with {b} batch axes for {list(t.shape)}")
        if any(may_differ(p, q) for p, q in zip(t.shape[:b], index.shape[:b], strict=True)):
            raise Refusal(f"batch axes of {list(index.shape)} and {list(t.shape)} differ")
        shape = (*index.shape[:-1], *t.shape[b + width :])
        return [TensorType(checked_shape(shape), t.dtype, t.quant)]

    def ref(self, n: Node, x: Any, index: Any) -> Any:
        b, width = self.batch_dims, index.shape[-1]
        at = [wrapped(index[..., j], x.shape[b + j]) for j in range(width)]
        grid = np.indices(index.shape[:-1])
        return x[(*grid[:b], *at)]

    def lower(self, k: Lowering) -> Lowered:
        x, index = k.x(0), k.x(1)
        b, width, rows = self.batch_dims, index.shape[-1], len(index.shape) - 1

        def element(*i: Dim) -> Scalar:
            assert isinstance(width, int)
            at = [scalar.loaded(index(*i[:rows], j), x.shape[b + j]) for j in range(width)]
            lead = [inside(a, d) if d != e else a
                    for a, d, e in zip(i[:b], x.shape, index.shape, strict=False)]  # fmt: skip
            return x(*lead, *at, *i[rows:])

        return k.map(element)


@operator
class OneHot(Sized):
    """values[1] where the index along the new axis is that of the input, else values[0].

    Inputs: indices (any number type; negative ones count from depth), values (off, on).
    """

    depth: Dim = 0
    axis: int = -1
    onnx: ClassVar = ("OneHot",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((np.array([1, -1, 7]), np.array([0, 5], np.float32)), {"depth": 4}),
        Case((np.array([[1.0, 3.0]], np.float32), np.array([2, 3], np.int8)),
             {"depth": 4, "axis": 1}),
        Case((np.array(2, np.uint8), np.array([0, 1])), {"depth": 3}),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        t, values = n.arg(0).tensor, n.arg(1).tensor
        if may_differ(dims.product(values.shape), 2) or values.rank != 1:
            raise Refusal("the values of OneHot are not two")
        shape = list(t.shape)
        shape.insert(axis_of(self.axis, t.rank + 1), self.depth)
        return [TensorType(checked_shape(shape), values.dtype)]

    def ref(self, n: Node, index: Any, values: Any) -> Any:
        depth = number(self.depth)
        axis = axis_of(self.axis, np.ndim(index) + 1)
        at = np.expand_dims(np.asarray(index), axis).astype(np.int64)
        at = np.where((at < 0) & (at >= -depth), at + depth, at)
        grid = np.arange(depth).reshape([-1 if a == axis else 1 for a in range(at.ndim)])
        return np.where(at == grid, values[1], values[0]).astype(values.dtype)

    def lower(self, k: Lowering) -> Lowered:
        index, values = k.x(0), k.x(1)
        axis = axis_of(self.axis, len(index.shape) + 1)

        def element(*i: Dim) -> Scalar:
            at = scalar.cast(index(*i[:axis], *i[axis + 1 :]), dtypes.i64)
            here = Index(i[axis])
            hit = at.eq(here) | (at + Index(self.depth)).eq(here)
            return scalar.where(hit, values(1), values(0))

        return k.map(element)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        v = n.arg(1)
        if v.dtype.is_int:
            depth: Dim = one_dim(v, "depth of OneHot")
        else:
            (given,) = floats_of(v, "depth of OneHot") if v.shape in ((), (1,)) else (np.nan,)
            if not np.isfinite(given):
                raise Refusal("its depth is not a number")
            depth = int(given)
        op = cls(depth, int(n.attr("axis", -1)))
        return [b.op(op, n.arg(0), n.arg(2), name=n.output_names)]


@operator
class ReverseSequence(Op):
    """Along the time axis, the first lengths[b] elements of each batch entry in reverse."""

    batch_axis: int = 1
    time_axis: int = 0
    onnx: ClassVar = ("ReverseSequence",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((4, 3), "f32"), np.array([4, 1, 3]))),
        Case((((2, 5), "i8"), np.array([5, 2])), {"batch_axis": 0, "time_axis": 1}),
        Case((((3, 2, 2), "f16"), np.array([1, 1]))),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t, lengths = n.arg(0).tensor, is_index(n, 1)
        batch, time = axis_of(self.batch_axis, t.rank), axis_of(self.time_axis, t.rank)
        if batch == time or lengths.rank != 1 or may_differ(lengths.shape[0], t.shape[batch]):
            raise Refusal(f"lengths {list(lengths.shape)} for batch axis {batch}, time axis {time}")
        return [TensorType(t.shape, t.dtype, t.quant)]

    def ref(self, n: Node, x: Any, lengths: Any) -> Any:
        batch, time = axis_of(self.batch_axis, x.ndim), axis_of(self.time_axis, x.ndim)
        y = np.moveaxis(x.copy(), (batch, time), (0, 1))
        for row, length in zip(y, np.asarray(lengths), strict=True):
            row[: int(length)] = row[: int(length)][::-1].copy()
        return np.moveaxis(y, (0, 1), (batch, time))

    def lower(self, k: Lowering) -> Lowered:
        x, lengths = k.x(0), k.x(1)
        rank = len(x.shape)
        batch, time = axis_of(self.batch_axis, rank), axis_of(self.time_axis, rank)

        def element(*i: Dim) -> Scalar:
            length = scalar.cast(lengths(inside(i[batch], lengths.shape[0])), dtypes.i64)
            t = Index(i[time])
            at = list(i)
            at[time] = scalar.loaded(scalar.where(t < length, length - 1 - t, t), x.shape[time])
            return x(*at)

        return k.map(element)


@operator
class ArrayFeatureExtractor(Op):
    """The elements of the last axis at the indices (ai.onnx.ml)."""

    onnx: ClassVar = ("ai.onnx.ml:ArrayFeatureExtractor",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3, 4), "f32"), np.array([0, 3]))),
        Case((((4,), "i32"), np.array([[1, 2]]))),
        Case((((2, 3, 5), "f64"), np.array([4]))),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t, index = n.arg(0).tensor, is_index(n, 1)
        if not t.rank:
            raise Refusal("a scalar has no features")
        check_constant(n, 1, t.shape[-1])
        lead = t.shape[:-1] if t.rank > 1 else (1,)
        return [TensorType(checked_shape((*lead, index.size)), t.dtype)]

    def ref(self, n: Node, x: Any, index: Any) -> Any:
        y = x[..., wrapped(index, x.shape[-1]).reshape(-1)]
        return y.reshape(1, -1) if x.ndim == 1 else y

    def lower(self, k: Lowering) -> Lowered:
        x, index = k.x(0), k.x(1)

        def element(*i: Dim) -> Scalar:
            at = scalar.loaded(index(*dims.unravel(i[-1], index.shape)), x.shape[-1])
            return x(*(i[:-1] if len(x.shape) > 1 else ()), at)

        return k.map(element)
