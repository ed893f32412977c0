"""The ONNX reader says of every file what the official protobuf library says."""

from __future__ import annotations

import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onefold.errors import ModelFormatError
from onefold.frontend.onnx import reader
from onefold.frontend.onnx import records as r
from tests.frontend.models import ROOT, parameters
from tests.work import calls

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from tests.frontend.onnx_compare import same_model, same_tensor  # noqa: E402


@pytest.mark.parametrize("path", parameters("onnx"))
def test_equals_the_official_reader(path: Path) -> None:
    same_model(reader.read(path), onnx.load(path, load_external_data=False))


def backend_models() -> list[tuple[str, bytes]]:
    """The models of ONNX's own backend tests: some are files, most are made by the package."""
    from onnx.backend.test.case.node import collect_testcases
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = [(c.name, c.model.SerializeToString()) for c in collect_testcases(None)]
    files = (Path(onnx.__file__).parent / "backend/test/data").glob("*/*/model.onnx")
    return made + [(path.parent.name, path.read_bytes()) for path in sorted(files)]


def test_equals_the_official_reader_on_the_backend_suite() -> None:
    models = backend_models()
    assert len(models) > 1500
    for name, raw in models:
        try:
            same_model(reader.read(raw), onnx.ModelProto.FromString(raw))
        except Exception as error:
            raise AssertionError(name) from error


# --- tensors ---

PACKED = {TensorProto.INT4, TensorProto.UINT4, TensorProto.INT2, TensorProto.UINT2,
          TensorProto.FLOAT4E2M1, TensorProto.FLOAT6E2M3, TensorProto.FLOAT6E3M2}
NUMERIC = [t for t in TensorProto.DataType.values()
           if t not in (TensorProto.UNDEFINED, TensorProto.STRING)]


def one_tensor(tensor: Any) -> Any:
    """Our record of a tensor, by way of a model that has it as its only initializer."""
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [], [],
                              initializer=[tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    return reader.read(model.SerializeToString()).graph.initializers[0]


@pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (3, 7), (2, 0, 3)])
@pytest.mark.parametrize("kind", NUMERIC, ids=TensorProto.DataType.Name)
def test_every_element_type_raw_and_typed(kind: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(kind)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    bits = rng.integers(0, 256, int(np.prod(shape)) * dtype.itemsize).astype(np.uint8)
    if kind in PACKED:
        width = 6 if "FLOAT6" in TensorProto.DataType.Name(kind) else \
            2 if "INT2" in TensorProto.DataType.Name(kind) else 4
        bits &= (1 << width) - 1
    if kind == TensorProto.BOOL:
        bits &= 1
    values = bits.view(dtype).reshape(shape)
    raw = numpy_helper.from_array(values, "x")
    same_tensor(one_tensor(raw), raw)
    if kind in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16) or \
            values.dtype.kind in "iub":
        finite = np.nan_to_num(values.astype(np.float64)).astype(values.dtype)
        typed = helper.make_tensor("x", kind, shape, finite.ravel().tolist())
        assert not typed.raw_data
        same_tensor(one_tensor(typed), typed)


@pytest.mark.parametrize("field,kind,values", [
    ("float_data", TensorProto.FLOAT, [1.5, -0.0, float("inf")]),
    ("int32_data", TensorProto.INT32, [0, -1, 2**31 - 1, -2**31]),
    ("int64_data", TensorProto.INT64, [0, -1, 2**63 - 1, -2**63, 127, 128]),
    ("double_data", TensorProto.DOUBLE, [1e300, -1.0]),
    ("uint64_data", TensorProto.UINT64, [0, 2**64 - 1, 1]),
    ("uint64_data", TensorProto.UINT32, [0, 2**32 - 1, 1]),
    ("float_data", TensorProto.COMPLEX64, [1.0, 2.0, 3.0, -4.0]),
    ("double_data", TensorProto.COMPLEX128, [1.0, 2.0, 3.0, -4.0]),
    ("int32_data", TensorProto.FLOAT16, [0x3C00, 0xFBFF]),
    ("int32_data", TensorProto.FLOAT8E5M2FNUZ, [1, 255, 128]),
])
def test_typed_fields_packed_and_unpacked(field: str, kind: int, values: list[Any]) -> None:
    count = len(values) // (2 if "COMPLEX" in TensorProto.DataType.Name(kind) else 1)
    tensor = TensorProto(name="x", data_type=kind, dims=[count])
    getattr(tensor, field).extend(values)
    same_tensor(one_tensor(tensor), tensor)
    packed = tensor.SerializeToString()
    unpacked = TensorProto(name="x", data_type=kind, dims=[count]).SerializeToString()
    number = TensorProto.DESCRIPTOR.fields_by_name[field].number
    wire = {"float_data": 5, "double_data": 1}.get(field, 0)
    for i in range(len(values)):
        one = TensorProto()
        getattr(one, field).append(values[i])
        body = one.SerializeToString()[2:]  # tag and length, one byte each
        unpacked += bytes([number << 3 | wire]) + body
    assert unpacked != packed
    assert TensorProto.FromString(unpacked) == tensor
    graph = b"\x2a" + varint(len(unpacked)) + unpacked
    model = b"\x08\x08\x42\x02\x10\x14\x3a" + varint(len(graph)) + graph
    same_tensor(reader.read(model).graph.initializers[0], tensor)


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def test_long_packed_integers_are_decoded_in_chunks() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(-2**63, 2**63 - 1, 400_000) >> rng.integers(0, 64, 400_000)
    tensor = helper.make_tensor("x", TensorProto.INT64, [400_000], values.tolist())
    np.testing.assert_array_equal(one_tensor(tensor).numpy(), values)


