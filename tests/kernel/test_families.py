"""Kernel families against the operators' references.

Shapes lie around every tile edge: channels and widths one below, at and above what vectors and
tiles hold, with strides, dilations and paddings that differ on all sides. Many nodes share one
program, as compiling takes the time. Outputs lie between canaries.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onefold import events, plan
from onefold.codegen.family import signature
from onefold.dev.cases import compare
from onefold.dev.reference import Environment
from onefold.ir import dtypes
from onefold.ir.graph import Builder, Graph, Origin, Value
from onefold.ir.types import TensorType
from onefold.ops.activation import Relu, Sigmoid
from onefold.ops.base import Op
from onefold.ops.conv import Conv, ConvInteger, ConvTranspose
from onefold.ops.elementwise import Add, Mul
from onefold.ops.hybrid import (
    DynamicQuantize,
    HybridConv2D,
    HybridDepthwiseConv2D,
    HybridMatMul,
)
from onefold.ops.matmul import Gemm, MatMul, MatMulInteger
from onefold.ops.movement import Concat
from onefold.ops.nbits import MatMulNBits
from onefold.ops.normalize import ChannelNormalization
from onefold.ops.pool import AveragePool, MaxPool
from onefold.ops.quant_arith import QuantAdd, QuantTable
from onefold.ops.quant_conv import (
    QuantContraction,
    QuantConv2D,
    QuantDepthwiseConv2D,
    QuantFullyConnected,
)
from onefold.ops.quantized import QConv, QMatMul
from onefold.ops.recurrent import GRU, LSTM, RNN, Recurrent
from onefold.options import DEFAULTS, Options
from onefold.plan.program import Program
from onefold.run import emulator
from onefold.run.building import build
from onefold.run.library import Call
from onefold.run.session import Loaded
from onefold.ship.bundle import build_graph
from onefold.target import find, runs_here

pytestmark = pytest.mark.toolchain

Array = np.ndarray[Any, Any]
HOSTS = ("host", "x86-64-v4", "x86-64-v3", "x86-64-v2")
CANARY = 0xA5
GUARD = 4096


class Net:
    """A graph in the making, with the arrays of its inputs."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph("net")
        self.builder = Builder(self.graph, Origin(("net",)), fold=False)
        self.feeds: list[Array] = []

    def data(self, *shape: int) -> Array:
        return self.rng.uniform(-1, 1, shape).astype(np.float32)

    def input(self, *shape: int) -> Value:
        v = Value(f"x{len(self.feeds)}", TensorType(shape, dtypes.f32))
        self.graph.inputs.append(v)
        self.feeds.append(self.data(*shape))
        return v

    def integers(self, *shape: int, kind: str = "i8") -> Value:
        """An input of integers over their whole range."""
        t = dtypes.BY_NAME[kind]
        v = Value(f"x{len(self.feeds)}", TensorType(shape, t))
        self.graph.inputs.append(v)
        self.feeds.append(self.rng.integers(t.lo, t.hi + 1, shape).astype(t.numpy))
        return v

    def const(self, *shape: int) -> Value:
        return self.builder.const(self.data(*shape))

    def op(self, op: Op, *inputs: Value | None) -> Value:
        return self.builder.op(op, *inputs)

    def output(self, v: Value) -> None:
        self.graph.outputs.append(v)

    def expected(self) -> list[Array]:
        return [np.asarray(a) for a in Environment().run(self.graph, self.feeds)]


def algorithms(program: Program) -> list[str]:
    return [s.algorithm for s in program.flat()]


def run_here(
    net: Net, target: str, folder: Path, options: Options = DEFAULTS
) -> tuple[list[Array], list[str]]:
    """Results in this process; AssertionError where something beside an output was written."""
    t = find(target)
    if not runs_here(t):
        pytest.skip(f"this machine cannot run {target}")
    program = plan.plan(net.graph, t, options)
    loaded = Loaded(build(program, t, folder, flags=options.flags))
    raw = []
    outs = []
    for p in loaded.outputs:
        size = int(np.prod(p.ints)) * np.dtype(p.dtype).itemsize
        whole = np.full(size + 2 * GUARD + 64, CANARY, np.uint8)
        start = GUARD + (-whole.__array_interface__["data"][0] - GUARD) % 64
        raw.append((whole, start, size))
        outs.append(whole[start : start + size].view(p.dtype).reshape(p.ints))
    Call(loaded.library, loaded.arenas.take(), loaded.weights, loaded.state, net.feeds, outs)()
    for whole, start, size in raw:
        assert (whole[:start] == CANARY).all(), "written before an output"
        assert (whole[start + size :] == CANARY).all(), "written behind an output"
    return outs, algorithms(program)


def check(net: Net, target: str, folder: Path, options: Options = DEFAULTS) -> list[str]:
    want = net.expected()
    got, used = run_here(net, target, folder, options)
    for k, (w, y) in enumerate(zip(want, got, strict=True)):
        producer = net.graph.outputs[k].producer
        exact = producer is not None and producer.op.exact
        compare(w, y, f"{producer!r} on {target}", 0 if exact else 1e-5)
    return used


