"""Padding and triangles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, scalar
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Builder, Node, Value
from onefold.ir.scalar import Inside, Scalar
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Lowered, Lowering, Refusal, operator
from onefold.ops.formats import OnnxNode
from onefold.ops.known import Movement, checked_shape, inside, number, one_int

MODES = ("constant", "edge", "reflect", "symmetric", "wrap")


@operator
class Pad(Movement):
    """Elements added before and after each axis.

    mode "constant": the scalar input 1; "edge": the nearest element; "reflect": mirrored without
    the border; "symmetric": mirrored with it; "wrap": from the other end. All are periodic.
    """

    before: tuple[Dim, ...] = ()
    after: tuple[Dim, ...] = ()
    mode: str = "constant"
    cases: ClassVar = (
        Case((((3, 4), "f32"), np.float32(7)), {"before": (1, 0), "after": (2, 3)}),
        Case((((3, 4), "i8"),), {"before": (2, 5), "after": (0, 9), "mode": "reflect"}),
        Case((((3, 1), "f32"),), {"before": (4, 2), "after": (4, 0), "mode": "reflect"}),
        Case((((3, 4), "f16"),), {"before": (1, 7), "after": (0, 1), "mode": "wrap"}),
        Case((((2, 3), "f32"),), {"before": (1, 1), "after": (2, 2), "mode": "edge"}),
        Case((((2, 3), "i32"),), {"before": (3, 1), "after": (2, 4), "mode": "symmetric"}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = n.arg(0).tensor
        if not len(self.before) == len(self.after) == t.rank:
            raise Refusal(f"{len(self.before)} pads for a tensor of rank {t.rank}")
        if self.mode not in MODES:
            raise Refusal(f"padding mode '{self.mode}' is not one of {', '.join(MODES)}")
        if self.mode == "constant" and (n.arg(1).shape != () or n.arg(1).dtype is not t.dtype):
            raise Refusal("the padding value is not one element of the input's type")
        if self.mode != "constant" and 0 in t.shape:
            raise Refusal("an empty tensor has nothing to repeat")
        shape = tuple(
            dims.add(dims.add(d, p), q)
            for d, p, q in zip(t.shape, self.before, self.after, strict=True)
        )
        quant = None if t.quant is not None and t.quant.per_axis else t.quant
        return [TensorType(checked_shape(shape), t.dtype, quant)]

    def ref(self, n: Node, x: Any, value: Any = None) -> Any:
        for a, (p, q) in enumerate(zip(self.before, self.after, strict=True)):
            i = np.arange(-number(p), x.shape[a] + number(q))
            at, real = _places(self.mode, i, x.shape[a])
            if x.shape[a]:
                x = np.take(x, at, a)
            else:
                x = np.empty((*x.shape[:a], len(i), *x.shape[a + 1 :]), x.dtype)
            if self.mode == "constant":
                shown = real.reshape(-1, *[1] * (x.ndim - a - 1))
                x = np.where(shown, x, np.asarray(value)).astype(x.dtype)
        return x

    def lower(self, k: Lowering) -> Lowered:
        x = k.x()
        axes = list(zip(self.before, self.after, x.shape, strict=True))

        def element(*index: Dim) -> Scalar:
            at: list[Dim] = []
            tests: list[Scalar] = []
            for i, (p, q, d) in zip(index, axes, strict=True):
                j = dims.add(i, dims.mul(p, -1))
                if self.mode == "constant" and (p != 0 or q != 0):
                    tests.append(Inside(j, 0, d))
                at.append(j if self.mode == "constant" else inside(self._place(j, p, q, d), d))
            if not tests:
                return x(*at)
            test = tests[0]
            for t in tests[1:]:
                test = test & t
            return scalar.where(test, x(*at), k.x(1)())

        return k.map(element)

    def _place(self, j: Dim, p: Dim, q: Dim, d: Dim) -> Dim:
        if (p == 0 and q == 0) or d == 1:
            return j if p == 0 and q == 0 else 0
        if self.mode == "edge":
            return dims.maximum(dims.minimum(j, dims.add(d, -1)), 0)
        if self.mode == "wrap":
            return dims.mod(j, d)
        turn = 2 if self.mode == "reflect" else 0
        period = dims.maximum(dims.add(dims.mul(d, 2), -turn), 1)
        m = dims.mod(j, period)
        return dims.minimum(m, dims.add(period, dims.add(dims.mul(m, -1), turn // 2 - 1)))


def _places(mode: str, i: Array, d: int) -> tuple[Array, Array]:
    """Where index i of the padded axis comes from, and whether that is a place of its own."""
    real = (i >= 0) & (i < d)
    if mode in ("constant", "edge") or d < 2:
        return np.clip(i, 0, max(d - 1, 0)), real
    if mode == "wrap":
        return np.mod(i, d), real
    border = 1 if mode == "reflect" else 0
    period = 2 * d - 2 * border
    m = np.mod(i, period)
    return np.minimum(m, period - 1 + border - m), real


@operator
class Trilu(Movement):
    """The upper (or lower) triangle of the last two axes, zeros elsewhere; k: its diagonal."""

    upper: bool = True
    k: int = 0
    onnx: ClassVar = ("Trilu",)
    cases: ClassVar = (
        Case((((3, 4), "f32"),)),
        Case((((2, 3, 3), "i64"),), {"upper": False, "k": -1}),
        Case((((2, 0, 3), "f32"),), {"k": 7}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = n.arg(0).tensor
        if t.rank < 2:
            raise Refusal(f"a tensor of rank {t.rank} has no triangle")
        return [TensorType(t.shape, t.dtype)]

    def ref(self, n: Node, x: Any) -> Any:
        k = int(np.clip(self.k, -(1 << 40), 1 << 40))
        rows, columns = np.indices(x.shape[-2:])
        keep = columns - rows >= k if self.upper else columns - rows <= k
        return np.where(keep, x, np.zeros((), x.dtype)).astype(x.dtype)

    def lower(self, k: Lowering) -> Lowered:
        x, kind = k.x(), k.y().dtype.compute
        at = max(-(1 << 40), min(self.k, 1 << 40))

        def element(*index: Dim) -> Scalar:
            across = dims.add(index[-1], dims.mul(index[-2], -1))
            far = 1 << 50
            keep = Inside(across, at, far) if self.upper else Inside(across, -far, at + 1)
            return scalar.where(keep, x(*index), scalar.Const(0, kind))

        return k.map(element)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        k = 0 if n.input(1) is None else one_int(n.arg(1), "diagonal of Trilu")
        return [b.op(cls(bool(n.attr("upper", 1)), k), n.arg(0), name=n.output_names)]


