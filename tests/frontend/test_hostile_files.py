"""Files made to harm: each ends in records or a clear error, in bounded time and memory."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onefold.dev.fuzz_readers import READERS, attempt, fuzz, read_onnx, read_tflite
from onefold.dev.mutate import KINDS, mutate, tflite_sites
from onefold.errors import ModelFormatError
from onefold.frontend.onnx import reader as onnx_reader
from onefold.frontend.source import open_source
from onefold.frontend.tflite import flexbuffer
from onefold.frontend.tflite import reader as tflite_reader
from tests.frontend.models import parameters, real

flatbuffers = pytest.importorskip("flatbuffers")


def survives(read: Callable[[bytes], None], data: bytes) -> str:
    """The message of the refusal, `""` when it was read; fails when neither."""
    outcome, what = attempt(read, data)
    assert outcome != "failed", what
    return what


# --- protobuf by hand ---


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def part(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value % (1 << 64))


def model(graph: bytes) -> bytes:
    return number(1, 8) + part(8, number(2, 17)) + part(7, graph)


def node(op_type: bytes = b"Relu", more: bytes = b"") -> bytes:
    return part(1, part(1, b"x") + part(2, b"y") + part(4, op_type) + more)


def initializer(dims: list[int], data_type: int = 1, more: bytes = b"") -> bytes:
    return part(5, b"".join(number(1, d) for d in dims) + number(2, data_type) + part(8, b"w")
                + more)


def read_initializer(raw: bytes, **more: object) -> object:
    return onnx_reader.read(model(raw), **more).graph.initializers[0].numpy()  # type: ignore[arg-type]


SMALL_ONNX = model(node() + initializer([2], 1, part(9, bytes(8)))
                   + part(11, part(1, b"x") + part(2, part(1, number(1, 1) + part(
                       2, part(1, number(1, 3)) + part(1, part(2, b"n"))))))
                   + node(b"If", part(5, part(1, b"then_branch") + number(20, 5)
                                      + part(6, node(b"Abs")))))


def test_every_prefix_of_a_small_onnx_model() -> None:
    assert survives(read_onnx, SMALL_ONNX) == ""
    refused = [survives(read_onnx, SMALL_ONNX[:n]) for n in range(len(SMALL_ONNX))]
    assert all(refused), "a file cut off anywhere inside the graph is no model"
    assert all(r.startswith(("malformed ONNX file", "tensor data")) for r in refused)


@pytest.mark.parametrize("path", parameters("onnx", 300_000))
def test_prefixes_of_real_onnx_models(path: Path) -> None:
    data = path.read_bytes()
    for n in range(0, len(data), 97):
        survives(read_onnx, data[:n])


@pytest.mark.parametrize("path", parameters("tflite", 3_000))
def test_every_prefix_of_a_small_tflite_model(path: Path) -> None:
    data = path.read_bytes()
    refused = [survives(read_tflite, data[:n]) for n in range(len(data))]
    # The tail of a FlatBuffer may be a table that nothing needs to be complete.
    assert sum(map(bool, refused)) > 0.99 * len(data)


@pytest.mark.parametrize("value", [0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
@pytest.mark.parametrize("path", parameters("tflite", 3_000))
def test_every_word_of_a_small_tflite_model_wild(path: Path, value: int) -> None:
    data = path.read_bytes()
    for pos in range(0, len(data) - 3, 4):
        survives(read_tflite, data[:pos] + value.to_bytes(4, "little") + data[pos + 4:])


@pytest.mark.parametrize("raw,message", [
    (b"", "there is no graph"),
    (b"\x0a", "it ends in the middle of a field"),
    (number(1, 8), "there is no graph"),
    (number(1, 8) + part(7, b""), "no operator set is named"),
    (b"\x08" + b"\xff" * 10, "a number is longer than ten bytes"),
    (b"\x3a\xff\xff\xff\xff\x0f", "a length of 4294967295 runs past the end"),
    (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "a length of 18446744073709551615 runs"),
    (b"\x0f", "wire type 7 makes no sense"),
    (b"\x0c", "wire type 4 makes no sense"),
    (b"\x00\x00", "field number 0"),
    (b"\xa3\x06" * 200, "nested too deeply"),
    (b"\xa3\x06", "a group does not end"),
    (model(part(1, part(1, b"x"))), "a node has no operator type"),
    (model(node()) + part(7, node()), "a GraphProto that may come once comes twice"),
    (model(node(more=part(5, part(1, b"a")))), "an attribute has no type"),
    (model(node(more=part(5, part(1, b"a") + number(20, 77)))), "an attribute has no type"),
    (model(node(more=part(5, part(1, b"a") + number(20, 4)))),
     "an attribute of type TENSOR has no value"),
    (model(node(more=part(5, part(1, b"a") + number(20, 2)) * 2)), "an attribute is given twice"),
    (model(node()) + part(8, number(2, 18)), "two versions of operator set 'ai.onnx'"),
    (model(part(15, b"")), "a sparse tensor has no values or no indices"),
    (model(initializer([1], 1, part(3, number(1, 0)))), "a tensor is split into segments"),
    (model(initializer([-1])), "negative dimension"),
    (model(initializer([2**31] * 3)), "shape overflows"),
    (model(initializer([2**62, 2])), "shape overflows"),
    (model(initializer([2**31, 2**31, 0])), "shape overflows"),  # found by fuzzing
    (model(initializer([1] * 65)), "too many dimensions"),
    (model(initializer([2**31], 1, part(9, bytes(4)))), "tensor data has the wrong length"),
])
def test_malformed_onnx(raw: bytes, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message) as error:
        onnx_reader.read(raw)
    assert "<bytes>" in str(error.value) and "next:" in str(error.value)


@pytest.mark.parametrize("more", [
    b"", part(9, b""), part(4, b"\0\0\0\0\0"), part(4, bytes(12)), part(7, b"\x01"),
])
def test_constants_with_wrong_data(more: bytes) -> None:
    with pytest.raises(ModelFormatError, match="wrong length"):
        read_initializer(initializer([2], 1, more))


@pytest.mark.parametrize("more,message", [
    (part(7, b"\x80"), "a packed number does not end"),
    (part(7, b"\x01\x80"), "a packed number does not end"),
    (part(7, b"\xff" * 10 + b"\x01"), "longer than ten bytes"),
])
def test_packed_numbers_that_are_none(more: bytes, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        read_initializer(initializer([2], 7, more))


def test_element_types_that_are_none() -> None:
    for data_type in (0, 99, -1):
        with pytest.raises(ModelFormatError, match="element type"):
            read_initializer(initializer([0], data_type))


def nested_graphs(depth: int) -> bytes:
    graph = node()
    for _ in range(depth):
        graph = node(b"If", part(5, part(1, b"b") + number(20, 5) + part(6, graph)))
    return model(graph)


def nested_types(depth: int) -> bytes:
    kind = part(1, number(1, 1))
    for _ in range(depth):
        kind = part(4, part(1, kind))
    return model(part(11, part(1, b"x") + part(2, kind)))


@pytest.mark.parametrize("make", [nested_graphs, nested_types])
def test_nesting_is_limited(make: Callable[[int], bytes]) -> None:
    onnx_reader.read(make(30))
    for depth in (60, 1000, 3000):
        with pytest.raises(ModelFormatError, match="nested too deeply"):
            onnx_reader.read(make(depth))


@pytest.mark.parametrize("piece", [
    part(11, b""), part(1, part(4, b"A")), part(5, b""), part(13, b""), part(14, b""),
    node(more=part(5, part(1, b"a") + number(20, 2))),
    part(1, part(4, b"A") + part(1, b"") * 50),
], ids=["input", "node", "initializer", "value", "annotation", "attribute", "names"])
def test_a_flood_of_tiny_parts_stays_within_bounds(piece: bytes) -> None:
    what = survives(read_onnx, model(piece * (700_000 // len(piece))))
    assert what == "" or what.endswith("too many tiny parts")


def test_a_flood_of_empty_parts_is_refused() -> None:
    with pytest.raises(ModelFormatError, match="too many tiny parts"):
        onnx_reader.read(model(part(5, b"") * 400_000))


@pytest.mark.parametrize("field,item", [(7, part(7, b"\x01")), (4, part(4, bytes(4))),
                                        (6, part(6, b"")), (5, number(5, 3)),
                                        (1, number(1, 1))])
def test_a_flood_of_elements_stays_within_bounds(field: int, item: bytes) -> None:
    data_type = {7: 7, 4: 1, 6: 8, 5: 6, 1: 1}[field]
    survives(read_onnx, model(initializer([9], data_type, item * (1_000_000 // len(item)))))


def test_packed_numbers_beyond_the_shape_are_not_decoded() -> None:
    raw = initializer([4], 7, part(7, b"\x81\x01" * 2_000_000))
    with pytest.raises(ModelFormatError, match="another number of values"):
        read_initializer(raw)


# --- FlatBuffers and FlexBuffers by hand ---


def bomb(count: int, shape: int) -> bytes:
    """A TFLite file whose `count` tensors are all the same table."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    b = flatbuffers.Builder(1024)
    tensor = schema.TensorT(shape=[1] * shape, name=b"x" * 50, quantization=(
        schema.QuantizationParametersT(scale=[1.0], zeroPoint=[0]))).Pack(b)
    b.StartVector(4, count, 4)
    for _ in range(count):
        b.PrependUOffsetTRelative(tensor)
    tensors = b.EndVector()
    schema.SubGraphStart(b)
    schema.SubGraphAddTensors(b, tensors)
    graph = schema.SubGraphEnd(b)
    b.StartVector(4, count, 4)
    for _ in range(count):
        b.PrependUOffsetTRelative(graph)
    graphs = b.EndVector()
    buffer = schema.BufferT().Pack(b)
    schema.ModelStartBuffersVector(b, 1)
    b.PrependUOffsetTRelative(buffer)
    buffers = b.EndVector()
    schema.ModelStart(b)
    schema.ModelAddVersion(b, 3)
    schema.ModelAddSubgraphs(b, graphs)
    schema.ModelAddBuffers(b, buffers)
    b.Finish(schema.ModelEnd(b), b"TFL3")
    return bytes(b.Output())


