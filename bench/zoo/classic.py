"""Convolutional networks for servers, and a detector."""

from __future__ import annotations

import numpy as np

from bench.zoo.net import Net, Value

# --- residual networks ----------------------------------------------------------------------------


def basic_block(net: Net, x: Value, width: int, stride: int) -> Value:
    y = net.relu(net.conv(x, width, 3, stride))
    y = net.conv(y, width, 3)
    side = x if x.channels == width and stride == 1 else net.conv(x, width, 1, stride)
    return net.relu(net.add(y, side))


def bottleneck(net: Net, x: Value, width: int, stride: int) -> Value:
    """With the stride in the 3x3 layer."""
    y = net.relu(net.conv(x, width, 1))
    y = net.relu(net.conv(y, width, 3, stride))
    y = net.conv(y, width * 4, 1)
    side = x if x.channels == width * 4 else net.conv(x, width * 4, 1, stride)
    return net.relu(net.add(y, side))


def stem(net: Net) -> Value:
    return net.max_pool(net.relu(net.conv(net.image(1, 3, 224, 224), 64, 7, 2)), 3, 2, 1)


def resnet18() -> Net:
    """He et al., 2015; 1.8 G multiply-adds."""
    net = Net("resnet18")
    x = stem(net)
    for width, stride in [(64, 1), (128, 2), (256, 2), (512, 2)]:
        x = basic_block(net, basic_block(net, x, width, stride), width, 1)
    return net.classes(net.pooled(x))


def resnet50() -> Net:
    """He et al., 2015; 4.1 G multiply-adds."""
    net = Net("resnet50")
    x = stem(net)
    for width, repeat, stride in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]:
        for k in range(repeat):
            x = bottleneck(net, x, width, stride if k == 0 else 1)
    return net.classes(net.pooled(x))


# --- DenseNet -------------------------------------------------------------------------------------


