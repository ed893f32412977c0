"""Convolutional networks for small devices."""

from __future__ import annotations

from collections.abc import Callable

from bench.zoo.net import Net, Value

Act = Callable[[Value], Value]


def divisible(n: float, by: int = 8) -> int:
    """The nearest multiple, but not more than 10 % below n."""
    near = max(by, int(n + by / 2) // by * by)
    return near if near >= 0.9 * n else near + by


def squeeze_excite(net: Net, x: Value, inner: int, act: Act, gate: Act) -> Value:
    y = net.op("GlobalAveragePool", x)
    y = act(net.conv(y, inner, 1, norm=False))
    return net.mul(x, gate(net.conv(y, x.channels, 1, norm=False)))


def inverted_residual(
    net: Net, x: Value, hidden: int, out: int, k: int, stride: int, act: Act,
    excite: Act | None = None,
) -> Value:  # fmt: skip
    """Expand, filter each channel, project; excite: what stands between the last two."""
    y = act(net.conv(x, hidden, 1)) if hidden != x.channels else x
    y = act(net.depthwise(y, k, stride))
    y = net.conv(excite(y) if excite else y, out, 1)
    return net.add(x, y) if stride == 1 and x.channels == out else y


def mobilenet_v1() -> Net:
    """Howard et al., 2017; 569 M multiply-adds."""
    net = Net("mobilenet_v1")
    x = net.relu6(net.conv(net.image(1, 3, 224, 224), 32, 3, 2))
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2),
            (1024, 1)]  # fmt: skip
    for out, stride in plan:
        x = net.relu6(net.depthwise(x, 3, stride))
        x = net.relu6(net.conv(x, out, 1))
    return net.classes(net.pooled(x))


def mobilenet_v2() -> Net:
    """Sandler et al., 2018; 301 M multiply-adds."""
    net = Net("mobilenet_v2")
    x = net.relu6(net.conv(net.image(1, 3, 224, 224), 32, 3, 2))
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
            (6, 160, 3, 2), (6, 320, 1, 1)]  # fmt: skip
    for expand, out, repeat, stride in plan:
        for k in range(repeat):
            s = stride if k == 0 else 1
            x = inverted_residual(net, x, x.channels * expand, out, 3, s, net.relu6)
    return net.classes(net.pooled(net.relu6(net.conv(x, 1280, 1))))


def mobilenet_v3_large() -> Net:
    """Howard et al., 2019; 217 M multiply-adds."""
    net = Net("mobilenet_v3_large")
    x = net.hard_swish(net.conv(net.image(1, 3, 224, 224), 16, 3, 2))
    r, h = net.relu, net.hard_swish
    plan: list[tuple[int, int, int, bool, Act, int]] = [
        (3, 16, 16, False, r, 1), (3, 64, 24, False, r, 2), (3, 72, 24, False, r, 1),
        (5, 72, 40, True, r, 2), (5, 120, 40, True, r, 1), (5, 120, 40, True, r, 1),
        (3, 240, 80, False, h, 2), (3, 200, 80, False, h, 1), (3, 184, 80, False, h, 1),
        (3, 184, 80, False, h, 1), (3, 480, 112, True, h, 1), (3, 672, 112, True, h, 1),
        (5, 672, 160, True, h, 2), (5, 960, 160, True, h, 1), (5, 960, 160, True, h, 1),
    ]  # fmt: skip

    def gate(x: Value) -> Value:
        return net.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)

    def excite(x: Value) -> Value:
        return squeeze_excite(net, x, divisible(x.channels / 4), net.relu, gate)

    for k, hidden, out, squeezed, act, stride in plan:
        x = inverted_residual(net, x, hidden, out, k, stride, act, excite if squeezed else None)
    x = net.pooled(net.hard_swish(net.conv(x, 960, 1)))
    return net.classes(net.hard_swish(net.gemm(x, 1280)))


EFFICIENT = [(3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3),
             (5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1)]  # fmt: skip
"""Filter, stride, expansion, channels, repeats."""


def efficientnet_b0() -> Net:
    """Tan and Le, 2019; 386 M multiply-adds."""
    net = Net("efficientnet_b0")
    x = net.silu(net.conv(net.image(1, 3, 224, 224), 32, 3, 2))

    def sigmoid(x: Value) -> Value:
        return net.op("Sigmoid", x)

    for k, stride, expand, out, repeat in EFFICIENT:
        for n in range(repeat):
            inner = x.channels // 4

            def excite(y: Value, inner: int = inner) -> Value:
                return squeeze_excite(net, y, inner, net.silu, sigmoid)

            s = stride if n == 0 else 1
            x = inverted_residual(net, x, x.channels * expand, out, k, s, net.silu, excite)
    return net.classes(net.pooled(net.silu(net.conv(x, 1280, 1))))


def efficientnet_lite0() -> Net:
    """B0 without squeeze-and-excite and with ReLU6; 385 M multiply-adds."""
    net = Net("efficientnet_lite0")
    x = net.relu6(net.conv(net.image(1, 3, 224, 224), 32, 3, 2))
    for k, stride, expand, out, repeat in EFFICIENT:
        for n in range(repeat):
            s = stride if n == 0 else 1
            x = inverted_residual(net, x, x.channels * expand, out, k, s, net.relu6)
    return net.classes(net.pooled(net.relu6(net.conv(x, 1280, 1))))


def squeezenet1_1() -> Net:
    """Iandola et al., 2016; 349 M multiply-adds."""
    net = Net("squeezenet1_1")
    x = net.relu(net.conv(net.image(1, 3, 224, 224), 64, 3, 2, pad=(0, 0, 0, 0)))
    for stage in [(16, 16), (32, 32), (48, 48, 64, 64)]:
        x = net.max_pool(x, 3, 2, 0)
        for squeeze in stage:
            x = fire(net, x, squeeze, 4 * squeeze)
    x = net.relu(net.conv(x, 1000, 1))
    net.output(net.pooled(x), "scores")
    return net


def fire(net: Net, x: Value, squeeze: int, expand: int) -> Value:
    x = net.relu(net.conv(x, squeeze, 1))
    return net.concat([net.relu(net.conv(x, expand, k)) for k in (1, 3)])


def shufflenet_v2() -> Net:
    """Ma et al., 2018, at width 1.0; 146 M multiply-adds."""
    net = Net("shufflenet_v2")
    x = net.relu(net.conv(net.image(1, 3, 224, 224), 24, 3, 2))
    x = net.max_pool(x, 3, 2, 1)
    for channels, repeat in [(116, 4), (232, 8), (464, 4)]:
        half = channels // 2
        for k in range(repeat):
            if k == 0:
                left = net.relu(net.conv(net.depthwise(x, 3, 2), half, 1))
                right = x
            else:
                left, right = net.split(x, 2)
            right = net.relu(net.conv(right, half, 1))
            right = net.relu(net.conv(net.depthwise(right, 3, 2 if k == 0 else 1), half, 1))
            x = shuffled(net, net.concat([left, right]), 2)
    return net.classes(net.pooled(net.relu(net.conv(x, 1024, 1))))


def shuffled(net: Net, x: Value, groups: int) -> Value:
    _, c, h, w = x.shape
    y = net.transpose(net.reshape(x, 1, groups, c // groups, h, w), 0, 2, 1, 3, 4)
    return net.reshape(y, 1, c, h, w)
