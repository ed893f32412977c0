"""Layers of well-known networks, one program of them all: what kernels are looked at with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onefold.ir import dtypes
from onefold.ir.graph import Builder, Graph, Origin, Value
from onefold.ir.types import TensorType
from onefold.ops.attention import Attention
from onefold.ops.conv import Conv
from onefold.ops.matmul import MatMul
from onefold.ops.quant_conv import (
    QuantContraction,
    QuantConv2D,
    QuantDepthwiseConv2D,
    QuantFullyConnected,
)

BESIDE = "beside"
"""The layer that nodes belong to which only bring values into the shape that networks have."""


class Drawing:
    """A graph in the making."""

    def __init__(self) -> None:
        self.graph = Graph("layers")
        self._builders: dict[str, Builder] = {}
        self._rng = np.random.default_rng(1)
        self.layer = BESIDE

    def _builder(self, layer: str) -> Builder:
        if layer not in self._builders:
            self._builders[layer] = Builder(self.graph, Origin((layer,)), fold=False)
        return self._builders[layer]

    def input(self, *shape: int, dtype: dtypes.DType = dtypes.f32) -> Value:
        v = Value(f"x{len(self.graph.inputs)}", TensorType(shape, dtype))
        self.graph.inputs.append(v)
        return v

    def const(self, *shape: int) -> Value:
        data = self._rng.uniform(-1, 1, shape).astype(np.float32)
        return self._builder(BESIDE).const(data)

    def integers(self, lo: int, hi: int, dtype: Any, *shape: int) -> Value:
        return self._builder(BESIDE).const(self._rng.integers(lo, hi, shape).astype(dtype))

    def op(self, op: Any, *inputs: Value | None, layer: str = "") -> Value:
        return self._builder(layer or self.layer).op(op, *inputs)

    def blocked(self, channels: int, side: int) -> Value:
        """A value between two layers, as these have it: in channel blocks."""
        return self.conv(self.input(1, 3, side, side), channels, 1, layer=BESIDE)

    def conv(self, x: Value, channels: int, k: int, layer: str = "", **attrs: Any) -> Value:
        per = x.tensor.ints[1] // attrs.get("group", 1)
        w = self.const(channels, per, k, k)
        return self.op(Conv(pads=(k // 2,) * 4, **attrs), x, w, self.const(channels), layer=layer)

    def quantized(
        self, op: type[QuantContraction], x: tuple[int, ...], w: tuple[int, ...], channels: int,
        **attrs: Any,
    ) -> Value:  # fmt: skip
        return self.op(
            op(zero_x=3, zero_y=-5, **attrs), self.input(*x, dtype=dtypes.i8),
            self.integers(-127, 128, np.int8, *w), self.integers(-999, 999, np.int32, channels),
            self.integers(1 << 30, (1 << 31) - 1, np.int32, channels),
            self.integers(-9, -7, np.int32, channels),
        )  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """kind: what its kernel multiplies, "by element" where one factor is an element of a register;
    main: whether its time is that of its multiply-adds, which therefore are to come near their
    limit; exact: whether transforms of it are left out."""

    name: str
    kind: str
    make: Callable[[Drawing], Value]
    main: bool = True
    exact: bool = False


def _conv(channels: int, side: int, to: int, k: int, **attrs: Any) -> Callable[[Drawing], Value]:
    return lambda d: d.conv(d.blocked(channels, side), to, k, **attrs)


def _depthwise(channels: int, side: int, stride: int) -> Callable[[Drawing], Value]:
    def make(d: Drawing) -> Value:
        attrs: dict[str, Any] = {"group": channels, "strides": (stride, stride)}
        y = d.conv(d.blocked(channels, side), channels, 3, **attrs)
        return d.conv(y, 16, 1, layer=BESIDE)

    return make


def _int_conv(channels: int, side: int, to: int, k: int) -> Callable[[Drawing], Value]:
    shape = (1, side, side, channels)
    return lambda d: d.quantized(
        QuantConv2D, shape, (to, k, k, channels), to, pads=(k // 2,) * 4
    )  # fmt: skip


def _int_depthwise(channels: int, side: int, stride: int) -> Callable[[Drawing], Value]:
    shape = (1, side, side, channels)
    return lambda d: d.quantized(
        QuantDepthwiseConv2D, shape, (1, 3, 3, channels), channels, pads=(1,) * 4,
        strides=(stride, stride),
    )  # fmt: skip


LAYERS = (
    Layer("ResNet-50 conv 3x3, 64 of 56x56", "f32 by element", _conv(64, 56, 64, 3), exact=True),
    Layer("ResNet-50 conv 3x3 s2, 128 of 56x56", "f32 by element",
          _conv(128, 56, 128, 3, strides=(2, 2))),
    Layer("ResNet-50 conv 1x1, 64 to 256 of 56x56", "f32 by element", _conv(64, 56, 256, 1)),
    Layer("ResNet-50 conv 1x1, 1024 to 256 of 14x14", "f32 by element", _conv(1024, 14, 256, 1)),
    Layer("MobileNetV2 conv 1x1, 144 to 24 of 56x56", "f32 by element", _conv(144, 56, 24, 1)),
    Layer("MobileNetV2 conv 1x1, 960 to 320 of 7x7", "f32 by element", _conv(960, 7, 320, 1)),
    Layer("ResNet-50 conv 3x3 by Winograd, 64 of 56x56", "f32 by element", _conv(64, 56, 64, 3)),
    Layer("ResNet-50 conv 3x3 by Winograd, 256 of 14x14", "f32 by element", _conv(256, 14, 256, 3)),
    Layer("MiniLM product, 128x384 by 384x1536", "f32 by element",
          lambda d: d.op(MatMul(), d.input(128, 384), d.const(384, 1536))),
    Layer("MiniLM product, 128x384 by 384x384", "f32 by element",
          lambda d: d.op(MatMul(), d.input(128, 384), d.const(384, 384))),
    Layer("product of two inputs, 128x64 by 64x128", "f32 by element",
          lambda d: d.op(MatMul(), d.input(12, 128, 64), d.input(12, 64, 128))),
    Layer("MiniLM attention, 12 heads of 32, 128 tokens", "f32 by element",
          lambda d: d.op(Attention(scale=0.2), *(d.input(1, 12, 128, 32) for _ in range(3)))),
    Layer("MobileNetV2 first conv 3x3 s2, 3 to 32 of 224x224", "f32 by element",
          lambda d: d.conv(d.input(1, 3, 224, 224), 32, 3, strides=(2, 2)), main=False),
    Layer("MobileNetV2 depthwise 3x3, 144 of 56x56", "f32", _depthwise(144, 56, 1), main=False),
    Layer("MobileNetV2 depthwise 3x3 s2, 144 of 56x56", "f32", _depthwise(144, 56, 2), main=False),
    Layer("MobileNetV2 classifier, 1280 to 1000", "f32 by element",
          lambda d: d.op(MatMul(), d.input(1, 1280), d.const(1280, 1000)), main=False),
    Layer("ResNet-50 conv 3x3 int8, 64 of 56x56", "int8", _int_conv(64, 56, 64, 3)),
    Layer("ResNet-50 conv 1x1 int8, 64 to 256 of 56x56", "int8", _int_conv(64, 56, 256, 1)),
    Layer("MobileNetV2 conv 1x1 int8, 960 to 320 of 7x7", "int8", _int_conv(960, 7, 320, 1)),
    Layer("MobileNetV2 first conv 3x3 int8, 3 to 32 of 112x112", "int8",
          _int_conv(3, 112, 32, 3), main=False),
    Layer("MobileNetV2 depthwise 3x3 int8, 144 of 56x56", "int8 taps", _int_depthwise(144, 56, 1),
          main=False),
    Layer("MobileNetV2 depthwise 3x3 s2 int8, 144 of 56x56", "int8 taps",
          _int_depthwise(144, 56, 2), main=False),
    Layer("product int8, 128x384 by 384x1536", "int8",
          lambda d: d.quantized(QuantFullyConnected, (128, 384), (1536, 384), 1536)),
    Layer("MobileNetV2 classifier int8, 1280 to 1000", "int8",
          lambda d: d.quantized(QuantFullyConnected, (1, 1280), (1000, 1280), 1000), main=False),
)  # fmt: skip


def draw(layers: Sequence[Layer]) -> Graph:
    """One graph of all of these layers, each from inputs to an output of its own."""
    d = Drawing()
    for layer in layers:
        d.layer = layer.name
        d.graph.outputs.append(layer.make(d))
    return d.graph
