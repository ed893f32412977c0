"""LiteRT: the source runtime of TensorFlow Lite models."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onefold.dev.peers import PeerRefuses, model_bytes

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.ir.types import TensorType


class LiteRt:
    name = "litert"
    package = "ai_edge_litert"
    extra = "check"
    formats: Sequence[str] = ("tflite",)
    trust = 3

    def version(self) -> str:
        from importlib.metadata import version

        return version("ai-edge-litert")

    def load(self, model: Model, threads: int = 1, exact: bool = False) -> Interpreter:
        """exact: reference kernels (BUILTIN_REF), whose integer arithmetic is the definition."""
        return Interpreter(model, threads, exact)

    def watch(self, model: Model, types: Mapping[str, TensorType]) -> Interpreter:
        return Interpreter(model, 1, exact=True, preserve=True)


class Interpreter:
    """Inputs and outputs are matched by position, since its names need not be unique."""

    def __init__(
        self, model: Model, threads: int, exact: bool, preserve: bool = False,
        delegates: bool = True,
    ) -> None:  # fmt: skip
        with _quiet():
            from ai_edge_litert.interpreter import Interpreter as Theirs
            from ai_edge_litert.interpreter import OpResolverType

            plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            kind = OpResolverType.AUTO if delegates else plain
            kind = OpResolverType.BUILTIN_REF if exact else kind
            try:
                self.it = Theirs(
                    model_content=model_bytes(model), num_threads=threads,
                    experimental_op_resolver_type=kind, experimental_preserve_all_tensors=preserve,
                )  # fmt: skip
                self.it.allocate_tensors()  # unknown operators are only told here
            except (ValueError, RuntimeError) as e:
                raise PeerRefuses(str(e)) from None
        numbers = [t["index"] for t in self.it.get_input_details()]
        self.inputs = list(zip([d.name for d in model.inputs], numbers, strict=True))
        self.outputs = [t["index"] for t in self.it.get_output_details()]
        self.ready = False

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        self.bind(inputs)
        return [np.array(self.it.get_tensor(k)) for k in self.outputs]

    def bind(self, inputs: Mapping[str, Any]) -> Callable[[], Any]:
        """Inputs set, the model run, the outputs read, as a caller does it."""
        try:
            with _quiet():
                self._resize(inputs)
                for name, k in self.inputs:
                    self.it.set_tensor(k, inputs[name])
                self.it.invoke()
        except (ValueError, RuntimeError) as e:
            raise PeerRefuses(str(e)) from None
        it, outputs = self.it, self.outputs
        ins = [(k, inputs[name]) for name, k in self.inputs]

        def call() -> None:
            for k, array in ins:
                it.set_tensor(k, array)
            it.invoke()
            for k in outputs:
                it.get_tensor(k)

        return call

    def _resize(self, inputs: Mapping[str, Any]) -> None:
        details = {t["index"]: t for t in self.it.get_input_details()}
        for name, k in self.inputs:
            if tuple(details[k]["shape"]) != inputs[name].shape:
                self.it.resize_tensor_input(k, inputs[name].shape)
                self.ready = False
        if not self.ready:
            self.it.allocate_tensors()
            self.it.reset_all_variables()
            self.ready = True

    def reset(self) -> None:
        if self.ready:
            self.it.reset_all_variables()

    def values(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.bind(inputs)
        found = {}
        for t in self.it.get_tensor_details():
            with contextlib.suppress(ValueError):  # temporaries without memory
                found[t["name"]] = np.array(self.it.get_tensor(t["index"]))
        return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the library's log lines, which C++ writes, off stderr."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


PEER = LiteRt
