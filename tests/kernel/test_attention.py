"""Attention whose masks are the least floats rather than infinities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onefold.ops.attention import Attention
from tests.kernel.test_families import HOSTS, Net
from tests.kernel.test_narrow import run

pytestmark = pytest.mark.toolchain

LEAST = np.finfo(np.float32).min


@pytest.mark.parametrize(
    ("target", "precision"), [*((target, "f32") for target in HOSTS), ("host", "bf16")]
)
@pytest.mark.parametrize("hidden", [LEAST, LEAST / 2, np.float32(-1e9)])
def test_queries_whose_keys_are_all_hidden_by_numbers(
    target: str, precision: str, hidden: np.float32, tmp_path: Path
) -> None:
    """Beside such a number scores are rounded away: the result is the mean of all values. Queries
    of which some keys are hidden see the others alone."""
    net = Net(23)
    q, k, v = (net.input(1, 2, 40, 24) for _ in range(3))
    for a in net.feeds[:2]:
        a *= np.float32(0.01)  # -1e9 rounds to multiples of 64, what matters is less than half
    mask = np.zeros((40, 40), np.float32)
    mask[[0, 7, 39]] = hidden
    mask[9, 5:] = hidden
    for undefined in (False, True):
        op = Attention(scale=1.0, undefined=undefined)
        net.output(net.op(op, q, k, v, net.builder.const(mask)))
    got, used = run(net, target, precision, tmp_path)
    assert all(a.startswith("attention_") for a in used), used
    want = net.expected()[0].copy()
    want[:, :, [0, 7, 39]] = net.feeds[2].mean(2, keepdims=True)
    for y in got:
        np.testing.assert_allclose(y, want, rtol=0, atol=1e-5 if precision == "f32" else 1e-2)
