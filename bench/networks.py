"""Standard architectures with seeded weights, written as ONNX files, for timing.

    python bench/networks.py DIR [mobilenet_v2 resnet50]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Net:
    """Builds a network layer by layer; values are known by name."""

    def __init__(self, name: str, size: int = 224) -> None:
        self.name = name
        self.rng = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.input = [1, 3, size, size]

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        fan = int(np.prod(shape[1:])) or 1
        data = self.rng.standard_normal(shape, np.float32) * np.float32((2 / fan) ** 0.5)
        self.weights.append(numpy_helper.from_array(data.astype(np.float32), name))
        return name

    def op(self, kind: str, *inputs: str, **attrs: Any) -> str:
        out = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attrs))
        return out

    def conv(self, x: str, ic: int, oc: int, k: int, s: int = 1, group: int = 1) -> str:
        """Convolution and batch normalisation."""
        y = self.op("Conv", x, self.weight(oc, ic // group, k, k), kernel_shape=[k, k],
                    strides=[s, s], pads=[k // 2] * 4, group=group)  # fmt: skip
        scale = self.rng.uniform(0.5, 1.5, oc).astype(np.float32)
        names = []
        for data in (scale, scale - 1, scale - 1, scale):
            names.append(f"w{len(self.weights)}")
            self.weights.append(numpy_helper.from_array(data, names[-1]))
        return self.op("BatchNormalization", y, *names)

    def clip6(self, x: str) -> str:
        if not any(w.name == "zero" for w in self.weights):
            self.weights.append(numpy_helper.from_array(np.float32(0), "zero"))
            self.weights.append(numpy_helper.from_array(np.float32(6), "six"))
        return self.op("Clip", x, "zero", "six")

    def head(self, x: str, channels: int) -> None:
        y = self.op("Flatten", self.op("GlobalAveragePool", x))
        self.op("Gemm", y, self.weight(1000, channels), self.weight(1000), transB=1)

    def save(self, folder: Path) -> Path:
        last = self.nodes[-1].output[0]
        graph = helper.make_graph(
            self.nodes, self.name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, self.input)],
            [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, 1000])], self.weights,
        )  # fmt: skip
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        )
        path = folder / f"{self.name}.onnx"
        onnx.save(model, path)
        return path


def mobilenet_v2() -> Net:
    """Sandler et al., 2018; 300 M multiply-adds."""
    net = Net("mobilenet_v2")
    x, channels = net.clip6(net.conv("image", 3, 32, 3, 2)), 32
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
            (6, 160, 3, 2), (6, 320, 1, 1)]  # fmt: skip
    for expand, out, repeat, stride in plan:
        for k in range(repeat):
            s = stride if k == 0 else 1
            hidden = channels * expand
            y = net.clip6(net.conv(x, channels, hidden, 1)) if expand > 1 else x
            y = net.clip6(net.conv(y, hidden, hidden, 3, s, group=hidden))
            y = net.conv(y, hidden, out, 1)
            x = net.op("Add", x, y) if s == 1 and channels == out else y
            channels = out
    net.head(net.clip6(net.conv(x, channels, 1280, 1)), 1280)
    return net


def resnet50() -> Net:
    """He et al., 2015, with the stride in the 3x3 layer; 4.1 G multiply-adds."""
    net = Net("resnet50")
    x = net.op("Relu", net.conv("image", 3, 64, 7, 2))
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for width, repeat, stride in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]:
        for k in range(repeat):
            s = stride if k == 0 else 1
            y = net.op("Relu", net.conv(x, channels, width, 1))
            y = net.op("Relu", net.conv(y, width, width, 3, s))
            y = net.conv(y, width, width * 4, 1)
            side = x if k else net.conv(x, channels, width * 4, 1, s)
            x = net.op("Relu", net.op("Add", y, side))
            channels = width * 4
    net.head(x, channels)
    return net


NETWORKS = {"mobilenet_v2": mobilenet_v2, "resnet50": resnet50}


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or NETWORKS:
        print(NETWORKS[name]().save(folder))


if __name__ == "__main__":
    main()
