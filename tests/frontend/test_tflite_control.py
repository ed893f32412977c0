"""IF and WHILE of TFLite: several subgraphs, against LiteRT."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onefold

pytestmark = pytest.mark.toolchain
s: Any = pytest.importorskip("ai_edge_litert.schema_py_generated")


class File:
    """A model of several subgraphs, written tensor by tensor."""

    def __init__(self) -> None:
        self.model = s.ModelT()
        self.model.version, self.model.subgraphs = 3, []
        self.model.buffers, self.model.operatorCodes = [s.BufferT()], []

    def graph(self) -> Any:
        g = s.SubGraphT()
        g.tensors, g.operators, g.inputs, g.outputs = [], [], [], []
        self.model.subgraphs.append(g)
        return g

    def tensor(self, g: Any, kind: int, shape: Any = (), data: Any = None) -> int:
        t = s.TensorT()
        t.name, t.type, t.shape, t.buffer = f"t{len(g.tensors)}", kind, list(shape), 0
        if data is not None:
            b = s.BufferT()
            b.data = np.frombuffer(np.asarray(data).tobytes(), np.uint8)
            self.model.buffers.append(b)
            t.buffer = len(self.model.buffers) - 1
        g.tensors.append(t)
        return len(g.tensors) - 1

    def op(self, g: Any, name: str, ins: Any, outs: Any, options: Any = None) -> None:
        code = s.OperatorCodeT()
        code.builtinCode = getattr(s.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        self.model.operatorCodes.append(code)
        op = s.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = len(self.model.operatorCodes) - 1, ins, outs
        if options is not None:
            op.builtinOptionsType = getattr(s.BuiltinOptions, type(options).__name__[:-1])
            op.builtinOptions = options
        g.operators.append(op)

    def bytes(self) -> bytes:
        import flatbuffers

        b = flatbuffers.Builder(1024)
        b.Finish(self.model.Pack(b), b"TFL3")
        return bytes(b.Output())


def lite(raw: bytes, *feeds: Any) -> list[Any]:
    from ai_edge_litert.interpreter import Interpreter

    it = Interpreter(model_content=raw)
    it.allocate_tensors()
    for d, x in zip(it.get_input_details(), feeds, strict=True):
        it.set_tensor(d["index"], x)
    it.invoke()
    return [it.get_tensor(d["index"]) for d in it.get_output_details()]


def choice() -> bytes:
    """flag ? x + 1 : x * 3."""
    f = File()
    main = f.graph()
    flag = f.tensor(main, s.TensorType.BOOL, ())
    x = f.tensor(main, s.TensorType.FLOAT32, (2, 2))
    y = f.tensor(main, s.TensorType.FLOAT32, (2, 2))
    o = s.IfOptionsT()
    o.thenSubgraphIndex, o.elseSubgraphIndex = 1, 2
    f.op(main, "IF", [flag, x], [y], o)
    main.inputs, main.outputs = [flag, x], [y]
    for name, value, options in (("ADD", 1, s.AddOptionsT()), ("MUL", 3, s.MulOptionsT())):
        g = f.graph()
        a = f.tensor(g, s.TensorType.FLOAT32, (2, 2))
        c = f.tensor(g, s.TensorType.FLOAT32, (), np.float32(value))
        r = f.tensor(g, s.TensorType.FLOAT32, (2, 2))
        f.op(g, name, [a, c], [r], options)
        g.inputs, g.outputs = [a], [r]
    return f.bytes()


def counting() -> bytes:
    """while i < 10: i, x = i + 3, x * 2."""
    f = File()
    main = f.graph()
    i = f.tensor(main, s.TensorType.INT32, ())
    x = f.tensor(main, s.TensorType.FLOAT32, (3,))
    j = f.tensor(main, s.TensorType.INT32, ())
    y = f.tensor(main, s.TensorType.FLOAT32, (3,))
    o = s.WhileOptionsT()
    o.condSubgraphIndex, o.bodySubgraphIndex = 1, 2
    f.op(main, "WHILE", [i, x], [j, y], o)
    main.inputs, main.outputs = [i, x], [j, y]
    test = f.graph()
    a, b = f.tensor(test, s.TensorType.INT32, ()), f.tensor(test, s.TensorType.FLOAT32, (3,))
    ten = f.tensor(test, s.TensorType.INT32, (), np.int32(10))
    less = f.tensor(test, s.TensorType.BOOL, ())
    f.op(test, "LESS", [a, ten], [less], s.LessOptionsT())
    test.inputs, test.outputs = [a, b], [less]
    body = f.graph()
    a, b = f.tensor(body, s.TensorType.INT32, ()), f.tensor(body, s.TensorType.FLOAT32, (3,))
    three = f.tensor(body, s.TensorType.INT32, (), np.int32(3))
    two = f.tensor(body, s.TensorType.FLOAT32, (), np.float32(2))
    c, d = f.tensor(body, s.TensorType.INT32, ()), f.tensor(body, s.TensorType.FLOAT32, (3,))
    f.op(body, "ADD", [a, three], [c], s.AddOptionsT())
    f.op(body, "MUL", [b, two], [d], s.MulOptionsT())
    body.inputs, body.outputs = [a, b], [c, d]
    return f.bytes()


@pytest.mark.parametrize("flag", [True, False])
def test_if(flag: bool) -> None:
    x = np.array([[1, 2], [3, -4]], np.float32)
    raw = choice()
    program = onefold.load(raw).compile(fallback=False, cache=False)
    (out,) = program([np.array(flag), x]).values()
    np.testing.assert_array_equal(out, lite(raw, np.array(flag), x)[0])


@pytest.mark.parametrize("start", [0, 9, 10, -5])
def test_while(start: int) -> None:
    x = np.array([1, 2, -3], np.float32)
    raw = counting()
    program = onefold.load(raw).compile(fallback=False, cache=False)
    i, y = program([np.array(start, np.int32), x]).values()
    want = lite(raw, np.array(start, np.int32), x)
    assert i == want[0]
    np.testing.assert_array_equal(y, want[1])
