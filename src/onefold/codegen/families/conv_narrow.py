"""Convolutions of f32 and products with constant matrices, computed in bf16 or f16 (narrow.py)."""

from __future__ import annotations

from onefold.codegen.families.conv import Direct, machine_for
from onefold.codegen.families.matmul import PackedMatMul, packed_for
from onefold.codegen.family import Choice, Family
from onefold.codegen.narrow import Layer, choose, refused
from onefold.ir.graph import Node
from onefold.ops.conv import Conv
from onefold.options import Options
from onefold.target import Target


class NarrowConv(Family):
    """Convolutions with one group."""

    name = "conv_narrow"
    ops = ("Conv",)
    blocks = True

    def match(self, node: Node, target: Target, options: Options) -> Choice | str:
        why = refused(options, target)
        if why:
            return why
        m = machine_for(node, target, narrow=True)
        if isinstance(m, str):
            return m
        op, batches = node.op, node.arg(0).shape[0]
        assert isinstance(op, Conv)
        if op.group != 1:
            return f"it has {op.group} groups"
        if not isinstance(batches, int):
            return "its batch is open"
        d = Direct(node, m)
        layer = Layer(
            node, d.sums, batches, d.batch, d.oc, d.rows, d.columns, d.planes, node.const(2),
            d.index,
        )  # fmt: skip
        return choose(layer, target, options)


class NarrowMatMul(Family):
    """Products x [..., k] @ constant w [k, n]."""

    name = "matmul_narrow"
    ops = PackedMatMul.ops

    def match(self, node: Node, target: Target, options: Options) -> Choice | str:
        why = refused(options, target)
        if why:
            return why
        p = packed_for(node, target)
        if isinstance(p, str):
            return p
        if not isinstance(p.rows, int):
            return "its rows are open"
        layer = Layer(node, p.sums, 1, 0, p.n, 1, p.rows, p.planes, p.bias, p.index)
        return choose(layer, target, options)
