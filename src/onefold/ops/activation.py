"""Activation functions, each of one formula in NumPy and one in scalar expressions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dtypes, scalar
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.scalar import Scalar
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Refusal, operator
from onefold.ops.elementwise import Elementwise, Same, tensor, trailing_ones
from onefold.ops.formats import OnnxNode

CASES: tuple[Case, ...] = (
    Case((((3, 5, 7), "f32"),), low=-9, high=9),
    Case((((17,), "f64"),), low=-9, high=9),
    Case((((6,), "f16"),)),
    Case((((6,), "bf16"),), seed=3),
    Case((np.array([0.0, -0.0, 80.0, -80.0, np.nan], np.float32),)),
)
_ERF = np.vectorize(math.erf, otypes=[np.float64])


def erf(x: Any) -> Any:
    """The error function, in float64."""
    return _ERF(x) if np.size(x) else np.zeros(np.shape(x))


class Activation(Elementwise):
    """A function of one float."""

    takes: ClassVar[str] = "float"


@operator
class Relu(Activation):
    """max(x, 0)."""

    onnx: ClassVar = ("Relu",)
    tflite: ClassVar = ("RELU",)
    takes: ClassVar = "number"
    cases: ClassVar = (*CASES, Case((((9,), "i8"),)))

    def numpy(self, *x: Any) -> Any:
        return np.maximum(x[0], np.zeros((), x[0].dtype))

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.maximum(x[0], 0)


@operator
class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    onnx: ClassVar = ("Sigmoid",)
    cases: ClassVar = CASES

    def numpy(self, *x: Any) -> Any:
        return 1 / (1 + np.exp(-x[0].astype(np.float64)))

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.call("sigmoid", x[0])


@operator
class Erf(Activation):
    """The error function."""

    onnx: ClassVar = ("Erf",)
    cases: ClassVar = CASES

    def numpy(self, *x: Any) -> Any:
        return erf(x[0])

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.call("erf", x[0])


@operator
class HardSigmoid(Activation):
    """min(max(alpha x + beta, 0), 1)."""

    alpha: float = 0.2
    beta: float = 0.5
    onnx: ClassVar = ("HardSigmoid",)
    cases: ClassVar = (*CASES, Case((((9,), "f32"),), {"alpha": 0.5, "beta": 0.6}))

    def numpy(self, *x: Any) -> Any:
        return np.clip(x[0] * self.alpha + self.beta, 0, 1)

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.clamp(x[0] * self.alpha + self.beta, 0, 1)


@operator
class HardSwish(Activation):
    """x min(max(x / 6 + 1/2, 0), 1)."""

    onnx: ClassVar = ("HardSwish",)
    cases: ClassVar = CASES

    def numpy(self, *x: Any) -> Any:
        return x[0] * np.clip(x[0] / 6 + 0.5, 0, 1)

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] * scalar.clamp(x[0] * (1 / 6) + 0.5, 0, 1)


@operator
class Softplus(Activation):
    """log(1 + exp(x))."""

    onnx: ClassVar = ("Softplus",)
    cases: ClassVar = CASES

    def numpy(self, *x: Any) -> Any:
        return np.logaddexp(x[0], np.zeros((), x[0].dtype))

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.call("softplus", x[0])


@operator
class Softsign(Activation):
    """x / (1 + |x|)."""

    onnx: ClassVar = ("Softsign",)
    cases: ClassVar = CASES

    def numpy(self, *x: Any) -> Any:
        return x[0] / (1 + np.abs(x[0]))

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] / (1 + scalar.call("abs", x[0]))


@operator
class Elu(Activation):
    """x above 0, alpha (exp(x) - 1) below."""

    alpha: float = 1.0
    onnx: ClassVar = ("Elu",)
    cases: ClassVar = (*CASES, Case((((9,), "f32"),), {"alpha": 2.0}))

    def numpy(self, *x: Any) -> Any:
        return np.where(x[0] < 0, self.alpha * np.expm1(x[0]), x[0])

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.where(x[0] < 0, scalar.call("expm1", x[0]) * self.alpha, x[0])


@operator
class Selu(Activation):
    """gamma x above 0, gamma alpha (exp(x) - 1) below."""

    alpha: float = 1.67326319217681884765625
    gamma: float = 1.05070102214813232421875
    onnx: ClassVar = ("Selu",)
    cases: ClassVar = (*CASES, Case((((9,), "f32"),), {"alpha": 2.0, "gamma": 3.0}))

    def numpy(self, *x: Any) -> Any:
        return self.gamma * np.where(x[0] > 0, x[0], self.alpha * np.expm1(x[0]))

    def expr(self, *x: Scalar) -> Scalar:
        below = scalar.call("expm1", x[0]) * self.alpha
        return scalar.where(x[0] > 0, x[0], below) * self.gamma

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        old = {"alpha": 1.6732, "gamma": 1.0507} if n.opset < 6 else {}
        return b.ops(cls(**{**old, **n.fields(cls)}), *n.inputs, name=n.output_names)


@operator
class Celu(Activation):
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""

    alpha: float = 1.0
    onnx: ClassVar = ("Celu",)
    cases: ClassVar = (*CASES, Case((((9,), "f32"),), {"alpha": 2.0}))

    def numpy(self, *x: Any) -> Any:
        return np.where(x[0] > 0, x[0], self.alpha * np.expm1(x[0] / self.alpha))

    def expr(self, *x: Scalar) -> Scalar:
        below = scalar.call("expm1", x[0] / self.alpha) * self.alpha
        return scalar.where(x[0] > 0, x[0], below)


@operator
class LeakyRelu(Activation):
    """x above 0, alpha x below."""

    alpha: float = 0.01
    onnx: ClassVar = ("LeakyRelu",)
    cases: ClassVar = (*CASES, Case((((9,), "f32"),), {"alpha": 0.1}))

    def numpy(self, *x: Any) -> Any:
        return np.where(x[0] < 0, self.alpha * x[0], x[0])

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.where(x[0] < 0, x[0] * self.alpha, x[0])


@operator
class ThresholdedRelu(Activation):
    """x above alpha, else 0."""

    alpha: float = 1.0
    onnx: ClassVar = ("ThresholdedRelu",)
    cases: ClassVar = (*CASES[:4], Case((((9,), "f32"),), {"alpha": 2.0}))

    def numpy(self, *x: Any) -> Any:
        return np.where(x[0] > self.alpha, x[0], 0)

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.where(x[0] > self.alpha, x[0], 0)


@operator
class PRelu(Same):
    """x above 0, slope x below; the slope broadcasts to x."""

    onnx: ClassVar = ("PRelu",)
    cases: ClassVar = (
        Case((((2, 3, 4), "f32"), ((3, 1), "f32"))),
        Case((((9,), "i32"), ((1,), "i32"))),
        Case((((5, 3), "f16"), ((5, 3), "f16"))),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        (t,) = super().infer(n)
        if len(t.shape) != len(tensor(n, 0).shape):
            raise Refusal(f"a slope of shape {tensor(n, 1).shape} does not broadcast to {t}")
        return [t]

    def numpy(self, *x: Any) -> Any:
        return np.where(x[0] < 0, x[0] * x[1], x[0])

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.where(x[0] < 0, x[0] * x[1], x[0])

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        x, slope = n.tensor(0), n.tensor(1)
        if n.opset < 7 and len(slope.shape) == 1 and slope.shape[0] != 1:
            slope = trailing_ones(b, slope, len(x.shape) - 2)
        return b.ops(cls(), x, slope, name=n.output_names)


@operator
class Gelu(Activation):
    """x Phi(x); approximate "tanh" takes 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""

    approximate: str = "none"
    onnx: ClassVar = ("Gelu", "com.microsoft:Gelu")
    cases: ClassVar = (*CASES, Case((((9,), "f32"),), {"approximate": "tanh"}))

    def infer(self, n: Node) -> Sequence[TensorType]:
        if self.approximate not in ("none", "tanh"):
            raise Refusal(f"approximate is '{self.approximate}', neither 'none' nor 'tanh'")
        return super().infer(n)

    def numpy(self, *x: Any) -> Any:
        v = x[0].astype(np.float64)
        if self.approximate == "tanh":
            return 0.5 * v * (1 + np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))
        return 0.5 * v * (1 + erf(v / math.sqrt(2)))

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.call("gelu_tanh" if self.approximate == "tanh" else "gelu", x[0])


