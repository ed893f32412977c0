"""`onefold bench --profile`: every step with its time."""

from __future__ import annotations

import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from tests.cli.made import save, value

pytestmark = pytest.mark.toolchain

DIGITS = Path(__file__).resolve().parents[2] / "demo" / "digits.onnx"
BENCH = ("bench", DIGITS, "--against", "none", "--rounds", 3, "--profile")


def test_every_step_has_its_time(cli: Any, tmp_path: Path) -> None:
    drawn = tmp_path / "roof.svg"
    (model,) = cli(*BENCH, "--roofline", drawn, "--json").json["models"]
    steps = model["steps"]
    assert abs(sum(s["share"] for s in steps) - 1) < 1e-6
    assert all(s["seconds"] > 0 for s in steps if s["macs"])
    assert any(s["kernel"].startswith("conv_") for s in steps)
    root = xml.etree.ElementTree.fromstring(drawn.read_text("utf-8"))
    dots = [e for e in root.iter() if e.tag.endswith("circle")]
    assert len(dots) == sum(s["macs"] > 0 for s in steps)


def test_the_table_names_layers_and_kernels(cli: Any) -> None:
    out = cli(*BENCH).out
    assert "kernel" in out and "next best" in out and "l0_conv3x3" in out


def test_layers_in_numpy_have_their_time_too(cli: Any, tmp_path: Path) -> None:
    make = helper.make_node
    path = save(
        tmp_path / "m.onnx",
        [make("Relu", ["x"], ["r"], name="relu"),
         make("Cast", ["r"], ["s"], name="text", to=TensorProto.STRING),
         make("Cast", ["s"], ["n"], name="back", to=TensorProto.FLOAT),
         make("Neg", ["n"], ["y"], name="neg")],
        [value("x", [1, 4])], [value("y", [1, 4])],
    )  # fmt: skip
    args = ("bench", path, "--against", "none", "--rounds", 3, "--profile", "--json")
    (model,) = cli(*args).json["models"]
    steps = model["steps"]
    assert {s["layer"]: s["kernel"] for s in steps} == {
        "relu": "loops", "text": "reference", "back": "reference", "neg": "loops",
    }  # fmt: skip
    assert abs(sum(s["share"] for s in steps) - 1) < 1e-6
    host = [s["seconds"] for s in steps if s["kernel"] == "reference"]
    assert all(0 < t < 0.1 for t in host), "nanoseconds of the host became seconds"
    out = cli(*args[:-1]).out
    assert "text" in out and "reference" in out


def test_steps_on_several_threads(cli: Any) -> None:
    (model,) = cli(*BENCH, "--threads", 2, "--json").json["models"]
    assert abs(sum(s["share"] for s in model["steps"]) - 1) < 1e-6


def test_a_roofline_is_of_one_thread(cli: Any, tmp_path: Path) -> None:
    wrong = cli(*BENCH, "--threads", 2, "--roofline", tmp_path / "roof.svg")
    assert wrong.code == 2 and "one core" in wrong.err
