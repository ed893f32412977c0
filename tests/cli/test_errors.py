"""How commands fail: a message or its JSON, the exit code, never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import onefold
from onefold.cli import _failure
from onefold.errors import InputError, MemoryLimitError, ShapeError
from onefold.frontend.binding import ValueNeeded
from tests.cli.made import save, value


def test_missing_file(cli) -> None:
    done = cli("run", "nothing.onnx")
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith("OF104: there is no file 'nothing.onnx'\n")
    assert "  next:  " in done.err


def test_missing_file_as_json(cli) -> None:
    done = cli("inspect", "nothing.onnx", "--json")
    assert done.code == 1
    assert done.json["code"] == "OF104"
    assert done.json["error"] == "ModelFormatError"
    assert done.err == ""


def test_no_model_at_all(cli, tmp_path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"<html>not here</html>")
    done = cli("check", "x.onnx")
    assert done.code == 1
    assert "OF102" in done.err


@pytest.mark.parametrize("words", [
    ["rum"], ["run"], ["run", "m", "--top", "0"], ["run", "m", "--nonsense"],
    ["run", "m", "--dim", "batch"], ["run", "m", "--shape", "x=1xtwo"],
    ["run", "m", "--shape", "x=1x-2"], ["run", "m", "--value", "k=one"],
    ["run", "m", "--mean", "a"],
])  # fmt: skip
def test_usage_is_exit_code_2(cli, words: list[str]) -> None:
    done = cli(*words)
    assert done.code == 2
    assert "Error: " in done.err
    assert "Traceback" not in done.err


def test_usage_as_json(cli) -> None:
    done = cli("run", "--json")
    assert done.code == 2
    assert done.json["error"] == "UsageError" and done.json["where"] == "onefold run"
    assert set(done.json) == set(cli("run", "nothing.onnx", "--json").json)
    assert "MODEL" in done.json["what"]


@pytest.mark.toolchain
def test_sizes_that_do_not_fit_are_named_as_the_cause(cli, tmp_path) -> None:
    pool = helper.make_node("AveragePool", ["x"], ["y"], name="pool", kernel_shape=[4, 4])
    shape = [1, 1, "h", "w"]
    path = save(tmp_path / "p.onnx", [pool], [value("x", shape)], [value("y", shape)])
    for verb in ("run", "check", "inspect"):
        done = cli(verb, path)  # both dimensions are taken as 1
        assert done.code == 1
        assert "OF201: a layer does not take the sizes given" in done.err
        assert "layer 'pool' (AveragePool)" in done.err
        assert "--dim h=SIZE" in done.err
    assert cli("run", path, "--dim", "h=8", "--dim", "w=8").code == 0


def test_sizes_are_the_cause_before_a_layer_that_needs_values(cli, tmp_path) -> None:
    make = helper.make_node
    nodes = [make("AveragePool", ["x"], ["a"], name="pool", kernel_shape=[4, 4]),
             make("Reshape", ["a", "s"], ["y"], name="shape")]  # fmt: skip
    ports = [value("x", [1, 1, "h", "w"]), value("s", [2], TensorProto.INT64)]
    path = save(tmp_path / "p.onnx", nodes, ports, [value("y", None)])
    done = cli("run", path)
    assert "OF201: a layer does not take the sizes given" in done.err, done.err
    nodes[0] = make("AveragePool", ["x"], ["a"], name="pool", kernel_shape=[4, 4, 4])
    save(path, nodes, ports, [value("y", None)])
    assert "OF110: one layer of the model cannot be taken" in cli("run", path).err


def test_the_memory_limit_is_named(cli, models, monkeypatch) -> None:
    monkeypatch.setenv("ONEFOLD_MEMORY_LIMIT", "10")
    done = cli("inspect", models / "net.onnx")
    assert done.code == 1
    assert "OF601: Conv: its result takes 1280 bytes" in done.err
    assert "raise ONEFOLD_MEMORY_LIMIT" in done.err


@pytest.mark.parametrize("prefix", ["1abc", "a b", "int", "of_x", "ä"])
def test_prefixes_that_are_no_names(cli, models, prefix: str) -> None:
    done = cli("build", models / "net.onnx", "--out", "x", "--prefix", prefix)
    assert done.code == 2
    assert "OF610" in done.err and "cannot begin the names of functions" in done.err


def test_an_optimisation_that_does_not_exist(cli, models) -> None:
    done = cli("build", models / "net.onnx", "--out", "x", "--optimize=-O9")
    assert done.code == 2
    assert "OF610: there is no optimisation '-O9'" in done.err


def test_output_that_cannot_be_written(models) -> None:
    for words in (["explain", "OF110"], ["explain", "OF110", "--json"], ["targets"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run([sys.executable, "-m", "onefold", *words], stdout=full, text=True,
                                  stderr=subprocess.PIPE)  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.startswith("OF425: the output cannot be written")
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_termination_closes_what_is_open(models, tmp_path) -> None:
    script = ("import os, signal\nfrom onefold import cli\n"
              "def run(arguments):\n"
              "    try: os.kill(os.getpid(), signal.SIGTERM)\n"
              "    finally: print('closed', flush=True)\n"
              "cli.run = run\ncli.main([])")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (143, "closed\n")


def test_a_cache_folder_that_cannot_be_made(cli, models, monkeypatch) -> None:
    monkeypatch.setenv("ONEFOLD_CACHE_DIR", "/proc/none")
    done = cli("run", models / "net.onnx")
    assert done.code == 1
    assert "OF424: the cache folder cannot be made" in done.err


def test_buckets_cannot_be_built(cli, models) -> None:
    done = cli("build", models / "open.onnx", "--dim", "batch=8,16", "--out", "x")
    assert done.code == 2
    assert "buckets cannot be built: batch=8,16" in done.err
    assert "--dim batch=8, or one for all: --dim batch=0..16." in done.err


def test_a_state_cannot_be_given(models) -> None:
    program = onefold.load(models / "two.onnx").compile(states={"sum": "b"})
    zeros = np.zeros((2, 3), np.float32)
    with pytest.raises(InputError) as e:
        program({"a": zeros, "b": zeros})
    assert e.value.why == "'b' is a state, which the program keeps from call to call"


def test_files_that_are_something_else(cli, models) -> None:
    assert "model file '.' cannot be read" in cli("run", ".").err
    Path("labels.txt").write_bytes(b"\x89PNG\0\0")
    assert "are not a text" in cli("run", models / "net.onnx", "--labels", "labels.txt").err
    Path("s.wav").write_bytes(b"RIFF")
    done = cli("run", models / "net.onnx", "--input", "s.wav")
    assert "a sound does not fit the input 'x'" in done.err


@pytest.mark.toolchain
def test_values_take_the_type_of_their_input(cli, tmp_path) -> None:
    add = helper.make_node("Add", ["x", "y"], ["z"], name="add")
    ports = [value(n, [3]) for n in "xyz"]
    path = save(tmp_path / "a.onnx", [add], ports[:2], ports[2:])
    np.save("x.npy", np.zeros(3, np.float32))
    done = cli("run", path, "--value", "y=1,2,3", "--input", "x=x.npy", "--json")
    assert done.json["outputs"][0]["values"] == [1, 2, 3]


def test_features_of_a_processor_are_its_own(cli, models) -> None:
    done = cli("build", models / "net.onnx", "--target", "cortex-m4f+mve", "--out", "x")
    assert done.code == 1
    assert "OF404: features cannot be added to 'cortex-m4f'" in done.err
    assert "OF404" in cli("doctor", "--prepare", "wasm32").err


def test_misspelt_verb(cli) -> None:
    assert cli("frobnicate").err.endswith("'frobnicate'.\n")
    assert "There is no verb 'inspct'. Did you mean 'inspect'?" in cli("inspct").err


@pytest.mark.parametrize(("words", "text"), [
    (["--dim", "btch=3"], "--dim: the model has no open dimension 'btch'"),
    (["--shape", "y=3x3"], "--shape: the model has no input 'y'"),
    (["--state", "y=z"], "--state: the model has no input 'z'"),
    (["--value", "k=1"], "--value: the model has no input 'k'"),
    (["--dim", "batch=3..1"], "the dimension batch=3..1 is out of range"),
    (["--dim", "batch=many"], "the dimension batch=many is not understood"),
])  # fmt: skip
def test_options_name_what_the_model_has(cli, models, words: list[str], text: str) -> None:
    done = cli("run", models / "open.onnx", *words)
    assert done.code == 2
    assert text in done.err


def test_an_unexpected_exception_is_a_short_message(cli, monkeypatch) -> None:
    def broken(code: str) -> None:
        raise KeyError("\x1b[31mmissing")

    monkeypatch.setattr("onefold.errors.explain", broken)
    done = cli("explain", "OF001")
    assert done.code == 1
    assert done.err.startswith("OF001: unexpected KeyError: ")
    assert "defect in Onefold" in done.err
    assert "Traceback" not in done.err
    assert "\x1b" not in done.err


def test_the_traceback_comes_when_asked_for(cli, monkeypatch) -> None:
    def broken(code: str) -> None:
        raise KeyError("missing")

    monkeypatch.setattr("onefold.errors.explain", broken)
    monkeypatch.setenv("ONEFOLD_DEBUG", "1")
    assert "Traceback" in cli("explain", "OF001").err


def test_exceptions_with_a_meaning_of_their_own() -> None:
    needed = _failure.translated(ValueNeeded(("k",), "top", "TopK needs k"))
    assert isinstance(needed, ShapeError)
    assert "--value k=FILE.npy" in needed.remedy
    assert isinstance(_failure.translated(MemoryError()), MemoryLimitError)


def test_a_package_that_does_not_import_is_a_message_too(cli, models, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onefold.frontend.binding", None)
    monkeypatch.setitem(sys.modules, "onefold.dev.survey", None)
    done = cli("inspect", models / "net.onnx")
    assert done.code == 1
    assert done.err.startswith("OF001: unexpected ModuleNotFoundError: ")


def test_exit_codes_of_the_process(tmp_path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        code = "from onefold.cli import main; main()"
        return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True,
                              timeout=60)  # fmt: skip

    assert run("explain", "OF301").returncode == 0
    missing = run("run", "nothing.onnx", "--json")
    assert missing.returncode == 1
    assert json.loads(missing.stdout)["code"] == "OF104"
    assert run("run").returncode == 2


def test_interrupted(cli, monkeypatch) -> None:
    def stopped(code: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("onefold.errors.explain", stopped)
    assert cli("explain", "OF001").code == 130