@operator
class Mish(Activation):
    """x tanh(softplus(x))."""

    onnx: ClassVar = ("Mish",)
    cases: ClassVar = CASES

    def numpy(self, *x: Any) -> Any:
        return x[0] * np.tanh(np.logaddexp(x[0], np.zeros((), x[0].dtype)))

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.call("mish", x[0])


@operator
class Swish(Activation):
    """x sigmoid(alpha x)."""

    alpha: float = 1.0
    onnx: ClassVar = ("Swish",)
    cases: ClassVar = (*CASES, Case((((9,), "f32"),), {"alpha": 1.702}))

    def numpy(self, *x: Any) -> Any:
        return x[0] / (1 + np.exp(-self.alpha * x[0].astype(np.float64)))

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] * scalar.call("sigmoid", x[0] * self.alpha if self.alpha != 1 else x[0])


@operator
class Shrink(Elementwise):
    """x + bias below -lambd, x - bias above lambd, 0 between."""

    lambd: float = 0.5
    bias: float = 0.0
    onnx: ClassVar = ("Shrink",)
    cases: ClassVar = (
        *CASES[:4],
        Case((((9,), "f32"),), {"lambd": 1.5, "bias": 1.5}),
        Case((((9,), "i8"),), {"lambd": 3.0, "bias": 2.0}),
    )

    def numpy(self, *x: Any) -> Any:
        v = x[0].astype(np.float64)
        y = np.where(v < -self.lambd, v + self.bias, np.where(v > self.lambd, v - self.bias, 0))
        return y.astype(x[0].dtype)

    def expr(self, *x: Scalar) -> Scalar:
        v = x[0] if x[0].dtype.is_float else scalar.cast(x[0], dtypes.f32)
        high = scalar.where(v > self.lambd, v - self.bias, 0)
        return scalar.cast(scalar.where(v < -self.lambd, v + self.bias, high), x[0].dtype)
