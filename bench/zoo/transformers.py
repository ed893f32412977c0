"""Networks with attention, and ConvNeXt."""

from __future__ import annotations

import numpy as np

from bench.zoo.mobile import inverted_residual
from bench.zoo.net import Net, Value


def attention(net: Net, q: Value, k: Value, v: Value, bias: Value | None = None) -> Value:
    """Of [batch, heads, rows, size] each; bias is added to the scores."""
    scores = net.op("MatMul", q, net.transpose(k, 0, 1, 3, 2))
    scores = net.op("Div", scores, net.const(np.float32(q.shape[-1] ** 0.5)))
    if bias is not None:
        scores = net.add(scores, bias)
    return net.op("MatMul", net.op("Softmax", scores, axis=-1), v)


def merged(net: Net, x: Value) -> Value:
    """[batch, heads, rows, size] as [batch, rows, heads * size]."""
    b, heads, rows, size = x.shape
    return net.reshape(net.transpose(x, 0, 2, 1, 3), b, rows, heads * size)


# --- pictures -------------------------------------------------------------------------------------


def pre_norm_layer(net: Net, x: Value, heads: int, inner: int, act: str) -> Value:
    """A layer of a vision transformer, with one matrix for queries, keys and values."""
    b, rows, width = x.shape
    y = net.linear(net.layer_norm(x), 3 * width)
    y = net.transpose(net.reshape(y, b, rows, 3, heads, width // heads), 2, 0, 3, 1, 4)
    axis = net.const(np.array([0], np.int64))
    q, k, v = (net.op("Squeeze", part, axis) for part in net.split(y, 3, 0))
    x = net.add(x, net.linear(merged(net, attention(net, q, k, v)), width, gain=0.5))
    y = net.linear(net.layer_norm(x), inner)
    y = net.gelu(y) if act == "gelu" else net.silu(y)
    return net.add(x, net.linear(y, width, gain=0.5))


def first_row(net: Net, x: Value) -> Value:
    """[1, width] of [1, rows, width]."""
    return net.op("Gather", x, net.const(np.array(0, np.int64)), axis=1)


def deit_tiny() -> Net:
    """Touvron et al., 2020; 1.3 G multiply-adds."""
    net = Net("deit_tiny")
    x = net.conv(net.image(1, 3, 224, 224), 192, 16, 16, pad=(0,) * 4, norm=False)
    x = net.transpose(net.reshape(x, 1, 192, 196), 0, 2, 1)
    x = net.concat([net.const(net.random(1, 1, 192)), x])
    x = net.add(x, net.const(net.random(1, 197, 192, scale=0.5)))
    for _ in range(12):
        x = pre_norm_layer(net, x, 3, 768, "gelu")
    return net.classes(first_row(net, net.layer_norm(x)))


def mobilevit_xxs() -> Net:
    """Mehta and Rastegari, 2021, on 256x256; 0.4 G multiply-adds."""
    net = Net("mobilevit_xxs")
    x = net.silu(net.conv(net.image(1, 3, 256, 256), 16, 3, 2))

    def mobile(x: Value, out: int, stride: int) -> Value:
        return inverted_residual(net, x, 2 * x.channels, out, 3, stride, net.silu)

    def block(x: Value, width: int, layers: int) -> Value:
        """Attention among the pixels at the same place of all 2x2 patches."""
        _, channels, h, w = x.shape
        y = net.conv(net.silu(net.conv(x, channels)), width, 1, norm=False)
        y = net.transpose(net.reshape(y, width * h // 2, 2, w // 2, 2), 0, 2, 1, 3)
        y = net.transpose(net.reshape(y, 1, width, h * w // 4, 4), 0, 3, 2, 1)
        y = net.reshape(y, 4, h * w // 4, width)
        for _ in range(layers):
            y = pre_norm_layer(net, y, 4, 2 * width, "silu")
        y = net.transpose(net.reshape(net.layer_norm(y), 1, 4, h * w // 4, width), 0, 3, 2, 1)
        y = net.transpose(net.reshape(y, width * h // 2, w // 2, 2, 2), 0, 2, 1, 3)
        y = net.silu(net.conv(net.reshape(y, 1, width, h, w), channels, 1))
        return net.silu(net.conv(net.concat([x, y]), channels))

    x = mobile(x, 16, 1)
    for out, stride in [(24, 2), (24, 1), (24, 1)]:
        x = mobile(x, out, stride)
    for out, width, layers in [(48, 64, 2), (64, 80, 4), (80, 96, 3)]:
        x = block(mobile(x, out, 2), width, layers)
    return net.classes(net.pooled(net.silu(net.conv(x, 320, 1))))


def convnext_nano() -> Net:
    """Liu et al., 2022; 2.5 G multiply-adds."""
    net = Net("convnext_nano")

    def channel_norm(x: Value) -> Value:
        return net.transpose(net.layer_norm(net.transpose(x, 0, 2, 3, 1)), 0, 3, 1, 2)

    x = net.conv(net.image(1, 3, 224, 224), 80, 4, 4, pad=(0,) * 4, norm=False)
    x = channel_norm(x)
    for width, repeat in [(80, 2), (160, 2), (320, 8), (640, 2)]:
        if width != x.channels:
            x = net.conv(channel_norm(x), width, 2, 2, pad=(0,) * 4, norm=False)
        for _ in range(repeat):
            y = channel_norm(net.depthwise(x, 7, norm=False))
            y = net.gelu(net.conv(y, 4 * width, 1, norm=False))
            y = net.conv(y, width, 1, norm=False)
            x = net.add(net.mul(y, net.const(net.random(1, width, 1, 1, scale=0.5))), x)
    return net.classes(net.op("Flatten", channel_norm(net.op("GlobalAveragePool", x))))


# --- text -----------------------------------------------------------------------------------------


def bert(name: str, width: int, layers: int, heads: int, tokens: int = 128) -> Net:
    """Devlin et al., 2018: hidden states of a text, with a padding mask."""
    net = Net(name)
    ids = net.input("input_ids", net.rng.integers(0, 30522, (1, tokens)))
    shown = net.input("attention_mask", np.ones((1, tokens), np.int64))
    kinds = net.input("token_type_ids", np.zeros((1, tokens), np.int64))
    words = net.op("Gather", net.const(net.random(30522, width)), ids)
    x = net.add(words, net.op("Gather", net.const(net.random(2, width)), kinds))
    x = net.layer_norm(net.add(x, net.const(net.random(1, tokens, width))))
    mask = net.op("Unsqueeze", shown, net.const(np.array([1, 2], np.int64)))
    hidden = net.op("Sub", net.const(np.float32(1)), net.op("Cast", mask, to=1))
    bias = net.mul(hidden, net.const(np.finfo(np.float32).min))

    def in_heads(x: Value) -> Value:
        return net.transpose(net.reshape(x, 1, tokens, heads, width // heads), 0, 2, 1, 3)

    for _ in range(layers):
        q, k, v = (in_heads(net.linear(x, width)) for _ in range(3))
        y = net.linear(merged(net, attention(net, q, k, v, bias)), width)
        x = net.layer_norm(net.add(y, x))
        y = net.linear(net.gelu(net.linear(x, 4 * width)), width)
        x = net.layer_norm(net.add(y, x))
    net.output(x, "last_hidden_state")
    return net


def bert_tiny() -> Net:
    """2 layers of 128, 128 tokens; 59 M multiply-adds."""
    return bert("bert_tiny", 128, 2, 2)


def minilm6() -> Net:
    """Wang et al., 2020: 6 layers of 384, 128 tokens; 1.4 G multiply-adds."""
    return bert("minilm6", 384, 6, 12)


def decoder() -> Net:
    """One step of a language model behind 128 tokens: rotary positions, grouped keys and values,
    gated layers, root-mean-square norms; 13 M weights."""
    net = Net("decoder")
    width, layers, heads, groups, inner, words, past = 384, 6, 6, 3, 1024, 4096, 128
    size = width // heads
    ids = net.input("input_ids", np.array([[17]], np.int64))
    place = net.input("position_ids", np.array([[past]], np.int64))
    angles = np.outer(np.arange(1024), 1e4 ** (-np.arange(0, size, 2) / size))
    angles = np.concatenate([angles, angles], 1).astype(np.float32)
    cos, sin = (
        net.op("Unsqueeze", net.op("Gather", net.const(table), place),
               net.const(np.array([1], np.int64)))
        for table in (np.cos(angles), np.sin(angles))
    )  # fmt: skip

    def rms_norm(x: Value) -> Value:
        square = net.op("Pow", x, net.const(np.float32(2)))
        mean = net.op("ReduceMean", square, axes=[-1], keepdims=1)
        root = net.op("Sqrt", net.add(mean, net.const(np.float32(1e-5))))
        scale = net.const(net.rng.uniform(0.7, 1.3, width).astype(np.float32))
        return net.mul(net.op("Div", x, root), scale)

    def rotated(x: Value) -> Value:
        low, high = net.split(x, 2, 3)
        turned = net.concat([net.op("Neg", high), low], 3)
        return net.add(net.mul(x, cos), net.mul(turned, sin))

    def in_heads(x: Value, count: int) -> Value:
        return net.transpose(net.reshape(x, 1, 1, count, size), 0, 2, 1, 3)

    def repeated(x: Value) -> Value:
        """Each group's keys or values once for each of its heads."""
        y = net.op("Unsqueeze", x, net.const(np.array([2], np.int64)))
        shape = np.array([1, groups, heads // groups, past + 1, size], np.int64)
        return net.reshape(net.op("Expand", y, net.const(shape)), 1, heads, past + 1, size)

    x = net.op("Gather", net.const(net.random(words, width)), ids)
    grown = []
    for n in range(layers):
        y = rms_norm(x)
        q = rotated(in_heads(net.linear(y, width, bias=False), heads))
        k = rotated(in_heads(net.linear(y, groups * size, bias=False), groups))
        v = in_heads(net.linear(y, groups * size, bias=False), groups)
        for kind, new in (("key", k), ("value", v)):
            old = net.input(f"past.{n}.{kind}", net.random(1, groups, past, size))
            grown.append((net.concat([old, new], 2), f"present.{n}.{kind}"))
        keys, values = grown[-2][0], grown[-1][0]
        y = merged(net, attention(net, q, repeated(keys), repeated(values)))
        x = net.add(x, net.linear(y, width, bias=False, gain=0.5))
        y = rms_norm(x)
        y = net.mul(net.silu(net.linear(y, inner, bias=False)), net.linear(y, inner, bias=False))
        x = net.add(x, net.linear(y, width, bias=False, gain=0.5))
    net.output(net.linear(rms_norm(x), words, bias=False), "logits")
    for value, name in grown:
        net.output(value, name)
    return net
