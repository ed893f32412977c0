"""Matrix products: x [..., m, k] times w [..., k, n], leading dimensions broadcast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Builder, Node, Value
from onefold.ir.scalar import Scalar
from onefold.ir.types import TensorType
from onefold.ops.base import (
    Case,
    Lowering,
    Op,
    Refusal,
    agree,
    broadcast_shapes,
    operator,
)
from onefold.ops.conv import check_bytes, wide
from onefold.ops.elementwise import Add
from onefold.ops.formats import OnnxNode

Dims = tuple[Dim, ...]
Element = Callable[..., Scalar]


def matmul_shape(a: Dims, b: Dims, what: str = "MatMul") -> Dims:
    """NumPy's rule, rank 1 operands included. Raises Refusal for shapes that do not fit."""
    if not a or not b:
        raise Refusal(f"{what} of a scalar")
    k, other = a[-1], b[-2] if len(b) > 1 else b[0]
    if not agree(k, other):
        raise Refusal(f"{what} of shapes {list(a)} and {list(b)}: {k} against {other}")
    batch = broadcast_shapes(a[:-2], b[:-2])
    rows = (a[-2],) if len(a) > 1 else ()
    columns = (b[-1],) if len(b) > 1 else ()
    return (*batch, *rows, *columns)


def product_of(a: Dims, b: Dims, x: Element, w: Element, index: Sequence[Dim]) -> Scalar:
    """sum over k of x(..., row, k) * w(..., k, column), index being that of the product of shapes
    a and b."""
    at = list(index)
    column = [at.pop()] if len(b) > 1 else []
    row = [at.pop()] if len(a) > 1 else []

    def place(shape: Dims) -> list[Dim]:
        lead = shape[:-2]
        own = at[len(at) - len(lead) :]
        return [0 if n == 1 else i for i, n in zip(own, lead, strict=True)]

    # A constant extent lets the compiler unroll where only one side's is known.
    extent = a[-1] if isinstance(a[-1], int) else (b[-2] if len(b) > 1 else b[0])
    return scalar.reduce(
        "sum", [extent], lambda k: x(*place(a), *row, k) * w(*place(b), k, *column), "r"
    )


class Product(Op):
    """What MatMul and its integer relatives share."""

    def shape_of(self, n: Node) -> Dims:
        return matmul_shape(n.arg(0).shape, n.arg(1).shape, self.name)

    def macs(self, n: Node) -> int:
        return dims.upper(dims.mul(n.outputs[0].tensor.size, n.arg(0).shape[-1]))


@operator
class MatMul(Product):
    """x @ w as NumPy has it. Sums of f16 and bf16 are made in f32; integers wrap."""

    onnx: ClassVar = ("MatMul",)
    cases: ClassVar = (
        Case((((5, 7), "f32"), ((7, 3), "f32"))),
        Case((((2, 1, 4, 3), "f32"), ((5, 3, 2), "f32")), seed=1),
        Case((((4,), "f32"), ((3, 4, 2), "f32")), seed=2),
        Case((((3, 4), "f32"), ((4,), "f32")), seed=3),
        Case((((6,), "f32"), ((6,), "f32"))),
        Case((((3, 0), "f32"), ((0, 4), "f32"))),
        Case((((3, 5), "i32"), ((5, 2), "i32"))),
        Case((((3, 5), "f16"), ((5, 2), "f16"))),
        Case((((3, 5), "f64"), ((5, 2), "f64"))),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        a, b = n.arg(0), n.arg(1)
        if a.dtype is not b.dtype:
            raise Refusal(f"MatMul of {a.dtype} and {b.dtype}")
        return [TensorType(self.shape_of(n), a.dtype)]

    def ref(self, n: Node, a: Any, b: Any) -> Any:
        return np.matmul(wide(a), wide(b)).astype(a.dtype)

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        a, b = k.x(0), k.x(1)
        return k.map(lambda *i: product_of(a.shape, b.shape, a, b, i))


@operator
class MatMulInteger(Product):
    """The product of u8 or i8 matrices in i32, zero points taken off first: of a one, or one a row;
    of b one, or one a column. Sums wrap."""

    onnx: ClassVar = ("MatMulInteger",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((5, 7), "u8"), ((7, 3), "i8"), np.array(3, np.uint8),
              np.array([1, -2, 3], np.int8))),
        Case((((2, 5, 7), "i8"), ((7, 3), "i8"), np.array([1, 2, 3, 4, 5], np.int8))),
        Case((((4,), "u8"), ((4, 2), "u8"), None, np.array([9], np.uint8))),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        check_bytes(n, (0, 1))
        check_points(n, 2, 0)
        check_points(n, 3, 1)
        return [TensorType(self.shape_of(n), dtypes.i32)]

    def ref(self, n: Node, a: Any, b: Any, az: Any = None, bz: Any = None) -> Any:
        x = wide(a) if az is None else wide(a) - row_points(wide(az))
        w = wide(b) if bz is None else wide(b) - wide(bz)
        return np.matmul(x, w).astype(np.int32)

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        return k.map(lambda *i: integer_product(k, i, 0, 1, 2, 3))


