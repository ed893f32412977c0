"""Attention in bf16: its error beside the formula's, what is not a number, and threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onefold.codegen.family import KernelChoice
from onefold.ops.attention import Attention
from onefold.options import Options
from onefold.target import find
from tests.kernel.test_families import Array, Net
from tests.kernel.test_narrow import STEP, run
from tests.kernel.test_threads import results

pytestmark = pytest.mark.toolchain

SHAPES = (
    # batch, heads, groups, queries, keys, elements, of a value
    (1, 3, 3, 197, 197, 64, 64),
    (2, 4, 2, 37, 51, 24, 40),
    (1, 2, 2, 64, 64, 32, 16),
    (1, 2, 1, 33, 31, 33, 17),
    (2, 2, 2, 48, 17, 70, 5),
)
MASKS = ("", "causal", "float", "bool")


@pytest.fixture(autouse=True)
def _needs_the_matrix_unit() -> None:
    if "amx-bf16" not in find("host").features:
        pytest.skip("this machine has no matrix unit")


def attention(net: Net, shape: tuple[int, ...], mask: str = "", **attrs: Any) -> None:
    batch, heads, groups, queries, keys, e, f = shape
    q, k = net.input(batch, heads, queries, e), net.input(batch, groups, keys, e)
    ins = [q, k, net.input(batch, groups, keys, f)]
    if mask == "float":
        ins.append(net.const(queries, keys))
    if mask == "bool":
        ins.append(net.builder.const(net.data(batch, 1, 1, keys) > -0.5))
    attrs = {"scale": e**-0.5, "causal": mask == "causal", **attrs}
    net.output(net.op(Attention(**attrs), *ins))


def many() -> Net:
    net = Net(7)
    for shape in SHAPES:
        for mask in MASKS:
            attention(net, shape, mask)
    attention(net, SHAPES[1], offset=20, causal=True)
    return net


def budget(op: Attention, ins: list[Array]) -> Array:
    """What each result may differ by: a score is off by two roundings of each of its products, a
    share by that of its own and the others' scores and one rounding more, a value by one."""
    q, k, v = (a.astype(np.float64) for a in ins[:3])
    k, v = (np.repeat(a, q.shape[1] // a.shape[1], 1) for a in (k, v))
    step = STEP["bf16"]
    off = op.scale * np.einsum("bhse,bhte->bhst", np.abs(q), np.abs(k)).max(-1) * 2.02 * step
    return np.asarray((2 * off[..., None] + 2.1 * step) * np.abs(v).max(-2, keepdims=True))


def test_errors(tmp_path: Path) -> None:
    net = many()
    want = net.expected()
    got, used = run(net, "host", "bf16", tmp_path)
    assert all(a.startswith("attention_bf16_") for a in used), used
    feeds = {v.name: a for v, a in zip(net.graph.inputs, net.feeds, strict=True)}
    for v, y, w in zip(net.graph.outputs, got, want, strict=True):
        n = v.producer
        assert n is not None
        assert isinstance(n.op, Attention)
        far = np.abs(y - w)
        assert (far <= budget(n.op, [feeds[n.arg(i).name] for i in range(3)])).all(), f"{n!r}"
        assert far.mean() <= 0.004 * np.abs(w).mean() + 1e-3, f"{n!r}"


def test_not_a_number_and_infinity(tmp_path: Path) -> None:
    """They reach the results that they reach in f32; queries that see nothing give zeros, or what
    is not a number where that is asked for."""
    found = []
    for precision in ("f32", "bf16"):
        net = Net(9)
        attention(net, (1, 2, 2, 40, 50, 32, 32))
        net.feeds[0][0, 0, 3, 5] = np.nan
        net.feeds[0][0, 1, 36, 0] = np.inf
        net.feeds[1][0, 0, 7, :] = 1e-40
        net.feeds[2][0, 1, 20, 4], net.feeds[2][0, 1, 21, 6] = np.nan, -np.inf
        for undefined in (False, True):
            attention(net, (1, 2, 2, 40, 50, 32, 32), causal=True, offset=-9, undefined=undefined)
        (tmp_path / precision).mkdir()
        got, used = run(net, "host", precision, tmp_path / precision)
        assert all(("bf16" in a) == (precision == "bf16") for a in used), used
        found.append(got)
    for plain, narrow in zip(*found, strict=True):
        finite = np.isfinite(plain)
        assert (np.isfinite(narrow) == finite).all()
        np.testing.assert_array_equal(narrow[~finite], plain[~finite])
        assert np.abs(narrow[finite] - plain[finite]).max() <= 0.03
    assert (found[1][1][0, :, :9] == 0).all()
    assert np.isnan(found[1][2][0, :, :9]).all()


@pytest.mark.usefixtures("split_all")
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_compute_the_same_bits(threads: int, tmp_path: Path) -> None:
    (want, *_) = results(many(), "host", 1, tmp_path / "1", "bf16")
    for got in results(many(), "host", threads, tmp_path / "n", "bf16"):
        for w, y in zip(want, got, strict=True):
            assert y.tobytes() == w.tobytes()


def test_a_target_without_a_matrix_unit_says_so() -> None:
    net = Net(3)
    attention(net, SHAPES[0])
    kernels = KernelChoice(find("x86-64-v4+avx512bf16"), Options("bf16"))
    choice = kernels.find(net.graph.nodes[0])
    assert choice is not None
    assert choice.name == "attention_8"
    told = dict(kernels.refusals[id(net.graph.nodes[0])])
    assert "has no matrix unit of bf16" in told["attention_narrow"]
