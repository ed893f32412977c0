"""What operators see of a source node while it is imported."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onefold.ir import dtypes
from onefold.ir.graph import Graph, Value
from onefold.ir.types import TensorType


class Given(list[Any]):
    """Inputs or types of results; asking for one that is not there is a Refusal."""

    what = "input"

    def __getitem__(self, i: Any) -> Any:
        try:
            return super().__getitem__(i)
        except IndexError:
            from onefold.ops.base import Refusal

            raise Refusal(f"it has no {self.what} {i}") from None


class GivenTypes(Given):
    what = "result"


def _field_value(f: dataclasses.Field[Any], v: Any) -> Any:
    kind = str(f.type)
    if kind.startswith("bool"):
        return bool(v)
    if kind.startswith("float") and not isinstance(v, (list, tuple)):
        return float(v)
    if isinstance(v, bytes):
        return v.decode("utf-8", "replace")
    if isinstance(v, (list, np.ndarray)):
        return tuple(x.item() if hasattr(x, "item") else x for x in v)
    return v


@dataclass(frozen=True)
class OnnxNode:
    """One ONNX node: attributes as Python values, inputs as values of our graph.

    `opset` is the version of the node's own domain. Graph attributes are imported by `region`.
    """

    op_type: str
    domain: str
    opset: int
    name: str
    attrs: Mapping[str, Any]
    inputs: Sequence[Value | None]
    output_names: Sequence[str]
    importer: Any = None

    def attr(self, name: str, default: Any = None) -> Any:
        v = self.attrs.get(name, default)
        v = v.decode("utf-8", "replace") if isinstance(v, bytes) else v
        if isinstance(default, (int, float)) and not isinstance(v, (int, float)):
            from onefold.ops.base import Refusal

            raise Refusal(f"the attribute '{name}' is not a number")
        return v

    def dtype(self, name: str) -> dtypes.DType | None:
        """The element type that an attribute names: a number, a text before opset 6.

        None where the attribute is left out or 0. Raises Refusal for an unknown one.
        """
        from onefold.frontend._gen.onnx_schema import DATA_TYPES
        from onefold.ops.base import Refusal

        v = self.attr(name)
        if v is None or v == 0:
            return None
        text = str(DATA_TYPES.get(v, v) if isinstance(v, int) else v).lower()
        kind = dtypes.BY_NAME.get({"float": "float32", "double": "float64"}.get(text, text))
        if kind is None:
            raise Refusal(f"{name} names the unknown element type {v}")
        return kind

    def fields(self, cls: type) -> dict[str, Any]:
        """Constructor arguments of an operator class from the attributes of the same names."""
        out = {}
        for f in dataclasses.fields(cls):
            if f.name in self.attrs:
                out[f.name] = _field_value(f, self.attrs[f.name])
        return out

    def input(self, i: int) -> Value | None:
        return self.inputs[i] if i < len(self.inputs) else None

    def arg(self, i: int) -> Value:
        v = self.input(i)
        if v is None:
            from onefold.ops.base import Refusal

            raise Refusal(f"{self.op_type} needs its input {i}")
        return v

    def tensor(self, i: int) -> Value:
        """Input i, a tensor. Raises Refusal."""
        v = self.arg(i)
        if not isinstance(v.type, TensorType):
            from onefold.ops.base import Refusal

            raise Refusal(f"input {i} is a {v.type}, and {self.op_type} takes tensors")
        return v

    def wants(self, i: int) -> bool:
        """True where output i is asked for."""
        return i < len(self.output_names) and bool(self.output_names[i])

    def region(self, attr: str, inputs: Sequence[Value]) -> Graph:
        """The graph attribute `attr`, imported, its formal inputs bound to `inputs`."""
        graph: Graph = self.importer.region(self.attrs[attr], inputs)
        return graph


@dataclass(frozen=True)
class TfliteNode:
    """One TFLite operator: options by name, inputs as values of our graph."""

    op_type: str
    version: int
    name: str
    options: Mapping[str, Any]
    inputs: Sequence[Value | None]
    output_names: Sequence[str]
    output_types: Sequence[TensorType]
    custom_options: bytes = b""
    importer: Any = None
    intermediates: Sequence[TensorType] = field(default_factory=tuple)

    def option(self, name: str, default: Any = None) -> Any:
        return self.options.get(name, default)

    def fields(self, cls: type) -> dict[str, Any]:
        out = {}
        for f in dataclasses.fields(cls):
            if f.name in self.options:
                out[f.name] = _field_value(f, self.options[f.name])
        return out

    def input(self, i: int) -> Value | None:
        return self.inputs[i] if i < len(self.inputs) else None

    def arg(self, i: int) -> Value:
        v = self.input(i)
        if v is None:
            from onefold.ops.base import Refusal

            raise Refusal(f"{self.op_type} needs its input {i}")
        return v

    @property
    def quantized(self) -> bool:
        """True where the result is an integer tensor with a scale."""
        t = self.output_types[0]
        return t.quant is not None and t.dtype in (dtypes.i8, dtypes.u8, dtypes.i16)
