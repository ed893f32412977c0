"""Sequences and optional values, which live on the host.

The importer resolves them wherever it knows the elements: a sequence that it knows is the result
of a `SequenceConstruct`, a known optional that of an `Optional`, so later operators take the
elements from there and these nodes vanish as nobody reads them. What stays are sequences that
enter or leave the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dtypes
from onefold.ir.dtypes import DType
from onefold.ir.graph import Node, Value
from onefold.ir.types import AnyType, OptionalType, SequenceType, TensorType
from onefold.ops.base import NeedsValue, Op, Refusal, operator
from onefold.ops.known import found

WHY = "sequences and optional values live on the host only"


def elements(v: Value) -> tuple[Value, ...] | None:
    """The elements of a sequence where the importer knows them."""
    node = source(v)
    if node is not None and isinstance(node.op, SequenceConstruct):
        return tuple(node.present())
    return None


def source(v: Value) -> Node | None:
    """The node that makes a value, through identities."""
    node = v.producer
    while node is not None and node.op.name == "Identity" and node.inputs:
        node = node.arg(0).producer
    return node


def element_type(v: Value) -> AnyType:
    """The type of one element of a sequence. Raises Refusal, or NeedsValue where it is open."""
    t = v.type
    if not isinstance(t, SequenceType):
        raise Refusal(f"{v.name} is a {t}, not a sequence")
    if t.element is None:
        raise NeedsValue(v, "the type of the elements is not in the file")
    return any_shape(t.element)


def any_shape(t: AnyType) -> AnyType:
    """A tensor type whose open extents are new symbols: elements need not agree on them."""
    if not isinstance(t, TensorType):
        return t
    shape = tuple(d if isinstance(d, int) else found("element", 1 << 62) for d in t.shape)
    return TensorType(shape, t.dtype)


def common(types: Sequence[AnyType], kind: DType) -> SequenceType:
    """The type of a sequence of values of these types."""
    first = next(iter(types), None)
    if not isinstance(first, TensorType):
        return SequenceType(first)
    for t in types:
        if not isinstance(t, TensorType) or t.dtype is not first.dtype:
            raise Refusal(f"a sequence of {first} and {t}")
    ranks = {t.rank for t in types if isinstance(t, TensorType)}
    if len(ranks) > 1:
        return SequenceType(None)
    columns = zip(*(t.shape for t in types if isinstance(t, TensorType)), strict=True)
    shape = tuple(
        c[0] if len(set(c)) == 1 else found("element", 1 << 62) for c in columns
    )
    return SequenceType(TensorType(shape, first.dtype))


@operator
class SequenceConstruct(Op):
    """The inputs as a sequence; dtype: element type of an empty one."""

    dtype: DType = dtypes.f32
    host_only: ClassVar = WHY

    def infer(self, n: Node) -> Sequence[AnyType]:
        return [common([v.type for v in n.present()], self.dtype)]

    def ref(self, n: Node, *x: Any) -> Any:
        return [list(x)]


@operator
class SequenceAt(Op):
    """The element at a position; negative ones count from the end."""

    host_only: ClassVar = WHY

    def infer(self, n: Node) -> Sequence[AnyType]:
        return [element_type(n.arg(0))]

    def ref(self, n: Node, x: Any, at: Any) -> Any:
        return [x[_one(at)]]


@operator
class SequenceInsert(Op):
    """The sequence with a tensor put in before a position (at the end where there is none)."""

    host_only: ClassVar = WHY

    def infer(self, n: Node) -> Sequence[AnyType]:
        t = n.arg(0).type
        if not isinstance(t, SequenceType):
            raise Refusal(f"{n.arg(0).name} is a {t}, not a sequence")
        return [common([n.arg(1).type] if t.element is None else [t.element, n.arg(1).type],
                       dtypes.f32)]  # fmt: skip

    def ref(self, n: Node, x: Any, item: Any, at: Any = None) -> Any:
        out = list(x)
        place = len(out) if at is None else _one(at)
        if not -len(out) <= place <= len(out):
            raise IndexError(f"position {place} of a sequence of {len(out)}")
        out.insert(place + len(out) if place < 0 else place, item)
        return [out]


@operator
class SequenceErase(Op):
    """The sequence without the element at a position (the last where there is none)."""

    host_only: ClassVar = WHY

    def infer(self, n: Node) -> Sequence[AnyType]:
        return [n.arg(0).type]

    def ref(self, n: Node, x: Any, at: Any = None) -> Any:
        out = list(x)
        del out[-1 if at is None else _one(at)]
        return [out]


@operator
class SequenceLength(Op):
    """The number of elements as an int64 scalar."""

    host_only: ClassVar = WHY

    def infer(self, n: Node) -> Sequence[AnyType]:
        return [TensorType((), dtypes.i64)]

    def ref(self, n: Node, x: Any) -> Any:
        return np.array(len(x), np.int64)


@operator
class SplitToSequence(Op):
    """A tensor cut along an axis: in runs of the given sizes, of one size, or of one element
    (whose axis is kept where keepdims is set)."""

    axis: int = 0
    keepdims: bool = True
    host_only: ClassVar = WHY

    def infer(self, n: Node) -> Sequence[AnyType]:
        t = n.arg(0).tensor
        shape = list(t.shape)
        if n.input(1) is None and not self.keepdims:
            del shape[self.axis]
        else:
            shape[self.axis] = found("part", 1 << 62)
        return [SequenceType(TensorType(tuple(shape), t.dtype))]

    def ref(self, n: Node, x: Any, sizes: Any = None) -> Any:
        extent = x.shape[self.axis]
        if sizes is None:
            parts = [np.take(x, [i], self.axis) for i in range(extent)]
            return [parts if self.keepdims else [np.squeeze(p, self.axis) for p in parts]]
        if np.ndim(sizes) == 0:
            ends = list(range(int(sizes), extent, int(sizes)))
        else:
            if np.sum(sizes) != extent:
                raise ValueError(f"sizes do not make up an axis of {extent}")
            ends = [int(e) for e in np.cumsum(sizes)[:-1]]
        return [np.split(x, ends, self.axis)]


@operator
class ConcatFromSequence(Op):
    """The elements of a sequence joined along an axis, or along a new one."""

    axis: int = 0
    new_axis: bool = False
    host_only: ClassVar = WHY

    def infer(self, n: Node) -> Sequence[AnyType]:
        t = element_type(n.arg(0))
        if not isinstance(t, TensorType):
            raise Refusal(f"a sequence of {t} cannot be joined")
        shape = list(t.shape)
        axis = self.axis + (len(shape) + self.new_axis if self.axis < 0 else 0)
        if not 0 <= axis < len(shape) + self.new_axis:
            raise Refusal(f"axis {self.axis} is outside a tensor of rank {len(shape)}")
        joined = found("joined", 1 << 62)
        if self.new_axis:
            shape.insert(axis, joined)
        else:
            shape[axis] = joined
        return [TensorType(tuple(shape), t.dtype)]

    def ref(self, n: Node, x: Any) -> Any:
        return np.stack(x, self.axis) if self.new_axis else np.concatenate(x, self.axis)


@operator
class SequenceMap(Op):
    """regions[0] applied to the elements of the first sequence, to those of the other sequences
    at the same places, and to tensors as they are; each result is a sequence."""

    host_only: ClassVar = WHY

    def infer(self, n: Node) -> Sequence[AnyType]:
        return [SequenceType(v.type) for v in n.regions[0].outputs]

    def ref_in(self, n: Node, env: Any, *x: Any) -> Any:
        results: list[list[Any]] = [[] for _ in n.outputs]
        for i in range(len(x[0])):
            given = [v[i] if isinstance(v, list) else v for v in x]
            for out, y in zip(results, env.run(n.regions[0], given), strict=True):
                out.append(y)
        return results


@operator
class Optional(Op):
    """The input as an optional value; without one, the absent value."""

    element: AnyType | None = None
    host_only: ClassVar = WHY

    def infer(self, n: Node) -> Sequence[AnyType]:
        t = n.arg(0).type if n.input(0) is not None else self.element
        if isinstance(t, OptionalType):
            raise Refusal("an optional value of an optional value")
        return [OptionalType(t)]

    def ref(self, n: Node, x: Any = None) -> Any:
        return [x]


@operator
class OptionalHasElement(Op):
    """Whether there is a value."""

    host_only: ClassVar = WHY

    def infer(self, n: Node) -> Sequence[AnyType]:
        return [TensorType((), dtypes.b1)]

    def ref(self, n: Node, x: Any = None) -> Any:
        return np.array(x is not None)


@operator
class OptionalGetElement(Op):
    """The value, which must be there."""

    host_only: ClassVar = WHY

    def infer(self, n: Node) -> Sequence[AnyType]:
        t = n.arg(0).type
        if not isinstance(t, OptionalType):
            return [t]
        if t.element is None:
            raise NeedsValue(n.arg(0), "the type of the value is not in the file")
        return [any_shape(t.element)]

    def ref(self, n: Node, x: Any) -> Any:
        if x is None:
            raise ValueError("the optional value is absent")
        return [x]


def _one(at: Any) -> int:
    return int(np.reshape(at, -1)[0])
