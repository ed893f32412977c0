"""Reads an ONNX file into the records of `frontend.onnx.records`.

No part of the `onnx` package touches the file: it is mapped, decoded by `frontend.onnx.wire`
through the generated schema, and weights stay views of the mapping.  There is no 2 GB limit.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from onefold.errors import ModelFormatError
from onefold.frontend import elements
from onefold.frontend._gen.onnx_schema import ATTRIBUTE_TYPES, DATA_TYPES
from onefold.frontend.onnx import records as r
from onefold.frontend.onnx.tensors import SparseTensor, Tensor, text_or_bytes
from onefold.frontend.onnx.wire import (
    Plan,
    Reading,
    Values,
    WireError,
    decode,
    make_plans,
)
from onefold.frontend.source import Bytes, Source, open_source

_RENAMED = {"FLOAT": "float32", "DOUBLE": "float64"}
DTYPES = {number: _RENAMED.get(name, name.lower()) for number, name in DATA_TYPES.items()}
"""ONNX's numbers of element types and their names here."""

_EMPTY: Mapping[str, Any] = MappingProxyType({})


def read(model: str | os.PathLike[str] | Bytes | Source | Any, *,
         folder: str | os.PathLike[str] | None = None) -> r.Model:
    """The records of an ONNX model: a path (mapped), bytes, a `Source`, or an `onnx.ModelProto`.

    `folder` is where external data is looked for when `model` is not a path.
    Raises `ModelFormatError` for anything that is not a well-formed ONNX model; an error in the
    data of a tensor shows when its `numpy()` or `raw()` is called.
    """
    if not isinstance(model, (str, os.PathLike, bytes, bytearray, memoryview, Source)):
        model = serialised(model)
    source = model if isinstance(model, Source) else open_source(model, folder=folder)
    reading = Reading(source)
    try:
        made = decode(_PLANS["ModelProto"], source.data, 0, len(source.data), reading)
    except WireError as error:
        raise reading.bad(error.what, f"at byte {error.pos} of {len(source.data)}") from None
    except IndexError:
        raise reading.bad("it ends in the middle of a field",
                          f"after {len(source.data)} bytes") from None
    assert isinstance(made, r.Model)
    return made


def serialised(proto: Any) -> bytes:
    """The bytes of an `onnx.ModelProto`, which protobuf cannot write beyond 2 GB."""
    if not hasattr(proto, "SerializeToString") or not hasattr(proto, "graph"):
        raise ModelFormatError(
            f"a model cannot be read from a {type(proto).__name__}", kind=ModelFormatError.UNKNOWN,
            remedy="Give a path, bytes, or an onnx.ModelProto.")
    try:
        return bytes(proto.SerializeToString())
    except Exception as error:  # protobuf's own error classes differ between its versions
        raise ModelFormatError(
            "the ModelProto cannot be serialised", why=f"{type(error).__name__}: {error}",
            remedy="A model over 2 GB must be saved with its weights beside it: "
                   "onnx.save(model, path, save_as_external_data=True); then load the path."
        ) from None


# --- makers: slot values -> record, one per message ---


def _pairs(entries: list[tuple[str, str]] | None) -> Mapping[str, str]:
    return dict(entries) if entries else _EMPTY


def _domain(name: str | None) -> str:
    return "" if name is None or name == "ai.onnx" else name


def _dtype(number: int | None) -> str:
    return DTYPES.get(number or 0) or f"UNKNOWN_{number}"


def _entry(v: Values, _: Reading) -> tuple[str, str]:
    return v[0] or "", v[1] or ""


def _opset(v: Values, _: Reading) -> tuple[str, int]:
    return _domain(v[0]), v[1] or 0


def _opsets(entries: list[tuple[str, int]] | None, reading: Reading) -> dict[str, int]:
    opset: dict[str, int] = {}
    for domain, version in entries or ():
        if opset.setdefault(domain, version) != version:
            raise reading.bad(f"two versions of operator set '{domain or 'ai.onnx'}'",
                              f"versions {opset[domain]} and {version}")
    return opset


def _model(v: Values, reading: Reading) -> r.Model:
    (ir_version, producer, producer_version, domain, model_version, opset, graph, functions,
     metadata, doc) = v
    if graph is None:
        raise reading.bad("there is no graph", "the field 'graph' is missing")
    opsets = _opsets(opset, reading)
    if not opsets:
        if (ir_version or 0) >= 3:
            raise reading.bad("no operator set is named", "the field 'opset_import' is missing")
        opsets = {"": 1}  # IR versions 1 and 2 had no such field
    return r.Model(ir_version or 0, producer or "", producer_version or "", domain or "",
                   model_version or 0, opsets, graph, tuple(functions or ()), _pairs(metadata),
                   doc or "")


