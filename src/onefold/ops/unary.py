"""Functions of one number: sign, rounding, roots, exponentials, trigonometry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import scalar
from onefold.ir.graph import Builder, Value
from onefold.ir.scalar import Scalar
from onefold.ops.base import Case, operator
from onefold.ops.elementwise import Elementwise
from onefold.ops.formats import OnnxNode


class Function(Elementwise):
    """of_<c> of one float; `fn` is NumPy's."""

    takes: ClassVar[str] = "float"
    c: ClassVar[str]
    fn: ClassVar[Callable[..., Any]]

    def numpy(self, *x: Any) -> Any:
        return type(self).fn(x[0])

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.call(self.c, x[0])

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        # consumed_inputs of the first opsets says nothing about the result
        return b.ops(cls(), *n.inputs, name=n.output_names)


def _odd(*special: float) -> Case:
    return Case((np.array(special, np.float32),))


REAL: tuple[Case, ...] = (
    Case((((3, 5, 7), "f32"),), low=-20, high=20),
    Case((((17,), "f64"),), low=-20, high=20),
    Case((((6,), "f16"),)),
    _odd(0.0, -0.0, np.inf, -np.inf, np.nan),
)
POSITIVE: tuple[Case, ...] = (
    Case((((3, 5, 7), "f32"),), low=0.01, high=100),
    Case((((17,), "f64"),), low=0.01, high=100),
    Case((((6,), "bf16"),), low=0.1),
    _odd(0.0, -1.0, np.inf, np.nan, 1.0),
)
UNIT: tuple[Case, ...] = (
    Case((((3, 5, 7), "f32"),), low=-0.99, high=0.99),
    Case((((17,), "f64"),), low=-0.99, high=0.99),
    _odd(0.0, 1.0, -1.0, 2.0, np.nan),
)
SMALL: tuple[Case, ...] = (
    Case((((3, 5, 7), "f32"),), low=-9, high=9),
    Case((((17,), "f64"),), low=-9, high=9),
    Case((((0, 2), "f32"),)),
)
ANGLE: tuple[Case, ...] = (
    Case((((3, 5, 7), "f32"),), low=-20, high=20),
    Case((((17,), "f64"),), low=-1000, high=1000),
    _odd(0.0, -0.0, 1e6, np.nan, np.inf),
)
INTS: tuple[Case, ...] = (Case((((9,), "i8"),)), Case((((9,), "i64"),)))


@operator
class Neg(Elementwise):
    """-x; the smallest integer stays as it is."""

    onnx: ClassVar = ("Neg",)
    cases: ClassVar = REAL + INTS

    def numpy(self, *x: Any) -> Any:
        return np.negative(x[0])

    def expr(self, *x: Scalar) -> Scalar:
        return -x[0]

    def combine(self, *x: Any) -> Any:
        return 0 - x[0]


@operator
class Abs(Function):
    """The absolute value; the smallest integer stays as it is."""

    onnx: ClassVar = ("Abs",)
    takes: ClassVar = "number"
    c: ClassVar = "abs"
    fn: ClassVar = np.abs
    cases: ClassVar = (*REAL, *INTS, Case((((9,), "u16"),)))


@operator
class Sign(Function):
    """-1, 0 or 1; NaN of NaN."""

    onnx: ClassVar = ("Sign",)
    takes: ClassVar = "number"
    c: ClassVar = "sign"
    fn: ClassVar = np.sign
    cases: ClassVar = (*REAL, *INTS, Case((((9,), "u16"),)))


@operator
class Reciprocal(Elementwise):
    """1 / x."""

    onnx: ClassVar = ("Reciprocal",)
    takes: ClassVar = "float"
    cases: ClassVar = REAL

    def numpy(self, *x: Any) -> Any:
        return 1 / x[0]

    def expr(self, *x: Scalar) -> Scalar:
        return 1 / x[0]


@operator
class Sqrt(Function):
    """The square root; NaN of negative numbers."""

    onnx: ClassVar = ("Sqrt",)
    c: ClassVar = "sqrt"
    fn: ClassVar = np.sqrt
    cases: ClassVar = POSITIVE


