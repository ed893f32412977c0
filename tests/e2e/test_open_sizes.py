"""Models with open dimensions: one program for all sizes gives what ONNX Runtime gives, or says
that sizes do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

import onefold
from onefold.errors import RunError
from onefold.ir import dims

ort = pytest.importorskip("onnxruntime")


def made(nodes: Sequence[Any], inputs: dict[str, list[Any]], constants: dict[str, Any]) -> bytes:
    graph = h.make_graph(
        list(nodes), "open",
        [h.make_tensor_value_info(n, T.FLOAT, shape) for n, shape in inputs.items()],
        [h.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )  # fmt: skip
    opset = [h.make_opsetid("", 17)]
    return bytes(h.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


def array(*shape: int) -> Any:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def same(model: bytes, program: Any, feeds: dict[str, Any]) -> None:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    want = session.run(None, feeds)[0]
    got = program(feeds)["y"]
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_strides_that_the_result_does_not_depend_on() -> None:
    """The result has no open size, but elements of the input lie apart by one."""
    nodes = [h.make_node("Gather", ["x", "i"], ["a"], axis=1), h.make_node("Neg", ["a"], ["y"])]
    model = made(nodes, {"x": [2, "n", 3]}, {"i": np.array([1, 0])})
    program = onefold.load(model).compile(dims={"n": "2..9"}, fallback=False)
    for n in (2, 5):
        same(model, program, {"x": array(2, n, 3)})


@pytest.mark.parametrize("op,weight", [("Conv", (16, 16, 1, 1)), ("ConvTranspose", (16, 8, 2, 2))])
def test_one_pixel_and_an_open_batch(op: str, weight: tuple[int, ...]) -> None:
    nodes = [h.make_node("GlobalAveragePool", ["x"], ["a"]), h.make_node(op, ["a", "w"], ["y"])]
    model = made(nodes, {"x": ["n", 16, 3, 3]}, {"w": array(*weight)})
    program = onefold.load(model).compile(dims={"n": "0..8"}, fallback=False)
    for n in (1, 3):
        same(model, program, {"x": array(n, 16, 3, 3)})


MISFITS = {
    "broadcast": ([h.make_node("Add", ["x", "z"], ["y"])], [1, 2]),
    "product": ([h.make_node("Transpose", ["z"], ["t"]), h.make_node("MatMul", ["x", "t"], ["y"])],
                [3, 2]),
    "joined": ([h.make_node("Concat", ["x", "z"], ["y"], axis=1)], [2, 3]),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_sizes_that_differ_at_run_time(name: str) -> None:
    """Two open dimensions that must be equal: nothing is read outside of an input."""
    nodes, other = MISFITS[name]
    model = made(nodes, {"x": ["a", "b"], "z": ["c", "d"]}, {})
    program = onefold.load(model).compile(dims=dict.fromkeys("abcd", "1..64"), fallback=False)
    same(model, program, {"x": array(4, 3), "z": array(4, 3)})
    with pytest.raises(RunError, match="stopped") as e:
        program({"x": array(64, 33), "z": array(*other)})
    assert e.value.code == "OF512"
    c, d = other
    assert e.value.why == f"shapes do not fit: a=64, b=33, c={c}, d={d}"
    assert e.value.remedy == "Give inputs whose sizes fit each other."


@pytest.mark.parametrize("dims", ["1..64", [8, 64]], ids=["bounded", "buckets"])
def test_a_bounded_size_of_one_is_repeated(dims: Any) -> None:
    """The program for all sizes takes two as equal; a size of 1 gets a form of its own, once."""
    nodes = [h.make_node("Add", ["x", "z"], ["y"])]
    model = made(nodes, {"x": ["a", "b"], "z": ["c", "d"]}, {})
    program = onefold.load(model).compile(dims=dict.fromkeys("abcd", dims), fallback=False)
    shapes = [(4, 3, 4, 3), (4, 3, 1, 3), (1, 1, 5, 6), (7, 3, 1, 3), (5, 2, 5, 1), (1, 1, 1, 1)]
    for sizes in shapes:
        same(model, program, {"x": array(*sizes[:2]), "z": array(*sizes[2:])})
    made_so_far = program.compiles
    same(model, program, {"x": array(6, 5), "z": array(1, 5)})
    assert program.compiles == made_so_far


def test_a_size_of_one_beside_a_state_is_told() -> None:
    """The state would be lost in another form."""
    nodes = [h.make_node("Add", ["x", "z"], ["y"]), h.make_node("Add", ["s", "one"], ["t"])]
    graph = h.make_graph(
        nodes, "open",
        [h.make_tensor_value_info(n, T.FLOAT, shape)
         for n, shape in {"x": ["a"], "z": ["b"], "s": [1]}.items()],
        [h.make_empty_tensor_value_info("y"), h.make_tensor_value_info("t", T.FLOAT, [1])],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )  # fmt: skip
    raw = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    program = onefold.load(raw.SerializeToString()).compile(
        dims={"a": "1..9", "b": "1..9"}, states={"t": "s"}
    )
    assert program({"x": array(4), "z": array(4)})["y"].shape == (4,)
    with pytest.raises(RunError, match="stopped") as e:
        program({"x": array(4), "z": array(1)})
    assert e.value.code == "OF512" and e.value.why == "shapes do not fit: a=4, b=1"
    assert "--dim b=1." in e.value.remedy


def test_a_size_of_one_is_repeated_whenever_it_comes() -> None:
    """Of many sizes the form for all takes over; what does not fit it gets a form of its own."""
    model = made([h.make_node("Add", ["x", "z"], ["y"])], {"x": ["a", 3], "z": ["b", 3]}, {})
    program = onefold.load(model).compile(fallback=False)
    for a, b in [(2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (1, 7), (8, 1), (9, 9)]:
        same(model, program, {"x": array(a, 3), "z": array(b, 3)})
    assert program.compiles < 9


def test_many_open_dimensions() -> None:
    """Where a form for all sizes would need more memory than there is, each gets its own."""
    nodes = [h.make_node("Softmax", ["x"], ["a"]), h.make_node("Transpose", ["a"], ["b"]),
             h.make_node("Softmax", ["b"], ["y"])]  # fmt: skip
    model = made(nodes, {"x": ["a", "b", "c", "d"]}, {})
    program = onefold.load(model).compile(fallback=False)
    for k in range(1, 8):
        same(model, program, {"x": array(k, k + 1, 2, 3 * k)})


def test_results_take_the_room_that_they_need() -> None:
    model = made([h.make_node("Neg", ["x"], ["y"])], {"x": ["a", "b", "c"]}, {})
    program = onefold.load(model).compile(dims=dict.fromkeys("abc", "0..100000"), fallback=False)
    same(model, program, {"x": array(2, 3, 4)})


UNFIT = {
    "channels": [h.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
                 h.make_node("Conv", ["t", "w"], ["y"])],
    "transposed": [h.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
                   h.make_node("ConvTranspose", ["t", "v"], ["y"])],
    "split": [h.make_node("Split", ["x", "s"], ["z", "y"], axis=1)],
    "sum": [h.make_node("Einsum", ["x", "m"], ["y"], equation="abc,bd->acd")],
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_sizes_that_constants_expect(name: str) -> None:
    """An open extent of another size than weights or parts have: nothing is read outside."""
    shape = [1, "n", 4] if name in ("split", "sum") else [1, 4, "n"]
    constants = {"w": array(6, 5, 1), "v": array(5, 6, 1), "s": np.array([3, 2]), "m": array(5, 3)}
    used = {i for node in UNFIT[name] for i in node.input}
    model = made(UNFIT[name], {"x": shape}, {k: v for k, v in constants.items() if k in used})
    program = onefold.load(model).compile(dims={"n": "1..64"}, fallback=False)
    for n in (5, 3):
        x = array(*(n if d == "n" else int(d) for d in shape))
        if n == 5:
            same(model, program, {"x": x})
        else:
            with pytest.raises(RunError) as e:
                program({"x": x})
            assert e.value.code == "OF512"


def test_masked_loads_at_bounded_sizes() -> None:
    """Windows that leave the image, rows of a size within known bounds."""
    nodes = [h.make_node("Pad", ["x", "p"], ["a"]),
             h.make_node("AveragePool", ["a"], ["y"], kernel_shape=[1, 3], pads=[0, 2, 0, 2],
                         count_include_pad=1)]  # fmt: skip
    pads = np.array([0, 0, 0, 2, 2, 1, 0, 0])  # the batch and the channels too
    model = made(nodes, {"x": [1, 2, "n", 4]}, {"p": pads})
    program = onefold.load(model).compile(dims={"n": "1..24"}, fallback=False)
    for n in (1, 2, 5):
        same(model, program, {"x": array(1, 2, n, 4)})


def test_masked_loads_across_a_reshape() -> None:
    """The place of a row is found by a division by an open size."""
    nodes = [h.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
             h.make_node("Reshape", ["t", "s"], ["a"]),
             h.make_node("AveragePool", ["a"], ["y"], kernel_shape=[1, 3], pads=[0, 2, 0, 2],
                         count_include_pad=1)]  # fmt: skip
    model = made(nodes, {"x": [2, "n", 6]}, {"s": np.array([1, 2, -1, 6])})
    program = onefold.load(model).compile(dims={"n": "1..24"}, fallback=False)
    for n in (1, 2, 7):
        same(model, program, {"x": array(2, n, 6)})


def test_divisions_by_open_sizes_rejoin() -> None:
    n, i = dims.sym("n", 1, 9), dims.sym("i", 0, 99)
    high, low = dims.floordiv(i, n), dims.mod(i, n)
    assert dims.rejoin(dims.add(dims.mul(dims.mul(high, n), 6), dims.mul(low, 6))) == dims.mul(i, 6)
    a, b = dims.floordiv(high, 3), dims.mod(high, 3)
    whole = dims.add(dims.mul(dims.mul(a, n), 24), dims.mul(dims.mul(b, n), 8))
    assert dims.rejoin(dims.add(whole, dims.mul(low, 8))) == dims.mul(i, 8)
    apart = dims.add(dims.mul(dims.mul(high, n), 7), dims.mul(low, 6))
    assert dims.rejoin(apart) == apart