def _graph(v: Values, _: Reading) -> r.Graph:
    (name, nodes, inputs, outputs, value_infos, initializers, sparse, quantization, doc,
     metadata) = v
    return r.Graph(name or "", tuple(nodes or ()), tuple(inputs or ()), tuple(outputs or ()),
                   tuple(value_infos or ()), tuple(initializers or ()), tuple(sparse or ()),
                   dict(quantization) if quantization else _EMPTY, doc or "", _pairs(metadata))


def _annotation(v: Values, _: Reading) -> tuple[str, Mapping[str, str]]:
    return v[0] or "", _pairs(v[1])


def _function(v: Values, reading: Reading) -> r.Function:
    (name, domain, overload, inputs, outputs, attributes, defaults, nodes, opset, value_infos,
     metadata) = v
    where = f"function '{(name or '')[:80]}'"
    return r.Function(name or "", _domain(domain), overload or "", tuple(inputs or ()),
                      tuple(outputs or ()), tuple(attributes or ()),
                      _attributes(defaults, reading, where), tuple(nodes or ()),
                      _opsets(opset, reading), tuple(value_infos or ()), _pairs(metadata))


def _node(v: Values, reading: Reading) -> r.Node:
    inputs, outputs, name, op_type, domain, overload, attributes, metadata = v
    if not op_type:
        raise reading.bad("a node has no operator type", where=f"node '{(name or '')[:80]}'")
    where = f"node '{(name or '')[:80]}' ({op_type[:80]})"
    return r.Node(name or "", op_type, _domain(domain), overload or "", tuple(inputs or ()),
                  tuple(outputs or ()),
                  _attributes(attributes, reading, where) if attributes else _EMPTY,
                  _pairs(metadata))


def _attributes(entries: list[tuple[str, Any]] | None, reading: Reading,
                where: str) -> Mapping[str, Any]:
    made = dict(entries or ())
    if len(made) != len(entries or ()):
        raise reading.bad("an attribute is given twice", where=where)
    return made


_SCALARS = ("f", "i", "s", "t", "g", "sparse_tensor", "tp")
_LISTS = ("floats", "ints", "strings", "tensors", "graphs", "sparse_tensors", "type_protos")
_VALUE_FIELDS = _SCALARS + _LISTS
_SLOT_OF_TYPE = {
    "FLOAT": 0, "INT": 1, "STRING": 2, "TENSOR": 3, "GRAPH": 4, "SPARSE_TENSOR": 5,
    "TYPE_PROTO": 6, "FLOATS": 7, "INTS": 8, "STRINGS": 9, "TENSORS": 10, "GRAPHS": 11,
    "SPARSE_TENSORS": 12, "TYPE_PROTOS": 13,
}
_ZERO: dict[str, Any] = {"FLOAT": 0.0, "INT": 0, "STRING": ""}


def _attribute(v: Values, reading: Reading) -> tuple[str, Any]:
    name, reference, number, *values = v
    where = f"attribute '{(name or '')[:80]}'"
    kind = ATTRIBUTE_TYPES.get(number or 0, "")
    if reference:
        return name or "", r.AttributeRef(reference, kind)
    if kind == "UNDEFINED":
        # IR version 1 had no type field: the value present tells it.
        kind = next((k for k, slot in _SLOT_OF_TYPE.items() if values[slot] is not None), "")
    if not kind:
        raise reading.bad("an attribute has no type", where=where)
    value = values[_SLOT_OF_TYPE[kind]]
    if kind == "STRING" and value is not None:
        value = text_or_bytes(value)
    elif kind == "STRINGS":
        value = tuple(map(text_or_bytes, value or ()))
    elif kind.endswith("S"):
        value = tuple(value or ())
    if value is None:
        value = _ZERO.get(kind)
        if value is None:
            raise reading.bad(f"an attribute of type {kind} has no value", where=where)
    return name or "", value


