"""The version of a network whose matrix products have weights of 4 or 8 bits and compute in f32: as
MatMulNBits of ONNX Runtime, symmetric, in blocks of 32 weights of a column with a scale each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 32
BITS = {"w4": 4, "w8": 8}
"""Bits of the weights by the name of the precision."""


def quantize_weights(model: Path, to: Path, bits: int) -> None:
    """Writes the version with weights of so many bits, and its inputs, which are the same."""
    import onnx
    from onnx import helper, numpy_helper

    proto = onnx.load(model)
    graph = proto.graph
    arrays = {t.name: t for t in graph.initializer}
    done = set()
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in arrays:
            continue
        name = node.input[1]
        w = numpy_helper.to_array(arrays[name])
        if w.ndim != 2 or w.dtype != np.float32:
            continue
        if name not in done:
            q, scale = rounded(w, bits)
            graph.initializer.append(numpy_helper.from_array(q, f"{name}.q"))
            graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
            done.add(name)
        size = {"K": w.shape[0], "N": w.shape[1], "bits": bits, "block_size": BLOCK}
        node.op_type, node.domain = "MatMulNBits", "com.microsoft"
        del node.input[1:]
        node.input.extend([f"{name}.q", f"{name}.scale"])
        node.attribute.extend(helper.make_attribute(k, v) for k, v in size.items())
    left = {n for node in graph.node for n in node.input}
    kept = [t for t in graph.initializer if t.name in left]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(proto, to)
    with np.load(model.with_suffix(".npz")) as feeds:
        np.savez(to.with_suffix(".npz"), **dict(feeds))


def rounded(w: Any, bits: int) -> tuple[Any, Any]:
    """Weights [K, N] as bytes [N, blocks, BLOCK * bits / 8], and scales [N, blocks]."""
    k, n = w.shape
    middle = 1 << (bits - 1)
    count = -(-k // BLOCK)
    rows = np.zeros((n, count * BLOCK), np.float32)
    rows[:, :k] = w.T
    rows = rows.reshape(n, count, BLOCK)
    scale = np.abs(rows).max(2) / np.float32(middle - 1)
    scale[scale == 0] = 1
    codes = (np.rint(rows / scale[:, :, None]) + middle).astype(np.uint8)
    if bits == 4:
        codes = codes[..., ::2] | codes[..., 1::2] << 4
    return codes, scale
