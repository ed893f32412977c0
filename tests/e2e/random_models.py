"""ONNX models at random: convolutions and what stands between them, with channels that do not fill
vectors, values that are used several times, and sizes that may be open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import helper as h
from onnx import numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

ort.set_default_logger_severity(4)  # what it refuses is expected
CHANNELS = (1, 3, 4, 5, 8, 16, 17, 24, 33)
LARGEST = 30_000
Rng = np.random.Generator
Step = Callable[["Net"], None]


REFUSALS = (ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.InvalidGraph,
            ort_errors.NotImplemented, ort_errors.RuntimeException)  # fmt: skip
"""What ONNX Runtime raises for a model or sizes that it does not take."""


class Unfit(Exception):
    """A node that ONNX Runtime does not take."""


def session(model: bytes) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Net:
    """Nodes so far, and for every value what ONNX Runtime makes of it; pool: what may be read."""

    def __init__(self, seed: int, opened: bool) -> None:
        self.rng = r = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        shape = [int(r.integers(1, 4)), int(r.choice(CHANNELS)), *map(int, r.integers(4, 10, 2))]
        if r.random() < 0.2:
            shape.pop()
        self.shape: list[int | str] = list(shape)
        if opened:
            self.shape = [d if k == 1 or r.random() < 0.4 else f"d{k}" for k, d in enumerate(shape)]
        self.values: dict[str, Any] = {"x": r.normal(size=shape).astype(np.float32)}
        self.pool = ["x"]

    def pick(self, fits: Callable[[Any], bool] = lambda a: True) -> tuple[str, Any]:
        """A value that fits, late ones more often."""
        found = [n for n in self.pool if fits(self.values[n])]
        if not found:
            raise Unfit
        name = found[-1 - min(int(self.rng.geometric(0.4)) - 1, len(found) - 1)]
        return name, self.values[name]

    def image(self) -> tuple[str, Any]:
        return self.pick(lambda a: a.ndim in (3, 4))

    def one(self, *of: Any) -> Any:
        return of[int(self.rng.integers(len(of)))]

    def const(self, data: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = self.values[name] = np.asarray(data)
        return name

    def ints(self, *data: int) -> str:
        return self.const(np.array(data, np.int64))

    def weight(self, *shape: int) -> str:
        fan = max(int(np.prod(shape[1:])), 1)
        return self.const((self.rng.normal(size=shape) / np.sqrt(fan)).astype(np.float32))

    def node(self, op: str, inputs: Sequence[str], outputs: int = 1, **attrs: Any) -> str:
        names = [f"v{len(self.values)}_{k}" for k in range(outputs)]
        node = h.make_node(op, inputs, names, name=names[0], **attrs)
        used = {n: self.values[n] for n in inputs if n}
        live = {n: a for n, a in used.items() if n not in self.constants}
        try:
            results = session(self.model([node], live, names)).run(None, live)
        except REFUSALS as e:
            raise Unfit from e
        if any(not 0 < a.size < LARGEST or not np.isfinite(a).all() for a in results):
            raise Unfit
        self.nodes.append(node)
        self.values.update(zip(names, results, strict=True))
        self.pool += names
        return names[0]

    def model(
        self, nodes: Sequence[Any], inputs: dict[str, Any], outputs: Sequence[str],
        shapes: dict[str, Any] | None = None,
    ) -> bytes:  # fmt: skip
        needed = {n for node in nodes for n in node.input}
        graph = h.make_graph(
            nodes, "random",
            [h.make_tensor_value_info(n, h.np_dtype_to_tensor_dtype(a.dtype),
                                      (shapes or {}).get(n, a.shape)) for n, a in inputs.items()],
            [h.make_empty_tensor_value_info(n) for n in outputs],
            [numpy_helper.from_array(a, n) for n, a in self.constants.items() if n in needed],
        )  # fmt: skip
        opset = [h.make_opsetid("", 21)]
        return bytes(h.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString())

    def whole(self, outputs: Sequence[str]) -> bytes:
        """The model of these outputs, without what they do not need."""
        needed, nodes = set(outputs), []
        for n in reversed(self.nodes):
            if needed & set(n.output):
                nodes.insert(0, n)
                needed |= set(n.input)
        return self.model(nodes, {"x": self.values["x"]}, outputs, {"x": self.shape})


def conv(g: Net) -> None:
    x, a = g.image()
    c, spatial = a.shape[1], a.ndim - 2
    group = g.one(1, 1, c, *(d for d in range(2, c) if c % d == 0))
    many = group * g.one(1, 1, 2) if group == c else group * -(-g.one(*CHANNELS) // group)
    kernel = [g.one(1, 2, 3, 3)] * spatial
    attrs: dict[str, Any] = {"group": group}
    if g.rng.random() < 0.4:
        attrs["strides"] = [g.one(1, 2, 3) for _ in kernel]
    how = g.one("pads", "same", "uneven", "none")
    if how == "same":
        attrs["auto_pad"] = g.one("SAME_UPPER", "SAME_LOWER")
    elif how != "none":
        attrs["dilations"] = [g.one(1, 1, 2)] * spatial
        attrs["pads"] = [k // 2 if how == "pads" else g.one(0, 1, 2) for k in kernel * 2]
    bias = [g.weight(many)] if g.rng.random() < 0.6 else []
    y = g.node("Conv", [x, g.weight(many, c // group, *kernel), *bias], **attrs)
    if g.rng.random() < 0.5:
        g.node(g.one("Relu", "Sigmoid", "HardSwish"), [y])


def conv_transpose(g: Net) -> None:
    x, a = g.image()
    spatial = a.ndim - 2
    strides = [g.one(1, 2, 2, 3) for _ in range(spatial)]
    kernel = [g.one(s, s + 1) for s in strides]
    pads = [g.one(0, 1) if k > 1 else 0 for k in kernel * 2]
    g.node("ConvTranspose", [x, g.weight(a.shape[1], g.one(2, 5, 16, 17), *kernel)],
           strides=strides, pads=pads)  # fmt: skip


def pool(g: Net) -> None:
    x, a = g.image()
    kernel = [g.one(1, 2, 3) for _ in a.shape[2:]]
    if any(k > d for k, d in zip(kernel, a.shape[2:], strict=True)):
        raise Unfit
    attrs = {"count_include_pad": g.one(0, 1)} if (mean := g.rng.random() < 0.5) else {}
    g.node("AveragePool" if mean else "MaxPool", [x], kernel_shape=kernel,
           strides=[g.one(1, 2) for _ in kernel], ceil_mode=g.one(0, 1),
           pads=[g.one(0, k - 1) if k > 1 else 0 for k in kernel * 2], **attrs)  # fmt: skip


def binary(g: Net) -> None:
    x, a = g.pick()

    def fits(b: Any) -> bool:
        return all(1 in p or len(p) == 1
                   for p in map(set, zip(a.shape[::-1], b.shape[::-1], strict=False)))  # fmt: skip

    if g.rng.random() < 0.7:
        y = g.pick(fits)[0]
    else:
        y = g.weight(*(g.one(1, d) for d in a.shape[1:]))
    g.node(g.one("Add", "Add", "Mul", "Sub", "Max"), g.one([x, y], [y, x]))


def activation(g: Net) -> None:
    x, a = g.pick()
    op = g.one("Relu", "Tanh", "HardSigmoid", "Elu", "Softplus", "Gelu", "PRelu", "Softmax")
    slope = [g.weight(a.shape[1], *[1] * (a.ndim - 2))] if op == "PRelu" and a.ndim > 2 else []
    if op == "PRelu" and not slope:
        raise Unfit
    g.node(op, [x, *slope], **({"axis": g.one(1, -1)} if op == "Softmax" else {}))


def gate(g: Net) -> None:
    x, a = g.image()
    mean = g.node("GlobalAveragePool", [x])
    small = g.node("Conv", [mean, g.weight(3, a.shape[1], *[1] * (a.ndim - 2))])
    wide = g.node("Conv", [small, g.weight(a.shape[1], 3, *[1] * (a.ndim - 2))])
    g.node("Mul", [x, g.node("Sigmoid", [wide])])


def join(g: Net) -> None:
    x, a = g.image()

    def fits(b: Any) -> bool:
        return b.ndim == a.ndim and b.shape[0] == a.shape[0] and b.shape[2:] == a.shape[2:]

    g.node("Concat", [x, *(g.pick(fits)[0] for _ in range(g.one(1, 2, 3)))], axis=1)


def split(g: Net) -> None:
    x, a = g.image()
    cut = int(g.rng.integers(0, a.shape[1] + 1))
    g.node("Split", [x, g.ints(cut, a.shape[1] - cut)], 2, axis=1)


def part(g: Net) -> None:
    x, a = g.pick(lambda a: a.ndim > 1)
    axis = g.one(*range(a.ndim))
    first, step = g.one((0, 1), (1, 1), (1, 2), (-1, -1))
    end = -(2**40) if step < 0 else g.one(2**40, -1)
    g.node("Slice", [x, g.ints(first), g.ints(end), g.ints(axis), g.ints(step)])


def turn(g: Net) -> None:
    x, a = g.pick(lambda a: a.ndim > 1)
    perm = list(map(int, g.rng.permutation(a.ndim)))
    g.node("Transpose", [x], perm=g.one(perm, [0, *range(2, a.ndim), 1]))


def shuffle(g: Net) -> None:
    x, a = g.image()
    groups = [d for d in range(2, a.shape[1] + 1) if a.shape[1] % d == 0]
    if not groups:
        raise Unfit
    wide = g.node("Reshape", [x, g.ints(0, g.one(*groups), -1, *[0] * (a.ndim - 3), a.shape[-1])])
    g.node("Transpose", [wide], perm=[0, 2, 1, *range(3, a.ndim)])


def resize(g: Net) -> None:
    x, a = g.image()
    scales = np.array([1, 1, *(g.one(1, 2, 0.5, 1.5) for _ in a.shape[2:])], np.float32)
    g.node("Resize", [x, "", g.const(scales)], mode=g.one("nearest", "linear"),
           coordinate_transformation_mode=g.one("half_pixel", "asymmetric", "pytorch_half_pixel"))


def norm(g: Net) -> None:
    x, a = g.image()
    if min(a.shape[2:]) < 3:
        raise Unfit  # the variance of next to nothing is noise
    c = a.shape[1]
    op = g.one("InstanceNormalization", "BatchNormalization")
    spread = [g.weight(c), g.const(g.rng.uniform(0.5, 2, c).astype(np.float32))]
    g.node(op, [x, g.weight(c), g.weight(c), *(spread if op[0] == "B" else [])])


def pad(g: Net) -> None:
    x, a = g.pick(lambda a: a.ndim > 1)
    pads = [g.one(0, 0, 1, 2) for _ in range(2 * a.ndim)]
    g.node("Pad", [x, g.ints(*pads), g.const(np.float32(g.one(0, 1.5)))])


def product(g: Net) -> None:
    x, a = g.pick(lambda a: a.ndim > 1)
    g.node("MatMul", [x, g.weight(a.shape[-1], g.one(*CHANNELS))])


def reduce(g: Net) -> None:
    x, a = g.pick(lambda a: a.ndim > 1)
    g.node(g.one("ReduceMean", "ReduceMax", "ReduceL1"), [x, g.ints(g.one(*range(a.ndim)))],
           keepdims=g.one(0, 1))  # fmt: skip


STEPS: tuple[Step, ...] = (
    conv, conv, conv, conv, conv_transpose, pool, pool, binary, binary, binary, activation, gate,
    join, join, split, part, turn, shuffle, resize, norm, pad, product, reduce,
)  # fmt: skip


def random_model(seed: int, opened: bool = False) -> tuple[bytes, Net]:
    """A model of some ten layers with up to four outputs; opened: some sizes have names."""
    g = Net(seed, opened)
    for _ in range(40):
        known = len(g.nodes), len(g.pool)
        try:
            g.one(*STEPS)(g)
        except Unfit:
            del g.nodes[known[0] :], g.pool[known[1] :]
        if len(g.nodes) > 9:
            break
    made = g.pool[1:]
    chosen = {made[int(k)] for k in g.rng.permutation(len(made))[:3]} | {made[-1]}
    return g.whole(sorted(chosen)), g
