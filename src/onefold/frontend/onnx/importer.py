"""From ONNX records to a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onefold.defects import told
from onefold.errors import (
    MemoryLimitError,
    Miss,
    ModelFormatError,
    OnefoldError,
    UnsupportedModelError,
)
from onefold.frontend import importer
from onefold.frontend.binding import Binding, ValueNeeded
from onefold.frontend.model import Declared
from onefold.frontend.onnx import records as r
from onefold.frontend.onnx.reader import read
from onefold.frontend.onnx.rules import rules
from onefold.frontend.onnx.signature import Attributes, check, known, takes_tensor_only
from onefold.frontend.onnx.tensors import SparseTensor, Tensor
from onefold.frontend.source import Source
from onefold.ir import dims, dtypes
from onefold.ir.graph import Array, Builder, Graph, Origin, Value, detach
from onefold.ir.types import AnyType, OptionalType, SequenceType, TensorType
from onefold.ops import registry
from onefold.ops.base import NeedsValue, Op, Refusal, TooLarge
from onefold.ops.formats import Given, OnnxNode
from onefold.ops.sequence import Optional, SequenceConstruct

MAX_MISSES = 1000  # one report need not be longer
BUDGET = 100_000  # layers made beyond those of the file: bodies put in place again and again
MAX_DEPTH = 40  # functions that call functions, bodies inside bodies


class Poison(LookupError):
    """An input comes from a node that was refused; that node is reported, not this one."""


@importer(format="onnx", title="ONNX")
def load_onnx(source: Source) -> OnnxModel:
    """Reads an ONNX file; see OnnxModel.graph for what becomes of it."""
    return OnnxModel(read(source), source.name)


class OnnxModel:
    """An ONNX model that has been read."""

    format = "onnx"

    def __init__(self, records: r.Model, where: str = "") -> None:
        self.records = records
        self.where = where
        constant = {t.name for t in records.graph.initializers}
        self.inputs = [_declared(v) for v in records.graph.inputs if v.name not in constant]
        self.outputs = [_declared(v) for v in records.graph.outputs]

    @property
    def facts(self) -> dict[str, Any]:
        m = self.records
        return {
            "producer": f"{m.producer} {m.producer_version}".strip(),
            "ir_version": m.ir_version, "opset": dict(m.opset), "nodes": len(m.graph.nodes),
        }  # fmt: skip

    @property
    def external_files(self) -> list[str]:
        return [
            t.external["location"] for t in _tensors(self.records)
            if t.external and "location" in t.external
        ]  # fmt: skip

    @property
    def weights_bytes(self) -> int:
        return sum(map(_bytes, _tensors(self.records)))

    def graph(self, binding: Binding) -> Graph:
        return import_onnx(self.records, binding, self.where)


def _tensors(m: r.Model) -> list[Tensor]:
    """Every tensor that is stored, of whatever graph."""
    found: list[Tensor] = []
    for g in _graphs(m):
        found += [*g.initializers, *(s.values for s in g.sparse_initializers)]
        found += [a for n in g.nodes for a in n.attributes.values() if isinstance(a, Tensor)]
    return found


def _bytes(t: Tensor) -> int:
    try:
        return t.nbytes
    except OnefoldError:  # malformed, and refused by whoever reads it
        return 0


def _graphs(m: r.Model) -> list[r.Graph]:
    """The main graph and every body in it."""
    out, waiting = [], [m.graph]
    while waiting:
        g = waiting.pop()
        out.append(g)
        for n in g.nodes:
            for a in n.attributes.values():
                parts = a if isinstance(a, tuple) else (a,)
                waiting += [x for x in parts if isinstance(x, r.Graph)]
    return out


def _declared(v: r.ValueInfo) -> Declared:
    if isinstance(v.type, r.TensorType):
        return Declared(v.name, v.type.dtype, v.type.shape)
    kind = "sequence" if isinstance(v.type, r.SequenceType) else "optional"
    return Declared(v.name, "", None, kind)


@dataclass
class Scope:
    """Names of one graph or function call; a body sees the names around it."""

    parent: Scope | None = None
    values: dict[str, Value | None] = field(default_factory=dict)  # None: refused

    def find(self, name: str) -> Value:
        here: Scope | None = self
        while here is not None:
            if name in here.values:
                v = here.values[name]
                if v is None:
                    raise Poison(name)
                return v
            here = here.parent
        raise KeyError(name)


def import_onnx(model: r.Model, binding: Binding, where: str = "") -> Graph:
    """The graph of a model.

    Raises UnsupportedModelError with everything that cannot be taken, ModelFormatError for names
    that are not defined, ValueNeeded where contents of inputs must be known first.
    """
    return Importer(model, binding, where).run()


class Importer:
    def __init__(self, model: r.Model, binding: Binding, where: str) -> None:
        dims.restart_names()
        self.model = model
        self.binding = binding
        self.where = where
        self.functions = {(f.domain, f.name, f.overload): f for f in model.functions}
        self.misses: list[Miss] = []
        self.taken: set[str] = set()
        self.graph = Graph(model.graph.name or "model")
        self.builder = Builder(self.graph)
        self.opset: Mapping[str, int] = model.opset
        self.scope = Scope()
        self.symbols: dict[str, str] = {}
        self.depth = 0
        self.budget = BUDGET + len(model.graph.nodes)
        self.attributes: Mapping[str, Any] | None = None

    def run(self) -> Graph:
        g = self.model.graph
        self._check_names(g)
        self._inputs(g)
        self._nodes(g.nodes)
        if self.misses:
            raise self._refused(self.misses)
        self.graph.outputs = [self._output(o.name) for o in g.outputs]
        self._states()
        return self.graph

    def _refused(self, misses: Sequence[Miss]) -> UnsupportedModelError:
        layers = "one layer" if len(misses) == 1 else f"{len(misses)} layers"
        return UnsupportedModelError(f"{layers} of the model cannot be taken",
                                     misses=misses, where=self.where or None)  # fmt: skip

    # -- the graph's border --------------------------------------------------------------------

    def _inputs(self, g: r.Graph) -> None:
        stored: tuple[Tensor | SparseTensor, ...] = (*g.initializers, *g.sparse_initializers)
        constants = {t.name for t in stored}
        for t in stored:
            self.scope.values[t.name] = self._constant(t)
        for i in g.inputs:
            if i.name in self.binding.values:
                self._define(i.name, self._bound(i))
            elif i.name not in constants:
                v = Value(self.builder.name(i.name), self._type(i.name, i.type))
                self.graph.inputs.append(v)
                self._define(i.name, v)

    def _bound(self, i: r.ValueInfo) -> Value:
        data = self.binding.values[i.name]
        if data is None or isinstance(data, (list, tuple)):
            return self._bound_sequence(i, data)
        v = self._bound_tensor(i.name, data)
        if isinstance(i.type, r.OptionalType):
            return self.builder.op(Optional(), v)
        return v

    def _bound_tensor(self, name: str, data: Array) -> Value:
        data = np.asarray(data)
        return Value(self.builder.name(name), TensorType(data.shape, dtypes.of(data.dtype)), data)

    def _bound_sequence(self, i: r.ValueInfo, data: Sequence[Array] | None) -> Value:
        """A sequence or optional input as one that is made of constants."""
        if data is None:
            t = self._type(i.name, i.type)
            return self.builder.op(Optional(t.element if isinstance(t, OptionalType) else None))
        items = [self._bound_tensor(f"{i.name}.{k}", a) for k, a in enumerate(data)]
        v = self.builder.op(SequenceConstruct(), *items)
        return self.builder.op(Optional(), v) if isinstance(i.type, r.OptionalType) else v

    def _constant(self, t: Tensor | SparseTensor) -> Value:
        data = t.numpy()
        kind = dtypes.BY_NAME[t.dtype]
        return Value(self.builder.name(t.name), TensorType(data.shape, kind), data)

    def _type(self, name: str, t: r.Type | None) -> AnyType:
        if isinstance(t, r.SequenceType):
            return SequenceType(None if t.elem is None else self._type(name, t.elem))
        if isinstance(t, r.OptionalType):
            inner = None if t.elem is None else self._type(name, t.elem)
            return OptionalType(inner)  # type: ignore[arg-type]
        if not isinstance(t, r.TensorType):
            why = "it is neither a tensor, a sequence nor an optional"
            raise self._refused([Miss(name, "input", why)])
        if t.dtype not in dtypes.BY_NAME:
            raise ModelFormatError(f"input '{name}' has the unknown element type {t.dtype}",
                                   where=self.where or None)  # fmt: skip
        kind = dtypes.BY_NAME[t.dtype]
        given = self.binding.shapes.get(name)
        if given is not None:
            return TensorType(tuple(given), kind)
        if t.shape is None:
            raise ValueNeeded((name,), name, "its rank is not in the file")
        return TensorType(
            tuple(self._dim(name, k, d) for k, d in enumerate(t.shape)), kind
        )

    def _dim(self, name: str, axis: int, d: r.Dim) -> dims.Dim:
        if isinstance(d, int) and d >= 0:
            return d
        known = d if isinstance(d, str) and d else f"{name}.{axis}"
        return self.binding.dim(known, self.symbols)

    def _output(self, name: str) -> Value:
        try:
            v = self.scope.find(name)
        except KeyError:
            raise self._undefined(name, "the graph's outputs") from None
        except Poison:
            why = "the layer it comes from is not taken"
            raise self._refused([Miss(name, "output", why)]) from None
        return v

    def _states(self) -> None:
        from onefold.passes.state import tie

        names = [o.name for o in self.model.graph.outputs]
        for out, into in self.binding.states.items():
            tie(self.graph, out, into, names)
            names.remove(out)

    def _define(self, name: str, v: Value | None) -> None:
        if name in self.scope.values:
            raise ModelFormatError(
                f"the name '{name}' is defined twice", where=self.where or None,
                why="every value of a graph needs a name of its own")  # fmt: skip
        self.scope.values[name] = v

    def _undefined(self, name: str, user: str) -> ModelFormatError:
        return ModelFormatError(f"'{name}' is used by {user} but nothing defines it",
                                where=self.where or None)  # fmt: skip

    def _check_names(self, g: r.Graph) -> None:
        """Operators that nobody knows, all at once, before any work."""
        misses: dict[tuple[str, str], list[str]] = {}

        def walk(graph: r.Graph | r.Function) -> None:
            for n in graph.nodes:
                if self._known(n) is None:
                    misses.setdefault((n.domain, n.op_type), []).append(_label(n))
                for a in n.attributes.values():
                    for sub in a if isinstance(a, tuple) else (a,):
                        if isinstance(sub, r.Graph):
                            walk(sub)

        walk(g)
        for f in self.model.functions:
            walk(f)
        if misses:
            raise self._refused(
                [
                    Miss(layers[0] + (f" and {len(layers) - 1} more" if layers[1:] else ""),
                         f"{d}:{t}" if d else t, "no importer knows this operator")
                    for (d, t), layers in misses.items()
                ]
            )  # fmt: skip

    def _known(self, n: r.Node) -> Any:
        full = f"{n.domain}:{n.op_type}" if n.domain else n.op_type
        function = self.functions.get((n.domain, n.op_type, n.overload))
        return function or rules.get(full) or registry.onnx.get(full)

    # -- nodes -----------------------------------------------------------------------------------

    def _nodes(self, nodes: Sequence[r.Node]) -> None:
        for n in _sorted(nodes, self):
            try:
                outs = self._node(n)
            except Poison:
                outs = []
            except TooLarge as e:
                raise MemoryLimitError(f"{n.op_type}: {e}", where=f"layer '{_label(n)}'") from None
            except Refusal as e:
                self._miss(n, str(e))
                outs = []
            except NeedsValue as e:
                raise self._value_needed(e, n) from None
            except ValueNeeded as e:
                e.taken = frozenset(self.taken)
                raise
            except Exception as e:
                self._miss(n, told(e, _label(n), n.op_type))
                outs = []
            else:
                if any(n.outputs[len(outs) :]):
                    self._miss(n, f"it has {len(outs)} results, not {len(n.outputs)}")
                else:
                    self.taken.add(_label(n))
            for k, name in enumerate(n.outputs):
                if name:
                    self._define(name, outs[k] if k < len(outs) else None)

    def _miss(self, n: r.Node, why: str) -> None:
        self.misses.append(Miss(_label(n), n.op_type, why))
        if len(self.misses) >= MAX_MISSES:
            raise self._refused(self.misses)

    def _value_needed(self, e: NeedsValue, n: r.Node) -> Exception:
        names = inputs_of(e.value, self.graph)
        if not names:
            why = f"{e.reason}, and they depend on no input of the model"
            return self._refused([Miss(_label(n), n.op_type, why)])
        needed = ValueNeeded(names, _label(n), e.reason)
        needed.taken = frozenset(self.taken)
        return needed

    def _node(self, n: r.Node) -> Sequence[Value]:
        self.budget -= 1
        if self.budget < 0:
            raise MemoryLimitError("the model grows without bound", where=self.where or None,
                                   why="its functions and bodies make too many layers",
                                   remedy="Check the functions that call each other.")  # fmt: skip
        inputs = [self._input(name, n) if name else None for name in n.inputs]
        attrs = {k: self._attribute(v) for k, v in n.attributes.items()}
        attrs = Attributes((k, v) for k, v in attrs.items() if v is not None)
        found = self._known(n)
        self.builder.origin = Origin((_label(n),))
        if isinstance(found, r.Function):
            return self._call(found, n, inputs, attrs)
        letters = check(n, self.opset.get(n.domain, 1))
        for k, v in enumerate(inputs):
            if v is not None and takes_tensor_only(letters, k):
                if not isinstance(v.type, TensorType):
                    raise Refusal(f"input {k} is a {v.type}, not a tensor")
        attrs = Attributes((k, v) for k, v in attrs.items() if known(n, k))
        node = OnnxNode(
            n.op_type, n.domain, self.opset.get(n.domain, 1), n.name, attrs, Given(inputs),
            n.outputs,
            self,
        )  # fmt: skip
        if isinstance(found, type) and issubclass(found, Op):
            return found.from_onnx(node, self.builder)
        return found(node, self.builder)  # type: ignore[no-any-return]

    def _input(self, name: str, n: r.Node) -> Value:
        try:
            return self.scope.find(name)
        except KeyError:
            raise self._undefined(name, f"layer '{_label(n)}'") from None

    def _attribute(self, v: Any) -> Any:
        if isinstance(v, r.AttributeRef):
            return None if self.attributes is None else self.attributes.get(v.name)
        return v

    def _call(
        self, f: r.Function, n: r.Node, inputs: Sequence[Value | None], attrs: Mapping[str, Any]
    ) -> list[Value]:
        """The body of a model's own function, in place."""
        saved = self.scope, self.opset, self.attributes
        self._enter(f"function {f.name}")
        self.scope = Scope()
        for k, name in enumerate(f.inputs):
            if k < len(inputs) and inputs[k] is not None:
                self.scope.values[name] = inputs[k]
        self.opset = {**self.opset, **f.opset}
        self.attributes = {**f.defaults, **attrs}
        try:
            self._nodes(f.nodes)
            return [self.scope.find(name) for name in f.outputs[: len(n.outputs)]]
        except KeyError as e:
            raise self._undefined(str(e.args[0]), f"function '{f.name}'") from None
        finally:
            self.scope, self.opset, self.attributes = saved
            self.depth -= 1

    def _enter(self, what: str) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ModelFormatError(f"{what} is nested more than {MAX_DEPTH} deep",
                                   where=self.where or None,
                                   why="a function or body may not contain itself")  # fmt: skip

    # -- bodies of control flow ------------------------------------------------------------------

    def region(self, g: r.Graph, inputs: Sequence[Value]) -> Graph:
        """A body as a graph of its own, its formal inputs bound to the given values."""
        graph = Graph(g.name or "body", inputs=list(inputs))
        saved = self.builder.nodes, self.builder.graph, self.builder.origin
        self.builder.nodes, self.builder.graph = graph.nodes, graph
        try:
            graph.outputs = self.inline(g, inputs)
        except BaseException:
            for node in graph.nodes:
                detach(node)
            raise
        finally:
            self.builder.nodes, self.builder.graph, self.builder.origin = saved
        return graph

    def inline(self, g: r.Graph, inputs: Sequence[Value]) -> list[Value]:
        """The nodes of a body, made where the builder stands; returns its outputs."""
        self._enter(f"body '{g.name}'")
        saved = self.scope
        self.scope = Scope(saved)
        stored: tuple[Tensor | SparseTensor, ...] = (*g.initializers, *g.sparse_initializers)
        try:
            for formal, v in zip(g.inputs, inputs, strict=False):
                self.scope.values[formal.name] = v
            for t in stored:
                self.scope.values[t.name] = self._constant(t)
            self._nodes(g.nodes)
            return [self.scope.find(o.name) for o in g.outputs]
        except KeyError as e:
            raise self._undefined(str(e.args[0]), f"body '{g.name}'") from None
        finally:
            self.scope = saved
            self.depth -= 1


