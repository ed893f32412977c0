"""Records what PyTorch computes for small operators, in ONNX's spelling of them.

    python tests/peers/record_torch.py            writes torch_outputs.npz and torch_outputs.json
    python tests/peers/record_torch.py --check    computes anew and compares with what is written

Needs torch and NumPy only, in an environment of their own: `make test-peers` makes it and checks.
The ordinary tests read the recorded files and need no torch (`test_torch_recorded.py`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

HERE = Path(__file__).parent
Tensor = torch.Tensor


@dataclass(frozen=True)
class Case:
    """One operator: inputs in ONNX's order (None where one is absent), outputs, attributes."""

    op: str
    inputs: Sequence[Tensor | None]
    outputs: Sequence[Tensor]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 17


CASES: dict[str, Callable[[torch.Generator], Case]] = {}


def case(make: Callable[[torch.Generator], Case]) -> Callable[[torch.Generator], Case]:
    CASES[make.__name__] = make
    return make


def _n(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g)


# --- contractions ---------------------------------------------------------------------------


@case
def conv(g: torch.Generator) -> Case:
    x, w, b = _n(g, 2, 6, 9, 11), _n(g, 8, 3, 3, 2), _n(g, 8)
    y = F.conv2d(x, w, b, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
    attrs = {"strides": [2, 1], "pads": [1, 2, 1, 2], "dilations": [1, 2], "group": 2}
    return Case("Conv", [x, w, b], [y], attrs)


@case
def conv_depthwise(g: torch.Generator) -> Case:
    x, w, b = _n(g, 1, 12, 8, 8), _n(g, 12, 1, 3, 3), _n(g, 12)
    return Case("Conv", [x, w, b], [F.conv2d(x, w, b, padding=1, groups=12)],
                {"pads": [1, 1, 1, 1], "group": 12})  # fmt: skip


@case
def conv_of_three_axes(g: torch.Generator) -> Case:
    x, w = _n(g, 1, 2, 4, 5, 6), _n(g, 3, 2, 2, 3, 3)
    return Case("Conv", [x, w], [F.conv3d(x, w, padding=(0, 1, 1))], {"pads": [0, 1, 1, 0, 1, 1]})


@case
def conv_transpose(g: torch.Generator) -> Case:
    x, w, b = _n(g, 1, 4, 5, 6), _n(g, 4, 3, 3, 3), _n(g, 6)
    y = F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1, groups=2)
    attrs = {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1], "group": 2}
    return Case("ConvTranspose", [x, w, b], [y], attrs)


@case
def einsum(g: torch.Generator) -> Case:
    a, b = _n(g, 2, 3, 4, 5), _n(g, 2, 6, 4, 5)
    return Case("Einsum", [a, b], [torch.einsum("bihd,bjhd->bhij", a, b)],
                {"equation": "bihd,bjhd->bhij"})  # fmt: skip


def _gates(t: Tensor, order: Sequence[int]) -> Tensor:
    """Blocks along the first axis in another order: gates are ordered differently in ONNX."""
    parts = t.chunk(len(order))
    return torch.cat([parts[k] for k in order])


def _weights(layer: Any, order: Sequence[int]) -> list[Tensor]:
    """W, R and B of ONNX from the weights of a recurrent layer of one or two directions."""
    ends = ["", "_reverse"] if layer.bidirectional else [""]

    def of(kind: str) -> list[Tensor]:
        return [_gates(getattr(layer, f"{kind}_l0{e}").detach(), order) for e in ends]

    bias = [torch.cat(pair) for pair in zip(of("bias_ih"), of("bias_hh"), strict=True)]
    return [torch.stack(of("weight_ih")), torch.stack(of("weight_hh")), torch.stack(bias)]


def _filled(layer: Any, g: torch.Generator) -> Any:
    for p in layer.parameters():
        p.data = _n(g, *p.shape) * 0.3
    return layer


@case
def lstm(g: torch.Generator) -> Case:
    layer = _filled(torch.nn.LSTM(5, 7, bidirectional=True), g)
    x, h, c = _n(g, 6, 2, 5), _n(g, 2, 2, 7), _n(g, 2, 2, 7)
    y, (hn, cn) = layer(x, (h, c))
    y = y.reshape(6, 2, 2, 7).transpose(1, 2)
    return Case("LSTM", [x, *_weights(layer, (0, 3, 1, 2)), None, h, c], [y, hn, cn],
                {"hidden_size": 7, "direction": "bidirectional"})  # fmt: skip


@case
def gru(g: torch.Generator) -> Case:
    layer = _filled(torch.nn.GRU(5, 7, bidirectional=True), g)
    x, h = _n(g, 6, 2, 5), _n(g, 2, 2, 7)
    y, hn = layer(x, h)
    y = y.reshape(6, 2, 2, 7).transpose(1, 2)
    attrs = {"hidden_size": 7, "direction": "bidirectional", "linear_before_reset": 1}
    return Case("GRU", [x, *_weights(layer, (1, 0, 2)), None, h], [y, hn], attrs)


