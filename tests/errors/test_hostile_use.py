"""Wrong use, and a hostile machine, seen through the API: one clear error or a right answer."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onefold
from onefold.errors import (
    CacheError,
    DiskError,
    InputError,
    ModelFormatError,
    OnefoldError,
    OptionError,
    ShapeError,
    TargetError,
    ToolchainError,
)
from onefold.run import cache

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

pytestmark = pytest.mark.toolchain
SHAPE = (2, 3)
A = np.arange(6, dtype=np.float32).reshape(SHAPE)


def model_bytes(shape: tuple[int, ...] = SHAPE) -> bytes:
    """y = exp(a) + b"""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in "aby"]
    nodes = [helper.make_node("Exp", ["a"], ["e"], name="the/exp"),
             helper.make_node("Add", ["e", "b"], ["y"], name="the/add")]  # fmt: skip
    graph = helper.make_graph(nodes, "g", values[:2], values[2:])
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The compiled model, once for all tests that only call it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEFOLD_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield onefold.load(model_bytes()).compile()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("ONEFOLD_CACHE_DIR", str(folder))
    return folder


def right(out: dict[str, Any], a: Any = A, b: Any = A) -> bool:
    with np.errstate(all="ignore"):
        want = np.exp(a) + b
    return bool(np.allclose(out["y"], want, rtol=1e-5, atol=1e-6, equal_nan=True))


def complete(error: OnefoldError) -> bool:
    """What, and what to do next, are always there."""
    return bool(error.what and error.remedy and error.code)


# --- arrays --------------------------------------------------------------------------------------


class Exported:
    """A tensor of another library."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


class Elsewhere(Exported):
    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("the tensor lies on a GPU")


def readonly(a: Any) -> Any:
    a = a.copy()
    a.flags.writeable = False
    return a


def unaligned(a: Any) -> Any:
    return np.frombuffer(b"x" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)


TAKEN: dict[str, Callable[[Any], Any]] = {
    "plain": lambda a: a,
    "every second column": lambda a: np.repeat(a, 2, 1)[:, ::2],
    "backwards": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "Fortran order": np.asfortranarray,
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "read-only": readonly,
    "not aligned": unaligned,
    "a list": lambda a: a.tolist(),
    "numbers in tuples": lambda a: tuple(map(tuple, a.tolist())),
    "DLPack": Exported,
    "a masked array without a mask": np.ma.array,
}


@pytest.mark.parametrize("kind", TAKEN)
def test_arrays_that_are_taken(shared: Any, kind: str) -> None:
    before = A.copy()
    out = shared({"a": TAKEN[kind](A), "b": A})
    assert right(out) and np.array_equal(A, before)
    assert out["y"].flags.c_contiguous and out["y"].flags.writeable


def test_a_single_number_seen_many_times(shared: Any) -> None:
    x = np.broadcast_to(np.float32(2), SHAPE)
    assert right(shared({"a": x, "b": A}), x)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, 1e-45])
def test_values_at_the_ends_of_the_type(shared: Any, value: float) -> None:
    x = np.full(SHAPE, value, np.float32)
    assert right(shared({"a": x, "b": x}), x, x)


def test_a_tensor_without_elements(own_cache: Path) -> None:
    x = np.zeros((0, 3), np.float32)
    out = onefold.load(model_bytes((0, 3))).compile()({"a": x, "b": x})
    assert out["y"].shape == (0, 3)


