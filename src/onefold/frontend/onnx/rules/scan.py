"""Scan as a Loop: the body takes one slice of each scanned input per turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onefold.frontend.onnx.rules import rule
from onefold.ir import dims
from onefold.ir.graph import Builder, Graph, Value
from onefold.ops.base import Refusal, axis_of, registry, true_axis
from onefold.ops.control import make_loop, slice_at
from onefold.ops.formats import OnnxNode
from onefold.ops.movement import Slice
from onefold.ops.shape import Reshape


@rule("Scan")
def scan(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Opset 9 and newer; the batched form of opset 8 for batches of one."""
    if n.opset < 9:
        return _batched(n, b)
    return _scan(n, b, list(n.inputs))


def _batched(n: OnnxNode, b: Builder) -> Sequence[Value]:
    if n.input(0) is not None:
        raise Refusal("Scan of opset 8 with sequence lengths is not taken")
    inputs = []
    for v in n.inputs[1:]:
        if v is None or v.shape[:1] != (1,):
            raise Refusal("Scan of opset 8 is taken for a batch of one only")
        inputs.append(b.op(Reshape(v.shape[1:]), v))
    outs = _scan(n, b, inputs)
    return [b.op(Reshape((1, *v.shape)), v) for v in outs]


def _scan(n: OnnxNode, b: Builder, inputs: Sequence[Value | None]) -> list[Value]:
    body = n.attrs["body"]
    k = int(n.attr("num_scan_inputs", 0))
    xs = [v for v in inputs if v is not None]
    states, scanned = xs[: len(xs) - k], xs[len(xs) - k :]
    if not 0 < k == len(scanned):
        raise Refusal(f"Scan has {len(xs)} inputs, {k} of them to scan")
    outputs = len(body.outputs) - len(states)
    in_axes = _list(n, "scan_input_axes", k)
    in_dirs = _list(n, "scan_input_directions", k) or _list(n, "directions", k)
    out_axes = _list(n, "scan_output_axes", outputs)
    out_dirs = _list(n, "scan_output_directions", outputs)
    if len(in_axes) != k or len(in_dirs) != k:
        raise Refusal(f"Scan names axes or directions of another number than {k} inputs")
    axes = [true_axis(a, v.tensor.rank) for a, v in zip(in_axes, scanned, strict=True)]
    length = scanned[0].shape[axes[0]]
    if not isinstance(length, int):
        raise Refusal("Scan over a length that is open")
    if any(v.shape[a] != length for a, v in zip(axes, scanned, strict=True)):
        raise Refusal("Scan over inputs of different lengths")

    def make(formals: Sequence[Value]) -> Graph:
        graph = Graph("scan", inputs=list(formals))
        saved = b.nodes, b.graph
        b.nodes, b.graph = graph.nodes, graph
        try:
            turn = formals[0]
            slices = []
            for v, a, back in zip(scanned, axes, in_dirs, strict=True):
                at = turn
                if back:
                    last = b.const(np.array(length - 1, np.int64))
                    at = b.op(registry.by_name["Sub"](), last, turn)
                slices.append(slice_at(b, v, a, at))
            outs = n.importer.inline(body, [*formals[2:], *slices])
            graph.outputs = [b.const(np.array(True)), *outs]
        finally:
            b.nodes, b.graph = saved
        return graph

    trips = b.const(np.array(length, np.int64))
    outs = make_loop(b, trips, None, states, make, list(n.output_names))
    done = list(outs[: len(states)])
    for v, a, back in zip(outs[len(states) :], out_axes, out_dirs, strict=True):
        done.append(_arranged(b, v, axis_of(a, v.tensor.rank), bool(back)))
    return done


def _list(n: OnnxNode, name: str, size: int) -> list[int]:
    given = n.attr(name)
    return [int(x) for x in given] if given is not None else [0] * size


def _arranged(b: Builder, v: Value, axis: int, back: bool) -> Value:
    if back:
        length, *rest = v.shape
        starts = (dims.add(length, -1), *[0] * len(rest))
        v = b.op(Slice(starts, v.shape, (-1, *[1] * len(rest))), v)
    if axis:
        perm = list(range(1, axis + 1)) + [0] + list(range(axis + 1, v.tensor.rank))
        v = b.op(registry.make("Transpose", perm=tuple(perm)), v)
    return v
