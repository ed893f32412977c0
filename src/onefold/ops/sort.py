"""Operators that order or select elements by their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.dtypes import DType
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.types import TensorType
from onefold.ops.base import (
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
from onefold.ops.known import Sized, found, number, one_dim, put

INDEX_BYTES = 8  # of an `ix` on the largest target


def less(kind: DType, a: str, b: str) -> str:
    """C text: a < b, where NaN is larger than every number."""
    if kind.is_float:
        return f"({a} < {b} || ({b} != {b} && {a} == {a}))"
    return f"({a} < {b})"


def ranks(x: Any) -> Any:
    """Each element's place among the different values; NaN is the largest."""
    kind = dtypes.of(x.dtype)
    wide = x.astype(np.float32) if kind.is_float and kind.bits < 32 else x
    return np.unique(wide, return_inverse=True)[1].reshape(x.shape)


@operator
class TopK(Sized):
    """The k largest (or smallest) elements along an axis, best first, and their indices (int64).

    Of equal elements the one with the lower index comes first; NaN is larger than every number.
    """

    k: Dim = 1
    axis: int = -1
    largest: bool = True
    onnx: ClassVar = ("TopK",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3, 7), "f32"),), {"k": 3}),
        Case((np.array([[2, 2, 1], [3, 1, 3]], np.uint64),), {"k": 2, "largest": False}),
        Case((((4, 5, 2), "f16"),), {"k": 4, "axis": 0}),
        Case((np.array([1, np.nan, -np.inf, 3], np.float32),), {"k": 4}),
        Case((((3, 0), "i8"),), {"k": 0}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = n.arg(0).tensor
        if not t.rank or t.dtype.kind in ("complex", "bool", "string"):
            raise Refusal(f"TopK of {t}")
        axis = axis_of(self.axis, t.rank)
        room = dims.add(t.shape[axis], dims.mul(self.k, -1))
        if dims.bounds(self.k)[1] < 0 or dims.bounds(room)[1] < 0:
            raise Refusal(f"the best {self.k} of {t.shape[axis]} elements")
        shape = tuple(self.k if a == axis else d for a, d in enumerate(t.shape))
        return [TensorType(shape, t.dtype, t.quant), TensorType(shape, dtypes.i64)]

    def ref(self, n: Node, x: Any) -> Any:
        axis = axis_of(self.axis, x.ndim)
        r = ranks(x)
        order = np.argsort(-r if self.largest else r, axis, kind="stable")
        order = np.take(order, np.arange(number(self.k)), axis)
        return np.take_along_axis(x, order, axis), order.astype(np.int64)

    def lower(self, k: Lowering) -> Lowered:
        x, kind = k.x(), k.x().dtype.compute
        axis = axis_of(self.axis, len(x.shape))
        outer, inner = dims.product(x.shape[:axis]), dims.product(x.shape[axis + 1 :])
        first, second = ("q", "p") if self.largest else ("p", "q")

        def value(i: str) -> str:
            return k.load(0, f"from + (ix)({i}) * inner")

        better, worse = less(kind, f"v{first}", f"v{second}"), less(kind, f"v{second}", f"v{first}")
        text = f"""
const ix n = {k.dim(x.shape[axis])}, best = {k.dim(self.k)}, inner = {k.dim(inner)};
if (best > n || best < 0) OF_STOP(OF_BAD_SIZE);
#define H(i) y1[to + (i) * inner]
#define BEFORE(i, j) __extension__({{ const ix p = (ix)(i), q = (ix)(j); \\
  const {kind.ctype} vp = {value("p")}, vq = {value("q")}; {better} || (!{worse} && p < q); }})
for (ix o = 0; o < {k.dim(outer)}; o++) {{
  for (ix j = 0; j < inner; j++) {{
    const ix from = o * n * inner + j, to = o * best * inner + j;
    for (ix i = 0; i < best; i++) H(i) = i;
    OF_HEAP(H, best, BEFORE);
    for (ix i = best; best && i < n; i++) {{
      if (BEFORE(i, H(0))) {{
        H(0) = i;
        OF_SIFT(H, best, 0, BEFORE);
      }}
    }}
    OF_UNHEAP(H, best, BEFORE)
    for (ix i = 0; i < best; i++) y0[to + i * inner] = x0[from + (ix)H(i) * inner];
  }}
}}
#undef H
#undef BEFORE"""
        return Code(text, includes=("of_sort.h",), stops=True)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        if n.opset < 10:
            best: Dim = int(n.attr("k", 0))
        else:
            best = one_dim(n.arg(1), "k of TopK")
        op = cls(best, int(n.attr("axis", -1)), bool(n.attr("largest", 1)))
        return b.ops(op, n.arg(0), name=n.output_names)


@operator
class NonZero(Op):
    """Indices of the elements that are not zero: int64 [rank, count], in row-major order."""

    onnx: ClassVar = ("NonZero",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((np.array([[1, 0], [1, 1]], bool),)),
        Case((np.array([0, -0.0, 3, np.nan], np.float32),)),
        Case((((3, 0), "i8"),)),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = n.arg(0).tensor
        return [TensorType((max(t.rank, 1), found("nonzero", t.size)), dtypes.i64)]

    def ref(self, n: Node, x: Any) -> Any:
        return np.array(np.nonzero(np.atleast_1d(x)), np.int64)

    def lower(self, k: Lowering) -> Lowered:
        x = k.x()
        shape = x.shape or (1,)
        lines = [
            f"const ix size = {k.dim(dims.product(shape))};", "ix n = 0, to = 0;",
            f"for (ix i = 0; i < size; i++) n += {k.load(0, 'i')} != 0;",
            "for (ix i = 0; i < size; i++) {", f"  if ({k.load(0, 'i')} == 0) continue;",
            "  ix rest = i;",
        ]  # fmt: skip
        for a in reversed(range(len(shape))):
            d = k.dim(shape[a])
            lines.append(f"  y0[{a} * n + to] = rest % {d};")
            lines.append(f"  rest /= {d};")
        lines += ["  to++;", "}", put(k, k.y().shape[1], "n")]
        return Code("\n".join(lines))


@operator
class Compress(Op):
    """The slices along an axis (of the flat input where axis is None) whose condition holds."""

    axis: int | None = None
    onnx: ClassVar = ("Compress",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3, 2), "f32"), np.array([0, 1, 1], bool)), {"axis": 0}),
        Case((((3, 2), "i8"), np.array([0, 1], bool)), {"axis": -1}),
        Case((((3, 2), "f16"), np.array([0, 1, 0, 0, 1], bool))),
        Case((((3,), "f32"), np.zeros(0, bool))),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t, c = n.arg(0).tensor, n.arg(1).tensor
        if c.rank != 1 or c.dtype is not dtypes.b1:
            raise Refusal(f"the condition of Compress is {c}")
        if self.axis is None:
            return [TensorType((found("chosen", t.size),), t.dtype)]
        axis = true_axis(self.axis, t.rank)
        some = found("chosen", t.shape[axis])
        return [TensorType((*t.shape[:axis], some, *t.shape[axis + 1 :]), t.dtype)]

    def ref(self, n: Node, x: Any, condition: Any) -> Any:
        extent = x.size if self.axis is None else x.shape[self.axis]
        return np.compress(condition[:extent], x, self.axis)

    def lower(self, k: Lowering) -> Lowered:
        x, y = k.x(), k.y()
        shape = x.shape if self.axis is not None else (dims.product(x.shape),)
        axis = axis_of(self.axis or 0, len(shape))
        outer, inner = dims.product(shape[:axis]), dims.product(shape[axis + 1 :])
        text = f"""
const ix n = of_min_ix({k.dim(shape[axis])}, {k.dim(k.x(1).shape[0])}), inner = {k.dim(inner)};
ix count = 0, to = 0;
for (ix i = 0; i < n; i++) count += x1[i];
for (ix o = 0; o < {k.dim(outer)}; o++) {{
  for (ix i = 0; i < n; i++) {{
    if (!x1[i]) continue;
    for (ix j = 0; j < inner; j++) y0[to++] = x0[(o * {k.dim(shape[axis])} + i) * inner + j];
  }}
}}
{put(k, y.shape[axis], "count")}"""
        return Code(text)


