"""Models at random give what ONNX Runtime gives without its optimiser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onefold
from onefold.errors import InputError, RunError

pytest.importorskip("onnxruntime")
from tests.e2e.random_models import REFUSALS, random_model, session

pytestmark = pytest.mark.toolchain
CLOSE = 1e-4  # of the range of a result


def judge(want: dict[str, Any], got: dict[str, Any]) -> None:
    assert list(want) == list(got)
    for name, w in want.items():
        assert w.shape == got[name].shape, name
        if w.size:
            room = CLOSE * max(np.ptp(w), np.abs(w).max(), 1e-6)
            np.testing.assert_allclose(got[name], w, rtol=0, atol=room, err_msg=name)


def run(model: bytes, feeds: dict[str, Any]) -> dict[str, Any]:
    s = session(model)
    return dict(zip((o.name for o in s.get_outputs()), s.run(None, feeds), strict=True))


@pytest.mark.parametrize("seed", range(24))
def test_fixed_sizes(seed: int) -> None:
    model, net = random_model(seed)
    feeds = {"x": net.values["x"]}
    program = onefold.load(model).compile(fallback=False, optimize="-O1")
    judge(run(model, feeds), program(feeds))


@pytest.mark.parametrize("seed", range(100, 116))
def test_open_sizes(seed: int) -> None:
    """One program for all sizes. Where the model fixes what it left open, by adding a constant of
    that size for instance, other sizes end in an error of ours where ONNX Runtime refuses them."""
    model, net = random_model(seed, opened=True)
    bounds = {d: "1..24" for d in net.shape if isinstance(d, str)}
    x = net.values["x"]
    feeds = [{"x": x}, *({"x": np.repeat(x, 2, k)} for k in range(x.ndim) if k != 1)]
    program = onefold.load(model).compile(dims=bounds, fallback=False, optimize="-O1")
    for k, f in enumerate(feeds):
        try:
            want = run(model, f)
        except REFUSALS:
            assert k, "the model was made with these sizes"
            with pytest.raises((InputError, RunError)):
                program(f)
        else:
            judge(want, program(f))
