"""Losses and one step of ai.onnx.preview.training's optimisers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onefold.frontend.onnx.rules import rule
from onefold.ir.graph import Builder, Value
from onefold.ops.base import Refusal
from onefold.ops.cast import Cast
from onefold.ops.elementwise import Add, Div, Mul, Pow, Sub
from onefold.ops.formats import OnnxNode
from onefold.ops.logic import Greater, Where
from onefold.ops.loss import NegativeLogLikelihoodLoss
from onefold.ops.softmax import LogSoftmax
from onefold.ops.unary import Sqrt


@rule("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy_loss(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """NegativeLogLikelihoodLoss of LogSoftmax over the classes, which is the second output."""
    scores = n.tensor(0)
    if len(scores.shape) < 2:
        raise Refusal(f"scores {scores.tensor} have no axis of classes")
    logs = b.op(LogSoftmax(1), scores, name=n.output_names[1:2])
    op = NegativeLogLikelihoodLoss(**n.fields(NegativeLogLikelihoodLoss))
    return [b.op(op, logs, n.tensor(1), n.input(2), name=n.output_names[0]), logs]


class _Sums:
    """Arithmetic on values and numbers of one type, as nodes."""

    def __init__(self, b: Builder, like: Value) -> None:
        self.b = b
        self.kind = like.dtype

    def _value(self, v: Value | float) -> Value:
        if not isinstance(v, Value):
            return self.b.const(v, self.kind)
        return v if v.dtype is self.kind else self.b.op(Cast(self.kind), v)

    def add(self, x: Value | float, y: Value | float) -> Value:
        return self.b.op(Add(), self._value(x), self._value(y))

    def sub(self, x: Value | float, y: Value | float) -> Value:
        return self.b.op(Sub(), self._value(x), self._value(y))

    def mul(self, x: Value | float, y: Value | float) -> Value:
        return self.b.op(Mul(), self._value(x), self._value(y))

    def div(self, x: Value | float, y: Value | float) -> Value:
        return self.b.op(Div(), self._value(x), self._value(y))

    def sqrt(self, x: Value) -> Value:
        return self.b.op(Sqrt(), x)

    def power(self, x: float, y: Value) -> Value:
        return self.b.op(Pow(), self._value(x), y)


Step = Callable[[_Sums, Value, Value, Sequence[Value]], Sequence[Value]]


def _steps(n: OnnxNode, b: Builder, slots: int, step: Step) -> list[Value]:
    """Inputs R, T, then tensors, gradients and `slots` groups of state, all of one count; outputs
    the new tensors, then the new states, group by group."""
    groups = slots + 2
    count = (len(n.inputs) - 2) // groups
    if count < 1 or len(n.inputs) != 2 + count * groups:
        raise Refusal(f"{len(n.inputs)} inputs are not groups of tensors, gradients and states")
    results = []
    for i in range(count):
        x, gradient, *state = (n.tensor(2 + i + count * g) for g in range(groups))
        results.append(step(_Sums(b, x), x, gradient, state))
    return [r[k] for k in range(slots + 1) for r in results]


@rule("ai.onnx.preview.training:Adagrad")
def adagrad(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Gradients scaled by the root of the sum of their squares so far."""
    rate, turn = n.tensor(0), n.tensor(1)

    def step(s: _Sums, x: Value, gradient: Value, state: Sequence[Value]) -> list[Value]:
        r = s.div(rate, s.add(1.0, s.mul(turn, float(n.attr("decay_factor", 0.0)))))
        g = s.add(s.mul(x, float(n.attr("norm_coefficient", 0.0))), gradient)
        h = s.add(state[0], s.mul(g, g))
        adapted = s.add(s.sqrt(h), float(n.attr("epsilon", 1e-6)))
        return [s.sub(x, s.div(s.mul(r, g), adapted)), h]

    return _steps(n, b, 1, step)


@rule("ai.onnx.preview.training:Adam")
def adam(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Running means of the gradient and its square, corrected for their start at 0."""
    rate, turn = n.tensor(0), n.tensor(1)
    alpha, beta = float(n.attr("alpha", 0.9)), float(n.attr("beta", 0.999))

    def step(s: _Sums, x: Value, gradient: Value, state: Sequence[Value]) -> list[Value]:
        g = s.add(s.mul(x, float(n.attr("norm_coefficient", 0.0))), gradient)
        v = s.add(s.mul(state[0], alpha), s.mul(g, 1 - alpha))
        h = s.add(s.mul(state[1], beta), s.mul(s.mul(g, g), 1 - beta))
        root = s.add(s.sqrt(h), float(n.attr("epsilon", 1e-6)))
        fix = s.div(s.sqrt(s.sub(1.0, s.power(beta, turn))), s.sub(1.0, s.power(alpha, turn)))
        later = b.op(Greater(), turn, b.const(0, turn.dtype))
        plain = s.mul(rate, 1.0)
        r = b.op(Where(), later, s.mul(rate, fix), plain)
        y = s.sub(x, s.mul(r, s.div(v, root)))
        return [s.mul(y, 1 - float(n.attr("norm_coefficient_post", 0.0))), v, h]

    return _steps(n, b, 2, step)


@rule("ai.onnx.preview.training:Momentum")
def momentum(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Stochastic gradient descent with (Nesterov's) momentum."""
    rate, turn = n.tensor(0), n.tensor(1)
    alpha, beta = float(n.attr("alpha", 0.0)), float(n.attr("beta", 0.0))
    mode = n.attr("mode", "standard")
    if mode not in ("standard", "nesterov"):
        raise Refusal(f"mode is '{mode}', neither 'standard' nor 'nesterov'")

    def step(s: _Sums, x: Value, gradient: Value, state: Sequence[Value]) -> list[Value]:
        g = s.add(s.mul(x, float(n.attr("norm_coefficient", 0.0))), gradient)
        later = b.op(Greater(), turn, b.const(0, turn.dtype))
        weight = b.op(Where(), later, b.const(beta, g.dtype), b.const(1.0, g.dtype))
        v = s.add(s.mul(state[0], alpha), s.mul(weight, g))
        along = v if mode == "standard" else s.add(g, s.mul(v, alpha))
        return [s.sub(x, s.mul(rate, along)), v]

    return _steps(n, b, 1, step)
