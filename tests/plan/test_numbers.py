"""Kernels that differ in numbers only: one function where code counts, else one for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onefold import plan
from onefold.dev.reference import evaluate
from onefold.ir import dtypes
from onefold.ir.graph import Builder, Graph, Value
from onefold.ir.types import TensorType
from onefold.ops.elementwise import Add, Mul
from onefold.ops.quant_conv import QuantConv2D
from onefold.options import Options
from onefold.plan.numbers import MOST
from onefold.run.building import build
from onefold.run.session import Loaded
from onefold.target import find, runs_here

pytestmark = pytest.mark.toolchain

Made = tuple[Graph, list[Any]]


def layers() -> Made:
    """Quantized layers of one shape, each with zero points and bounds of its own, one after the
    other."""
    rng = np.random.default_rng(0)
    x = Value("x", TensorType((1, 9, 8, 16), dtypes.i8))
    graph = Graph("layers", inputs=[x])
    b = Builder(graph)
    for zeros in ((3, -7), (-7, 11), (11, 0)):
        op = QuantConv2D(dtype=dtypes.i8, zero_x=zeros[0], zero_y=zeros[1], lo=-100 + zeros[0],
                         hi=110 + zeros[1], pads=(1, 1, 1, 1))  # fmt: skip
        consts = [
            rng.integers(-128, 128, (16, 3, 3, 16)).astype(np.int8),
            rng.integers(-5000, 5000, 16).astype(np.int32),
            rng.integers(1 << 30, (1 << 31) - 1, 16).astype(np.int32),
            rng.integers(-10, -8, 16).astype(np.int32),
        ]
        x = b.op(op, x, *[b.const(c) for c in consts])
        graph.outputs.append(x)
    return graph, [rng.integers(-128, 128, (1, 9, 8, 16)).astype(np.int8)]


def polynomials(terms: int = 1) -> Made:
    """Loops of one shape with factors of their own, and one summand for all."""
    xs = [Value(f"x{k}", TensorType((40,), dtypes.f32)) for k in range(3)]
    graph = Graph("loops", inputs=xs)
    b = Builder(graph)
    for k, x in enumerate(xs):
        y = x
        for j in range(terms):
            y = b.op(Add(), b.op(Mul(), y, b.const(np.float32(1.25 + k + j))),
                     b.const(np.float32(0.75)))  # fmt: skip
        graph.outputs.append(y)
    return graph, [np.linspace(-3, 3 + k, 40, dtype=np.float32) for k in range(3)]


@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("target", ("host", "x86-64-v3"))
@pytest.mark.parametrize(("make", "numbers"), ((layers, 4), (polynomials, 1)))
def test_one_kernel_for_size(
    make: Callable[[], Made], numbers: int, target: str, threads: int, tmp_path: Path
) -> None:
    t = find(target)
    if not runs_here(t):
        pytest.skip(f"this machine cannot run {target}")
    made = {}
    for goal in ("latency", "size"):
        graph, inputs = make()
        want = evaluate(graph, inputs)
        program = plan.plan(graph, t, Options(optimize=goal, threads=threads))
        made[goal] = list(dict.fromkeys(s.kernel for s in program.flat()))
        folder = tmp_path / goal
        folder.mkdir()
        got = Loaded(build(program, t, folder)).run(inputs)
        for w, g in zip(want, got, strict=True):
            np.testing.assert_allclose(g, w, rtol=0 if w.dtype == np.int8 else 1e-6)
    assert [len(k.numbers) for k in made["latency"]] == [0, 0, 0]
    (kernel,) = made["size"]
    assert len(kernel.numbers) == numbers
    assert not any("\ue000" in k.body for kernels in made.values() for k in kernels)


def test_kernels_of_many_numbers_stay_apart() -> None:
    graph, _ = polynomials(MOST + 1)
    program = plan.plan(graph, find("x86-64-v3"), Options(optimize="size"))
    assert len({s.kernel for s in program.flat()}) == 3
