"""Weights of few bits in a file stay so in the program, and the answers are the file's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onefold

pytestmark = pytest.mark.toolchain

K, N, ROWS = 48, 40, 3
LIMITS = {
    TensorProto.INT8: (-128, 127), TensorProto.UINT8: (0, 255),
    TensorProto.INT4: (-8, 7), TensorProto.UINT4: (0, 15),
}  # fmt: skip
CASES = [
    (kind, form, zero)
    for kind in LIMITS for form in ("whole", "columns", "blocks") for zero in (False, True)
]  # fmt: skip


def model(kind: int, form: str, zero: bool, product: str) -> tuple[onnx.ModelProto, Any]:
    """x @ dequantized weights, and the weights in float."""
    rng = np.random.default_rng(0)
    low, high = LIMITS[kind]
    q = rng.integers(low, high + 1, (K, N))
    block = 16 if form == "blocks" else 0
    shape = {"whole": (), "columns": (N,), "blocks": (K // 16, N)}[form]
    scale = rng.uniform(0.5, 2, shape).astype(np.float32) / (high - low)
    points = rng.integers(low, high + 1, shape) if zero else np.zeros(shape, np.int64)
    every = (np.repeat(a, 16, 0) if form == "blocks" else a for a in (scale, points))
    s, z = every
    w = ((q - z) * s).astype(np.float32)
    turned = product == "Gemm"
    axis = 0 if form == "blocks" else 1
    if turned:
        q, axis = q.T, 1 - axis
        scale, points = (a.T if a.ndim == 2 else a for a in (scale, points))
    consts = [
        helper.make_tensor("q", kind, q.shape, q.reshape(-1)),
        helper.make_tensor("scale", TensorProto.FLOAT, scale.shape, scale.reshape(-1)),
        helper.make_tensor("zero", kind, points.shape, points.reshape(-1)),
        helper.make_tensor("c", TensorProto.FLOAT, (N,), rng.uniform(-1, 1, N)),
    ]
    more = {"block_size": block} if block else {}
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=axis, **more),
        helper.make_node("Gemm", ["x", "w", "c"], ["y"], transB=1) if turned
        else helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "weights",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [ROWS, K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [ROWS, N])], consts,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    bias = onnx.numpy_helper.to_array(consts[3]) if turned else np.zeros(N, np.float32)
    return made, (w, bias)


@pytest.mark.parametrize("product", ["MatMul", "Gemm"])
def test_weights_keep_their_bits(product: str, tmp_path: Path) -> None:
    for kind, form, zero in CASES:
        made, (w, bias) = model(kind, form, zero, product)
        path = tmp_path / f"{kind}{form}{zero}.onnx"
        onnx.save(made, path)
        loaded = onefold.load(path)
        program = loaded.compile(fallback=False)
        x = np.random.default_rng(1).uniform(-1, 1, (ROWS, K)).astype(np.float32)
        want = x.astype(np.float64) @ w + bias
        np.testing.assert_allclose(program({"x": x})["y"], want, rtol=1e-4, atol=1e-4)
        assert program.report["weights_bytes"] < w.nbytes, (kind, form, zero)


def test_scales_along_the_sums_are_left(tmp_path: Path) -> None:
    """A scale for each row of [K, N] is none of a column's: the weights become floats."""
    made, _ = model(TensorProto.INT8, "columns", False, "MatMul")
    made.graph.node[0].attribute[0].i = 0
    scale = np.linspace(0.5, 2, K).astype(np.float32)
    del made.graph.initializer[1:3]
    made.graph.initializer.append(onnx.numpy_helper.from_array(scale, "scale"))
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(K, np.int8), "zero"))
    path = tmp_path / "rows.onnx"
    onnx.save(made, path)
    x = np.random.default_rng(1).uniform(-1, 1, (ROWS, K)).astype(np.float32)
    q = onnx.numpy_helper.to_array(made.graph.initializer[0])
    program = onefold.load(path).compile(fallback=False)
    assert program.report["weights_bytes"] >= 4 * K * N
    got = program({"x": x})["y"]
    np.testing.assert_allclose(got, x @ (q * scale[:, None]), rtol=1e-4, atol=1e-3)
