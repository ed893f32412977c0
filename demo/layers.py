"""The layers of the demo network with their gradients, in plain NumPy.

Activations are float32 arrays of shape [batch, height, width, channels].  Each layer keeps what
its backward pass needs; `backward` takes the gradient of the loss by the layer's output, stores
those of its parameters in `grads` and returns that of its input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


class Layer(ABC):
    """A function of one array; what training changes is in `params`, its gradients in `grads`."""

    def __init__(self) -> None:
        self.params: dict[str, F32] = {}
        self.grads: dict[str, F32] = {}

    @abstractmethod
    def forward(self, x: F32, train: bool) -> F32: ...

    @abstractmethod
    def backward(self, dy: F32) -> F32: ...

    def leaves(self) -> Iterator[Layer]:
        """The layers with parameters of their own inside this one."""
        yield self


def _windows(x: F32, stride: int) -> F32:
    """The 3x3 neighbourhoods, zero padded: [batch, out height, out width, 3, 3, channels]."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    view = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return view[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)


def _scatter(windows: F32, shape: tuple[int, ...], stride: int) -> F32:
    """Adds the gradients of 3x3 neighbourhoods back to the pixels that they were read from."""
    batch, height, width, channels = shape
    padded = np.zeros((batch, height + 2, width + 2, channels), np.float32)
    rows, cols = windows.shape[1] * stride, windows.shape[2] * stride
    for i in range(3):
        for j in range(3):
            padded[:, i:i + rows:stride, j:j + cols:stride] += windows[:, :, :, i, j]
    return padded[:, 1:-1, 1:-1]