@case
def attention(g: torch.Generator) -> Case:
    q, k, v = _n(g, 2, 3, 5, 8), _n(g, 2, 3, 7, 8), _n(g, 2, 3, 7, 8)
    mask = _n(g, 2, 1, 5, 7)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3)
    return Case("Attention", [q, k, v, mask], [y], {"scale": 0.3}, 23)


@case
def attention_causal(g: torch.Generator) -> Case:
    q, k, v = (_n(g, 1, 2, 6, 8) for _ in range(3))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return Case("Attention", [q, k, v], [y], {"is_causal": 1}, 23)


@case
def attention_of_grouped_heads(g: torch.Generator) -> Case:
    q, k, v = _n(g, 1, 6, 4, 8), _n(g, 1, 2, 9, 8), _n(g, 1, 2, 9, 8)
    return Case("Attention", [q, k, v],
                [F.scaled_dot_product_attention(q, k, v, enable_gqa=True)], {}, 23)  # fmt: skip


# --- normalization --------------------------------------------------------------------------


@case
def layer_norm(g: torch.Generator) -> Case:
    x, w, b = _n(g, 2, 5, 4, 6), _n(g, 4, 6), _n(g, 4, 6)
    return Case("LayerNormalization", [x, w, b], [F.layer_norm(x, (4, 6), w, b, 1e-3)],
                {"axis": 2, "epsilon": 1e-3})  # fmt: skip


@case
def rms_norm(g: torch.Generator) -> Case:
    x, w = _n(g, 3, 5, 16), _n(g, 16)
    return Case("RMSNormalization", [x, w], [F.rms_norm(x, (16,), w, 1e-5)], {"axis": -1}, 23)


@case
def group_norm(g: torch.Generator) -> Case:
    x, w, b = _n(g, 2, 6, 5, 4), _n(g, 6), _n(g, 6)
    return Case("GroupNormalization", [x, w, b], [F.group_norm(x, 3, w, b)], {"num_groups": 3}, 21)


@case
def instance_norm(g: torch.Generator) -> Case:
    x, w, b = _n(g, 2, 4, 5, 6), _n(g, 4), _n(g, 4)
    return Case("InstanceNormalization", [x, w, b], [F.instance_norm(x, weight=w, bias=b)])


@case
def batch_norm(g: torch.Generator) -> Case:
    x, w, b, m = _n(g, 2, 4, 5, 6), _n(g, 4), _n(g, 4), _n(g, 4)
    v = _n(g, 4).abs() + 0.1
    return Case("BatchNormalization", [x, w, b, m, v], [F.batch_norm(x, m, v, w, b)])


# --- activations ----------------------------------------------------------------------------


def _activation(name: str, op: str, opset: int, function: Callable[[Tensor], Tensor],
                **attrs: Any) -> None:  # fmt: skip
    def make(g: torch.Generator) -> Case:
        x = torch.cat([torch.linspace(-12, 12, 97), _n(g, 31)])
        return Case(op, [x], [function(x)], attrs, opset)

    CASES[name] = make


_activation("gelu", "Gelu", 20, F.gelu)
_activation("gelu_tanh", "Gelu", 20, lambda x: F.gelu(x, approximate="tanh"), approximate="tanh")
_activation("mish", "Mish", 18, F.mish)
_activation("hardswish", "HardSwish", 14, F.hardswish)
_activation("hardsigmoid", "HardSigmoid", 6, F.hardsigmoid, alpha=1 / 6, beta=0.5)
_activation("softplus", "Softplus", 1, lambda x: F.softplus(x, threshold=1000))
_activation("elu", "Elu", 6, lambda x: F.elu(x, 0.7), alpha=0.7)
_activation("selu", "Selu", 6, F.selu)
_activation("celu", "Celu", 12, lambda x: F.celu(x, 1.3), alpha=1.3)
_activation("erf", "Erf", 13, torch.erf)
_activation("tanh", "Tanh", 13, torch.tanh)
_activation("sigmoid", "Sigmoid", 13, torch.sigmoid)


@case
def log_softmax(g: torch.Generator) -> Case:
    x = _n(g, 3, 7, 5) * 8
    return Case("LogSoftmax", [x], [F.log_softmax(x, 1)], {"axis": 1})


# --- windows and pictures -------------------------------------------------------------------


@case
def avg_pool(g: torch.Generator) -> Case:
    x = _n(g, 1, 3, 9, 8)
    y = F.avg_pool2d(x, (3, 2), stride=2, padding=(1, 1), count_include_pad=False)
    return Case("AveragePool", [x], [y],
                {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]})  # fmt: skip


@case
def max_pool(g: torch.Generator) -> Case:
    x = _n(g, 1, 3, 9, 10)
    y = F.max_pool2d(x, 3, stride=2, padding=1, dilation=2, ceil_mode=True)
    attrs = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1],
             "dilations": [2, 2], "ceil_mode": 1}  # fmt: skip
    return Case("MaxPool", [x], [y], attrs)