@operator
class Unique(Op):
    """The different slices along an axis (elements of the flat input where axis is None).

    Results: the slices, in ascending order or (is_sorted false) in order of first appearance;
    int64 indices of first appearances, of each input slice's result, and counts. NaNs are equal.
    """

    axis: int | None = None
    is_sorted: bool = True
    onnx: ClassVar = ("Unique",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((np.array([2, 1, 1, 3, 4, 3], np.float32),)),
        Case((np.array([2, 1, 1, 3, 4, 3], np.int8),), {"is_sorted": False}),
        Case((np.array([[1, 0, 0], [1, 0, 0], [2, 3, 4]], np.float32),), {"axis": 0}),
        Case((np.array([[[1, 1], [0, 1], [1, 1]]], np.int32),), {"axis": 1}),
        Case((((0,), "f32"),)),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = n.arg(0).tensor
        if t.dtype.kind == "complex":
            raise Refusal("complex numbers have no order")
        shape, axis = self._view(t.shape)
        count = found("unique", shape[axis])
        i64 = TensorType((count,), dtypes.i64)
        whole = (*shape[:axis], count, *shape[axis + 1 :])
        return [TensorType(whole, t.dtype), i64, TensorType((shape[axis],), dtypes.i64), i64]

    def _view(self, shape: dims.Shape) -> tuple[dims.Shape, int]:
        if self.axis is None:
            return (dims.product(shape),), 0
        return shape, axis_of(self.axis, len(shape))

    def ref(self, n: Node, x: Any) -> Any:
        flat = x.reshape(-1) if self.axis is None else x
        axis = 0 if self.axis is None else axis_of(self.axis, x.ndim)
        rows = np.moveaxis(flat, axis, 0)
        r = ranks(rows) if x.dtype != object else np.unique(rows, return_inverse=True)[1]
        keys = [tuple(row.reshape(-1)) for row in np.asarray(r).reshape(rows.shape)]
        seen: dict[Any, list[int]] = {}
        for i, key in enumerate(keys):
            seen.setdefault(key, []).append(i)
        order = sorted(seen) if self.is_sorted else list(seen)
        number = {key: j for j, key in enumerate(order)}
        first = np.array([seen[key][0] for key in order], np.int64)
        inverse = np.array([number[key] for key in keys], np.int64)
        counts = np.array([len(seen[key]) for key in order], np.int64)
        return np.take(flat, first, axis), first, inverse, counts

    def lower(self, k: Lowering) -> Lowered:
        x, kind = k.x(), k.x().dtype.compute
        shape, axis = self._view(x.shape)
        outer, inner = dims.product(shape[:axis]), dims.product(shape[axis + 1 :])
        n = shape[axis]
        va, vb = k.load(0, "(o * n + p) * inner + j"), k.load(0, "(o * n + q) * inner + j")
        text = f"""
const ix n = {k.dim(n)}, outer = {k.dim(outer)}, inner = {k.dim(inner)};
ix *const order = (ix *)s, *const leader = order + n, *const number = leader + n;
#define H(i) order[i]
#define COMPARE(a, b) __extension__({{ const ix p = (ix)(a), q = (ix)(b); int c = 0; \\
  for (ix o = 0; o < outer && !c; o++) for (ix j = 0; j < inner && !c; j++) {{ \\
    const {kind.ctype} va = {va}, vb = {vb}; \\
    c = {less(kind, "vb", "va")} - {less(kind, "va", "vb")}; }} \\
  c; }})
#define BEFORE(a, b) __extension__({{ const int c_ = COMPARE(a, b); \\
  c_ < 0 || (c_ == 0 && (a) < (b)); }})
for (ix i = 0; i < n; i++) order[i] = i;
OF_HEAP(H, n, BEFORE);
OF_UNHEAP(H, n, BEFORE)
ix count = 0;
for (ix i = 0; i < n; i++) {{
  const bool same = i && COMPARE(order[i - 1], order[i]) == 0;
  leader[order[i]] = same ? leader[order[i - 1]] : order[i];
  if (!same) number[order[i]] = count++;
}}
if (!{int(self.is_sorted)}) {{
  count = 0;
  for (ix i = 0; i < n; i++) if (leader[i] == i) number[i] = count++;
}}
for (ix i = 0; i < count; i++) y3[i] = 0;
for (ix i = 0; i < n; i++) {{
  const ix u = number[leader[i]];
  y2[i] = u;
  y3[u]++;
  if (leader[i] != i) continue;
  y1[u] = i;
  for (ix o = 0; o < outer; o++)
    for (ix j = 0; j < inner; j++) y0[(o * count + u) * inner + j] = x0[(o * n + i) * inner + j];
}}
#undef H
#undef COMPARE
#undef BEFORE
{put(k, k.y(1).shape[0], "count")}"""
        scratch = dims.add(dims.mul(n, 3 * INDEX_BYTES), INDEX_BYTES)
        return Code(text, includes=("of_sort.h",), scratch=scratch)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        axis = n.attr("axis")
        op = cls(None if axis is None else int(axis), bool(n.attr("sorted", 1)))
        return b.ops(op, n.arg(0), name=n.output_names)
