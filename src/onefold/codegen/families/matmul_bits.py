"""Matrix products of f32 with constant weights of 4 or 8 bits, which stay so in memory."""

from __future__ import annotations

import numpy as np

from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.sums import index_of_row, pack_bias
from onefold.codegen.team import parts_for
from onefold.codegen.tiles import Machine, Run, Tile, f32_machine, groups_of, lane_check, padded
from onefold.codegen.tiling import Plane, Tiling
from onefold.ir import dims
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node
from onefold.ops.nbits import MatMulNBits
from onefold.options import Options
from onefold.target import Target

ALONE, TOGETHER = 4, 2  # vectors of columns at once, for one row and for several


class BitsMatMul(Family):
    """x [..., k] @ constant w of few bits, with scales by column and block of rows (of_bits.h)."""

    name = "matmul_bits"
    ops = ("MatMulNBits",)

    def match(self, node: Node, target: Target, options: Options) -> Choice | str:
        op, x = node.op, node.arg(0)
        assert isinstance(op, MatMulNBits)
        m = f32_machine(target, x.dtype)
        if isinstance(m, str):
            return m
        if op.bits not in (4, 8):
            return f"its weights have {op.bits} bits"
        if any(v is not None and v.data is None for v in node.inputs[1:]):
            return "its weights are not constant"
        if node.input(4) is not None:
            return "its blocks are not in order"
        if 0 in x.shape:
            return "it is empty"
        return _Bits(node, op, m, options.threads).choice()


class _Bits:
    def __init__(self, node: Node, op: MatMulNBits, m: Machine, threads: int) -> None:
        self.node, self.op, self.m = node, op, m
        lead = node.arg(0).shape[:-1]
        self.rows, self.index = dims.product(lead), index_of_row(lead)
        vectors = min(ALONE if self.rows == 1 else TOGETHER, -(-op.N // m.lanes))
        most = max(m.sums // vectors, 1)
        columns = min(self.rows, most) if isinstance(self.rows, int) else most
        self.tile = Tile(columns, vectors)
        self.shifted = self._zeros() is not None
        # a weight is widened once for all rows of a tile
        work = dims.upper(self.rows) + 2 * -(-dims.upper(self.rows) // columns)
        self.cost = work * op.K * -(-op.N // m.lanes) / 2
        self.sums = dims.upper(self.rows) * op.blocks() if self.shifted else 0
        self.own = parts_for(self.cost, threads)

    def choice(self) -> Choice:
        name = f"matmul_bits{self.op.bits}_{self.tile.columns}x{self.tile.vectors}"
        return Choice(
            name, self.node, (self.node.arg(0),), self.packed, self.render, lambda s: True,
            ("of_bits.h",), 4 * self.sums * self.own, self.cost,
        )  # fmt: skip

    def _zeros(self) -> Array | None:
        """What every block takes for zero, [N, blocks], less what the packed weights take."""
        op, given = self.op, self.node.const(3)
        if given is None:
            return None
        count = op.blocks()
        packed = given.dtype == np.uint8
        zeros = op.unpack(given, count) if packed else given.reshape(op.N, count)
        zeros = zeros.astype(np.float32) - np.float32(1 << (op.bits - 1))
        return zeros if zeros.any() else None

    def packed(self) -> tuple[Array, ...]:
        op, q, scale = self.op, self.node.arg(1).data, self.node.arg(2).data
        assert q is not None and scale is not None
        values = (op.unpack(q, op.K).astype(np.int16) - (1 << (op.bits - 1))).astype(np.int8)
        weights = values if op.bits == 8 else _words(values, op.block_size)
        scales = scale.astype(np.float32).reshape(op.N, op.blocks())
        bias, zeros = self.node.const(5), self._zeros()
        more = () if zeros is None else (self._grouped(zeros * scales),)
        row = None if bias is None else bias.astype(np.float32)
        return (self._grouped(weights), self._grouped(scales), *more,
                pack_bias(row, op.N, self.m.lanes))  # fmt: skip

    def _grouped(self, a: Array) -> Array:
        """[N, n] as [group][n][vectors][lanes], unused lanes zero."""
        lanes = self.m.lanes
        rows = np.zeros((padded(self.op.N, lanes), a.shape[1]), a.dtype)
        rows[: self.op.N] = a
        parts = []
        for g in groups_of(self.op.N, lanes, self.tile.vectors):
            some = rows[g.first * lanes : (g.first + g.count * g.vectors) * lanes]
            some = some.reshape(g.count, g.vectors, lanes, -1).transpose(0, 3, 1, 2)
            parts.append(some.reshape(-1))
        return np.concatenate(parts)

    def render(self, r: Rendering) -> str:
        x, w, scale = r.pointers[:3]
        zero = r.pointers[3] if self.shifted else "0"
        bias = r.pointers[4 if self.shifted else 3]
        op, lanes = self.op, self.m.lanes
        count = op.blocks()
        per = op.K if op.bits == 8 else sum(-(-n // 8) for n in _sizes(op.K, op.block_size))

        def call(vectors: int, run: Run, n: Dim, block: Dim, row: Dim, column: Dim) -> str:
            def at(each: int) -> str:
                return r.dim(dims.mul(block, lanes * each))

            shift = f"{zero} + {at(count)}" if self.shifted else zero
            sums = f"sums + {r.dim(dims.mul(column, count))}" if self.shifted else "0"
            return (
                f"of_bits_tile(k, {run.width}, {vectors}, {x} + {r.dim(dims.mul(column, op.K))}, "
                f"{w} + {at(per)}, {scale} + {at(count)}, {shift}, {sums}, {bias} + {at(1)}, acc);"
            )

        head = [
            lane_check(lanes),
            f"const struct of_bits k = {{{op.bits}, {op.K}, {min(op.block_size, op.K)}}};",
        ]
        plane = Plane(lanes, 1, op.N, 1, self.rows, self.index)
        if self.shifted:
            apart = f" + me.part * {self.sums}" if r.team.parts > 1 else ""
            head += [f"float *const sums = (float *){r.pointers[5]}{apart};",
                     f"of_bits_sums(k, {r.dim(self.rows)}, {x}, sums);"]  # fmt: skip
        return Tiling(plane, self.tile, r, call, lambda first, width: False).body(head)


def _sizes(k: int, block: int) -> list[int]:
    """Products of every block."""
    return [min(block, k - i) for i in range(0, k, block)]


def _words(values: Array, block: int) -> Array:
    """Weights [N, K] of 4 bits as words of eight; every block begins with a new word."""
    parts = []
    at = 0
    for size in _sizes(values.shape[1], block):
        some = np.zeros((len(values), -(-size // 8) * 8), np.uint32)
        some[:, :size] = values[:, at : at + size].astype(np.uint32) & 15
        shifted = some.reshape(len(values), -1, 8) << (4 * np.arange(8, dtype=np.uint32))
        parts.append(np.bitwise_or.reduce(shifted, 2))
        at += size
    return np.concatenate(parts, 1).view(np.int32)
