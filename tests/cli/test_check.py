"""`onefold check`, and that it finds what is wrong."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper

from onefold.dev import peers
from onefold.dev.peers import onnxruntime as ort_peer
from onefold.dev.peers import tflm as tflm_peer
from onefold.errors import MissingExtraError
from tests.cli.made import save, value

pytestmark = pytest.mark.toolchain


def test_a_right_model(cli, models) -> None:
    done = cli("check", models / "net.onnx", "--each", "--json")
    assert done.code == 0
    facts = done.json
    assert facts["ok"] and facts["against"] == "onnxruntime" and facts["samples"] == 3
    (scores,) = facts["outputs"]
    assert scores["ok"] and scores["argmax_equal"] == 3 and scores["elements"] == 12
    assert [r["layer"] for r in facts["layers"]] == ["conv", "relu", "mean", "flat", "dense"]
    assert all(r["compiled"] for r in facts["layers"])
    assert facts["first_wrong"] is None


def test_against_the_references(cli, models) -> None:
    done = cli("check", models / "net.onnx", "--against", "reference")
    assert done.code == 0
    assert "Everything is within its budget." in done.out


def test_a_wrong_output(cli, models, monkeypatch) -> None:
    honest = ort_peer.Session.run
    monkeypatch.setattr(ort_peer.Session, "run", lambda s, x: [y + 0.01 for y in honest(s, x)])
    done = cli("check", models / "net.onnx")
    assert done.code == 1
    assert "WRONG" in done.out
    assert "Outside the budget: scores. --each finds the layer." in done.out


def test_the_first_wrong_layer_is_named(cli, models, monkeypatch) -> None:
    honest = ort_peer.AllValues.values

    def changed(self, inputs):
        found = honest(self, inputs)
        return {**found, "r": found["r"] * 1.5}

    monkeypatch.setattr(ort_peer.AllValues, "values", changed)
    done = cli("check", models / "net.onnx", "--each", "--json")
    assert done.code == 1
    wrong = [r["layer"] for r in done.json["layers"] if not r["ok"]]
    assert wrong == ["relu", "mean"]  # what makes the changed value, and what reads it
    assert done.json["first_wrong"]["layer"] == "relu"
    assert done.json["outputs"][0]["ok"]


def test_data_from_a_file(cli, models) -> None:
    x = np.random.default_rng(0).normal(size=(5, 3, 8, 8)).astype(np.float32)
    np.savez("d.npz", x=x)
    done = cli("check", models / "net.onnx", "--data", "d.npz", "--samples", 4, "--json")
    assert done.code == 0
    assert done.json["samples"] == 4 and done.json["seed"] is None
    np.savez("bad.npz", y=x, z=x)
    bad = cli("check", models / "net.onnx", "--data", "bad.npz")
    assert bad.code == 1
    assert "'bad.npz' has no array 'x'" in bad.err


def test_a_referee_that_cannot(cli, models) -> None:
    for name in ("litert", "tflm"):  # whether it is installed or not
        other = cli("check", models / "net.onnx", "--against", name)
        assert other.code == 2
        assert f"{name} does not read onnx models" in other.err
    unknown = cli("check", models / "net.onnx", "--against", "onnxrutime")
    assert unknown.code == 2
    assert "Did you mean 'onnxruntime'?" in unknown.err


def test_a_referee_that_is_not_installed(cli, models, monkeypatch) -> None:
    monkeypatch.setattr(ort_peer.OnnxRuntime, "package", "no_such_package_here")
    done = cli("check", models / "net.onnx", "--against", "onnxruntime")
    assert done.code == 1
    assert "pip install 'onefold[check]'" in done.err
    monkeypatch.setattr(tflm_peer.Tflm, "package", "no_such_package_here")
    with pytest.raises(MissingExtraError) as by_itself:
        peers.find("tflm", "tflite")
    assert by_itself.value.remedy == "pip install no-such-package-here"
    unsaid = cli("check", models / "net.onnx")
    assert unsaid.code == 0
    assert "onnxruntime is not installed" in unsaid.out


def test_each_without_onnx(cli, models, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    done = cli("check", models / "net.onnx", "--each")
    assert done.code == 1
    assert "OF611: the package 'onnx' is not installed" in done.err
    monkeypatch.delitem(sys.modules, "onefold.onnx_backend", raising=False)
    with pytest.raises(MissingExtraError, match="'onnx' is not installed"):
        importlib.import_module("onefold.onnx_backend")


def test_a_tied_state(cli, tmp_path) -> None:
    nodes = [helper.make_node("Add", ["x", "before"], ["after"], name="sum"),
             helper.make_node("Relu", ["after"], ["y"], name="relu")]  # fmt: skip
    ports = (
        [value("x", [1, 4]), value("before", [1, 4])],
        [value("y", [1, 4]), value("after", [1, 4])],
    )
    path = save(tmp_path / "s.onnx", nodes, *ports)
    done = cli("check", path, "--state", "after=before", "--json")
    assert done.code == 0, done.out + done.err
    assert [o["name"] for o in done.json["outputs"]] == ["y"]
    assert done.json["samples"] == 3


def window(path):
    """The mean of all frames so far, which grow by one with each call."""
    make = helper.make_node
    nodes = [make("Concat", ["past", "frame"], ["cache"], name="cache", axis=0),
             make("ReduceMean", ["cache"], ["mean"], name="mean", axes=[0])]  # fmt: skip
    ports = (
        [value("frame", [1, 4]), value("past", ["n", 4])],
        [value("mean", [1, 4]), value("cache", ["m", 4])],
    )
    return save(path, nodes, *ports)


@pytest.mark.parametrize("against", ["onnxruntime", "reference"])
def test_a_state_that_grows(cli, tmp_path, against) -> None:
    words = ("--dim", "n=0..16", "--state", "cache=past", "--against", against)
    done = cli("check", window(tmp_path / "w.onnx"), *words, "--each", "--json")
    assert done.code == 0, done.out + done.err
    assert done.json["outputs"][0]["elements"] == 12
    layers = {r["layer"]: r["elements"] for r in done.json["layers"]}
    assert layers == {"cache": 17 * 4, "mean": 4}, "of the largest state"


def test_a_state_without_a_bound(cli, tmp_path) -> None:
    path = window(tmp_path / "w.onnx")
    for verb in ("run", "check", "bench"):
        done = cli(verb, path, "--state", "cache=past")
        assert done.code == 1
        assert "OF202: the state 'past' has no largest size" in done.err
        assert "Bound it: --dim n=0..LARGEST." in done.err


def test_inputs_that_the_referee_refuses(cli, tmp_path) -> None:
    integers = [value(n, [8], TensorProto.INT32) for n in "aby"]
    div = helper.make_node("Div", ["a", "b"], ["y"], name="div")
    path = save(tmp_path / "d.onnx", [div], integers[:2], integers[2:])
    done = cli("check", path)
    assert done.code == 1
    assert "OF501: onnxruntime refuses the inputs" in done.err
    assert "division by zero" in done.err
    assert cli("check", path, "--against", "reference").code == 0


def test_names_of_layers_cannot_disturb_the_terminal(cli, models) -> None:
    done = cli("check", models / "nasty.onnx", "--each")
    assert done.code == 0, done.out + done.err
    assert "\x1b" not in done.out
