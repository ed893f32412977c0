"""Constants, and operators that are a reshape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onefold.frontend.onnx.rules import rule
from onefold.frontend.onnx.tensors import SparseTensor, Tensor
from onefold.ir import dims
from onefold.ir.graph import Builder, Value
from onefold.ops.base import Refusal, axis_of
from onefold.ops.formats import OnnxNode
from onefold.ops.known import checked_shape, dims_of
from onefold.ops.movement import Expand
from onefold.ops.shape import Reshape, axes_of, squeezed, unsqueezed


@rule("Constant")
def constant(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """A tensor, sparse tensor, number, list of numbers, or text given as an attribute."""
    given = [(k, v) for k, v in n.attrs.items() if k.startswith(("value", "sparse_value"))]
    if len(given) != 1:
        raise Refusal(f"a constant has one value, not {len(given)}")
    name, v = given[0]
    return [b.const(_array(name, v), name=n.output_names[0] if n.output_names else "c")]


def _array(name: str, v: Any) -> Any:
    if isinstance(v, (Tensor, SparseTensor)):
        return v.numpy()
    if name.startswith("value_int"):
        return np.array(v, np.int64)
    if name.startswith("value_float"):
        return np.array(v, np.float32)
    if name.startswith("value_string"):
        return np.array(v, object)
    raise Refusal(f"attribute {name} of a constant is not understood")


@rule("ConstantOfShape")
def constant_of_shape(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """One value (float32 zero unless given) everywhere."""
    shape = dims_of(n.arg(0), "shape of ConstantOfShape")
    t = n.attr("value")
    one = np.zeros((), np.float32) if t is None else np.reshape(t.numpy(), -1)
    if np.size(one) != 1:
        raise Refusal("the value of ConstantOfShape is not one element")
    v = b.const(np.reshape(one, ()))
    return [b.op(Expand(checked_shape(shape)), v, name=n.output_names)]


@rule("Flatten")
def flatten(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Two axes: the product of those before `axis`, and of the rest."""
    x = n.arg(0)
    rank = len(x.shape)
    given = int(n.attr("axis", 1))
    axis = rank if given == rank else axis_of(given, rank)
    shape = (dims.product(x.shape[:axis]), dims.product(x.shape[axis:]))
    return [b.op(Reshape(shape), x, name=n.output_names)]


@rule("Squeeze")
def squeeze(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Axes of extent 1 taken out."""
    x = n.arg(0)
    return [b.op(Reshape(squeezed(x.shape, axes_of(n, 1, 13))), x, name=n.output_names)]


@rule("Unsqueeze")
def unsqueeze(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """New axes of extent 1."""
    x = n.arg(0)
    axes = axes_of(n, 1, 13)
    if axes is None:
        raise Refusal("Unsqueeze has no axes")
    return [b.op(Reshape(unsqueezed(x.shape, axes)), x, name=n.output_names)]
