"""Layers without a compiled form are never run in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from tests.cli.made import save, value

pytestmark = pytest.mark.toolchain

WHY = "holds strings, which live on the host only"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """relu, then a cast to text and one back, which no C form has."""
    make = helper.make_node
    nodes = [
        make("Relu", ["x"], ["r"], name="relu"),
        make("Cast", ["r"], ["s"], name="text", to=TensorProto.STRING),
        make("Cast", ["s"], ["y"], name="back", to=TensorProto.FLOAT),
    ]
    return save(tmp_path / "m.onnx", nodes, [value("x", [1, 4])], [value("y", [1, 4])])


def test_run_warns_and_lists(cli, model) -> None:
    done = cli("run", model, "--json", "--runs", 0)
    assert done.code == 0
    assert done.err.startswith("warning: 2 of the model's layers run in their NumPy reference")
    assert [row[0] for row in done.json["fallback"]] == ["text", "back"]


def test_no_fallback_is_an_error(cli, model) -> None:
    done = cli("run", model, "--no-fallback")
    assert done.code == 1
    assert "text (Cast): s " + WHY in done.err


def test_build_refuses(cli, model) -> None:
    done = cli("build", model, "--target", "x86-64-v3", "--out", "b")
    assert done.code == 1
    assert "text (Cast): s " + WHY in done.err


def test_inspect_and_why_tell_the_reason(cli, model) -> None:
    facts = cli("inspect", model, "--json").json
    assert [r["layer"] for r in facts["not_native"]] == ["text", "back"]
    assert {p["backend"] for p in facts["plan"]["parts"]} == {"cpu", "reference"}
    assert "Cast runs in its NumPy reference: s " + WHY in cli("why", model, "text").out


def test_check_marks_what_was_not_compiled(cli, model) -> None:
    layers = cli("check", model, "--each", "--against", "reference", "--json").json["layers"]
    assert [(r["layer"], r["compiled"]) for r in layers] == [
        ("relu", True), ("text", False), ("back", False),
    ]  # fmt: skip
