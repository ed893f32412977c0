"""Arithmetic on two tensors, quantizing, activations and other functions of one element."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onefold.frontend.tflite.arithmetic import (
    activation_range,
    f32,
    per_tensor,
    quantize_multiplier,
    scale_of,
    zero_of,
)
from onefold.frontend.tflite.common import (
    QUANTIZED,
    activate,
    canonical,
    is_quantized,
    scalar_const,
)
from onefold.frontend.tflite.rules import tflite_rule
from onefold.ir import dtypes
from onefold.ir.graph import Builder, Value
from onefold.ir.types import TensorType
from onefold.ops import fixedpoint as fx
from onefold.ops.base import Refusal
from onefold.ops.cast import BitCast, Cast
from onefold.ops.formats import TfliteNode
from onefold.ops.quant_arith import (
    AffineDequantize,
    AffineQuantize,
    QuantAdd,
    QuantMul,
    QuantRescale,
    QuantSquaredDifference,
    QuantTable,
)

Array = np.ndarray[Any, np.dtype[Any]]


def clamped(n: TfliteNode) -> dict[str, Any]:
    """zero_y, lo, hi, dtype of a quantized result."""
    y = n.output_types[0]
    lo, hi = activation_range(n.option("fused_activation_function", "NONE"), y)
    return {"zero_y": zero_of(y), "lo": lo, "hi": hi, "dtype": y.dtype}


def one_scale(n: TfliteNode, left: int, power: int = 1) -> dict[str, Any]:
    """Multipliers that bring both inputs to twice the larger scale, and then to the result's."""
    a, c = n.arg(0), n.arg(1)
    sa, sb, sy = scale_of(a), scale_of(c), scale_of(n.output_types[0])
    twice = 2 * max(sa, sb)
    return {
        "zero_a": zero_of(a), "zero_b": zero_of(c), "left": left,
        "by_a": quantize_multiplier(sa / twice), "by_b": quantize_multiplier(sb / twice),
        "by_y": quantize_multiplier(twice**power / ((1 << left * power) * sy)),
    }  # fmt: skip


def both_quantized(n: TfliteNode) -> bool:
    a, c = n.arg(0), n.arg(1)
    if a.dtype is not c.dtype:
        raise Refusal(f"{n.op_type} of {a.dtype} and {c.dtype}")
    return is_quantized(a) and n.quantized


@tflite_rule("ADD", "SUB")
def add(n: TfliteNode, b: Builder) -> Sequence[Value]:
    minus = n.op_type == "SUB"
    if both_quantized(n):
        left = 15 if n.arg(0).dtype is dtypes.i16 else 20
        op = QuantAdd(**clamped(n), **one_scale(n, left), minus=minus)
        return b.ops(op, n.arg(0), n.arg(1))
    y = b.op(canonical("Sub" if minus else "Add"), n.arg(0), n.arg(1))
    return [activate(b, y, n.option("fused_activation_function", "NONE"))]


@tflite_rule("MUL")
def mul(n: TfliteNode, b: Builder) -> Sequence[Value]:
    a, c = n.arg(0), n.arg(1)
    if both_quantized(n):
        real = f32(f32(scale_of(a) * scale_of(c)) / scale_of(n.output_types[0]))
        op = QuantMul(**clamped(n), zero_a=zero_of(a), zero_b=zero_of(c),
                      by_y=quantize_multiplier(real))  # fmt: skip
        return b.ops(op, a, c)
    y = b.op(canonical("Mul"), a, c)
    return [activate(b, y, n.option("fused_activation_function", "NONE"))]


@tflite_rule("DIV")
def div(n: TfliteNode, b: Builder) -> Sequence[Value]:
    if both_quantized(n):
        raise Refusal(f"a quotient of quantized {n.arg(0).dtype}")
    y = b.op(canonical("Div"), n.arg(0), n.arg(1))
    return [activate(b, y, n.option("fused_activation_function", "NONE"))]


