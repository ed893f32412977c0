"""Writes the trained network as ONNX, the test images as NPZ and a few of them as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from demo.layers import (
    F32,
    BatchNorm,
    Chain,
    Conv3x3,
    Dense,
    Depthwise3x3,
    GlobalAverage,
    Layer,
    Relu,
    softmax,
)

NAMES = "zero one two three four five six seven eight nine".split()
SAMPLES = (0, 3, 5, 7, 9)
"""Digits of which one test image becomes a PNG file."""


class Writer:
    """Collects ONNX nodes and initializers; images become NCHW."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, value: F32) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, op: str, name: str, inputs: list[str], **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def chain(self, chain: Chain, x: str, prefix: str) -> str:
        y = x
        for k, layer in enumerate(chain.layers):
            y = self.layer(layer, y, f"{prefix}{k}")
        return self.node("Add", f"{prefix}residual", [y, x]) if chain.residual else y

    def layer(self, layer: Layer, x: str, at: str) -> str:
        name = f"{at}_{type(layer).__name__.lower()}"
        if isinstance(layer, Chain):
            return self.chain(layer, x, f"{at}_")
        if isinstance(layer, Conv3x3):
            kernel = layer.params["w"].transpose(3, 2, 0, 1)
            return self.conv(name, x, kernel, layer.stride, group=1)
        if isinstance(layer, Depthwise3x3):
            kernel = layer.params["w"].transpose(2, 0, 1)[:, None]
            return self.conv(name, x, kernel, layer.stride, group=len(kernel))
        if isinstance(layer, BatchNorm):
            return self.norm(name, x, layer)
        if isinstance(layer, Dense) and "b" not in layer.params:
            return self.conv(name, x, layer.params["w"].T[:, :, None, None], 1, group=1)
        if isinstance(layer, Dense):
            w = self.weight(f"{name}_w", layer.params["w"].T)
            return self.node("Gemm", name, [x, w, self.weight(f"{name}_b", layer.params["b"])],
                             transB=1)
        if isinstance(layer, Relu):
            return self.node("Relu", name, [x])
        if isinstance(layer, GlobalAverage):
            pooled = self.node("GlobalAveragePool", name, [x])
            return self.node("Flatten", f"{at}_flatten", [pooled])
        raise TypeError(f"no ONNX form for {type(layer).__name__}")

    def conv(self, name: str, x: str, kernel: F32, stride: int, group: int) -> str:
        side = kernel.shape[2]
        return self.node("Conv", name, [x, self.weight(f"{name}_w", kernel)],
                         kernel_shape=[side, side], strides=[stride, stride],
                         pads=[side // 2] * 4, group=group)

    def norm(self, name: str, x: str, layer: BatchNorm) -> str:
        values = {"scale": layer.params["scale"], "shift": layer.params["shift"],
                  "mean": layer.mean, "var": layer.var}
        inputs = [self.weight(f"{name}_{part}", v) for part, v in values.items()]
        return self.node("BatchNormalization", name, [x, *inputs], epsilon=layer.EPSILON)


def to_onnx(net: Chain) -> onnx.ModelProto:
    """The network for one image: `image` [1, 1, 8, 8] in 0..1 to `probabilities` [1, 10]."""
    writer = Writer()
    logits = writer.chain(net, "image", "l")
    writer.nodes.append(helper.make_node("Softmax", [logits], ["probabilities"], name="softmax",
                                         axis=1))
    graph = helper.make_graph(
        writer.nodes, "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 10])],
        writer.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
                              producer_name="demo/train.py")
    onnx.checker.check_model(model, full_check=True)
    return model


def write_all(net: Chain, images: F32, labels: NDArray[np.int64], folder: Path) -> None:
    """Writes `digits.onnx`, `test_digits.npz` and the PNG samples; prints what was written."""
    onnx.save(to_onnx(net), folder / "digits.onnx")
    grey = np.rint(images[..., 0] * 16).astype(np.uint8)
    np.savez_compressed(folder / "test_digits.npz", images=grey, labels=labels.astype(np.uint8))
    certainty = softmax(net.forward(images, train=False)).max(1)
    for digit in SAMPLES:
        of_digit = np.flatnonzero(labels == digit)
        typical = of_digit[np.argsort(certainty[of_digit])[len(of_digit) // 2]]
        write_png(grey[typical], folder / f"{NAMES[digit]}.png")
    for path in sorted([*folder.glob("*.png"), folder / "digits.onnx", folder / "test_digits.npz"]):
        print(f"{path.name:16} {path.stat().st_size:7,} bytes")


def write_png(image: NDArray[np.uint8], path: Path) -> None:
    """An 8x8 image with values 0..16 as a grey PNG of 128x128 pixels."""
    from PIL import Image

    scaled = np.rint(image * (255 / 16)).astype(np.uint8)
    Image.fromarray(scaled).resize((128, 128), Image.Resampling.NEAREST).save(path, optimize=True)