def row_points(z: Array) -> Array:
    """Zero points or scales, one a row, so that they broadcast against [..., m, k]."""
    return z[..., None] if z.ndim == 1 and z.size > 1 else z.reshape(()) if z.size == 1 else z


def check_points(n: Node, i: int, of: int) -> None:
    """Raises Refusal unless input i (zero points of operand `of`) broadcasts against it."""
    v, x = n.input(i), n.arg(of)
    if v is None:
        return
    if v.dtype is not x.dtype:
        raise Refusal(f"{n.op.name} has zero points of {v.dtype} for data of {x.dtype}")
    check_per(n, i, of)


def check_per(n: Node, i: int, of: int) -> None:
    """One element, one a row (of the first operand) or column (of the second), or a shape that
    broadcasts against the operand."""
    v, x = n.input(i), n.arg(of)
    if v is None or v.tensor.size == 1:
        return
    want = x.shape[-2:-1] if of == 0 else x.shape[-1:]
    if len(v.shape) == 1 and v.shape == want:
        return
    if len(v.shape) == len(x.shape) and len(v.shape) > 1:
        own = (*x.shape[:-1], 1) if of == 0 else (*x.shape[:-2], 1, x.shape[-1])
        if all(p == 1 or p == q for p, q in zip(v.shape, own, strict=True)):
            return
    raise Refusal(f"{n.op.name} has zero points {list(v.shape)} for data {list(x.shape)}")


def per_side(t: scalar.TensorExpr, index: Sequence[Dim], rows: bool) -> Scalar:
    """The zero point or scale for an element of an operand, `index` being that element's."""
    rank = len(t.shape)
    if rank == 0 or all(d == 1 for d in t.shape):
        return t(*[0] * rank)
    if rank == 1:
        return t(index[-2] if rows else index[-1])
    return t(*(0 if d == 1 else i for d, i in zip(t.shape, index, strict=True)))


def integer_product(
    k: Lowering, index: Sequence[Dim], a: int, b: int, az: int, bz: int
) -> Scalar:
    """The i32 product of inputs a and b less zero points az and bz, at an index of the result."""
    x, w = k.x(a), k.x(b)

    def left(*i: Dim) -> Scalar:
        value = scalar.cast(x(*i), dtypes.i32)
        if not k.has(az):
            return value
        return value - scalar.cast(per_side(k.x(az), i, True), dtypes.i32)

    def right(*i: Dim) -> Scalar:
        value = scalar.cast(w(*i), dtypes.i32)
        if not k.has(bz):
            return value
        return value - scalar.cast(per_side(k.x(bz), i, False), dtypes.i32)

    return product_of(x.shape, w.shape, left, right, index)