def test_strings_that_are_not_text_stay_bytes() -> None:
    tensor = helper.make_tensor("x", TensorProto.STRING, [2], [b"\xff\xfe", "ü".encode()])
    assert one_tensor(tensor).numpy().tolist() == [b"\xff\xfe", "ü"]


def test_bool_bytes_other_than_one_are_true() -> None:
    tensor = TensorProto(name="x", data_type=TensorProto.BOOL, dims=[3], raw_data=b"\0\x02\xff")
    assert one_tensor(tensor).numpy().tolist() == [False, True, True]


def test_wrong_count_is_an_error_that_says_what_there_is() -> None:
    tensor = TensorProto(name="bias", data_type=TensorProto.FLOAT, dims=[3], float_data=[1, 2])
    with pytest.raises(ModelFormatError, match="has 3 elements, the file gives another number of "
                       "values in 8 bytes of float_data") as error:
        one_tensor(tensor).numpy()
    assert "tensor 'bias'" in str(error.value)


def test_ml_dtypes_names_are_those_of_onnx() -> None:
    values = np.array([0.5, -1, 448], ml_dtypes.float8_e4m3fn)
    record = one_tensor(numpy_helper.from_array(values, "x"))
    assert record.dtype == "float8e4m3fn" and record.nbytes == 3
    assert record.numpy().dtype == ml_dtypes.float8_e4m3fn


# --- messages ---


def tiny(**fields: Any) -> Any:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="act")], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx", 17)])
    for name, value in fields.items():
        setattr(model, name, value)
    return model


def test_a_model_proto_and_bytes_and_a_path_give_the_same(tmp_path: Path) -> None:
    model = tiny()
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    from_proto, from_bytes = reader.read(model), reader.read(model.SerializeToString())
    assert from_proto == from_bytes == reader.read(path) == reader.read(str(path))
    assert from_proto.graph.inputs[0].type == r.TensorType("float32", ("batch", 3, None))
    assert from_proto.graph.outputs[0].type == r.TensorType("float32", None)
    assert from_proto.opset == {"": 17}


def test_an_object_that_is_no_model_is_refused() -> None:
    with pytest.raises(ModelFormatError, match="cannot be read from a list"):
        reader.read([1, 2])


def test_a_model_proto_too_large_for_protobuf_names_the_remedy() -> None:
    class TooLarge:
        graph = None

        def SerializeToString(self) -> bytes:
            raise ValueError("exceeds maximum protobuf size of 2GB")
    with pytest.raises(ModelFormatError, match="save_as_external_data=True"):
        reader.read(TooLarge())


def test_every_kind_of_attribute() -> None:
    model = tiny()
    t = numpy_helper.from_array(np.arange(3.0), "t")
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.array([5.0, 6.0]), "s"),
        numpy_helper.from_array(np.array([1, 3]), "i"), [2, 2])
    in_two = helper.make_sparse_tensor(
        numpy_helper.from_array(np.array([5.0, 6.0]), "s"),
        numpy_helper.from_array(np.array([[0, 1], [1, 1]]), "i"), [2, 2])
    kind = helper.make_sequence_type_proto(
        helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [1, "n"])))
    mapped = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(7, None))
    node = helper.make_node("Custom", [], ["z"], domain="my.own", f=1.1, i=-5, s="text", b=b"\xff",
                            t=t, g=model.graph, sp=sparse, tp=kind, fs=[1.5, 2.5], is_=[1, -2],
                            ss=["a", "ü"], ts=[t, t], gs=[model.graph], sps=[in_two],
                            tps=[kind, mapped, helper.make_sparse_tensor_type_proto(1, [2])])
    node.attribute.append(onnx.AttributeProto(name="ref", ref_attr_name="outer",
                                              type=onnx.AttributeProto.INTS))
    node.attribute.append(onnx.AttributeProto(name="none", type=onnx.AttributeProto.INTS))
    model.graph.node.append(node)
    record = reader.read(model)
    same_model(record, model)
    assert record.graph.nodes[1].attributes["none"] == ()
    assert record.graph.nodes[1].attributes["ref"] == r.AttributeRef("outer", "INTS")


