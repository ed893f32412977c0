"""Recurrent layers on targets with vectors: the products of all inputs as one matrix product, and
the recurrent weights packed for what is left of a step."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from onefold.codegen.narrow import MATRIX, refused
from onefold.codegen.tiles import Machine
from onefold.ir import dims, dtypes
from onefold.ir.graph import Builder, Graph, Node, Value
from onefold.ops.elementwise import Add
from onefold.ops.matmul import MatMul
from onefold.ops.recurrent import GRU, LSTM, RNN, Recurrent
from onefold.ops.recurrent_steps import RecurrentSteps
from onefold.options import Options
from onefold.passes.rewrite import Patch, Scope, apply_rules, rewrite
from onefold.target import Target

MOST = 1 << 25  # elements of the products of all inputs
FEWEST = 48  # hidden units from which weights of f32 do not lie in the cache nearest to the core


def split_recurrent(graph: Graph, target: Target, options: Options) -> int:
    """Rewrite the recurrent layers that it pays for; returns how many."""
    m = Machine.of(target)
    if m is None:
        return 0

    @rewrite("recurrent-steps", RNN, GRU, LSTM)
    def steps(n: Node, see: Scope) -> Patch | None:
        return _split(n, m.lanes, target, options)

    return apply_rules(graph, [steps])


def kind_of(hidden: int, target: Target, options: Options) -> str:
    """How steps of so many hidden units meet their weights: one of KINDS."""
    if hidden < FEWEST or refused(options, target):
        return "f32"
    tiles = options.precision == "bf16" and target.features >= MATRIX
    return "tiles" if tiles else options.precision


def _split(n: Node, lanes: int, target: Target, options: Options) -> Patch | None:
    op = n.op
    assert isinstance(op, Recurrent)
    x, w, r, b = n.arg(0), n.arg(1).data, n.arg(2).data, n.input(3)
    if x.dtype is not dtypes.f32 or w is None or r is None or (b is not None and b.data is None):
        return None
    d, inputs, size = w.shape
    if not inputs or (isinstance(x.shape[2], int) and x.shape[2] != inputs):
        return None
    own: Any = op
    made = RecurrentSteps(
        cell=op.name, hidden=size // op.gates, lanes=lanes,
        kind=kind_of(size // op.gates, target, options),
        **{f.name: getattr(op, f.name) for f in fields(own)},
    )  # fmt: skip
    columns = d * made.width
    if dims.upper(dims.product((*x.shape[:2], columns))) > MOST:
        return None

    def build(k: Builder) -> list[Value]:
        weights = np.moveaxis(made.columns(w), 0, 1).reshape(inputs, columns)
        products = k.op(MatMul(), x, k.const(np.ascontiguousarray(weights)))
        more = None
        if b is not None:
            assert b.data is not None
            first, second = b.data[:, :size], b.data[:, size:].copy()
            if made.linear_before_reset:
                more = k.const(second[:, -made.hidden :].copy())
                second[:, -made.hidden :] = 0
            products = k.op(Add(), products, k.const(made.columns(first + second).reshape(-1)))
        with np.errstate(over="ignore"):
            packed = made.pack(r).astype(made.way.dtype.numpy)
        rest = [n.input(i) for i in range(4, 8)]
        return k.ops(made, products, k.const(packed), more, *rest)

    return Patch((n,), build)
