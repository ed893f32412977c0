"""Encoders of text and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onefold.frontend.onnx.rules import rule
from onefold.frontend.onnx.tensors import Tensor
from onefold.ir import dtypes
from onefold.ir.graph import Builder, Value
from onefold.ops import ngrams
from onefold.ops.base import Refusal
from onefold.ops.formats import OnnxNode
from onefold.ops.strings import LabelEncoder

_KINDS: tuple[tuple[str, Any, Any], ...] = (
    ("int64", np.int64, -1), ("float", np.float32, -0.0), ("string", object, "_Unused"),
)  # fmt: skip


@rule("TfIdfVectorizer")
def tfidf(n: OnnxNode, b: Builder) -> Sequence[Value]:
    return [ngrams.from_onnx(n, b)]


@rule("ai.onnx.ml:LabelEncoder")
def label_encoder(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """A table from keys to values, each of which comes in four forms."""
    x = n.arg(0)
    if n.opset < 2:
        return [_from_classes(n, b, x)]
    keys, values = _table(n, "keys"), _table(n, "values")
    if len(keys) != len(values):
        raise Refusal(f"{len(keys)} keys for {len(values)} values")
    if keys.dtype != object and dtypes.of(keys.dtype) is not x.dtype:
        keys = keys.astype(x.dtype.numpy)
    default = n.attr("default_tensor")
    if isinstance(default, Tensor):
        rest = default.numpy().reshape(-1)[:1]
        if not rest.size:
            raise Refusal("its default has no element")
        rest = rest.reshape(())
    else:
        found = [k for k in _KINDS if np.dtype(k[1]) == values.dtype]
        if not found:
            raise Refusal(f"values of type {values.dtype.name} are not taken")
        name, kind, rest = found[0]
        rest = np.array(n.attr(f"default_{name}", rest), kind)
    return [LabelEncoder.make(b, x, keys, values, rest, n.output_names)]


def _from_classes(n: OnnxNode, b: Builder, x: Value) -> Value:
    names = np.array(n.attr("classes_strings", ()), object)
    numbers = np.arange(len(names))
    if x.dtype is dtypes.string:
        rest = np.array(n.attr("default_int64", -1), np.int64)
        return LabelEncoder.make(b, x, names, numbers, rest, n.output_names)
    rest = np.array(n.attr("default_string", "_Unused"), object)
    return LabelEncoder.make(b, x, numbers, names, rest, n.output_names)


def _table(n: OnnxNode, what: str) -> Any:
    tensor = n.attr(f"{what}_tensor")
    if isinstance(tensor, Tensor):
        return tensor.numpy().reshape(-1)
    for name, kind, _ in _KINDS:
        given = n.attr(f"{what}_{name}s")
        if given is not None:
            return np.array(given, kind)
    raise Refusal(f"LabelEncoder has no {what}")
