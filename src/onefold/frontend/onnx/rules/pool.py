"""Global pools: one window over everything spatial."""

from __future__ import annotations

from collections.abc import Sequence

from onefold.frontend.onnx.rules import rule
from onefold.ir.graph import Builder, Value
from onefold.ops.formats import OnnxNode
from onefold.ops.pool import AveragePool, LpPool, MaxPool, whole_window


@rule("GlobalAveragePool")
def global_average_pool(n: OnnxNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    return b.ops(AveragePool(whole_window(x, n.op_type)), x, name=n.output_names)


@rule("GlobalMaxPool")
def global_max_pool(n: OnnxNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    return b.ops(MaxPool(whole_window(x, n.op_type)), x, name=n.output_names)


@rule("GlobalLpPool")
def global_lp_pool(n: OnnxNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    op = LpPool(whole_window(x, n.op_type), p=float(n.attr("p", 2)))
    return b.ops(op, x, name=n.output_names)
