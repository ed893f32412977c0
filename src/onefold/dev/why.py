"""What became of a layer of the source model, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onefold.codegen.model import Names
from onefold.codegen.text import c_name
from onefold.dev.survey import Planned, bound, find_nodes, macs_of, not_native
from onefold.ir.graph import Graph, Node
from onefold.plan.schedule import Lowerings

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.frontend.binding import Binding
    from onefold.plan.program import Buffer, Step
    from onefold.target import Target


@dataclass(frozen=True)
class StepFacts:
    """A step that computes some of a layer. function: its name in the generated C."""

    number: int
    total: int
    op: str
    layers: tuple[str, ...]
    algorithm: str
    function: str
    macs: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    others: tuple[tuple[str, str], ...]  # kernel families that did not take it, and why


@dataclass
class Story:
    """A layer's way: what the importer made of it, which passes changed it into what, where it
    runs, and which steps compute it. ending: what to say where no step does."""

    layers: tuple[str, ...]
    imported: list[str]
    passes: list[tuple[str, list[str]]] = field(default_factory=list)
    placed: list[tuple[str, str, str]] = field(default_factory=list)  # node, backend, why not cpu
    steps: list[StepFacts] = field(default_factory=list)
    macs: int = 0
    ending: str = ""


def why(model: Model, name: str, binding: Binding, target: Target) -> Story:
    """The story of a layer, by its name or that of a value that it makes.

    Raises OptionError for a name that is not there.
    """
    from onefold.passes import pipeline

    graph, _ = bound(model, binding)
    nodes = find_nodes(graph, name)
    layers = tuple(dict.fromkeys(x for n in nodes for x in n.origin.layers)) or (name,)
    story = Story(layers, [_line(n) for n in nodes], macs=sum(macs_of(n) for n in nodes))
    before = story.imported
    for pass_name, fn in pipeline.PIPELINE:
        fn(graph)
        now = [_line(n) for n in _of(graph, layers)]
        if now != before:
            story.passes.append((pass_name, now))
        before = now
    _places(story, graph, layers, target)
    return story


def _of(graph: Graph, layers: tuple[str, ...]) -> list[Node]:
    return [n for n in graph.walk() if set(layers) & set(n.origin.layers)]


def _line(n: Node) -> str:
    return f"{n!r}: {', '.join(repr(v.type) for v in n.outputs)}"


def _places(story: Story, graph: Graph, layers: tuple[str, ...], target: Target) -> None:
    from onefold.dev.survey import Survey, plan_parts

    nodes = _of(graph, layers)
    if not nodes:
        story.ending = "nothing of it is left: its result is known beforehand, or nobody reads it"
        return
    seen = Survey(graph, target)
    plan_parts(seen)
    owner = {id(n): p.backend.name for p in seen.parts for n in p.graph.nodes}
    for n in nodes:
        if id(n) in owner:
            story.placed.append((n.op.name, owner[id(n)], not_native(n, target)))
    for planned in seen.planned:
        story.steps += _steps(planned, nodes)
    if not story.steps and any(b == "cpu" for _, b, _ in story.placed):
        story.ending = "no step: its result is the same bytes as its input's, seen in another shape"


def _steps(planned: Planned, nodes: list[Node]) -> list[StepFacts]:
    """The steps that compute some of the nodes, themselves or inlined."""
    program, assembler = planned.program, planned.assembler
    wanted = {id(n) for n in nodes}
    steps = list(program.flat())
    names = Names(c_name(program.name, 24).lower(), steps)
    out = []
    for k, s in enumerate(steps):
        made = computed_by(planned, s)
        if not wanted & {id(n) for n in made}:
            continue
        refused = [
            r
            for n in made
            for r in assembler.kernels.refusals.get(id(n), ())
            if s.algorithm != r[0]
        ]
        layers = tuple(dict.fromkeys(x for n in made for x in n.origin.layers))
        out.append(StepFacts(
            k, len(steps), s.op, layers, s.algorithm, names.names[s.kernel], s.macs,
            tuple(map(_buffer, s.reads)), tuple(map(_buffer, s.writes)), tuple(refused),
        ))  # fmt: skip
    return out


def computed_by(planned: Planned, step: Step) -> list[Node]:
    """The nodes that a step computes: the one whose value it stores, and what is inlined there."""
    draft = planned.assembler.drafts[id(step)]
    inlined: set[int] = set()
    for kept in planned.assembler.keep:
        if isinstance(kept, Lowerings):
            inlined |= kept.inlined
    start = draft.node if draft.node is not None else draft.out.producer
    seen: dict[int, Node] = {}
    waiting = [start] if start is not None else []
    if draft.choice is not None:
        waiting.append(draft.choice.node)
    stored = {id(v) for v in draft.reads}
    while waiting:
        n = waiting.pop()
        if id(n) in seen:
            continue
        seen[id(n)] = n
        waiting += [
            v.producer for v in n.present()
            if id(v) in inlined and id(v) not in stored and v.producer is not None
        ]  # fmt: skip
    return list(seen.values())


def _buffer(b: Buffer) -> str:
    root = b.root
    where: str = root.kind
    if root.kind not in ("input", "output"):
        where = f"{'weights' if root.kind == 'const' else root.kind} at {root.offset + b.start:,}"
    return f"{b.name}: {b.type!r} ({where})"


def facts(story: Story) -> dict[str, Any]:
    """The story as plain data."""
    return {
        "layers": list(story.layers), "imported": story.imported, "macs": story.macs,
        "passes": [{"pass": p, "nodes": rows} for p, rows in story.passes],
        "placed": [{"operator": o, "backend": b, "refusal": w} for o, b, w in story.placed],
        "steps": [
            {"number": s.number, "of": s.total, "operator": s.op, "layers": list(s.layers),
             "algorithm": s.algorithm, "function": s.function, "macs": s.macs,
             "reads": list(s.reads), "writes": list(s.writes),
             "other_kernels": [{"name": n, "refusal": w} for n, w in s.others]}
            for s in story.steps
        ],
        "ending": story.ending,
    }  # fmt: skip
