"""Softmax and its relatives: rows normalised by their exponentials.

A row lies along `span` axes from `axis` on. Where they are the last ones the row is contiguous:
sums and maxima then run in independent lanes, which the compiler turns into vectors, since adding
floats in another order is not its to decide. Otherwise 64 neighbouring rows are walked at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes
from onefold.ir.dtypes import DType
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Code, Lowering, Op, Refusal, axis_of, operator, turns
from onefold.ops.elementwise import tensor
from onefold.ops.formats import OnnxNode
from onefold.ops.scan import rows


def lanes(kind: DType) -> int:
    """How many sums run side by side."""
    return 16 if kind is dtypes.f64 else 32


def lane_fold(kind: DType, name: str, n: str, start: str, step: str, join: str) -> str:
    """C text: const `name` = the fold of elements 0..n-1 of a row.

    step: text of the new accumulator from {a} and the element at index {i}; join: from {a} and
    {b}. Element order within a lane is kept, so the result does not depend on the compiler.
    """
    count, lane, at = lanes(kind), f"{name}_lane", f"{name}_at"
    each = f"for (ix l = 0; l < {count}; l++) {lane}[l] ="
    return f"""
  {kind.ctype} {lane}[{count}];
  {each} {start};
  ix {at} = 0;
  for (; {at} + {count} <= {n}; {at} += {count})
    {each} {step.format(a=f"{lane}[l]", i=f"({at} + l)")};
  for (; {at} < {n}; {at}++) {lane}[0] = {step.format(a=f"{lane}[0]", i=at)};
  for (ix h = {count} / 2; h > 0; h /= 2)
    for (ix l = 0; l < h; l++) {lane}[l] = {join.format(a=f"{lane}[l]", b=f"{lane}[l + h]")};
  const {kind.ctype} {name} = {lane}[0];"""


@dataclass(frozen=True)
class Exponential(Op):
    """Base of the operators on rows of `span` axes from `axis` on."""

    axis: int = -1
    span: int = 1

    def _axis(self, t: TensorType) -> int:
        a = axis_of(self.axis, len(t.shape))
        if self.span < 0 or a + self.span > len(t.shape):
            raise Refusal(f"{self.span} axes from {a} on are more than {t} has")
        return a

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = tensor(n, 0)
        if not (t.dtype.is_float and t.dtype.bits >= 16):
            raise Refusal(f"{self.name} of {t.dtype.long} elements is not defined")
        self._axis(t)
        return [TensorType(t.shape, t.dtype)]

    def numpy(self, x: Any) -> Any:
        """The reference along the last axis."""
        raise NotImplementedError(self.name)

    def ref(self, n: Node, x: Any) -> Any:
        a = self._axis(n.outputs[0].tensor)
        rest = tuple(range(a + self.span, x.ndim))
        moved = np.moveaxis(x, range(a, a + self.span), range(x.ndim - self.span, x.ndim))
        count = int(np.prod(x.shape[a : a + self.span]))
        shape = (*x.shape[:a], *(x.shape[k] for k in rest), count)
        wide = moved.reshape(shape).astype(np.float64)
        with np.errstate(all="ignore"):
            y = self.numpy(wide) if wide.size else wide
        y = y.reshape(moved.shape)
        back = np.moveaxis(y, range(x.ndim - self.span, x.ndim), range(a, a + self.span))
        return np.ascontiguousarray(back).astype(x.dtype)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        if n.opset >= 13:
            return b.ops(cls(int(n.attr("axis", -1)), 1), n.tensor(0), name=n.output_names)
        rank = len(n.tensor(0).shape)
        axis = int(n.attr("axis", 1))
        a = rank if axis == rank else axis_of(axis, rank)
        op = cls(min(a, max(rank - 1, 0)), rank - a)
        return b.ops(op, n.tensor(0), name=n.output_names)


ROWS: tuple[Case, ...] = (
    Case((((3, 5, 37), "f32"),)),
    Case((((3, 5, 70), "f32"),), {"axis": 1}),
    Case((((2, 3, 4), "f32"),), {"axis": 1, "span": 2}),
    Case((((2, 3, 4), "f16"),), {"axis": -1}),
    Case((((2, 3, 4), "bf16"),), {"axis": 0}),
    Case((((2, 33), "f64"),)),
    Case((((2, 0), "f32"),)),
    Case((np.array([[1e4, 1e4 - 1, -1e4], [-np.inf, 0, 1], [0, np.nan, 1]], np.float32),)),
)


class Smooth(Exponential):
    """Softmax and LogSoftmax share their walk."""

    log: ClassVar[bool] = False

    def lower(self, k: Lowering) -> Code:
        t = k.y()
        outer, n, inner = rows(t.shape, self._axis(t), self.span)
        if inner == 1:
            return self._contiguous(k, outer, n)
        return self._strided(k, outer, n, inner)

    def _contiguous(self, k: Lowering, outer: dims.Dim, n: dims.Dim) -> Code:
        kind, many = k.y().dtype.compute, k.dim(n)
        s, c = kind.name, kind.ctype
        x = k.load(0, "o * row + {i}")
        wide = kind is k.y().dtype
        e = f"{c} *e = y0 + o * row;" if wide else f"{c} *e = ({c} *)s;"
        top = lane_fold(kind, "top", "row", f"-OF_INF_{s.upper()}", f"of_max_{s}({{a}}, {x})",
                        f"of_max_{s}({{a}}, {{b}})")  # fmt: skip
        at = x.format(i="j")
        if self.log:
            step = f"{{a}} + of_exp_{s}({x} - top)"
            total = lane_fold(kind, "total", "row", "0", step, "{a} + {b}")
            middle = f"{total}\n  const {c} base = of_log_{s}(total);"
            last, e = f"{at} - top - base", ""
        else:
            total = lane_fold(kind, "total", "row", "0", "{a} + e[{i}]", "{a} + {b}")
            middle = f"\n  OF_EACH for (ix j = 0; j < row; j++) e[j] = of_exp_{s}({at} - top);"
            middle += total
            middle += f"\n  const {c} part = 1 / total;"
            last = "e[j] * part"
        text = f"""
