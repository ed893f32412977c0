"""The demo's network, data and trainer are what demo/README.md says they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from demo.layers import (
    BatchNorm,
    Chain,
    Conv3x3,
    Dense,
    Depthwise3x3,
    GlobalAverage,
    Layer,
    Relu,
    cross_entropy,
    separable,
)
from demo.train import augment, network, split

DEMO = Path(__file__).resolve().parents[2] / "demo"


def committed() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    with np.load(DEMO / "test_digits.npz") as data:
        return data["images"], data["labels"]


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


LAYERS: dict[str, Layer] = {
    "conv": Conv3x3(rng(), 3, 4, stride=1),
    "conv stride 2": Conv3x3(rng(), 3, 4, stride=2),
    "depthwise": Depthwise3x3(rng(), 3, stride=1),
    "depthwise stride 2": Depthwise3x3(rng(), 3, stride=2),
    "pointwise": Dense(rng(), 3, 5, bias=False),
    "dense": Dense(rng(), 3, 5, bias=True),
    "batch norm": BatchNorm(3),
    "relu": Relu(),
    "average": GlobalAverage(),
    "residual block": Chain(separable(rng(), 3, 3, stride=1), residual=True),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    layer, draw = LAYERS[name], rng()
    x = draw.standard_normal((2, 4, 4, 3)).astype(np.float32)
    toward = draw.standard_normal(layer.forward(x, True).shape)

    def loss() -> float:
        return float((layer.forward(x, True).astype(np.float64) * toward).sum())

    layer.forward(x, True)
    dx = layer.backward(toward.astype(np.float32))
    pairs = [(x, dx)] + [(leaf.params[p], leaf.grads[p])
                         for leaf in layer.leaves() for p in leaf.params]
    for values, gradient in pairs:
        for at in draw.choice(values.size, min(6, values.size), replace=False):
            where = np.unravel_index(at, values.shape)
            kept, step = values[where], np.float32(2e-3)
            values[where] = kept + step
            above = loss()
            values[where] = kept - step
            below = loss()
            values[where] = kept
            slope = (above - below) / (2 * float(step))
            assert gradient[where] == pytest.approx(slope, rel=0.02, abs=0.02)


def test_loss_gradient() -> None:
    logits = rng().standard_normal((3, 10)).astype(np.float32)
    labels = np.array([1, 7, 7])
    _, gradient = cross_entropy(logits, labels, 0.1)
    for at in ((0, 1), (1, 0), (2, 7)):
        moved = logits.copy()
        moved[at] += np.float32(1e-2)
        up, _ = cross_entropy(moved, labels, 0.1)
        moved[at] -= np.float32(2e-2)
        down, _ = cross_entropy(moved, labels, 0.1)
        assert gradient[at] == pytest.approx((up - down) / 2e-2, abs=1e-3)


def test_split_is_disjoint_complete_and_balanced() -> None:
    labels = np.repeat(np.arange(10), 180)
    train, test = split(labels, 500, seed=1)
    assert sorted([*train, *test]) == list(range(1800)) and len(test) == 500
    assert set(np.bincount(labels[test])) <= {49, 50, 51}
    assert (split(labels, 500, seed=1)[1] == test).all()
    assert (split(labels, 500, seed=2)[1] != test).any()


def test_augmented_images_stay_images() -> None:
    images = np.zeros((20, 8, 8, 1), np.float32)
    images[:, 2:6, 2:6] = 0.8
    moved = augment(images, rng())
    assert moved.shape == images.shape and moved.dtype == np.float32
    assert moved.min() >= 0 and moved.max() <= 1
    assert np.allclose(moved.sum((1, 2, 3)), images.sum((1, 2, 3)), rtol=0.25)


def test_committed_network_classifies_the_committed_images() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(DEMO / "digits.onnx",
                                           providers=["CPUExecutionProvider"])
    images, labels = committed()
    assert images.shape == (500, 8, 8) and images.max() == 16
    hits = 0
    for image, label in zip(images, labels, strict=True):
        x = (image / np.float32(16)).astype(np.float32)[None, None]
        hits += int(session.run(None, {"image": x})[0].argmax()) == label
    assert hits == 497


def test_export_means_what_the_trainer_computes() -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from demo.export import to_onnx
    from demo.layers import softmax

    net = network(rng())
    images = rng().random((4, 8, 8, 1), np.float32)
    for _ in range(3):
        net.forward(images, train=True)
    expected = softmax(net.forward(images, train=False))
    session = onnxruntime.InferenceSession(to_onnx(net).SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    for image, want in zip(images, expected, strict=True):
        got = session.run(None, {"image": image.transpose(2, 0, 1)[None]})[0][0]
        assert np.abs(got - want).max() < 1e-5


@pytest.mark.parametrize("name", ["zero", "three", "five", "seven", "nine"])
def test_samples_are_test_images_enlarged(name: str) -> None:
    image_module = pytest.importorskip("PIL.Image")
    picture = np.asarray(image_module.open(DEMO / f"{name}.png"))
    assert picture.shape == (128, 128) and (DEMO / f"{name}.png").stat().st_size < 2048
    small = np.rint(picture[8::16, 8::16] * (16 / 255)).astype(np.uint8)
    images, labels = committed()
    found = np.flatnonzero((images == small).all((1, 2)))
    digit = "zero one two three four five six seven eight nine".split().index(name)
    assert len(found) == 1 and labels[found[0]] == digit
