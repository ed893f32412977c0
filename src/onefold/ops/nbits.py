"""Products with weights of few bits, quantized in blocks along the inner dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Builder, Node, Value
from onefold.ir.scalar import Const, Index, Scalar
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Lowering, Op, Refusal, operator
from onefold.ops.conv import wide
from onefold.ops.formats import OnnxNode


@operator
class MatMulNBits(Op):
    """x [..., K] @ ((q - zero) * scale)^T + bias, for q [N, K] of `bits` bits.

    q is stored as bytes [N, blocks, block_size * bits / 8], the first value in the lowest bits;
    scale [N, blocks]; zero either floats [N, blocks], or packed bytes [N, ceil(blocks * bits / 8)],
    or absent: 2^(bits - 1). groups [K]: the block that gives scale and zero of each k, where they
    are not in order. bias [N].
    """

    K: int = 0
    N: int = 0
    bits: int = 4
    block_size: int = 32
    onnx: ClassVar = ("com.microsoft:MatMulNBits",)
    cases: ClassVar = (
        Case((((3, 40), "f32"), ((5, 3, 8), "u8"), ((5, 3), "f32"), ((5, 2), "u8")),
             {"K": 40, "N": 5, "block_size": 16}),
        Case((((2, 2, 32), "f32"), ((4, 2, 16), "u8"), ((4, 2), "f32"), ((4, 2), "f32"), None,
              ((4,), "f32")), {"K": 32, "N": 4, "bits": 8, "block_size": 16}),
        Case((((1, 32), "f16"), ((4, 1, 8), "u8"), ((4, 1), "f16")),
             {"K": 32, "N": 4, "bits": 2}),
        Case((((2, 32), "f32"), ((3, 2, 8), "u8"), ((3, 2), "f32"), None,
              np.array([0, 1] * 16, np.int32)), {"K": 32, "N": 3, "block_size": 16}),
    )  # fmt: skip

    def blocks(self) -> int:
        return -(-self.K // self.block_size)

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, q, scale, zero = n.arg(0), n.arg(1), n.arg(2), n.input(3)
        if self.bits not in (2, 4, 8) or self.K < 1 or self.N < 1:
            raise Refusal(f"MatMulNBits of {self.bits} bits, K = {self.K}, N = {self.N}")
        if self.block_size < 1 or self.block_size * self.bits % 8:
            raise Refusal(f"MatMulNBits has blocks of {self.block_size}; whole bytes are needed")
        if not x.dtype.is_float or not scale.dtype.is_float or q.dtype is not dtypes.u8:
            raise Refusal(f"MatMulNBits of {x.dtype}, {q.dtype}, {scale.dtype}")
        if not x.shape or (isinstance(x.shape[-1], int) and x.shape[-1] != self.K):
            raise Refusal(f"MatMulNBits of {list(x.shape)}; {self.K} elements a row are needed")
        count, per = self.blocks(), self.block_size * self.bits // 8
        if dims.product(q.shape) != self.N * count * per:
            raise Refusal(f"MatMulNBits has weights of shape {list(q.shape)}")
        if scale.tensor.size != self.N * count:
            raise Refusal(f"MatMulNBits has scales of shape {list(scale.shape)}")
        packed = -(-count * self.bits // 8)
        if zero is not None and zero.tensor.size != self.N * (
            packed if zero.dtype is dtypes.u8 else count
        ):
            raise Refusal(f"MatMulNBits has zero points {zero.type}")
        groups, bias = n.input(4), n.input(5)
        if groups is not None and (groups.tensor.size != self.K or not groups.dtype.is_int):
            raise Refusal(f"MatMulNBits has group indices {groups.type}")
        if bias is not None and bias.shape != (self.N,):
            raise Refusal(f"MatMulNBits has a bias of shape {list(bias.shape)}")
        return [TensorType((*x.shape[:-1], self.N), x.dtype)]

    def unpack(self, packed: Array, count: int) -> Array:
        """The first `count` values of each row of bytes."""
        rows = packed.reshape(self.N, -1)
        shifts = np.arange(8 // self.bits) * self.bits
        values = (rows[..., None] >> shifts) & ((1 << self.bits) - 1)
        return values.reshape(self.N, -1)[:, :count]

    def ref(self, n: Node, *inputs: Any) -> Any:
        given: list[Any] = [*inputs, *[None] * 6]
        x, q, scale, zero, groups, bias = given[:6]
        count = self.blocks()
        values = self.unpack(q, self.K).astype(np.float64)
        block = np.arange(self.K) // self.block_size
        if groups is not None:
            block = groups.reshape(-1) % count
        if zero is None:
            points = np.full((self.N, count), float(1 << (self.bits - 1)))
        elif zero.dtype == np.uint8:
            points = self.unpack(zero, count).astype(np.float64)
        else:
            points = wide(zero).reshape(self.N, count)
        w = (values - points[:, block]) * wide(scale).reshape(self.N, count)[:, block]
        y = wide(x) @ w.T
        return (y if bias is None else y + wide(bias)).astype(x.dtype)

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        x, count = k.x(0), self.blocks()
        kind = x.dtype.compute

        def element(*index: Dim) -> Scalar:
            *lead, row = index

            def term(c: Dim) -> Scalar:
                block: Dim = dims.floordiv(c, self.block_size)
                if k.has(4):
                    where = dims.unravel(c, k.x(4).shape)
                    block = scalar.loaded(k.x(4)(*where), count)
                value = self._bits(k, 1, dims.add(dims.mul(row, count * self.block_size), c))
                weight = scalar.cast(value, kind) - self._zero(k, row, block, kind)
                scale = self._at(k, 2, dims.add(dims.mul(row, count), block))
                return x(*lead, c) * (weight * scalar.cast(scale, kind))

            acc = scalar.reduce("sum", [self.K], term)
            return acc + k.x(5)(row) if k.has(5) else acc

        return k.map(element)

    def _at(self, k: Lowering, i: int, position: Dim) -> Scalar:
        t = k.x(i)
        return t(*dims.unravel(position, t.shape))

    def _bits(self, k: Lowering, i: int, position: Dim) -> Scalar:
        """Value number `position` of packed input i."""
        per = 8 // self.bits
        byte = scalar.cast(self._at(k, i, dims.floordiv(position, per)), dtypes.i32)
        if per == 1:
            return byte
        shift = scalar.cast(Index(dims.mul(dims.mod(position, per), self.bits)), dtypes.i32)
        low = scalar.call("shr", byte, shift)
        return low & ((1 << self.bits) - 1)

    def _zero(self, k: Lowering, row: Dim, block: Dim, kind: dtypes.DType) -> Scalar:
        count = self.blocks()
        if not k.has(3):
            return Const(float(1 << (self.bits - 1)), kind)
        if k.x(3).dtype is dtypes.u8:
            per = 8 // self.bits
            width = -(-count // per) * per
            return scalar.cast(self._bits(k, 3, dims.add(dims.mul(row, width), block)), kind)
        return scalar.cast(self._at(k, 3, dims.add(dims.mul(row, count), block)), kind)

    def macs(self, n: Node) -> int:
        return dims.upper(dims.mul(n.outputs[0].tensor.size, self.K))

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        if n.attr("weight_prepacked", 0):
            raise Refusal("MatMulNBits with weights packed for one accelerator")
        op = cls(**n.fields(cls))
        if op.block_size < 16 or op.block_size & (op.block_size - 1):
            raise Refusal(f"MatMulNBits has blocks of {op.block_size}; a power of 2 is needed")
        return b.ops(op, *n.inputs, name=n.output_names)