def _tensor(v: Values, reading: Reading) -> Tensor:
    (dims, data_type, name, raw, external, location, segment, strings, *typed) = v
    fields = {k: s for k, s in zip(_TYPED, typed, strict=True) if s is not None}
    tensor = Tensor(
        name=name or "", dtype=_dtype(data_type), dims=tuple(dims or ()), raw_data=raw,
        fields=fields or _EMPTY, strings=tuple(strings or ()), source=reading.source,
        external=dict(external or ()) if location == 1 else None)
    if segment:
        raise reading.bad("a tensor is split into segments", "no exporter writes such, and their "
                          "meaning was never defined", where=tensor.where)
    count = tensor.count
    if raw is not None and location != 1 and tensor.dtype in elements.BITS:
        need = elements.byte_count(tensor.dtype, count)
        if len(raw) != need:
            raise ModelFormatError("tensor data has the wrong length", where=tensor.where,
                                   why=f"{count} elements of {tensor.dtype} take {need} bytes, "
                                       f"the file gives {len(raw)}")
    return tensor


_TYPED = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def _segment(v: Values, _: Reading) -> bool:
    return True


def _sparse_tensor(v: Values, reading: Reading) -> SparseTensor:
    values, indices, dims = v
    if values is None or indices is None:
        raise reading.bad("a sparse tensor has no values or no indices")
    return SparseTensor(values, indices, tuple(dims or ()))


def _value_info(v: Values, _: Reading) -> r.ValueInfo:
    return r.ValueInfo(v[0] or "", v[1])


def _dimension(v: Values, _: Reading) -> r.Dim:
    value, symbol = v
    if value is not None:
        return int(value) if value >= 0 else None  # some exporters write -1 for "open"
    return symbol or None


def _shape(v: Values, _: Reading) -> tuple[r.Dim, ...]:
    return tuple(v[0] or ())


def _type(v: Values, _: Reading) -> r.Type | None:
    made: r.Type | None = next((x for x in v if x is not None), None)
    return made


_TYPE_FIELDS = ("tensor_type", "sequence_type", "map_type", "optional_type",
                "sparse_tensor_type", "opaque_type")

# message -> (wanted fields in the order its maker unpacks them, bytes its record takes, maker)
_PLANS: dict[str, Plan] = make_plans({
    "ModelProto": (("ir_version", "producer_name", "producer_version", "domain", "model_version",
                    "opset_import", "graph", "functions", "metadata_props", "doc_string"),
                   1000, _model),
    "GraphProto": (("name", "node", "input", "output", "value_info", "initializer",
                    "sparse_initializer", "quantization_annotation", "doc_string",
                    "metadata_props"), 700, _graph),
    "FunctionProto": (("name", "domain", "overload", "input", "output", "attribute",
                       "attribute_proto", "node", "opset_import", "value_info",
                       "metadata_props"), 1000, _function),
    "NodeProto": (("input", "output", "name", "op_type", "domain", "overload", "attribute",
                   "metadata_props"), 150, _node),
    "AttributeProto": (("name", "ref_attr_name", "type", *_VALUE_FIELDS), 150, _attribute),
    "TensorProto": (("dims", "data_type", "name", "raw_data", "external_data", "data_location",
                     "segment", "string_data", *_TYPED), 500, _tensor),
    "TensorProto.Segment": ((), 16, _segment),
    "SparseTensorProto": (("values", "indices", "dims"), 150, _sparse_tensor),
    "ValueInfoProto": (("name", "type"), 80, _value_info),
    "TypeProto": (_TYPE_FIELDS, 10, _type),
    "TypeProto.Tensor": (("elem_type", "shape"), 80,
                         lambda v, _: r.TensorType(_dtype(v[0]), v[1])),
    "TypeProto.SparseTensor": (("elem_type", "shape"), 100,
                               lambda v, _: r.TensorType(_dtype(v[0]), v[1], sparse=True)),
    "TypeProto.Sequence": (("elem_type",), 60, lambda v, _: r.SequenceType(v[0])),
    "TypeProto.Optional": (("elem_type",), 60, lambda v, _: r.OptionalType(v[0])),
    "TypeProto.Map": (("key_type", "value_type"), 100,
                      lambda v, _: r.MapType(_dtype(v[0]), v[1])),
    "TypeProto.Opaque": (("domain", "name"), 60,
                         lambda v, _: r.OpaqueType(v[0] or "", v[1] or "")),
    "TensorShapeProto": (("dim",), 60, _shape),
    "TensorShapeProto.Dimension": (("dim_value", "dim_param"), 40, _dimension),
    "StringStringEntryProto": (("key", "value"), 100, _entry),
    "TensorAnnotation": (("tensor_name", "quant_parameter_tensor_names"), 150, _annotation),
    "OperatorSetIdProto": (("domain", "version"), 150, _opset),
})
