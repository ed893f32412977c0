"""Walks along one axis: positions of extremes, running sums and products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Code, Lowering, Op, Refusal, axis_of, operator, turns
from onefold.ops.elementwise import tensor
from onefold.ops.formats import OnnxNode
from onefold.ops.reduce import known


def rows(shape: dims.Shape, axis: int, span: int = 1) -> tuple[dims.Dim, dims.Dim, dims.Dim]:
    """Elements before, in and after the axes [axis, axis + span): the strides of a walk."""
    return (
        dims.product(shape[:axis]),
        dims.product(shape[axis : axis + span]),
        dims.product(shape[axis + span :]),
    )


@dataclass(frozen=True)
class Arg(Op):
    """The position of an extreme along an axis, as i64; NaN counts as the extreme."""

    axis: int = 0
    keepdims: bool = True
    select_last_index: bool = False
    exact: ClassVar[bool] = True
    better: ClassVar[str] = ">"

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = tensor(n, 0)
        if not (t.dtype.is_int or t.dtype.is_float) or not t.shape:
            raise Refusal(f"{self.name} of {t} is not defined")
        a = axis_of(self.axis, len(t.shape))
        if t.shape[a] == 0:
            raise Refusal(f"axis {a} of {t} is empty, so nothing on it is the extreme")
        middle: tuple[dims.Dim, ...] = (1,) if self.keepdims else ()
        return [TensorType((*t.shape[:a], *middle, *t.shape[a + 1 :]), dtypes.i64)]

    def ref(self, n: Node, x: Any) -> Any:
        find: Any = np.argmax if self.better == ">" else np.argmin
        wide = x.astype(dtypes.of(x.dtype).compute.numpy if x.dtype.itemsize > 1 else np.float32)
        if not self.select_last_index:
            y = find(wide, axis=self.axis)
        else:
            y = x.shape[self.axis] - 1 - find(np.flip(wide, self.axis), axis=self.axis)
        y = np.asarray(y, np.int64)
        return np.expand_dims(y, self.axis) if self.keepdims else y

    def lower(self, k: Lowering) -> Code:
        t = k.x(0)
        outer, n, inner = rows(t.shape, axis_of(self.axis, len(t.shape)))
        if inner == 1 and t.dtype in (dtypes.u8, dtypes.i8) and isinstance(n, int):
            if 16 <= n <= 256:
                return self._of_bytes(k, outer, n)
        if inner == 1 and not (isinstance(n, int) and n < 2 * LANES):
            return self._of_rows(k, outer, n)
        return self._of_columns(k, outer, n, inner)

    def _take(self, kind: dtypes.DType, best: str, equal: str) -> str:
        """C text: whether v takes the place of the best one. equal: whether it does so where both
        are equal."""
        test = f"v {self.better} {best} || (v == {best} && {equal})"
        if not kind.is_float:
            return test
        odd = f"(v != v && ({best} == {best} || {equal}))"
        return f"!({best} != {best} && v == v) && ({test} || {odd})"

    def _of_bytes(self, k: Lowering, outer: dims.Dim, n: int) -> Code:
        flip = (0x80 if k.x(0).dtype is dtypes.i8 else 0) ^ (0 if self.better == ">" else 0xFF)
        last = int(self.select_last_index)
        call = f"of_arg_byte((const uint8_t *)x0 + o * {n}, {n}, {flip}, {last})"
        rows = k.dim(outer)
        text = f"{turns('0', rows)} y0[o] = {call};"
        return Code(text, includes=("of_arg.h",), turns=rows)

    def _of_rows(self, k: Lowering, outer: dims.Dim, n: dims.Dim) -> Code:
        """Elements that lie next to each other: every LANES-th one meets the best before it."""
        kind, size, count = k.x(0).dtype.compute, k.dim(n), k.dim(outer)
        last = "1" if self.select_last_index else "0"
        nearer = f"where[j] {'>' if self.select_last_index else '<'} where[0]"

        def at(place: str) -> str:
            return k.load(0, f"o * {size} + {place}")

        text = f"""
{turns("0", count)} {{
  {kind.ctype} best[{LANES}];
  int64_t where[{LANES}];
  const ix lanes = of_min_ix({LANES}, {size});
  for (ix j = 0; j < lanes; j++) {{
    best[j] = {at("j")};
    where[j] = j;
  }}
  ix r = lanes;
  for (; r + {LANES} <= {size}; r += {LANES}) {{
    for (ix j = 0; j < {LANES}; j++) {{
      const {kind.ctype} v = {at("r + j")};
      const bool take = {self._take(kind, "best[j]", last)};
      best[j] = take ? v : best[j];
      where[j] = take ? r + j : where[j];
    }}
  }}
  for (; r < {size}; r++) {{
    const {kind.ctype} v = {at("r")};
    const ix j = r % {LANES};
    if ({self._take(kind, "best[j]", last)}) best[j] = v, where[j] = r;
  }}
  for (ix j = 1; j < lanes; j++) {{
    const {kind.ctype} v = best[j];
    if ({self._take(kind, "best[0]", nearer)}) best[0] = v, where[0] = where[j];
  }}
  y0[o] = where[0];
}}"""
        return Code(text, turns=count)

    def _of_columns(self, k: Lowering, outer: dims.Dim, n: dims.Dim, inner: dims.Dim) -> Code:
        kind, size, count, width = k.x(0).dtype.compute, k.dim(n), k.dim(outer), k.dim(inner)
        v = k.load(0, f"(o * {size} + r) * {width} + j")
        test = self._take(kind, "best[j - at]", "1" if self.select_last_index else "0")
        text = f"""
{turns("0", count)} {{
  for (ix at = 0; at < {width}; at += {LANES}) {{
    const ix end = of_min_ix(at + {LANES}, {width});
    {kind.ctype} best[{LANES}];
    int64_t where[{LANES}];
    for (ix j = at; j < end; j++) {{
      const ix r = 0;
      best[j - at] = {v};
      where[j - at] = 0;
    }}
    for (ix r = 1; r < {size}; r++) {{
      for (ix j = at; j < end; j++) {{
        const {kind.ctype} v = {v};
        const bool take = {test};
        best[j - at] = take ? v : best[j - at];
        where[j - at] = take ? r : where[j - at];
      }}
    }}
    for (ix j = at; j < end; j++) y0[o * {width} + j] = where[j - at];
  }}
}}"""
        return Code(text, turns=count)


LANES = 64
"""Positions that are compared at once."""

TIES = np.array([[2, 1, 2, 2], [np.nan, 5, np.nan, 7], [-1, -1, 0, -3]], np.float32)
ODD = np.tile(TIES, (1, 50))
ODD[0, [60, 124, 188]] = 9
ARG_CASES: tuple[Case, ...] = (
    Case((((3, 5, 7), "f32"),), {"axis": 1}),
    Case((((3, 5, 7), "i8"),), {"axis": -1, "keepdims": False}),
    Case((TIES,), {"axis": 1}),
    Case((TIES,), {"axis": 1, "select_last_index": True}),
    Case((((2, 3, 70), "f16"),), {"axis": 0, "select_last_index": True}),
    Case((((9,), "u64"),)),
    Case((((5, 21), "u8"),), {"axis": 1}),
    Case((((40, 33), "i8"),), {"axis": 1, "select_last_index": True}),
    Case((((300, 16), "u8"),), {"axis": 1, "select_last_index": True}),
    Case((((2, 300), "i16"),), {"axis": 1}),
    Case((((2, 500), "u8"),), {"axis": 1, "select_last_index": True}),
    Case((((3, 203), "f32"),), {"axis": 1}),
    Case((ODD,), {"axis": 1}),
    Case((ODD,), {"axis": 1, "select_last_index": True}),
)


@operator
class ArgMax(Arg):
    """The position of the largest, the first of equals unless `select_last_index`."""

    onnx: ClassVar = ("ArgMax",)
    cases: ClassVar = ARG_CASES


@operator
class ArgMin(Arg):
    """The position of the smallest, the first of equals unless `select_last_index`."""

    better: ClassVar = "<"
    onnx: ClassVar = ("ArgMin",)
    cases: ClassVar = ARG_CASES


@dataclass(frozen=True)
class Running(Op):
    """What has been combined so far, along an axis; exclusive leaves out the element itself."""

    axis: int = 0
    exclusive: bool = False
    reverse: bool = False
    sign: ClassVar[str] = "+"

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = tensor(n, 0)
        ok = (t.dtype.is_float and t.dtype.bits >= 16) or (t.dtype.is_int and t.dtype.bits >= 8)
        if not ok or not t.shape:
            raise Refusal(f"{self.name} of {t} is not defined")
        axis_of(self.axis, len(t.shape))
        return [t]

    def ref(self, n: Node, x: Any) -> Any:
        run: Any = np.cumsum if self.sign == "+" else np.cumprod
        wide = x.astype(dtypes.of(x.dtype).compute.numpy)
        wide = np.flip(wide, self.axis) if self.reverse else wide
        y = run(wide, axis=self.axis, dtype=wide.dtype)
        if self.exclusive and x.shape[self.axis]:
            y = np.roll(y, 1, self.axis)
            first = [slice(None)] * x.ndim
            first[self.axis] = slice(0, 1)
            y[tuple(first)] = 0 if self.sign == "+" else 1
        return (np.flip(y, self.axis) if self.reverse else y).astype(x.dtype)

    def lower(self, k: Lowering) -> Code:
        t = k.x(0)
        kind = t.dtype.compute
        outer, n, inner = (k.dim(d) for d in rows(t.shape, axis_of(self.axis, len(t.shape))))
        r = f"{n} - 1 - s" if self.reverse else "s"
        add = f"acc[j - at] = ({kind.ctype})(acc[j - at] {self.sign} {k.load(0, 'p')});"
        put = k.store(0, "p", "acc[j - at]")
        first, then = (put, add) if self.exclusive else (add, put)
        if self.exclusive:  # the input may share memory with the result
            first = f"const {kind.ctype} v = {k.load(0, 'p')};\n        {put}"
            then = f"acc[j - at] = ({kind.ctype})(acc[j - at] {self.sign} v);"
        start = 0 if self.sign == "+" else 1
        return Code(
            f"""