def _label(n: r.Node) -> str:
    return n.name or (n.outputs[0] if n.outputs else "") or n.op_type


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
        if u.producer is not None:
            stack.extend(u.producer.present())
            stack.extend(u.producer.captures())
    return tuple(found)


def _sorted(nodes: Sequence[r.Node], importer: Importer) -> list[r.Node]:
    """Nodes in an order of execution: the file's own where it is one.

    Raises ModelFormatError for a cycle.
    """
    makers = {o: k for k, n in enumerate(nodes) for o in n.outputs if o}
    needs = [{makers[u] for u in _used(n) if u in makers} for n in nodes]
    if all(k > max(need, default=-1) for k, need in enumerate(needs)):
        return list(nodes)
    done: set[int] = set()
    order: list[r.Node] = []
    waiting = list(range(len(nodes)))
    while waiting:
        ready = [k for k in waiting if needs[k] <= done]
        if not ready:
            raise ModelFormatError("the graph has a cycle", where=importer.where or None,
                                   why=f"through layer '{_label(nodes[waiting[0]])}'")  # fmt: skip
        done.update(ready)
        order += [nodes[k] for k in ready]
        waiting = [k for k in waiting if k not in done]
    return order


def _used(n: r.Node) -> set[str]:
    """Names that a node reads, those read inside its bodies too."""
    used = {i for i in n.inputs if i}
    for a in n.attributes.values():
        for g in a if isinstance(a, tuple) else (a,):
            if isinstance(g, r.Graph):
                inner = {o for m in g.nodes for o in m.outputs} | {i.name for i in g.inputs}
                inner |= {t.name for t in g.initializers}
                for m in g.nodes:
                    used |= _used(m) - inner
                used |= {o.name for o in g.outputs} - inner
    return used


__all__ = ["Importer", "import_onnx", "inputs_of"]
