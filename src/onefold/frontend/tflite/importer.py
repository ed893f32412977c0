"""From TFLite records to a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onefold.defects import told
from onefold.errors import (
    AcceleratorModelError,
    MemoryLimitError,
    Miss,
    ModelFormatError,
    UnsupportedModelError,
)
from onefold.frontend import importer
from onefold.frontend.binding import Binding, ValueNeeded
from onefold.frontend.model import Declared
from onefold.frontend.source import Source
from onefold.frontend.tflite import records as r
from onefold.frontend.tflite.reader import read
from onefold.frontend.tflite.rules import TfliteRule, rules
from onefold.ir import dims, dtypes
from onefold.ir.graph import Array, Builder, Graph, Node, Origin, State, Value
from onefold.ir.types import Quant, TensorType
from onefold.ops import registry
from onefold.ops.base import NeedsValue, Op, Refusal, TooLarge
from onefold.ops.formats import Given, GivenTypes, TfliteNode

MAX_MISSES = 1000  # one report need not be longer
BUDGET = 100_000  # layers made beyond those of the file: bodies put in place again and again
MAX_DEPTH = 40  # subgraphs that call subgraphs

COMPILED = {"edgetpu-custom-op": "Edge TPU", "ethos-u": "Arm Ethos-U"}
HANDLES = ("resource", "variant")
SUBGRAPH_OPTIONS = (
    "then_subgraph_index", "else_subgraph_index", "cond_subgraph_index", "body_subgraph_index",
    "init_subgraph_index", "subgraph", "decomposition_subgraph_index",
)  # fmt: skip


class Poison(Exception):
    """An input comes from an operator that was refused; that one is reported, not this one."""


@dataclass
class Scope:
    """Values of one subgraph by tensor index; None where the producer was refused."""

    subgraph: r.Subgraph
    values: dict[int, Value | None] = field(default_factory=dict)


def import_tflite(
    model: r.Model, binding: Binding, where: str = "", subgraph: int = 0, signature: str = ""
) -> Graph:
    """The graph of one subgraph: the main one, the one given, or that of a signature, whose
    names for inputs and outputs are then used.

    Raises UnsupportedModelError with everything that cannot be taken, AcceleratorModelError for a
    file already compiled for a chip, ValueNeeded where contents of inputs must be known first.
    """
    return Importer(model, binding, where).run(subgraph, signature)


@importer(format="tflite", title="TensorFlow Lite")
def load_tflite(source: Source) -> TfliteModel:
    """Reads a TFLite file; see TfliteModel.graph for what becomes of it."""
    return TfliteModel(read(source), source.name)


class TfliteModel:
    """A TFLite model that has been read; its main subgraph is what is run."""

    format = "tflite"
    external_files: tuple[str, ...] = ()

    def __init__(self, records: r.Model, where: str = "") -> None:
        self.records = records
        self.where = where
        g = records.subgraphs[0]
        self.inputs = _declared(g, g.inputs, "input")
        self.outputs = _declared(g, g.outputs, "output")

    @property
    def facts(self) -> dict[str, Any]:
        m = self.records
        return {
            "description": m.description, "version": m.version, "subgraphs": len(m.subgraphs),
            "operators": sum(len(g.operators) for g in m.subgraphs),
            "signatures": [s.key for s in m.signatures],
        }  # fmt: skip

    @property
    def weights_bytes(self) -> int:
        tensors = [t for g in self.records.subgraphs for t in g.tensors if t.data is not None]
        return sum({t.buffer: len(t.data or b"") for t in tensors}.values())

    def graph(self, binding: Binding) -> Graph:
        return import_tflite(self.records, binding, self.where)


def _declared(g: r.Subgraph, tensors: Sequence[int], what: str) -> list[Declared]:
    """Inputs or outputs under names of their own: the tensors', numbered where two are equal."""
    out: list[Declared] = []
    taken: set[str] = set()
    for k, t in enumerate(tensors):
        name = g.tensors[t].name or f"{what}{k}"
        while name in taken:
            name += f".{k}"
        taken.add(name)
        out.append(Declared(name, g.tensors[t].dtype, g.tensors[t].shape))
    return out


