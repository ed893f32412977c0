"""The TFLite reader says of every real file what the official generated reader says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onefold.frontend._gen.tflite_schema import ENUMS, OPERATOR_OPTIONS, TABLES
from onefold.frontend.tflite import flexbuffer, reader
from onefold.frontend.tflite.flatbuffer import defaults
from onefold.frontend.tflite.records import Model, Operator, Quantization, Tensor
from tests.frontend.models import parameters

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")


def official(path: Path) -> Any:
    return schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)


def text(value: bytes | None) -> str:
    return value.decode() if value else ""


def listed(value: Any) -> list[Any]:
    return [] if value is None else [v.item() if hasattr(v, "item") else v for v in value]


def camel(name: str) -> str:
    """The attribute of the official object behind a field of ours."""
    return re.sub(r"_(\w)", lambda m: m.group(1).upper(), name)


@pytest.mark.parametrize("path", parameters("tflite"))
def test_equals_the_official_reader(path: Path) -> None:
    ours, theirs = reader.read(path), official(path)
    assert ours.version == theirs.version
    assert ours.description == text(theirs.description)
    assert len(ours.subgraphs) == len(theirs.subgraphs)
    for graph, expected in zip(ours.subgraphs, theirs.subgraphs, strict=True):
        assert graph.name == text(expected.name)
        assert list(graph.inputs) == listed(expected.inputs)
        assert list(graph.outputs) == listed(expected.outputs)
        for tensor, other in zip(graph.tensors, expected.tensors, strict=True):
            same_tensor(tensor, other, theirs)
        for op, other in zip(graph.operators, expected.operators, strict=True):
            same_operator(op, other, theirs)
    same_model_parts(ours, theirs)


def same_tensor(ours: Tensor, theirs: Any, model: Any) -> None:
    assert ours.name == text(theirs.name)
    assert list(ours.shape) == listed(theirs.shape)
    assert list(ours.shape_signature) == listed(theirs.shapeSignature)
    assert ours.dtype == ENUMS["TensorType"][theirs.type].replace("_", "").lower()
    assert ours.is_variable == theirs.isVariable
    assert ours.buffer == theirs.buffer
    assert ours.has_rank == (theirs.hasRank or bool(listed(theirs.shape)))
    assert (ours.sparsity is None) == (theirs.sparsity is None)
    data = model.buffers[theirs.buffer].data
    assert bytes(ours.data or b"") == (b"" if data is None else bytes(data))
    same_quantization(ours.quant, theirs.quantization, ours.shape)


def same_quantization(ours: Quantization | None, theirs: Any, shape: tuple[int, ...]) -> None:
    if ours is None:
        assert theirs is None or (not listed(theirs.scale) and theirs.detailsType == 0)
        return
    np.testing.assert_array_equal(ours.scale, theirs.scale)
    np.testing.assert_array_equal(ours.zero_point, theirs.zeroPoint)
    assert listed(ours.min) == listed(theirs.min)
    assert listed(ours.max) == listed(theirs.max)
    corrected = len(ours.scale) > 1 and len(shape) == 1
    assert ours.axis == (0 if corrected else theirs.quantizedDimension)


def same_operator(ours: Operator, theirs: Any, model: Any) -> None:
    code = model.operatorCodes[theirs.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    assert ours.is_custom == (number == schema.BuiltinOperator.CUSTOM)
    assert ours.name == (text(code.customCode) if ours.is_custom
                         else ENUMS["BuiltinOperator"][number])
    assert ours.version == code.version
    assert list(ours.inputs) == listed(theirs.inputs)
    assert list(ours.outputs) == listed(theirs.outputs)
    assert list(ours.intermediates) == listed(theirs.intermediates)
    assert list(ours.mutating_variable_inputs) == listed(theirs.mutatingVariableInputs)
    assert list(ours.custom_options) == listed(theirs.customOptions)
    assert ours.options_type == ENUMS["BuiltinOptions"][theirs.builtinOptionsType].replace(
        "NONE", "")
    if theirs.builtinOptions is not None and ours.options_type == OPERATOR_OPTIONS.get(ours.name):
        same_options(ours, theirs.builtinOptions)
    elif ours.name in OPERATOR_OPTIONS:
        assert ours.options == defaults(OPERATOR_OPTIONS[ours.name])
    else:
        assert ours.options == {}


def same_options(ours: Operator, theirs: Any) -> None:
    assert {camel(k) for k in ours.options} == set(vars(theirs))
    for _, name, kind, what, _ in TABLES[ours.options_type]:
        value, expected = ours.options[name], getattr(theirs, camel(name))
        if kind == "enum":
            expected = ENUMS[what[1:]][expected]
        elif kind == "numbers":
            value, expected = listed(value), listed(expected)
        elif kind == "string":
            value, expected = value or "", text(expected)
        assert value == expected, (ours.name, name)


def same_model_parts(ours: Model, theirs: Any) -> None:
    for name, signature in zip(ours.signatures, theirs.signatureDefs or (), strict=True):
        assert name.key == text(signature.signatureKey)
        assert name.subgraph == signature.subgraphIndex
        assert dict(name.inputs) == {text(m.name): m.tensorIndex for m in signature.inputs}
        assert dict(name.outputs) == {text(m.name): m.tensorIndex for m in signature.outputs}
    expected = {text(m.name): model_bytes(theirs, m.buffer) for m in theirs.metadata or ()}
    assert {k: bytes(v) for k, v in ours.metadata.items()} == expected


def model_bytes(model: Any, buffer: int) -> bytes:
    data = model.buffers[buffer].data
    return b"" if data is None else bytes(data)


@pytest.mark.parametrize("path", parameters("tflite"))
def test_constants_become_arrays(path: Path) -> None:
    """Every constant's array has its shape and, put back into bytes, the file's own bytes."""
    for graph in reader.read(path).subgraphs:
        for tensor in graph.tensors:
            if tensor.data is None or tensor.dtype in ("string", "bool") or tensor.sparsity:
                continue
            array = tensor.numpy()
            assert array.shape == tensor.shape
            assert array.tobytes() == bytes(tensor.data[:array.nbytes])


@pytest.mark.parametrize("path", parameters("tflite"))
def test_custom_options_equal_the_official_flexbuffers(path: Path) -> None:
    from flatbuffers import flexbuffers
    for graph in reader.read(path).subgraphs:
        for op in graph.operators:
            # The compiled programs of accelerators are not FlexBuffers.
            if op.is_custom and op.name not in ("ethos-u", "edgetpu-custom-op"):
                raw = bytes(op.custom_options)
                assert flexbuffer.options(raw) == (flexbuffers.Loads(raw) if raw else {})


@pytest.mark.parametrize(("small", "owner"), [(1 << 40, "bytes"), (0, "mmap")])
def test_weights_are_views_of_the_file(
    small: int, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onefold.frontend.source.SMALL", small)
    paths = [p.values[0] for p in parameters("tflite")]
    if not paths[0].exists():
        pytest.skip("no models: set ONEFOLD_TESTDATA")
    model = reader.read(paths[0])
    constants = [t for t in model.subgraphs[0].tensors if t.data is not None]
    owners = {type(t.data.obj).__name__ for t in constants if t.data is not None}
    assert constants and owners == {owner}
    assert not any(t.numpy().flags.owndata for t in constants if t.dtype == "float32")