@operator
class Exp(Function):
    """e to the power of x."""

    onnx: ClassVar = ("Exp",)
    c: ClassVar = "exp"
    fn: ClassVar = np.exp
    cases: ClassVar = REAL


@operator
class Log(Function):
    """The natural logarithm."""

    onnx: ClassVar = ("Log",)
    c: ClassVar = "log"
    fn: ClassVar = np.log
    cases: ClassVar = POSITIVE


@operator
class Floor(Function):
    """Rounded down."""

    onnx: ClassVar = ("Floor",)
    c: ClassVar = "floor"
    fn: ClassVar = np.floor
    exact: ClassVar = True
    cases: ClassVar = REAL


@operator
class Ceil(Function):
    """Rounded up."""

    onnx: ClassVar = ("Ceil",)
    c: ClassVar = "ceil"
    fn: ClassVar = np.ceil
    exact: ClassVar = True
    cases: ClassVar = REAL


@operator
class Round(Function):
    """Rounded to the nearest integer, halves to the even one."""

    onnx: ClassVar = ("Round",)
    c: ClassVar = "round_even"
    fn: ClassVar = np.rint
    exact: ClassVar = True
    cases: ClassVar = (*REAL, _odd(0.5, 1.5, -2.5, 2.49999976, 8388609.0))


@operator
class Sin(Function):
    """Sine of radians."""

    onnx: ClassVar = ("Sin",)
    c: ClassVar = "sin"
    fn: ClassVar = np.sin
    cases: ClassVar = ANGLE


@operator
class Cos(Function):
    """Cosine of radians."""

    onnx: ClassVar = ("Cos",)
    c: ClassVar = "cos"
    fn: ClassVar = np.cos
    cases: ClassVar = ANGLE


@operator
class Tan(Function):
    """Tangent of radians."""

    onnx: ClassVar = ("Tan",)
    c: ClassVar = "tan"
    fn: ClassVar = np.tan
    cases: ClassVar = ANGLE


@operator
class Asin(Function):
    """Inverse sine, in radians."""

    onnx: ClassVar = ("Asin",)
    c: ClassVar = "asin"
    fn: ClassVar = np.arcsin
    cases: ClassVar = UNIT


@operator
class Acos(Function):
    """Inverse cosine, in radians."""

    onnx: ClassVar = ("Acos",)
    c: ClassVar = "acos"
    fn: ClassVar = np.arccos
    cases: ClassVar = UNIT


@operator
class Atan(Function):
    """Inverse tangent, in radians."""

    onnx: ClassVar = ("Atan",)
    c: ClassVar = "atan"
    fn: ClassVar = np.arctan
    cases: ClassVar = REAL


@operator
class Sinh(Function):
    """Hyperbolic sine."""

    onnx: ClassVar = ("Sinh",)
    c: ClassVar = "sinh"
    fn: ClassVar = np.sinh
    cases: ClassVar = SMALL


@operator
class Cosh(Function):
    """Hyperbolic cosine."""

    onnx: ClassVar = ("Cosh",)
    c: ClassVar = "cosh"
    fn: ClassVar = np.cosh
    cases: ClassVar = SMALL


@operator
class Tanh(Function):
    """Hyperbolic tangent."""

    onnx: ClassVar = ("Tanh",)
    c: ClassVar = "tanh"
    fn: ClassVar = np.tanh
    cases: ClassVar = REAL


@operator
class Asinh(Function):
    """Inverse hyperbolic sine."""

    onnx: ClassVar = ("Asinh",)
    c: ClassVar = "asinh"
    fn: ClassVar = np.arcsinh
    cases: ClassVar = REAL


@operator
class Acosh(Function):
    """Inverse hyperbolic cosine."""

    onnx: ClassVar = ("Acosh",)
    c: ClassVar = "acosh"
    fn: ClassVar = np.arccosh
    cases: ClassVar = (
        Case((((3, 5, 7), "f32"),), low=1, high=100),
        Case((((17,), "f64"),), low=1, high=100),
        _odd(1.0, 0.5, np.inf, np.nan),
    )


@operator
class Atanh(Function):
    """Inverse hyperbolic tangent."""

    onnx: ClassVar = ("Atanh",)
    c: ClassVar = "atanh"
    fn: ClassVar = np.arctanh
    cases: ClassVar = UNIT
