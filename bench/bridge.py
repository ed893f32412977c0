"""ONNX models as PyTorch modules, for the engines that read nothing else.

Shapes, axes and the like are taken as numbers when the module is made, so that it can be traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from torch import nn

from bench.job import Job, Skip


def as_torch(job: Job) -> tuple[nn.Module, tuple[Any, ...]]:
    """The model as a module, and its inputs. Raises Skip where an operator has no counterpart."""
    graph = onnx.load(job.model).graph
    missing = sorted({n.op_type for n in graph.node} - OPERATORS.keys())
    if missing:
        raise Skip("the bridge to PyTorch lacks " + ", ".join(missing))
    feeds = job.feeds()
    return Module(graph).eval(), tuple(torch.from_numpy(a) for a in feeds.values())


class Module(nn.Module):
    """Runs the nodes one by one. Constants are parameters, numbers or lists of integers."""

    def __init__(self, graph: Any) -> None:
        super().__init__()
        arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.inputs = [x.name for x in graph.input if x.name not in arrays]
        self.outputs = [x.name for x in graph.output]
        self.constants: dict[str, Any] = {}
        self.floats: dict[str, str] = {}
        scales = {n.input[2] for n in graph.node if n.op_type == "Resize"}
        for name, a in arrays.items():
            if a.dtype == np.float32 and a.size > 1 and name not in scales:
                self.floats[name] = f"p{len(self.floats)}"
                parameter = nn.Parameter(torch.from_numpy(a.copy()), requires_grad=False)
                self.register_parameter(self.floats[name], parameter)
            else:
                self.constants[name] = a.tolist()
        self.nodes = [_Node(n) for n in _with_gelu(list(graph.node), self.constants)]

    def forward(self, *args: Any) -> Any:
        known = dict(zip(self.inputs, args, strict=True)) | self.constants
        known |= {n: getattr(self, p) for n, p in self.floats.items()}
        for node in self.nodes:
            ins = [known[n] if n else None for n in node.inputs]
            outs = OPERATORS[node.kind](ins, node.attrs)
            known.update(zip(node.outputs, outs if isinstance(outs, tuple) else (outs,),
                             strict=False))  # fmt: skip
        outs = tuple(known[n] for n in self.outputs)
        return outs if len(outs) > 1 else outs[0]


class _Node:
    def __init__(self, node: Any) -> None:
        self.kind = node.op_type
        self.inputs, self.outputs = list(node.input), list(node.output)
        self.attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _with_gelu(nodes: list[Any], constants: Mapping[str, Any]) -> list[Any]:
    """x * (erf(x / sqrt 2) + 1) * 0.5 as one node, which is how PyTorch has it."""
    made_by = {o: n for n in nodes for o in n.output}
    used_by: dict[str, list[Any]] = {}
    for n in nodes:
        for name in n.input:
            used_by.setdefault(name, []).append(n)
    gone: set[int] = set()
    ends = {}
    for erf in (n for n in nodes if n.op_type == "Erf"):
        chain = [made_by[erf.input[0]], erf]
        for kind in ("Add", "Mul", "Mul"):
            users = used_by[chain[-1].output[0]]
            if len(users) != 1 or users[0].op_type != kind:
                break
            chain.append(users[0])
        x = chain[0].input[0]
        halved = any(constants.get(n) == 0.5 for n in chain[-1].input)
        if len(chain) == 5 and x in chain[3].input and halved:
            gone |= {id(n) for n in chain}
            ends[id(chain[4])] = helper.make_node("Gelu", [x], list(chain[4].output))
    return [ends.get(id(n), n) for n in nodes if id(n) in ends or id(n) not in gone]


# --- operators ------------------------------------------------------------------------------------

Ins = list[Any]
Attrs = dict[str, Any]


def _padded(x: Any, a: Attrs, value: float = 0.0) -> tuple[Any, list[int]]:
    """The input and what is left to pad evenly; uneven padding is done first."""
    pads = list(a.get("pads", [0, 0, 0, 0]))
    half = len(pads) // 2
    begin, end = pads[:half], pads[half:]
    if begin == end:
        return x, begin
    flat = [n for b, e in zip(reversed(begin), reversed(end), strict=True) for n in (b, e)]
    return F.pad(x, flat, value=value), [0] * half


def _conv(i: Ins, a: Attrs) -> Any:
    x, pads = _padded(i[0], a)
    n = x.dim() - 2
    run = F.conv2d if n == 2 else F.conv1d
    bias = i[2] if len(i) > 2 else None
    return run(x, i[1], bias, a.get("strides", [1] * n), pads, a.get("dilations", [1] * n),
               a.get("group", 1))  # fmt: skip


def _max_pool(i: Ins, a: Attrs) -> Any:
    x, pads = _padded(i[0], a, -np.inf)
    return F.max_pool2d(x, a["kernel_shape"], a.get("strides"), pads,
                        ceil_mode=bool(a.get("ceil_mode", 0)))  # fmt: skip


def _mean_pool(i: Ins, a: Attrs) -> Any:
    x, pads = _padded(i[0], a)
    return F.avg_pool2d(x, a["kernel_shape"], a.get("strides"), pads,
                        count_include_pad=bool(a.get("count_include_pad", 0)))  # fmt: skip


def _gemm(i: Ins, a: Attrs) -> Any:
    w = i[1] if a.get("transB", 0) else i[1].t()
    return F.linear(i[0], w, i[2] if len(i) > 2 else None)


def _clip(i: Ins, a: Attrs) -> Any:
    low, high = (*i[1:], None, None)[:2]
    return F.relu6(i[0]) if (low, high) == (0.0, 6.0) else torch.clamp(i[0], low, high)


def _resize(i: Ins, a: Attrs) -> Any:
    return F.interpolate(i[0], scale_factor=i[2][2:], mode=a["mode"].decode())


def _lstm(i: Ins, a: Attrs) -> Any:
    x, w, r, b = i[:4]
    size = a["hidden_size"]
    order = [0, 2, 3, 1]  # input, output, forget, cell -> input, forget, cell, output

    def gates(m: Any) -> Any:
        return torch.cat([m.reshape(4, size, -1)[k] for k in order]).squeeze(-1)

    zero = torch.zeros(1, x.shape[1], size)
    weights = [gates(w[0]), gates(r[0]), gates(b[0, : 4 * size]), gates(b[0, 4 * size :])]
    y = torch.lstm(x, [zero, zero], weights, True, 1, 0.0, False, False, False)[0]
    return y.unsqueeze(1)


def _gather(i: Ins, a: Attrs) -> Any:
    axis = a.get("axis", 0)
    if isinstance(i[1], int):
        return i[0].select(axis, i[1])
    if axis == 0 and i[0].dim() == 2:
        return F.embedding(i[1], i[0])
    flat = i[0].index_select(axis, i[1].reshape(-1))
    return flat.reshape([*i[0].shape[:axis], *i[1].shape, *i[0].shape[axis + 1 :]])


def _squeeze(i: Ins, a: Attrs) -> Any:
    x = i[0]
    for axis in sorted(i[1], reverse=True):
        x = x.squeeze(axis)
    return x


def _unsqueeze(i: Ins, a: Attrs) -> Any:
    x = i[0]
    for axis in sorted(i[1]):
        x = x.unsqueeze(axis)
    return x


def _layer_norm(i: Ins, a: Attrs) -> Any:
    return F.layer_norm(i[0], i[1].shape, i[1], i[2], a.get("epsilon", 1e-5))


OPERATORS: dict[str, Callable[[Ins, Attrs], Any]] = {
    "Add": lambda i, a: i[0] + i[1],
    "AveragePool": _mean_pool,
    "BatchNormalization": lambda i, a: F.batch_norm(i[0], i[3], i[4], i[1], i[2],
                                                    eps=a.get("epsilon", 1e-5)),
    "Cast": lambda i, a: i[0].to(torch.float32) if a["to"] == 1 else i[0].to(torch.int64),
    "Clip": _clip,
    "Concat": lambda i, a: torch.cat(i, a["axis"]),
    "Conv": _conv,
    "Div": lambda i, a: i[0] / i[1],
    "Erf": lambda i, a: torch.erf(i[0]),
    "Exp": lambda i, a: torch.exp(i[0]),
    "Expand": lambda i, a: i[0].expand(i[1]),
    "Flatten": lambda i, a: torch.flatten(i[0], a.get("axis", 1)),
    "Gather": _gather,
    "Gelu": lambda i, a: F.gelu(i[0]),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda i, a: i[0].mean((2, 3), keepdim=True),
    "HardSigmoid": lambda i, a: F.hardsigmoid(i[0]),
    "HardSwish": lambda i, a: F.hardswish(i[0]),
    "LSTM": _lstm,
    "LayerNormalization": _layer_norm,
    "MatMul": lambda i, a: torch.matmul(i[0], i[1]),
    "MaxPool": _max_pool,
    "Mul": lambda i, a: i[0] * i[1],
    "Neg": lambda i, a: -i[0],
    "Pow": lambda i, a: torch.pow(i[0], i[1]),
    "ReduceMean": lambda i, a: i[0].mean(a["axes"], keepdim=bool(a.get("keepdims", 1))),
    "Relu": lambda i, a: F.relu(i[0]),
    "Reshape": lambda i, a: i[0].reshape(i[1]),
    "Resize": _resize,
    "Sigmoid": lambda i, a: torch.sigmoid(i[0]),
    "Softmax": lambda i, a: F.softmax(i[0], a.get("axis", -1)),
    "Split": lambda i, a: torch.split(i[0], i[1], a.get("axis", 0)),
    "Sqrt": lambda i, a: torch.sqrt(i[0]),
    "Squeeze": _squeeze,
    "Sub": lambda i, a: i[0] - i[1],
    "Tanh": lambda i, a: torch.tanh(i[0]),
    "Transpose": lambda i, a: i[0].permute(a["perm"]),
    "Unsqueeze": _unsqueeze,
}  # fmt: skip
