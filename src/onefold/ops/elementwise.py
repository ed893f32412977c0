"""Base classes of operators that work element by element, and the arithmetic ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dtypes, scalar
from onefold.ir.dtypes import DType
from onefold.ir.graph import Node
from onefold.ir.scalar import Scalar
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Lowering, Op, Refusal, broadcast_shapes, operator


class Elementwise(Op):
    """result[i] = expr(a[i], b[i], ...) with NumPy broadcasting."""

    def result(self, *kinds: DType) -> DType:
        """Element type of the result."""
        return kinds[0]

    def expr(self, *x: Scalar) -> Scalar:
        raise NotImplementedError(self.name)

    def infer(self, n: Node) -> Sequence[TensorType]:
        present = [v.tensor for v in n.present()]
        if not present:
            raise Refusal(f"{self.name} has no input")
        shape = broadcast_shapes(*(t.shape for t in present))
        return [TensorType(shape, self.result(*(t.dtype for t in present)))]

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        xs = [x for x in k.inputs if x is not None]
        return k.map(lambda *i: self.expr(*(x.broadcast(i) for x in xs)))


class Arithmetic(Elementwise):
    """Two inputs of one type."""

    def result(self, *kinds: DType) -> DType:
        if len(set(kinds)) > 1:
            raise Refusal(f"{self.name} of different element types {kinds[0]} and {kinds[1]}")
        return kinds[0]


TWO: tuple[Case, ...] = (
    Case((((2, 3, 4), "f32"), ((2, 3, 4), "f32"))),
    Case((((3, 1, 5), "f32"), ((4, 1), "f32")), seed=1),
    Case((((7,), "i32"), ((), "i32")), seed=2),
    Case((((17,), "i8"), ((17,), "i8")), seed=3),
    Case((((0, 3), "f32"), ((3,), "f32"))),
)


@operator
class Add(Arithmetic):
    """a + b."""

    onnx: ClassVar = ("Add",)
    cases: ClassVar = TWO

    def ref(self, n: Node, a: Any, b: Any) -> Any:
        return np.add(a, b)

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] + x[1]


@operator
class Sub(Arithmetic):
    """a - b."""

    onnx: ClassVar = ("Sub",)
    cases: ClassVar = TWO

    def ref(self, n: Node, a: Any, b: Any) -> Any:
        return np.subtract(a, b)

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] - x[1]


@operator
class Mul(Arithmetic):
    """a * b."""

    onnx: ClassVar = ("Mul",)
    cases: ClassVar = TWO

    def ref(self, n: Node, a: Any, b: Any) -> Any:
        return np.multiply(a, b)

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] * x[1]


@operator
class Div(Arithmetic):
    """a / b; of integers truncated, and x / 0 = 0."""

    onnx: ClassVar = ("Div",)
    cases: ClassVar = TWO

    def ref(self, n: Node, a: Any, b: Any) -> Any:
        if np.asarray(a).dtype.kind in "iu":
            safe = np.where(b == 0, 1, b)
            q = np.abs(a) // np.abs(safe)
            return np.where(b == 0, 0, q * np.sign(a) * np.sign(safe)).astype(a.dtype)
        with np.errstate(all="ignore"):
            return np.divide(a, b)

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] / x[1]


@operator
class Relu(Elementwise):
    """max(x, 0)."""

    onnx: ClassVar = ("Relu",)
    tflite: ClassVar = ("RELU",)
    cases: ClassVar = (Case((((3, 5), "f32"),)), Case((((9,), "i8"),)))

    def ref(self, n: Node, x: Any) -> Any:
        return np.maximum(x, np.zeros((), x.dtype))

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.maximum(x[0], 0)


@operator
class Sigmoid(Elementwise):
    """1 / (1 + exp(-x))."""

    onnx: ClassVar = ("Sigmoid",)
    cases: ClassVar = (Case((((3, 5), "f32"),)), Case((((9,), "f32"),), low=-100, high=100))

    def ref(self, n: Node, x: Any) -> Any:
        with np.errstate(over="ignore"):
            return (1 / (1 + np.exp(-x.astype(np.float64)))).astype(x.dtype)

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.call("sigmoid", x[0])


@operator
class Cast(Elementwise):
    """Conversion to another element type. saturate concerns the eight-bit floats only."""

    to: DType = dtypes.f32
    saturate: bool = True
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((5, 3), "f32"),), {"to": dtypes.i32}, low=-100, high=100),
        Case((((5, 3), "i32"),), {"to": dtypes.f32}),
        Case((((9,), "f32"),), {"to": dtypes.f16}),
    )

    def result(self, *kinds: DType) -> DType:
        return self.to

    def ref(self, n: Node, x: Any) -> Any:
        from onefold.ops.convert import convert

        return convert(x, self.to, self.saturate)

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.cast(x[0], self.to, self.saturate)

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        source = k.x(0)
        if source.dtype is self.to:
            return k.map(lambda *i: source(*i))
        return super().lower(k)
