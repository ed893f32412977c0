"""TensorFlow Lite for Microcontrollers: takes some integer models that LiteRT refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onefold.dev.peers import PeerRefuses, model_bytes
from onefold.dev.peers.litert import _quiet

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.ir.types import TensorType

ARENA = 64 << 20  # bytes; only what is used is touched


class Tflm:
    name = "tflm"
    package = "tflite_micro"
    extra = ""
    formats: Sequence[str] = ("tflite",)
    trust = 2

    def version(self) -> str:
        from importlib.metadata import version

        return version("tflite-micro")

    def load(self, model: Model, threads: int = 1, exact: bool = False) -> Interpreter:
        return Interpreter(model)

    def watch(self, model: Model, types: Mapping[str, TensorType]) -> Interpreter:
        raise PeerRefuses("it does not tell the values between layers")


class Interpreter:
    """Inputs and outputs are known to it by position."""

    def __init__(self, model: Model) -> None:
        from tflite_micro import runtime

        self.inputs = [d.name for d in model.inputs]
        self.outputs = len(model.outputs)
        try:
            with _quiet():
                self.it = runtime.Interpreter.from_bytes(model_bytes(model), arena_size=ARENA)
        except (ValueError, RuntimeError) as e:
            raise PeerRefuses(str(e)) from None

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        self.bind(inputs)
        return [np.array(self.it.get_output(k)) for k in range(self.outputs)]

    def bind(self, inputs: Mapping[str, Any]) -> Callable[[], Any]:
        it, ins = self.it, [(k, inputs[n]) for k, n in enumerate(self.inputs)]
        count = self.outputs

        def call() -> None:
            for k, array in ins:
                it.set_input(array, k)
            it.invoke()
            for k in range(count):
                it.get_output(k)

        try:
            with _quiet():
                call()
        except (ValueError, RuntimeError, IndexError) as e:
            raise PeerRefuses(str(e)) from None
        return call

    def reset(self) -> None:
        with _quiet():
            self.it.reset()


PEER = Tflm