def test_tables_shared_without_bound() -> None:
    survives(read_tflite, bomb(20, 4))
    assert survives(read_tflite, bomb(20_000, 60)) == "file expands without bound"


def test_vtable_before_the_file_and_offsets_beyond_it() -> None:
    header = b"\x08\0\0\0TFL3"
    for table in (b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x04\0\0\0", b"\xf0\xff\xff\xff", b"",
                  b"\0"):
        with pytest.raises(ModelFormatError, match="malformed TFLite file"):
            tflite_reader.read(header + table)
    with pytest.raises(ModelFormatError, match="the identifier 'TFL3' is missing"):
        tflite_reader.read(b"\x08\0\0\0TFL2" + bytes(64))


@pytest.mark.parametrize("raw,why", [
    (b"", "too few"), (b"\0\0", "too few"), (bytes(3), "the root's width is 0"),
    (b"\0\x24\x03", "the root's width is 3"), (b"\x09\x24\x01", "outside of its"),
    (b"\x00\x28\x01", "shared without bound|nested|outside"),
    (b"\x01\x24\x01", "outside of its|keys of width"), (b"\x00\xfc\x01", "type 63 is not known"),
    (b"abc\x03\x10\x01", "a key does not end"),
])
def test_malformed_flexbuffers(raw: bytes, why: str) -> None:
    with pytest.raises(ModelFormatError, match="malformed FlexBuffer") as error:
        flexbuffer.parse(raw)
    assert re.search(why, error.value.why)


