"""Operators that write updates into a copy of their input; every index is checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.codegen.text import from_storage, to_storage
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.dtypes import DType
from onefold.ir.graph import Node
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Code, Lowered, Lowering, Op, Refusal, axis_of, operator
from onefold.ops.indexing import check_constant, is_index, wrapped
from onefold.ops.known import may_differ

REDUCTIONS = ("none", "add", "mul", "max", "min")
_UFUNC: dict[str, Any] = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def check_reduction(how: str, kind: DType) -> None:
    """Raises Refusal for a reduction that does not exist or not for this element type."""
    if how not in REDUCTIONS:
        raise Refusal(f"reduction '{how}' is not one of {', '.join(REDUCTIONS)}")
    if how != "none" and kind.kind in ("complex", "string", "bool"):
        raise Refusal(f"reduction '{how}' of elements of type {kind.long}")


def combine(y: Any, at: Any, updates: Any, how: str) -> None:
    """y[at] = updates, or combined with them one by one, in the order of the updates."""
    if how == "none":
        for place, u in zip(zip(*at, strict=True), updates, strict=True):
            y[place] = u
        return
    kind = dtypes.of(y.dtype)
    f = _UFUNC[how]
    with np.errstate(all="ignore"):
        for place, u in zip(zip(*at, strict=True), updates, strict=True):
            wide = kind.compute.numpy.type
            y[place] = f(wide(y[place]), wide(u)).astype(y.dtype)


def store_text(how: str, kind: DType, place: str, value: str) -> str:
    """C statement that combines a stored value into y0[place]."""
    if how == "none":
        return f"y0[{place}] = {value};"
    c = kind.compute
    old, new = from_storage(f"y0[{place}]", kind), from_storage(value, kind)
    if how in ("max", "min"):
        text = f"of_{how}_{c.name if c.bits >= 8 else 'i32'}({old}, {new})"
    else:
        text = f"({old} {'+' if how == 'add' else '*'} {new})"
    if kind.is_int:
        text = f"of_wrap_{kind.name}({text})" if kind.bits < 8 else f"({kind.ctype}){text}"
    return f"y0[{place}] = {to_storage(text, kind)};"


def nested(k: Lowering, shape: dims.Shape, body: Sequence[str]) -> list[str]:
    """Loops i0, i1, ... over a shape around C statements."""
    lines = list(body)
    for a in reversed(range(len(shape))):
        lines = [f"for (ix i{a} = 0; i{a} < {k.dim(shape[a])}; i{a}++) {{",
                 *("  " + t for t in lines), "}"]  # fmt: skip
    return lines


def linear_text(k: Lowering, index: Sequence[str], shape: dims.Shape) -> str:
    """C text of the position of an index in a shape."""
    text = "0"
    for i, d in zip(index, shape, strict=True):
        text = i if text == "0" else f"({text} * {k.dim(d)} + {i})"
    return text


def index_lines(k: Lowering, name: str, value: str, extent: Dim) -> list[str]:
    """C statements that define a checked index; negative ones count from the end."""
    n = k.dim(extent)
    return [
        f"int64_t {name} = (int64_t){value};",
        f"if ({name} < 0) {name} += {n};",
        f"if ({name} < 0 || {name} >= {n}) OF_STOP(OF_BAD_INDEX);",
    ]


def copied(k: Lowering) -> str:
    return f"for (ix i = 0; i < {k.dim(k.y().size)}; i++) y0[i] = x0[i];"


@operator
class ScatterElements(Op):
    """A copy of x where y[index[i, j], j] (for axis 0) is combined with updates[i, j], in order."""

    axis: int = 0
    reduction: str = "none"
    onnx: ClassVar = ("ScatterElements", "Scatter")
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3, 3), "f32"), np.array([[1, 0, 2], [0, 2, 1]]), ((2, 3), "f32"))),
        Case((((1, 5), "i8"), np.array([[1, -4]], np.int32), ((1, 2), "i8")),
             {"axis": 1, "reduction": "add"}),
        Case((((2, 3, 2), "f16"), np.zeros((1, 3, 2), np.int64), ((1, 3, 2), "f16")),
             {"axis": -1, "reduction": "max"}),
        Case((((4,), "f64"), np.array([0, 0, 3]), ((3,), "f64")), {"reduction": "mul"}),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        t, index, u = n.arg(0).tensor, is_index(n, 1), n.arg(2).tensor
        check_reduction(self.reduction, t.dtype)
        if not (t.rank == index.rank == u.rank and t.rank and u.dtype is t.dtype):
            raise Refusal(f"updates {u} at indices {index} of {t}")
        axis = axis_of(self.axis, t.rank)
        check_constant(n, 1, t.shape[axis])
        for a, (d, e, f) in enumerate(zip(t.shape, index.shape, u.shape, strict=True)):
            beyond = a != axis and isinstance(d, int) and isinstance(e, int) and e > d
            if may_differ(e, f) or beyond:
                raise Refusal(f"updates {u} at indices {index} of {t}")
        return [TensorType(t.shape, t.dtype, t.quant)]

    def ref(self, n: Node, x: Any, index: Any, updates: Any) -> Any:
        axis = axis_of(self.axis, x.ndim)
        y = x.copy()
        at = [a.reshape(-1) for a in np.indices(index.shape)]
        at[axis] = wrapped(index, x.shape[axis]).reshape(-1)
        combine(y, at, updates.reshape(-1), self.reduction)
        return y

    def lower(self, k: Lowering) -> Lowered:
        x, index, u = k.x(0), k.x(1), k.x(2)
        rank = len(x.shape)
        axis = axis_of(self.axis, rank)
        loops = [f"i{a}" for a in range(rank)]
        body = index_lines(k, "at", f"x1[{linear_text(k, loops, index.shape)}]", x.shape[axis])
        place = [f"i{a}" if a != axis else "at" for a in range(rank)]
        update = f"x2[{linear_text(k, loops, u.shape)}]"
        body.append(store_text(self.reduction, x.dtype, linear_text(k, place, x.shape), update))
        checks = [_fits(k, index.shape[a], x.shape[a]) for a in range(rank) if a != axis]
        checks += [_same(k, e, f) for e, f in zip(index.shape, u.shape, strict=True)]
        text = [*filter(None, checks), copied(k), *nested(k, index.shape, body)]
        return Code("\n".join(text), stops=True, inplace=((0, 0),))


def _fits(k: Lowering, small: Dim, large: Dim) -> str:
    if dims.bounds(dims.add(large, dims.mul(small, -1)))[0] >= 0:
        return ""
    return f"if ({k.dim(small)} > {k.dim(large)}) OF_STOP(OF_BAD_SIZE);"


def _same(k: Lowering, a: Dim, b: Dim) -> str:
    return "" if a == b else f"if ({k.dim(a)} != {k.dim(b)}) OF_STOP(OF_BAD_SIZE);"


@operator
class ScatterND(Op):
    """A copy of x where the slice that each row of the indices names is combined with an update."""

    reduction: str = "none"
    onnx: ClassVar = ("ScatterND",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((8,), "f32"), np.array([[4], [3], [-1]]), ((3,), "f32"))),
        Case((((4, 4, 2), "i32"), np.array([[0], [0]]), ((2, 4, 2), "i32")), {"reduction": "add"}),
        Case((((3, 4), "f16"), np.array([[[0, 1]], [[2, 3]]], np.int32), ((2, 1), "f16")),
             {"reduction": "min"}),
        Case((((3, 4), "f32"), np.zeros((0, 2), np.int64), ((0,), "f32"))),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        t, index, u = n.arg(0).tensor, is_index(n, 1), n.arg(2).tensor
        check_reduction(self.reduction, t.dtype)
        width = index.shape[-1] if index.rank else -1
        if not isinstance(width, int) or not 0 <= width <= t.rank or u.dtype is not t.dtype:
            raise Refusal(f"updates {u} at indices {index} of {t}")
        want = (*index.shape[:-1], *t.shape[width:])
        if len(want) != u.rank or any(may_differ(p, q) for p, q in zip(want, u.shape, strict=True)):
            raise Refusal(f"updates {u} at indices {index} of {t}")
        return [TensorType(t.shape, t.dtype, t.quant)]

    def ref(self, n: Node, x: Any, index: Any, updates: Any) -> Any:
        y = x.copy()
        width = index.shape[-1]
        rows = [wrapped(index[..., j], x.shape[j]).reshape(-1) for j in range(width)]
        each, many = int(np.prod(x.shape[width:])), int(np.prod(index.shape[:-1]))
        inner = np.indices(x.shape[width:]).reshape(x.ndim - width, each)
        at = [np.repeat(r, each) for r in rows] + [np.tile(i, many) for i in inner]
        combine(y, at, updates.reshape(-1), self.reduction)
        return y

    def lower(self, k: Lowering) -> Lowered:
        x, index, u = k.x(0), k.x(1), k.x(2)
        width = index.shape[-1]
        assert isinstance(width, int)
        rows, inner = dims.product(index.shape[:-1]), dims.product(x.shape[width:])
        body: list[str] = []
        for j in range(width):
            body += index_lines(k, f"at{j}", f"x1[i * {width} + {j}]", x.shape[j])
        at = linear_text(k, [f"at{j}" for j in range(width)], x.shape[:width])
        size = k.dim(inner)
        store = store_text(self.reduction, x.dtype, "to + j", f"x2[i * {size} + j]")
        body += [f"const ix to = {at} * {size};", f"for (ix j = 0; j < {size}; j++) {store}"]
        want = (*index.shape[:-1], *x.shape[width:])
        checks = [_same(k, p, q) for p, q in zip(want, u.shape, strict=True)]
        text = [*filter(None, checks), copied(k), f"for (ix i = 0; i < {k.dim(rows)}; i++) {{",
                *("  " + t for t in body), "}"]  # fmt: skip
        return Code("\n".join(text), stops=True, inplace=((0, 0),))


@operator
class TensorScatter(Op):
    """A cache [batch, ..., length, ...] where `update` is written at write_indices[batch] along the
    axis; mode "circular" continues at the beginning."""

    axis: int = -2
    mode: str = "linear"
    onnx: ClassVar = ("TensorScatter",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((2, 1, 4, 3), "f32"), ((2, 1, 2, 3), "f32"), np.array([1, 2]))),
        Case((((2, 4, 3), "i8"), ((2, 3, 3), "i8"), np.array([3, 0])), {"mode": "circular"}),
        Case((((2, 4, 3), "f16"), ((2, 1, 3), "f16"), None)),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t, u = n.arg(0).tensor, n.arg(1).tensor
        if self.mode not in ("linear", "circular"):
            raise Refusal(f"mode '{self.mode}' is neither linear nor circular")
        axis = axis_of(self.axis, t.rank)
        if u.rank != t.rank or u.dtype is not t.dtype or axis == 0:
            raise Refusal(f"update {u} of cache {t} along axis {axis}")
        if any(may_differ(p, q) for a, (p, q) in enumerate(zip(t.shape, u.shape, strict=True))
               if a != axis):  # fmt: skip
            raise Refusal(f"update {u} of cache {t} along axis {axis}")
        if n.input(2) is not None:
            w = is_index(n, 2)
            if w.rank != 1 or may_differ(w.shape[0], t.shape[0]):
                raise Refusal(f"write indices {w} for a cache {t}")
        return [TensorType(t.shape, t.dtype, t.quant)]

    def ref(self, n: Node, x: Any, update: Any, at: Any = None) -> Any:
        axis = axis_of(self.axis, x.ndim)
        y, length = x.copy(), x.shape[axis]
        for b in range(x.shape[0]):
            row, new = np.moveaxis(y[b], axis - 1, 0), np.moveaxis(update[b], axis - 1, 0)
            for s in range(new.shape[0]):
                place = (0 if at is None else int(at[b])) + s
                if self.mode == "circular":
                    place %= length
                if not 0 <= place < length:
                    raise IndexError(f"position {place} of a cache of {length}")
                row[place] = new[s]
        return y

    def lower(self, k: Lowering) -> Lowered:
        x, u = k.x(0), k.x(1)
        rank = len(x.shape)
        axis = axis_of(self.axis, rank)
        n = k.dim(x.shape[axis])
        first = "(int64_t)x2[i0]" if k.has(2) else "0"
        body = [f"int64_t at = {first} + i{axis};"]
        if self.mode == "circular":
            body = [f"int64_t at = of_floor_mod_ix({first}, {n}) + i{axis};",
                    f"at = of_floor_mod_ix(at, {n});"]  # fmt: skip
        body.append(f"if (at < 0 || at >= {n}) OF_STOP(OF_BAD_INDEX);")
        place = [f"i{a}" if a != axis else "at" for a in range(rank)]
        loops = [f"i{a}" for a in range(rank)]
        body.append(f"y0[{linear_text(k, place, x.shape)}] = x1[{linear_text(k, loops, u.shape)}];")
        checks = [_same(k, p, q) for a, (p, q) in enumerate(zip(x.shape, u.shape, strict=True))
                  if a != axis]  # fmt: skip
        if k.has(2):
            checks.append(_same(k, k.x(2).shape[0], x.shape[0]))
        if not isinstance(x.shape[axis], int) or x.shape[axis] == 0:
            checks.append(f"if ({n} == 0) return;")
        text = [*filter(None, checks), copied(k), *nested(k, u.shape, body)]
        return Code("\n".join(text), stops=True, inplace=((0, 0),))