for (ix o = 0; o < {outer}; o++) {{
  for (ix at = 0; at < {inner}; at += 64) {{
    const ix end = of_min_ix(at + 64, {inner});
    {kind.ctype} acc[64];
    for (ix j = 0; j < 64; j++) acc[j] = {start};
    for (ix s = 0; s < {n}; s++) {{
      for (ix j = at; j < end; j++) {{
        const ix p = (o * {n} + {r}) * {inner} + j;
        {first}
        {then}
      }}
    }}
  }}
}}""",
            inplace=((0, 0),),
        )

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        axis = known(n.tensor(1), "axis")
        if len(axis) != 1:
            raise Refusal(f"its axis is {axis}, not one number")
        op = cls(axis[0], bool(n.attr("exclusive", 0)), bool(n.attr("reverse", 0)))
        return b.ops(op, n.tensor(0), name=n.output_names)


RUN_CASES: tuple[Case, ...] = (
    Case((((3, 5, 7), "f32"),), {"axis": 1}),
    Case((((3, 5), "i8"),), {"axis": -1, "exclusive": True}),
    Case((((4, 2), "f16"),), {"axis": 0, "reverse": True}),
    Case((((70,), "f64"),), {"axis": 0, "reverse": True, "exclusive": True}, low=0.9, high=1.1),
    Case((((3, 0), "f32"),), {"axis": 1, "exclusive": True}),
)


@operator
class CumSum(Running):
    """Running sums."""

    onnx: ClassVar = ("CumSum",)
    cases: ClassVar = RUN_CASES


@operator
class CumProd(Running):
    """Running products."""

    sign: ClassVar = "*"
    onnx: ClassVar = ("CumProd",)
    cases: ClassVar = RUN_CASES
