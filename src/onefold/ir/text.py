"""The text form of a graph: printed for people and dumps, parsed back for tests and reductions.

    graph main {
      dim n_seq 0..2048
      input %x: f32[1,n_seq]
      const %w: f32[2] = [1.0, 2.0]
      %y = Add()(%x, %w): f32[1,n_seq]  # layer a + layer b
      output %y
    }
"""

from __future__ import annotations

import ast
import base64
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from onefold.errors import GraphError
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Graph, Node, Origin, State, Value
from onefold.ir.types import AnyType, Quant, TensorType

FEW = 16  # constants up to this size are written out


def show(graph: Graph, data: bool = False) -> str:
    """The text of a graph. data: write large constants too (packed), so that it can be parsed."""
    return "\n".join(_Printer(graph, data).lines())


class _Printer:
    def __init__(self, graph: Graph, data: bool) -> None:
        self.graph, self.data = graph, data
        self.names: dict[int, str] = {}
        self.taken: set[str] = set()

    def name(self, v: Value) -> str:
        if id(v) not in self.names:
            base = re.sub(r"[^\w./:-]", "_", v.name)[:80] or "v"
            name, k = base, 1
            while name in self.taken:
                name, k = f"{base}~{k}", k + 1
            self.taken.add(name)
            self.names[id(v)] = "%" + name
        return self.names[id(v)]

    def lines(self) -> Iterator[str]:
        yield f"graph {re.sub(r'[^A-Za-z0-9_.-]', '_', self.graph.name)[:80] or 'main'} {{"
        for s in _symbols(self.graph):
            yield f"  dim {s.name} {s.lo}..{'' if s.hi >= dims.INF else s.hi}"
        yield from ("  " + line for line in self.body(self.graph, set()))
        yield "}"

    def body(self, g: Graph, known: set[int]) -> Iterator[str]:
        for v in g.inputs:
            yield f"input {self.name(v)}: {v.type!r}"
        for s in g.states:
            start = "zeros" if s.initial is None else self.array(s.initial)
            yield f"state {self.name(s.value)}: {s.value.type!r} = {start}"
        for n in g.nodes:
            yield from self.node(n, known)
        for v in g.outputs:
            if v.is_const and id(v) not in known:
                known.add(id(v))
                yield self.const(v)
        for s in g.states:
            if s.update is not None:
                yield f"update {self.name(s.value)} = {self.name(s.update)}"
        for v in g.outputs:
            yield f"output {self.name(v)}"

    def node(self, n: Node, known: set[int]) -> Iterator[str]:
        for v in n.present():
            if v.is_const and id(v) not in known:
                known.add(id(v))
                yield self.const(v)
        ins = ", ".join("-" if v is None else self.name(v) for v in n.inputs)
        outs = ", ".join(self.name(v) for v in n.outputs)
        types = "; ".join(repr(v.type) for v in n.outputs)
        note = f"  # {_plain(str(n.origin))}" if n.origin.layers else ""
        opens = " {" if n.regions else ""
        yield f"{outs} = {n.op!r}({ins}): {types}{opens}{note}"
        for k, g in enumerate(n.regions):
            yield f"  body {k} {{"
            yield from ("    " + line for line in self.body(g, known))
            yield "  }"
        if n.regions:
            yield "}"

    def const(self, v: Value) -> str:
        assert v.data is not None
        return f"const {self.name(v)}: {v.type!r} = {self.array(v.data)}"

    def array(self, a: Array) -> str:
        if a.size <= FEW and a.dtype.kind in "iufb":
            return repr(a.reshape(-1).tolist())
        if self.data and a.dtype.kind != "O":
            packed = base64.b85encode(zlib.compress(np.ascontiguousarray(a).tobytes(), 9))
            return f"packed {packed.decode()}"
        return f"... {a.nbytes} bytes"


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "." for c in text[:200])


def _symbols(g: Graph) -> list[dims.Sym]:
    found: dict[str, dims.Sym] = {}
    for inner in g.regions_and_self():
        for v in inner.all_values():
            for d in getattr(v.type, "shape", ()):
                for s in dims.symbols(d):
                    found[s.name] = s
    return [found[k] for k in sorted(found)]


_TYPE = re.compile(r"^(\w+)\[(.*?)\](?: \{(\w+) (\S+) zero (-?\d+)\})?(?: c(\d+))?$")


def parse(text: str) -> Graph:
    """The graph of a text made by `show`. Raises GraphError with the line that is not understood.

    Quantization is read back where it has one scale; constants where their data was written.
    """
    return _Parser(text).graph()


