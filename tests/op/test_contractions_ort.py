"""Contractions, recurrent cells and attention against ONNX Runtime: more than ONNX's own cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onefold.dev.cases import run_graph
from onefold.frontend.binding import Binding
from onefold.frontend.onnx.importer import import_onnx
from onefold.frontend.onnx.reader import read

ort = pytest.importorskip("onnxruntime")
RNG = np.random.Generator(np.random.PCG64(7))


def f32(*shape: int, low: float = -1, high: float = 1) -> Any:
    return RNG.uniform(low, high, shape).astype(np.float32)


def against_ort(
    op: str, inputs: list[Any], attrs: dict[str, Any], *, outputs: int = 1, domain: str = "",
    const: tuple[int, ...] = (), tolerance: float = 2e-5, opset: int = 13,
) -> None:  # fmt: skip
    """One node, compiled, gives what ONNX Runtime gives. None: an absent input."""
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    outs = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, outs, domain=domain, **attrs)
    live = [i for i, x in enumerate(inputs) if x is not None and i not in const]
    kinds = {i: helper.np_dtype_to_tensor_dtype(inputs[i].dtype) for i in live}
    ins = [helper.make_tensor_value_info(names[i], kinds[i], inputs[i].shape) for i in live]
    weights = [numpy_helper.from_array(np.asarray(inputs[i]), names[i]) for i in const]
    infos = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outs]
    sets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph([node], "g", ins, infos, weights),
                              opset_imports=sets, ir_version=8)  # fmt: skip
    text = model.SerializeToString()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(text, options, ["CPUExecutionProvider"])
    want = session.run(None, {names[i]: inputs[i] for i in live})
    got = run_graph(import_onnx(read(text), Binding()), [inputs[i] for i in live])
    for w, g in zip(want, got, strict=True):
        assert w.shape == g.shape
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance)


CONVS = [
    ((1, 3, 10), (4, 3, 3), {"pads": [2, 1], "strides": [2]}),
    ((2, 4, 9, 8), (6, 2, 3, 2), {"group": 2, "strides": [2, 1], "auto_pad": "SAME_UPPER"}),
    ((2, 4, 9, 8), (4, 1, 3, 4), {"group": 4, "strides": [2, 3], "auto_pad": "SAME_LOWER"}),
    ((1, 2, 5, 6, 4), (3, 2, 2, 3, 2), {"auto_pad": "VALID", "strides": [1, 2, 1]}),
    ((1, 2, 5, 6), (3, 2, 3, 3), {"pads": [3, 0, 1, 2]}),
]


@pytest.mark.parametrize("x,w,attrs", CONVS)
def test_conv(x: Any, w: Any, attrs: Any) -> None:
    against_ort("Conv", [f32(*x), f32(*w), f32(w[0])], attrs)


TRANSPOSED = [
    ((1, 3, 5), (3, 4, 3), {"strides": [2], "pads": [1, 0]}),
    ((2, 4, 5, 4), (4, 3, 3, 2), {"group": 2, "strides": [2, 3], "output_padding": [1, 2]}),
    ((1, 2, 4, 4), (2, 3, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((1, 2, 4, 4), (2, 3, 3, 3), {"strides": [2, 2], "output_shape": [10, 8]}),
    ((1, 2, 4, 3), (2, 3, 3, 2), {"dilations": [2, 3], "pads": [1, 1, 2, 0]}),
    ((1, 2, 3, 2, 3), (2, 2, 2, 3, 2), {"strides": [1, 2, 2]}),
]


@pytest.mark.parametrize("x,w,attrs", TRANSPOSED)
def test_conv_transpose(x: Any, w: Any, attrs: Any) -> None:
    against_ort("ConvTranspose", [f32(*x), f32(*w), f32(w[1] * attrs.get("group", 1))], attrs)


POOLS = [
    {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 3], "ceil_mode": 1},
    {"kernel_shape": [2, 3], "auto_pad": "SAME_LOWER", "strides": [2, 2]},
    {"kernel_shape": [2, 2], "dilations": [2, 3], "pads": [1, 1, 1, 1]},
]


@pytest.mark.parametrize("attrs", POOLS)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "AveragePoolWithPads", "LpPool"])
def test_pool(op: str, attrs: Any) -> None:
    if op == "AveragePoolWithPads":
        op, attrs = "AveragePool", attrs | {"count_include_pad": 1}
    if op == "LpPool":
        attrs = attrs | {"p": 3}
    against_ort(op, [f32(2, 3, 11, 10)], attrs, opset=22)


def cell(op: str, d: int, gates: int, h: int = 5, i: int = 4) -> list[Any]:
    lens = np.array([6, 3, 1], np.int32)
    out = [f32(6, 3, i), f32(d, gates * h, i), f32(d, gates * h, h), f32(d, 2 * gates * h), lens,
           f32(d, 3, h)]  # fmt: skip
    return out + ([f32(d, 3, h), f32(d, 3 * h)] if op == "LSTM" else [])


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op,gates,count", [("RNN", 1, 2), ("GRU", 3, 2), ("LSTM", 4, 3)])
def test_recurrent(op: str, gates: int, count: int, direction: str) -> None:
    d = 2 if direction == "bidirectional" else 1
    attrs: dict[str, Any] = {"hidden_size": 5, "direction": direction, "clip": 0.8}
    against_ort(op, cell(op, d, gates), attrs, outputs=count)


@pytest.mark.parametrize(
    "names,alpha,beta",
    [
        (["HardSigmoid", "LeakyRelu", "Softsign"], [0.3, 0.2], [0.4]),
        (["Sigmoid", "ScaledTanh", "Elu"], [0.7, 0.5], [0.6]),
        (["Affine", "ThresholdedRelu", "Relu"], [0.7, 0.1], [0.2]),
    ],
)
def test_activations_of_lstm(names: Any, alpha: Any, beta: Any) -> None:
    attrs = {"hidden_size": 5, "activations": names, "activation_alpha": alpha,
             "activation_beta": beta}  # fmt: skip
    against_ort("LSTM", cell("LSTM", 1, 4), attrs, outputs=3)


@pytest.mark.parametrize("linear", [0, 1])
def test_gru_reset(linear: int) -> None:
    attrs = {"hidden_size": 5, "linear_before_reset": linear}
    against_ort("GRU", cell("GRU", 1, 3), attrs, outputs=2)


def test_coupled_gates() -> None:
    x, w, r, b, *_ = cell("LSTM", 1, 4)
    against_ort("LSTM", [x, w, r, b], {"hidden_size": 5, "input_forget": 1}, outputs=3)


@pytest.mark.parametrize(
    "equation,shapes",
    [
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
        ("...ij,...kj->...ik", [(2, 3, 4), (2, 6, 4)]),
        ("ij,kl,jk->il", [(2, 3), (4, 5), (3, 4)]),
        ("ijj->i", [(3, 4, 4)]),
        ("bhqd,bkhd->bhqk", [(2, 3, 4, 5), (2, 6, 3, 5)]),
        ("i,j", [(3,), (4,)]),
    ],
)
def test_einsum(equation: str, shapes: Any) -> None:
    against_ort("Einsum", [f32(*s) for s in shapes], {"equation": equation})


MS = "com.microsoft"


@pytest.mark.parametrize("activation,params", [("Relu", []), ("LeakyRelu", [0.2]),
                                               ("Clip", [-0.3, 0.9]), ("Tanh", [])])  # fmt: skip
def test_fused_conv(activation: str, params: Any) -> None:
    attrs: dict[str, Any] = {"activation": activation, "pads": [1, 1, 1, 1]}
    if params:
        attrs["activation_params"] = params
    w = f32(4, 3, 3, 3)
    against_ort("FusedConv", [f32(1, 3, 6, 5), w, f32(4), f32(1, 4, 6, 5)], attrs, domain=MS)


@pytest.mark.parametrize("batch", [0, 1])
def test_fused_matmul(batch: int) -> None:
    a = f32(2, 3, 4, 5) if not batch else f32(5, 2, 3, 4)
    attrs = {"alpha": 0.3, "transBatchA": batch, "transA": 0 if not batch else 1}
    b = f32(2, 3, 6, 5) if not batch else f32(2, 3, 5, 6)
    against_ort("FusedMatMul", [a, b], attrs | {"transB": 1 - batch}, domain=MS)


def test_fused_gemm() -> None:
    attrs = {"activation": "LeakyRelu", "activation_alpha": 0.3, "transB": 1, "alpha": 0.5}
    against_ort("FusedGemm", [f32(4, 5), f32(3, 5), f32(3)], attrs, domain=MS)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zero", ["", "packed", "float"])
def test_matmul_nbits(bits: int, zero: str) -> None:
    if bits == 8 and zero == "float":
        pytest.skip("ONNX Runtime has no float zero points for eight bits")
    n, k, block = 6, 80, 32
    blocks = -(-k // block)
    q = RNG.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8)
    scale = f32(n, blocks, low=0.01, high=0.05)
    z: Any = None
    if zero == "packed":
        z = RNG.integers(0, 256, (n, -(-blocks * bits // 8))).astype(np.uint8)
    if zero == "float":
        z = f32(n, blocks, low=0, high=2**bits)
    attrs = {"K": k, "N": n, "bits": bits, "block_size": block}
    against_ort("MatMulNBits", [f32(2, 3, k), q, scale, z], attrs, domain=MS,
                const=(1, 2) if z is None else (1, 2, 3), tolerance=1e-3)  # fmt: skip


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("mask", ["", "padding", "past", "bias", "square"])
def test_attention_contrib(causal: int, mask: str) -> None:
    b, s, h, e, p = 2, 5, 3, 4, 2
    ins: list[Any] = [f32(b, s, 7), f32(7, 3 * h * e), f32(3 * h * e)]
    attrs = {"num_heads": h, "unidirectional": causal}
    outs = 1
    if mask == "padding":
        ins.append(np.array([[1, 1, 1, 0, 0], [1] * 5], np.int32))
    if mask == "square":
        ins.append(RNG.integers(0, 2, (b, s, s)).astype(np.int32))
        ins[3][:, :, 0] = 1
    if mask == "past":
        ins += [None, f32(2, b, h, p, e)]
        outs = 2
    if mask == "bias":
        ins += [None, None, f32(b, h, s, s)]
    against_ort("Attention", ins, attrs, outputs=outs, domain=MS)


@pytest.mark.parametrize("kind", ["plain", "bias", "padding", "past", "causal"])
def test_multi_head_attention(kind: str) -> None:
    b, s, h, e, p = 2, 5, 3, 4, 2
    w = h * e
    ins: list[Any] = [f32(b, s, w), f32(b, s, w), f32(b, s, w)]
    attrs: dict[str, Any] = {"num_heads": h}
    outs = 1
    if kind == "bias":
        ins += [f32(3 * w), None, f32(1, h, s, s)]
    if kind == "padding":
        ins += [None, np.array([[1, 1, 1, 0, 0], [1] * 5], np.int32)]
    if kind == "past":
        ins += [None, None, None, f32(b, h, p, e), f32(b, h, p, e)]
        outs = 3
    if kind == "causal":
        attrs["unidirectional"] = 1
    against_ort("MultiHeadAttention", ins, attrs, outputs=outs, domain=MS)


@pytest.mark.parametrize("kind", ["prompt", "step", "packed", "window", "softcap", "sink", "room"])
def test_group_query_attention(kind: str) -> None:
    b, s, h, g, e, p = 1, 4, 4, 2, 16, 3
    if kind in ("step", "room", "sink"):
        s, b = 1, 2
    past = 0 if kind == "prompt" else p
    keep = 8 if kind == "room" else past
    total = past + s
    lens = np.full(b, total - 1, np.int32)
    if kind == "room":
        lens[0] -= 1
    q, k, v = f32(b, s, h * e), f32(b, s, g * e), f32(b, s, g * e)
    cos, sin = f32(16, e // 2), f32(16, e // 2)
    ins: list[Any] = [q, k, v, f32(b, g, keep, e), f32(b, g, keep, e), lens,
                      np.array(total, np.int32), cos, sin]  # fmt: skip
    attrs: dict[str, Any] = {"num_heads": h, "kv_num_heads": g, "do_rotary": 1}
    if kind == "packed":
        ins[0], ins[1], ins[2] = f32(b, s, (h + 2 * g) * e), None, None
    if kind == "window":
        attrs["local_window_size"] = 2
    if kind == "softcap":
        attrs |= {"softcap": 1.5, "rotary_interleaved": 1}
    if kind == "sink":
        ins += [None, None, f32(h)]
    against_ort("GroupQueryAttention", ins, attrs, outputs=3, domain=MS, const=(6,))


@pytest.mark.parametrize("whole", [False, True])
def test_rotary_embedding_contrib(whole: bool) -> None:
    at = np.array([3], np.int64) if whole else np.array([[1, 2, 3], [0, 1, 2]], np.int64)
    ins = [f32(2, 3, 24), at, f32(10, 4), f32(10, 4)]
    against_ort("RotaryEmbedding", ins, {"interleaved": int(whole)}, domain=MS)


def test_dynamic_quantize_lstm() -> None:
    """ONNX Runtime quantizes the activations too, so that it is the less exact of the two."""
    h, i = 6, 5
    w = RNG.integers(-127, 128, (1, i, 4 * h)).astype(np.int8)
    r = RNG.integers(-127, 128, (1, h, 4 * h)).astype(np.int8)
    scale, zero = f32(1, 4 * h, low=0.003, high=0.008), np.zeros((1, 4 * h), np.int8)
    ins = [f32(4, 2, i), w, r, f32(1, 8 * h), None, None, None, None, scale, zero, scale, zero]
    against_ort("DynamicQuantizeLSTM", ins, {"hidden_size": h}, outputs=3, domain=MS,
                const=(1, 2, 3, 8, 9, 10, 11), tolerance=0.03)  # fmt: skip
