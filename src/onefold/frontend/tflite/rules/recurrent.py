"""Recurrent layers and resource variables."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onefold.frontend.tflite.arithmetic import f32, quantize_multiplier, scale_of, zero_of
from onefold.frontend.tflite.common import canonical, is_quantized, reshaped, transposed
from onefold.frontend.tflite.rules import tflite_rule
from onefold.ir import dtypes
from onefold.ir.graph import Builder, Value
from onefold.ops.base import Refusal
from onefold.ops.formats import TfliteNode
from onefold.ops.movement import Concat
from onefold.ops.quant_lstm import QuantLstm

# Where the tensors of UNIDIRECTIONAL_SEQUENCE_LSTM lie; gates: input, forget, cell, output
WEIGHTS, RECURRENT, PEEPHOLES, BIASES = 1, 5, 9, 12
PROJECTION, STATE, CELL, NORMS = 16, 18, 19, 20


@tflite_rule("UNIDIRECTIONAL_SEQUENCE_LSTM")
def lstm(n: TfliteNode, b: Builder) -> Sequence[Value]:
    if n.input(PROJECTION) is not None or n.option("proj_clip", 0.0):
        raise Refusal("an LSTM with a projection")
    if any(n.input(k) is not None for k in range(NORMS, NORMS + 4)):
        raise Refusal("an LSTM with layer normalization")
    if n.input(WEIGHTS) is None:
        raise Refusal("an LSTM whose input gate is tied to its forget gate")
    if len(n.arg(0).shape) != 3:
        raise Refusal(f"an LSTM of an input of rank {len(n.arg(0).shape)}")
    _check_shapes(n)
    if is_quantized(n.arg(0)):
        return _integer(n, b)
    for k in (*range(WEIGHTS, WEIGHTS + 4), *range(RECURRENT, RECURRENT + 4)):
        if n.arg(k).dtype is not n.arg(0).dtype:
            raise Refusal(f"an LSTM of {n.arg(0).dtype} with weights of {n.arg(k).dtype}")
    return _float(n, b)


def _check_shapes(n: TfliteNode) -> None:
    """Raises Refusal unless all gates have one number of units, and the states have it too."""
    width, units = n.arg(0).shape[2], n.arg(RECURRENT + 1).shape[:1]
    for k in range(4):
        for first, wanted in ((WEIGHTS, (*units, width)), (RECURRENT, (*units, *units))):
            if n.arg(first + k).shape != wanted:
                raise Refusal(f"its weights {list(n.arg(first + k).shape)} are not {list(wanted)}")
        bias = n.input(BIASES + k)
        if bias is not None and bias.shape != units:
            raise Refusal(f"its bias {list(bias.shape)} is not {list(units)}")
    for k in (STATE, CELL):
        if len(n.arg(k).shape) != 2 or n.arg(k).shape[1:] != units:
            raise Refusal(f"its state {list(n.arg(k).shape)} does not hold {list(units)} units")


def _float(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, h, c = n.arg(0), n.arg(STATE), n.arg(CELL)
    act = n.option("fused_activation_function", "TANH")
    if act not in ("TANH", "RELU"):
        raise Refusal(f"an LSTM with the activation {act}")
    order = (0, 3, 1, 2)  # ours: input, output, forget, cell
    units = h.shape[1]

    def stacked(first: int) -> Value:
        joined = b.op(Concat(0), *(n.arg(first + g) for g in order))
        return reshaped(b, t := transposed(b, joined, (1, 0)), (1, *t.shape))

    zero = b.const(np.zeros(h.tensor.ints[1], x.dtype.numpy))
    biases = [n.input(BIASES + g) or zero for g in order] + [zero] * 4
    bias = b.op(Concat(0), *biases)
    peep: list[Value | None] = []
    if n.input(PEEPHOLES + 1) is not None:
        joined = b.op(Concat(0), n.input(PEEPHOLES) or zero, n.arg(PEEPHOLES + 2),
                      n.arg(PEEPHOLES + 1))  # fmt: skip
        peep = [reshaped(b, joined, (1, *joined.shape))]
    major = bool(n.option("time_major", False))
    batch = h.shape[0]
    start = (1, batch, units) if major else (batch, 1, units)
    cell = act.lower()
    acts = tuple((name, 0.0, 0.0) for name in ("sigmoid", cell, cell))
    clip = max(float(n.option("cell_clip", 0.0)), 0.0)
    op = canonical("LSTM", layout=0 if major else 1, activations=acts, cell_clip=clip)
    y, last, end = b.ops(
        op, x, stacked(WEIGHTS), stacked(RECURRENT), reshaped(b, bias, (1, *bias.shape)), None,
        reshaped(b, h, start), reshaped(b, c, start), *peep,
    )  # fmt: skip
    n.importer.keep(h, reshaped(b, last, h.shape))
    n.importer.keep(c, reshaped(b, end, c.shape))
    return [reshaped(b, y, (*x.shape[:2], units))]


def _integer(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, h, c = n.arg(0), n.arg(STATE), n.arg(CELL)
    if x.dtype is not dtypes.i8 or h.dtype is not dtypes.i8 or c.dtype is not dtypes.i16:
        raise Refusal(f"an LSTM of {x.dtype}, {h.dtype} and {c.dtype}")
    if any(n.input(PEEPHOLES + k) is not None for k in range(3)):
        raise Refusal("a quantized LSTM with peepholes")
    if len(n.intermediates) != 5 or n.intermediates[4].quant is None:
        raise Refusal("a quantized LSTM without the scales of its gates")
    weights = [n.arg(WEIGHTS + g) for g in range(4)]
    recurrent = [n.arg(RECURRENT + g) for g in range(4)]
    arrays = [v.data for v in (*weights, *recurrent)]
    if any(a is None for a in arrays):
        raise Refusal("the weights are not constant")
    w = np.stack([np.asarray(a) for a in arrays[:4]])
    r = np.stack([np.asarray(a) for a in arrays[4:]])
    bias = -zero_of(x) * w.astype(np.int64).sum(axis=2)
    for g in range(4):
        own = n.input(BIASES + g)
        if own is not None:
            if own.data is None or own.dtype is not dtypes.i32:
                raise Refusal("a bias is not constant, or not int32")
            bias[g] += own.data
    rest = -zero_of(h) * r.astype(np.int64).sum(axis=2)
    hidden = n.intermediates[4]
    cell_bits = math.frexp(scale_of(c))[1] - 1
    if scale_of(c) != 2.0**cell_bits:
        raise Refusal(f"the cell's scale {scale_of(c):g} is no power of two")
    clip = float(n.option("cell_clip", 0.0))
    gate = 2.0**-12
    op = QuantLstm(
        by_w=tuple(_gate_scale(v, x, gate) for v in weights),
        by_r=tuple(_gate_scale(v, h, gate) for v in recurrent),
        by_hidden=quantize_multiplier(f32(2.0**-15 / scale_of(hidden) * 2.0**-15)),
        zero=zero_of(hidden), cell_bits=cell_bits,
        clip=int(min(max(clip / scale_of(c), -32768.0), 32767.0)) if clip > 0 else 0,
        time_major=bool(n.option("time_major", False)),
    )  # fmt: skip
    y, last, end = b.ops(
        op, x, b.const(w), b.const(r), b.const(bias, dtypes.i32), b.const(rest, dtypes.i32), h, c
    )
    n.importer.keep(h, last)
    n.importer.keep(c, end)
    return [y]


def _gate_scale(w: Value, x: Value, gate: float) -> tuple[int, int]:
    return quantize_multiplier(f32(f32(scale_of(w) * scale_of(x)) / gate))


# -- variables ------------------------------------------------------------------------------------


@tflite_rule("VAR_HANDLE")
def var_handle(n: TfliteNode, b: Builder) -> Sequence[Value]:
    key = f"{n.option('container') or ''}/{n.option('shared_name') or n.name}"
    return [b.const(np.array(key, object))]


def _key(n: TfliteNode) -> str:
    data = n.arg(0).data
    if data is None or data.dtype != object:
        raise Refusal("a variable that no VAR_HANDLE names")
    return str(data.item())


@tflite_rule("READ_VARIABLE")
def read_variable(n: TfliteNode, b: Builder) -> Sequence[Value]:
    return b.ops(canonical("Identity"), n.importer.variable(_key(n), n.output_types[0]))


@tflite_rule("ASSIGN_VARIABLE")
def assign_variable(n: TfliteNode, b: Builder) -> Sequence[Value]:
    n.importer.assign(_key(n), n.arg(1))
    return []


@tflite_rule("CALL_ONCE")
def call_once(n: TfliteNode, b: Builder) -> Sequence[Value]:
    n.importer.once(int(n.option("init_subgraph_index", 0)))
    return []


@tflite_rule("CALL")
def call(n: TfliteNode, b: Builder) -> Sequence[Value]:
    inputs = [n.arg(k) for k in range(len(n.inputs))]
    out: Sequence[Value] = n.importer.inline(int(n.option("subgraph", 0)), inputs)
    return out