class Importer:
    def __init__(self, model: r.Model, binding: Binding, where: str) -> None:
        dims.restart_names()
        self.model = model
        self.binding = binding
        self.where = where
        self.misses: list[Miss] = []
        self.graph = Graph("model")
        self.builder = Builder(self.graph)
        self.symbols: dict[str, str] = {}
        self.depth = 0
        self.budget = BUDGET + sum(len(g.operators) for g in model.subgraphs)
        self.scope = Scope(model.subgraphs[0])
        self.states: dict[str, State] = {}
        self.variables: dict[str, Value] = {}  # current contents of each resource variable
        self.first: dict[str, Value] = {}  # what they held when the call began
        self.initial: dict[str, Array] = {}  # what CALL_ONCE assigned
        self.starting = False
        self.resting: dict[int, str] = {}  # id of a variable tensor's value -> its state

    def run(self, subgraph: int = 0, signature: str = "") -> Graph:
        ins: Mapping[str, int] = {}
        outs: Mapping[str, int] = {}
        if signature:
            found = [s for s in self.model.signatures if s.key == signature]
            if not found:
                known = ", ".join(f"'{s.key}'" for s in self.model.signatures) or "none"
                raise ModelFormatError(f"there is no signature '{signature}'",
                                       where=self.where or None,
                                       why=f"the file has {known}")  # fmt: skip
            subgraph, ins, outs = found[0].subgraph, found[0].inputs, found[0].outputs
        if not 0 <= subgraph < len(self.model.subgraphs):
            raise ModelFormatError(f"there is no subgraph {subgraph}", where=self.where or None,
                                   why=f"the file has {len(self.model.subgraphs)}")  # fmt: skip
        g = self.model.subgraphs[subgraph]
        self._check_names(g)
        self.graph.name = g.name or "model"
        self.scope = Scope(g)
        own = {t: name for name, t in outs.items()}
        try:
            self._inputs(g, {t: name for name, t in ins.items()})
            self._operators(g)
            if self.misses:
                raise self._refused()
            self.graph.outputs = [self._output(t, own.get(t, "")) for t in g.outputs]
        except Refusal as e:  # a tensor at the graph's own border
            self.misses.append(Miss("the graph", "input or output", str(e)))
            raise self._refused() from None
        self.graph.states = list(self.states.values())
        self._tied()
        return self.graph

    # -- the graph's border --------------------------------------------------------------------

    def _inputs(self, g: r.Subgraph, names: Mapping[int, str]) -> None:
        for k in g.inputs:
            t = g.tensors[k]
            name = names.get(k, t.name)
            if name in self.binding.values:
                data = self.binding.values[name]
                kind = TensorType(data.shape, dtypes.of(data.dtype), quant_of(t))
                self.scope.values[k] = Value(self.builder.name(name), kind, data)
            elif k not in self.scope.values:
                v = Value(self.builder.name(name or f"input{k}"), self._input_type(name, t))
                self.graph.inputs.append(v)
                self.scope.values[k] = v

    def _input_type(self, name: str, t: r.Tensor) -> TensorType:
        kind = self.type_of(t)
        given = self.binding.shapes.get(name)
        if given is not None:
            return replace(kind, shape=tuple(given))
        shape: list[dims.Dim] = list(t.shape)
        for axis, n in enumerate(t.shape_signature):
            known = f"{name}.{axis}"
            if n < 0 and known in self.binding.dims and axis < len(shape):
                shape[axis] = self.binding.dim(known, self.symbols)
        return replace(kind, shape=tuple(shape))

    def type_of(self, t: r.Tensor) -> TensorType:
        """The type that the file gives a tensor. Raises Refusal for handles and unknown types."""
        if t.dtype not in dtypes.BY_NAME:
            raise Refusal(f"tensor '{t.name}' has the element type {t.dtype}")
        kind, quant = dtypes.BY_NAME[t.dtype], quant_of(t)
        if quant is not None and kind.is_int:
            for zero in quant.zero_point:
                if not kind.lo <= zero <= kind.hi:
                    raise Refusal(f"the zero point {zero} of '{t.name}' is no {kind.long}")
        return TensorType(t.shape, kind, quant)

    def _output(self, tensor: int, name: str) -> Value:
        try:
            v = self.value(tensor)
        except Poison:  # its producer is already among the misses
            raise self._refused() from None
        if name and v.producer is not None:
            v.name = name
        return v

    def _tied(self) -> None:
        from onefold.passes.state import tie

        for out, into in self.binding.states.items():
            tie(self.graph, out, into, [o.name for o in self.graph.outputs])

    def _refused(self) -> UnsupportedModelError:
        count = len(self.misses)
        layers = "one layer" if count == 1 else f"{count} layers"
        return UnsupportedModelError(f"{layers} of the model cannot be taken",
                                     misses=self.misses, where=self.where or None)  # fmt: skip

    # -- names -----------------------------------------------------------------------------------

    def _check_names(self, main: r.Subgraph) -> None:
        """Operators that nobody knows, all at once, in every subgraph that can be reached."""
        misses: dict[str, list[str]] = {}
        seen, waiting = {main.index}, [main]
        while waiting:
            g = waiting.pop()
            for op in g.operators:
                if op.is_custom and op.name in COMPILED:
                    raise self._compiled(op.name)
                if self._known(op) is None:
                    misses.setdefault(op.name, []).append(label(g, op))
                for key in SUBGRAPH_OPTIONS:
                    k = op.options.get(key, -1)
                    if isinstance(k, int) and 0 <= k < len(self.model.subgraphs) and k not in seen:
                        seen.add(k)
                        waiting.append(self.model.subgraphs[k])
        for name, layers in misses.items():
            first = layers[0] + (f" and {len(layers) - 1} more" if layers[1:] else "")
            self.misses.append(Miss(first, name, "no importer knows this operator"))
        if self.misses:
            raise self._refused()

    def _compiled(self, name: str) -> AcceleratorModelError:
        chip = COMPILED[name]
        return AcceleratorModelError(
            f"the model is already compiled for the {chip}", where=self.where or None,
            why=f"its layers were replaced by the operator '{name}', which only that chip runs",
            remedy=f"use the .tflite file from before the {chip} compiler ran",
        )  # fmt: skip

    def _known(self, op: r.Operator) -> TfliteRule | type[Op] | None:
        return rules.get(op.name) or registry.tflite.get(op.name)

    # -- operators -------------------------------------------------------------------------------

    def _operators(self, g: r.Subgraph) -> None:
        for op in g.operators:
            try:
                outs = self._operator(g, op)
            except Poison:
                outs = []
            except TooLarge as e:
                where = f"layer '{label(g, op)}'"
                raise MemoryLimitError(f"{op.name}: {e}", where=where) from None
            except Refusal as e:
                self.misses.append(Miss(label(g, op), op.name, str(e)))
                outs = []
            except NeedsValue as e:
                raise self._value_needed(e, label(g, op), op.name) from None
            except ValueNeeded:
                raise
            except Exception as e:
                why = told(e, label(g, op), op.name)
                self.misses.append(Miss(label(g, op), op.name, why))
                outs = []
            if len(self.misses) >= MAX_MISSES:
                raise self._refused()
            for k, t in enumerate(op.outputs):
                if t >= 0:
                    self._define(t, outs[k] if k < len(outs) else None, op, outs)

    def _value_needed(self, e: NeedsValue, layer: str, op: str) -> Exception:
        names = inputs_of(e.value, self.graph)
        if not names:
            why = f"{e.reason}, and they depend on no input of the model"
            self.misses.append(Miss(layer, op, why))
            return self._refused()
        return ValueNeeded(names, layer, e.reason)

    def _operator(self, g: r.Subgraph, op: r.Operator) -> Sequence[Value]:
        self.budget -= 1
        if self.budget < 0:
            raise MemoryLimitError("the model grows without bound", where=self.where or None,
                                   why="its subgraphs are called too many times",
                                   remedy="Check the subgraphs that call each other.")  # fmt: skip
        inputs = Given(self.value(t) if t >= 0 else None for t in op.inputs)
        found = self._known(op)
        self.builder.origin = Origin((label(g, op),))
        types = GivenTypes(self._result_type(g.tensors[t]) for t in op.outputs if t >= 0)
        names = [g.tensors[t].name for t in op.outputs if t >= 0]
        between = [self.type_of(g.tensors[t]) for t in op.intermediates if t >= 0]
        node = TfliteNode(
            op.name, op.version, label(g, op), op.options, inputs, names, types,
            bytes(op.custom_options), self, between,
        )  # fmt: skip
        if isinstance(found, type) and issubclass(found, Op):
            return found.from_tflite(node, self.builder)
        assert found is not None
        rule: Any = found
        made: Sequence[Value] = rule(node, self.builder)
        return made

    def _result_type(self, t: r.Tensor) -> TensorType:
        if t.dtype in HANDLES:
            return TensorType((), dtypes.string)
        return self.type_of(t)

    def _define(
        self, tensor: int, v: Value | None, op: r.Operator, outs: Sequence[Value]
    ) -> None:
        """Let a tensor of the file stand for a value, which takes its name and scale."""
        t = self.scope.subgraph.tensors[tensor]
        if v is not None and t.dtype not in HANDLES and isinstance(v.type, TensorType):
            if v.dtype.long != t.dtype:
                self.misses.append(Miss(label(self.scope.subgraph, op), op.name,
                    f"its result '{t.name}' is {t.dtype} in the file but {v.dtype.long} by its "
                    "inputs"))  # fmt: skip
                v = None
            elif v not in self.scope.values.values():
                v.type = replace(v.tensor, quant=quant_of(t))
                v.name = self.builder.name(t.name or v.name)
        self.scope.values[tensor] = v

    def value(self, tensor: int) -> Value:
        """The value of a tensor: computed, given, constant, or a variable that lasts."""
        if tensor in self.scope.values:
            v = self.scope.values[tensor]
            if v is None:
                raise Poison(tensor)
            return v
        t = self.scope.subgraph.tensors[tensor]
        if t.is_variable:
            v = self._lasting(t)
        elif t.data is not None or 0 in t.shape:
            v = self._constant(t)
        else:
            raise ModelFormatError(f"tensor '{t.name}' is used but nothing defines it",
                                   where=self.where or None)  # fmt: skip
        self.scope.values[tensor] = v
        return v

    def _constant(self, t: r.Tensor) -> Value:
        kind = self.type_of(t)
        data = t.numpy() if t.data is not None else np.zeros(t.shape, kind.dtype.numpy)
        return Value(self.builder.name(t.name or f"c{t.index}"), kind, data)

    # -- state -----------------------------------------------------------------------------------

    def _lasting(self, t: r.Tensor) -> Value:
        """A variable tensor: all bytes zero at first, or the zero point where it is int8."""
        kind = self.type_of(t)
        initial = None
        if kind.dtype is dtypes.i8 and kind.quant is not None:
            initial = np.full(t.shape, kind.quant.zero_point[0], np.int8)
        return self.state(t.name or f"state{t.index}", kind, initial)

    def state(self, name: str, kind: TensorType, initial: Array | None = None) -> Value:
        """A new value that outlives a call; zeros at first unless `initial` is given."""
        name = self.builder.name(name)
        v = Value(name, kind)
        self.states[name] = State(name, v, None, initial)
        self.resting[id(v)] = name
        return v

    def keep(self, old: Value, new: Value) -> None:
        """At the end of a call the variable tensor `old` receives the contents of `new`."""
        name = self.resting.get(id(old))
        if name is None:
            raise Refusal(f"'{old.name}' is to be updated but is not a variable")
        self.states[name].update = new

    def variable(self, key: str, kind: TensorType) -> Value:
        """What a resource variable holds now; it begins with what CALL_ONCE assigned, or zeros."""
        if key not in self.variables:
            first = self.initial.get(key)
            if first is not None:
                kind = replace(kind, shape=first.shape)
            self.variables[key] = self.state(key.strip("/") or "variable", kind, first)
        return self.variables[key]

    def assign(self, key: str, v: Value) -> None:
        if self.starting:
            if v.data is None:
                raise Refusal("a variable begins with a value that is not constant")
            self.initial[key] = v.data
            return
        old = self.variable(key, v.tensor)
        if old.shape != v.shape or old.dtype is not v.dtype:
            raise Refusal(f"a variable of {old.type} is assigned {v.type}")
        self.variables[key] = v
        first = self.first.setdefault(key, old)
        self.keep(first, v)

    def once(self, index: int) -> None:
        """Operators of a subgraph that runs before the first call: constant assignments."""
        nested, self.starting = self.starting, True
        try:
            self.inline(index, [])
        finally:
            self.starting = nested

    # -- other subgraphs -------------------------------------------------------------------------

    def region(self, index: int, inputs: Sequence[Value]) -> Graph:
        """A subgraph as a graph of its own, its formal inputs bound to the given values."""
        graph = Graph(f"subgraph{index}", inputs=list(inputs))
        saved = self.builder.nodes, self.builder.graph, self.builder.origin
        self.builder.nodes, self.builder.graph = graph.nodes, graph
        try:
            graph.outputs = self.inline(index, inputs)
        finally:
            self.builder.nodes, self.builder.graph, self.builder.origin = saved
        return graph

    def inline(self, index: int, inputs: Sequence[Value]) -> list[Value]:
        """The operators of a subgraph, made where the builder stands; returns its outputs."""
        if not 0 <= index < len(self.model.subgraphs):
            raise Refusal(f"there is no subgraph {index}")
        if self.depth >= MAX_DEPTH:
            raise Refusal(f"subgraphs are nested more than {MAX_DEPTH} deep")
        g = self.model.subgraphs[index]
        if len(g.inputs) != len(inputs):
            raise Refusal(f"subgraph {index} takes {len(g.inputs)} inputs, not {len(inputs)}")
        saved = self.scope
        self.depth += 1
        self.scope = Scope(g, dict(zip(g.inputs, inputs, strict=True)))
        try:
            self._operators(g)
            return [self.value(t) for t in g.outputs]
        finally:
            self.scope = saved
            self.depth -= 1


def quant_of(t: r.Tensor) -> Quant | None:
    """The scale of a tensor, None where it has none or it is kept in another way."""
    q = t.quant
    if q is None or not len(q.scale):
        return None
    axis = q.axis if len(q.scale) > 1 else None
    return Quant(tuple(q.scale.tolist()), tuple(q.zero_point.tolist()), axis)


def label(g: r.Subgraph, op: r.Operator) -> str:
    """What people call an operator: its first result, or its number."""
    for t in op.outputs:
        if t >= 0 and g.tensors[t].name:
            return g.tensors[t].name
    return f"operator {op.index}"


def inputs_of(v: Value, graph: Graph) -> tuple[str, ...]:
    """Names of the graph inputs that a value is computed from."""
    own = {id(i): i.name for i in graph.inputs}
    found: dict[str, None] = {}
    seen: set[int] = set()
    stack = [v]
    while stack:
        u = stack.pop()
        if id(u) in seen:
            continue
        seen.add(id(u))
        if id(u) in own:
            found[own[id(u)]] = None
        producer: Node | None = u.producer
        if producer is not None:
            stack.extend(producer.present())
            stack.extend(producer.captures())
    return tuple(found)


__all__ = ["Importer", "import_tflite"]
