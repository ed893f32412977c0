"""Quantized contractions against ONNX Runtime: at most one step apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onefold.dev.cases import run_graph
from onefold.frontend.binding import Binding
from onefold.frontend.onnx.importer import import_onnx
from onefold.frontend.onnx.reader import read
from onefold.ir.graph import Graph
from onefold.passes import pipeline

ort = pytest.importorskip("onnxruntime")
RNG = np.random.Generator(np.random.PCG64(5))


def graph_of(model: onnx.ModelProto) -> Graph:
    return import_onnx(read(model.SerializeToString()), Binding())


def model_of(nodes: Any, inputs: Any, out: Any, constants: Any, domain: str = "") -> Any:
    sets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    weights = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    g = helper.make_graph(nodes, "g", inputs, [out], weights)
    return helper.make_model(g, opset_imports=sets, ir_version=8)


def session(model: Any, fuse: bool = False) -> Any:
    options = ort.SessionOptions()
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if fuse else level.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def assert_one_step(got: Any, want: Any) -> None:
    assert got.dtype == want.dtype and got.shape == want.shape
    assert np.abs(got.astype(int) - want.astype(int)).max(initial=0) <= 1
    assert np.ptp(want) > 10, "the test's own scales saturate everything"


def vi(name: str, kind: int, shape: Any) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def qdq_model(op: str, per_channel: bool, act: str, bias: bool, dynamic: bool) -> Any:
    """float x -> Q -> DQ -> op -> act -> Q -> DQ."""
    conv = op == "Conv"
    shape = (2, 4, 9, 8) if conv else (6, 16)
    w_shape = (6, 4, 3, 3) if conv else (5, 16) if op == "Gemm" else (16, 5)
    channels, axis = (w_shape[0], 0) if conv or op == "Gemm" else (5, 1)
    w = RNG.integers(-127, 128, w_shape).astype(np.int8)
    w_scale = RNG.uniform(0.004, 0.02, channels if per_channel else ()).astype(np.float32)
    c = {"xs": np.float32(0.03), "xz": np.uint8(121), "ws": np.array(w_scale),
         "wz": np.zeros(w_scale.shape, np.int8), "ys": np.float32(0.11), "yz": np.uint8(99),
         "w": w}  # fmt: skip
    inputs = [vi("x", TensorProto.FLOAT, shape)]
    if dynamic:
        del c["w"]
        inputs.append(vi("w", TensorProto.INT8, w_shape))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=axis),
    ]
    ins = ["xd", "wd"]
    if bias:
        c["b"] = RNG.integers(-3000, 3000, channels).astype(np.int32)
        c["bs"] = np.array(c["xs"] * w_scale)
        c["bz"] = np.zeros(w_scale.shape, np.int32)
        nodes.append(helper.make_node("DequantizeLinear", ["b", "bs", "bz"], ["bd"], axis=0))
        ins.append("bd")
    attrs: dict[str, Any] = {"pads": [1, 0, 1, 2]} if conv else {}
    if op == "Gemm":
        attrs["transB"] = 1
    nodes.append(helper.make_node(op, ins, ["y"], **attrs))
    end = "y"
    if act == "Relu":
        nodes.append(helper.make_node("Relu", ["y"], ["a"]))
        end = "a"
    if act == "Clip":
        c["lo"], c["hi"] = np.float32(-2.5), np.float32(6)
        nodes.append(helper.make_node("Clip", ["y", "lo", "hi"], ["a"]))
        end = "a"
    nodes.append(helper.make_node("QuantizeLinear", [end, "ys", "yz"], ["yq"]))
    return model_of(nodes, inputs, vi("yq", TensorProto.UINT8, None), c), shape, w


@pytest.mark.parametrize("op", ["Conv", "MatMul", "Gemm"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("act", ["", "Relu", "Clip"])
def test_qdq_pattern(op: str, per_channel: bool, act: str) -> None:
    bias = op != "MatMul" and act != "Relu"
    model, shape, _ = qdq_model(op, per_channel, act, bias, dynamic=False)
    g = graph_of(model)
    pipeline.run(g)
    names = [n.op.name for n in g.nodes]
    assert ("QConv" if op == "Conv" else "QMatMul") in names
    assert op not in names and "DequantizeLinear" not in names
    x = RNG.uniform(-3, 3, shape).astype(np.float32)
    (got,) = run_graph(g, [x])
    (want,) = session(model).run(None, {"x": x})
    assert_one_step(got, want)


def test_weights_that_are_not_constant() -> None:
    model, shape, w = qdq_model("Conv", True, "Relu", False, dynamic=True)
    g = graph_of(model)
    pipeline.run(g)
    assert "QConv" in [n.op.name for n in g.nodes]
    x = RNG.uniform(-3, 3, shape).astype(np.float32)
    (got,) = run_graph(g, [x, w])
    (want,) = session(model).run(None, {"x": x, "w": w})
    assert_one_step(got, want)


def test_bias_of_another_scale_is_left_alone() -> None:
    model, shape, _ = qdq_model("Conv", False, "", True, dynamic=False)
    for t in model.graph.initializer:
        if t.name == "bs":
            t.CopyFrom(numpy_helper.from_array(np.float32(0.5), "bs"))
    g = graph_of(model)
    pipeline.run(g)
    assert "QConv" not in [n.op.name for n in g.nodes]
    x = RNG.uniform(-3, 3, shape).astype(np.float32)
    (want,) = session(model).run(None, {"x": x})
    (got,) = run_graph(g, [x])
    assert np.abs(got.astype(int) - want.astype(int)).max() <= 1


@pytest.mark.parametrize("per_channel", [False, True])
def test_qlinear_conv(per_channel: bool) -> None:
    w = RNG.integers(-127, 128, (6, 2, 3, 3)).astype(np.int8)
    ws = np.array(RNG.uniform(0.004, 0.02, 6 if per_channel else ()).astype(np.float32))
    c = {"xs": np.float32(0.03), "xz": np.uint8(121), "w": w, "ws": ws,
         "wz": np.zeros(ws.shape, np.int8), "ys": np.float32(0.08), "yz": np.uint8(99),
         "b": RNG.integers(-3000, 3000, 6).astype(np.int32)}  # fmt: skip
    node = helper.make_node("QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"],
                            ["y"], group=2, strides=[2, 1], auto_pad="SAME_LOWER")  # fmt: skip
    shape = (2, 4, 9, 8)
    kind = TensorProto.UINT8
    model = model_of([node], [vi("x", kind, shape)], vi("y", kind, None), c)
    x = RNG.integers(0, 256, shape).astype(np.uint8)
    (want,) = session(model).run(None, {"x": x})
    (got,) = run_graph(graph_of(model), [x])
    assert_one_step(got, want)


def check_contrib(node: Any, x: Any, constants: Any, kind: int, tolerance: float = 0) -> None:
    node.domain = "com.microsoft"
    proto = helper.np_dtype_to_tensor_dtype(x.dtype)
    model = model_of([node], [vi("x", proto, x.shape)], vi("y", kind, None), constants)
    (want,) = session(model).run(None, {"x": x})
    (got,) = run_graph(graph_of(model), [x])
    if tolerance:
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    else:
        assert_one_step(got, want)


@pytest.mark.parametrize("float_result", [False, True])
def test_qgemm(float_result: bool) -> None:
    c = {"xs": np.float32(0.03), "xz": np.uint8(121),
         "w": RNG.integers(-127, 128, (5, 16)).astype(np.int8),
         "ws": RNG.uniform(0.004, 0.02, 5).astype(np.float32), "wz": np.zeros(5, np.int8),
         "b": RNG.integers(-3000, 3000, 5).astype(np.int32),
         "ys": np.float32(0.08), "yz": np.uint8(99)}  # fmt: skip
    ins = ["x", "xs", "xz", "w", "ws", "wz", "b", "ys", "yz"][: 7 if float_result else 9]
    node = helper.make_node("QGemm", ins, ["y"], transB=1, alpha=0.75)
    x = RNG.integers(0, 256, (6, 16)).astype(np.uint8)
    kind = TensorProto.FLOAT if float_result else TensorProto.UINT8
    check_contrib(node, x, c, kind, 1e-4 if float_result else 0)


@pytest.mark.parametrize("op", ["QLinearAveragePool", "QLinearGlobalAveragePool"])
@pytest.mark.parametrize("last", [0, 1])
def test_qlinear_pools(op: str, last: int) -> None:
    c = {"xs": np.float32(0.03), "xz": np.uint8(121), "ys": np.float32(0.02), "yz": np.uint8(90)}
    attrs: dict[str, Any] = {"channels_last": last}
    if op == "QLinearAveragePool":
        attrs |= {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "strides": [2, 1]}
    node = helper.make_node(op, ["x", "xs", "xz", "ys", "yz"], ["y"], **attrs)
    x = RNG.integers(0, 256, (2, 5, 6, 7) if last else (2, 7, 5, 6)).astype(np.uint8)
    check_contrib(node, x, c, TensorProto.UINT8)


def test_dynamic_quantize_matmul() -> None:
    c = {"w": RNG.integers(-127, 128, (16, 5)).astype(np.int8),
         "ws": RNG.uniform(0.004, 0.02, 5).astype(np.float32), "wz": np.zeros(5, np.int8),
         "b": RNG.uniform(-1, 1, 5).astype(np.float32)}  # fmt: skip
    node = helper.make_node("DynamicQuantizeMatMul", ["x", "w", "ws", "wz", "b"], ["y"])
    x = RNG.uniform(-3, 3, (6, 16)).astype(np.float32)
    check_contrib(node, x, c, TensorProto.FLOAT, 1e-4)


def test_matmul_integer_to_float() -> None:
    c = {"w": RNG.integers(0, 255, (16, 5)).astype(np.uint8), "xs": np.float32(0.02),
         "ws": RNG.uniform(0.004, 0.02, 5).astype(np.float32), "xz": np.uint8(100),
         "wz": RNG.integers(0, 255, 5).astype(np.uint8),
         "b": RNG.uniform(-1, 1, 5).astype(np.float32)}  # fmt: skip
    node = helper.make_node("MatMulIntegerToFloat", ["x", "w", "xs", "ws", "xz", "wz", "b"], ["y"])
    x = RNG.integers(0, 256, (6, 16)).astype(np.uint8)
    check_contrib(node, x, c, TensorProto.FLOAT, 1e-4)


def chain_model(build: Any, shape: Any = (2, 6, 5, 7)) -> Any:
    """x (u8) -> what `build` makes of it between DequantizeLinear and QuantizeLinear -> u8."""
    c: dict[str, Any] = {
        "s": np.float32(0.031), "z": np.uint8(119), "t": np.float32(0.0052), "v": np.uint8(7),
        "three": np.float32(3), "zero": np.float32(0), "six": np.float32(6),
    }
    nodes = [helper.make_node("DequantizeLinear", ["x", "s", "z"], ["a"])]
    nodes += build(helper.make_node)
    ends = [vi("x", TensorProto.UINT8, shape)], vi("y", TensorProto.UINT8, None)
    return model_of(nodes, *ends, c), RNG.integers(0, 256, shape).astype(np.uint8)


def silu(node: Any) -> Any:
    """As quantizers write it: every layer with its own scale."""
    return [
        node("Sigmoid", ["a"], ["b"]), node("QuantizeLinear", ["b", "t", "v"], ["bq"]),
        node("DequantizeLinear", ["bq", "t", "v"], ["c"]), node("Mul", ["a", "c"], ["d"]),
        node("QuantizeLinear", ["d", "s", "z"], ["y"]),
    ]  # fmt: skip


def hard_swish(node: Any) -> Any:
    return [
        node("Add", ["a", "three"], ["b"]), node("Clip", ["b", "zero", "six"], ["c"]),
        node("Div", ["c", "six"], ["d"]), node("Mul", ["a", "d"], ["e"]),
        node("QuantizeLinear", ["e", "s", "z"], ["y"]),
    ]  # fmt: skip


@pytest.mark.parametrize("build", [silu, hard_swish])
def test_a_function_of_one_byte_is_a_table(build: Any) -> None:
    model, x = chain_model(build)
    g = graph_of(model)
    pipeline.run(g)
    assert [n.op.name for n in g.nodes] == ["QuantTable"]
    (want,) = session(model).run(None, {"x": x})
    (got,) = run_graph(g, [x])
    assert_one_step(got, want)


def test_a_function_of_two_bytes_is_no_table() -> None:
    def build(node: Any) -> Any:
        return [
            node("Transpose", ["x"], ["w"], perm=[1, 0, 2, 3]),
            node("DequantizeLinear", ["w", "t", "v"], ["b"]), node("Sigmoid", ["b"], ["c"]),
            node("Mul", ["a", "c"], ["d"]), node("QuantizeLinear", ["d", "s", "z"], ["y"]),
        ]  # fmt: skip

    model, x = chain_model(build, shape=(3, 3, 5, 7))
    g = graph_of(model)
    pipeline.run(g)
    assert "QuantTable" not in [n.op.name for n in g.nodes]
    (want,) = session(model).run(None, {"x": x})
    (got,) = run_graph(g, [x])
    assert_one_step(got, want)


@pytest.mark.parametrize("same", [False, True])
def test_pool_of_one_scale_stays_integer(same: bool) -> None:
    def build(node: Any) -> Any:
        ends = ["b", "s", "z"] if same else ["b", "t", "v"]
        pool = node("MaxPool", ["a"], ["b"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        return [pool, node("QuantizeLinear", ends, ["y"])]

    model, x = chain_model(build)
    g = graph_of(model)
    pipeline.run(g)
    names = [n.op.name for n in g.nodes]
    assert (names == ["MaxPool"]) == same
    (want,) = session(model).run(None, {"x": x})
    (got,) = run_graph(g, [x])
    assert np.array_equal(got, want)


def test_quantizing_divides_exactly() -> None:
    """Around halves, where a quotient that is off by one bit is off by one step."""
    c = {"zero": np.uint8(7)}
    for scale in (0.1, 0.0371, 1 / 3, 3.7e-5, 123.456, 1e-12):
        s = np.float32(scale)
        halves = (np.arange(-20, 280) - 7 + 0.5).astype(np.float32) * s
        near = [np.nextafter(halves, np.float32(to)) for to in (-np.inf, np.inf)]
        ends = np.array([np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-45, 0.0, -0.0], np.float32)
        x = np.concatenate([halves, *near, ends, RNG.normal(0, 100, 5000).astype(np.float32) * s])
        node = helper.make_node("QuantizeLinear", ["x", "s", "zero"], ["y"])
        model = model_of([node], [vi("x", TensorProto.FLOAT, x.shape)],
                         vi("y", TensorProto.UINT8, None), c | {"s": s})  # fmt: skip
        g = graph_of(model)
        (got,) = run_graph(g, [x])
        want = g.nodes[0].op.ref(g.nodes[0], x, np.array(s), np.array(7, np.uint8))
        np.testing.assert_array_equal(got, want)
