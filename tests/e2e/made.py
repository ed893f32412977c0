"""Small ONNX models made for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

ROOT = Path(__file__).parent.parent.parent
DIGITS = ROOT / "demo" / "digits.onnx"


def save(folder: Path, name: str, nodes: Sequence[Any], inputs: Any, outputs: Any,
         initializers: Any = (), domains: Sequence[str] = ()) -> Path:  # fmt: skip
    """Writes a model; inputs and outputs are (name, type, shape)."""
    graph = h.make_graph(
        list(nodes), name, [h.make_tensor_value_info(*i) for i in inputs],
        [h.make_tensor_value_info(*o) for o in outputs],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in initializers],
    )  # fmt: skip
    opsets = [h.make_opsetid("", 17), *(h.make_opsetid(d, 1) for d in domains)]
    model = h.make_model(graph, opset_imports=opsets, ir_version=8)
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    return path


def branch(folder: Path) -> Path:
    """y = flag ? x * 2 : x - 1, then y + x."""
    def one(op: str, value: float) -> Any:
        return h.make_graph(
            [h.make_node("Constant", [], [op + "c"], value_float=value),
             h.make_node(op, ["x", op + "c"], [op + "y"])],
            op, [], [h.make_tensor_value_info(op + "y", T.FLOAT, [2, 3])],
        )  # fmt: skip

    nodes = [
        h.make_node("If", ["flag"], ["b"], name="choice", then_branch=one("Mul", 2.0),
                    else_branch=one("Sub", 1.0)),
        h.make_node("Add", ["b", "x"], ["y"]),
    ]  # fmt: skip
    return save(folder, "branch", nodes, [("x", T.FLOAT, [2, 3]), ("flag", T.BOOL, [])],
                [("y", T.FLOAT, [2, 3])])  # fmt: skip


def powers(folder: Path) -> Path:
    """Doubles x while its sum is below 100, at most 20 times; gives the last x and every sum."""
    body = h.make_graph(
        [h.make_node("Add", ["v", "v"], ["w"]),
         h.make_node("ReduceSum", ["w"], ["s"], keepdims=0),
         h.make_node("Constant", [], ["hundred"], value_float=100.0),
         h.make_node("Less", ["s", "hundred"], ["more"])],
        "body",
        [h.make_tensor_value_info("i", T.INT64, []), h.make_tensor_value_info("c", T.BOOL, []),
         h.make_tensor_value_info("v", T.FLOAT, [4])],
        [h.make_tensor_value_info("more", T.BOOL, []),
         h.make_tensor_value_info("w", T.FLOAT, [4]), h.make_tensor_value_info("s", T.FLOAT, [])],
    )  # fmt: skip
    nodes = [h.make_node("Loop", ["most", "", "x"], ["last", "sums"], name="double", body=body)]
    return save(folder, "powers", nodes, [("x", T.FLOAT, [4])],
                [("last", T.FLOAT, [4]), ("sums", T.FLOAT, ["turns"])],
                [("most", np.array(20, np.int64))])  # fmt: skip


def decoder(
    folder: Path, layers: int = 2, width: int = 32, heads: int = 4, words: int = 64
) -> Path:
    """A small decoder-only transformer whose key and value caches are inputs and outputs."""
    rng = np.random.default_rng(7)
    nodes: list[Any] = []
    weights: list[tuple[str, Any]] = []
    each = width // heads

    def weight(name: str, *shape: int) -> str:
        weights.append((name, (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)))
        return name

    def node(op: str, ins: Sequence[str], out: str, **attrs: Any) -> str:
        nodes.append(h.make_node(op, list(ins), [out], **attrs))
        return out

    weights.append(("split", np.array([0, -1, heads, each])))
    weights.append(("merge", np.array([0, -1, width])))
    weights.append(("scale", np.float32(each**-0.5)))
    inputs: list[Any] = [("ids", T.INT64, [1, "seq"])]
    outputs: list[Any] = [("logits", T.FLOAT, [1, "seq", words])]
    x = node("Gather", [weight("words", words, width), "ids"], "embedded")
    for k in range(layers):
        for c in "kv":
            inputs.append((f"past_{c}{k}", T.FLOAT, [1, heads, "past", each]))
            outputs.append((f"next_{c}{k}", T.FLOAT, [1, heads, "total", each]))
        n = node("LayerNormalization", [x, weight(f"g{k}", width), weight(f"b{k}", width)], f"n{k}")
        part = {}
        for c in "qkv":
            y = node("MatMul", [n, weight(f"w{c}{k}", width, width)], f"{c}{k}")
            y = node("Reshape", [y, "split"], f"{c}{k}_heads")
            part[c] = node("Transpose", [y], f"{c}{k}_first", perm=[0, 2, 1, 3])
        keys = node("Concat", [f"past_k{k}", part["k"]], f"next_k{k}", axis=2)
        values = node("Concat", [f"past_v{k}", part["v"]], f"next_v{k}", axis=2)
        turned = node("Transpose", [keys], f"turned{k}", perm=[0, 1, 3, 2])
        scores = node("Mul", [node("MatMul", [part["q"], turned], f"dots{k}"), "scale"], f"s{k}")
        mixed = node("MatMul", [node("Softmax", [scores], f"p{k}", axis=-1), values], f"mixed{k}")
        flat = node("Reshape", [node("Transpose", [mixed], f"back{k}", perm=[0, 2, 1, 3]), "merge"],
                    f"flat{k}")  # fmt: skip
        out = node("MatMul", [flat, weight(f"wo{k}", width, width)], f"out{k}")
        x = node("Add", [x, out], f"x{k}")
    node("MatMul", [x, weight("head", width, words)], "logits")
    return save(folder, "decoder", nodes, inputs, outputs, weights)