def densenet121() -> Net:
    """Huang et al., 2016; 2.8 G multiply-adds."""
    net = Net("densenet121")
    x = stem(net)
    for repeat in (6, 12, 24, 16):
        for _ in range(repeat):
            y = net.conv(net.relu(net.batch_norm(x)), 128, 1)  # the next normalisation folded in
            x = net.concat([x, net.conv(net.relu(y), 32, 3)])
        if repeat != 16:
            x = net.conv(net.relu(net.batch_norm(x)), x.channels // 2, 1)
            x = net.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    return net.classes(net.pooled(net.relu(net.batch_norm(x))))


# --- Inception ------------------------------------------------------------------------------------


class Inception:
    """Szegedy et al., 2015: the blocks of version 3."""

    def __init__(self, net: Net) -> None:
        self.net = net

    def conv(
        self, x: Value, out: int, k: int | tuple[int, int], stride: int = 1, valid: bool = False
    ) -> Value:
        return self.net.relu(self.net.conv(x, out, k, stride, pad=(0,) * 4 if valid else None))

    def chain(self, x: Value, *layers: tuple[int, int | tuple[int, int]]) -> Value:
        for out, k in layers:
            x = self.conv(x, out, k)
        return x

    def mean(self, x: Value) -> Value:
        return self.net.op("AveragePool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4,
                           count_include_pad=1)  # fmt: skip

    def a(self, x: Value, pool: int) -> Value:
        return self.net.concat([
            self.chain(x, (64, 1)), self.chain(x, (48, 1), (64, 5)),
            self.chain(x, (64, 1), (96, 3), (96, 3)), self.chain(self.mean(x), (pool, 1)),
        ])  # fmt: skip

    def b(self, x: Value) -> Value:
        y = self.chain(x, (64, 1), (96, 3))
        return self.net.concat([
            self.conv(x, 384, 3, 2, valid=True), self.conv(y, 96, 3, 2, valid=True),
            self.net.max_pool(x, 3, 2, 0),
        ])  # fmt: skip

    def c(self, x: Value, n: int) -> Value:
        across, down = (1, 7), (7, 1)
        return self.net.concat([
            self.chain(x, (192, 1)), self.chain(x, (n, 1), (n, across), (192, down)),
            self.chain(x, (n, 1), (n, down), (n, across), (n, down), (192, across)),
            self.chain(self.mean(x), (192, 1)),
        ])  # fmt: skip

    def d(self, x: Value) -> Value:
        y = self.chain(x, (192, 1), (192, (1, 7)), (192, (7, 1)))
        return self.net.concat([
            self.conv(self.chain(x, (192, 1)), 320, 3, 2, valid=True),
            self.conv(y, 192, 3, 2, valid=True), self.net.max_pool(x, 3, 2, 0),
        ])  # fmt: skip

    def e(self, x: Value) -> Value:
        y, z = self.chain(x, (384, 1)), self.chain(x, (448, 1), (384, 3))
        return self.net.concat([
            self.chain(x, (320, 1)), self.conv(y, 384, (1, 3)), self.conv(y, 384, (3, 1)),
            self.conv(z, 384, (1, 3)), self.conv(z, 384, (3, 1)),
            self.chain(self.mean(x), (192, 1)),
        ])  # fmt: skip


def inception_v3() -> Net:
    """Szegedy et al., 2015; 5.7 G multiply-adds."""
    net = Net("inception_v3")
    block = Inception(net)
    x = block.conv(net.image(1, 3, 299, 299), 32, 3, 2, valid=True)
    x = block.conv(block.conv(x, 32, 3, valid=True), 64, 3)
    x = net.max_pool(x, 3, 2, 0)
    x = net.max_pool(block.conv(block.conv(x, 80, 1), 192, 3, valid=True), 3, 2, 0)
    for pool in (32, 64, 64):
        x = block.a(x, pool)
    x = block.b(x)
    for n in (128, 160, 160, 192):
        x = block.c(x, n)
    x = block.e(block.e(block.d(x)))
    return net.classes(net.pooled(x))


# --- a detector -----------------------------------------------------------------------------------


def yolo_n_320() -> Net:
    """A one-stage detector in the manner of YOLOv8n: cross-stage blocks, pyramid pooling, three
    scales, boxes as distributions; 1.1 G multiply-adds."""
    net = Net("yolo_n_320")

    def conv(x: Value, out: int, k: int = 3, stride: int = 1) -> Value:
        return net.silu(net.conv(x, out, k, stride))

    def cross_stage(x: Value, out: int, repeat: int, skip: bool) -> Value:
        parts = net.split(conv(x, out, 1), 2)
        for _ in range(repeat):
            y = conv(conv(parts[-1], out // 2), out // 2)
            parts.append(net.add(parts[-1], y) if skip else y)
        return conv(net.concat(parts), out, 1)

    def upsampled(x: Value) -> Value:
        scales = net.const(np.array([1, 1, 2, 2], np.float32))
        return net.op("Resize", x, None, scales, mode="nearest", nearest_mode="floor",
                      coordinate_transformation_mode="asymmetric")  # fmt: skip

    x = conv(conv(net.image(1, 3, 320, 320), 16, 3, 2), 32, 3, 2)
    x = conv(cross_stage(x, 32, 1, True), 64, 3, 2)
    p3 = cross_stage(x, 64, 2, True)
    p4 = cross_stage(conv(p3, 128, 3, 2), 128, 2, True)
    x = conv(cross_stage(conv(p4, 256, 3, 2), 256, 1, True), 128, 1)
    pools = [x]
    for _ in range(3):
        pools.append(net.max_pool(pools[-1], 5, 1, 2))
    p5 = conv(net.concat(pools), 256, 1)

    up4 = cross_stage(net.concat([upsampled(p5), p4]), 128, 1, False)
    out3 = cross_stage(net.concat([upsampled(up4), p3]), 64, 1, False)
    out4 = cross_stage(net.concat([conv(out3, 64, 3, 2), up4]), 128, 1, False)
    out5 = cross_stage(net.concat([conv(out4, 128, 3, 2), p5]), 256, 1, False)

    rows = []
    for x in (out3, out4, out5):
        box = net.conv(conv(conv(x, 64), 64), 64, 1, norm=False)
        score = net.conv(conv(conv(x, 80), 80), 80, 1, norm=False)
        rows.append(net.reshape(net.concat([box, score]), 1, 144, -1))
    sizes = [out3.shape[2], out4.shape[2], out5.shape[2]]
    all_rows = net.concat(rows, 2)
    parts = net.const(np.array([64, 80], np.int64))
    box, score = net.ops("Split", 2, all_rows, parts, axis=1)
    net.output(net.concat([decoded(net, box, sizes), net.op("Sigmoid", score)]), "detections")
    return net


def decoded(net: Net, box: Value, sizes: list[int]) -> Value:
    """Boxes as centre and size from distributions of the distances to their four sides."""
    count = box.shape[2]
    x = net.transpose(net.reshape(box, 1, 4, 16, count), 0, 2, 1, 3)
    x = net.op("Softmax", x, axis=1)
    steps = net.const(np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1))
    x = net.reshape(net.op("Conv", x, steps, kernel_shape=[1, 1]), 1, 4, count)
    near, far = net.split(x, 2)
    centres = [np.stack(np.meshgrid(np.arange(n), np.arange(n)), 0).reshape(2, -1) for n in sizes]
    anchors = net.const((np.concatenate(centres, 1)[None] + 0.5).astype(np.float32))
    strides = [np.full((1, 1, n * n), 320 // n, np.float32) for n in sizes]
    low, high = net.op("Sub", anchors, near), net.add(anchors, far)
    centre = net.op("Div", net.add(low, high), net.const(np.float32(2)))
    both = net.concat([centre, net.op("Sub", high, low)])
    return net.mul(both, net.const(np.concatenate(strides, 2)))
