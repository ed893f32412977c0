"""What fuzzing found, each as the smallest model that shows it: an error that names the layer, or
a right answer, and never an exception that nobody meant."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from onefold.dev.drive import STAGES, Way
from onefold.dev.fuzz import attempt
from onefold.errors import OnefoldError
from onefold.frontend.binding import Binding

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import onefold  # noqa: E402

F, INT = TensorProto.FLOAT, TensorProto.INT64


@dataclass
class M:
    """A model of a few nodes. consts: initializers; words: parts of the refusal, none where the
    model is to be taken."""

    what: str
    nodes: Sequence[Any]
    inputs: Sequence[Any] = ()
    consts: dict[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    opset: int = 17
    outputs: Sequence[str] = ("y",)

    def data(self) -> bytes:
        outs = []
        for name in self.outputs:
            v = onnx.ValueInfoProto()
            v.name = name
            outs.append(v)
        tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in self.consts.items()]
        graph = helper.make_graph(self.nodes, "g", self.inputs, outs, tensors)
        sets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1),
                helper.make_opsetid("own", 1),
                helper.make_opsetid("ai.onnx.preview.training", 1)]  # fmt: skip
        proto = helper.make_model(graph, opset_imports=sets, ir_version=8)
        return bytes(proto.SerializeToString())


def node(op: str, inputs: str, outputs: str = "y", **attrs: Any) -> Any:
    """inputs and outputs: names, `-` for one left out."""
    ins = ["" if i == "-" else i for i in inputs.split()]
    return helper.make_node(op, ins, outputs.split(), name=f"the/{op}", **attrs)


def x(*shape: Any, kind: int = F, name: str = "x") -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def body(*nodes: Any, inputs: Sequence[Any] = (), outputs: Sequence[Any] = ()) -> Any:
    return helper.make_graph(nodes, "body", inputs, outputs)


FINDINGS = [
    # --- calls that break the operator's definition
    M("a missing input", [node("Conv", "x")], [x(1, 1, 4, 4)],
      words=("Conv", "1 inputs", "needs 2")),
    M("an input left out", [node("Add", "x -")], [x(2)], words=("Add", "2")),
    M("too many inputs", [node("Relu", "x x")], [x(2)], words=("Relu", "takes 1")),
    M("a missing attribute", [node("Concat", "x x")], [x(2)], words=("'axis' is missing",)),
    M("an attribute of another type", [node("Softmax", "x", axis=1.5)], [x(2)],
      words=("'axis' is not of the type INT",)),
    M("a body that is missing", [node("If", "c", then_branch=body(outputs=[x(1)]))],
      [x(kind=TensorProto.BOOL, name="c")], words=("else_branch",)),
    M("more results than there are", [node("Relu", "x", "y z")], [x(2)], words=("2 outputs",),
      outputs=("z",)),
    M("a contributed operator without inputs", [helper.make_node(
        "Gelu", [], ["y"], domain="com.microsoft")], words=("Gelu", "takes 1")),
    M("pads that are a text", [helper.make_node("FusedConv", ["x", "w"], ["y"], pads="line",
        domain="com.microsoft")], [x(1, 1, 4, 4)], {"w": np.ones((1, 1, 3, 3), np.float32)},
      ("'pads' is not of the type INTS",)),
    M("a momentum that is a text", [helper.make_node(
        "Momentum", ["r", "t", "x", "x", "x"], ["y", "z"], alpha="a", beta=0.9, mode="standard",
        norm_coefficient=0.1, domain="ai.onnx.preview.training")], [x(2)],
      {"r": np.float32(1), "t": np.int64(0)}, ("'alpha' is not of the type FLOAT",)),
    M("an attribute of another operator", [helper.make_node(
        "DequantizeLinear", ["x", "s"], ["y"], to=7, domain="com.microsoft")],
      [x(2, kind=TensorProto.UINT8)], {"s": np.float32(1)}),
    # --- contents that do not fit
    M("k of two numbers", [node("TopK", "x k", "y z")], [x(4)], {"k": ints(1, 2)}, ("one number",)),
    M("limits without elements", [node("Range", "a b c")], (),
      {"a": np.zeros(0, np.float32), "b": np.float32(3), "c": np.float32(1)}, ("one number",)),
    M("a diagonal without elements", [node("Trilu", "x k")], [x(3, 3)], {"k": ints()},
      ("one number",)),
    M("a shape of floats", [node("Reshape", "x s")], [x(4)], {"s": np.array([np.inf], np.float32)},
      ("integers",)),
    M("a depth without end", [node("OneHot", "x d v")], [x(3, kind=INT)],
      {"d": np.float32(np.inf), "v": np.array([0, 1], np.float32)}, ("depth",)),
    M("an index outside", [node("Gather", "c i", "z"), node("Add", "z x")],
      [x(1)], {"c": np.ones(3, np.float32), "i": ints(7)}, ("Gather",)),
    M("sizes that wrap", [node("Mul", "a a", "s"), node("ConstantOfShape", "s")], (),
      {"a": ints(1 << 40)}),
    M("numbers that an element cannot hold", [node("DynamicQuantizeLinear", "x", "y s z")],
      [x(3, kind=TensorProto.INT8)], words=("int8",)),
    # --- axes of single numbers
    M("a frame step that is a text", [node("STFT", "x f")], [x(1, 16, 1)],
      {"f": np.array(["a b"], object)}, ("STFT",)),
    M("a slice of a number", [node("Slice", "x s e a")], [x()],
      {"s": ints(0), "e": ints(1), "a": ints(0)}, ("single number",)),
    M("parts of a number", [node("Split", "x", "y z", axis=0)], [x()], words=("single number",),
      opset=11),
    M("an axis of a number", [node("Squeeze", "x a")], [x()], {"a": ints(0)}, ("single number",)),
    M("elements chosen of a number", [node("Compress", "x c", axis=0)],
      [x(), x(1, kind=TensorProto.BOOL, name="c")], words=("single number",)),
    # --- sizes
    M("a tensor beyond all memory", [node("Relu", "x")], [x(1 << 31, 1 << 31)],
      words=("Relu", "bytes", "ONEFOLD_MEMORY_LIMIT")),
    M("a size that overflows 64 bits", [node("Relu", "x")], [x(1 << 40, 1 << 40)],
      words=("bytes",)),
    M("a constant that doubles", [*(node("Concat", f"c{k} c{k}", f"c{k + 1}", axis=0)
      for k in range(40)), node("Add", "x c40")], [x(1)], {"c0": np.ones(4, np.float32)},
      ("Concat", "bytes")),
    M("pads beyond all memory", [node("Conv", "x w", pads=[1 << 30] * 4)], [x(1, 1, 4, 4)],
      {"w": np.ones((1, 1, 3, 3), np.float32)}, ("Conv",)),
    M("negative pads", [node("Conv", "x w", pads=[-9] * 4)], [x(1, 1, 4, 4)],
      {"w": np.ones((1, 1, 3, 3), np.float32)}, ("Conv",)),
    M("strides of 0", [node("Conv", "x w", strides=[0, 0])], [x(1, 1, 4, 4)],
      {"w": np.ones((1, 1, 3, 3), np.float32)}, ("Conv",)),
    M("dilations of 0", [node("MaxPool", "x", kernel_shape=[2, 2], dilations=[0, 0])],
      [x(1, 1, 4, 4)], words=("MaxPool",)),
    M("a kernel of 2^31", [node("MaxPool", "x", kernel_shape=[1 << 31, 1])], [x(1, 1, 4, 4)],
      words=("MaxPool",)),
    M("no groups", [node("Conv", "x w", group=0)], [x(1, 1, 4, 4)],
      {"w": np.ones((1, 1, 3, 3), np.float32)}, ("group 0",)),
    M("an axis of 2^62", [node("Softmax", "x", axis=1 << 62)], [x(3)], words=("axis",)),
    M("a permutation that names an axis twice", [node("Transpose", "x", perm=[0, 0])], [x(2, 3)],
      words=("Transpose",)),
    M("a permutation that leaves the tensor", [node("Transpose", "x", perm=[0, 7])], [x(2, 3)],
      words=("Transpose",)),
    M("a resized axis of 2^31", [node("Resize", "x - - s")], [x(1, 1, 2, 2)],
      {"s": ints(1, 1, 1, 1 << 31)}, ("Resize",)),
    M("a count of scanned inputs of 2^62", [node("Scan", "x", num_scan_inputs=1 << 62, body=body(
        node("Relu", "a", "b"), inputs=[x(3, name="a")], outputs=[x(3, name="b")]))], [x(4, 3)],
      words=("Scan",)),
    M("a loop of 2^62 turns", [node("Loop", "m - x", "z y", body=body(
        node("Add", "s s", "t"), node("Identity", "c", "d"), node("Identity", "t", "u"),
        inputs=[x(kind=INT, name="i"), x(kind=TensorProto.BOOL, name="c"), x(4, name="s")],
        outputs=[x(kind=TensorProto.BOOL, name="d"), x(4, name="t"), x(4, name="u")]))],
      [x(4)], {"m": np.int64(1 << 62)}, ("Loop", "bytes")),
    M("no element at all", [node("Relu", "x", "r"), node("ReduceMax", "r")], [x(0, 3)], opset=13),
    M("infinite attributes", [node("LeakyRelu", "x", alpha=float("nan"))], [x(3)]),
    M("a sum of integers without end", [node("ReduceLogSumExp", "c a", "s", keepdims=0),
                                        node("Add", "s x")],
      [x(kind=INT)], {"c": ints(1, 2, 3), "a": ints(0)}, opset=18),
    M("scales of a number", [node("DequantizeLinear", "x s")], [x(kind=TensorProto.INT8)],
      {"s": np.ones(2, np.float32)}, ("DequantizeLinear", "single number")),
    M("a ratio that is a text", [node("Dropout", "x r")], [x(2)], {"r": np.array("a b", object)},
      ("Dropout", "not a single number")),
    M("columns beyond int32", [node("TfIdfVectorizer", "x", mode="TF", min_gram_length=1,
        max_gram_length=1, max_skip_count=0, ngram_counts=[0], ngram_indexes=[1 << 32],
        pool_int64s=[3])], [x(4, kind=INT)], words=("TfIdfVectorizer", "columns")),
    M("turns that are no number", [node("Loop", "m - x", "y", body=body(
        node("Add", "s s", "t"), node("Identity", "c", "d"),
        inputs=[x(kind=INT, name="i"), x(kind=TensorProto.BOOL, name="c"), x(4, name="s")],
        outputs=[x(kind=TensorProto.BOOL, name="d"), x(4, name="t")]))],
      [x(4)], {"m": np.float32(np.nan)}, ("Loop", "not an integer")),
    M("axes that are one number", [node("ReduceProd", "x a", axes=3)], [x(4)], {"a": ints(0)},
      ("ReduceProd", "'axes' is not of the type"), opset=18),
    M("pads of one number", [node("ConvTranspose", "x w", output_shape=[10, 8], pads=[1])],
      [x(1, 1, 3, 3)], {"w": np.ones((1, 2, 3, 3), np.float32)}, ("ConvTranspose", "1 pads")),
    M("a scale beyond float32", [node("Resize", "x - s", mode="nearest")], [x(1, 1, 64, 64)],
      {"s": np.array([1, 1, 3e38, 1], np.float32)}, ("Resize", "cannot be scaled")),
    M("rows without indices", [node("ScatterND", "x i u")], [x(4)],
      {"i": np.array(1), "u": np.ones((), np.float32)}, ("ScatterND", "at indices")),
    M("a constant pool of large windows", [node("LpPool", "c", kernel_shape=[2, 65535],
        pads=[0, 65534, 0, 65534])], [], {"c": np.ones((32, 32, 2, 4), np.float32)}),
    # --- graphs
    M("5000 inputs", [node("Sum", " ".join(["x"] * 5000))], [x(4)]),
    M("a mean of 100 inputs", [node("Mean", " ".join(["x"] * 100))], [x(4)]),
    M("a chain of 5000 layers", [node("Relu" if k % 2 else "Neg", f"x{k}", f"x{k + 1}")
                                 for k in range(5000)], [x(4, name="x0")], outputs=("x5000",)),
    M("a chain of 60 doublings", [node("Add", f"x{k} x{k}", f"x{k + 1}") for k in range(60)],
      [x(4, name="x0")], outputs=("x60",)),
    M("a chain of 1000 doublings of one element",
      [node("Mul", f"x{k} x{k}", f"x{k + 1}") for k in range(1000)], [x(1, name="x0")],
      outputs=("x1000",)),
    M("an output that is an input", [node("Relu", "x", "z")], [x(2)], outputs=("x", "z")),
    M("an output twice", [node("Relu", "x")], [x(2)], outputs=("y", "y")),
    M("an output that is a constant", [node("Relu", "x", "z")], [x(2)], {"y": np.ones(3)},
      outputs=("y", "z")),
    M("an output of a layer that is refused", [node("Reshape", "x s")], [x(4)], {"s": ints(3)},
      ("Reshape",)),
    M("values that read themselves", [node("Add", "x z"), node("Relu", "y", "z")], [x(2)],
      words=("cycle",)),
    M("a name defined twice", [node("Relu", "x"), node("Neg", "x")], [x(2)], words=("twice",)),
    M("nothing defines it", [node("Add", "x nothing")], [x(2)], words=("nothing",)),
    M("an operator of nobody", [helper.make_node("Nope", ["x"], ["y"], domain="own")], [x(2)],
      words=("own:Nope", "no importer")),
    M("a sequence that no layer reads", [node("Relu", "x", "y")], [x(2), helper.make_value_info(
        "s", helper.make_sequence_type_proto(helper.make_tensor_type_proto(F, [2])))]),
    M("a sequence where a tensor belongs", [node("Relu", "s")], [helper.make_value_info(
        "s", helper.make_sequence_type_proto(helper.make_tensor_type_proto(F, [2])))],
      words=("Relu", "not a tensor")),
    M("a body that nobody needs", [node("Relu", "x"), node("If", "c", "z", **{
        k: body(node("Neg", "x", "b"), outputs=[x(2, name="b")])
        for k in ("then_branch", "else_branch")})],
      [x(2), x(kind=TensorProto.BOOL, name="c")]),
    M("all is dropped", [node("Dropout", "x r t")], [x(2)],
      {"r": np.float32(1), "t": np.array(True)}, ("Dropout", "ratio")),
    M("Scan of opset 8", [node("Scan", "- x", "y", num_scan_inputs=1, body=body(
        node("Relu", "a", "b"), inputs=[x(3, name="a")], outputs=[x(3, name="b")]))],
      [x(1, 4, 3)], opset=8),
]  # fmt: skip


def came(data: bytes, format: str = "onnx") -> Way:
    """How far a file came; fails for anything that is not meant."""
    found = attempt(format, data, random.Random(0))
    assert not isinstance(found, tuple), found[1]
    return found


def message(data: bytes, format: str = "onnx") -> str:
    """The whole text of the error that a file ends in."""
    from onefold.passes import pipeline
    from onefold.plan import plan
    from onefold.target import find

    with pytest.raises(OnefoldError) as caught:
        graph = onefold.load(data, format=format).bind(Binding())
        pipeline.run(graph)
        plan(graph, find("host"))
    assert caught.value.remedy and "defect" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("m", FINDINGS, ids=lambda m: m.what)
def test_onnx(m: M) -> None:
    way = came(m.data())
    if not m.words:
        assert way.stage > STAGES.index("graph"), way.refusal
        return
    assert way.refusal, "it should have been refused"
    text = message(m.data())
    assert all(w in text for w in m.words), text


# --- names ---------------------------------------------------------------------------------------


HOSTILE = ("*/", "/* ", "??/", "a\nb", "\\", '"', "<script>", "\x1b[31m", "int", "main", "of_x",
           "é", "\N{BOM}", "%n", "N" * 100_000, "a b", "a.b", "a_b", "1", "")  # fmt: skip


@pytest.mark.parametrize("kind", ["value", "layer", "dimension", "graph"])
def test_hostile_names_reach_no_generated_text(kind: str) -> None:
    """A model whose names are all hostile; `came` checks every line of the C text."""
    names = [n for n in HOSTILE if n] if kind == "value" else [f"v{k}" for k in range(19)]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)]
    if kind == "layer":
        for n, name in zip(nodes, HOSTILE, strict=False):
            n.name = name
    first = helper.make_tensor_value_info(names[0], F, [2, 3])
    if kind == "dimension":
        first = helper.make_tensor_value_info(names[0], F, [n for n in HOSTILE if n][:19])
    outs = [helper.make_tensor_value_info(n, F, None) for n in names[1:]]
    graph = helper.make_graph(nodes, "*/ \\\n" if kind == "graph" else "g", [first], outs)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    way = came(proto.SerializeToString())
    assert STAGES[way.stage] == "C", way.refusal
    whole = "".join(t for s in way.sources for t in s.files.values())
    assert "N" * 200 not in whole and "*/" not in whole


def test_names_that_are_equal_in_c() -> None:
    """Two inputs, two sizes and two layers whose names differ only where C sees no difference."""
    names = ["a.b", "a_b", "a-b", "a b"]
    ins = [helper.make_tensor_value_info(n, F, [f"{n}?", 2]) for n in names]
    nodes = [helper.make_node("Exp", [n], [n + "!"], name=n) for n in names]
    outs = [helper.make_tensor_value_info(n + "!", F, None) for n in names]
    graph = helper.make_graph(nodes, "g", ins, outs)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    program = onefold.load(proto).compile(cache=False, dims={n + "?": "0..9" for n in names})
    given = {n: np.full((k + 1, 2), k, np.float32) for k, n in enumerate(names)}
    out = program(given)
    for k, n in enumerate(names):
        assert out[n + "!"].shape == (k + 1, 2)
        np.testing.assert_allclose(out[n + "!"], np.exp(given[n]), rtol=1e-6)


# --- bombs ---------------------------------------------------------------------------------------


def test_functions_that_double() -> None:
    """30 functions that call the one before twice: 2^30 layers from 2 KB."""
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]

    def function(k: int) -> Any:
        op, domain = (f"F{k - 1}", "f") if k else ("Relu", "")
        nodes = [helper.make_node(op, [a], [b], domain=domain) for a, b in (("x", "z"), ("z", "y"))]
        return helper.make_function("f", f"F{k}", ["x"], ["y"], nodes, sets)

    graph = helper.make_graph([helper.make_node("F30", ["x"], ["y"], domain="f")], "g", [x(4)],
                              [x(4, name="y")])  # fmt: skip
    proto = helper.make_model(graph, opset_imports=sets, ir_version=8,
                              functions=[function(k) for k in range(31)])  # fmt: skip
    assert "grows without bound" in message(proto.SerializeToString())


def test_a_function_that_calls_itself() -> None:
    sets = [helper.make_opsetid("f", 1)]
    again = helper.make_node("R", ["x"], ["y"], domain="f")
    f = helper.make_function("f", "R", ["x"], ["y"], [again], sets)
    graph = helper.make_graph([again], "g", [x(4)], [x(4, name="y")])
    proto = helper.make_model(graph, opset_imports=[*sets, helper.make_opsetid("", 17)],
                              ir_version=8, functions=[f])  # fmt: skip
    assert "nested more than" in message(proto.SerializeToString())


@pytest.mark.parametrize("depth", [20, 200])
def test_bodies_inside_bodies(depth: int) -> None:
    """Written by hand, since protobuf itself refuses more than 100 levels."""
    from tests.frontend.test_hostile_files import model, node, part

    def bool_input() -> bytes:
        return part(11, part(1, b"c") + part(2, part(1, bytes([8, 9]) + part(2, b""))))

    def nested(k: int) -> bytes:
        inner = b"".join(
            part(5, part(1, name) + bytes([0xA0, 1, 5]) + part(6, nested(k - 1) if k else leaf()))
            for name in (b"then_branch",)
        ) + part(5, part(1, b"else_branch") + bytes([0xA0, 1, 5]) + part(6, leaf()))
        return part(1, part(1, b"c") + part(2, b"y") + part(4, b"If") + inner) + part(
            12, part(1, b"y"))  # fmt: skip

    def leaf() -> bytes:
        return node(b"Not").replace(b"x", b"c", 1) + part(12, part(1, b"y"))

    way = came(model(nested(depth) + bool_input()))
    assert bool(way.refusal) == (depth > 40), way.refusal


# --- TFLite --------------------------------------------------------------------------------------


def tflite(name: str, inputs: Any, outputs: Any, table: str = "", **options: Any) -> bytes:
    s = pytest.importorskip("ai_edge_litert.schema_py_generated")
    from tests.frontend.tflite_build import build

    made = getattr(s, table + "T")() if table else None
    for key, value in options.items():
        setattr(made, key, value)
    return build(name, inputs, outputs, made)


def floats(*shape: int) -> Any:
    from tests.frontend.tflite_build import T

    return T(np.ones(shape, np.float32))


def test_tflite_operators_without_results_or_inputs() -> None:
    from tests.frontend.tflite_build import T

    for name, table in (("ELU", ""), ("MAX_POOL_2D", "Pool2DOptions"), ("CAST", "CastOptions"),
                        ("RSQRT", ""), ("SOFTMAX", "SoftmaxOptions"), ("PACK", "PackOptions"),
                        ("CONV_2D", "Conv2DOptions"), ("ADD", "AddOptions")):  # fmt: skip
        assert came(tflite(name, [floats(1, 2, 2, 1)], [], table), "tflite").stage >= 1
        assert came(tflite(name, [], [T()], table), "tflite").refusal


def test_tflite_weights_without_channels() -> None:
    from tests.frontend.tflite_build import T

    w = T(np.zeros((1, 1, 1, 0), np.float32), const=True)
    data = tflite("CONV_2D", [floats(1, 2, 2, 1), w, None], [T()], "Conv2DOptions", strideW=1,
                  strideH=1)  # fmt: skip
    assert came(data, "tflite").refusal


def test_tflite_images_of_a_million_columns() -> None:
    from tests.frontend.tflite_build import T

    size = T(np.array([2, 1 << 28], np.int32), const=True)
    data = tflite("RESIZE_BILINEAR", [floats(1, 2, 2, 1), size], [T()], "ResizeBilinearOptions")
    assert came(data, "tflite").refusal


def test_tflite_zero_points_beyond_their_type() -> None:
    from tests.frontend.tflite_build import T

    a = T(np.zeros((1, 4), np.int8), scale=0.1, zero=1 << 38)
    data = tflite("ADD", [a, a], [T(dtype="int8", scale=0.1)], "AddOptions")
    assert "zero point 274877906944" in message(data, "tflite")


def test_tflite_long_rows_are_planned_quickly() -> None:
    """Half a million columns of a transposed convolution, a million phases of another one."""
    from tests.frontend.tflite_build import T

    for stride, columns in ((1, 1 << 19), (1 << 10, 4)):
        shape = T(np.array([1, stride, stride * columns, 1], np.int32), const=True)
        w = T(np.ones((1, 1, 1, 1), np.float32), const=True)
        data = tflite("TRANSPOSE_CONV", [shape, w, floats(1, 1, columns, 1)], [T()],
                      "TransposeConvOptions", strideW=stride, strideH=stride,
                      padding=1)  # fmt: skip
        way = came(data, "tflite")
        assert way.refusal or STAGES[way.stage] == "C"


def test_tflite_segments_of_a_number() -> None:
    from tests.frontend.tflite_build import T

    data = tflite("SEGMENT_SUM", [floats(), T(np.array([0], np.int32), const=True)], [T()])
    assert came(data, "tflite").refusal
