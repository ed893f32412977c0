"""Asserts that our ONNX records say what the official protobuf objects say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onefold.frontend.onnx import records as r
from onefold.frontend.onnx.reader import DTYPES
from onefold.frontend.onnx.tensors import SparseTensor, Tensor

A = onnx.AttributeProto


def same_model(ours: r.Model, theirs: onnx.ModelProto) -> None:
    assert ours.ir_version == theirs.ir_version
    assert (ours.producer, ours.producer_version) == (theirs.producer_name,
                                                      theirs.producer_version)
    assert (ours.domain, ours.model_version, ours.doc) == (theirs.domain, theirs.model_version,
                                                           theirs.doc_string)
    assert ours.opset == opset(theirs.opset_import)
    assert ours.metadata == pairs(theirs.metadata_props)
    same_graph(ours.graph, theirs.graph)
    for function, expected in zip(ours.functions, theirs.functions, strict=True):
        same_function(function, expected)


def opset(entries: Sequence[onnx.OperatorSetIdProto]) -> dict[str, int]:
    return {domain(e.domain): e.version for e in entries}


def domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def pairs(entries: Sequence[onnx.StringStringEntryProto]) -> dict[str, str]:
    return {e.key: e.value for e in entries}


def same_graph(ours: r.Graph, theirs: onnx.GraphProto) -> None:
    assert (ours.name, ours.doc) == (theirs.name, theirs.doc_string)
    assert ours.metadata == pairs(theirs.metadata_props)
    assert ours.quantization == {a.tensor_name: pairs(a.quant_parameter_tensor_names)
                                 for a in theirs.quantization_annotation}
    for mine, other in ((ours.inputs, theirs.input), (ours.outputs, theirs.output),
                        (ours.value_infos, theirs.value_info)):
        for value, expected in zip(mine, other, strict=True):
            assert value.name == expected.name
            same_type(value.type, expected.type if expected.HasField("type") else None)
    for tensor, other in zip(ours.initializers, theirs.initializer, strict=True):
        same_tensor(tensor, other)
    for sparse, other in zip(ours.sparse_initializers, theirs.sparse_initializer, strict=True):
        same_sparse(sparse, other)
    same_nodes(ours.nodes, theirs.node)


def same_function(ours: r.Function, theirs: onnx.FunctionProto) -> None:
    assert (ours.name, ours.domain, ours.overload) == (theirs.name, domain(theirs.domain),
                                                       theirs.overload)
    assert ours.inputs == tuple(theirs.input) and ours.outputs == tuple(theirs.output)
    assert ours.attributes == tuple(theirs.attribute)
    assert ours.opset == opset(theirs.opset_import)
    same_attributes(ours.defaults, theirs.attribute_proto)
    same_nodes(ours.nodes, theirs.node)


def same_nodes(ours: Sequence[r.Node], theirs: Sequence[onnx.NodeProto]) -> None:
    for node, expected in zip(ours, theirs, strict=True):
        assert (node.name, node.op_type) == (expected.name, expected.op_type)
        assert (node.domain, node.overload) == (domain(expected.domain), expected.overload)
        assert node.inputs == tuple(expected.input)
        assert node.outputs == tuple(expected.output)
        assert node.metadata == pairs(expected.metadata_props)
        same_attributes(node.attributes, expected.attribute)


def same_attributes(ours: Mapping[str, Any], theirs: Sequence[onnx.AttributeProto]) -> None:
    assert list(ours) == [a.name for a in theirs]
    for attribute in theirs:
        same_attribute(ours[attribute.name], attribute)


def same_attribute(ours: Any, theirs: onnx.AttributeProto) -> None:
    if theirs.ref_attr_name:
        assert ours == r.AttributeRef(theirs.ref_attr_name, A.AttributeType.Name(theirs.type))
        return
    single = {A.TENSOR: same_tensor, A.GRAPH: same_graph, A.SPARSE_TENSOR: same_sparse,
              A.TYPE_PROTO: same_type}
    several = {A.TENSORS: same_tensor, A.GRAPHS: same_graph, A.SPARSE_TENSORS: same_sparse,
               A.TYPE_PROTOS: same_type}
    expected = onnx.helper.get_attribute_value(theirs)
    if theirs.type in single:
        single[theirs.type](ours, expected)
    elif theirs.type in several:
        for mine, other in zip(ours, expected, strict=True):
            several[theirs.type](mine, other)
    elif theirs.type == A.STRING:
        assert raw(ours) == expected
    elif theirs.type == A.STRINGS:
        assert [raw(s) for s in ours] == list(expected)
    elif theirs.type in (A.FLOATS, A.INTS):
        assert isinstance(ours, tuple)
        np.testing.assert_array_equal(ours, tuple(expected))
    else:
        assert type(ours) is type(expected)
        np.testing.assert_array_equal(ours, expected)


def raw(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def same_type(ours: r.Type | None, theirs: onnx.TypeProto | None) -> None:
    which = theirs.WhichOneof("value") if theirs is not None else None
    if which is None or theirs is None:
        assert ours is None
    elif which in ("tensor_type", "sparse_tensor_type"):
        assert isinstance(ours, r.TensorType)
        expected = getattr(theirs, which)
        assert ours.dtype == DTYPES[expected.elem_type]
        assert ours.sparse == (which == "sparse_tensor_type")
        assert ours.shape == (shape(expected.shape) if expected.HasField("shape") else None)
    elif which == "map_type":
        assert isinstance(ours, r.MapType) and ours.key == DTYPES[theirs.map_type.key_type]
        same_type(ours.value, theirs.map_type.value_type)
    elif which == "opaque_type":
        assert ours == r.OpaqueType(theirs.opaque_type.domain, theirs.opaque_type.name)
    else:
        kind = r.SequenceType if which == "sequence_type" else r.OptionalType
        assert isinstance(ours, kind)
        same_type(ours.elem, getattr(theirs, which).elem_type)


def shape(theirs: onnx.TensorShapeProto) -> tuple[r.Dim, ...]:
    def one(d: Any) -> r.Dim:
        if d.HasField("dim_value"):
            return d.dim_value if d.dim_value >= 0 else None
        return d.dim_param or None
    return tuple(one(d) for d in theirs.dim)


def same_tensor(ours: Tensor, theirs: onnx.TensorProto) -> None:
    assert ours.name == theirs.name
    assert ours.dtype == DTYPES[theirs.data_type]
    assert ours.dims == tuple(theirs.dims)
    if ours.is_external:
        return
    mine, expected = ours.numpy(), numpy_helper.to_array(theirs)
    assert mine.shape == expected.shape
    if ours.dtype == "string":
        assert [raw(s) for s in mine.ravel()] == [raw(s) for s in expected.ravel()]
        return
    assert mine.dtype == expected.dtype
    assert mine.tobytes() == expected.tobytes()


def same_sparse(ours: SparseTensor, theirs: onnx.SparseTensorProto) -> None:
    same_tensor(ours.values, theirs.values)
    same_tensor(ours.indices, theirs.indices)
    assert ours.dims == tuple(theirs.dims)
    dense = np.zeros(ours.dims, ours.values.numpy().dtype)
    indices = numpy_helper.to_array(theirs.indices)
    if indices.ndim == 1:
        dense.flat[indices] = numpy_helper.to_array(theirs.values)
    else:
        for where, value in zip(indices, numpy_helper.to_array(theirs.values), strict=True):
            dense[tuple(where)] = value
    np.testing.assert_array_equal(ours.numpy(), dense)