REFUSED: dict[str, tuple[Any, tuple[str, ...]]] = {
    "float64": (A.astype(np.float64), ("input 'a'", "float64, not float32", "astype('float32')")),
    "int32": (A.astype(np.int32), ("input 'a'", "int32, not float32", "astype")),
    "objects": (A.astype(object), ("input 'a'", "object, not float32")),
    "texts": (A.astype(str), ("input 'a'", "not float32")),
    "too few rows": (A[:1], ("input 'a' has shape [1, 3]", "dimension 0 is 1, not 2", "[2,3]")),
    "another rank": (A.reshape(-1), ("has shape [6]", "1 dimensions, not 2")),
    "no elements": (A[:0], ("has shape [0, 3]", "dimension 0 is 0, not 2")),
    "transposed": (A.T, ("has shape [3, 2]", "dimension 0 is 3, not 2")),
    "a ragged list": ([[1, 2, 3], [1]], ("input 'a' is not an array",)),
    "a text": ("abc", ("input 'a' is not an array", "abc")),
    "None": (None, ("input 'a' is None",)),
    "a dict": ({}, ("input 'a'",)),
    "masked elements": (np.ma.array(A, mask=A > 2), ("masked", "filled")),
    "a tensor on a GPU": (Elsewhere(A), ("input 'a'", "DLPack", "on a GPU", "NumPy array")),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_arrays_that_are_refused(shared: Any, kind: str) -> None:
    given, words = REFUSED[kind]
    with pytest.raises(InputError) as caught:
        shared({"a": given, "b": A})
    assert all(w in str(caught.value) for w in words), str(caught.value)
    assert caught.value.code == "OF501" and complete(caught.value)
    assert right(shared({"a": A, "b": A})), "the program still works"


def test_integers_are_not_cut_to_fit(own_cache: Path) -> None:
    values = [helper.make_tensor_value_info(n, TensorProto.UINT8, [2]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "g", values[:1], values[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    program = onefold.load(proto).compile()
    assert program([1, 255])["y"].tolist() == [1, 255]
    for bad in ([1, 256], [-1, 0], [0.5, 1], [1.0, 2.0]):
        with pytest.raises(InputError, match="is not an array"):
            program(bad)


NAMES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "one missing": ({"a": A}, ("missing: b", "inputs are a, b")),
    "one too many": ({"a": A, "b": A, "c": A}, ("do not fit: c", "inputs are a, b")),
    "misspelt": ({"A": A, "b": A}, ("missing: a", "inputs are a, b")),
    "no text": ({1: A, "b": A}, ("missing: a",)),
    "none at all": ({}, ("missing: a, b",)),
    "one array for two inputs": (A, ("the model has 2 inputs", "Give a dict")),
    "three arrays for two inputs": ([A, A, A], ("the model has 2 inputs",)),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_that_do_not_fit(shared: Any, kind: str) -> None:
    given, words = NAMES[kind]
    with pytest.raises(InputError) as caught:
        shared(given)
    assert all(w in str(caught.value) for w in words), str(caught.value)


def test_arrays_by_keyword_and_in_order(shared: Any) -> None:
    assert right(shared(a=A, b=A)) and right(shared([A, A]))


# --- options -------------------------------------------------------------------------------------


OPTIONS: dict[str, tuple[dict[str, Any], type[OnefoldError], tuple[str, ...]]] = {
    "target": ({"target": "hots"}, TargetError, ("no target 'hots'", "Did you mean", "host")),
    "target that is no text": ({"target": 5}, TargetError, ("no target '5'",)),
    "feature": ({"target": "host+nonsense"}, TargetError, ("nonsense",)),
    "precision": ({"precision": "f99"}, OptionError, ("f99", "f32, bf16")),
    "threads": ({"threads": -1}, OptionError, ("threads=-1", "1 to 256")),
    "optimisation": ({"optimize": "-O9"}, OptionError, ("-O9", "-O2")),
    "optimisation that is a flag": ({"optimize": "-fplugin=x.so"}, OptionError, ("-fplugin",)),
    "shape of nothing": ({"shapes": {"q": (1,)}}, OptionError, ("no input 'q'", "a, b")),
    "negative shape": ({"shapes": {"a": (2, -3)}}, OptionError, ("a=(2, -3)",)),
    "shape that is a text": ({"shapes": {"a": "x"}}, OptionError, ("a=x",)),
    "shapes that contradict": ({"shapes": {"a": (7, 3)}}, OnefoldError, ("the/add", "broadcast")),
    "dimension of nothing": ({"dims": {"q": 3}}, OptionError, ("no open dimension 'q'",)),
    "dimension": ({"dims": {"q": "x"}}, OptionError, ("q=x", "NAME=64")),
    "negative dimension": ({"dims": {"q": -1}}, OptionError, ("out of range",)),
    "state": ({"states": {"q": "a"}}, OnefoldError, ("q",)),
    "values of nothing": ({"values": {"q": A}}, OptionError, ("no input 'q'",)),
    "values of another type": ({"values": {"a": [[1j]]}}, InputError, ("'a'", "complex128")),
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_options_that_are_refused(own_cache: Path, kind: str) -> None:
    options, error, words = OPTIONS[kind]
    with pytest.raises(error) as caught:
        onefold.load(model_bytes()).compile(**options)
    assert all(w in str(caught.value) for w in words), str(caught.value)
    assert complete(caught.value)


@pytest.mark.parametrize(("source", "words"), [
    (None, ("NoneType", "path, bytes")),
    (5, ("int",)),
    ("/nonexistent.onnx", ("no file '/nonexistent.onnx'",)),
    ("\0", ("no file",)),
    (b"", ("empty",)),
    (b"<html>not found</html>", ("not a model",)),
    (model_bytes()[:-7], ("malformed",)),
])  # fmt: skip
def test_sources_that_are_no_model(source: Any, words: tuple[str, ...]) -> None:
    with pytest.raises((ModelFormatError, OptionError)) as caught:
        print(onefold.load(source).graph)
    assert all(w in str(caught.value) for w in words), str(caught.value)
    assert complete(caught.value)


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError):
        print(onefold.load(tmp_path).graph)


def test_a_graph_that_depends_on_contents_says_so() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [6])
    s = helper.make_tensor_value_info("s", TensorProto.INT64, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "s"], ["y"])], "g", [x, s], [y])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ShapeError) as caught:
        print(onefold.load(proto).graph)
    assert "contents of s" in str(caught.value) and "values=" in str(caught.value)
    out = onefold.load(proto).run({"x": np.arange(6, dtype=np.float32), "s": np.array([2, 3])})
    assert out["y"].shape == (2, 3)