@operator
class Gemm(Op):
    """alpha * A' @ B' + beta * C, all of rank 2, C broadcast to the result."""

    alpha: float = 1.0
    beta: float = 1.0
    transA: bool = False
    transB: bool = False
    cases: ClassVar = (
        Case((((5, 7), "f32"), ((7, 3), "f32"), ((3,), "f32"))),
        Case((((7, 5), "f32"), ((3, 7), "f32"), ((5, 1), "f32")),
             {"transA": True, "transB": True, "alpha": 0.5, "beta": 0.25}, seed=1),
        Case((((2, 4), "f32"), ((4, 3), "f32")), {"alpha": 2.0}),
        Case((((2, 4), "i32"), ((4, 3), "i32"), ((), "i32"))),
        Case((((2, 4), "f16"), ((3, 4), "f16"), ((1, 3), "f16")), {"transB": True}),
    )  # fmt: skip

    def _dims(self, n: Node) -> tuple[Dim, Dim, Dim]:
        a, b = n.arg(0).shape, n.arg(1).shape
        if len(a) != 2 or len(b) != 2:
            raise Refusal(f"Gemm of ranks {len(a)} and {len(b)}; 2 and 2 are needed")
        m, k = (a[1], a[0]) if self.transA else a
        other, p = (b[1], b[0]) if self.transB else b
        if not agree(k, other):
            raise Refusal(f"Gemm of shapes {list(a)} and {list(b)}: {k} against {other}")
        return m, k if isinstance(k, int) else other, p

    def infer(self, n: Node) -> Sequence[TensorType]:
        a, b, c = n.arg(0), n.arg(1), n.input(2)
        if a.dtype is not b.dtype or (c is not None and c.dtype is not a.dtype):
            raise Refusal(f"Gemm of {a.dtype} and {b.dtype}")
        m, _, p = self._dims(n)
        if c is not None and broadcast_shapes((m, p), c.shape) != (m, p):
            raise Refusal(f"Gemm adds a C of shape {list(c.shape)} to a result of [{m},{p}]")
        return [TensorType((m, p), a.dtype)]

    def ref(self, n: Node, a: Any, b: Any, c: Any = None) -> Any:
        x, w = wide(a), wide(b)
        y = np.matmul(x.T if self.transA else x, w.T if self.transB else w)
        y = y if self.alpha == 1 else self.alpha * y
        if c is not None:
            y = y + (wide(c) if self.beta == 1 else self.beta * wide(c))
        return y.astype(a.dtype)

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        a, b = k.x(0), k.x(1)
        _, depth, _ = self._dims(k.node)

        def element(i: Dim, j: Dim) -> Scalar:
            acc = scalar.reduce("sum", [depth], lambda r: (
                (a(r, i) if self.transA else a(i, r)) * (b(j, r) if self.transB else b(r, j))
            ))  # fmt: skip
            out = self._scaled(acc, self.alpha)
            if k.has(2):
                out = out + self._scaled(k.x(2).broadcast((i, j)), self.beta)
            return out

        return k.map(element)

    def _scaled(self, s: Scalar, by: float) -> Scalar:
        if by == 1:
            return s
        if s.dtype.is_float:
            return s * by
        return scalar.cast(scalar.cast(s, dtypes.f64) * by, s.dtype)

    def macs(self, n: Node) -> int:
        return dims.upper(dims.product(self._dims(n)))


def gemm_from_onnx(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Gemm of every opset: MatMul and Add where that is the same, else Gemm.

    Before opset 7 C broadcast on demand only (any other model was invalid)."""
    fields = n.fields(Gemm)
    op = Gemm(**fields)
    x, w, c = n.arg(0), n.arg(1), n.input(2)
    if c is not None and op.beta == 0:
        c = None
    plain = op.alpha == 1 and (c is None or op.beta == 1) and x.dtype in (dtypes.f32, dtypes.f64)
    plain = plain and len(x.shape) == 2 and len(w.shape) == 2
    if not plain or op.transA or (op.transB and w.data is None):
        return b.ops(op, x, w, c, name=n.output_names)
    if op.transB and w.data is not None:
        w = b.const(w.data.T, name=w.name)
    if c is None:
        return b.ops(MatMul(), x, w, name=n.output_names)
    y = b.op(MatMul(), x, w)
    if broadcast_shapes(y.shape, c.shape) != y.shape:
        raise Refusal(f"Gemm adds a C of shape {list(c.shape)} to a result of {list(y.shape)}")
    return b.ops(Add(), y, c, name=n.output_names)
