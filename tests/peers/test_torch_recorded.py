"""Our operators against what PyTorch computed; `record_torch.py` wrote it down."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

import onefold

HERE = Path(__file__).parent
TOLD = json.loads((HERE / "torch_outputs.json").read_text())
STORED = np.load(HERE / "torch_outputs.npz")
BY_VALUE = {"Resize": {3}, "TopK": {1}}  # inputs that decide shapes


def _arrays(name: str) -> tuple[list[Any], list[Any]]:
    case = TOLD["cases"][name]
    ins = [STORED[f"{name}.x{k}"] if there else None for k, there in enumerate(case["inputs"])]
    return ins, [STORED[f"{name}.y{k}"] for k in range(case["outputs"])]


def _model(name: str, ins: list[Any], outs: list[Any]) -> tuple[bytes, dict[str, Any]]:
    case = TOLD["cases"][name]
    fixed = BY_VALUE.get(case["op"], set())
    given = {f"x{k}": a for k, a in enumerate(ins) if a is not None}
    stored = {n: a for n, a in given.items() if int(n[1:]) in fixed}
    fed = {n: a for n, a in given.items() if n not in stored}

    def port(n: str, a: Any) -> Any:
        return helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)

    node = helper.make_node(
        case["op"], [f"x{k}" if a is not None else "" for k, a in enumerate(ins)],
        [f"y{k}" for k in range(len(outs))], name=name, **case["attrs"])  # fmt: skip
    graph = helper.make_graph(
        [node], name, [port(n, a) for n, a in fed.items()],
        [port(f"y{k}", a) for k, a in enumerate(outs)],
        [numpy_helper.from_array(a, n) for n, a in stored.items()])  # fmt: skip
    opset = helper.make_opsetid("", case["opset"])
    return helper.make_model(graph, opset_imports=[opset]).SerializeToString(), fed


@pytest.mark.toolchain
@pytest.mark.parametrize("name", TOLD["cases"])
def test_equals_torch(name: str) -> None:
    ins, want = _arrays(name)
    model, feeds = _model(name, ins, want)
    got = onefold.load(model).compile(fallback=False)(feeds)
    for k, w in enumerate(want):
        y = got[f"y{k}"]
        assert (y.shape, y.dtype) == (w.shape, w.dtype)
        near = 1e-5 * max(1.0, float(np.ptp(w))) if w.dtype.kind == "f" else 0
        np.testing.assert_allclose(y, w, rtol=0, atol=near)


def test_the_record_is_whole() -> None:
    assert TOLD["versions"].keys() == {"torch", "numpy", "machine"}
    for name, case in TOLD["cases"].items():
        total = hashlib.sha256()
        ins, outs = _arrays(name)
        for a in [*(a for a in ins if a is not None), *outs]:
            total.update(f"{a.dtype.str}{a.shape}".encode() + np.ascontiguousarray(a).tobytes())
        assert total.hexdigest() == case["sha256"], name