const ix row = {many};
{turns("0", k.dim(outer))} {{
  {e}{top}{middle}
  OF_EACH for (ix j = 0; j < row; j++) {k.store(0, "o * row + j", last)}
}}"""
        scratch = 0 if wide or self.log else dims.mul(n, kind.bytes)
        return Code(
            text, scratch=scratch, inplace=((0, 0),), turns="" if scratch else k.dim(outer)
        )

    def _strided(self, k: Lowering, outer: dims.Dim, n: dims.Dim, inner: dims.Dim) -> Code:
        kind = k.y().dtype.compute
        s, c = kind.name, kind.ctype
        x = k.load(0, "p")
        part = f"of_exp_{s}({x} - top[j - at])"
        keep = ""
        if self.log:
            last = f"{x} - top[j - at] - of_log_{s}(total[j - at])"
        elif kind is k.y().dtype:  # the exponentials stay in the result's place
            last, keep = "y0[p] / total[j - at]", "y0[p] = "
        else:
            last = f"{part} / total[j - at]"
        place = f"const ix p = (o * {k.dim(n)} + r) * {k.dim(inner)} + j;"
        each = f"for (ix r = 0; r < {k.dim(n)}; r++)"
        each += "\n      OF_EACH for (ix j = at; j < end; j++) {"
        text = f"""
{turns("0", k.dim(outer))} {{
  for (ix at = 0; at < {k.dim(inner)}; at += 64) {{
    const ix end = of_min_ix(at + 64, {k.dim(inner)});
    {c} top[64], total[64];
    for (ix j = 0; j < 64; j++) top[j] = -OF_INF_{s.upper()};
    for (ix j = 0; j < 64; j++) total[j] = 0;
    {each}
        {place}
        top[j - at] = of_max_{s}(top[j - at], {x});
      }}
    {each}
        {place}
        const {c} e = {part};
        {f"{keep}e;" if keep else ""}
        total[j - at] += e;
      }}
    {each}
        {place}
        {k.store(0, "p", last)}
      }}
  }}
}}"""
        return Code(text, inplace=((0, 0),), turns=k.dim(outer))


@operator
class Softmax(Smooth):
    """exp(x) / sum of exp over the row."""

    onnx: ClassVar = ("Softmax",)
    cases: ClassVar = ROWS

    def numpy(self, x: Any) -> Any:
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)


@operator
class LogSoftmax(Smooth):
    """The logarithm of Softmax, without its loss of small values."""

    log: ClassVar = True
    onnx: ClassVar = ("LogSoftmax",)
    cases: ClassVar = ROWS

    def numpy(self, x: Any) -> Any:
        v = x - x.max(axis=-1, keepdims=True)
        return v - np.log(np.exp(v).sum(axis=-1, keepdims=True))


@operator
class Hardmax(Exponential):
    """1 at the first largest element of the row, else 0."""

    exact: ClassVar = True
    onnx: ClassVar = ("Hardmax",)
    cases: ClassVar = (*ROWS[:7], Case((np.array([[2, 3, 3], [1, 1, 0]], np.float32),)))

    def numpy(self, x: Any) -> Any:
        first = np.argmax(x, axis=-1, keepdims=True)
        return (np.arange(x.shape[-1]) == first).astype(x.dtype)

    def lower(self, k: Lowering) -> Code:
        t = k.y()
        outer, n, inner = (k.dim(d) for d in rows(t.shape, self._axis(t), self.span))
        return Code(f"""
for (ix o = 0; o < {outer}; o++) {{
  for (ix j = 0; j < {inner}; j++) {{
    ix best = 0;
    for (ix r = 1; r < {n}; r++) {{
      const {t.dtype.compute.ctype} v = {k.load(0, f"(o * {n} + r) * {inner} + j")};
      const {t.dtype.compute.ctype} top = {k.load(0, f"(o * {n} + best) * {inner} + j")};
      if (v > top || (v != v && top == top)) best = r;
    }}
    for (ix r = 0; r < {n}; r++) {k.store(0, f"(o * {n} + r) * {inner} + j", "r == best")}
  }}
}}""")
