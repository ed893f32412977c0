"""ONNX Runtime: the source runtime of ONNX models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onefold.dev.peers import PeerRefuses, model_bytes
from onefold.errors import MissingExtraError

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.ir.types import TensorType


class OnnxRuntime:
    name = "onnxruntime"
    package = "onnxruntime"
    extra = "check"
    formats: Sequence[str] = ("onnx",)
    trust = 3

    def version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)

    def load(self, model: Model, threads: int = 1, exact: bool = False) -> Session:
        """exact: no graph optimisations."""
        source = str(model.source) if isinstance(model.source, Path) else model_bytes(model)
        return Session(source, threads, exact)

    def watch(self, model: Model, types: Mapping[str, TensorType]) -> AllValues:
        return AllValues(model, types)


class Session:
    def __init__(self, source: str | bytes, threads: int, exact: bool) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if exact:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self.session = ort.InferenceSession(source, options, ["CPUExecutionProvider"])
        except Exception as e:  # its errors have no common base class
            raise PeerRefuses(str(e)) from None
        self.outputs = [o.name for o in self.session.get_outputs()]

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        try:
            return list(self.session.run(self.outputs, dict(inputs)))
        except Exception as e:
            raise PeerRefuses(str(e)) from None

    def bind(self, inputs: Mapping[str, Any]) -> Callable[[], Any]:
        feeds, outputs, session = dict(inputs), self.outputs, self.session
        self.run(feeds)
        return lambda: session.run(outputs, feeds)

    def reset(self) -> None:
        """Its states are inputs and outputs."""


class AllValues:
    """The model with every value that a main-graph node computes as an output."""

    def __init__(self, model: Model, types: Mapping[str, TensorType]) -> None:
        try:
            import onnx
        except ImportError:
            raise MissingExtraError("onnx", "check", "telling the values between layers") from None

        path = model.source if isinstance(model.source, Path) else None
        proto = onnx.load(str(path)) if path else onnx.load_from_string(model_bytes(model))
        wanted = {n for node in proto.graph.node for n in node.output if n in types}
        declared = {o.name for o in proto.graph.output}
        for name in sorted(wanted - declared):
            proto.graph.output.append(onnx.ValueInfoProto(name=name))
        # Its own type inference fills in what a bare name leaves open.
        self.session = Session(proto.SerializeToString(), 1, exact=True)

    def values(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        outs = self.session.run(inputs)
        return dict(zip(self.session.outputs, outs, strict=True))


PEER = OnnxRuntime