@tflite_rule("SQUARED_DIFFERENCE")
def squared_difference(n: TfliteNode, b: Builder) -> Sequence[Value]:
    if both_quantized(n):
        op = QuantSquaredDifference(**clamped(n), **one_scale(n, 7, power=2))
        return b.ops(op, n.arg(0), n.arg(1))
    d = b.op(canonical("Sub"), n.arg(0), n.arg(1))
    return b.ops(canonical("Mul"), d, d)


_PLAIN_TWO = {
    "MINIMUM": "Min", "MAXIMUM": "Max", "POW": "Pow", "FLOOR_MOD": "Mod",
    "EQUAL": "Equal", "LESS": "Less", "LESS_EQUAL": "LessOrEqual", "GREATER": "Greater",
    "GREATER_EQUAL": "GreaterOrEqual", "LOGICAL_AND": "And", "LOGICAL_OR": "Or",
    "BITWISE_XOR": "BitwiseXor",
}  # fmt: skip


@tflite_rule(*_PLAIN_TWO)
def plain_two(n: TfliteNode, b: Builder) -> Sequence[Value]:
    a, c = n.arg(0), n.arg(1)
    if is_quantized(a) and n.op_type not in ("LOGICAL_AND", "LOGICAL_OR") and a.quant != c.quant:
        a, c = comparable(b, a), comparable(b, c)
        if not n.op_type.endswith(("EQUAL", "LESS", "GREATER")):
            raise Refusal("its inputs have different scales")
    return b.ops(canonical(_PLAIN_TWO[n.op_type]), a, c)


def comparable(b: Builder, v: Value) -> Value:
    """What TFLite compares of a quantized value: it, rescaled, with eight more bits."""
    op = QuantRescale(zero_x=zero_of(v) * 256, by_y=quantize_multiplier(scale_of(v)),
                      lo=-(1 << 31), hi=(1 << 31) - 1, dtype=dtypes.i32)  # fmt: skip
    return b.op(op, b.op(canonical("Mul"), widened(b, v), b.const(256, dtypes.i32)))


def widened(b: Builder, v: Value) -> Value:
    return b.op(Cast(dtypes.i32), v)


@tflite_rule("NOT_EQUAL")
def not_equal(n: TfliteNode, b: Builder) -> Sequence[Value]:
    a, c = n.arg(0), n.arg(1)
    if is_quantized(a) and a.quant != c.quant:
        a, c = comparable(b, a), comparable(b, c)
    return b.ops(canonical("Not"), b.op(canonical("Equal"), a, c))


@tflite_rule("FLOOR_DIV")
def floor_div(n: TfliteNode, b: Builder) -> Sequence[Value]:
    a, c = n.arg(0), n.arg(1)
    if a.dtype.is_float:
        return b.ops(canonical("Floor"), b.op(canonical("Div"), a, c))
    # a - mod(a, c) is a multiple of c, whose quotient needs no rounding.
    return b.ops(canonical("Div"), b.op(canonical("Sub"), a, b.op(canonical("Mod"), a, c)), c)


@tflite_rule("RIGHT_SHIFT")
def right_shift(n: TfliteNode, b: Builder) -> Sequence[Value]:
    return b.ops(canonical("BitShift", direction="RIGHT"), n.arg(0), n.arg(1))


@tflite_rule("ADD_N")
def add_n(n: TfliteNode, b: Builder) -> Sequence[Value]:
    total = n.arg(0)
    for k in range(1, len(n.inputs)):
        total = b.op(canonical("Add"), total, n.arg(k))
    return b.ops(canonical("Identity"), total) if len(n.inputs) == 1 else [total]


@tflite_rule("SELECT_V2", "SELECT")
def select(n: TfliteNode, b: Builder) -> Sequence[Value]:
    from onefold.frontend.tflite.common import reshaped

    cond, x, y = n.arg(0), n.arg(1), n.arg(2)
    if n.op_type == "SELECT" and len(cond.shape) == 1 and len(x.shape) > 1:
        cond = reshaped(b, cond, (*cond.shape, *[1] * (len(x.shape) - 1)))
    return b.ops(canonical("Where"), cond, x, y)


