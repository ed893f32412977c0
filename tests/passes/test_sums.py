"""Sums of two quantized values, shortened: on every pair of bytes, as NumPy and as machine code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onefold.dev.reference import evaluate
from onefold.ir import dtypes
from onefold.ir.graph import Builder, Graph, Origin, Value
from onefold.ir.types import TensorType
from onefold.ops.activation import Relu
from onefold.ops.elementwise import Add, Sub
from onefold.ops.quant_arith import QuantAdd
from onefold.ops.quantize import DequantizeLinear, QuantizeLinear
from onefold.passes.sums import shorten_sums
from onefold.run import emulator
from onefold.ship.bundle import build_graph
from onefold.target import find, runs_here

TARGETS = ("x86-64-v2", "x86-64-v3", "x86-64-v4", "arm64")
Array = np.ndarray[Any, Any]


def pairs(kinds: tuple[str, str]) -> tuple[Array, Array]:
    """All pairs of bytes."""
    sides = [dtypes.BY_NAME[k] for k in kinds]
    x, y = np.meshgrid(*(np.arange(t.lo, t.hi + 1) for t in sides), indexing="ij")
    return x.astype(sides[0].numpy), y.astype(sides[1].numpy)


class Sum:
    """A graph of two inputs, each of all bytes in all pairs."""

    def __init__(self, *kinds: str) -> None:
        self.graph = Graph("sum")
        self.b = Builder(self.graph, Origin(("sum",)), fold=False)
        types = [TensorType((256, 256), dtypes.BY_NAME[k]) for k in kinds]
        self.x, self.y = (Value(name, t) for name, t in zip("xy", types, strict=True))
        self.graph.inputs += [self.x, self.y]
        self.feeds = pairs((kinds[0], kinds[1]))

    def real(self, v: Value, scale: Any, zero: int) -> Value:
        point = self.b.const(np.array(zero, v.dtype.numpy))
        return self.b.op(
            DequantizeLinear(axis=0), v, self.b.const(np.array(scale, np.float32)), point
        )

    def onnx(self, a: Any, za: int, b: float, zb: int, y: float, zy: int, **more: Any) -> Graph:
        to = more.get("to", dtypes.u8)
        op = Sub() if more.get("minus") else Add()
        s = self.b.op(op, self.real(self.x, a, za), self.real(self.y, b, zb))
        s = self.b.op(Relu(), s) if more.get("relu") else s
        scale, zero = np.array(y, np.float32), np.array(zy, to.numpy)
        self.graph.outputs.append(
            self.b.op(QuantizeLinear(to=to), s, self.b.const(scale), self.b.const(zero))
        )
        return self.graph

    def tflite(self, **fields: Any) -> Graph:
        self.graph.outputs.append(self.b.op(QuantAdd(**fields), self.x, self.y))
        return self.graph


def residual(seed: int) -> Sum:
    rng = np.random.default_rng(seed)
    s, scale = Sum("u8", "i8" if seed % 2 else "u8"), rng.uniform(0.01, 0.2, 3)
    s.onnx(
        scale[0], int(rng.integers(0, 256)), scale[1], int(rng.integers(0, 128)), scale[2],
        int(rng.integers(0, 128)), relu=seed % 3 == 0, minus=seed % 4 == 0,
        to=dtypes.i8 if seed % 5 == 0 else dtypes.u8,
    )  # fmt: skip
    return s


def added(seed: int) -> Sum:
    rng = np.random.default_rng(seed)
    s, (m, n, o) = Sum("i8", "i8"), map(int, rng.integers(1 << 30, 1 << 31, 3))
    s.tflite(
        zero_a=-5, zero_b=11, zero_y=-3, by_a=(m, -1), by_b=(n, 0), by_y=(o, -19), lo=-100,
        minus=seed % 2 == 0,
    )  # fmt: skip
    return s


CASES = [*((residual, k) for k in range(8)), *((added, k) for k in range(4))]


def shortened(graph: Graph, target: str = "x86-64-v3") -> bool:
    changed = shorten_sums(graph, find(target))
    assert (changed > 0) == any(n.op.name == "RoundedSum" for n in graph.nodes)
    return changed > 0


@pytest.mark.parametrize(("make", "seed"), CASES)
def test_every_pair_of_bytes_keeps_its_sum(make: Any, seed: int) -> None:
    s = make(seed)
    want = evaluate(s.graph, s.feeds)
    if shortened(s.graph):
        np.testing.assert_array_equal(evaluate(s.graph, s.feeds)[0], want[0])


def test_most_sums_are_shortened() -> None:
    assert sum(shortened(make(seed).graph) for make, seed in CASES) >= len(CASES) - 3


@pytest.mark.toolchain
@pytest.mark.parametrize("target", TARGETS)
def test_machine_code_keeps_every_sum(target: str, tmp_path: Path) -> None:
    t = find(target)
    if not runs_here(t) and not emulator.available(t):
        pytest.skip(f"this machine cannot run {target}")
    for make, seed in ((residual, 3), (residual, 5), (added, 0)):
        s = make(seed)
        want = evaluate(s.graph, s.feeds)
        assert shortened(s.graph)
        bundle = build_graph(s.graph, t, tmp_path / f"{make.__name__}{seed}", "net", measure=False)
        np.testing.assert_array_equal(bundle.run(s.feeds)[0], want[0])


def test_halves_are_rounded_as_before() -> None:
    """Scales of a power of two make every second sum a half; an odd zero point comes after."""
    s = Sum("u8", "u8")
    s.onnx(0.5, 0, 0.5, 0, 1.0, 7)
    want = evaluate(s.graph, s.feeds)
    assert shortened(s.graph)
    np.testing.assert_array_equal(evaluate(s.graph, s.feeds)[0], want[0])


def test_sums_stay_as_they_are_where_that_is_no_gain() -> None:
    assert not shortened(residual(3).graph, "cortex-m4f")
    each = Sum("u8", "u8")
    per_row = np.linspace(0.1, 0.2, 256).astype(np.float32)
    point = each.b.const(np.full(256, 3, np.uint8))
    left = each.b.op(DequantizeLinear(axis=0), each.x, each.b.const(per_row), point)
    total = each.b.op(Add(), left, each.real(each.y, 0.1, 3))
    scale = each.b.const(np.array(0.3, np.float32))
    each.graph.outputs.append(each.b.op(QuantizeLinear(), total, scale))
    assert not shortened(each.graph)
