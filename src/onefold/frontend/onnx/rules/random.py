"""ONNX's random operators: our counter-based generator in the type and shape they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from onefold.frontend.onnx.rules import rule
from onefold.ir import dtypes
from onefold.ir.graph import Builder, Value
from onefold.ir.limits import FOLD_LIMIT
from onefold.ops.base import Refusal
from onefold.ops.cast import Cast
from onefold.ops.formats import OnnxNode
from onefold.ops.logic import Less
from onefold.ops.random import Multinomial, RandomUniform, seed_of, stream_of


def _draw(n: OnnxNode, b: Builder, like: Value | None, low: float, high: float) -> Sequence[Value]:
    shape = None if like is not None else tuple(int(d) for d in n.attr("shape", ()))
    if shape is not None and prod(shape) > FOLD_LIMIT * 16:
        raise Refusal(f"a random tensor of shape {list(shape)} does not fit into memory")
    kind = n.dtype("dtype") or (dtypes.f32 if like is None else like.dtype)
    gauss = n.op_type.startswith("RandomNormal")
    op = RandomUniform(shape, kind, low, high, gauss, seed_of(n))
    return b.ops(op, like, stream_of(n, b), name=n.output_names)


@rule("RandomUniform", "RandomUniformLike")
def random_uniform(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Numbers in [low, high)."""
    like = n.tensor(0) if n.op_type.endswith("Like") else None
    return _draw(n, b, like, float(n.attr("low", 0.0)), float(n.attr("high", 1.0)))


@rule("RandomNormal", "RandomNormalLike")
def random_normal(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Numbers of a mean and a standard deviation (`scale`)."""
    like = n.tensor(0) if n.op_type.endswith("Like") else None
    return _draw(n, b, like, float(n.attr("mean", 0.0)), float(n.attr("scale", 1.0)))


@rule("Bernoulli")
def bernoulli(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """1 with the probability that the input holds."""
    x = n.tensor(0)
    r = b.op(RandomUniform(None, x.dtype, seed=seed_of(n)), x, stream_of(n, b))
    return b.ops(Cast(n.dtype("dtype") or x.dtype), b.op(Less(), r, x), name=n.output_names)


@rule("Multinomial")
def multinomial(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Classes drawn from log-probabilities."""
    op = Multinomial(int(n.attr("sample_size", 1)), n.dtype("dtype") or dtypes.i32, seed_of(n))
    return b.ops(op, n.tensor(0), stream_of(n, b), name=n.output_names)
