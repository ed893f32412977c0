"""Onefold as an ONNX backend: `onnx.backend.base.Backend`.

    import onefold.onnx_backend as backend
    outputs = backend.prepare(model).run(inputs)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.api import load
from onefold.errors import InputError, MissingExtraError
from onefold.forms import Program

try:
    from onnx import ModelProto, NodeProto, TensorProto, helper
    from onnx.backend.base import Backend, BackendRep, namedtupledict
except ModuleNotFoundError:
    raise MissingExtraError("onnx", "onnx", "onefold.onnx_backend") from None


class Representation(BackendRep):  # type: ignore[misc]
    """A compiled model, called with a list of arrays in the order of the model's inputs."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.outputs = [d.name for d in program.model.outputs]

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs in the model's order; `inputs` is a sequence, a dict, or one array."""
        declared = self.program.model.inputs
        if isinstance(inputs, dict):
            feeds = inputs
        else:
            given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
            if len(given) > len(declared):
                raise InputError(f"{len(given)} inputs were given",
                                 why=f"the model has {len(declared)}")  # fmt: skip
            feeds = {d.name: x for d, x in zip(declared, given, strict=False)}
        out = self.program(feeds)
        result: tuple[Any, ...] = namedtupledict("Outputs", self.outputs)(
            *[out[n] for n in self.outputs]
        )
        return result


class OnefoldBackend(Backend):  # type: ignore[misc]
    """Runs on this machine's CPU."""

    options: ClassVar[dict[str, Any]] = {}

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        return bool(cls.supports_device(device))

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> Representation:
        """Compile a model. kwargs are those of `Model.compile`."""
        if not cls.supports_device(device):
            raise InputError(f"there is no device '{device}'", remedy="The device is CPU.")
        return Representation(load(model).compile(**{**cls.options, **kwargs}))

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Any, device: str = "CPU", **kw: Any) -> Any:
        return cls.prepare(model, device, **kw).run(inputs)

    @classmethod
    def run_node(
        cls, node: NodeProto, inputs: Any, device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Run one node on arrays: a model is made around it."""
        arrays = dict(inputs) if isinstance(inputs, dict) else dict(
            zip([n for n in node.input if n], inputs, strict=False)
        )  # fmt: skip
        ins = [
            helper.make_tensor_value_info(
                n, helper.np_dtype_to_tensor_dtype(np.asarray(a).dtype), np.shape(a)
            )
            for n, a in arrays.items()
        ]
        outs = [
            helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in node.output if n
        ]
        graph = helper.make_graph([node], "node", ins, outs)
        opset = kwargs.pop("opset_version", None)
        imports = [helper.make_opsetid(node.domain, opset)] if opset else None
        model = helper.make_model(graph, opset_imports=imports)
        return cls.run_model(model, arrays, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.split(":")[0].upper() == "CPU"


is_compatible = OnefoldBackend.is_compatible
prepare = OnefoldBackend.prepare
run_model = OnefoldBackend.run_model
run_node = OnefoldBackend.run_node
supports_device = OnefoldBackend.supports_device
