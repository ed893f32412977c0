"""Comparisons, logic, bits, and the choice between two values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dtypes, scalar
from onefold.ir.dtypes import DType
from onefold.ir.graph import Node
from onefold.ir.scalar import Scalar
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Refusal, operator
from onefold.ops.elementwise import Aligned, Elementwise, Same

ODD = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0], np.float32)
COMPARED: tuple[Case, ...] = (
    Case((((3, 4), "f32"), ((4,), "f32"))),
    Case((np.array([-2, 1, 3, 1]), np.array([1, 1, 1, -5]))),
    Case((np.array([250, 3], np.uint8), np.array([3, 250], np.uint8))),
    Case((ODD, ODD[::-1].copy())),
    Case((ODD.astype(np.float16), ODD.astype(np.float16))),
)
TRUTHS: tuple[Case, ...] = (
    Case((((3, 4), "b1"), ((4,), "b1"))),
    Case((((2, 1, 3), "b1"), ((5, 1), "b1")), seed=1),
    Case((((0,), "b1"), ((1,), "b1"))),
)
BITS: tuple[Case, ...] = (
    Case((((3, 4), "i32"), ((4,), "i32"))),
    Case((((9,), "u8"), ((9,), "u8")), seed=1),
    Case((((9,), "i64"), ((1,), "i64")), seed=2),
    Case((((9,), "i8"), ((9,), "i8")), seed=3),
)


class Comparison(Aligned):
    """Two inputs of one type, a truth value for each pair."""

    takes: ClassVar[str] = "any"
    exact: ClassVar[bool] = True

    def result(self, *kinds: DType) -> DType:
        super().result(*kinds)
        if kinds[0].kind == "complex":
            raise Refusal(f"{self.name} of complex numbers is not defined")
        return dtypes.b1

    def ref(self, n: Node, *x: Any) -> Any:
        return np.asarray(self.numpy(*x)).astype(bool)


@operator
class Equal(Comparison):
    """a == b."""

    onnx: ClassVar = ("Equal",)
    cases: ClassVar = COMPARED + TRUTHS

    def numpy(self, *x: Any) -> Any:
        return x[0] == x[1]

    def expr(self, *x: Scalar) -> Scalar:
        return x[0].eq(x[1])


@operator
class Less(Comparison):
    """a < b."""

    onnx: ClassVar = ("Less",)
    cases: ClassVar = COMPARED

    def numpy(self, *x: Any) -> Any:
        return x[0] < x[1]

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] < x[1]


@operator
class LessOrEqual(Comparison):
    """a <= b."""

    onnx: ClassVar = ("LessOrEqual",)
    cases: ClassVar = COMPARED

    def numpy(self, *x: Any) -> Any:
        return x[0] <= x[1]

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] <= x[1]


@operator
class Greater(Comparison):
    """a > b."""

    onnx: ClassVar = ("Greater",)
    cases: ClassVar = COMPARED

    def numpy(self, *x: Any) -> Any:
        return x[0] > x[1]

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] > x[1]


@operator
class GreaterOrEqual(Comparison):
    """a >= b."""

    onnx: ClassVar = ("GreaterOrEqual",)
    cases: ClassVar = COMPARED

    def numpy(self, *x: Any) -> Any:
        return x[0] >= x[1]

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] >= x[1]


class Logical(Aligned):
    """Two truth values."""

    takes: ClassVar[str] = "bool"
    exact: ClassVar[bool] = True


@operator
class And(Logical):
    """Both."""

    onnx: ClassVar = ("And",)
    cases: ClassVar = TRUTHS

    def numpy(self, *x: Any) -> Any:
        return x[0] & x[1]

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] & x[1]


@operator
class Or(Logical):
    """Either or both."""

    onnx: ClassVar = ("Or",)
    cases: ClassVar = TRUTHS

    def numpy(self, *x: Any) -> Any:
        return x[0] | x[1]

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] | x[1]


@operator
class Xor(Logical):
    """Either but not both."""

    onnx: ClassVar = ("Xor",)
    cases: ClassVar = TRUTHS

    def numpy(self, *x: Any) -> Any:
        return x[0] ^ x[1]

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] ^ x[1]


@operator
class Not(Elementwise):
    """The opposite truth value."""

    onnx: ClassVar = ("Not",)
    takes: ClassVar = "bool"
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3, 4), "b1"),)),
        Case((((0,), "b1"),)),
        Case((((), "b1"),), seed=1),
    )

    def numpy(self, *x: Any) -> Any:
        return ~x[0]

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.call("not", x[0])


class Bitwise(Same):
    """Integers, bit by bit."""

    takes: ClassVar[str] = "int"
    exact: ClassVar[bool] = True


@operator
class BitwiseAnd(Bitwise):
    """a & b."""

    onnx: ClassVar = ("BitwiseAnd",)
    cases: ClassVar = BITS

    def numpy(self, *x: Any) -> Any:
        return x[0] & x[1]

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] & x[1]


@operator
class BitwiseOr(Bitwise):
    """a | b."""

    onnx: ClassVar = ("BitwiseOr",)
    cases: ClassVar = BITS

    def numpy(self, *x: Any) -> Any:
        return x[0] | x[1]

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] | x[1]


@operator
class BitwiseXor(Bitwise):
    """a ^ b."""

    onnx: ClassVar = ("BitwiseXor",)
    cases: ClassVar = BITS

    def numpy(self, *x: Any) -> Any:
        return x[0] ^ x[1]

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] ^ x[1]


@operator
class BitwiseNot(Elementwise):
    """Every bit inverted."""

    onnx: ClassVar = ("BitwiseNot",)
    takes: ClassVar = "int"
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3, 4), "i32"),)),
        Case((((9,), "u16"),)),
        Case((((5,), "i8"),)),
    )

    def numpy(self, *x: Any) -> Any:
        return ~x[0]

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.call("not", x[0])


@operator
class BitShift(Bitwise):
    """x shifted by y bits, to the right with its sign; a shift by the width or more, or by less
    than 0, leaves nothing but the sign."""

    direction: str = "LEFT"
    onnx: ClassVar = ("BitShift",)
    cases: ClassVar = (
        Case((((9,), "u8"), np.arange(9, dtype=np.uint8)), {"direction": "LEFT"}),
        Case((((9,), "u64"), np.arange(9, dtype=np.uint64)), {"direction": "RIGHT"}),
        Case((((3, 2), "u16"), np.array([1, 15], np.uint16)), {"direction": "RIGHT"}),
        Case((((3, 4), "i16"), np.array([1, 15, 16, -1], np.int16)), {"direction": "RIGHT"}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        if self.direction not in ("LEFT", "RIGHT"):
            raise Refusal(f"direction is '{self.direction}', neither 'LEFT' nor 'RIGHT'")
        return super().infer(n)

    def numpy(self, *x: Any) -> Any:
        wide = (x[1] < 0) | (x[1] >= x[0].dtype.itemsize * 8)
        by = np.where(wide, np.zeros((), x[1].dtype), x[1])
        if self.direction == "LEFT":
            return np.where(wide, np.zeros((), x[0].dtype), x[0] << by)
        fill = np.where(x[0] < 0, np.array(-1).astype(x[0].dtype), np.zeros((), x[0].dtype))
        return np.where(wide, fill, x[0] >> by)

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.call("shl" if self.direction == "LEFT" else "shr", x[0], x[1])


@operator
class Where(Elementwise):
    """x where the condition holds, else y."""

    onnx: ClassVar = ("Where",)
    takes: ClassVar = "any"
    arity: ClassVar = 3
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3, 4), "b1"), ((3, 4), "f32"), ((3, 4), "f32"))),
        Case((((3, 1), "b1"), ((4,), "i64"), ((1,), "i64")), seed=1),
        Case((((5,), "b1"), ((), "f16"), ((5,), "f16")), seed=2),
        Case((((5,), "b1"), ((5,), "b1"), ((5,), "b1")), seed=3),
    )

    def result(self, *kinds: DType) -> DType:
        if kinds[0] is not dtypes.b1:
            raise Refusal(f"the condition is {kinds[0].long}, not bool")
        if kinds[1] is not kinds[2]:
            raise Refusal(f"Where of different element types {kinds[1].long} and {kinds[2].long}")
        return kinds[1]

    def ref(self, n: Node, *x: Any) -> Any:
        return np.where(x[0], x[1], x[2])

    def combine(self, *x: Any) -> Any:
        return (x[1] if x[0] else x[2]) if isinstance(x[0], int) else None

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.where(x[0], x[1], x[2])


@operator
class IsNaN(Elementwise):
    """True where x is not a number."""

    onnx: ClassVar = ("IsNaN",)
    takes: ClassVar = "float"
    exact: ClassVar = True
    cases: ClassVar = (
        Case((ODD,)),
        Case((ODD.astype(np.float64).reshape(2, 3),)),
        Case((ODD.astype(np.float16),)),
    )

    def result(self, *kinds: DType) -> DType:
        return dtypes.b1

    def numpy(self, *x: Any) -> Any:
        return np.isnan(x[0])

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.call("isnan", x[0], dtype=dtypes.b1)


@operator
class IsInf(Elementwise):
    """True where x is infinite, of the signs that are asked for."""

    detect_negative: bool = True
    detect_positive: bool = True
    onnx: ClassVar = ("IsInf",)
    takes: ClassVar = "any"
    exact: ClassVar = True
    cases: ClassVar = (
        Case((ODD,)),
        Case((ODD.astype(np.float64),), {"detect_negative": False}),
        Case((ODD.astype(np.float16),), {"detect_positive": False}),
        Case((ODD,), {"detect_positive": False, "detect_negative": False}),
    )

    def result(self, *kinds: DType) -> DType:
        if not kinds[0].is_float:
            raise Refusal(f"IsInf is not defined on elements of type {kinds[0].long}")
        return dtypes.b1

    def numpy(self, *x: Any) -> Any:
        up, down = x[0] == np.inf, x[0] == -np.inf
        return (up & self.detect_positive) | (down & self.detect_negative)

    def expr(self, *x: Scalar) -> Scalar:
        if self.detect_negative and self.detect_positive:
            return scalar.call("isinf", x[0], dtype=dtypes.b1)
        if self.detect_positive:
            return x[0].eq(np.inf)
        if self.detect_negative:
            return x[0].eq(-np.inf)
        return scalar.Const(False, dtypes.b1)
