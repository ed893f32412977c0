"""Prepared calls: the arrays that they are bound to, what they outlive, and what they refuse."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onefold
from onefold.errors import InputError, OptionError, RunError
from tests.e2e.made import DIGITS, save

pytestmark = pytest.mark.toolchain


def image(seed: int) -> Any:
    return np.random.default_rng(seed).random((1, 1, 8, 8), np.float32)


@pytest.fixture(scope="module")
def digits() -> onefold.Program:
    return onefold.load(DIGITS).compile()


def test_a_call_reads_and_writes_the_arrays_where_they_lie(digits: onefold.Program) -> None:
    x, y = image(0), np.zeros((1, 10), np.float32)
    call = digits.prepare({"image": x}, {"probabilities": y})
    assert call.inputs["image"] is x and call.outputs["probabilities"] is y
    for seed in range(3):
        x[...] = image(seed)
        out = call()
        assert out is call.outputs
        assert y.tobytes() == digits(image(seed))["probabilities"].tobytes()


def test_arrays_are_made_where_none_are_given(digits: onefold.Program) -> None:
    call = digits.prepare()
    assert {n: (a.shape, a.dtype) for n, a in call.inputs.items()} == {
        "image": ((1, 1, 8, 8), np.float32)
    }
    call.inputs["image"][...] = image(1)
    assert call()["probabilities"].tobytes() == digits(image(1))["probabilities"].tobytes()


def test_several_calls_have_memory_of_their_own(digits: onefold.Program) -> None:
    calls = [digits.prepare(image(k)) for k in range(3)]
    outs = [call() for call in calls]
    for k, out in enumerate(outs):
        assert out["probabilities"].tobytes() == digits(image(k))["probabilities"].tobytes()


def test_a_call_outlives_its_program_and_arrays() -> None:
    program = onefold.load(DIGITS).compile(cache=False)
    want = program(image(2))["probabilities"].tobytes()
    call = program.prepare(image(2))
    del program
    gc.collect()
    assert call()["probabilities"].tobytes() == want


@pytest.mark.parametrize(("array", "why"), [
    (image(0)[..., ::-1], "contiguous"),
    (image(0).astype(">f4"), "converted"),
    (image(0).tolist(), "converted"),
    (image(0).astype(np.float64), "float64"),
    (np.zeros((1, 1, 8, 7), np.float32), "shape"),
])  # fmt: skip
def test_inputs_that_cannot_be_bound(digits: onefold.Program, array: Any, why: str) -> None:
    with pytest.raises(InputError, match=rf"(?s)'image'.*{why}"):
        digits.prepare({"image": array})


@pytest.mark.parametrize(("array", "why"), [
    (np.zeros((1, 11), np.float32), r"float32\[1, 11\], not float32\[1, 10\]"),
    (np.zeros((1, 10), np.float64), r"float64\[1, 10\], not"),
    ([0.0] * 10, "it is list, not"),
    (np.zeros((1, 20), np.float32)[:, ::2], "contiguous"),
])  # fmt: skip
def test_outputs_that_cannot_be_bound(digits: onefold.Program, array: Any, why: str) -> None:
    with pytest.raises(InputError, match=rf"(?s)'probabilities'.*{why}"):
        digits.prepare(image(0), {"probabilities": array})


def test_names_of_outputs_are_checked(digits: onefold.Program) -> None:
    with pytest.raises(OptionError, match="no output 'probability'"):
        digits.prepare(image(0), {"probability": np.zeros((1, 10), np.float32)})


def test_an_output_in_the_memory_of_an_input(digits: onefold.Program) -> None:
    x = image(0)
    with pytest.raises(InputError, match="shares memory with input 'image'"):
        digits.prepare(x, {"probabilities": x.reshape(-1)[:10].reshape(1, 10)})


def test_one_thread_at_a_time(digits: onefold.Program) -> None:
    call = digits.prepare(image(0))
    enter = call._free.pop()  # as another thread does that is in it
    with pytest.raises(RunError, match="running already"):
        call()
    call._free.append(enter)
    call()


def test_a_call_that_fails_can_be_called_again(tmp_path: Path) -> None:
    from onnx import TensorProto as T
    from onnx import helper as h

    table = np.arange(5, dtype=np.float32)
    nodes = [h.make_node("Gather", ["table", "at"], ["y"], name="find")]
    path = save(tmp_path, "find", nodes, [("at", T.INT64, [2])], [("y", T.FLOAT, [2])],
                [("table", table)])  # fmt: skip
    call = onefold.load(path).compile().prepare()
    call.inputs["at"][...] = [1, 9]
    with pytest.raises(RunError, match="find"):
        call()
    call.inputs["at"][...] = [1, 3]
    assert call()["y"].tolist() == [1, 3]


def counter(folder: Path, grows: bool) -> Path:
    """A sum over calls, or all inputs so far."""
    from onnx import TensorProto as T
    from onnx import helper as h

    if grows:
        nodes = [h.make_node("Concat", ["past", "x"], ["now"], axis=0)]
        past: list[int | str] = ["n", 1]
        now: list[int | str] = ["m", 1]
    else:
        nodes, past, now = [h.make_node("Add", ["past", "x"], ["now"])], [1, 1], [1, 1]
    nodes.append(h.make_node("ReduceSum", ["now"], ["y"], keepdims=0))
    return save(folder, "counter", nodes, [("past", T.FLOAT, past), ("x", T.FLOAT, [1, 1])],
                [("now", T.FLOAT, now), ("y", T.FLOAT, [])], [])  # fmt: skip


def test_a_state_is_that_of_the_program(tmp_path: Path) -> None:
    program = onefold.load(counter(tmp_path, False)).compile(states={"now": "past"})
    x = np.ones((1, 1), np.float32)
    call = program.prepare({"x": x})
    assert [call()["y"].item(), program({"x": x})["y"].item(), call()["y"].item()] == [1, 2, 3]
    program.reset()

    def turns() -> None:
        own = program.prepare({"x": x})
        for _ in range(200):
            own()

    threads = [threading.Thread(target=turns) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert call()["y"].item() == 801


def test_a_state_that_grows_is_refused(tmp_path: Path) -> None:
    program = onefold.load(counter(tmp_path, True)).compile(
        states={"now": "past"}, dims={"n": "0..8"}
    )
    with pytest.raises(OptionError, match=r"(?s)not known beforehand.*a state grows"):
        program.prepare({"x": np.ones((1, 1), np.float32)})


def rows(folder: Path) -> Path:
    from onnx import TensorProto as T
    from onnx import helper as h

    return save(folder, "rows", [h.make_node("Exp", ["x"], ["y"])],
                [("x", T.FLOAT, ["n", 3])], [("y", T.FLOAT, ["n", 3])], [])  # fmt: skip


def test_open_sizes_are_those_of_the_inputs(tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for dims in ({}, {"n": "0..5"}):
        program = onefold.load(rows(tmp_path)).compile(dims=dims)
        with pytest.raises(OptionError, match="open"):
            program.prepare()
        call = program.prepare(x)
        assert call()["y"].shape == (2, 3)
        np.testing.assert_allclose(call()["y"], np.exp(x), rtol=1e-6)


def test_sizes_that_the_program_finds_are_refused(tmp_path: Path) -> None:
    from onnx import TensorProto as T
    from onnx import helper as h

    path = save(tmp_path, "which", [h.make_node("NonZero", ["x"], ["y"])],
                [("x", T.FLOAT, [4])], [("y", T.INT64, [1, "n"])], [])  # fmt: skip
    with pytest.raises(OptionError, match=r"(?s)beforehand.*found out by the program"):
        onefold.load(path).compile().prepare(np.zeros(4, np.float32))


def test_what_runs_in_numpy_cannot_be_prepared(tmp_path: Path) -> None:
    from onnx import TensorProto as T
    from onnx import helper as h

    path = save(tmp_path, "words", [h.make_node("StringNormalizer", ["x"], ["y"])],
                [("x", T.STRING, [1])], [("y", T.STRING, [1])], [])  # fmt: skip
    with pytest.warns(UserWarning, match="NumPy"):
        program = onefold.load(path).compile()
    with pytest.raises(OptionError, match="everything is compiled"):
        program.prepare(np.array(["a"], object))


WARM = """\
import sys
import numpy as np
import onefold
before = set(sys.modules)
program = onefold.load(sys.argv[1]).compile()
call = program.prepare()
call()
program(np.zeros((1, 1, 8, 8), np.float32))
print(program.compiles, *sorted(n for n in set(sys.modules) - before if n.startswith("onefold.")))
"""


def test_a_warm_start_imports_what_running_needs() -> None:
    """No importer, operator, pass, planner or generator of code."""
    onefold.load(DIGITS).compile()
    done = subprocess.run([sys.executable, "-c", WARM, str(DIGITS)], check=True, text=True,
                          stdout=subprocess.PIPE)  # fmt: skip
    compiles, *loaded = done.stdout.split()
    assert compiles == "0"
    away = ("frontend.onnx", "frontend.sniff", "frontend.source", "ops", "passes", "plan",
            "codegen", "backends.", "ship", "cli", "ir.dims", "ir.graph")  # fmt: skip
    assert [n for n in loaded if n.removeprefix("onefold.").startswith(away)] == []
