"""Sums of two bytes of different scales in f32, where that is known to be exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dtypes, scalar
from onefold.ir.dtypes import DType
from onefold.ir.graph import Array, Node
from onefold.ir.scalar import Scalar
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Lowering, Op, Refusal, broadcast_shapes, operator

BYTES = (dtypes.i8, dtypes.u8)


@operator
class RoundedSum(Op):
    """round(x a + (y b + c)) + zero, halves to even, within [lo, hi]. Numbers are chosen such that
    it does not matter whether a product and a sum are rounded once or twice."""

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0
    zero: int = 0
    lo: int = 0
    hi: int = 255
    dtype: DType = dtypes.u8
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3, 40), "u8"), ((3, 40), "u8")), {"a": 0.5, "b": 0.25, "c": -3.5, "lo": 3}),
        Case((((3, 40), "i8"), ((40,), "i8")),
             {"a": 0.75, "b": -1.5, "zero": 7, "lo": -128, "hi": 127, "dtype": dtypes.i8}),
        Case((((5,), "i8"), ((1,), "u8")), {"a": 2.0, "zero": 20, "lo": 0, "hi": 200}),
        Case((((0,), "i8"), ((1,), "i8")), {"lo": -100, "hi": 127, "dtype": dtypes.i8}),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, y = n.arg(0).tensor, n.arg(1).tensor
        if x.dtype not in BYTES or y.dtype not in BYTES or self.dtype not in BYTES:
            raise Refusal(f"a sum of {x.dtype} and {y.dtype} as {self.dtype}")
        return [TensorType(broadcast_shapes(x.shape, y.shape), self.dtype)]

    def sums(self, x: Array, y: Array) -> tuple[Array, Array]:
        """What is rounded at last, with products and sums rounded once, and twice."""
        a, b, c = np.float32(self.a), np.float32(self.b), np.float32(self.c)
        p, q = x.astype(np.float64) * np.float64(a), y.astype(np.float64) * np.float64(b)
        once = (p + (q + np.float64(c)).astype(np.float32)).astype(np.float32)
        twice = p.astype(np.float32) + (q.astype(np.float32) + c)
        return once, twice

    def rounded(self, s: Array) -> Array:
        r: Array = np.rint(np.clip(s, self.lo - self.zero, self.hi - self.zero)) + self.zero
        return r.astype(self.dtype.numpy)

    def gives(self, x: Array, y: Array, want: Array) -> bool:
        """Whether these are the results, in both ways to the sum."""
        return all(np.array_equal(self.rounded(s), want) for s in self.sums(x, y))

    def ref(self, n: Node, *x: Any) -> Any:
        return self.rounded(self.sums(x[0], x[1])[0])

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        x, y = k.x(0), k.x(1)
        low, high = self.lo - self.zero, self.hi - self.zero

        def element(*i: Any) -> Scalar:
            s, t = x.broadcast(i).cast(dtypes.i32), y.broadcast(i).cast(dtypes.i32)
            numbers = [scalar.Const(float(v), dtypes.f32) for v in (self.a, self.b, self.c)]
            ends = [scalar.Const(float(v), dtypes.f32) for v in (low, high)]
            r = scalar.call("rounded_sum", s, t, *numbers, *ends, dtype=dtypes.i32)
            return (r + self.zero if self.zero else r).cast(self.dtype)

        return k.map(element)
