"""`onefold.onnx_backend` as ONNX's own Backend interface."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from onefold import onnx_backend as backend
from onefold.errors import InputError
from tests.e2e.made import DIGITS

pytestmark = pytest.mark.toolchain


def test_prepare_and_run() -> None:
    rep = backend.prepare(onnx.load(DIGITS))
    x = np.zeros((1, 1, 8, 8), np.float32)
    (by_list,) = rep.run([x])
    (by_name,) = rep.run({"image": x})
    (alone,) = rep.run(x)
    np.testing.assert_array_equal(by_list, by_name)
    np.testing.assert_array_equal(by_list, alone)
    assert by_list.shape == (1, 10)


def test_run_model() -> None:
    x = np.ones((1, 1, 8, 8), np.float32)
    out = backend.run_model(onnx.load(DIGITS), [x])
    assert out[0].shape == (1, 10)


def test_run_node() -> None:
    node = helper.make_node("Add", ["a", "b"], ["c"])
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)
    np.testing.assert_array_equal(backend.run_node(node, [a, b])[0], a + b)


def test_devices() -> None:
    assert backend.supports_device("CPU") and not backend.supports_device("CUDA:0")
    with pytest.raises(InputError, match="there is no device 'CUDA'"):
        backend.prepare(onnx.load(DIGITS), "CUDA")
