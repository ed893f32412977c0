"""Matrix products between convolutions, whose values lie in channel blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

import onefold

ort = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(5)
WEIGHTS = {
    "full": (17, 17, 3, 3), "depthwise": (17, 1, 3, 3), "wide": (34, 1, 3, 3), "square": (9, 9),
}  # fmt: skip
INPUTS = {"x": (2, 17, 5, 9), "e": (2, 3, 5, 9)}


def conv(x: str, y: str, w: str) -> Any:
    group = 1 if w == "full" else WEIGHTS[w][0]
    return h.make_node("Conv", [x, w], [y], pads=[1, 1, 1, 1], group=group)


PRODUCT = h.make_node("MatMul", ["a", "square"], ["b"])
NETS = {
    "between": [conv("x", "a", "full"), PRODUCT, conv("b", "y", "depthwise")],
    "first": [h.make_node("Relu", ["x"], ["a"]), PRODUCT, conv("b", "y", "depthwise")],
    "added": [conv("x", "a", "full"), PRODUCT, h.make_node("Add", ["b", "a"], ["c"]),
              conv("c", "y", "depthwise")],
    "joined": [conv("x", "a", "full"), PRODUCT, h.make_node("Concat", ["a", "b"], ["c"], axis=1),
               conv("c", "y", "wide")],
    "behind": [conv("x", "a", "full"), PRODUCT,
               h.make_node("Concat", ["e", "b", "a"], ["c"], axis=1),
               h.make_node("Softmax", ["c"], ["y"])],
    "last": [conv("x", "a", "full"), h.make_node("Concat", ["e", "a"], ["c"], axis=1),
             h.make_node("ReduceL1", ["c"], ["y"], axes=[0, 1, 3])],
    "first and last": [conv("x", "a", "full"), conv("x", "b", "full"),
                       h.make_node("Concat", ["b", "e", "a"], ["c"], axis=1),
                       h.make_node("MaxPool", ["c"], ["y"], kernel_shape=[3, 3])],
    "computed": [conv("x", "a", "full"), h.make_node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]),
                 h.make_node("MatMul", ["a", "t"], ["b"]), conv("b", "y", "depthwise")],
    "pooled": [conv("x", "a", "full"), PRODUCT,
               h.make_node("MaxPool", ["b"], ["c"], kernel_shape=[3, 3]),
               conv("c", "y", "depthwise")],
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_products_beside_blocks(name: str) -> None:
    used = {x for n in NETS[name] for x in n.input}
    graph = h.make_graph(
        NETS[name], name,
        [h.make_tensor_value_info(n, T.FLOAT, s) for n, s in INPUTS.items() if n in used],
        [h.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(RNG.normal(size=s).astype(np.float32) / 3, n)
         for n, s in WEIGHTS.items() if n in used],
    )  # fmt: skip
    opset = [h.make_opsetid("", 17)]
    model = h.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    feeds = {n: RNG.normal(size=s).astype(np.float32) for n, s in INPUTS.items() if n in used}
    want = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    got = onefold.load(model).compile(fallback=False)(feeds)["y"]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