def test_results_belong_to_the_caller(own_cache: Path) -> None:
    """Outputs that are inputs or constants are copies: writing into them changes nothing."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])
    outs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in ("x", "c", "y")]
    c = onnx.numpy_helper.from_array(np.ones(3, np.float32), "c")
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], outs, [c])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    program = onefold.load(proto).compile()
    given = np.arange(3, dtype=np.float32)
    for _ in range(2):
        out = program(given)
        assert [out[n].tolist() for n in ("x", "c", "y")] == [[0, 1, 2], [1, 1, 1], [0, 1, 2]]
        for array in out.values():
            array[:] = 7
    assert given.tolist() == [0, 1, 2]


# --- threads -------------------------------------------------------------------------------------


def test_eight_threads_with_inputs_of_their_own(shared: Any) -> None:
    def work(k: int) -> bool:
        rng = np.random.default_rng(k)
        for _ in range(200):
            a, b = (rng.normal(size=SHAPE).astype(np.float32) for _ in range(2))
            if not right(shared({"a": a, "b": b}), a, b):
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_python_goes_on_during_a_call(own_cache: Path) -> None:
    """A second thread counts while a long call runs."""
    size = (2000, 2000)
    program = onefold.load(model_bytes(size)).compile()
    x = np.zeros(size, np.float32)
    with ThreadPoolExecutor(1) as pool:
        program({"a": x, "b": x})
        running = pool.submit(lambda: [program({"a": x, "b": x}) for _ in range(5)])
        counted = 0
        while not running.done():
            counted += 1
        running.result()
    assert counted > 100


# --- the cache -----------------------------------------------------------------------------------


def build_and_run() -> dict[str, Any]:
    out: dict[str, Any] = onefold.load(model_bytes()).compile()({"a": A, "b": A})
    return out


def files_of_cache(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and "part0" in p.parts)


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "removed", "replaced"])
@pytest.mark.parametrize("name", ["model.so", "manifest.json"])
def test_a_damaged_entry_is_built_again(own_cache: Path, how: str, name: str) -> None:
    assert right(build_and_run())
    (path,) = [p for p in files_of_cache(own_cache) if p.name == name]
    raw = bytearray(path.read_bytes())
    os.chmod(path, 0o600)
    if how == "flipped":
        raw[len(raw) // 2] ^= 0x10
    elif how == "cut":
        del raw[len(raw) // 2 :]
    elif how == "empty":
        raw.clear()
    elif how == "replaced":
        raw[:] = b"#!/bin/sh\n" + bytes(len(raw) - 10)
    path.unlink()
    if how != "removed":
        path.write_bytes(raw)
    assert right(build_and_run())


SCRIPT = """
import sys, numpy as np, onefold
a = np.arange(6, dtype=np.float32).reshape(2, 3)
program = onefold.load(open(sys.argv[1], "rb").read()).compile()
out = program({"a": a, "b": a})["y"]
assert np.allclose(out, np.exp(a) + a, rtol=1e-5)
print("right", flush=True)
"""


def start(model: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(model)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(model_bytes())
    return path


def test_processes_that_compile_the_same_model(own_cache: Path, model_file: Path) -> None:
    running = [start(model_file) for _ in range(3)]
    for p in running:
        out, err = p.communicate(timeout=300)
        assert out == "right\n", err
    assert len(cache.entries()) == 1


@pytest.mark.parametrize("delay", [0.2, 0.5, 0.9])
def test_killed_while_compiling(own_cache: Path, model_file: Path, delay: float) -> None:
    p = start(model_file)
    time.sleep(delay)
    os.killpg(p.pid, signal.SIGKILL)
    p.communicate()
    again = start(model_file)
    out, err = again.communicate(timeout=300)
    assert out == "right\n", err


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Makes small file systems; skips without the right to."""
    made: list[Path] = []

    def mount(*options: str) -> Path:
        folder = tmp_path / f"disk{len(made)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", ",".join(("mode=700", *options)), "tmpfs"]
        found = shutil.which("mount") and not os.geteuid()
        if not found or subprocess.run([*command, str(folder)], capture_output=True).returncode:
            pytest.skip("mounting a file system needs root")
        made.append(folder)
        return folder

    yield mount
    for folder in made:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_no_space_left(tiny_disk: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_disk("size=16k")
    monkeypatch.setenv("ONEFOLD_CACHE_DIR", str(folder))
    with pytest.raises((DiskError, ToolchainError)) as caught:
        build_and_run()
    assert "no space left" in str(caught.value).lower() and complete(caught.value)
    assert [p for p in folder.rglob("*") if p.is_file() and p.suffix in (".c", ".so", ".o")] == []


def test_a_read_only_cache(tiny_disk: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEFOLD_CACHE_DIR", str(tiny_disk("ro")))
    with pytest.raises((CacheError, DiskError)) as caught:
        build_and_run()
    assert "ONEFOLD_CACHE_DIR" in str(caught.value) and "ead-only" in str(caught.value)


def test_a_cache_of_somebody_else(own_cache: Path) -> None:
    if os.geteuid():
        pytest.skip("giving a folder away needs root")
    own_cache.mkdir(mode=0o700)
    os.chown(own_cache, 65534, 65534)
    with pytest.raises(CacheError) as caught:
        build_and_run()
    assert caught.value.code == "OF421" and "another user" in str(caught.value)
    assert str(own_cache) in str(caught.value) and "ONEFOLD_CACHE_DIR" in caught.value.remedy


def test_without_a_toolchain(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onefold.run import toolchain

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    toolchain.find.cache_clear()
    try:
        with pytest.raises(ToolchainError) as caught:
            onefold.load(model_bytes()).compile()
        assert caught.value.code == "OF411" and "pip install ziglang" in str(caught.value)
        out = onefold.load(model_bytes()).run({"a": A, "b": A})
        assert right(out), "the references need no compiler"
    finally:
        toolchain.find.cache_clear()


def scaled(path: Path, by: float, replaced: bool) -> None:
    """A model that multiplies its input, of an open size, written as a new file or into the old."""
    nodes = [helper.make_node("Mul", ["a", "c"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor("c", TensorProto.FLOAT, [], [by])],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    raw = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    target = path.with_suffix(".new") if replaced else path
    target.write_bytes(raw)
    target.replace(path)


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_changes_after_it_was_read(
    own_cache: Path, tmp_path: Path, replaced: bool
) -> None:
    """What is stored under a digest was made from the bytes of that digest."""
    path = tmp_path / "net.onnx"
    scaled(path, 2, True)
    model = onefold.load(path)
    assert len(model.inputs) == 1
    scaled(path, 3, replaced)
    with pytest.raises(ModelFormatError, match="has changed") as e:
        model.compile(dims={"n": 2})
    assert e.value.code == "OF104" and "Load the model again" in e.value.remedy
    new = onefold.load(path).compile(dims={"n": 2})
    np.testing.assert_array_equal(new(np.ones(2, np.float32))["y"], [3, 3])


@pytest.mark.parametrize("small", [True, False], ids=["read", "mapped"])
def test_a_file_that_is_shortened_after_it_was_read(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bool
) -> None:
    """To read a mapping beyond the file's end would end the process."""
    if not small:
        monkeypatch.setattr("onefold.frontend.source.SMALL", 0)
    path = tmp_path / "net.onnx"
    weights = np.arange(1 << 16, dtype=np.float32)
    nodes = [helper.make_node("Add", ["a", "c"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("a", TensorProto.FLOAT, [1 << 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1 << 16])],
        [onnx.numpy_helper.from_array(weights, "c")],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    model = onefold.load(path)
    assert len(model.inputs) == 1
    with path.open("r+b") as file:
        file.truncate(100)
    for use in (model.compile, lambda: model.graph):
        with pytest.raises(ModelFormatError, match="has changed") as e:
            use()
        assert e.value.code == "OF104" and "Load the model again" in e.value.remedy


def beside(path: Path, value: float, replaced: bool) -> None:
    """The weights of `with_data`, written as a new file or into the old."""
    raw = np.full(1 << 16, value, np.float32).tobytes()
    target = path.with_suffix(".new") if replaced else path
    target.write_bytes(raw)
    target.replace(path)


def with_data(path: Path, value: float) -> Path:
    """A model that adds a constant in a file beside it; the path of that file."""
    c = onnx.TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1 << 16],
                         data_location=TensorProto.EXTERNAL)  # fmt: skip
    c.external_data.add(key="location", value="net.data")
    nodes = [helper.make_node("Add", ["a", "c"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("a", TensorProto.FLOAT, [1 << 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1 << 16])], [c],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    )
    beside(path.with_name("net.data"), value, True)
    return path.with_name("net.data")


@pytest.mark.parametrize("small", [True, False], ids=["read", "mapped"])
@pytest.mark.parametrize("replaced", [True, False])
def test_external_data_that_changes_after_its_digest(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool, small: bool
) -> None:
    if not small:
        monkeypatch.setattr("onefold.frontend.source.SMALL", 0)
    data = with_data(tmp_path / "net.onnx", 2)
    model = onefold.load(tmp_path / "net.onnx")
    assert model.digest
    beside(data, 3, replaced)
    with pytest.raises(ModelFormatError, match=r"net\.data' has changed") as e:
        model.compile()
    assert e.value.code == "OF104" and "Load the model again" in e.value.remedy
    new = onefold.load(tmp_path / "net.onnx").compile()
    np.testing.assert_array_equal(new(np.ones(1 << 16, np.float32))["y"], 4)


def test_external_data_under_two_names(own_cache: Path, tmp_path: Path) -> None:
    data = with_data(tmp_path / "net.onnx", 2)
    (tmp_path / "link.data").symlink_to(data.name)
    proto = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    other = proto.graph.initializer.add()
    other.CopyFrom(proto.graph.initializer[0])
    other.name = "d"
    other.external_data[0].value = "link.data"
    proto.graph.node[0].output[0] = "b"
    proto.graph.node.append(helper.make_node("Mul", ["b", "d"], ["y"]))
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    assert onefold.load(tmp_path / "net.onnx").graph.nodes
    program = onefold.load(tmp_path / "net.onnx").compile()
    np.testing.assert_array_equal(program(np.ones(1 << 16, np.float32))["y"], 6)


def test_external_data_that_is_shortened_while_it_is_mapped(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onefold.frontend.source.SMALL", 0)
    data = with_data(tmp_path / "net.onnx", 2)
    model = onefold.load(tmp_path / "net.onnx")
    assert model.graph.nodes
    with data.open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ModelFormatError, match=r"net\.data' has changed"):
        model.compile()


def test_a_file_that_is_gone(own_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    scaled(path, 2, True)
    model = onefold.load(path)
    program = model.compile()
    np.testing.assert_array_equal(program(np.ones(2, np.float32))["y"], [2, 2])
    other = onefold.load(path)
    path.unlink()
    np.testing.assert_array_equal(program(np.ones(5, np.float32))["y"], [2] * 5)
    with pytest.raises(ModelFormatError, match="cannot be read") as e:
        other.compile()
    assert e.value.code == "OF104"


def test_no_cache_leaves_nothing(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = onefold.load(model_bytes()).compile(cache=False)
    feeds = {"a": A, "b": A}
    want = program(feeds)["y"]
    np.testing.assert_array_equal(program(feeds)["y"], want)
    assert list(tmp_path.glob("onefold-*"))
    del program
    gc.collect()
    assert not list(tmp_path.glob("onefold-*"))
