"""Operators that only move elements, by places that are known before the program runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, scalar
from onefold.ir.dims import Dim
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.scalar import Index
from onefold.ir.types import Quant, TensorType
from onefold.ops.base import (
    Case,
    Lowered,
    Lowering,
    Pieces,
    Refusal,
    agree,
    axis_of,
    operator,
    true_axis,
)
from onefold.ops.formats import OnnxNode
from onefold.ops.known import (
    Movement,
    checked_shape,
    dims_of,
    ints_of,
    may_differ,
    number,
    numbers,
)


@operator
class Transpose(Movement):
    """Axis k of the result is axis perm[k] of the input; an empty perm reverses the axes."""

    perm: tuple[int, ...] = ()
    onnx: ClassVar = ("Transpose",)
    cases: ClassVar = (
        Case((((3, 4, 5), "f32"),), {"perm": (2, 0, 1)}),
        Case((((2, 3), "i8"),), {"perm": (1, 0)}),
        Case((((1, 3, 1, 5), "f16"),), {"perm": (3, 2, 1, 0)}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = n.arg(0).tensor
        if sorted(self.perm) != list(range(t.rank)):
            raise Refusal(f"perm {list(self.perm)} does not order {t.rank} axes")
        quant = None if t.quant is None else _permuted(t.quant, self.perm)
        return [TensorType(tuple(t.shape[p] for p in self.perm), t.dtype, quant)]

    def ref(self, n: Node, x: Any) -> Any:
        return np.transpose(x, self.perm)

    def lower(self, k: Lowering) -> Lowered:
        x = k.x()
        place = {p: i for i, p in enumerate(self.perm)}
        return k.map(lambda *i: x(*(i[place[a]] for a in range(len(i)))))

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        x = n.arg(0)
        given = n.attr("perm")
        perm = tuple(reversed(range(len(x.shape)))) if given is None else tuple(given)
        return [b.op(cls(tuple(int(p) for p in perm)), x, name=n.output_names)]


def _permuted(q: Quant, perm: Sequence[int]) -> Quant:
    return q if q.axis is None else Quant(q.scale, q.zero_point, perm.index(q.axis), q.rule)


def fit(i: Dim, extent: Dim, whole: Dim) -> Dim:
    """The index, in an axis of `extent` elements that is broadcast to `whole`, for index i."""
    if extent == 1:
        return 0
    if extent == whole:
        return i
    one = Index(extent).eq(1)
    return scalar.loaded(scalar.where(one, 0, Index(i)), extent, wrap=False)


@operator
class Expand(Movement):
    """NumPy broadcasting to at least the given shape."""

    shape: tuple[Dim, ...] = ()
    onnx: ClassVar = ("Expand",)
    cases: ClassVar = (
        Case((((3, 1), "f32"),), {"shape": (2, 1, 6)}),
        Case((((), "i8"),), {"shape": (2, 3)}),
        Case((((3, 1), "f16"),), {"shape": (1, 1)}),
        Case((((1,), "f32"),), {"shape": (0, 3)}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = n.arg(0).tensor
        rank = max(t.rank, len(self.shape))
        old = (1,) * (rank - t.rank) + t.shape
        new = (1,) * (rank - len(self.shape)) + self.shape
        shape = tuple(_wider(a, b) for a, b in zip(old, new, strict=True))
        return [TensorType(checked_shape(shape), t.dtype, None if rank > t.rank else t.quant)]

    def ref(self, n: Node, x: Any) -> Any:
        return np.broadcast_to(x, np.broadcast_shapes(np.shape(x), numbers(self.shape)))

    def lower(self, k: Lowering) -> Lowered:
        x, shape = k.x(), k.y().shape
        skip = len(shape) - len(x.shape)
        return k.map(lambda *i: x(*map(fit, i[skip:], x.shape, shape[skip:])))

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        shape = checked_shape(dims_of(n.arg(1), "shape of Expand"))
        return [b.op(cls(shape), n.arg(0), name=n.output_names)]


def _wider(a: Dim, b: Dim) -> Dim:
    if a == 1 or a == b:
        return b
    if b == 1:
        return a
    if isinstance(a, int) and isinstance(b, int):
        raise Refusal(f"an extent of {a} cannot be expanded to {b}")
    if isinstance(a, int) or isinstance(b, int):
        return a if isinstance(a, int) else b
    return dims.maximum(a, b)


@operator
class Tile(Movement):
    """The input repeated along each axis."""

    repeats: tuple[Dim, ...] = ()
    cases: ClassVar = (
        Case((((3, 2), "f32"),), {"repeats": (2, 3)}),
        Case((((5,), "i8"),), {"repeats": (0,)}),
        Case((((1, 3), "f32"),), {"repeats": (4, 1)}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = n.arg(0).tensor
        if len(self.repeats) != t.rank:
            raise Refusal(f"{len(self.repeats)} repeats for a tensor of rank {t.rank}")
        shape = tuple(dims.mul(d, r) for d, r in zip(t.shape, self.repeats, strict=True))
        quant = None if t.quant is not None and t.quant.per_axis else t.quant
        return [TensorType(checked_shape(shape), t.dtype, quant)]

    def ref(self, n: Node, x: Any) -> Any:
        return np.tile(x, numbers(self.repeats))

    def lower(self, k: Lowering) -> Lowered:
        x = k.x()

        def place(i: Dim, d: Dim, r: Dim) -> Dim:
            return i if r == 1 else dims.mod(i, d)

        return k.map(lambda *i: x(*map(place, i, x.shape, self.repeats)))


@operator
class Concat(Movement):
    """The inputs one after another along an axis."""

    axis: int = 0
    onnx: ClassVar = ("Concat",)
    cases: ClassVar = (
        Case((((3, 2), "f32"), ((3, 4), "f32")), {"axis": 1}),
        Case((((3, 2), "i8"), ((0, 2), "i8"), ((1, 2), "i8"))),
        Case((((2, 3, 1), "f16"), ((2, 3, 5), "f16")), {"axis": -1}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        parts = [v.tensor for v in n.present()]
        if not parts:
            raise Refusal("Concat has no input")
        first = parts[0]
        if any(t.rank != first.rank or t.dtype is not first.dtype for t in parts) or not first.rank:
            raise Refusal(f"{', '.join(map(repr, parts))} cannot be joined")
        axis = axis_of(self.axis, first.rank)
        shape = [_common([t.shape[a] for t in parts]) for a in range(first.rank) if a != axis]
        whole: Dim = 0
        for t in parts:
            whole = dims.add(whole, t.shape[axis])
        shape.insert(axis, whole)
        quant = first.quant if all(t.quant == first.quant for t in parts) else None
        return [TensorType(checked_shape(shape), first.dtype, quant)]

    def ref(self, n: Node, *x: Any) -> Any:
        return np.concatenate(x, self.axis)

    def lower(self, k: Lowering) -> Lowered:
        axis = axis_of(self.axis, len(k.y().shape))
        parts = []
        start: Dim = 0
        for x in k.inputs:
            if x is not None:
                parts.append((start, self._part(k, x, axis)))
                start = dims.add(start, x.shape[axis])
        return Pieces(axis, tuple(parts))

    def _part(self, k: Lowering, x: scalar.TensorExpr, axis: int) -> scalar.TensorExpr:
        shape = list(k.y().shape)
        shape[axis] = x.shape[axis]
        if tuple(shape) == x.shape:
            return x

        return scalar.TensorExpr(TensorType(tuple(shape), x.dtype), x)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        axis = int(n.attr("axis", 1 if n.opset < 4 else 0))
        parts = [v for v in n.inputs if v is not None]
        if len(parts) == 1:
            return parts
        return [b.op(cls(axis), *parts, name=n.output_names)]


def _common(extents: Sequence[Dim]) -> Dim:
    """The extent that all inputs must share: a number where one of them is one."""
    numbers = {d for d in extents if isinstance(d, int)}
    if len(numbers) > 1:
        raise Refusal(f"extents {sorted(numbers)} differ on an axis that is not joined")
    common = numbers.pop() if numbers else extents[0]
    for d in extents:
        agree(common, d)
    return common


@operator
class Slice(Movement):
    """Element i of axis a is element starts[a] + i * steps[a] of the input, for i < sizes[a].

    The region lies inside the input: importers clamp.
    """

    starts: tuple[Dim, ...] = ()
    sizes: tuple[Dim, ...] = ()
    steps: tuple[int, ...] = ()
    onnx: ClassVar = ("Slice",)
    cases: ClassVar = (
        Case((((6, 5), "f32"),), {"starts": (1, 0), "sizes": (4, 5), "steps": (1, 1)}),
        Case((((6, 5), "i8"),), {"starts": (5, 3), "sizes": (3, 2), "steps": (-2, -3)}),
        Case((((6,), "f32"),), {"starts": (2,), "sizes": (0,), "steps": (1,)}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = n.arg(0).tensor
        if not len(self.starts) == len(self.sizes) == len(self.steps) == t.rank:
            raise Refusal(f"a slice of {len(self.starts)} axes of a tensor of rank {t.rank}")
        for s, size, step, d in zip(self.starts, self.sizes, self.steps, t.shape, strict=True):
            if isinstance(size, int) and size > 0:
                last = dims.add(s, (size - 1) * step)
                end = dims.add(last if step > 0 else s, 1)
                agree(dims.minimum(end, d), end)
                for at in (s, last):
                    if dims.bounds(at)[1] < 0 or dims.bounds(dims.add(at, dims.mul(d, -1)))[0] >= 0:
                        raise Refusal(f"the slice leaves an axis of extent {d}")
        quant = t.quant
        if quant is not None and quant.axis is not None and self.sizes != t.shape:
            quant = None
        return [TensorType(checked_shape(self.sizes), t.dtype, quant)]

    def ref(self, n: Node, x: Any) -> Any:
        for a, (s, size, step) in enumerate(zip(self.starts, self.sizes, self.steps, strict=True)):
            x = np.take(x, number(s) + np.arange(number(size)) * step, a)
        return x

    def lower(self, k: Lowering) -> Lowered:
        x = k.x()

        def place(i: Dim, s: Dim, step: int) -> Dim:
            return dims.add(s, dims.mul(i, step))

        return k.map(lambda *i: x(*map(place, i, self.starts, self.steps)))

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        x = n.arg(0)
        if n.opset < 10:
            starts, ends, axes = n.attr("starts", ()), n.attr("ends", ()), n.attr("axes")
            steps = None
        else:
            starts = dims_of(n.arg(1), "starts of Slice")
            ends = dims_of(n.arg(2), "ends of Slice")
            axes = None if n.input(3) is None else ints_of(n.arg(3), "axes of Slice")
            steps = None if n.input(4) is None else ints_of(n.arg(4), "steps of Slice")
        return [cut(b, x, starts, ends, axes, steps, n.output_names)]


def cut(
    b: Builder,
    x: Value,
    starts: Sequence[Dim],
    ends: Sequence[Dim],
    axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
    name: str | Sequence[str] = "",
) -> Value:
    """x[starts:ends:steps] on the axes, by NumPy's rules."""
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise Refusal("starts, ends, axes and steps have different lengths")
    first: list[Dim] = [0] * len(x.shape)
    sizes, strides = list(x.shape), [1] * len(x.shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        a = true_axis(int(axis), len(x.shape))
        first[a], sizes[a] = span(start, end, int(step), x.shape[a])
        strides[a] = int(step)
    if all(s == 0 for s in first) and tuple(sizes) == x.shape and set(strides) <= {1}:
        return x
    return b.op(Slice(tuple(first), tuple(sizes), tuple(strides)), x, name=name)


def span(start: Dim, end: Dim, step: int, extent: Dim) -> tuple[Dim, Dim]:
    """First element and number of elements of start:end:step in an axis. Raises Refusal."""
    if step == 0:
        raise Refusal("a slice has a step of 0")
    start, end = from_end(start, extent), from_end(end, extent)
    if step > 0:
        lo = dims.minimum(dims.maximum(start, 0), extent)
        hi = dims.minimum(dims.maximum(end, 0), extent)
        count = dims.ceildiv(dims.add(hi, dims.mul(lo, -1)), step)
    else:
        last = dims.add(extent, -1)
        lo = dims.minimum(dims.maximum(start, -1), last)
        hi = dims.minimum(dims.maximum(end, -1), last)
        count = dims.ceildiv(dims.add(lo, dims.mul(hi, -1)), -step)
    count = dims.maximum(count, 0)
    return (0 if count == 0 else lo), count


def from_end(i: Dim, extent: Dim) -> Dim:
    """An index where negative ones count from the end, as one that does not."""
    lo, hi = dims.bounds(i)
    if lo >= 0:
        return i
    if hi < 0:
        return dims.add(i, extent)
    negative = dims.minimum(dims.maximum(dims.mul(i, -1), 0), 1)
    return dims.add(i, dims.mul(negative, extent))


def split(
    b: Builder, x: Value, axis: int, sizes: Sequence[Dim], names: Sequence[str]
) -> list[Value]:
    """Runs of the given sizes along an axis. Raises Refusal where they do not make up the axis."""
    axis = true_axis(axis, len(x.shape))
    whole: Dim = 0
    for s in sizes:
        whole = dims.add(whole, s)
    if may_differ(whole, x.shape[axis]) or any(isinstance(s, int) and s < 0 for s in sizes):
        raise Refusal(f"sizes {list(sizes)} do not make up an axis of {x.shape[axis]}")
    out: list[Value] = []
    start: Dim = 0
    for k, s in enumerate(sizes):
        first: list[Dim] = [0] * len(x.shape)
        shape = list(x.shape)
        first[axis], shape[axis] = start, s
        start = dims.add(start, s)
        op = Slice(tuple(first), tuple(shape), (1,) * len(shape))
        out.append(b.op(op, x, name=names[k] if k < len(names) else ""))
    return out