# -- from and to integers -------------------------------------------------------------------------


@tflite_rule("QUANTIZE")
def quantize(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, y = n.arg(0), n.output_types[0]
    if x.dtype is dtypes.f32:
        return b.ops(AffineQuantize(scale_of(y), zero_of(y), y.dtype), x)
    return [rescaled(b, x, y)]


def rescaled(b: Builder, x: Value, y: TensorType) -> Value:
    """A quantized value in the scale and type of y."""
    by = quantize_multiplier(scale_of(x) / scale_of(y))
    kind = y.dtype
    if kind not in (*QUANTIZED, dtypes.i32):
        raise Refusal(f"quantizing {x.dtype} to {kind}")
    return b.op(QuantRescale(zero_of(y), kind.lo, kind.hi, kind, zero_of(x), by), x)


@tflite_rule("DEQUANTIZE")
def dequantize(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    if x.dtype.is_float:
        return b.ops(Cast(dtypes.f32), x)
    q = x.quant
    if q is None:
        raise Refusal(f"'{x.name}' has no scale")
    zero = q.zero_point if len(q.zero_point) == len(q.scale) else q.zero_point * len(q.scale)
    return b.ops(AffineDequantize(q.scale, zero, q.axis or 0), x)


@tflite_rule("FAKE_QUANT")
def fake_quant(n: TfliteNode, b: Builder) -> Sequence[Value]:
    lo, hi = float(n.option("min", 0.0)), float(n.option("max", 0.0))
    bits, narrow = int(n.option("num_bits", 8)), bool(n.option("narrow_range", False))
    if not (lo <= 0 <= hi and lo < hi and 2 <= bits <= 16):
        raise Refusal(f"the range {lo} to {hi} in {bits} bits")
    low, high = int(narrow), (1 << bits) - 1
    scale = f32((f32(hi) - f32(lo)) / (high - low))
    zero = f32(low - f32(lo) / scale)
    zero = low if zero < low else high if zero > high else math.floor(zero + 0.5)
    first, last = f32((low - zero) * scale), f32((high - zero) * scale)
    x = n.arg(0)
    y = b.op(canonical("Clip"), x, scalar_const(b, first, x), scalar_const(b, last, x))
    steps = b.op(canonical("Mul"), b.op(canonical("Sub"), y, scalar_const(b, first, x)),
                 scalar_const(b, f32(1 / scale), x))  # fmt: skip
    half = b.op(canonical("Add"), steps, scalar_const(b, 0.5, x))
    whole = b.op(canonical("Mul"), b.op(canonical("Floor"), half), scalar_const(b, scale, x))
    return b.ops(canonical("Add"), whole, scalar_const(b, first, x))


@tflite_rule("CAST")
def cast(n: TfliteNode, b: Builder) -> Sequence[Value]:
    return b.ops(Cast(n.output_types[0].dtype), n.arg(0))


@tflite_rule("BITCAST")
def bitcast(n: TfliteNode, b: Builder) -> Sequence[Value]:
    return b.ops(BitCast(n.output_types[0].dtype), n.arg(0))


# -- functions of one element ---------------------------------------------------------------------

Real = Callable[[Array], Array]


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _erf(x: Array) -> Array:
    return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(x))


def _gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + _erf(x * math.sqrt(0.5))))


def _gelu_tanh(x: Array) -> Array:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return np.asarray(0.5 * x * (1 + np.tanh(inner)))


TABLES: dict[str, Real] = {
    "LOGISTIC": _sigmoid, "TANH": np.tanh, "ELU": lambda x: np.where(x < 0, np.expm1(x), x),
    "EXP": np.exp, "LOG": np.log,
}  # fmt: skip
FLOATS = {
    "LOGISTIC": "Sigmoid", "TANH": "Tanh", "ELU": "Elu", "EXP": "Exp", "LOG": "Log", "ABS": "Abs",
    "NEG": "Neg", "SQRT": "Sqrt", "FLOOR": "Floor", "CEIL": "Ceil", "ROUND": "Round", "SIN": "Sin",
    "COS": "Cos", "SIGN": "Sign", "RELU": "Relu", "HARD_SWISH": "HardSwish", "LOGICAL_NOT": "Not",
}  # fmt: skip


