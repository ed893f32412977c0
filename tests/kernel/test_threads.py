"""Kernels split among threads: the same bits as on one thread, for every family."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onefold import plan
from onefold.ops.activation import Relu
from onefold.ops.attention import Attention
from onefold.ops.elementwise import Add
from onefold.ops.movement import Transpose
from onefold.ops.normalize import GroupNormalization, LayerNormalization
from onefold.ops.softmax import Softmax
from onefold.options import Options
from onefold.run import emulator
from onefold.run import team as running
from onefold.run.building import build
from onefold.run.library import Call, Library
from onefold.run.session import Loaded
from onefold.ship.bundle import build_graph
from onefold.target import find, runs_here
from tests.kernel.test_families import NETS, Array, Net

pytestmark = [pytest.mark.toolchain, pytest.mark.usefixtures("split_all")]


def attention_net() -> Net:
    """Heads that threads share evenly, and queries where they do not."""
    net = Net(20)
    for heads, queries, keys in ((4, 9, 20), (3, 19, 7), (2, 4, 33), (1, 23, 16)):
        q = net.input(2, heads, queries, 8)
        k, v = net.input(2, heads, keys, 8), net.input(2, heads, keys, 12)
        net.output(net.op(Attention(scale=0.3), q, k, v))
        net.output(net.op(Attention(scale=0.3, causal=True), q, k, v))
    return net


def nest_net() -> Net:
    """Loops written from expressions, and loops of operators' own."""
    net = Net(21)
    for shape in ((37,), (2, 3, 50), (5, 1, 7, 3), (1, 1)):
        x = net.input(*shape)
        net.output(net.op(Relu(), net.op(Add(), x, net.const(*shape))))
    net.output(net.op(Transpose(perm=(2, 0, 1)), net.input(3, 40, 17)))
    for axis in (-1, 1):
        net.output(net.op(Softmax(axis=axis), net.input(7, 5, 30)))
    x = net.input(9, 40)
    net.output(net.op(LayerNormalization(), x, net.const(40), net.const(40)))
    x = net.input(2, 6, 5, 7)
    net.output(net.op(GroupNormalization(groups=3), x, net.const(6), net.const(6)))
    return net


QUANTIZED_FIRST = ("hybrid", "hybrid_depthwise")
"""Half of their steps make inputs integers, which one thread does."""

MORE: dict[str, Callable[[], Net]] = {**NETS, "attention": attention_net, "nest": nest_net}
del MORE["recurrent"]  # one thread runs the steps


def helped(library: Library) -> None:
    """Waits until the team has all helpers that a program's calls can use."""
    running.TEAM.grow(library)
    count = ctypes.CDLL(str(library.path))[f"{library.prefix}_helpers"]
    end = time.monotonic() + 30
    while count(ctypes.c_void_p(running.TEAM.address)) < running.TEAM.threads - 1:
        assert time.monotonic() < end, "the helpers do not come"
        time.sleep(0.001)


def results(
    net: Net, target: str, threads: int, folder: Path, precision: str = "f32",
    least: float = 0.7,
) -> list[list[Array]]:  # fmt: skip
    """Outputs of several calls, and how many steps were split."""
    t = find(target)
    folder.mkdir()
    program = plan.plan(net.graph, t, Options(precision, threads))
    assert program.threads == threads
    split = sum(s.kernel.split for s in program.flat())
    assert split > least * len(list(program.flat())) if threads > 1 else not split
    loaded = Loaded(build(program, t, folder, optimize="-O1" if threads > 1 else "-O3"))
    if threads > 1:
        helped(loaded.library)
    found = []
    for _ in range(5):
        outs = [np.full(p.ints, 77, p.dtype) for p in loaded.outputs]
        arena = loaded.arenas.take()
        Call(loaded.library, arena, loaded.weights, loaded.state, net.feeds, outs)()
        loaded.arenas.give(arena)
        found.append(outs)
    return found


def check(name: str, target: str, counts: tuple[int, ...], folder: Path) -> None:
    if not runs_here(find(target)):
        pytest.skip(f"this machine cannot run {target}")
    (want, *_) = results(MORE[name](), target, 1, folder / "1")
    for n in counts:
        least = 0.4 if name in QUANTIZED_FIRST else 0.7
        for got in results(MORE[name](), target, n, folder / str(n), least=least):
            for k, (w, y) in enumerate(zip(want, got, strict=True)):
                assert y.tobytes() == w.tobytes(), f"output {k} of {name} on {n} threads"


@pytest.mark.parametrize("name", MORE)
def test_the_same_bits_on_any_number_of_threads(name: str, tmp_path: Path) -> None:
    check(name, "host", (2, 3), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v2"])
@pytest.mark.parametrize("name", MORE)
def test_the_same_bits_on_other_vectors(name: str, target: str, tmp_path: Path) -> None:
    check(name, target, (2,), tmp_path)


EMULATED = ["blocked", "matmul_both", "conv_int", "attention", "nest"]


@pytest.mark.emulator
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in EMULATED else pytest.mark.slow) for n in MORE]
)
def test_the_same_bits_on_arm64(name: str, tmp_path: Path) -> None:
    t = find("arm64")
    if not emulator.available(t):
        pytest.skip("QEMU for arm64 is not installed")
    found = []
    for n in (1, 3):
        net = MORE[name]()
        folder = tmp_path / str(n)
        options = Options(threads=n, optimize="-O2")
        bundle = build_graph(net.graph, t, folder, "net", options, measure=False)
        found.append(bundle.run(net.feeds))
    for k, (w, y) in enumerate(zip(*found, strict=True)):
        assert y.tobytes() == w.tobytes(), f"output {k} of {name}"
