"""Makes TFLite files of one operator, and runs them in the reference interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TYPES = {
    "float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "string": 5, "bool": 6,
    "int16": 7, "complex64": 8, "int8": 9, "uint32": 15, "uint16": 16,
}  # fmt: skip


@dataclass
class T:
    """A tensor: an array (fed at run time unless `const`), or only a type for a result."""

    data: Any = None
    dtype: str = "float32"
    scale: Sequence[float] | float | None = None
    zero: int = 0
    axis: int = 0
    const: bool = False
    variable: bool = False
    shape: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.data is not None:
            self.data = np.asarray(self.data)
            self.dtype = self.data.dtype.name


def build(
    name: str, inputs: Sequence[T | None], outputs: Sequence[T], options: Any = None
) -> bytes:
    """The bytes of a file; options: an object of the schema's option class."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as s

    model, graph = s.ModelT(), s.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [s.BufferT()]
    graph.tensors, graph.name, graph.operators = [], "main", []
    used = [_tensor(s, model, graph, t, f"x{k}") for k, t in enumerate(inputs)]
    made = [_tensor(s, model, graph, t, f"y{k}") for k, t in enumerate(outputs)]
    graph.inputs = [i for i, t in zip(used, inputs, strict=True)
                    if t is not None and not t.const and not t.variable]  # fmt: skip
    graph.outputs = made
    code = s.OperatorCodeT()
    number = getattr(s.BuiltinOperator, name, s.BuiltinOperator.CUSTOM)
    if number == s.BuiltinOperator.CUSTOM:
        code.customCode = name
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 1
    model.operatorCodes = [code]
    op = s.OperatorT()
    op.opcodeIndex, op.inputs, op.outputs = 0, used, made
    if options is not None:
        kind = type(options).__name__.removesuffix("T")
        op.builtinOptionsType = getattr(s.BuiltinOptions, kind, 0)
        op.builtinOptions = options
    graph.operators = [op]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(s: Any, model: Any, graph: Any, t: T | None, name: str) -> int:
    if t is None:
        return -1
    tensor = s.TensorT()
    shape = t.shape if t.shape is not None else (() if t.data is None else t.data.shape)
    tensor.name, tensor.shape, tensor.type = name, list(shape), TYPES[t.dtype]
    tensor.isVariable = t.variable
    buffer = s.BufferT()
    if t.const:
        buffer.data = np.frombuffer(np.ascontiguousarray(t.data).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1
    if t.scale is not None:
        q = s.QuantizationParametersT()
        scales = np.atleast_1d(np.asarray(t.scale, np.float32))
        q.scale, q.zeroPoint = scales, np.full(len(scales), t.zero, np.int64)
        q.quantizedDimension = t.axis
        tensor.quantization = q
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def reference(model: bytes, feeds: Sequence[Any]) -> list[Any]:
    """Results of LiteRT's reference kernels."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    it = Interpreter(model_content=model,
                     experimental_op_resolver_type=OpResolverType.BUILTIN_REF)  # fmt: skip
    it.allocate_tensors()
    for detail, x in zip(it.get_input_details(), feeds, strict=True):
        it.set_tensor(detail["index"], x)
    it.invoke()
    return [it.get_tensor(d["index"]) for d in it.get_output_details()]


def ours(model: bytes, feeds: Sequence[Any]) -> list[Any]:
    """Results of the same file, imported and compiled."""
    from onefold.dev.cases import run_graph
    from onefold.frontend.binding import Binding
    from onefold.frontend.tflite.importer import import_tflite
    from onefold.frontend.tflite.reader import read

    return run_graph(import_tflite(read(model), Binding()), list(feeds))