def conv(
    net: Net, x: Value, oc: int, kernel: Sequence[int], bias: bool = True, **attrs: Any
) -> Value:
    group = attrs.get("group", 1)
    channels = x.tensor.ints[1]
    w = net.const(oc, channels // group, *kernel)
    return net.op(Conv(**attrs), x, w, net.const(oc) if bias else None)


def conv_net() -> Net:
    """Direct convolutions, each from an input to an output."""
    net = Net(1)
    for oc in (1, 3, 8, 15, 16, 17, 24, 33):
        net.output(conv(net, net.input(1, 5, 4, 9), oc, (1, 1)))
    for ic in (1, 3, 15, 16, 17):
        net.output(conv(net, net.input(1, ic, 5, 7), 19, (3, 3), pads=(1, 1, 1, 1)))
    for width in range(1, 18):
        net.output(conv(net, net.input(1, 4, 3, width), 16, (3, 3), width % 2 == 0, pads=(1,) * 4))
    net.output(conv(net, net.input(2, 3, 11, 13), 20, (3, 3), strides=(2, 2), pads=(0, 1, 1, 0)))
    net.output(conv(net, net.input(1, 3, 12, 16), 9, (5, 2), strides=(1, 3), pads=(4, 0, 2, 1)))
    net.output(conv(net, net.input(1, 6, 9, 17), 8, (3, 3), dilations=(2, 3), pads=(2, 3, 1, 6)))
    net.output(conv(net, net.input(1, 2, 1, 40), 5, (1, 9), pads=(0, 4, 0, 4)))
    net.output(conv(net, net.input(1, 3, 40), 6, (11,), strides=(2,), pads=(3, 7)))
    net.output(conv(net, net.input(3, 7, 1, 1), 12, (1, 1)))
    net.output(conv(net, net.input(1, 4, 2, 2), 3, (2, 2), pads=(3, 3, 3, 3)))
    for channels in (7, 16, 40):  # windows of one element, of which some see padding only
        x = conv(net, net.input(1, 3, 4, 9), channels, (1, 1))
        net.output(conv(net, x, 9, (1, 1), pads=(1, 2, 2, 0)))
        net.output(conv(net, x, 9, (1, 1), pads=(2, 0, 1, 0), strides=(2, 2)))
    return net


def blocked_net() -> Net:
    """Channel blocks between an input and an output in rows: every kind of reader and writer."""
    net = Net(2)
    for channels, width in ((16, 9), (24, 7), (15, 8), (33, 17), (8, 1)):
        x = conv(net, net.input(1, 3, 6, width), channels, (3, 3), pads=(1, 1, 1, 1))
        a = net.op(Relu(), x)
        d = conv(net, a, channels, (3, 3), group=channels, pads=(1, 1, 1, 1))
        s = net.op(Mul(), d, net.op(Sigmoid(), d))
        r = net.op(Add(), conv(net, s, channels, (1, 1)), a)
        pool = MaxPool(kernel_shape=(3, 3), pads=(1, 1, 1, 1))
        both = net.op(Concat(axis=1), net.op(pool, r), a, r)
        y = conv(net, both, 10, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
        net.output(y)
        net.output(net.op(AveragePool(kernel_shape=(6, width)), r))
    return net


def norm_net() -> Net:
    """Normalised channels of channel blocks, into blocks and into rows."""
    net = Net(19)
    for channels, width in ((15, 8), (16, 7), (17, 9), (33, 1), (40, 17), (2, 5)):
        x = conv(net, net.input(2, 3, 3, width), channels, (3, 3), pads=(1, 1, 1, 1))
        scale = None if channels == 16 else net.const(channels)
        bias = None if channels == 17 else net.const(channels)
        y = net.op(ChannelNormalization(1e-3), x, scale, bias)
        net.output(net.op(Mul(), y, net.op(Sigmoid(), y)))
        net.output(conv(net, y, 5, (1, 1)))
    return net


def pool_net() -> Net:
    """Windows over channel blocks, with every kind of edge."""
    net = Net(23)

    def out(y: Value) -> None:  # largest elements of sums that are not exact are not either
        net.output(net.op(Sigmoid(), y))

    for channels, width in ((15, 9), (16, 7), (33, 17), (8, 4)):
        x = conv(net, net.input(2, 3, 8, width), channels, (3, 3), pads=(1, 1, 1, 1))
        for kind in (MaxPool, AveragePool):
            out(net.op(kind(kernel_shape=(3, 3), pads=(1, 1, 1, 1)), x))
            some = kind(kernel_shape=(2, 3), strides=(2, 2), pads=(0, 1, 1, 0), ceil_mode=True)
            out(net.op(some, x))
            out(net.op(kind(kernel_shape=(3, 2), dilations=(2, 2), pads=(2, 1, 0, 1)), x))
        padded = AveragePool(kernel_shape=(3, 3), pads=(1, 0, 2, 1), count_include_pad=True)
        out(net.op(padded, x))
    x = conv(net, net.input(1, 4, 40), 16, (3,))
    out(net.op(MaxPool(kernel_shape=(4,), strides=(3,), pads=(1, 2)), x))
    net.feeds[0][1, 0, 5, 4] = np.nan
    return net


def in_place_net() -> Net:
    """Residuals that the epilogue of a kernel may overwrite: nothing may be computed twice."""
    net = Net(8)
    for width in (7, 13, 37):
        x = net.input(1, 6, 45, width)
        one, two = conv(net, x, 20, (3, 3), pads=(1,) * 4), conv(net, x, 20, (3, 3), pads=(1,) * 4)
        net.output(conv(net, net.op(Add(), one, two), 5, (1, 1)))
    rescale = (1 << 30, -1)
    add = QuantAdd(
        zero_a=3, zero_b=-4, left=16, by_a=rescale, by_b=rescale, by_y=(1 << 30, -15),
        lo=-128, hi=127, dtype=dtypes.i8,
    )  # fmt: skip
    for width in (7, 37):
        x = net.integers(1, 45, width, 24)
        one, two = (
            quantized_op(net, QuantConv2D, x, (40, 3, 3, 24), 40, pads=(1,) * 4) for _ in range(2)
        )
        both = net.op(add, one, two)
        net.output(quantized_op(net, QuantConv2D, both, (5, 1, 1, 40), 5))
    return net


def depthwise_net() -> Net:
    net = Net(3)
    layers: list[tuple[int, int, int, dict[str, Any]]] = [
        (c, 3, 9, {"pads": (1, 1, 1, 1)}) for c in (8, 15, 16, 17, 24)
    ]
    layers += [(16, 3, w, {"pads": (1, 1, 1, 1)}) for w in range(1, 18)]
    layers += [
        (16, 5, 12, {"pads": (2, 2, 2, 2), "strides": (2, 2)}),
        (16, 3, 11, {"pads": (0, 1, 1, 0), "strides": (2, 1)}),
        (16, 3, 10, {"pads": (2, 2, 3, 1), "dilations": (2, 2)}),
        (16, 2, 6, {"pads": (0, 0, 0, 0)}),
    ]
    for channels, k, width, attrs in layers:
        x = conv(net, net.input(1, 2, 5, width), channels, (1, 1))
        net.output(conv(net, x, channels, (k, k), group=channels, **attrs))
    x = conv(net, net.input(2, 3, 20), 18, (1,))
    net.output(conv(net, x, 18, (4,), group=18, pads=(1, 2)))
    return net


def winograd_net() -> Net:
    """Windows of 3x3 on channel blocks: tiles that fill the result and that reach beyond it."""
    net = Net(10)

    def blocked(*shape: int) -> Value:
        return conv(net, net.input(shape[0], 3, *shape[2:]), shape[1], (1, 1))

    for width in range(9, 19):
        x = blocked(1, 32, 12, width)
        net.output(conv(net, x, 48, (3, 3), width % 2 == 0, pads=(1,) * 4))
    for ic, oc in ((33, 40), (47, 49), (49, 47)):
        net.output(net.op(Relu(), conv(net, blocked(1, ic, 15, 16), oc, (3, 3), pads=(1,) * 4)))
    net.output(conv(net, blocked(2, 32, 14, 18), 32, (3, 3)))
    net.output(conv(net, blocked(1, 32, 13, 13), 32, (3, 3), pads=(2, 0, 1, 2)))
    for side in (6, 7):  # F(2x2), and a residual that is added behind
        x = blocked(1, 64, side, side)
        net.output(net.op(Add(), conv(net, x, 64, (3, 3), pads=(1,) * 4), x))
    return net


def winograd4_net() -> Net:
    """F(4x4), beside a product whose weights make room for its own."""
    net = Net(37)
    net.output(net.op(MatMul(), net.input(1, 700), net.const(700, 2000)))
    for ic, oc, height, width in ((32, 48, 40, 40), (64, 64, 36, 35), (64, 49, 30, 57)):
        x = conv(net, net.input(1, 3, height, width), ic, (1, 1))
        y = conv(net, x, oc, (3, 3), pads=(1,) * 4)
        net.output(net.op(Relu(), y) if oc == 49 else y)
    x = conv(net, net.input(2, 3, 41, 42), 33, (1, 1))
    net.output(conv(net, x, 64, (3, 3), False, pads=(2, 0, 1, 2)))
    return net


def transposed_net() -> Net:
    net = Net(4)
    layers: list[tuple[int, int, tuple[int, int], dict[str, Any]]] = [
        (3, 5, (2, 2), {"strides": (2, 2)}),
        (17, 16, (3, 3), {"strides": (2, 2), "pads": (1, 1, 1, 1), "output_padding": (1, 1)}),
        (4, 24, (4, 4), {"strides": (2, 2), "pads": (1, 1, 1, 1)}),
        (2, 3, (1, 2), {"strides": (3, 3)}),
        (5, 9, (3, 2), {"dilations": (2, 3), "strides": (1, 2)}),
        (5, 9, (3, 3), {"dilations": (2, 2), "strides": (2, 2), "pads": (2, 0, 1, 2)}),
    ]
    for ic, oc, kernel, attrs in layers:
        x = net.input(1, ic, 4, 7)
        net.output(net.op(ConvTranspose(**attrs), x, net.const(ic, oc, *kernel), net.const(oc)))
    x = net.input(2, 3, 9)
    net.output(net.op(ConvTranspose(strides=(2,)), x, net.const(3, 4, 3)))
    return net


def matmul_net() -> Net:
    net = Net(5)
    for rows in (1, 2, 7, 8, 9, 16, 17):
        net.output(net.op(MatMul(), net.input(rows, 13), net.const(13, 24)))
    for columns in (1, 3, 8, 15, 16, 17, 31, 33, 130):
        net.output(net.op(MatMul(), net.input(5, 9), net.const(9, columns)))
        net.output(net.op(MatMul(), net.input(1, 40), net.const(40, columns)))
    y = net.op(MatMul(), net.input(2, 3, 5, 6), net.const(6, 10))
    net.output(net.op(Relu(), net.op(Add(), y, net.const(10))))
    net.output(net.op(MatMul(), net.input(6), net.const(6, 10)))
    net.output(net.op(Gemm(transB=True), net.input(3, 7), net.const(21, 7), net.const(21)))
    net.output(net.op(Gemm(), net.input(3, 7), net.const(7, 9), net.const(1, 1)))
    return net


def both_net() -> Net:
    """Products of two computed matrices."""
    net = Net(9)
    for m, k, n in ((4, 3, 5), (9, 8, 16), (17, 1, 17), (5, 64, 33), (31, 7, 130)):
        net.output(net.op(MatMul(), net.input(m, k), net.input(k, n)))
    net.output(net.op(MatMul(), net.input(2, 3, 6, 5), net.input(3, 5, 20)))
    net.output(net.op(MatMul(), net.input(6, 5), net.input(4, 5, 9)))
    y = net.op(MatMul(), net.input(2, 7, 5), net.input(2, 5, 7))
    net.output(net.op(Relu(), net.op(Add(), y, net.input(7))))
    return net


def bits_net() -> Net:
    """Weights of 4 and 8 bits: columns, sums and blocks around vectors, words and tiles."""
    net = Net(17)

    def product(
        rows: tuple[int, ...], k: int, n: int, bits: int, block: int, zero: str = "",
        bias: bool = False,
    ) -> None:  # fmt: skip
        count = -(-k // block)
        q = net.rng.integers(0, 256, (n, count, block * bits // 8)).astype(np.uint8)
        zeros: dict[str, Array] = {
            "bits": net.rng.integers(0, 256, (n, -(-count * bits // 8))).astype(np.uint8),
            "float": net.rng.uniform(0, 1 << bits, (n, count)).astype(np.float32),
        }
        scale = net.rng.uniform(0.5, 2, (n, count)).astype(np.float32) / (1 << bits)
        op = MatMulNBits(K=k, N=n, bits=bits, block_size=block)
        more = net.builder.const(zeros[zero]) if zero else None
        net.output(net.op(
            op, net.input(*rows, k), net.builder.const(q), net.builder.const(scale), more, None,
            net.const(n) if bias else None,
        ))  # fmt: skip

    for bits in (4, 8):
        for n in (1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 130):
            product((1,), 64, n, bits, 32)
        for k in (1, 2, 7, 8, 9, 31, 32, 33, 63, 65):
            product((1,), k, 20, bits, 32)
            product((1,), k, 20, bits, k + k % 2)
        for rows in (1, 2, 3, 4, 5, 7, 8, 9, 17):
            for zero in ("", "bits", "float"):
                product((rows,), 40, 37, bits, 16, zero, rows % 2 == 0)
        product((), 48, 33, bits, 16, "bits", True)
        product((2, 3), 48, 33, bits, 16, "float")
    return net


def recurrent_net() -> Net:
    """Recurrent cells: hidden units around whole vectors and groups of them, every option."""
    net = Net(16)

    def layer(op: Recurrent, t: int, n: int, i: int, h: int, *more: Value | None) -> list[Value]:
        d, size = (2 if op.direction == "bidirectional" else 1), op.gates * h
        x = net.input(*((n, t, i) if op.layout else (t, n, i)))
        return net.builder.ops(op, x, net.const(d, i, size), net.const(d, h, size), *more)

    for h in (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 49):
        for cls in (RNN, GRU, LSTM):
            op = cls(direction="reverse" if h % 2 else "forward")
            for v in layer(op, 3, 1, 5, h, net.const(1, 2 * op.gates * h)):
                net.output(v)
    for h in (5, 20):
        for op in (
            RNN(direction="bidirectional", layout=1),
            GRU(direction="bidirectional", clip=0.5),
            GRU(direction="bidirectional", linear_before_reset=True, layout=1),
            GRU(linear_before_reset=True),
            LSTM(direction="bidirectional", cell_clip=0.4, layout=1),
        ):
            d = 2 if op.direction == "bidirectional" else 1
            state = (3, d, h) if op.layout else (d, 3, h)
            lens = net.builder.const(np.array([4, 0, 2], np.int32))
            bias = net.const(d, 2 * op.gates * h)
            for given in (None, lens):
                states = [net.const(*state) for _ in range(op.states)]
                for v in layer(op, 4, 3, 6, h, bias, given, *states):
                    net.output(v)
        peepholes = net.const(1, 3 * h)
        for op in (LSTM(input_forget=True, clip=0.3), LSTM(direction="reverse")):
            for v in layer(op, 3, 2, 4, h, None, None, None, None, peepholes):
                net.output(v)
    return net


def quantized(
    net: Net, op: type[QuantContraction], x: tuple[int, ...], w: tuple[int, ...], channels: int,
    kind: str = "i8", **attrs: Any,
) -> None:  # fmt: skip
    """An integer layer from an input to an output."""
    net.output(quantized_op(net, op, net.integers(*x, kind=kind), w, channels, **attrs))


def quantized_op(
    net: Net, op: type[QuantContraction], x: Value, w: tuple[int, ...], channels: int, **attrs: Any
) -> Value:
    """An integer layer whose sums use the whole range of the result."""
    t = x.dtype
    if t is dtypes.u8:
        attrs = {"zero_x": 121, "zero_w": 140, "zero_y": 100, "lo": 0, "hi": 255, **attrs}
    per = int(np.prod(w)) // channels
    shift = -6 - int(np.log2(per) / 2)
    consts = [
        net.rng.integers(t.lo, t.hi + 1, w).astype(t.numpy),
        net.rng.integers(-5000, 5000, channels).astype(np.int32),
        net.rng.integers(1 << 30, (1 << 31) - 1, channels).astype(np.int32),
        net.rng.integers(shift - 1, shift + 2, channels).astype(np.int32),
    ]
    return net.op(op(dtype=t, **attrs), x, *[net.builder.const(c) for c in consts])


def int_net() -> Net:
    net = Net(6)
    for oc in (1, 3, 8, 15, 16, 17, 24, 33):
        quantized(net, QuantConv2D, (1, 4, 9, 5), (oc, 1, 1, 5), oc, zero_x=-7, zero_y=3)
    for c in (1, 3, 4, 15, 16, 17):
        quantized(net, QuantConv2D, (1, 5, 7, c), (19, 3, 3, c), 19, zero_x=11, pads=(1, 1, 1, 1))
    for width in range(1, 18):
        quantized(net, QuantConv2D, (1, 3, width, 4), (16, 3, 3, 4), 16, pads=(1,) * 4, lo=0)
    quantized(net, QuantConv2D, (2, 11, 13, 3), (20, 3, 3, 3), 20, pads=(0, 0, 1, 1),
              strides=(2, 2), hi=90)
    quantized(net, QuantConv2D, (1, 9, 17, 6), (8, 3, 3, 6), 8, dilations=(2, 3), pads=(2, 3, 1, 6),
              zero_x=-128)
    quantized(net, QuantConv2D, (1, 9, 8, 3), (8, 3, 3, 3), 8, "u8", pads=(1, 1, 1, 1))
    quantized(net, QuantConv2D, (1, 9, 8, 4), (8, 2, 2, 4), 8, "u8", dilations=(2, 2), once=True)
    for c in (1, 3, 5, 16, 18):  # weights beyond bytes on either side
        for zero in (100, 150):
            quantized(net, QuantConv2D, (1, 5, 7, c), (19, 3, 3, c), 19, "u8", pads=(1,) * 4,
                      zero_w=zero)
    for zero in (0, 100, 255):  # what the windows see is summed up: read as it is, or prepared
        beyond = {"kind": "u8", "zero_w": zero}
        quantized(net, QuantConv2D, (2, 9, 7, 64), (40, 1, 1, 64), 40, **beyond)
        quantized(net, QuantConv2D, (1, 5, 9, 68), (17, 1, 1, 68), 17, **beyond)
        quantized(net, QuantConv2D, (2, 40, 33, 8), (24, 3, 3, 8), 24, pads=(1,) * 4, **beyond)
        quantized(net, QuantConv2D, (1, 21, 20, 32), (24, 3, 3, 32), 24, strides=(2, 2), **beyond)
        quantized(net, QuantConv2D, (1, 9, 12, 8), (9, 2, 2, 8), 9, dilations=(2, 3), **beyond)
        quantized(net, QuantFullyConnected, (5, 130), (33, 130), 33, **beyond)
    for k in (1, 7, 64, 640):
        quantized(net, QuantFullyConnected, (3, k), (17, k), 17, zero_x=-3, zero_y=9)
    quantized(net, QuantFullyConnected, (1, 9), (6, 9), 6, "u8")
    halves(net)
    for c in (1, 8, 15, 16, 17, 33):  # depthwise, of one channel
        quantized(net, QuantDepthwiseConv2D, (1, 9, 7, 1), (1, 5, 4, c), c, zero_x=-128,
                  strides=(2, 1), pads=(2, 1, 2, 2))
    quantized(net, QuantDepthwiseConv2D, (2, 9, 7, 1), (1, 3, 3, 8), 8, "u8", dilations=(2, 1))
    return net


def extremes_net() -> Net:
    """Integer layers of the outermost inputs and weights, with zero points there: one, two and
    three tiles, vectors and steps wide, and one column, channel and element beside that."""
    net = Net(37)
    sizes = itertools.product((1, 2, 3, 4, 5, 7, 8, 9), (3, 7, 8, 9, 15, 16, 17, 32, 33))
    channels = itertools.cycle((1, 3, 4, 5, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32, 33))
    for at, ((rows, k), n) in enumerate(zip(sizes, channels, strict=False)):
        kind = "u8" if at % 3 == 0 else "i8"
        t = dtypes.BY_NAME[kind]
        x = net.integers(rows, k, kind=kind)
        net.feeds[-1][:] = net.rng.choice([t.lo, t.hi], (rows, 1))
        weights = np.broadcast_to(net.rng.choice([t.lo, t.hi], (n, 1)), (n, k))
        consts = [
            weights.astype(t.numpy), net.rng.integers(-999, 999, n).astype(np.int32),
            net.rng.integers(1 << 30, (1 << 31) - 1, n).astype(np.int32),
            np.full(n, -8 - int(np.log2(k)), np.int32),
        ]
        zeros = {"zero_x": int(net.rng.choice([t.lo, t.hi, 3])), "zero_y": (t.lo + t.hi) // 2}
        if kind == "u8":
            zeros["zero_w"] = int(net.rng.choice([1, 127, 128, 254]))
        made = QuantFullyConnected(dtype=t, lo=t.lo, hi=t.hi, **zeros)
        net.output(net.op(made, x, *[net.builder.const(c) for c in consts]))
    return net


def int_depthwise_net() -> Net:
    net = Net(7)
    op = QuantDepthwiseConv2D
    for c in (1, 8, 15, 16, 17, 24):
        quantized(net, op, (1, 5, 9, c), (1, 3, 3, c), c, zero_x=5, pads=(1, 1, 1, 1))
    for width in range(1, 18):
        quantized(net, op, (1, 3, width, 16), (1, 3, 3, 16), 16, pads=(1, 1, 1, 1))
    quantized(net, op, (2, 12, 12, 8), (1, 5, 5, 8), 8, strides=(2, 2), pads=(2, 2, 1, 1))
    quantized(net, op, (1, 10, 11, 8), (1, 3, 3, 8), 8, dilations=(2, 2), pads=(2, 2, 2, 2))
    quantized(net, op, (1, 10, 11, 8), (1, 3, 3, 8), 8, "u8", pads=(0, 0, 1, 1))
    return net


def halves(net: Net) -> None:
    """Layers of small sums whose factors are powers of two, or nearly: many results lie halfway
    between integers; some of the sums may be too large for the form of whole vectors."""
    rng, k = net.rng, net.builder
    for columns in (1, 3, 4, 9):
        for shifts in ((-7, 2), (-9, -1), (-31, -20), (14, 16), (19, 24), (22, 31)):
            for attrs in ({}, {"lo": 5, "zero_y": 5}, {"zero_y": -9, "hi": 100}):
                for op, once in ((QuantConv2D, False), (QuantConv2D, True),
                                 (QuantFullyConnected, True)):  # fmt: skip
                    windows = op is QuantConv2D
                    x = net.integers(*((1, 1, columns, 4) if windows else (columns, 4)))
                    consts = (
                        rng.integers(-1, 2, (17, 1, 1, 4) if windows else (17, 4)).astype(np.int8),
                        rng.integers(-3, 4, 17).astype(np.int32),
                        np.resize([1 << 30, (1 << 31) - 1, 3 << 29], 17).astype(np.int32),
                        rng.integers(*shifts, 17).astype(np.int32),
                    )
                    made = op(dtype=dtypes.i8, once=once, **attrs)
                    net.output(net.op(made, x, *[k.const(c) for c in consts]))


def hybrid(
    net: Net, op: Op, x: tuple[int, ...], w: tuple[int, ...], channels: int, fixed: bool = False
) -> Value:
    """A hybrid layer of an input of integers; fixed: of one that is quantized around zero."""
    rng, k = net.rng, net.builder
    if fixed:
        q, scale, zero = k.ops(DynamicQuantize(), net.input(*x))
    else:
        q, scale = net.integers(*x), net.input(x[0])
        zero = Value(f"x{len(net.feeds)}", TensorType((x[0],), dtypes.i32))
        net.graph.inputs.append(zero)
        net.feeds.append(rng.integers(-128, 128, x[0]).astype(np.int32))
    weights = k.const(rng.integers(-127, 128, w).astype(np.int8))
    bias = net.const(channels) if channels % 2 else None
    factor = k.const(rng.uniform(0.01, 0.02, channels if channels % 3 else 1).astype(np.float32))
    return net.op(op, q, weights, bias, scale, zero, factor)


def hybrid_net() -> Net:
    """Floats made integers: with one zero point for each batch, and around zero."""
    net = Net(29)
    for oc in (1, 2, 15, 16, 17, 33):
        net.output(hybrid(net, HybridConv2D(pads=(1, 2, 0, 1)), (2, 5, 6, 5), (oc, 3, 2, 5), oc))
        net.output(hybrid(net, HybridConv2D(), (1, 4, 9, 16), (oc, 1, 1, 16), oc, oc > 2))
        y = hybrid(net, HybridConv2D(strides=(2, 1)), (1, 7, 7, 4), (oc, 3, 3, 4), oc, True)
        net.output(net.op(Relu(), y))
    for k in (1, 4, 7, 64, 130):
        for n in (1, 2):
            net.output(hybrid(net, HybridMatMul(), (n, k), (17, k), 17, n > 1))
    net.output(hybrid(net, HybridConv2D(dilations=(2, 3)), (2, 9, 9, 3), (6, 3, 2, 3), 6))
    op = HybridDepthwiseConv2D(pads=(1, 1, 1, 1))
    net.output(hybrid(net, op, (1, 5, 6, 1), (1, 3, 3, 8), 8))
    return net


def hybrid_depthwise_net() -> Net:
    net = Net(31)
    op = HybridDepthwiseConv2D
    for c in (1, 8, 15, 16, 17):
        net.output(hybrid(net, op(pads=(1, 1, 0, 2)), (2, 5, 9, c), (1, 3, 3, c), c))
        net.output(hybrid(net, op(strides=(2, 2)), (1, 9, 8, c), (1, 5, 5, c), c, True))
    net.output(hybrid(net, op(dilations=(2, 1)), (1, 9, 8, 6), (1, 3, 3, 6), 6))
    return net


def q_conv(
    net: Net, x: Value, w: tuple[int, ...], kind: str = "u8", zero: int = 99, **attrs: Any
) -> Value:
    """An ONNX integer convolution, or a product where w has two axes."""
    rng, k = net.rng, net.builder
    product, channels = len(w) == 2, w[1] if len(w) == 2 else w[0]
    per = float(np.sqrt(np.prod(w) / channels)) * 74 * 74
    t = dtypes.BY_NAME[kind]
    consts: list[Array] = [
        rng.integers(-127, 128, w).astype(np.int8),
        rng.integers(-5000, 5000, channels).astype(np.int32),
        np.array(121 if x.dtype is dtypes.u8 else -3, x.dtype.numpy),
        rng.integers(-1, 2, channels).astype(np.int8),
        (rng.uniform(0.5, 2, channels) * 60 / per).astype(np.float32),
        np.array(zero if t is dtypes.u8 else zero - 128, t.numpy),
    ]
    op: Op = QMatMul(**attrs) if product else QConv(**attrs)
    return net.op(op, x, *[k.const(c) for c in consts])


def q_conv_net() -> Net:
    """ONNX's integer convolutions and products: rows in, rows out, and channels last between."""
    net = Net(11)

    def blocked(*shape: int, kind: str = "u8") -> Value:
        """A value with its channels last."""
        x = net.integers(shape[0], 3, *shape[2:], kind="u8")
        return q_conv(net, x, (shape[1], 3, 1, 1), kind)

    for oc in (1, 3, 8, 15, 16, 17, 24, 33):
        net.output(q_conv(net, net.integers(1, 5, 4, 9, kind="u8"), (oc, 5, 1, 1)))
    for c in (1, 2, 3, 4, 5, 16, 17):
        x = net.integers(1, c, 5, 7, kind="u8")
        net.output(q_conv(net, x, (19, c, 3, 3), pads=(1, 1, 1, 1)))
    for c in (4, 8, 15, 16, 17, 72):
        x = blocked(2, c, 5, 7)
        net.output(q_conv(net, x, (19, c, 3, 3), pads=(0, 1, 2, 1)))
        net.output(q_conv(net, x, (40, c, 1, 1), qmin=120))
        net.output(q_conv(net, x, (17, c, 2, 3), strides=(1, 2)))
        net.output(q_conv(net, x, (6, c, 2, 2), dilations=(2, 3)))
    for kind in ("i8", "u8"):
        for width in range(1, 18):
            x = blocked(1, 16, 3, width, kind=kind)
            net.output(q_conv(net, x, (16, 16, 3, 3), kind, pads=(1,) * 4))
    net.output(q_conv(net, net.integers(1, 8, 20), (9, 8, 3), "i8", pads=(1, 2), strides=(2,)))
    net.output(q_conv(net, net.integers(2, 3, 30, 30, kind="u8"), (24, 3, 7, 7), strides=(2, 2),
                      pads=(3, 3, 2, 2)))  # fmt: skip
    for shape in ((3, 64), (1, 640), (2, 3, 7), (9,)):
        for n in (1, 16, 17, 130):
            net.output(q_conv(net, net.integers(*shape, kind="u8"), (shape[-1], n)))
    return net


def q_tiles_net() -> Net:
    """What a matrix unit takes where there is one: columns and steps around those of its tiles."""
    net = Net(13)

    def blocked(*shape: int, kind: str = "u8") -> Value:
        x = net.integers(shape[0], 3, *shape[2:], kind="u8")
        return q_conv(net, x, (shape[1], 3, 1, 1), kind)

    for columns in (1, 7, 15, 16, 17, 31, 32, 33, 49, 65):
        net.output(q_conv(net, blocked(1, 64, 1, columns), (32, 64, 1, 1)))
        net.output(q_conv(net, net.integers(columns, 96, kind="u8"), (96, 33)))
    for c in (4, 20, 36, 60, 64, 68, 128, 132):
        net.output(q_conv(net, blocked(2, c, 5, 9), (48, c, 3, 3), pads=(1, 1, 1, 1)))
        net.output(q_conv(net, blocked(1, c, 7, 7, kind="i8"), (17, c, 1, 1), "i8"))
    x = blocked(1, 32, 40, 40)
    net.output(q_conv(net, x, (70, 32, 3, 3), strides=(2, 2), pads=(0, 0, 1, 1)))
    x = blocked(1, 64, 20, 20)
    net.output(q_conv(net, x, (64, 64, 3, 3), pads=(2, 1, 2, 1), dilations=(2, 1)))
    for oc in (1, 16, 17, 33):
        net.output(q_conv(net, x, (oc, 64, 2, 3), pads=(1, 0, 0, 2)))
    net.output(q_conv(net, net.integers(3, 77, kind="i8"), (77, 32), "i8", qmin=-90))
    quantized(net, QuantConv2D, (1, 9, 20, 64), (48, 3, 3, 64), 48, zero_x=11, pads=(1, 1, 1, 1))
    return net


def plain_net() -> Net:
    """ONNX's sums of integers as they are: zero points that are constant, computed, or none, and
    weights of either kind, less zero points that take them beyond bytes."""
    net = Net(17)

    def summed(x: Value, w: tuple[int, ...], moving: bool, op: Op, kind: str = "i8") -> Value:
        rng, k, t = net.rng, net.builder, dtypes.BY_NAME[kind]
        product = isinstance(op, MatMulInteger)
        weights = rng.integers(t.lo, t.hi + 1, w).astype(t.numpy)
        zeros = rng.integers(t.lo, t.hi + 1, w[1] if product else w[0]).astype(t.numpy)
        zero = net.integers(kind=x.dtype.name) if moving else k.const(np.array(99, x.dtype.numpy))
        own = k.const(zeros) if kind == "u8" or w[0] % 2 else None
        return net.op(op, x, k.const(weights), zero if moving or w[0] % 3 else None, own)

    for kind, moving in itertools.product(("i8", "u8"), (False, True)):
        for shape, n in (((3, 64), 17), ((1, 640), 33), ((2, 3, 7), 16), ((9,), 5)):
            for other in ("i8", "u8"):
                x = net.integers(*shape, kind=kind)
                net.output(summed(x, (shape[-1], n), moving, MatMulInteger(), other))
        x = net.integers(2, 5, 6, 7, kind=kind)
        net.output(summed(x, (19, 5, 3, 2), moving, ConvInteger(pads=(1, 0, 1, 2))))
        net.output(summed(x, (8, 5, 1, 1), moving, ConvInteger(strides=(2, 1)), "u8"))
        x = net.integers(1, 4, 20, kind=kind)
        net.output(summed(x, (16, 4, 3), moving, ConvInteger(dilations=(2,), pads=(1, 2))))
    return net


def q_both_net() -> Net:
    """Integer products of two computed matrices."""
    net = Net(15)
    shapes: list[tuple[tuple[int, ...], int, int, int]] = [
        ((), 4, 3, 5), ((), 9, 8, 16), ((), 17, 1, 17), ((2,), 5, 64, 33), ((2, 3), 31, 7, 130),
    ]  # fmt: skip
    for lead, m, k, n in shapes:
        for kind in ("i8", "u8"):
            a, b = net.integers(*lead, m, k, kind="u8"), net.integers(*lead, k, n, kind=kind)
            factor = np.array(80 / (np.sqrt(k) * 74 * 74), np.float32)
            zero = np.array(7, b.dtype.numpy)
            consts = [np.array(121, np.uint8), zero, factor, np.array(99, np.uint8)]
            made = [net.builder.const(c) for c in consts]
            net.output(net.op(QMatMul(), a, b, None, *made))
    return net


def lookup_net() -> Net:
    """Tables beside vectors: rows, channels last, in place, and a part of something larger."""
    net = Net(14)

    def looked_up(x: Value, kind: str) -> Value:
        t = dtypes.BY_NAME[kind]
        entries = net.rng.integers(t.lo, t.hi + 1, 256).astype(t.numpy)
        return net.op(QuantTable(), x, net.builder.const(entries))

    for n in (1, 15, 16, 17, 63, 64, 65, 200):
        for kind in ("i8", "u8"):
            net.output(looked_up(net.integers(n, kind=kind), "u8" if n % 2 else "i8"))
    for c in (16, 24, 33):
        x = q_conv(net, net.integers(1, 3, 5, 7), (c, 3, 1, 1))
        net.output(q_conv(net, looked_up(x, "u8"), (8, c, 1, 1)))
        both = net.op(Concat(axis=1), looked_up(x, "u8"), x, looked_up(x, "u8"))
        net.output(q_conv(net, both, (8, 3 * c, 1, 1)))
    return net


def q_depthwise_net() -> Net:
    net = Net(12)
    for c in (2, 8, 15, 16, 17, 24, 72):
        x = q_conv(net, net.integers(1, 3, 12, 9, kind="u8"), (c, 3, 1, 1))
        net.output(q_conv(net, x, (c, 1, 3, 3), group=c, pads=(1,) * 4))
        net.output(q_conv(net, x, (c, 1, 5, 5), group=c, pads=(2, 1, 2, 3), strides=(2, 2)))
        net.output(q_conv(net, x, (c, 1, 3, 3), "i8", group=c, pads=(0, 1, 1, 0), strides=(2, 1)))
        net.output(q_conv(net, x, (c, 1, 4, 2), group=c, dilations=(1, 2)))
    for width in range(1, 18):
        x = q_conv(net, net.integers(2, 3, 3, width), (16, 3, 1, 1), "i8")
        net.output(q_conv(net, x, (16, 1, 3, 3), group=16, pads=(1,) * 4))
    net.output(q_conv(net, net.integers(1, 6, 9, 8, kind="u8"), (6, 1, 3, 3), group=6))
    net.output(q_conv(net, net.integers(1, 20, 33), (20, 1, 3), "i8", group=20, pads=(1, 1)))
    return net


NETS = {
    "q_conv": q_conv_net, "q_tiles": q_tiles_net, "q_depthwise": q_depthwise_net,
    "plain": plain_net,
    "lookup": lookup_net, "matmul_both_int": q_both_net,
    "conv_int": int_net, "extremes": extremes_net, "conv_depthwise_int": int_depthwise_net,
    "hybrid": hybrid_net, "hybrid_depthwise": hybrid_depthwise_net,
    "conv_direct": conv_net, "conv_depthwise": depthwise_net, "conv_transposed": transposed_net,
    "conv_winograd": winograd_net, "conv_winograd4": winograd4_net,
    "blocked": blocked_net, "in_place": in_place_net, "norm": norm_net, "pool": pool_net,
    "matmul_packed": matmul_net,
    "matmul_both": both_net, "recurrent": recurrent_net, "matmul_bits": bits_net,
}  # fmt: skip


FAMILY = {
    "plain": ("conv_int", "conv_tiles"),
    "q_conv": ("conv_int", "conv_tiles"), "q_tiles": ("conv_int", "conv_tiles"),
    "conv_int": ("conv_int", "conv_tiles"), "extremes": ("conv_int", "conv_tiles"),
    "q_depthwise": ("conv_depthwise_int",), "hybrid": ("conv_int", "conv_tiles"),
    "hybrid_depthwise": ("conv_depthwise_int", "conv_int", "conv_tiles"),
}  # fmt: skip
"""The families that take a net's outputs where they have other names than the net."""

LEAST = {"conv_winograd": 10, "conv_winograd4": 4, "norm": 5, "pool": 12}
"""How many outputs a family takes where others look cheaper for some, by the target."""


INTEGERS = ("conv_int", "extremes", "conv_depthwise_int", "q_conv", "q_depthwise", "q_tiles",
            "hybrid", "hybrid_depthwise")  # fmt: skip
"""Nets whose kernels differ by what multiplies bytes."""


def cells() -> Iterator[tuple[str, str]]:
    for name in NETS:
        for target in HOSTS:
            yield name, target
        if name in INTEGERS:
            yield name, "x86-64-v3+avxvnni"


@pytest.mark.parametrize(("name", "target"), list(cells()))
def test_family(name: str, target: str, tmp_path: Path) -> None:
    net = NETS[name]()
    used = check(net, target, tmp_path)
    if name == "recurrent":
        assert not {n.op.name for n in net.graph.nodes} & {"RNN", "GRU", "LSTM"}
    elif name not in ("blocked", "in_place", "lookup"):
        mine = sum(a.startswith(FAMILY.get(name, (name,))) for a in used)
        least = LEAST.get(name, len(net.graph.outputs))
        assert mine >= least, f"{name} took {mine} of {len(net.graph.outputs)}"


@pytest.mark.emulator
@pytest.mark.parametrize(("name", "target"), [
    *((n, "arm64") for n in NETS), ("conv_int", "arm64+dotprod"), ("extremes", "arm64+dotprod"),
    *((n, "arm64+dotprod+i8mm")
      for n in ("conv_int", "extremes", "q_conv", "q_tiles", "hybrid", "plain")),
])  # fmt: skip
def test_family_on_arm64(name: str, target: str, tmp_path: Path) -> None:
    t = find(target)
    if not emulator.available(t):
        pytest.skip("QEMU for arm64 is not installed")
    net = NETS[name]()
    want = net.expected()
    bundle = build_graph(net.graph, t, tmp_path, "net", measure=False)
    for w, y, v in zip(want, bundle.run(net.feeds), net.graph.outputs, strict=True):
        exact = v.producer is not None and v.producer.op.exact
        compare(w, y, f"{v.producer!r} on {target}", 0 if exact else 1e-5)


def other_ways() -> Iterator[Any]:
    for name, target in cells():
        for way, label in ((1, "second"), (-1, "last")):
            if target in ("host", "x86-64-v3"):
                always = (target, way) == ("host", -1) and name in ("matmul_packed", "matmul_both")
                marks = () if always else (pytest.mark.slow,)
                yield pytest.param(name, target, way, marks=marks, id=f"{name}-{target}-{label}")


@pytest.mark.parametrize(("name", "target", "way"), list(other_ways()))
def test_other_ways(name: str, target: str, way: int, tmp_path: Path) -> None:
    """What else families offer, chosen by times that are made up."""
    t = find(target)
    if not runs_here(t):
        pytest.skip(f"this machine cannot run {target}")
    net = NETS[name]()
    with events.collected() as heard:
        plan.plan(net.graph, t)
    kernels = next(e.facts["assembler"] for e in heard if e.kind == "plan").kernels
    chosen = {}
    for n in net.graph.nodes:
        offers = kernels.offers(n)
        assert len({c.name for c in offers}) == len(offers), "names tell ways apart"
        if len(offers) > 1:
            chosen[signature(n, t, Options())] = {offers[way].name: 1e-6}
    options = Options(tuned=chosen)
    used = check(NETS[name](), target, tmp_path, options)
    assert not chosen or {k for times in chosen.values() for k in times} & set(used)


@pytest.mark.parametrize(
    "name", ["conv_depthwise_int", "q_depthwise", "conv_winograd", "conv_int", "q_tiles"]
)
@pytest.mark.parametrize("target", HOSTS)
def test_family_for_size(name: str, target: str, tmp_path: Path) -> None:
    """What a family has for goals that count bytes computes the same."""
    assert check(NETS[name](), target, tmp_path, Options(optimize="size"))