class _Parser:
    def __init__(self, text: str) -> None:
        self.lines = [line.strip() for line in text.splitlines()]
        self.at = 0
        self.values: dict[str, Value] = {}
        self.symbols: dict[str, Dim] = {}

    def fail(self, why: str) -> GraphError:
        line = self.lines[self.at] if self.at < len(self.lines) else "the end"
        return GraphError("the text of a graph is not understood", why=why,
                          where=f"line {self.at + 1}: {line}")  # fmt: skip

    def take(self) -> str:
        while self.at < len(self.lines) and not self.lines[self.at]:
            self.at += 1
        if self.at >= len(self.lines):
            raise self.fail("it ends too early")
        self.at += 1
        return self.lines[self.at - 1]

    def graph(self) -> Graph:
        head = re.match(r"^graph (\S+) \{$", self.take())
        if head is None:
            self.at -= 1
            raise self.fail("it begins with `graph NAME {`")
        try:
            return self.body(Graph(head[1]))
        except (ValueError, KeyError, SyntaxError, TypeError) as e:
            self.at -= 1
            raise self.fail(str(e)) from None

    def body(self, g: Graph) -> Graph:
        states: dict[str, State] = {}
        while (line := self.take()) != "}":
            word, _, rest = line.partition(" ")
            if word == "dim":
                name, ends = rest.split()
                lo, hi = ends.split("..")
                self.symbols[name] = dims.sym(name, int(lo), int(hi) if hi else dims.INF)
            elif word == "input":
                g.inputs.append(self.declare(rest))
            elif word == "state":
                left, start = rest.split(" = ", 1)
                v = self.declare(left)
                initial = None if start == "zeros" else self.array(start, v.tensor)
                states[v.name] = State(v.name, v, None, initial)
                g.states.append(states[v.name])
            elif word == "const":
                left, data = rest.split(" = ", 1)
                v = self.declare(left)
                self.values["%" + v.name] = Value(v.name, v.type, self.array(data, v.tensor))
            elif word == "update":
                left, right = rest.split(" = ")
                states[left[1:]].update = self.values[right]
            elif word == "output":
                g.outputs.append(self.values[rest])
            else:
                g.nodes.append(self.node(line))
        return g

    def declare(self, text: str) -> Value:
        name, kind = text.split(": ", 1)
        v = self.values[name] = Value(name[1:], self.type(kind))
        return v

    def type(self, text: str) -> AnyType:
        m = _TYPE.match(text)
        if m is None:
            raise ValueError(f"'{text}' is not the type of a tensor")
        shape = tuple(self.dim(d) for d in _split(m[2]))
        quant = None
        if m[3]:
            quant = Quant((float(m[4]),), (int(m[5]),), None, m[3])  # type: ignore[arg-type]
        return TensorType(shape, dtypes.BY_NAME[m[1]], quant, int(m[6] or 0))

    def dim(self, text: str) -> Dim:
        tree = ast.parse(text.strip(), mode="eval").body
        return self._dim(tree)

    def _dim(self, t: ast.expr) -> Dim:
        if isinstance(t, ast.Constant):
            return int(t.value)  # type: ignore[arg-type]
        if isinstance(t, ast.Name):
            return self.symbols[t.id]
        if isinstance(t, ast.UnaryOp):
            return dims.mul(self._dim(t.operand), -1)
        if isinstance(t, ast.Call):
            a, b = (self._dim(x) for x in t.args)
            return dims.apply(t.func.id, a, b)  # type: ignore[attr-defined]
        if isinstance(t, ast.BinOp):
            a, b = self._dim(t.left), self._dim(t.right)
            kind = type(t.op)
            if kind is ast.Add:
                return dims.add(a, b)
            if kind is ast.Sub:
                return dims.add(a, dims.mul(b, -1))
            if kind is ast.Mult:
                return dims.mul(a, b)
            return dims.apply("//" if kind is ast.FloorDiv else "%", a, b)
        raise ValueError("a size has an unknown form")

    def array(self, text: str, t: TensorType) -> Array:
        if text.startswith("packed "):
            raw = zlib.decompress(base64.b85decode(text[7:]))
            return np.frombuffer(raw, t.dtype.numpy).reshape(t.ints)
        if text.startswith("..."):
            raise ValueError("the data of a constant was left out")
        items = eval(text, {"__builtins__": {}}, {"nan": np.nan, "inf": np.inf}) if re.fullmatch(
            r"[\[\]\d., eEaftruTFls+naif-]*", text) else None  # fmt: skip
        return np.array(items, t.dtype.numpy).reshape(t.ints)

    def node(self, line: str) -> Node:
        line, _, note = line.partition("  # ")
        outs, _, rest = line.partition(" = ")
        call, _, types = rest.rpartition("): ")
        opens = types.endswith(" {")
        kinds = [self.type(x) for x in types.removesuffix(" {").split("; ")]
        op_text, _, args = call.rpartition("(")
        inputs = [None if a == "-" else self.values[a] for a in args.split(", ") if a]
        regions = []
        while opens:
            head = self.take()
            if head == "}":
                break
            regions.append(self.body(Graph(head.removesuffix(" {"))))
        values = [Value(o[1:], k) for o, k in zip(outs.split(", "), kinds, strict=True)]
        self.values.update({"%" + v.name: v for v in values})
        layers = tuple(note.split(" + ")) if note else ()
        return Node(_operator(op_text), inputs, values, Origin(layers), regions)


def _split(text: str) -> list[str]:
    """At commas outside parentheses."""
    out, depth, start = [], 0, 0
    for k, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            out.append(text[start:k])
            start = k + 1
    return [*out, text[start:]] if text else []


def _operator(text: str) -> Any:
    from onefold.ops import registry

    tree = ast.parse(text, mode="eval").body
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise ValueError(f"'{text}' is no operator")
    fields: Mapping[str, Any] = {k.arg or "": _literal(k.value) for k in tree.keywords}
    return registry.by_name[tree.func.id](**fields)


def _literal(t: ast.expr) -> Any:
    if isinstance(t, ast.Name):
        if t.id in dtypes.BY_NAME:
            return dtypes.BY_NAME[t.id]
        return {"inf": float("inf"), "nan": float("nan")}[t.id]
    if isinstance(t, ast.Tuple):
        return tuple(_literal(x) for x in t.elts)
    if isinstance(t, ast.UnaryOp) and isinstance(t.operand, ast.Name):
        return -_literal(t.operand)
    return ast.literal_eval(t)