def _resize(mode: str, onnx_mode: str, align: bool) -> Callable[[torch.Generator], Case]:
    def make(g: torch.Generator) -> Case:
        x = _n(g, 1, 2, 5, 6)
        y = F.interpolate(x, size=(8, 4), mode=mode, align_corners=align)
        attrs = {"mode": onnx_mode, "cubic_coeff_a": -0.75, "coordinate_transformation_mode":
                 "align_corners" if align else "pytorch_half_pixel"}  # fmt: skip
        return Case("Resize", [x, None, None, torch.tensor([1, 2, 8, 4])], [y], attrs)

    return make


CASES["resize_linear"] = _resize("bilinear", "linear", False)
CASES["resize_linear_by_corners"] = _resize("bilinear", "linear", True)
CASES["resize_cubic"] = _resize("bicubic", "cubic", False)


@case
def grid_sample(g: torch.Generator) -> Case:
    x, grid = _n(g, 1, 2, 5, 6), torch.rand(1, 4, 3, 2, generator=g) * 2.4 - 1.2
    y = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    return Case("GridSample", [x, grid], [y], {"padding_mode": "reflection"}, 20)


@case
def pixel_shuffle(g: torch.Generator) -> Case:
    x = _n(g, 1, 12, 3, 4)
    return Case("DepthToSpace", [x], [F.pixel_shuffle(x, 2)], {"blocksize": 2, "mode": "CRD"})


# --- the rest -------------------------------------------------------------------------------


@case
def topk(g: torch.Generator) -> Case:
    x = _n(g, 3, 11)
    values, indices = torch.topk(x, 4, dim=1)
    return Case("TopK", [x, torch.tensor([4])], [values, indices], {"axis": 1})


@case
def cross_entropy(g: torch.Generator) -> Case:
    x, w = _n(g, 6, 5), torch.rand(5, generator=g)
    labels = torch.tensor([0, 4, 2, 1, 2, 3])
    y = F.cross_entropy(x, labels, w, ignore_index=2)
    return Case("SoftmaxCrossEntropyLoss", [x, labels, w], [y], {"ignore_index": 2})


# --- recording ------------------------------------------------------------------------------


def digest(arrays: Sequence[Any]) -> str:
    """Of shapes, types and bytes."""
    total = hashlib.sha256()
    for a in arrays:
        total.update(f"{a.dtype.str}{a.shape}".encode())
        total.update(np.ascontiguousarray(a).tobytes())
    return total.hexdigest()


def record() -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays by name, and everything else."""
    torch.set_num_threads(1)
    arrays: dict[str, Any] = {}
    told: dict[str, Any] = {}
    for k, (name, make) in enumerate(sorted(CASES.items())):
        with torch.no_grad():
            c = make(torch.Generator().manual_seed(k))
        ins = {f"{name}.x{i}": x.numpy() for i, x in enumerate(c.inputs) if x is not None}
        outs = {f"{name}.y{i}": y.contiguous().numpy() for i, y in enumerate(c.outputs)}
        arrays |= ins | outs
        told[name] = {
            "op": c.op, "opset": c.opset, "attrs": dict(c.attrs),
            "inputs": [x is not None for x in c.inputs], "outputs": len(c.outputs),
            "sha256": digest([*ins.values(), *outs.values()]),
        }  # fmt: skip
    made = {"torch": torch.__version__, "numpy": np.__version__, "machine": platform.machine()}
    return arrays, {"versions": made, "cases": told}


def check(arrays: Mapping[str, Any], told: Mapping[str, Any]) -> list[str]:
    """Where the recorded files differ: inputs by a bit, outputs by more than rounding."""
    written = json.loads((HERE / "torch_outputs.json").read_text())
    wrong = [] if written["cases"].keys() == told["cases"].keys() else ["other cases"]
    with np.load(HERE / "torch_outputs.npz") as stored:
        for name in arrays.keys() & set(stored.files):
            a, b = arrays[name], stored[name]
            near = 0.0 if name.split(".")[1][0] == "x" else 2e-6 * max(1.0, float(np.abs(b).max()))
            if a.shape != b.shape or not np.allclose(a, b, rtol=0, atol=near):
                wrong.append(name)
    return wrong


def main() -> int:
    options = argparse.ArgumentParser(description="records what PyTorch computes")
    options.add_argument("--check", action="store_true", help="compare with what is recorded")
    arrays, told = record()
    if options.parse_args().check:
        wrong = check(arrays, told)
        print(f"torch {torch.__version__}: {len(told['cases'])} cases,",
              "differ: " + " ".join(wrong) if wrong else "as recorded")  # fmt: skip
        return bool(wrong)
    np.savez_compressed(HERE / "torch_outputs.npz", **arrays)
    (HERE / "torch_outputs.json").write_text(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