def test_attributes_without_a_type_field_tell_it_by_their_value() -> None:
    model = tiny(ir_version=1)
    model.graph.node[0].attribute.append(onnx.AttributeProto(name="alpha", f=0.5))
    model.graph.node[0].attribute.append(onnx.AttributeProto(name="axes", ints=[1, 2]))
    del model.opset_import[:]
    record = reader.read(model)
    assert record.graph.nodes[0].attributes == {"alpha": 0.5, "axes": (1, 2)}
    assert record.opset == {"": 1}


def test_functions_and_their_defaults() -> None:
    body = helper.make_node("LeakyRelu", ["x"], ["y"])
    body.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope",
                                              type=onnx.AttributeProto.FLOAT))
    function = helper.make_function("my", "Act", ["x"], ["y"], [body],
                                    [helper.make_opsetid("", 17)], ["needed"],
                                    [helper.make_attribute("slope", 0.25)])
    model = tiny()
    model.functions.append(function)
    record = reader.read(model)
    same_model(record, model)
    assert record.functions[0].defaults == {"slope": 0.25}


def test_unknown_fields_are_skipped() -> None:
    raw = tiny().SerializeToString()
    group = b"\xa3\x06\x08\x01\xab\x06\x12\x01x\xac\x06\xa4\x06"  # field 100, with 101 inside
    extra = b"\xf8\x07\x01" + b"\xfa\x07\x02hi" + b"\xf9\x07" + bytes(8) + b"\xfd\x07" + bytes(4)
    assert reader.read(extra + raw + group) == reader.read(raw)


def test_of_scalars_and_choices_the_last_one_counts() -> None:
    raw = tiny(producer_name="first").SerializeToString()
    again = onnx.ModelProto(producer_name="second").SerializeToString()
    assert reader.read(raw + again).producer == "second"
    both = b"\x08\x05\x12\x01n"  # dim_value 5, then dim_param "n"
    value_info = b"\x0a\x01x\x12\x0d\x0a\x0b\x08\x01\x12\x07\x0a\x05" + both
    assert onnx.ValueInfoProto.FromString(value_info).type.tensor_type.shape.dim[0].dim_param == "n"
    graph = b"\x5a" + varint(len(value_info)) + value_info
    model = reader.read(b"\x08\x08\x42\x02\x10\x14\x3a" + varint(len(graph)) + graph)
    assert model.graph.inputs[0].type == r.TensorType("float32", ("n",))


# --- work ---


def test_reading_imports_no_onnx_and_copies_no_weights(tmp_path: Path) -> None:
    model = tiny()
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[25_000_000],
                          raw_data=bytes(100_000_000))
    model.graph.initializer.append(weights)
    path = tmp_path / "large.onnx"
    path.write_bytes(model.SerializeToString())
    script = (
        "import sys, resource\n"
        "from onefold.frontend.onnx import reader\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "w = reader.read(sys.argv[1]).graph.initializers[0].numpy()\n"
        "print('onnx' in sys.modules, w.shape[0],\n"
        "      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n")
    out = subprocess.run([sys.executable, "-c", script, str(path)], check=True, text=True,
                         capture_output=True, env={"PYTHONPATH": str(ROOT / "src")}).stdout.split()
    assert out[:2] == ["False", "25000000"]
    assert int(out[2]) < 20_000  # kilobytes


def test_work_grows_with_the_nodes() -> None:
    one, two = (calls(partial(reader.read, convs(n))) for n in (1000, 2000))
    assert one < 120 * 1000 and two < 2.01 * one


def convs(count: int) -> bytes:
    nodes = [helper.make_node("Conv", [f"x{i}", f"w{i}", f"b{i}"], [f"x{i + 1}"], name=f"conv_{i}",
                              kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1], group=1,
                              dilations=[1, 1]) for i in range(count)]
    return bytes(helper.make_model(helper.make_graph(nodes, "g", [], [])).SerializeToString())
