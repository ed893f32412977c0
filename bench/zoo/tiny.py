"""The networks of MLPerf Tiny, and a recurrent one."""

from __future__ import annotations

import numpy as np

from bench.zoo.classic import basic_block
from bench.zoo.net import Net


def resnet8() -> Net:
    """The image classifier of MLPerf Tiny on CIFAR-10 pictures; 12.5 M multiply-adds."""
    net = Net("resnet8")
    x = net.relu(net.conv(net.image(1, 3, 32, 32), 16))
    for width, stride in [(16, 1), (32, 2), (64, 2)]:
        x = basic_block(net, x, width, stride)
    net.output(net.op("Softmax", net.gemm(net.pooled(x), 10), axis=-1), "probabilities")
    return net


def ds_cnn() -> Net:
    """The keyword spotter of MLPerf Tiny; 2.7 M multiply-adds."""
    net = Net("ds_cnn")
    x = net.input("features", net.random(1, 1, 49, 10))
    x = net.relu(net.conv(x, 64, (10, 4), 2, pad=(4, 1, 5, 1)))
    for _ in range(4):
        x = net.relu(net.depthwise(x))
        x = net.relu(net.conv(x, 64, 1))
    net.output(net.op("Softmax", net.gemm(net.pooled(x), 12), axis=-1), "probabilities")
    return net


def autoencoder() -> Net:
    """The anomaly detector of MLPerf Tiny; 0.26 M multiply-adds."""
    net = Net("autoencoder")
    x = net.input("features", net.random(1, 640))
    for size in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        x = net.relu(net.gemm(x, size))
    net.output(net.gemm(x, 640), "reconstruction")
    return net


def lstm() -> Net:
    """Two layers of 128 cells over 100 steps of 64 features; 26 M multiply-adds."""
    net = Net("lstm")
    steps, hidden = 100, 128
    x = net.input("features", net.random(steps, 1, 64))
    for _ in range(2):
        size = x.shape[-1]
        w = net.const(net.random(1, 4 * hidden, size, scale=size**-0.5))
        r = net.const(net.random(1, 4 * hidden, hidden, scale=hidden**-0.5))
        b = net.const(net.random(1, 8 * hidden, scale=0.1))
        y = net.op("LSTM", x, w, r, b, hidden_size=hidden)
        x = net.op("Squeeze", y, net.const(np.array([1], np.int64)))
    net.output(net.linear(x, 32), "scores")
    return net