def all_values(x: Value) -> Array:
    """Every value of an 8-bit type, smallest first."""
    if x.dtype.bits != 8:
        raise Refusal(f"this function of quantized {x.dtype}")
    return np.arange(x.dtype.lo, x.dtype.hi + 1, dtype=np.int64)


def tabled(n: TfliteNode, b: Builder, values: Array) -> Sequence[Value]:
    """A function of one 8-bit value by a table of its 256 results (before saturation)."""
    kind = n.output_types[0].dtype
    if kind not in QUANTIZED:
        raise Refusal(f"a result of type {kind}")
    table = np.clip(values, kind.lo, kind.hi).astype(kind.numpy)
    return b.ops(QuantTable(), n.arg(0), b.const(table, kind, "table"))


def real_table(x: Value, y: TensorType, f: Real) -> Array:
    """The results of a function of reals, as the lookup tables of TFLite hold them."""
    one = np.float32(1) / np.float32(scale_of(y))
    reals = (np.float32(scale_of(x)) * (all_values(x) - zero_of(x)).astype(np.float32))
    with np.errstate(all="ignore"):
        out = np.nan_to_num(f(reals.astype(np.float64)), neginf=-3e38, posinf=3e38)
        scaled = (np.clip(out, -3e38, 3e38).astype(np.float32) * one).astype(np.float32)
    rounded = fx.round_away(np.clip(scaled, -1e9, 1e9).astype(np.float32))
    return rounded.astype(np.int64) + zero_of(y)


@tflite_rule(*FLOATS)
def unary(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, y = n.arg(0), n.output_types[0]
    if is_quantized(x) and n.op_type in TABLES:
        return tabled(n, b, real_table(x, y, TABLES[n.op_type]))
    if is_quantized(x):
        return tabled(n, b, integer_table(n, x, y))
    return b.ops(canonical(FLOATS[n.op_type]), x)


@tflite_rule("GELU")
def gelu(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, tanh = n.arg(0), bool(n.option("approximate", False))
    if is_quantized(x):
        return tabled(n, b, real_table(x, n.output_types[0], _gelu_tanh if tanh else _gelu))
    return b.ops(canonical("Gelu", approximate="tanh" if tanh else "none"), x)


@tflite_rule("RSQRT")
def rsqrt(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, y = n.arg(0), n.output_types[0]
    if is_quantized(x):
        return tabled(n, b, integer_table(n, x, y))
    return b.ops(canonical("Reciprocal"), b.op(canonical("Sqrt"), x))


@tflite_rule("SQUARE")
def square(n: TfliteNode, b: Builder) -> Sequence[Value]:
    return b.ops(canonical("Mul"), n.arg(0), n.arg(0))


@tflite_rule("RELU6", "RELU_N1_TO_1", "RELU_0_TO_1")
def relus(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    if is_quantized(x):
        return tabled(n, b, integer_table(n, x, n.output_types[0]))
    if n.op_type == "RELU_0_TO_1":
        return b.ops(canonical("Clip"), x, scalar_const(b, 0, x), scalar_const(b, 1, x))
    return [activate(b, x, n.op_type)]


@tflite_rule("LEAKY_RELU")
def leaky_relu(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    if is_quantized(x):
        return tabled(n, b, integer_table(n, x, n.output_types[0]))
    return b.ops(canonical("LeakyRelu", alpha=float(n.option("alpha", 0.0))), x)


def integer_table(n: TfliteNode, x: Value, y: TensorType) -> Array:
    """The results of functions that TFLite computes in fixed point."""
    from onefold.frontend.tflite.fixed_functions import FUNCTIONS

    q = all_values(x) - zero_of(x)
    per_tensor(y)
    f = FUNCTIONS.get(n.op_type)
    if f is None:
        raise Refusal(f"{n.op_type} of quantized {x.dtype}")
    return f(n, q, x, y)
