"""Kernels share what a program may take beyond its model's weights."""

from __future__ import annotations

import pytest

from onefold.codegen.family import KernelChoice
from onefold.ir.graph import Graph, constant_bytes
from onefold.ops.matmul import MatMul
from onefold.ops.quant_conv import QuantConv2D
from onefold.options import GOALS, Options
from onefold.plan import plan
from onefold.plan.budget import ROOM, SHARE
from onefold.target import find
from tests.kernel.test_families import Net, conv, quantized


def tower(channels: int, layers: int, size: int) -> Graph:
    """Equal convolutions of 3x3 on images that shrink: the first gain most by Winograd's method."""
    net = Net(1)
    x = conv(net, net.input(1, 3, size, size), channels, (1, 1))
    for _ in range(layers):
        x = conv(net, x, channels, (3, 3), pads=(1,) * 4)
        x = conv(net, x, channels, (1, 1), strides=(2, 2))
    net.output(x)
    return net.graph


def algorithms(graph: Graph, options: Options) -> tuple[list[str], int]:
    program = plan(graph, find("x86-64-v3"), options)
    return [s.algorithm for s in program.flat()], program.weights_bytes


@pytest.mark.parametrize("goal", ["latency", "size"])
def test_weights_stay_within_the_budget(goal: str) -> None:
    graph = tower(160, 5, 56)
    own = constant_bytes(graph)
    _, stored = algorithms(graph, Options(optimize=goal))
    assert own <= stored <= SHARE[goal] * own + ROOM


def test_large_layers_get_what_they_gain_most_by() -> None:
    graph = tower(160, 7, 56)
    used, _ = algorithms(graph, Options())
    taken = [a.startswith("conv_winograd") for a in used[1::2]]
    assert taken[0]
    assert not all(taken)


def test_small_networks_get_all_they_want() -> None:
    graph = tower(16, 3, 32)
    used, _ = algorithms(graph, Options())
    kernels = KernelChoice(find("x86-64-v3"), Options())
    best = [min(kernels.offers(n), key=lambda c: c.cost).name for n in graph.nodes]
    assert used == best
    assert any(a.startswith("conv_winograd") for a in used)


def test_for_size_weights_are_not_transformed() -> None:
    used, _ = algorithms(tower(16, 3, 32), Options(optimize="size"))
    assert all(a.startswith("conv_direct") for a in used)


def test_for_size_tiles_are_of_few_sizes() -> None:
    """65 columns are tiles of 6 and of 5, or nearly as quickly tiles of 5 only."""
    net = Net(1)
    net.output(conv(net, net.input(1, 16, 5, 13), 48, (1, 1)))
    node, target = net.graph.nodes[0], find("x86-64-v3")
    copies = [KernelChoice(target, Options(optimize=g)).offers(node)[0].copies for g in GOALS]
    assert copies == [2, 1]


def test_for_size_steps_of_the_matrix_unit_hold_few_zeros() -> None:
    """Rows of 80 bytes are steps of 64 and 16, the latter filled up, or two of 40."""
    net = Net(1)
    quantized(net, QuantConv2D, (1, 8, 8, 80), (32, 1, 1, 80), 32)
    node, target = net.graph.nodes[0], find("x86-64-v4+avx512vnni+amx-int8")
    stored = []
    for goal in GOALS:
        offers = KernelChoice(target, Options(optimize=goal)).offers(node)
        tiles = next(c for c in offers if c.family == "conv_tiles")
        stored.append(tiles.packed()[0].size)
    assert stored == [32 * 128, 32 * 80]


@pytest.mark.parametrize(
    ("optimize", "target", "level"),
    [("latency", "x86-64-v3", "-O3"), ("size", "x86-64-v3", "-O3"), ("size", "cortex-m4f", "-Os"),
     ("latency", "cortex-m4f", "-O3"), ("-Oz", "x86-64-v3", "-Oz"), ("-O1", "cortex-m0", "-O1")],
)  # fmt: skip
def test_levels_of_the_compiler(optimize: str, target: str, level: str) -> None:
    assert Options(optimize=optimize).level(find(target)) == level


def test_what_a_source_stores_counts() -> None:
    """Weights of half the width in the file leave less room for transformed ones."""
    graph = tower(160, 7, 56)
    graph.source_bytes = constant_bytes(graph) // 2
    used, _ = algorithms(graph, Options())
    assert not any(a.startswith("conv_winograd") for a in used)


def test_constants_are_not_packed_at_run_time_for_size() -> None:
    """The kernel of two computed matrices would pack a constant one at each call."""
    net = Net(0)
    net.output(net.op(MatMul(), net.input(3, 197, 192), net.const(192, 768)))
    program = plan(net.graph, find("x86-64-v4"), Options(optimize="size"))
    (algorithm,) = (s.algorithm for s in program.flat())
    assert algorithm.startswith("matmul_packed")
