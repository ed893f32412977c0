"""Builds a network as ONNX, node by node, and computes it while it is built.

Since every value is there with its numbers, shapes need no bookkeeping, and weights can be scaled
to what really comes: a convolution's outputs have the mean and variance that batch normalisation
gives them in a trained network, so that activations stay in range however deep the network is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

OPSET = 17
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Value:
    name: str
    data: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    @property
    def channels(self) -> int:
        return int(self.data.shape[1])


class Net:
    """A network under construction."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Array] = {}
        self.inputs: dict[str, Value] = {}
        self.outputs: list[Value] = []

    # --- values -----------------------------------------------------------------------------------

    def image(self, *shape: int) -> Value:
        """An input of normalised pixels."""
        return self.input("image", self.rng.standard_normal(shape, np.float32))

    def input(self, name: str, data: Array) -> Value:
        self.inputs[name] = Value(name, data)
        return self.inputs[name]

    def output(self, x: Value, name: str) -> None:
        """The value is a result of the network, under this name."""
        (node,) = self.nodes_of(x)
        node.output[list(node.output).index(x.name)] = name
        for other in self.nodes:
            for k, n in enumerate(other.input):
                if n == x.name:
                    other.input[k] = name
        self.outputs.append(Value(name, x.data))

    def nodes_of(self, x: Value) -> list[onnx.NodeProto]:
        return [n for n in self.nodes if x.name in n.output]

    def const(self, data: Any) -> Value:
        data = np.asarray(data)
        name = f"w{len(self.weights)}"
        self.weights[name] = data
        return Value(name, data)

    def random(self, *shape: int, scale: float = 1.0) -> Array:
        return self.rng.standard_normal(shape, np.float32) * np.float32(scale)

    # --- nodes ------------------------------------------------------------------------------------

    def op(self, kind: str, *inputs: Value | None, **attrs: Any) -> Value:
        return self.ops(kind, 1, *inputs, **attrs)[0]

    def ops(self, kind: str, count: int, *inputs: Value | None, **attrs: Any) -> list[Value]:
        """A node with `count` outputs."""
        outs = [f"{kind.lower()}{len(self.nodes)}" + (f"_{k}" if k else "") for k in range(count)]
        names = ["" if x is None else x.name for x in inputs]
        node = helper.make_node(kind, names, outs, name=outs[0], **attrs)
        known = {x.name: x.data for x in inputs if x is not None}
        found = _computed(node, known)
        self.nodes.append(node)
        return [Value(n, a) for n, a in zip(outs, found, strict=True)]

    def conv(
        self, x: Value, channels: int, k: int | tuple[int, int] = 3, stride: int = 1, *,
        group: int = 1, pad: Sequence[int] | None = None, gain: float = 1.0, norm: bool = True,
    ) -> Value:  # fmt: skip
        """A convolution with the batch normalisation behind it folded in; norm: whether there is
        one. pad: at top, left, bottom, right; as much as keeps the size if not given."""
        kh, kw = k if isinstance(k, tuple) else (k, k)
        pads = list(pad) if pad is not None else [kh // 2, kw // 2] * 2
        w = self.random(channels, x.channels // group, kh, kw)
        w *= np.float32(1 / np.sqrt(w[0].size))
        attrs = {
            "kernel_shape": [kh, kw], "strides": [stride, stride], "pads": pads, "group": group,
        }  # fmt: skip
        raw = helper.make_node("Conv", [x.name, "w"], ["y"], **attrs)
        (y,) = _computed(raw, {x.name: x.data, "w": w})
        axes = (0, 2, 3) if norm else None
        mean, std = y.mean(axes), y.std(axes) + np.float32(1e-3)
        scale = (self.rng.uniform(0.7, 1.3, channels) * gain / std).astype(np.float32)
        shift = (self.random(channels, scale=0.2 * gain) - mean * scale).astype(np.float32)
        kept = [x, self.const(w * scale[:, None, None, None]), self.const(shift)]
        out = f"conv{len(self.nodes)}"
        self.nodes.append(helper.make_node("Conv", [v.name for v in kept], [out], out, **attrs))
        return Value(out, y * scale[:, None, None] + shift[:, None, None])

    def depthwise(self, x: Value, k: int = 3, stride: int = 1, **more: Any) -> Value:
        return self.conv(x, x.channels, k, stride, group=x.channels, **more)

    def batch_norm(self, x: Value) -> Value:
        """Where no convolution stands before it."""
        axes = (0, *range(2, x.data.ndim))
        scale = self.rng.uniform(0.7, 1.3, x.channels).astype(np.float32)
        stats = (scale, self.random(x.channels, scale=0.2), x.data.mean(axes), x.data.var(axes))
        return self.op("BatchNormalization", x, *map(self.const, stats))

    def gemm(self, x: Value, size: int) -> Value:
        """A fully connected layer on [1, n]."""
        w, b = self._linear(x, size)
        return self.op("Gemm", x, self.const(w.T.copy()), self.const(b), transB=1)

    def linear(self, x: Value, size: int, bias: bool = True, gain: float = 1.0) -> Value:
        """A fully connected layer on the last axis."""
        w, b = self._linear(x, size, gain)
        y = self.op("MatMul", x, self.const(w))
        return self.op("Add", y, self.const(b)) if bias else y

    def _linear(self, x: Value, size: int, gain: float = 1.0) -> tuple[Array, Array]:
        w = self.random(x.shape[-1], size)
        w *= np.float32(gain / ((x.data @ w).std() + 1e-3))
        return w, self.random(size, scale=0.1 * gain)

    # --- what several networks have ---------------------------------------------------------------

    def add(self, x: Value, y: Value) -> Value:
        return self.op("Add", x, y)

    def mul(self, x: Value, y: Value | float) -> Value:
        return self.op("Mul", x, y if isinstance(y, Value) else self.const(np.float32(y)))

    def concat(self, values: Sequence[Value], axis: int = 1) -> Value:
        return self.op("Concat", *values, axis=axis)

    def reshape(self, x: Value, *shape: int) -> Value:
        return self.op("Reshape", x, self.const(np.array(shape, np.int64)))

    def transpose(self, x: Value, *perm: int) -> Value:
        return self.op("Transpose", x, perm=perm)

    def split(self, x: Value, parts: int, axis: int = 1) -> list[Value]:
        size = x.shape[axis] // parts
        sizes = self.const(np.array([size] * parts, np.int64))
        return self.ops("Split", parts, x, sizes, axis=axis)

    def max_pool(self, x: Value, k: int, stride: int, pad: int) -> Value:
        return self.op("MaxPool", x, kernel_shape=[k, k], strides=[stride, stride], pads=[pad] * 4)

    def pooled(self, x: Value) -> Value:
        """Means over the picture, [1, channels]."""
        return self.op("Flatten", self.op("GlobalAveragePool", x))

    def relu(self, x: Value) -> Value:
        return self.op("Relu", x)

    def relu6(self, x: Value) -> Value:
        return self.op("Clip", x, self.const(np.float32(0)), self.const(np.float32(6)))

    def silu(self, x: Value) -> Value:
        return self.mul(x, self.op("Sigmoid", x))

    def hard_swish(self, x: Value) -> Value:
        return self.op("HardSwish", x)

    def gelu(self, x: Value) -> Value:
        inner = self.op("Erf", self.op("Div", x, self.const(np.float32(2**0.5))))
        return self.mul(self.mul(x, self.add(inner, self.const(np.float32(1)))), 0.5)

    def layer_norm(self, x: Value) -> Value:
        n = x.shape[-1]
        scale = self.rng.uniform(0.7, 1.3, n).astype(np.float32)
        shift = self.random(n, scale=0.1)
        return self.op("LayerNormalization", x, self.const(scale), self.const(shift), axis=-1,
                       epsilon=1e-5)  # fmt: skip

    def classes(self, x: Value, count: int = 1000) -> Net:
        """The scores of [1, n] features; the network is complete."""
        self.output(self.gemm(x, count), "scores")
        return self

    # --- the result -------------------------------------------------------------------------------

    def model(self) -> onnx.ModelProto:
        ins = [_info(x.name, x.data) for x in self.inputs.values()]
        outs = [_info(x.name, x.data) for x in self.outputs]
        model = _wrapped(self.name, self.nodes, ins, outs, self.weights)
        onnx.checker.check_model(model, full_check=True)
        return model

    def save(self, folder: Path) -> Path:
        """NAME.onnx, NAME.npz with its inputs, and NAME.expected.npz with its outputs for them."""
        path = folder / f"{self.name}.onnx"
        inputs: dict[str, Any] = {n: x.data for n, x in self.inputs.items()}
        outputs: dict[str, Any] = {x.name: x.data for x in self.outputs}
        np.savez(path.with_suffix(".npz"), **inputs)
        np.savez(path.with_suffix(".expected.npz"), **outputs)
        onnx.save(self.model(), path)
        return path


def _info(name: str, data: Array) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(data.dtype)
    return helper.make_tensor_value_info(name, kind, data.shape)


def _wrapped(
    name: str, nodes: Sequence[onnx.NodeProto], ins: Sequence[onnx.ValueInfoProto],
    outs: Sequence[onnx.ValueInfoProto], weights: Mapping[str, Array],
) -> onnx.ModelProto:  # fmt: skip
    arrays = [numpy_helper.from_array(a, n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, name, ins, outs, arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def _computed(node: onnx.NodeProto, known: dict[str, Array]) -> list[Array]:
    """The outputs of one node."""
    # Small tensors are constants, since shapes of results may depend on them.
    small = {n: a for n, a in known.items() if a.size <= 64 and a.dtype == np.int64}
    feeds = {n: a for n, a in known.items() if n not in small}
    if not feeds:
        small, feeds = feeds, small
    outs = [onnx.ValueInfoProto(name=n) for n in node.output]
    model = _wrapped("one", [node], [_info(n, a) for n, a in feeds.items()], outs, small)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, feeds))
