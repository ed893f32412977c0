"""Sequences and optional values, resolved while the model is imported where they are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onefold.frontend.onnx import records as r
from onefold.frontend.onnx.rules import rule
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Builder, Value
from onefold.ir.types import AnyType, OptionalType, SequenceType, TensorType
from onefold.ops import sequence as seq
from onefold.ops.base import NeedsValue, Refusal, true_axis
from onefold.ops.formats import OnnxNode
from onefold.ops.indexing import Gather
from onefold.ops.known import content_of, dims_of, found, one_int
from onefold.ops.movement import Concat, split
from onefold.ops.sequence import elements
from onefold.ops.shape import Reshape, squeezed, unsqueezed

MAX_ELEMENTS = 4096


def _known(n: OnnxNode, i: int = 0) -> tuple[Value, ...] | None:
    v = n.arg(i)
    if not isinstance(v.type, SequenceType):
        raise Refusal(f"input {i} is a {v.type}, not a sequence")
    return elements(v)


def _sequence(n: OnnxNode, b: Builder, items: Sequence[Value]) -> Sequence[Value]:
    if len(items) > MAX_ELEMENTS:
        raise Refusal(f"a sequence of {len(items)} elements; at most {MAX_ELEMENTS} are taken")
    return [b.op(seq.SequenceConstruct(), *items, name=n.output_names)]


@rule("SequenceConstruct")
def construct(n: OnnxNode, b: Builder) -> Sequence[Value]:
    return _sequence(n, b, [v for v in n.inputs if v is not None])


@rule("SequenceEmpty")
def empty(n: OnnxNode, b: Builder) -> Sequence[Value]:
    kind = n.dtype("dtype") or dtypes.f32
    return [b.op(seq.SequenceConstruct(kind), name=n.output_names)]


@rule("SequenceLength")
def length(n: OnnxNode, b: Builder) -> Sequence[Value]:
    items = _known(n)
    if items is None:
        return [b.op(seq.SequenceLength(), n.arg(0), name=n.output_names)]
    return [b.const(np.array(len(items), np.int64))]


@rule("SequenceAt")
def at(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """A known position of a known sequence is that element; else equal elements are stacked."""
    items = _known(n)
    if items is None:
        return [b.op(seq.SequenceAt(), n.arg(0), n.arg(1), name=n.output_names)]
    place = content_of(n.arg(1))
    if place is not None and len(place) == 1 and isinstance(place[0], int):
        return [items[_place(place[0], len(items))]]
    if not items or any(v.type != items[0].type for v in items):
        raise NeedsValue(n.arg(1), "it chooses among elements of different types")
    parts = [b.op(Reshape(unsqueezed(v.shape, (0,))), v) for v in items]
    whole = b.op(Concat(0), *parts) if len(parts) > 1 else parts[0]
    index = n.arg(1) if n.arg(1).shape == () else b.op(Reshape(()), n.arg(1))
    return [b.op(Gather(0), whole, index, name=n.output_names)]


def _place(i: int, count: int, end: int = 0) -> int:
    if not -count <= i < count + end:
        raise Refusal(f"position {i} of a sequence of {count}")
    return i + count if i < 0 else i


@rule("SequenceInsert")
def insert(n: OnnxNode, b: Builder) -> Sequence[Value]:
    items = _known(n)
    if items is None:
        return [b.op(seq.SequenceInsert(), *n.inputs, name=n.output_names)]
    count = len(items)
    place = count if n.input(2) is None else one_int(n.arg(2), "position of SequenceInsert")
    i = _place(place, count, end=1)
    return _sequence(n, b, [*items[:i], n.arg(1), *items[i:]])


@rule("SequenceErase")
def erase(n: OnnxNode, b: Builder) -> Sequence[Value]:
    items = _known(n)
    if items is None:
        return [b.op(seq.SequenceErase(), *n.inputs, name=n.output_names)]
    place = -1 if n.input(1) is None else one_int(n.arg(1), "position of SequenceErase")
    i = _place(place, len(items))
    return _sequence(n, b, [*items[:i], *items[i + 1 :]])


@rule("SplitToSequence")
def split_to_sequence(n: OnnxNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    axis = true_axis(int(n.attr("axis", 0)), len(x.shape))
    keep = bool(n.attr("keepdims", 1))
    sizes = _sizes(n, x.shape[axis])
    if sizes is None:
        op = seq.SplitToSequence(axis, keep)
        return [b.op(op, x, n.input(1), name=n.output_names)]
    if len(sizes) > MAX_ELEMENTS:
        raise Refusal(f"a sequence of {len(sizes)} elements; at most {MAX_ELEMENTS} are taken")
    parts = split(b, x, axis, sizes, ())
    if n.input(1) is None and not keep:
        parts = [b.op(Reshape(squeezed(p.shape, (axis,))), p) for p in parts]
    return _sequence(n, b, parts)


def _sizes(n: OnnxNode, extent: Dim) -> list[Dim] | None:
    """Sizes of the parts; None where even their number is open."""
    v = n.input(1)
    if v is not None and len(v.shape) == 1:
        return list(dims_of(v, "sizes of SplitToSequence"))
    if not isinstance(extent, int):
        return None
    each = 1 if v is None else one_int(v, "size of SplitToSequence")
    if each < 1 or extent // each > MAX_ELEMENTS:
        raise Refusal(f"an axis of {extent} in parts of {each}")
    return [min(each, extent - i) for i in range(0, extent, each)]


@rule("ConcatFromSequence")
def concat(n: OnnxNode, b: Builder) -> Sequence[Value]:
    items = _known(n)
    axis, new = int(n.attr("axis", 0)), bool(n.attr("new_axis", 0))
    if items is None:
        return [b.op(seq.ConcatFromSequence(axis, new), n.arg(0), name=n.output_names)]
    if not items:
        raise Refusal("an empty sequence cannot be joined")
    parts = list(items)
    if new:
        parts = [b.op(Reshape(unsqueezed(v.shape, (axis,))), v) for v in parts]
    return [b.op(Concat(axis), *parts, name=n.output_names)] if len(parts) > 1 else parts


@rule("SequenceMap")
def sequence_map(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Unrolled where every sequence is known."""
    body = n.attrs["body"]
    items = [elements(v) if v is not None and isinstance(v.type, SequenceType) else None
             for v in n.inputs]  # fmt: skip
    given = [v for v in n.inputs if v is not None]
    if any(e is None and isinstance(v.type, SequenceType)
           for v, e in zip(given, items, strict=True)):  # fmt: skip
        formal = [_formal(b, v) for v in given]
        region = n.importer.region(body, formal)
        return b.ops(seq.SequenceMap(), *given, name=n.output_names, regions=[region])
    count = len(items[0] or ())
    results: list[list[Value]] = [[] for _ in n.output_names]
    for i in range(count):
        actual = [v if e is None else e[_place(i, len(e))]
                  for v, e in zip(given, items, strict=True)]  # fmt: skip
        for out, y in zip(results, n.importer.inline(body, actual), strict=False):
            out.append(y)
    return [b.op(seq.SequenceConstruct(), *r, name=n.output_names[k : k + 1])
            for k, r in enumerate(results)]  # fmt: skip


