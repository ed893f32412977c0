"""Scan forwards and backwards against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper as h

import onefold

ort = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("read", [0, 1])
@pytest.mark.parametrize("write", [0, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_directions_and_axes(read: int, write: int, axis: int) -> None:
    body = h.make_graph(
        [h.make_node("Add", ["s", "e"], ["next"]), h.make_node("Mul", ["next", "e"], ["z"])],
        "body",
        [h.make_tensor_value_info(n, T.FLOAT, [3]) for n in ("s", "e")],
        [h.make_tensor_value_info(n, T.FLOAT, [3]) for n in ("next", "z")],
    )  # fmt: skip
    node = h.make_node("Scan", ["s0", "x"], ["last", "all"], body=body, num_scan_inputs=1,
                       scan_input_directions=[read], scan_output_directions=[write],
                       scan_output_axes=[axis])  # fmt: skip
    graph = h.make_graph(
        [node], "scan",
        [h.make_tensor_value_info("s0", T.FLOAT, [3]),
         h.make_tensor_value_info("x", T.FLOAT, [4, 3])],
        [h.make_empty_tensor_value_info(n) for n in ("last", "all")],
    )  # fmt: skip
    opset = [h.make_opsetid("", 17)]
    model = h.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    rng = np.random.default_rng(3)
    feeds = {"s0": rng.normal(size=3), "x": rng.normal(size=(4, 3))}
    feeds = {n: a.astype(np.float32) for n, a in feeds.items()}
    want = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feeds)
    got = onefold.load(model).compile(fallback=False)(feeds)
    for w, g in zip(want, got.values(), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-6)
