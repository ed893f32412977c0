"""One class is all that a new operator takes: both formats, every target, tests and table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper as h

import onefold
from onefold.run import emulator
from onefold.ship import build
from onefold.target import find
from tests.e2e.made import save
from tests.frontend import tflite_build

pytestmark = pytest.mark.toolchain

SOURCE = '''
from typing import ClassVar

import numpy as np

from onefold.ir import scalar
from onefold.ops.base import Case, operator
from onefold.ops.elementwise import Elementwise


@operator
class SquaredRelu(Elementwise):
    """max(x, 0) squared, times gain."""

    gain: float = 1.0
    onnx: ClassVar = ("my.lab:SquaredRelu",)
    tflite: ClassVar = ("SquaredRelu",)
    cases: ClassVar = (Case((((3, 5), "f32"),), {"gain": 2.0}),)

    def ref(self, n, x):
        return (np.maximum(x, 0) ** 2 * self.gain).astype(x.dtype)

    def expr(self, *x):
        y = scalar.maximum(x[0], 0)
        return y * y * self.gain
'''


@pytest.fixture
def ops(tmp_path: Path) -> Path:
    path = tmp_path / "lab_ops.py"
    path.write_text(SOURCE)
    return path


def test_from_onnx_on_every_target(ops: Path, tmp_path: Path) -> None:
    nodes = [h.make_node("SquaredRelu", ["x"], ["y"], domain="my.lab", gain=3.0)]
    path = save(tmp_path, "lab", nodes, [("x", T.FLOAT, [2, 3])], [("y", T.FLOAT, [2, 3])],
                domains=["my.lab"])  # fmt: skip
    x = np.array([[-1, 0, 1], [2, -3, 0.5]], np.float32)
    want = np.maximum(x, 0) ** 2 * 3
    model = onefold.load(path, ops=ops)
    np.testing.assert_array_equal(model.compile(fallback=False)(x)["y"], want)
    for target in ("arm64", "cortex-m4f", "cortex-m0"):
        if emulator.available(find(target)):
            out = build(model, target, tmp_path / target).run([x])[0]
            np.testing.assert_array_equal(out, want, err_msg=target)


def test_from_tflite(ops: Path) -> None:
    raw = tflite_build.build("SquaredRelu", [tflite_build.T(np.zeros((2, 3), np.float32))],
                             [tflite_build.T(shape=(2, 3))])  # fmt: skip
    x = np.array([[-1, 0, 1], [2, -3, 0.5]], np.float32)
    (out,) = onefold.load(raw, ops=ops).compile(fallback=False)(x).values()
    np.testing.assert_array_equal(out, np.maximum(x, 0) ** 2)


def test_in_the_cases_and_the_table(ops: Path) -> None:
    from onefold.dev.cases import all_cases, check
    from onefold.dev.tables import operator_table
    from onefold.ops.own import load_file

    load_file(ops)
    mine = [(op, case) for op, case in all_cases() if op.name == "SquaredRelu"]
    assert mine
    for op, case in mine:
        check(op, case)
    assert "| SquaredRelu |" in operator_table()
