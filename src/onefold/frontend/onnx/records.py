"""What an ONNX file says, as plain records: no graph, no inference, no copies of weights.

The importer walks these.  Names are text as in the file (bytes that are not UTF-8 appear as
`\\xNN`); nothing relates a name to another here.  Sequences are tuples, and empty where the file
gives nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onefold.frontend.onnx.tensors import SparseTensor, Tensor

Dim = int | str | None
"""An extent, a symbol such as `batch`, or None where the file leaves it open."""


@dataclass(frozen=True, slots=True)
class TensorType:
    """`dtype` as in `Tensor`; `shape` is None where even the rank is not given."""

    dtype: str
    shape: tuple[Dim, ...] | None
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class SequenceType:
    elem: Type | None


@dataclass(frozen=True, slots=True)
class OptionalType:
    elem: Type | None


@dataclass(frozen=True, slots=True)
class MapType:
    key: str
    value: Type | None


@dataclass(frozen=True, slots=True)
class OpaqueType:
    domain: str
    name: str


Type = TensorType | SequenceType | OptionalType | MapType | OpaqueType


@dataclass(frozen=True, slots=True)
class ValueInfo:
    """A name and its type; the type is None where the file gives none."""

    name: str
    type: Type | None


@dataclass(frozen=True, slots=True)
class AttributeRef:
    """Inside a function: the value of the caller's attribute `name` (absent if that is absent).

    `type` is the attribute type of ONNX, such as `INTS`.
    """

    name: str
    type: str


Attribute = (int | float | str | bytes | Tensor | SparseTensor | Type | AttributeRef
             | tuple[int, ...] | tuple[float, ...] | tuple[str | bytes, ...] | tuple[Tensor, ...]
             | tuple[SparseTensor, ...] | tuple[Type | None, ...])
"""A value of an attribute, except for graphs (`Graph`, `tuple[Graph, ...]`)."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operator call.  An empty name in `inputs` or `outputs` stands for an absent one.

    `domain` is `""` for ONNX's own operators (`ai.onnx` is written so too).  `attributes` holds
    ints, floats (doubles of the stored float32), str (bytes where not UTF-8), `Tensor`,
    `SparseTensor`, `Graph`, types, `AttributeRef`, and tuples of them.
    """

    name: str
    op_type: str
    domain: str
    overload: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute | Graph | tuple[Graph, ...]]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in the file's order, which need not be one of execution."""

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    value_infos: tuple[ValueInfo, ...]
    initializers: tuple[Tensor, ...]
    sparse_initializers: tuple[SparseTensor, ...]
    quantization: Mapping[str, Mapping[str, str]]
    """Tensor name -> parameter (`SCALE_TENSOR`, `ZERO_POINT_TENSOR`) -> tensor name."""
    doc: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Function:
    """An operator defined by the model itself.

    `attributes` are the names it takes without a default, `defaults` those with one.
    """

    name: str
    domain: str
    overload: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[str, ...]
    defaults: Mapping[str, Attribute | Graph | tuple[Graph, ...]]
    nodes: tuple[Node, ...]
    opset: Mapping[str, int]
    value_infos: tuple[ValueInfo, ...]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Model:
    """A whole file.  `opset` gives the version of each operator domain (`""` = ONNX's own)."""

    ir_version: int
    producer: str
    producer_version: str
    domain: str
    model_version: int
    opset: Mapping[str, int]
    graph: Graph
    functions: tuple[Function, ...]
    metadata: Mapping[str, str]
    doc: str
