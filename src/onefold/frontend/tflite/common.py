"""What the rules of TFLite operators share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onefold.frontend.tflite.arithmetic import ACTIVATIONS
from onefold.ir import dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Builder, Value
from onefold.ops.activation import Relu
from onefold.ops.base import Op, Refusal, registry
from onefold.ops.elementwise import Clip
from onefold.ops.formats import TfliteNode
from onefold.ops.known import ints_of
from onefold.ops.movement import Transpose
from onefold.ops.shape import Reshape

QUANTIZED = (dtypes.i8, dtypes.u8, dtypes.i16)


def is_quantized(v: Value) -> bool:
    """True for an integer tensor that stands for reals."""
    return v.quant is not None and v.dtype in QUANTIZED


def canonical(name: str, **fields: Any) -> Op:
    """An operator of ours by name."""
    found = registry.by_name.get(name)
    if found is None:
        raise Refusal(f"the operator {name} is not part of this build")
    return found(**fields)


def activate(b: Builder, v: Value, activation: str) -> Value:
    """A fused activation of a float (or plain integer) result."""
    if activation == "NONE":
        return v
    if activation == "RELU":
        return b.op(Relu(), v)
    if activation == "TANH":
        return b.op(canonical("Tanh"), v)
    if activation not in ACTIVATIONS:
        raise Refusal(f"the fused activation {activation}")
    lo, hi = ACTIVATIONS[activation]
    return b.op(Clip(), v, b.const(lo, v.dtype), b.const(hi, v.dtype))


def reshaped(b: Builder, v: Value, shape: Sequence[Dim]) -> Value:
    return v if tuple(shape) == v.shape else b.op(Reshape(tuple(shape)), v)


def transposed(b: Builder, v: Value, perm: Sequence[int]) -> Value:
    return b.op(Transpose(tuple(perm)), v)


def to_nchw(b: Builder, v: Value) -> Value:
    """Channels from the last place to the second."""
    rank = len(v.shape)
    return transposed(b, v, (0, rank - 1, *range(1, rank - 1)))


def to_nhwc(b: Builder, v: Value) -> Value:
    rank = len(v.shape)
    return transposed(b, v, (0, *range(2, rank), 1))


def ints(n: TfliteNode, i: int, what: str) -> tuple[int, ...]:
    """The values of input i, which must be known to compile."""
    v = n.arg(i)
    if not v.dtype.is_int:
        raise Refusal(f"the {what} is of type {v.dtype}, not an integer")
    return ints_of(v, f"{what} of {n.op_type}")


def scalar_const(b: Builder, value: float, like: Value) -> Value:
    return b.const(np.asarray(value, like.dtype.numpy))


def rank_of(v: Value, *allowed: int) -> int:
    rank = len(v.shape)
    if rank not in allowed:
        raise Refusal(f"'{v.name}' has rank {rank}")
    return rank
