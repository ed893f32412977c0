"""TFLite parts that the real models lack, written with the official packer and read back."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onefold.errors import MemoryLimitError, ModelFormatError
from onefold.frontend._gen.tflite_schema import ENUMS, OPERATOR_OPTIONS, TABLES
from onefold.frontend.tflite import reader
from onefold.frontend.tflite.records import Model, Tensor
from onefold.frontend.tflite.sparsity import Level, Sparsity, densify
from tests.frontend.test_tflite_reader import camel, same_options

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
flatbuffers = pytest.importorskip("flatbuffers")


def pack(model: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def model_of(tensors: list[Any], operators: list[Any], codes: list[Any],
             buffers: list[bytes | None]) -> Any:
    graph = schema.SubGraphT(tensors=tensors, operators=operators, inputs=[], outputs=[],
                             name="main")
    made = []
    for data in buffers:
        made.append(schema.BufferT())
        if data is not None:
            made[-1].data = np.frombuffer(data, np.uint8)
    return schema.ModelT(version=3, subgraphs=[graph], operatorCodes=codes, buffers=made,
                         description="crafted")


def tensor(shape: list[int], dtype: int = 0, buffer: int = 0, **more: Any) -> Any:
    return schema.TensorT(shape=shape, type=dtype, buffer=buffer, name=b"t", **more)


def code(number: int) -> Any:
    return schema.OperatorCodeT(builtinCode=number, deprecatedBuiltinCode=min(number, 127))


def constant(raw: bytes, shape: list[int], dtype: int, **more: Any) -> Tensor:
    model = model_of([tensor(shape, dtype, 1, **more)], [], [], [None, raw])
    return reader.read(pack(model)).subgraphs[0].tensors[0]


# --- options ---


def random_options(table: str, rng: random.Random) -> Any:
    """The official object of an options table with a random value in every field."""
    options = getattr(schema, table + "T")()
    for _, name, kind, what, default in TABLES[table]:
        value: Any
        if kind == "enum":
            value = rng.choice(list(ENUMS[what[1:]]))
        elif kind == "string":
            value = f"text {rng.random()}".encode()
        elif kind == "numbers":
            value = [random_number(what, rng) for _ in range(rng.randint(1, 5))]
        else:
            value = not default if what == "?" else random_number(what, rng)
        setattr(options, camel(name), value)
    return options


def random_number(code: str, rng: random.Random) -> Any:
    if code in "fd":
        return float(np.float32(rng.uniform(-9, 9)))
    return bool(rng.randrange(2)) if code == "?" else rng.randrange(1, 100)


@pytest.mark.parametrize("name", sorted(OPERATOR_OPTIONS))
def test_options_of_every_operator(name: str) -> None:
    table = OPERATOR_OPTIONS[name]
    options = random_options(table, random.Random(name))
    number = {v: k for k, v in ENUMS["BuiltinOperator"].items()}[name]
    op = schema.OperatorT(opcodeIndex=0, inputs=[], outputs=[])
    one = {v: k for k, v in ENUMS["BuiltinOptions"].items()}
    two = {v: k for k, v in ENUMS["BuiltinOptions2"].items()}
    if table in one:
        op.builtinOptionsType, op.builtinOptions = one[table], options
    else:
        op.builtinOptions2Type, op.builtinOptions2 = two[table], options
    record = reader.read(pack(model_of([], [op], [code(number)], [None]))).subgraphs[0].operators[0]
    assert (record.name, record.options_type) == (name, table)
    same_options(record, options)


def test_options_of_another_operator_are_ignored_as_the_runtime_does() -> None:
    op = schema.OperatorT(opcodeIndex=0, inputs=[], outputs=[], builtinOptionsType=5,
                          builtinOptions=schema.Pool2DOptionsT(strideW=7))
    record = reader.read(pack(model_of([], [op], [code(3)], [None]))).subgraphs[0].operators[0]
    assert record.name == "CONV_2D" and record.options_type == "Pool2DOptions"
    assert record.options["stride_w"] == 0 and record.options["dilation_w_factor"] == 1


def test_numbers_that_the_schema_lacks_are_named() -> None:
    options = schema.Conv2DOptionsT(fusedActivationFunction=99)
    ops = [schema.OperatorT(opcodeIndex=0, inputs=[], outputs=[], builtinOptionsType=1,
                            builtinOptions=options),
           schema.OperatorT(opcodeIndex=1, inputs=[], outputs=[])]
    model = model_of([tensor([1], 99)], ops, [code(3), code(5000)], [None])
    graph = reader.read(pack(model)).subgraphs[0]
    assert graph.tensors[0].dtype == "UNKNOWN_99"
    assert graph.operators[0].options["fused_activation_function"] == "UNKNOWN_99"
    assert graph.operators[1].name == "UNKNOWN_5000" and graph.operators[1].options == {}


def test_deprecated_code_field_of_old_files() -> None:
    old = schema.OperatorCodeT(deprecatedBuiltinCode=9, builtinCode=0)
    model = model_of([], [schema.OperatorT(inputs=[], outputs=[])], [old], [None])
    assert reader.read(pack(model)).operator_names == ("FULLY_CONNECTED",)


# --- tensors ---


def test_int4_is_unpacked_low_half_first() -> None:
    record = constant(b"\x21\xf8\x07", [5], schema.TensorType.INT4)
    assert record.dtype == "int4"
    assert record.numpy().astype(np.int8).tolist() == [1, 2, -8, -1, 7]


@pytest.mark.parametrize("name,dtype", [
    ("BFLOAT16", "bfloat16"), ("FLOAT16", "float16"), ("UINT64", "uint64"), ("BOOL", "bool"),
    ("COMPLEX64", "complex64"), ("FLOAT8_E4M3FN", "float8e4m3fn"), ("INT2", "int2")])
def test_element_types(name: str, dtype: str) -> None:
    record = constant(bytes(32), [2, 2], getattr(schema.TensorType, name))
    assert record.dtype == dtype and record.numpy().shape == (2, 2)
    assert not record.numpy().astype(np.complex64).any()


def test_strings() -> None:
    raw = np.array([2, 16, 18, 21], "<i4").tobytes() + b"hiyou"
    record = constant(raw, [2], schema.TensorType.STRING)
    assert record.numpy().tolist() == [b"hi", b"you"]


@pytest.mark.parametrize("raw", [
    b"", b"\1\0\0\0", np.array([2, 16, 18, 99], "<i4").tobytes() + b"hiyou",
    np.array([2, 18, 16, 21], "<i4").tobytes() + b"hiyou", b"\xff\xff\xff\x7f" + bytes(8),
    np.array([1, 12, 14], "<i4").tobytes() + b"hi"])
def test_malformed_strings(raw: bytes) -> None:
    with pytest.raises(ModelFormatError):
        constant(raw, [2], schema.TensorType.STRING).numpy()


def test_a_tensor_without_data_says_so() -> None:
    with pytest.raises(ModelFormatError, match="tensor has no data"):
        constant(b"", [2], schema.TensorType.FLOAT32).numpy()


def test_quantization_details() -> None:
    details = schema.BlockwiseQuantizationT(scales=3, zeroPoints=-1, blockSize=32)
    quant = schema.QuantizationParametersT(detailsType=2, details=details)
    record = constant(bytes(4), [4], schema.TensorType.INT8, quantization=quant)
    assert record.quant is not None and record.quant.details_type == "BlockwiseQuantization"
    assert record.quant.details == {"scales": 3, "zero_points": -1, "block_size": 32,
                                    "block_shape": ()}


def test_one_zero_point_serves_all_scales() -> None:
    quant = schema.QuantizationParametersT(scale=[1.0, 2.0], zeroPoint=[5], quantizedDimension=1)
    record = constant(bytes(6), [3, 2], schema.TensorType.INT8, quantization=quant)
    assert record.quant is not None and record.quant.zero_point.tolist() == [5, 5]


@pytest.mark.parametrize("scales,zero_points,axis", [
    ([1.0, 2.0], [0, 0], 0), ([1.0, 2.0], [0, 0], 7), ([1.0, 2.0], [0, 0], -1), ([1.0], [], 0),
    ([1.0, 2.0, 3.0], [0, 0], 0)])
def test_contradictory_quantization(scales: list[float], zero_points: list[int],
                                    axis: int) -> None:
    quant = schema.QuantizationParametersT(scale=scales, zeroPoint=zero_points,
                                           quantizedDimension=axis)
    with pytest.raises(ModelFormatError, match="quantization is inconsistent"):
        constant(bytes(6), [3, 2], schema.TensorType.INT8, quantization=quant)


# --- data outside of the FlatBuffer ---


def test_buffers_and_custom_options_behind_the_flatbuffer() -> None:
    weights, extra = np.arange(4, dtype="<f4").tobytes(), b"custom options"
    custom = schema.OperatorCodeT(builtinCode=32, deprecatedBuiltinCode=32, customCode=b"Mine")

    def packed(begin: int) -> bytes:
        op = schema.OperatorT(inputs=[], outputs=[], largeCustomOptionsOffset=begin + len(weights),
                              largeCustomOptionsSize=len(extra))
        model = model_of([tensor([4], 0, 1)], [op], [custom], [None, None])
        model.buffers[1].offset, model.buffers[1].size = begin, len(weights)
        return pack(model)
    size = len(packed(1000))
    raw = packed(size) + weights + extra
    assert len(raw) == size + len(weights) + len(extra)
    graph = reader.read(raw).subgraphs[0]
    assert graph.tensors[0].numpy().tolist() == [0, 1, 2, 3]
    assert bytes(graph.operators[0].custom_options) == extra
    assert (graph.operators[0].name, graph.operators[0].is_custom) == ("Mine", True)
    with pytest.raises(ModelFormatError, match="a buffer lies outside of the file"):
        reader.read(raw[:-len(extra) - 1])


def external(location: bytes, packing: bytes | None = None, length: int = 16) -> bytes:
    model = model_of([tensor([4], 0, 0, externalBuffer=7)], [], [], [None])
    model.externalBufferGroups = [schema.ExternalBufferGroupT(name=location)]
    model.externalBuffers = [schema.ExternalBufferT(id=7, group=0, offset=4, length=length,
                                                    packing=packing)]
    return pack(model)


def test_buffers_in_another_file(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(4) + np.arange(4, dtype="<f4").tobytes())
    path = tmp_path / "m.tflite"
    path.write_bytes(external(b"w.bin"))
    assert reader.read(path).subgraphs[0].tensors[0].numpy().tolist() == [0, 1, 2, 3]
    for raw, why in ((external(b"../w.bin"), "climbs out"), (external(b"/etc/passwd"), "absolute"),
                     (external(b"none.bin"), "cannot be opened"),
                     (external(b"w.bin", length=17), "too short"),
                     (external(b"w.bin", packing=b"zip"), "packed as 'zip'")):
        path.write_bytes(raw)
        with pytest.raises(ModelFormatError, match=why):
            reader.read(path)


# --- sparse tensors ---


def sparse_model(dense: np.ndarray[Any, Any], block: tuple[int, ...]) -> tuple[bytes, Any]:
    """A model whose DENSIFY expands `dense`: all levels dense but the last unblocked one."""
    levels, values = encode(dense, block)
    order = list(range(len(levels)))
    metadata = []
    for level in levels:
        metadata.append(schema.DimensionMetadataT(format=int(not level.dense),
                                                  denseSize=level.size))
        if not level.dense:
            for kind, vector in (("Segments", level.segments), ("Indices", level.indices)):
                made = schema.Int32VectorT(values=vector.tolist())
                setattr(metadata[-1], f"array{kind}Type", schema.SparseIndexVector.Int32Vector)
                setattr(metadata[-1], f"array{kind}", made)
    block_map = list(range(dense.ndim)) if block else []
    sparsity = schema.SparsityParametersT(traversalOrder=order, blockMap=block_map,
                                          dimMetadata=metadata)
    tensors = [tensor(list(dense.shape), 0, 1, sparsity=sparsity), tensor(list(dense.shape))]
    densify_op = schema.OperatorT(inputs=[0], outputs=[1], builtinOptionsType=99,
                                  builtinOptions=schema.DensifyOptionsT())
    model = model_of(tensors, [densify_op], [code(124)], [None, values.tobytes()])
    model.subgraphs[0].outputs = [1]
    return pack(model), dense


def encode(dense: np.ndarray[Any, Any], block: tuple[int, ...]) -> tuple[list[Level], Any]:
    """Levels and values of a matrix, compressed in its last dimension; blocks stored whole."""
    inner = block or (1, 1)
    rows, columns = dense.shape[0] // inner[0], dense.shape[1] // inner[1]
    tiles = dense.reshape(rows, inner[0], columns, inner[1]).transpose(0, 2, 1, 3)
    kept = [[c for c in range(columns) if tiles[r, c].any()] for r in range(rows)]
    segments = np.cumsum([0, *map(len, kept)])
    none = np.zeros(0, np.int64)
    levels = [Level(True, rows, none, none),
              Level(False, 0, segments, np.array([c for row in kept for c in row]))]
    levels += [Level(True, b, none, none) for b in block]
    values = [tiles[r, c].ravel() for r, row in enumerate(kept) for c in row]
    return levels, np.concatenate(values).astype("<f4")


@pytest.mark.parametrize("block", [(), (2, 2), (1, 4)])
def test_sparse_tensors_expand_as_the_runtime_expands_them(block: tuple[int, ...]) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    rng = np.random.default_rng(3)
    dense = (rng.normal(size=(6, 8)) * (rng.random((6, 8)) < 0.3)).astype(np.float32)
    raw, _ = sparse_model(dense, block)
    ours = reader.read(raw).subgraphs[0].tensors[0].numpy()
    interpreter = litert.Interpreter(
        model_content=raw, experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    interpreter.invoke()
    np.testing.assert_array_equal(ours, interpreter.get_tensor(1))
    np.testing.assert_array_equal(ours, dense)


def broken(**changes: Any) -> tuple[Sparsity, memoryview]:
    levels, values = encode(np.eye(4, dtype=np.float32), ())
    parts = {"traversal_order": (0, 1), "block_map": (), "levels": tuple(levels)} | changes
    return Sparsity(**parts), memoryview(values.tobytes())


NONE = np.zeros(0, np.int64)
ROWS = Level(True, 4, NONE, NONE)


@pytest.mark.parametrize("changes", [
    {"traversal_order": (0, 0)}, {"traversal_order": (0, 5)}, {"levels": (ROWS,)},
    {"block_map": (0,)}, {"levels": (Level(True, 5, NONE, NONE), ROWS)},
    {"levels": (ROWS, Level(False, 0, np.array([0, 9, 1, 2, 3]), np.arange(3)))},
    {"levels": (ROWS, Level(False, 0, np.arange(5), np.array([0, 1, 2, 4])))},
    {"levels": (ROWS, Level(False, 0, np.arange(5), np.array([-1, 1, 2, 3])))},
    {"levels": (ROWS, Level(False, 0, NONE, NONE))},
    {"levels": (ROWS, ROWS)},
])
def test_contradictory_sparsity(changes: dict[str, Any]) -> None:
    sparsity, raw = broken(**changes)
    with pytest.raises(ModelFormatError, match="sparse tensor is malformed"):
        densify(raw, "float32", (4, 4), sparsity, "here")


def test_sparse_tensors_do_not_expand_without_bound() -> None:
    sparsity, raw = broken()
    with pytest.raises(MemoryLimitError, match="too large to expand"):
        densify(raw, "float32", (1 << 20, 1 << 20), sparsity, "here")


# --- indices ---


def sabotage(change: str) -> Model:
    """A sound model with one index pointing outside."""
    op = schema.OperatorT(opcodeIndex=0, inputs=[0, -1], outputs=[1])
    model = model_of([tensor([1]), tensor([1])], [op], [code(3)], [None])
    graph = model.subgraphs[0]
    graph.inputs, graph.outputs = [0], [1]
    names = [schema.TensorMapT(name=b"x", tensorIndex=0)]
    model.signatureDefs = [schema.SignatureDefT(inputs=names, outputs=[], signatureKey=b"main")]
    model.metadata = [schema.MetadataT(name=b"note", buffer=0)]
    exec(change, {"model": model, "graph": graph, "op": op, "names": names})
    return reader.read(pack(model))


def test_the_model_that_is_sabotaged_below_is_sound() -> None:
    assert sabotage("").subgraphs[0].operators[0].inputs == (0, -1)


@pytest.mark.parametrize("change,message", [
    ("op.opcodeIndex = 1", "operator code out of range"),
    ("op.inputs = [2]", "tensor index out of range"),
    ("op.inputs = [-2]", "tensor index out of range"),
    ("op.outputs = [2**31 - 1]", "tensor index out of range"),
    ("op.intermediates = [9]", "tensor index out of range"),
    ("graph.inputs = [-1]", "tensor index out of range"),
    ("graph.outputs = [2]", "tensor index out of range"),
    ("graph.tensors[0].buffer = 1", "buffer index out of range"),
    ("graph.tensors[0].shape = [-1]", "negative dimension"),
    ("graph.tensors[0].shape = [2**31 - 1] * 3", "shape overflows"),
    ("graph.tensors[0].shape = [2**31 - 1, 2**31 - 1, 0]", "shape overflows"),  # found by fuzzing
    ("graph.tensors[0].shape = [1] * 65", "too many dimensions"),
    ("graph.tensors[0].externalBuffer = 3", "external buffer 3 is not defined"),
    ("names[0].tensorIndex = 2", "tensor index out of range"),
    ("names.append(names[0])", "name 'x' occurs twice"),
    ("model.signatureDefs[0].subgraphIndex = 1", "subgraph index out of range"),
    ("model.metadata[0].buffer = 5", "buffer index out of range"),
    ("model.subgraphs = []", "there is no subgraph"),
    ("model.version = 2", "schema version 2"),
])
def test_indices_that_point_outside(change: str, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message) as error:
        sabotage(change)
    assert "<bytes>" in str(error.value) and "next:" in str(error.value)


def test_constant_too_short_for_its_shape() -> None:
    with pytest.raises(ModelFormatError, match="its shape needs 16 bytes, the file gives 15"):
        constant(bytes(15), [4], schema.TensorType.FLOAT32)