def _formal(b: Builder, v: Value) -> Value:
    t = seq.element_type(v) if isinstance(v.type, SequenceType) else v.type
    return Value(b.name(f"{v.name}.element"), t)


@rule("Optional")
def optional(n: OnnxNode, b: Builder) -> Sequence[Value]:
    v, t = n.input(0), n.attr("type")
    op = seq.Optional(None if v is not None or t is None else _type(t))
    return [b.op(op, *([] if v is None else [v]), name=n.output_names)]


def _type(t: r.Type | None) -> AnyType | None:
    """A type given as an attribute, where it is complete."""
    if isinstance(t, r.SequenceType):
        return SequenceType(_type(t.elem))
    if isinstance(t, r.OptionalType):
        inner = _type(t.elem)
        return OptionalType(inner)  # type: ignore[arg-type]
    if not isinstance(t, r.TensorType) or t.shape is None or t.dtype not in dtypes.BY_NAME:
        return None
    shape = tuple(d if isinstance(d, int) and d >= 0 else found("element", dims.INF)
                  for d in t.shape)  # fmt: skip
    return TensorType(shape, dtypes.BY_NAME[t.dtype])


@rule("OptionalHasElement")
def has_element(n: OnnxNode, b: Builder) -> Sequence[Value]:
    v = n.input(0)
    made = None if v is None else seq.source(v)
    if v is None:
        there = False
    elif not isinstance(v.type, OptionalType):
        there = True
    elif made is not None and isinstance(made.op, seq.Optional):
        there = bool(list(made.present()))
    else:
        return [b.op(seq.OptionalHasElement(), v, name=n.output_names)]
    return [b.const(np.array(there))]


@rule("OptionalGetElement")
def get_element(n: OnnxNode, b: Builder) -> Sequence[Value]:
    v = n.arg(0)
    if not isinstance(v.type, OptionalType):
        return [v]
    made = seq.source(v)
    if made is not None and isinstance(made.op, seq.Optional):
        inner = list(made.present())
        if not inner:
            raise Refusal("the optional value is absent")
        return inner
    return [b.op(seq.OptionalGetElement(), v, name=n.output_names)]
