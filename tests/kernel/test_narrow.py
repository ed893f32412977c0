"""Kernels of bf16 and f16 against sums of the rounded elements, and their errors beside f32.

Shapes lie around the edges of tiles, blocks and bands; all are large enough to be taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onefold import plan
from onefold.errors import OptionError
from onefold.ir import dtypes
from onefold.ir.types import TensorType
from onefold.ops.activation import Relu
from onefold.ops.conv import Conv
from onefold.ops.elementwise import Add
from onefold.ops.matmul import MatMul
from onefold.ops.movement import Concat
from onefold.ops.pool import MaxPool
from onefold.options import Options, check_precision
from onefold.run import emulator
from onefold.run.building import build
from onefold.run.session import Loaded
from onefold.ship.bundle import build_graph
from onefold.target import find, runs_here
from tests.kernel.test_families import Array, Net, conv
from tests.kernel.test_threads import results

pytestmark = pytest.mark.toolchain

HOSTS = ("host", "x86-64-v4+avx512bf16")
ARMS = (("arm64+bf16", "bf16"), ("arm64+fp16fml", "f16"))
STEP = {"bf16": 2.0**-8, "f16": 2.0**-11}
"""Half a step of an element's last place, as a share of it."""


class Layers:
    """Layers from inputs to outputs, with the sums of absolute products behind each output."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.sizes: list[Array] = []

    def conv(self, x: tuple[int, ...], oc: int, kernel: tuple[int, int], **attrs: Any) -> None:
        net, op = self.net, Conv(**attrs)
        self._add(op, net.input(*x), net.data(oc, x[1], *kernel), net.data(oc))

    def matmul(self, rows: int, k: int, n: int) -> None:
        self._add(MatMul(), self.net.input(rows, k), self.net.data(k, n))

    def _add(self, op: Any, x: Any, *consts: Array) -> None:
        net = self.net
        values = [x, *(net.builder.const(c) for c in consts)]
        y = net.op(op, *values)
        assert y.producer is not None
        positive = [np.abs(a).astype(np.float64) for a in (net.feeds[-1], *consts)]
        self.sizes.append(np.asarray(op.ref(y.producer, *positive)))
        net.output(y)


def layers(seed: int = 1) -> Layers:
    many = Layers(Net(seed))
    for rows, k, n in ((33, 64, 48), (40, 30, 33), (129, 96, 100), (700, 40, 24), (16, 512, 64)):
        many.matmul(rows, k, n)
    pads = {"pads": (1, 1, 1, 1)}
    many.conv((1, 3, 33, 40), 24, (3, 3), strides=(2, 2), **pads)  # the row of a window is a run
    many.conv((1, 16, 20, 35), 33, (3, 3), **pads)
    many.conv((2, 40, 14, 14), 40, (3, 3), **pads)  # rows of few columns go together
    many.conv((1, 64, 7, 7), 96, (3, 3), **pads)
    many.conv((1, 48, 17, 17), 40, (1, 7), pads=(0, 3, 0, 3))  # tiles go on from row to row
    many.conv((2, 40, 17, 17), 33, (7, 1), pads=(3, 0, 3, 0))
    many.conv((1, 128, 60, 37), 20, (3, 3), **pads)  # the same in bands
    many.conv((1, 33, 30, 29), 33, (3, 3), dilations=(2, 3), pads=(2, 3, 2, 3))
    many.conv((1, 48, 15, 33), 50, (1, 5), pads=(0, 2, 0, 2))
    many.conv((1, 64, 57, 56), 64, (3, 3), strides=(2, 1), pads=(0, 1, 2, 1))
    return many


def planned(net: Net, target: str, precision: str, threads: int = 1) -> Any:
    return plan.plan(net.graph, find(target), Options(precision, threads))


def run(net: Net, target: str, precision: str, folder: Path) -> tuple[list[Array], list[str]]:
    t = find(target)
    if not runs_here(t):
        pytest.skip(f"this machine cannot run {target}")
    try:
        check_precision(precision, t)
    except OptionError:
        pytest.skip(f"{target} does not compute in {precision}")
    program = planned(net, target, precision)
    return Loaded(build(program, t, folder)).run(net.feeds), [s.algorithm for s in program.flat()]


def rounded(a: Array, kind: str) -> Array:
    return a.astype(dtypes.BY_NAME[kind].numpy).astype(np.float64)


def check(many: Layers, got: list[Array], kind: str) -> None:
    """Sums of rounded elements to the accuracy of f32 (or of f32 ones, where those are estimated to
    be faster); and all of the error within the budget."""
    net = many.net
    narrow = [rounded(a, kind) for a in net.feeds]
    for k, (v, y, size) in enumerate(zip(net.graph.outputs, got, many.sizes, strict=True)):
        n = v.producer
        assert n is not None
        w, bias = n.const(1), n.const(2) if len(n.inputs) > 2 else None
        assert w is not None
        ends = [] if bias is None else [bias.astype(np.float64)]
        plain = n.op.ref(n, net.feeds[k].astype(np.float64), w.astype(np.float64), *ends)
        sums = n.op.ref(n, narrow[k], rounded(w, kind), *ends)
        far = [np.abs(y - a).max() / size.max() for a in (sums, plain)]
        assert min(far) <= 2e-6, f"{n!r}: neither sums of rounded elements nor those of f32"
        assert (np.abs(y - plain) <= (2.02 * STEP[kind] + 2e-6) * size).all(), f"{n!r}: budget"


@pytest.mark.parametrize("target", HOSTS)
def test_sums(target: str, tmp_path: Path) -> None:
    many = layers()
    got, used = run(many.net, target, "bf16", tmp_path)
    assert sum("_bf16_" in a for a in used) > len(used) // 2, used
    check(many, got, "bf16")


@pytest.mark.emulator
@pytest.mark.parametrize(("target", "kind"), ARMS)
def test_sums_on_arm64(target: str, kind: str, tmp_path: Path) -> None:
    t = find(target)
    if not emulator.available(t):
        pytest.skip("QEMU for arm64 is not installed")
    many = layers()
    used = [s.algorithm for s in planned(many.net, target, kind).flat()]
    assert sum(f"_{kind}_" in a for a in used) > len(used) // 2, used
    many = layers()
    bundle = build_graph(many.net.graph, t, tmp_path, "net", Options(kind), measure=False)
    check(many, list(bundle.run(many.net.feeds)), kind)


@pytest.mark.parametrize("target", HOSTS)
def test_not_a_number_and_infinity(target: str, tmp_path: Path) -> None:
    """They stay what they are, where they are; denormals count as zero or as themselves."""
    net = Net(3)
    net.output(net.op(MatMul(), net.input(64, 96), net.builder.const(np.abs(net.data(96, 64)))))
    x = net.feeds[0]
    x[:] = np.abs(x)
    x[3, 5], x[7, 0], x[9, 95], x[11] = np.nan, np.inf, -np.inf, 1e-40
    x[13], x[17] = 3e37, 1e-37
    (y,), used = run(net, target, "bf16", tmp_path)
    assert all("_bf16_" in a for a in used), used
    (want,) = net.expected()
    assert np.isnan(y[3]).all()
    assert (y[7] == np.inf).all()
    assert (y[9] == -np.inf).all()
    assert (np.abs(y[11]) <= 1e-38).all()
    finite = np.isfinite(want).all(axis=1)
    assert np.isfinite(y[finite]).all()
    np.testing.assert_allclose(y[finite & (np.arange(64) != 11)],
                               want[finite & (np.arange(64) != 11)], rtol=8e-3)  # fmt: skip


def chain() -> Net:
    """What lies between layers in memory: convolutions, depthwise ones, pools, parts of a whole."""
    net = Net(5)
    x = conv(net, net.input(1, 3, 40, 40), 48, (3, 3), pads=(1,) * 4, strides=(2, 2))
    a = net.op(Relu(), x)
    d = net.op(Relu(), conv(net, a, 48, (3, 3), group=48, pads=(1,) * 4))
    p = conv(net, d, 48, (1, 1))
    r = net.op(Add(), p, a)
    m = net.op(MaxPool(kernel_shape=(3, 3), pads=(1, 1, 1, 1)), r)
    c = net.op(Concat(axis=1), r, m)
    net.output(conv(net, c, 64, (3, 3), pads=(1,) * 4))
    return net


def test_values_between_layers_are_rounded(tmp_path: Path) -> None:
    net = chain()
    want = net.expected()
    if "amx-bf16" not in find("host").features:
        pytest.skip("this machine has no matrix unit")
    (y,), _ = run(net, "host", "bf16", tmp_path)
    kinds = [
        v.tensor.memory for n in net.graph.nodes for v in n.outputs if v not in net.graph.outputs
    ]
    assert kinds == [dtypes.bf16] * len(kinds)
    assert 0 < np.abs(y - want[0]).max() <= 0.02 * np.abs(want[0]).max()


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_compute_the_same_bits(threads: int, tmp_path: Path) -> None:
    (want, *_) = results(layers().net, "host", 1, tmp_path / "1", "bf16")
    for got in results(layers().net, "host", threads, tmp_path / "n", "bf16"):
        for w, y in zip(want, got, strict=True):
            assert y.tobytes() == w.tobytes()


def test_f32_is_not_touched() -> None:
    net = chain()
    program = planned(net, "host", "f32")
    assert not any("bf16" in s.algorithm for s in program.flat())
    types = [v.type for n in net.graph.nodes for v in n.outputs]
    assert all(isinstance(t, TensorType) and t.memory is dtypes.f32 for t in types)


@pytest.mark.parametrize(
    ("target", "precision"), [("x86-64-v3", "bf16"), ("x86-64-v4", "f16"), ("cortex-m4f", "bf16")]
)
def test_a_target_without_such_products_is_told(target: str, precision: str) -> None:
    with pytest.raises(OptionError, match=f"'{target}' does not compute in {precision}"):
        check_precision(precision, find(target))
