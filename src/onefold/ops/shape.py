"""Shapes as values, and views of the same elements under another shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.types import TensorType
from onefold.ops.base import (
    Alias,
    Case,
    Code,
    Lowered,
    Lowering,
    Op,
    Refusal,
    axis_of,
    operator,
    true_axis,
)
from onefold.ops.formats import OnnxNode
from onefold.ops.known import Movement, checked_shape, dims_of, ints_of, listed, may_differ


@operator
class Shape(Op):
    """The extents of axes start to end (exclusive; negative counts from the end) as int64."""

    start: int = 0
    end: int | None = None
    onnx: ClassVar = ("Shape",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3, 4, 5), "f32"),)),
        Case((((3, 4, 5), "f32"),), {"start": -2}),
        Case((((3, 0, 5), "i8"),), {"start": 1, "end": -1}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        return [TensorType((len(n.arg(0).shape[self.start : self.end]),), dtypes.i64)]

    def contents(self, n: Node) -> Sequence[tuple[Dim, ...] | None]:
        return [n.arg(0).shape[self.start : self.end]]

    def ref(self, n: Node, x: Any) -> Any:
        return np.array(np.shape(x)[self.start : self.end], np.int64)

    def lower(self, k: Lowering) -> Lowered:
        return listed(k, k.x().shape[self.start : self.end])


@operator
class Size(Op):
    """The number of elements as an int64 scalar."""

    onnx: ClassVar = ("Size",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3, 4, 5), "f32"),)), Case((((), "f32"),)), Case((((3, 0), "i8"),)),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        return [TensorType((), dtypes.i64)]

    def contents(self, n: Node) -> Sequence[tuple[Dim, ...] | None]:
        return [(n.arg(0).tensor.size,)]

    def ref(self, n: Node, x: Any) -> Any:
        return np.array(np.size(x), np.int64)

    def lower(self, k: Lowering) -> Lowered:
        return listed(k, (dims.product(k.x().shape),))


@operator
class Reshape(Movement):
    """The same elements in row-major order under another shape."""

    shape: tuple[Dim, ...] = ()
    onnx: ClassVar = ("Reshape",)
    cases: ClassVar = (
        Case((((3, 4, 5), "f32"),), {"shape": (5, 12)}),
        Case((((1, 1), "i8"),), {"shape": ()}),
        Case((((3, 0), "f32"),), {"shape": (0, 7)}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = n.arg(0).tensor
        if may_differ(t.size, dims.product(self.shape)):
            raise Refusal(f"{list(t.shape)} cannot become {list(self.shape)}")
        return [TensorType(self.shape, t.dtype, t.quant)]

    def ref(self, n: Node, x: Any) -> Any:
        return np.reshape(x, self.shape)

    def lower(self, k: Lowering) -> Lowered:
        old, new = dims.product(k.x().shape), k.y().size
        if old == new:
            return Alias()
        # Equal sizes are promised but not proved: look before anybody reads beyond the end.
        a, b = k.dim(old), k.dim(new)
        text = f"if ({a} != {b}) OF_STOP(OF_BAD_SIZE);\nfor (ix i = 0; i < {b}; i++) y0[i] = x0[i];"
        return Code(text, stops=True, inplace=((0, 0),))

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        x = n.arg(0)
        if n.opset < 5:
            wanted: Sequence[Dim] = n.attr("shape", ())
        else:
            wanted = dims_of(n.arg(1), "shape of Reshape")
        zero = bool(n.attr("allowzero", 0))
        return [b.op(cls(target_shape(x.shape, wanted, zero)), x, name=n.output_names)]


def target_shape(old: dims.Shape, wanted: Sequence[Dim], allow_zero: bool) -> dims.Shape:
    """ONNX Reshape: 0 keeps the extent (unless allowed as such), one -1 takes what is left."""
    shape: list[Dim] = []
    for k, d in enumerate(wanted):
        if d == 0 and not allow_zero:
            if k >= len(old):
                raise Refusal(f"the shape keeps axis {k}, but the input has rank {len(old)}")
            d = old[k]
        shape.append(d)
    if shape.count(-1) > 1:
        raise Refusal("the shape has more than one -1")
    if -1 in shape:
        at = shape.index(-1)
        rest = dims.product(d for k, d in enumerate(shape) if k != at)
        whole = dims.product(old)
        if isinstance(rest, int) and rest < 0:
            raise Refusal(f"the shape {list(wanted)} is not valid")
        known = isinstance(whole, int) and isinstance(rest, int) and whole
        if known and (not rest or dims.mod(whole, rest)):
            raise Refusal(f"{list(old)} cannot become {list(wanted)}")
        shape[at] = dims.floordiv(whole, rest)
    return checked_shape(shape)


def axes_of(n: OnnxNode, at: int, since: int) -> tuple[int, ...] | None:
    """The axes of an operator that took them as an attribute before opset `since`."""
    if n.opset < since:
        given = n.attr("axes")
        return None if given is None else tuple(int(a) for a in given)
    v = n.input(at)
    return None if v is None else ints_of(v, f"axes of {n.op_type}")


def squeezed(shape: dims.Shape, axes: Sequence[int] | None) -> dims.Shape:
    """The shape without the axes (without all extents of 1 where axes is None)."""
    if axes is None:
        return tuple(d for d in shape if d != 1)
    gone = {true_axis(a, len(shape)) for a in axes}
    for a in gone:
        if may_differ(shape[a], 1):
            raise Refusal(f"axis {a} of {list(shape)} has an extent of {shape[a]}, not 1")
    return tuple(d for k, d in enumerate(shape) if k not in gone)


def unsqueezed(shape: dims.Shape, axes: Sequence[int]) -> dims.Shape:
    """The shape with new axes of extent 1 at the given places of the result."""
    rank = len(shape) + len(axes)
    if rank > 64:
        raise Refusal(f"a tensor of rank {rank} is not taken")
    at = {axis_of(a, rank) for a in axes}
    if len(at) != len(axes):
        raise Refusal(f"axes {list(axes)} name a place twice")
    rest = iter(shape)
    return tuple(1 if k in at else next(rest) for k in range(rank))
