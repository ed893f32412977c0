"""Steps that write over what they read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from onefold.dev.cases import run_graph
from onefold.dev.reference import evaluate
from onefold.ir import dtypes
from onefold.ir.dtypes import DType
from onefold.ir.graph import Builder, Graph, Value
from onefold.ir.types import TensorType
from onefold.ops.cast import Cast
from onefold.ops.elementwise import Add
from onefold.ops.scan import CumSum

pytestmark = pytest.mark.toolchain

KINDS = {
    dtypes.i32: (dtypes.f32, dtypes.u32), dtypes.f32: (dtypes.i32,),
    dtypes.i8: (dtypes.u8,), dtypes.u8: (dtypes.i8,), dtypes.f16: (dtypes.i16,),
    dtypes.f64: (dtypes.i64,),
}  # fmt: skip


def twice(start: DType, end: DType) -> tuple[Graph, Sequence[Any]]:
    """x + x, read for its running sums and then cast, read for running sums again: both of them
    lie in memory."""
    x = Value("x", TensorType((6, 8), start))
    graph = Graph("cast", inputs=[x])
    b = Builder(graph)
    wide = b.op(Add(), x, x)
    other = b.op(Cast(end), wide)
    graph.outputs = [b.op(CumSum(), v) for v in (wide, other)]
    low = 0 if start.kind == "uint" else -9
    return graph, [(np.arange(48) % 19 + low).reshape(6, 8).astype(start.numpy)]


@pytest.mark.parametrize("start,end", [(a, b) for a, ends in KINDS.items() for b in ends], ids=str)
def test_a_cast_to_another_type_of_the_same_size(start: DType, end: DType) -> None:
    graph, inputs = twice(start, end)
    want = evaluate(graph, inputs)
    for w, g in zip(want, run_graph(graph, inputs), strict=True):
        np.testing.assert_array_equal(g, w)
