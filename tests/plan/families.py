"""Live ranges shaped like those of known network families, and hard instances, all seeded."""

from __future__ import annotations

import random
from collections.abc import Callable

from onefold.plan.arena import Block
from onefold.plan.order import Step

Network = tuple[list[Step], list[int], set[int], set[int]]
"""Steps, the size of each value in bytes, graph inputs, graph outputs."""


class Builder:
    """Grows a network step by step; values are numbered in the order they are made."""

    def __init__(self, size: int) -> None:
        self.steps: list[Step] = []
        self.sizes = [size]

    def step(self, reads: list[int], size: int) -> int:
        self.sizes.append(size)
        value = len(self.sizes) - 1
        self.steps.append(Step(tuple(reads), (value,)))
        return value

    def done(self, *outputs: int) -> Network:
        return self.steps, self.sizes, {0}, set(outputs)


def mobilenet(side: int = 224, bytes_: int = 1) -> Network:
    """Inverted residual blocks after MobileNetV2's table of widths and strides."""
    net = Builder(side * side * 3 * bytes_)
    side, width = side // 2, 32
    x = net.step([0], side * side * width * bytes_)
    for expand, out, count, stride in [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
                                       (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]:
        for k in range(count):
            block_in, inner = x, width * expand
            h = net.step([x], side * side * inner * bytes_) if expand > 1 else x
            if k == 0:
                side //= stride
            h = net.step([h], side * side * inner * bytes_)
            x = net.step([h], side * side * out * bytes_)
            if k:
                x = net.step([block_in, x], side * side * out * bytes_)
            width = out
    return net.done(net.step([net.step([x], side * side * 1280 * bytes_)], 1001 * bytes_))


def unet(side: int = 128, width: int = 16, depth: int = 4) -> Network:
    """Encoder outputs that stay alive until the decoder reaches their resolution."""
    net = Builder(side * side * 3)
    x, skips = 0, []
    for _ in range(depth):
        x = net.step([net.step([x], side * side * width)], side * side * width)
        skips.append(x)
        side //= 2
        x = net.step([x], side * side * width)
        width *= 2
    x = net.step([net.step([x], side * side * width)], side * side * width)
    for skip in reversed(skips):
        side, width = side * 2, width // 2
        x = net.step([x], side * side * width)
        x = net.step([skip, x], side * side * width * 2)
        x = net.step([net.step([x], side * side * width)], side * side * width)
    return net.done(net.step([x], side * side))


def densenet(side: int = 56, growth: int = 32,
             blocks: tuple[int, ...] = (6, 12, 24, 16)) -> Network:
    """Every layer reads all earlier ones of its block, through a concatenation."""
    net = Builder(side * side * 64)
    x, width = 0, 64
    for k, count in enumerate(blocks):
        parts = [x]
        for _ in range(count):
            joined = net.step(parts, side * side * width)
            inner = net.step([joined], side * side * growth * 4)
            parts.append(net.step([inner], side * side * growth))
            width += growth
        x = net.step(parts, side * side * width)
        if k + 1 < len(blocks):
            width //= 2
            x = net.step([x], side * side * width)
            side //= 2
            x = net.step([x], side * side * width)
    return net.done(net.step([x], 1000))


def inception(blocks: int = 6, seed: int = 3) -> Network:
    """Parallel branches of unequal length and width; the order between them is free."""
    rng = random.Random(seed)
    net = Builder(60_000)
    x = 0
    for _ in range(blocks):
        ends = []
        for _ in range(4):
            h = x
            for _ in range(rng.randint(1, 4)):
                h = net.step([h], rng.randint(1, 60) * 1000)
            ends.append(net.step([h], rng.randint(1, 12) * 1000))
        x = net.step(ends, sum(net.sizes[e] for e in ends))
    return net.done(x)


def random_network(steps: int, seed: int, reach: int = 8) -> Network:
    """A DAG whose steps read one to three of the last `reach` values."""
    rng = random.Random(seed)
    net = Builder(rng.randint(1, 64) * 512)
    for _ in range(steps):
        near = range(max(0, len(net.sizes) - reach), len(net.sizes))
        reads = rng.sample(near, min(len(near), rng.randint(1, 3)))
        net.step(reads, rng.randint(1, 64) * 512)
    read = {v for s in net.steps for v in s.reads}
    return net.done(*(v for v in range(1, len(net.sizes)) if v not in read))


NETWORKS: dict[str, Callable[[], Network]] = {
    "mobilenet": mobilenet,
    "mobilenet f32": lambda: mobilenet(bytes_=4),
    "unet": unet,
    "unet deep": lambda: unet(256, 24, 5),
    "densenet": densenet,
    "inception": inception,
    "random 300": lambda: random_network(300, 1),
    "random wide 300": lambda: random_network(300, 2, reach=40),
}


def live_blocks(network: Network, order: list[int] | None = None, align: int = 64) -> list[Block]:
    """One block per value: from the step that writes it to the last that reads it."""
    steps, sizes, live_in, live_out = network
    order = list(range(len(steps))) if order is None else order
    first = dict.fromkeys(live_in, 0)
    last = dict.fromkeys(live_in, 0)
    for at, s in enumerate(order):
        for v in steps[s].writes:
            first.setdefault(v, at)
            last[v] = at
        for v in steps[s].reads:
            last[v] = at
    last.update(dict.fromkeys(live_out, len(order) - 1))
    return [Block(v, sizes[v], first[v], last[v], align) for v in sorted(first)]


def random_blocks(count: int, span: int, seed: int, life: int = 12) -> list[Block]:
    """Lifetimes up to `life` steps, sizes spread over three decades, mixed alignments."""
    rng = random.Random(seed)
    blocks = []
    for i in range(count):
        first = rng.randrange(span)
        size = int(10 ** rng.uniform(1.5, 5))
        last = min(span - 1, first + rng.randrange(life))
        blocks.append(Block(i, size, first, last, rng.choice((4, 16, 64))))
    return blocks


def cut_rectangle(count: int, seed: int, width: int = 200, height: int = 100_000) -> list[Block]:
    """A full rectangle cut `count - 1` times by guillotine: a plan without any gap exists.

    Perfect packings are the hardest kind for heuristics, since every byte must be used at every
    step; Hopper and Turton built their strip packing benchmark (EJOR 128, 2001) in this way.
    """
    rng = random.Random(seed)
    parts = [(0, width, 0, height)]
    while len(parts) < count:
        k = max(range(len(parts)), key=lambda k: (parts[k][1] - parts[k][0])
                * (parts[k][3] - parts[k][2]) * rng.random())
        t0, t1, y0, y1 = parts.pop(k)
        across = rng.random() < 0.5
        if across and t1 - t0 > 1:
            t = rng.randrange(t0 + 1, t1)
            parts += [(t0, t, y0, y1), (t, t1, y0, y1)]
        elif y1 - y0 > 128:
            y = rng.randrange(y0 + 64, y1 - 63)
            parts += [(t0, t1, y0, y), (t0, t1, y, y1)]
        else:
            parts.append((t0, t1, y0, y1))
    return [Block(i, y1 - y0, t0, t1 - 1, 1) for i, (t0, t1, y0, y1) in enumerate(parts)]
