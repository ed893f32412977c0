"""Small ONNX models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NASTY = "a*/\n\x1b[31mred</script><script>alert(1)</script>\"'&\\"


def value(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def save(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], **weights: Any
) -> Path:
    tensors = [numpy_helper.from_array(a, n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, "main", inputs, outputs, tensors)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))
    return path


def conv_nodes(prefix: str = "") -> list[Any]:
    """conv, relu, mean over the picture, flatten, and scores of four classes."""
    make = helper.make_node
    p = prefix
    return [
        make("Conv", ["x", "w"], [p + "c"], name=p + "conv", pads=[1, 1, 1, 1]),
        make("Relu", [p + "c"], [p + "r"], name=p + "relu"),
        make("GlobalAveragePool", [p + "r"], [p + "m"], name=p + "mean"),
        make("Flatten", [p + "m"], [p + "f"], name=p + "flat"),
        make("MatMul", [p + "f", "v"], ["scores"], name=p + "dense"),
    ]


def conv_weights() -> dict[str, Any]:
    rng = np.random.Generator(np.random.PCG64(1))
    return {"w": rng.normal(size=(5, 3, 3, 3)).astype(np.float32),
            "v": rng.normal(size=(5, 4)).astype(np.float32)}  # fmt: skip
