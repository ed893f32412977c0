"""precision= of Model.compile."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import onefold
from onefold.options import PRODUCTS
from onefold.target import find

pytestmark = pytest.mark.toolchain


def network(scale: float = 1.0, columns: int | str = 64) -> bytes:
    rng = np.random.default_rng(0)
    w = (scale * rng.normal(size=(96, 128))).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [columns, 96])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [columns, 128])],
        [numpy_helper.from_array(w, "w")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def test_auto_tells_what_it_measured() -> None:
    told = onefold.load(network()).compile(precision="auto").report["precision"]
    names = [n for n, some in PRODUCTS.items() if some & find("host").features]
    if not names:
        assert told["chosen"] == "f32"
        assert "has no products" in told["why"]
    for n in names:
        assert 0 < told[n]["error"] <= told[n]["limit"]
        assert told[n]["seconds"] > 0
    fastest = min((n for n in told if n not in ("chosen", "why")),
                  key=lambda n: told[n]["seconds"], default="f32")  # fmt: skip
    assert told["chosen"] == fastest


def test_auto_takes_f32_where_the_error_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    from onefold.dev import precision

    monkeypatch.setattr(precision, "SHARES", {"bf16": 1e-9, "f16": 1e-9})
    program = onefold.load(network()).compile(precision="auto")
    assert program.options.precision == "f32"
    assert program.report["precision"]["chosen"] == "f32"


def test_auto_with_open_sizes_is_f32() -> None:
    program = onefold.load(network(columns="n")).compile(precision="auto")
    assert program.options.precision == "f32"
    told = program.report["precision"]
    assert told["chosen"] == "f32"
    assert "why" in told


def test_another_precision_is_another_program() -> None:
    if not PRODUCTS["bf16"] & find("host").features:
        pytest.skip("this machine has no products of bf16")
    model = onefold.load(network())
    x = np.random.default_rng(1).normal(size=(64, 96)).astype(np.float32)
    plain, narrow = (model.compile(precision=p)(x)["y"] for p in ("f32", "bf16"))
    assert 0 < np.abs(plain - narrow).max() < 0.02 * np.abs(plain).max()


def test_a_machine_without_such_products_refuses() -> None:
    with pytest.raises(onefold.OnefoldError, match="does not compute in bf16"):
        onefold.load(network()).compile("x86-64-v2", precision="bf16")
