"""What a model consists of, what becomes of it, and what each part costs, without compiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from onefold import events
from onefold.errors import OnefoldError, OptionError, did_you_mean
from onefold.ir import dims
from onefold.ir.graph import Graph, Node, Value
from onefold.ir.types import TensorType
from onefold.options import Options

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.frontend.binding import Binding
    from onefold.plan.assemble import Assembler
    from onefold.plan.partition import Part
    from onefold.plan.program import Program
    from onefold.target import Target

IMPORT = "import"  # the stage before all passes


@dataclass(frozen=True)
class Planned:
    """A compiled part and how it was put together."""

    program: Program
    assembler: Assembler


@dataclass(frozen=True)
class Applied:
    """A pass, and how many places it changed."""

    name: str
    changes: int


@dataclass
class Survey:
    """A model on its way: the graph at one stage, and, where the way was gone to its end, who
    runs which part."""

    graph: Graph
    target: Target
    applied: list[Applied] = field(default_factory=list)
    parts: Sequence[Part] = ()
    planned: list[Planned] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def refusals(self) -> list[tuple[str, str, str, str]]:
        """(layer, operator, backend, reason) of every layer without a compiled form."""
        return [r for part in self.parts for r in part.refusals]


def bound(model: Model, binding: Binding) -> tuple[Graph, list[str]]:
    """The imported graph with every open dimension taken as 1, and notes that say so."""
    from onefold.dev.feed.gather import assuming

    names = _open_names(model, binding)
    try:
        graph = model.bind(binding)
        if not names or not _is_open(graph):  # a format may have a size for what is open
            return graph, []
    except OnefoldError:
        if not names:
            raise
    notes = [f"the open dimension {n} is taken as 1 (--dim {n}=SIZE)" for n in names]
    with assuming(notes):
        fixed = replace(binding, dims={**dict.fromkeys(names, 1), **binding.dims})
        return model.bind(fixed), notes


def _open_names(model: Model, binding: Binding) -> list[str]:
    names: dict[str, None] = {}
    for d in model.inputs:
        if d.name in binding.shapes or d.name in binding.values:
            continue
        for k, size in enumerate(d.shape or ()):
            if (not isinstance(size, int) or size < 0) and d.dim_name(k) not in binding.dims:
                names[d.dim_name(k)] = None
    return list(names)


def _is_open(graph: Graph) -> bool:
    return any(
        dims.upper(d) >= dims.INF
        for v in graph.inputs if isinstance(v.type, TensorType) for d in v.type.shape
    )  # fmt: skip


def survey(model: Model, binding: Binding, target: Target, after: str = "") -> Survey:
    """The graph after the pass `after` ("import": before all), or after all of them, and then
    with its parts and plans. Raises OptionError for a pass that does not exist."""
    from onefold.passes import pipeline

    names = [IMPORT, *(name for name, _ in pipeline.PIPELINE)]
    if after and after not in names:
        raise OptionError(f"there is no pass '{after}'", why=did_you_mean(after, names),
                          remedy="The passes are " + ", ".join(names) + ".")  # fmt: skip
    graph, notes = bound(model, binding)
    found = Survey(graph, target, notes=notes)
    if after != IMPORT:
        found.applied = [Applied(a.name, a.changes) for a in pipeline.run(graph, after)]
    if not after:
        plan_parts(found)
    return found


def plan_parts(found: Survey, options: Options | None = None) -> None:
    """The parts of an optimised graph and their plans; by default as `Model.compile` makes them."""
    from onefold.backends import Backend
    from onefold.backends.cpu import Cpu
    from onefold.backends.reference import Reference
    from onefold.plan import plan
    from onefold.plan.partition import partition
    from onefold.run.tuned import times_for

    if options is None:
        options = Options(tuned=times_for(found.target))
    backends: Sequence[Backend] = [Cpu(), Reference()]
    found.parts = partition(found.graph, backends, found.target)
    for part in found.parts:
        if part.backend.name != "cpu":
            continue
        with events.collected() as heard:
            program = plan(part.graph, found.target, options)
        assembler = next(e.facts["assembler"] for e in heard if e.kind == "plan")
        found.planned.append(Planned(program, assembler))


# --- costs ----------------------------------------------------------------------------------------


def macs_of(n: Node) -> int:
    """Multiply-adds of a node, its bodies once each."""
    return int(n.op.macs(n)) + sum(macs_of(m) for g in n.regions for m in g.nodes)


def bytes_of(values: Sequence[Value]) -> int:
    """Bytes of tensors at their largest; 0 for those without a bound."""
    total = 0
    for v in values:
        if isinstance(v.type, TensorType):
            size = dims.upper(v.type.size)
            total += 0 if size >= dims.INF else size * v.type.dtype.bytes
    return total


def constants_of(n: Node) -> list[Value]:
    """The constants that a node and its bodies read."""
    own = {id(v): v for v in n.present() if v.is_const}
    for g in n.regions:
        for m in g.nodes:
            own.update({id(v): v for v in constants_of(m)})
    return list(own.values())


def not_native(n: Node, target: Target) -> str:
    """Why a node has no compiled form; empty where it has one."""
    from onefold.backends.cpu import Cpu

    return Cpu().accepts(n, target)


def layer_facts(n: Node, target: Target) -> dict[str, Any]:
    """One row of the layers' table."""
    return {
        "layer": str(n.origin) or (n.outputs[0].name if n.outputs else n.op.name),
        "operator": n.op.name,
        "inputs": [repr(v.type) for v in n.present() if not v.is_const],
        "outputs": [{"name": v.name, "type": repr(v.type)} for v in n.outputs],
        "macs": macs_of(n), "weight_bytes": bytes_of(constants_of(n)),
        "output_bytes": bytes_of(n.outputs), "not_native": not_native(n, target),
    }  # fmt: skip


def operator_facts(layers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sums per operator, the costliest first."""
    rows: dict[str, dict[str, Any]] = {}
    for f in layers:
        row = rows.setdefault(
            f["operator"],
            {
                "operator": f["operator"],
                "count": 0,
                "macs": 0,
                "weight_bytes": 0,
                "output_bytes": 0,
                "native": 0,
            },
        )
        row["count"] += 1
        row["native"] += not f["not_native"]
        for k in ("macs", "weight_bytes", "output_bytes"):
            row[k] += f[k]
    return sorted(rows.values(), key=lambda r: (-r["macs"], -r["count"], r["operator"]))


def find_nodes(graph: Graph, name: str) -> list[Node]:
    """The nodes of a layer: by the layer's name, an output's name, or `operator N`.

    Raises OptionError with the nearest names.
    """
    exact = [
        n for n in graph.walk()
        if name in n.origin.layers or any(v.name == name for v in n.outputs)
    ]  # fmt: skip
    if exact:
        return exact
    known = sorted({
        x for n in graph.walk() for x in (*n.origin.layers, *(v.name for v in n.outputs))
    })  # fmt: skip
    inside = [k for k in known if name.lower() in k.lower()]
    if len(inside) == 1:
        return find_nodes(graph, inside[0])
    near = "It could be " + ", ".join(f"'{k}'" for k in inside[:8]) if inside else ""
    raise OptionError(f"there is no layer '{name}'", why=near or did_you_mean(name, known),
                      remedy="`onefold inspect MODEL --layers` lists them.")  # fmt: skip
