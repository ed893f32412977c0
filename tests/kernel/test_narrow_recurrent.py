"""Recurrent steps in bf16 and f16: every cell and option against f32, and what is not a number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from onefold.ops.recurrent import GRU, LSTM, RNN
from onefold.ops.recurrent_steps import RecurrentSteps
from onefold.options import Options
from onefold.passes import recurrent
from onefold.run import emulator
from onefold.ship.bundle import build_graph
from onefold.target import find
from tests.kernel.test_families import Array, Net, recurrent_net
from tests.kernel.test_narrow import ARMS, HOSTS, run

pytestmark = pytest.mark.toolchain

LIMIT = {"bf16": 0.03, "f16": 0.004}
"""Of outputs from -1 to 1, after four steps with weights as large."""


@pytest.fixture(autouse=True)
def _small_ones_too(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(recurrent, "FEWEST", 1)
    yield


def kinds(net: Net) -> set[str]:
    return {n.op.kind for n in net.graph.nodes if isinstance(n.op, RecurrentSteps)}


def near(got: list[Array], want: list[Array], kind: str) -> None:
    far = [np.abs(y - w).max() for y, w in zip(got, want, strict=True)]
    assert 1e-5 < max(far) <= LIMIT[kind]
    assert np.mean(far) <= LIMIT[kind] / 5


@pytest.mark.parametrize("target", HOSTS)
def test_cells(target: str, tmp_path: Path) -> None:
    net = recurrent_net()
    want = net.expected()
    got, _ = run(net, target, "bf16", tmp_path)
    tiles = "amx-bf16" in find(target).features
    assert kinds(net) == {"tiles" if tiles else "bf16"}
    near(got, want, "bf16")


@pytest.mark.emulator
@pytest.mark.parametrize(("target", "kind"), ARMS)
def test_cells_on_arm64(target: str, kind: str, tmp_path: Path) -> None:
    t = find(target)
    if not emulator.available(t):
        pytest.skip("QEMU for arm64 is not installed")
    net = recurrent_net()
    want = net.expected()
    bundle = build_graph(net.graph, t, tmp_path, "net", Options(kind), measure=False)
    assert kinds(net) == {kind}
    near(list(bundle.run(net.feeds)), want, kind)


@pytest.mark.parametrize("target", HOSTS)
def test_many_sequences_and_what_is_not_a_number(target: str, tmp_path: Path) -> None:
    """More sequences than a tile has rows; an input that is not a number spoils its own sequence
    only, from its step on."""
    net = Net(4)
    for op in (RNN(), GRU(), GRU(linear_before_reset=True), LSTM()):
        size = op.gates * 40
        x = net.input(6, 37, 9)
        net.feeds[-1][3, 20, 4] = np.nan
        w = [net.builder.const(net.data(1, k, size) / np.float32(k**0.5)) for k in (9, 40)]
        net.output(net.builder.ops(op, x, *w)[0])
    want = net.expected()
    got, _ = run(net, target, "bf16", tmp_path)
    for y, w in zip(got, want, strict=True):
        lost = np.zeros(y.shape, bool)
        lost[3:, :, 20] = True
        np.testing.assert_array_equal(np.isnan(y), lost)
        assert np.abs(y - w)[~lost].max() <= 0.02


@pytest.mark.parametrize(("target", "precision", "hidden", "kind"), [
    ("host", "f32", 128, "f32"), ("x86-64-v4+avx512bf16", "bf16", 128, "bf16"),
    ("x86-64-v4+avx512bf16", "bf16", 47, "f32"), ("arm64+fp16fml", "f16", 48, "f16"),
])  # fmt: skip
def test_the_kind_follows_target_and_size(
    target: str, precision: str, hidden: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert recurrent.kind_of(hidden, find(target), Options(precision)) == kind
