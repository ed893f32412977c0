"""Trains the demo network on the UCI handwritten digits and writes what the demo needs.

    pip install 'onefold[train]'
    python -m demo.train                 # from the repository root; about a minute on one core
    python -m demo.train --validate      # scores a fifth of the training images held back

Writes into demo/: `digits.onnx`, `test_digits.npz` (the test images, never seen in training) and
a few of them as PNG files.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy loads: one core, same sums

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.layers import (
    F32,
    BatchNorm,
    Chain,
    Conv3x3,
    Dense,
    GlobalAverage,
    Layer,
    Relu,
    cross_entropy,
    separable,
)

HERE = Path(__file__).parent
SEED = 20
TEST_IMAGES = 500
EPOCHS, BATCH, PEAK_RATE, DECAY, SMOOTHING = 250, 64, 4e-3, 2e-2, 0.05

Labels = NDArray[np.int64]


def network(rng: np.random.Generator) -> Chain:
    """8x8 grey image to ten scores: stem, residual block, stride 2, residual block, classifier."""
    return Chain([
        Conv3x3(rng, 1, 16, stride=1), BatchNorm(16), Relu(),
        Chain(separable(rng, 16, 16, stride=1), residual=True), Relu(),
        Conv3x3(rng, 16, 32, stride=2), BatchNorm(32), Relu(),
        Chain(separable(rng, 32, 32, stride=1), residual=True), Relu(),
        GlobalAverage(), Dense(rng, 32, 10, bias=True)])


def digits() -> tuple[F32, Labels]:
    """All 1,797 images, [n, 8, 8, 1] in 0..1, and their labels.  Refuses repeated images."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images / 16).astype(np.float32)[..., None]
    if len(np.unique(images.reshape(len(images), -1), axis=0)) != len(images):
        raise SystemExit("the data hold equal images, which could lie on both sides of the split")
    return images, data.target.astype(np.int64)


def split(labels: Labels, held_out: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices to train on and to hold out, disjoint, with every class in proportion."""
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    picked = np.round(np.linspace(0, len(labels) - 1, held_out)).astype(np.intp)
    held = np.zeros(len(labels), bool)
    held[by_class[picked]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def augment(images: F32, rng: np.random.Generator) -> F32:
    """Moves each image by up to one pixel, sheared by up to half a pixel per row, and blends."""
    count = len(images)
    dy, dx = rng.uniform(-1, 1, count), rng.uniform(-1, 1, count)
    shear = rng.uniform(-0.2, 0.2, (count, 1))
    rows = np.arange(8)[None] + dy[:, None]
    cols = np.arange(8)[None, None] + dx[:, None, None] + (shear * (np.arange(8) - 3.5))[..., None]
    moved = _interpolate(images[..., 0], np.broadcast_to(rows[:, :, None], cols.shape), cols)
    strength = rng.uniform(0.85, 1.15, (count, 1, 1))
    return np.clip(moved * strength, 0, 1).astype(np.float32)[..., None]


def _interpolate(images: F32, rows: NDArray[np.float64], cols: NDArray[np.float64]) -> F32:
    """Bilinear samples of each image at its own rows and columns; zero outside."""
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    rows, cols = np.clip(rows + 2, 0, 10.999), np.clip(cols + 2, 0, 10.999)
    r, c = rows.astype(np.intp), cols.astype(np.intp)
    fr, fc = rows - r, cols - c
    n = np.arange(len(images))[:, None, None]
    top = padded[n, r, c] * (1 - fc) + padded[n, r, c + 1] * fc
    bottom = padded[n, r + 1, c] * (1 - fc) + padded[n, r + 1, c + 1] * fc
    return (top * (1 - fr) + bottom * fr).astype(np.float32)


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    def __init__(self, layers: list[Layer]) -> None:
        self.layers = layers
        self.step = 0
        self.moments = {(k, name): (np.zeros_like(p), np.zeros_like(p))
                        for k, layer in enumerate(layers) for name, p in layer.params.items()}

    def update(self, rate: float) -> None:
        self.step += 1
        fix1, fix2 = 1 - 0.9 ** self.step, 1 - 0.99 ** self.step
        for (k, name), (m, v) in self.moments.items():
            p, g = self.layers[k].params[name], self.layers[k].grads[name]
            m += np.float32(0.1) * (g - m)
            v += np.float32(0.01) * (g * g - v)
            p -= np.float32(rate) * (m / np.float32(fix1)
                                     / (np.sqrt(v / np.float32(fix2)) + np.float32(1e-8)))
            if name == "w":
                p *= np.float32(1 - rate * DECAY)


def accuracy(net: Chain, images: F32, labels: Labels) -> float:
    return float((net.forward(images, train=False).argmax(1) == labels).mean())


def train(images: F32, labels: Labels, seed: int, epochs: int) -> Chain:
    """Fixed number of epochs, one-cycle learning rate; nothing is chosen by looking at a score."""
    rng = np.random.default_rng(seed)
    net = network(rng)
    optimizer = AdamW(list(net.leaves()))
    steps = len(images) // BATCH
    for epoch in range(epochs):
        order, losses = rng.permutation(len(images)), []
        for k in range(steps):
            at = (epoch + k / steps) / epochs
            rise, fall = at / 0.2, 0.5 + 0.5 * np.cos(np.pi * (at - 0.2) / 0.8)
            rate = PEAK_RATE * (rise if at < 0.2 else fall)
            batch = order[k * BATCH:(k + 1) * BATCH]
            logits = net.forward(augment(images[batch], rng), train=True)
            loss, gradient = cross_entropy(logits, labels[batch], SMOOTHING)
            net.backward(gradient)
            optimizer.update(rate)
            losses.append(loss)
        if (epoch + 1) % 20 == 0:
            print(f"epoch {epoch + 1:3}  loss {np.mean(losses):.4f}", flush=True)
    return net


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--validate", action="store_true")
    options.add_argument("--seed", type=int, default=SEED)
    options.add_argument("--epochs", type=int, default=EPOCHS)
    args = options.parse_args()
    images, labels = digits()
    kept, test = split(labels, TEST_IMAGES, seed=1)
    if args.validate:
        inner, outer = split(labels[kept], len(kept) // 5, seed=2)
        kept, test = kept[inner], kept[outer]
    begun = time.perf_counter()
    net = train(images[kept], labels[kept], args.seed, args.epochs)
    print(f"trained on {len(kept)} images in {time.perf_counter() - begun:.0f} s; accuracy "
          f"{accuracy(net, images[kept], labels[kept]):.2%} on them, "
          f"{accuracy(net, images[test], labels[test]):.2%} on {len(test)} held out")
    if not args.validate:
        from demo.export import write_all

        write_all(net, images[test], labels[test], HERE)


if __name__ == "__main__":
    main()