def test_a_flexbuffer_that_contains_itself() -> None:
    loop = b"\x04\0\0\0\0" + bytes([0x28] * 4) + b"\x08\x28\x01"
    with pytest.raises(ModelFormatError, match="malformed FlexBuffer"):
        flexbuffer.parse(loop)


def test_custom_options_that_are_no_map() -> None:
    assert flexbuffer.options(b"") == {}
    with pytest.raises(ModelFormatError, match="custom options are not a map"):
        flexbuffer.options(b"\x05\x04\x01")


def test_mutated_flexbuffers() -> None:
    from flatbuffers import flexbuffers
    builder = flexbuffers.Builder()
    with builder.Map():
        builder.Int("n", 5)
        builder.String("s", "text")
        with builder.Vector("v"):
            builder.Float(1.5)
            with builder.Map():
                builder.Bool("b", True)
        with builder.TypedVector("t"):
            builder.Int(1)
            builder.Int(2)
    raw = bytes(builder.Finish())
    for seed in range(3000):
        mutated = mutate(random.Random(seed), raw, "blind")
        survives(lambda data: flexbuffer.options(data) and None, mutated)


# --- files beside the model ---

WEIGHTS = np.arange(6, dtype="<f4")


def external(**entries: str) -> bytes:
    pairs = b"".join(part(13, part(1, k.encode()) + part(2, v.encode()))
                     for k, v in entries.items())
    return initializer([6], 1, number(14, 1) + pairs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with weights in it, and a secret beside it."""
    inside = tmp_path / "model"
    (inside / "sub").mkdir(parents=True)
    (tmp_path / "secret.bin").write_bytes(bytes(100))
    (inside / "w.bin").write_bytes(bytes(8) + WEIGHTS.tobytes())
    (inside / "sub" / "w.bin").write_bytes(WEIGHTS.tobytes())
    (inside / "inner").symlink_to("w.bin")
    (inside / "outer").symlink_to("../secret.bin")
    (inside / "round").symlink_to("round")
    os.mkfifo(inside / "pipe")
    return inside


@pytest.mark.parametrize("entries", [
    {"location": "w.bin", "offset": "8"}, {"location": "w.bin", "offset": "8", "length": "24"},
    {"location": "sub/w.bin"}, {"location": "sub\\w.bin"}, {"location": "./inner", "offset": "8"},
])
def test_external_data(folder: Path, entries: dict[str, str]) -> None:
    path = folder / "m.onnx"
    path.write_bytes(model(external(**entries)))
    weights = onnx_reader.read(path).graph.initializers[0]
    assert weights.is_external and weights.nbytes == 24
    np.testing.assert_array_equal(weights.numpy(), WEIGHTS)
    from_bytes = onnx_reader.read(path.read_bytes(), folder=folder).graph.initializers[0]
    np.testing.assert_array_equal(from_bytes.numpy(), WEIGHTS)


@pytest.mark.parametrize("entries,why", [
    ({"location": "../secret.bin"}, "climbs out of the model's folder"),
    ({"location": "sub/../../secret.bin"}, "climbs out of the model's folder"),
    ({"location": "..\\secret.bin"}, "climbs out of the model's folder"),
    ({"location": "/etc/passwd"}, "the path is absolute"),
    ({"location": "\\\\host\\share"}, "the path is absolute"),
    ({"location": "C:\\w.bin"}, "the path is absolute"),
    ({"location": "outer"}, "a symbolic link leads out"),
    ({"location": "round"}, "cannot be opened"),
    ({"location": "none.bin"}, "No such file"),
    ({"location": "a\0b"}, "is refused"),
    ({"location": "x" * 5000}, "cannot be opened"),
    ({"location": ""}, "the path is empty"),
    ({"location": "."}, "it is a folder"),
    ({"location": "sub"}, "it is a folder"),
    ({"location": "pipe"}, "not a regular file"),
    ({}, "no location is given"),
    ({"location": "w.bin", "offset": "9"}, "has 32 bytes, but 33 are needed"),
    ({"location": "w.bin", "offset": "9" * 19}, "bytes are needed|are needed"),
    ({"location": "w.bin", "offset": "-1"}, "its offset '-1' is not a number"),
    ({"location": "w.bin", "offset": "²"}, "is not a number"),
    ({"location": "w.bin", "length": "25"}, "it is 25 bytes long, the shape needs 24"),
])
def test_external_data_that_must_not_be_read(folder: Path, entries: dict[str, str],
                                             why: str) -> None:
    path = folder / "m.onnx"
    path.write_bytes(model(external(**entries)))
    weights = onnx_reader.read(path).graph.initializers[0]
    with pytest.raises(ModelFormatError, match=why):
        weights.numpy()


def test_external_data_of_bytes_without_a_folder() -> None:
    weights = onnx_reader.read(model(external(location="w.bin"))).graph.initializers[0]
    with pytest.raises(ModelFormatError, match="has no folder to look in"):
        weights.numpy()


def test_external_data_beyond_4_gb_is_mapped_not_read(tmp_path: Path) -> None:
    """A sparse file of 5 GB: only its last elements are ever touched."""
    where = 5 * 2**30
    with open(tmp_path / "w.bin", "wb") as file:
        try:
            file.seek(where)
            file.write(WEIGHTS.tobytes())
        except OSError as error:
            pytest.skip(f"the file system has no sparse files of 5 GB: {error}")
    path = tmp_path / "m.onnx"
    path.write_bytes(model(external(location="w.bin", offset=str(where))))
    np.testing.assert_array_equal(onnx_reader.read(path).graph.initializers[0].numpy(), WEIGHTS)


# --- paths ---


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, why in ((tmp_path / "none", "No such file"), (tmp_path, "it is a folder"),
                      (tmp_path / "pipe", "not a regular file"), ("a\0b", "null byte|embedded")):
        for read in (onnx_reader.read, tflite_reader.read):
            with pytest.raises(ModelFormatError, match=why) as error:
                read(path)
            assert error.value.code == "OF104"


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    assert len(open_source(path).data) == 0
    for read in (onnx_reader.read, tflite_reader.read):
        with pytest.raises(ModelFormatError):
            read(path)


def test_bytes_of_any_kind_are_taken() -> None:
    data = np.frombuffer(SMALL_ONNX, np.uint8)
    strided = np.repeat(data, 2)[::2]
    for given in (SMALL_ONNX, bytearray(SMALL_ONNX), memoryview(data), memoryview(strided)):
        assert len(onnx_reader.read(given).graph.nodes) == 2


# --- fuzzing ---


@pytest.mark.parametrize("kind", KINDS)
def test_mutations_are_repeatable_and_change_something(kind: str) -> None:
    data = SMALL_ONNX
    made = [mutate(random.Random(seed), data, kind) for seed in range(50)]
    assert made == [mutate(random.Random(seed), data, kind) for seed in range(50)]
    assert sum(m != data for m in made) > 40


def test_onnx_mutations_mostly_leave_a_well_formed_message() -> None:
    good = 0
    for seed in range(300):
        mutated = mutate(random.Random(seed), SMALL_ONNX, "onnx")
        good += attempt(read_onnx, mutated)[0] == "read"
    assert good > 100


@pytest.mark.parametrize("path", parameters("tflite", 3_000))
def test_tflite_mutations_know_the_structure(path: Path) -> None:
    sites = tflite_sites(path.read_bytes())
    assert {"offset", "length", "vtable", "Tensor.shape", "Operator.inputs"} <= set(sites)
    assert len(sites["Tensor.shape"]) >= 10


@pytest.mark.parametrize("format", sorted(READERS))
def test_a_round_of_fuzzing(format: str) -> None:
    files = real(format, 60_000)
    if not files:
        pytest.skip("no models: set ONEFOLD_TESTDATA")
    tally = fuzz(format, files, 1500, seed=3)
    assert not tally.findings
    assert tally.read > 200 and sum(tally.errors.values()) > 200
