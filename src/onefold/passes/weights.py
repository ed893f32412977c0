"""Weights that the file holds in few bits stay so: x @ dequantize(constant) is one product.

Whoever multiplies widens them on the way. Runs before constants are folded, which would widen them
all; behind the fusion of layers whose inputs are quantized too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onefold.ir import dtypes
from onefold.ir.graph import Array, Builder, Node, Value
from onefold.ops.elementwise import Add
from onefold.ops.matmul import Gemm, MatMul
from onefold.ops.movement import Transpose
from onefold.ops.nbits import MatMulNBits
from onefold.ops.quantize import DequantizeLinear
from onefold.passes.match import op_of, producer
from onefold.passes.rewrite import Patch, Scope, rewrite

BITS = {dtypes.i8: 8, dtypes.u8: 8, dtypes.i4: 4, dtypes.u4: 4}


@dataclass
class Weights:
    """Codes [N, K] from 0 on; scale and, unless that is 2^(bits - 1) everywhere, the code of zero,
    [N, blocks]."""

    codes: Array
    bits: int
    block: int
    scale: Array
    zero: Array | None


def weights_of(v: Value, turned: bool) -> Weights | None:
    """The quantized weights of a product; turned: v lies [N, K]. None where v is no constant of
    few bits with scales by column, or by block of a column."""
    t = producer(v, Transpose)
    if t is not None and op_of(t, Transpose).perm == (1, 0):
        v, turned = t.arg(0), not turned
    n = producer(v, DequantizeLinear)
    if n is None or len(v.shape) != 2 or v.dtype is not dtypes.f32:
        return None
    op, q, scale, zero = op_of(n, DequantizeLinear), n.arg(0), n.const(1), n.input(2)
    if q.data is None or scale is None or q.dtype not in BITS or not q.data.size:
        return None
    if scale.dtype != np.float32 or (zero is not None and zero.data is None):
        return None
    inner = 1 if turned else 0
    axis, size = op.axis % 2, q.tensor.ints[inner]
    columns = q.tensor.ints[1 - inner]
    if op.block_size and axis == inner and scale.ndim == 2:
        block = op.block_size
    elif not op.block_size and (scale.size == 1 or axis != inner):
        block = size
    else:
        return None
    bits = BITS[q.dtype]
    middle = 1 << (bits - 1)

    def rows(a: Array) -> Array:
        """Parameters [N, blocks]."""
        if a.ndim == 2:
            return np.ascontiguousarray(a if turned else a.T)
        return np.ascontiguousarray(np.broadcast_to(a.reshape(-1, 1), (columns, 1)))

    first = -q.dtype.lo
    codes = (q.data.astype(np.int32) + first).astype(np.uint8)
    zeros = np.zeros(1) if zero is None or zero.data is None else zero.data
    points = rows((zeros.astype(np.int32) + first).astype(np.uint8))
    if points.shape != rows(scale).shape:
        points = np.ascontiguousarray(np.broadcast_to(points[:, :1], rows(scale).shape))
    none = bool((points == middle).all())
    return Weights(codes if turned else codes.T, bits, block, rows(scale), None if none else points)


def packed(codes: Array, bits: int) -> Array:
    """Rows of codes as bytes, the first one in the lowest bits."""
    if bits == 8:
        return np.ascontiguousarray(codes)
    even = np.zeros((len(codes), -(-codes.shape[1] // 2) * 2), np.uint8)
    even[:, : codes.shape[1]] = codes
    return np.ascontiguousarray(even[:, ::2] | even[:, 1::2] << 4)


@rewrite("weights-of-few-bits", MatMul, Gemm)
def keep_bits(n: Node, see: Scope) -> Patch | None:
    op, x, bias = n.op, n.arg(0), n.input(2)
    turned = isinstance(op, Gemm) and bool(op.transB)
    if isinstance(op, Gemm) and (op.transA or op.alpha != 1 or (bias and op.beta != 1)):
        return None
    if x.dtype is not dtypes.f32 or not x.shape or producer(x, DequantizeLinear) is not None:
        return None
    w = weights_of(n.arg(1), turned)
    if w is None:
        return None
    columns, size = w.codes.shape
    block = w.block + w.block % 2
    count = -(-size // block)
    if count != w.scale.shape[1]:
        return None
    filled = np.zeros((columns, count * block), np.uint8)
    filled[:, :size] = w.codes
    made = MatMulNBits(K=size, N=columns, bits=w.bits, block_size=block)

    def build(b: Builder) -> list[Value]:
        q = packed(filled, w.bits).reshape(columns, count, -1)
        zero = None if w.zero is None else b.const(packed(w.zero, w.bits))
        y = b.op(made, x, b.const(q), b.const(w.scale), zero)
        return [y if bias is None else b.op(Add(), y, bias)]

    return Patch((n,), build)


RULES = (keep_bits,)