class Conv3x3(Layer):
    """3x3 convolution, padding 1, no bias; weights [3, 3, channels in, channels out]."""

    def __init__(self, rng: np.random.Generator, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        scale = np.sqrt(2 / (9 * inputs))
        self.params["w"] = (rng.standard_normal((3, 3, inputs, outputs)) * scale).astype(np.float32)

    def forward(self, x: F32, train: bool) -> F32:
        w = self.params["w"]
        patches = _windows(x, self.stride)
        self.shape, self.patches = x.shape, patches.reshape(-1, 9 * x.shape[3])
        out: F32 = self.patches @ w.reshape(-1, w.shape[3])
        return out.reshape(*patches.shape[:3], w.shape[3])

    def backward(self, dy: F32) -> F32:
        w = self.params["w"]
        flat = dy.reshape(-1, w.shape[3])
        self.grads["w"] = (self.patches.T @ flat).reshape(w.shape)
        patches = (flat @ w.reshape(-1, w.shape[3]).T).reshape(*dy.shape[:3], 3, 3, w.shape[2])
        return _scatter(patches, self.shape, self.stride)


class Depthwise3x3(Layer):
    """3x3 convolution of each channel by itself, padding 1, no bias; weights [3, 3, channels]."""

    def __init__(self, rng: np.random.Generator, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.params["w"] = (rng.standard_normal((3, 3, channels)) * np.sqrt(2 / 9)).astype(
            np.float32)

    def forward(self, x: F32, train: bool) -> F32:
        self.shape, self.windows = x.shape, _windows(x, self.stride)
        out: F32 = np.einsum("bhwijc,ijc->bhwc", self.windows, self.params["w"])
        return out

    def backward(self, dy: F32) -> F32:
        self.grads["w"] = np.einsum("bhwijc,bhwc->ijc", self.windows, dy)
        spread = dy[:, :, :, None, None] * self.params["w"]
        return _scatter(spread, self.shape, self.stride)


class Dense(Layer):
    """Matrix product over the last axis (a 1x1 convolution on images); weights [in, out]."""

    def __init__(self, rng: np.random.Generator, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.params["w"] = (rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)).astype(
            np.float32)
        if bias:
            self.params["b"] = np.zeros(outputs, np.float32)

    def forward(self, x: F32, train: bool) -> F32:
        self.x = x
        return x @ self.params["w"] + self.params.get("b", np.float32(0))

    def backward(self, dy: F32) -> F32:
        w = self.params["w"]
        flat = dy.reshape(-1, w.shape[1])
        self.grads["w"] = self.x.reshape(-1, w.shape[0]).T @ flat
        if "b" in self.params:
            self.grads["b"] = flat.sum(0)
        return dy @ w.T


class BatchNorm(Layer):
    """Normalisation over batch and space; keeps running statistics for inference."""

    EPSILON, MOMENTUM = 1e-5, 0.9

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.params = {"scale": np.ones(channels, np.float32),
                       "shift": np.zeros(channels, np.float32)}
        self.mean, self.var = np.zeros(channels, np.float32), np.ones(channels, np.float32)

    def forward(self, x: F32, train: bool) -> F32:
        mean, var = self.mean, self.var
        if train:
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            keep = np.float32(self.MOMENTUM)
            self.mean = keep * self.mean + (1 - keep) * mean
            self.var = keep * self.var + (1 - keep) * var
        self.inverse = (1 / np.sqrt(var + np.float32(self.EPSILON))).astype(np.float32)
        self.normal = (x - mean) * self.inverse
        out: F32 = self.normal * self.params["scale"] + self.params["shift"]
        return out

    def backward(self, dy: F32) -> F32:
        self.grads["shift"] = dy.sum((0, 1, 2))
        self.grads["scale"] = (dy * self.normal).sum((0, 1, 2))
        count = np.float32(dy.size // dy.shape[3])
        dx: F32 = dy - (self.grads["shift"] + self.normal * self.grads["scale"]) / count
        dx *= self.params["scale"] * self.inverse
        return dx


class Relu(Layer):
    def forward(self, x: F32, train: bool) -> F32:
        self.mask = x > 0
        return x * self.mask

    def backward(self, dy: F32) -> F32:
        return dy * self.mask


class GlobalAverage(Layer):
    """Mean over height and width: [batch, h, w, channels] to [batch, channels]."""

    def forward(self, x: F32, train: bool) -> F32:
        self.shape = x.shape
        out: F32 = x.mean((1, 2))
        return out

    def backward(self, dy: F32) -> F32:
        area = self.shape[1] * self.shape[2]
        return np.broadcast_to(dy[:, None, None] / np.float32(area), self.shape)


class Chain(Layer):
    """Layers one after the other; with `residual` the input is added to the result."""

    def __init__(self, layers: Sequence[Layer], residual: bool = False) -> None:
        super().__init__()
        self.layers, self.residual = list(layers), residual

    def forward(self, x: F32, train: bool) -> F32:
        y = x
        for layer in self.layers:
            y = layer.forward(y, train)
        return y + x if self.residual else y

    def backward(self, dy: F32) -> F32:
        dx = dy
        for layer in reversed(self.layers):
            dx = layer.backward(dx)
        return dx + dy if self.residual else dx

    def leaves(self) -> Iterator[Layer]:
        for layer in self.layers:
            yield from layer.leaves()


def separable(rng: np.random.Generator, inputs: int, outputs: int, stride: int) -> list[Layer]:
    """Depthwise 3x3 and pointwise 1x1, each normalised, with a ReLU between them."""
    return [Depthwise3x3(rng, inputs, stride), BatchNorm(inputs), Relu(),
            Dense(rng, inputs, outputs, bias=False), BatchNorm(outputs)]


def softmax(logits: F32) -> F32:
    e: F32 = np.exp(logits - logits.max(1, keepdims=True))
    e /= e.sum(1, keepdims=True)
    return e


def cross_entropy(logits: F32, labels: NDArray[np.int64], smoothing: float) -> tuple[float, F32]:
    """Mean loss with smoothed labels, and its gradient by the logits."""
    count, classes = logits.shape
    target = np.full((count, classes), smoothing / classes, np.float32)
    target[np.arange(count), labels] += np.float32(1 - smoothing)
    p = softmax(logits)
    loss = -(target * np.log(np.maximum(p, 1e-12))).sum() / count
    return float(loss), ((p - target) / np.float32(count)).astype(np.float32)
