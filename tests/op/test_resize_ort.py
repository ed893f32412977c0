"""Resize where a scale leaves a single element, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

import onefold

ort = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("dims", [None, {"n": "2..8"}])
def test_pytorch_half_pixel_of_one(mode: str, dims: dict[str, str] | None) -> None:
    """1.5 elements are one element, which stands at the place 0."""
    node = h.make_node("Resize", ["x", "", "s"], ["y"], mode=mode,
                       nearest_mode="round_prefer_ceil",
                       coordinate_transformation_mode="pytorch_half_pixel")  # fmt: skip
    graph = h.make_graph(
        [node], "one", [h.make_tensor_value_info("x", T.FLOAT, [1, 2, "n"])],
        [h.make_tensor_value_info("y", T.FLOAT, [1, 2, "m"])],
        [numpy_helper.from_array(np.array([1, 1, 0.5], np.float32), "s")],
    )  # fmt: skip
    opset = [h.make_opsetid("", 17)]
    model = h.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    program = onefold.load(model).compile(dims=dims, fallback=False)
    for n in (3, 7):
        x = np.random.default_rng(n).normal(size=(1, 2, n)).astype(np.float32)
        np.testing.assert_allclose(program(x)["y"], session.run(None, {"x": x})[0], atol=1e-6)
