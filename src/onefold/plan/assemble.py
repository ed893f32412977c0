"""From lowered nodes to a program: steps, buffers, and how the bytes are shared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from onefold.codegen.family import Choice, KernelChoice
from onefold.codegen.team import pays
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim, Sym
from onefold.ir.graph import Array, Graph, Node, Origin, Value
from onefold.ir.scalar import Acc, Load, TensorExpr, stored, walk
from onefold.ir.types import TensorType
from onefold.ops.base import Code, Lowering, Pieces
from onefold.plan.numbers import settle
from onefold.plan.program import (
    EMPTY,
    AnyStep,
    Buffer,
    Port,
    Program,
    Recipe,
    Step,
    byte_size,
)
from onefold.plan.render import Draft, cycles, render
from onefold.plan.schedule import Lowerings, generic_index

HELD = 1 << 24  # packed weights from this size on are made again when they are written


@dataclass
class Assembler:
    """Builds the steps of a graph and of its regions, in order."""

    kernels: KernelChoice
    place: dict[int, Buffer] = field(default_factory=dict)
    buffers: list[Buffer] = field(default_factory=list)
    drafts: dict[int, Draft] = field(default_factory=dict)
    found: list[Sym] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    keep: list[object] = field(default_factory=list)
    consts: dict[int, Buffer] = field(default_factory=dict)

    def buffer(self, name: str, kind: str, t: TensorType, index: int = 0) -> Buffer:
        b = Buffer(name, kind, t, byte_size(t), index=index)  # type: ignore[arg-type]
        self.buffers.append(b)
        return b

    def of(self, v: Value) -> Buffer:
        """Where a stored value lies."""
        if v.data is not None:
            return self.constant(v.name, v.data, v.tensor)
        return self.place[id(v)]

    def constant(self, name: str, data: Array | Recipe, t: TensorType) -> Buffer:
        if id(data) not in self.consts:
            b = self.buffer(name, "const", t)
            b.data = data
            self.consts[id(data)] = b
            self.keep.append(data)
        return self.consts[id(data)]

    # -- one graph ---------------------------------------------------------------------------

    def block(self, graph: Graph, targets: Sequence[Buffer | None]) -> list[AnyStep]:
        """Steps of a graph; targets: where its outputs must end up (None: anywhere)."""
        updates = [s.update for s in graph.states if s.update is not None]
        low = Lowerings(graph, [*graph.outputs, *updates], self.kernels)
        self.keep.append(low)
        self._give_homes(graph, low, targets)
        steps: list[AnyStep] = []
        for n in graph.nodes:
            steps += self._node(n, low)
        for v, b in zip(graph.outputs, targets, strict=True):
            if b is not None and (v.data is not None or self.place.get(id(v)) is not b):
                steps.append(self.copy(v, b))
        for s in graph.states:
            if s.update is not None and self.of(s.update) is not self.of(s.value):
                steps.append(self.copy(s.update, self.of(s.value)))
        return steps

    def _give_homes(self, g: Graph, low: Lowerings, targets: Sequence[Buffer | None]) -> None:
        """Let what is computed for an output be computed into it."""
        own = {id(v) for n in g.nodes for v in n.outputs}
        for v, b in zip(g.outputs, targets, strict=True):
            r = self._root(v, low)
            if b is None or id(r) in self.place or id(r) not in own or r.tensor.layout:
                continue
            if r.dtype is v.dtype and r.producer is not None and not r.producer.regions:
                self.place[id(r)] = b

    def _root(self, v: Value, low: Lowerings) -> Value:
        while low.is_alias(v) and id(v) not in low.inlined:
            inner = low.alias_input(v)
            if inner.is_const or id(inner) in low.inlined or inner.tensor.layout:
                return v
            if inner.producer is None:
                return v
            v = inner
        return v

    def _node(self, n: Node, low: Lowerings) -> list[AnyStep]:
        if n.regions:
            return self._region(n)
        lowered = low.lowered[id(n)]
        if isinstance(lowered, Code):
            return [self._code(n, lowered, low.lowering[id(n)])]
        if isinstance(lowered, Pieces):
            return self._pieces(n, lowered, low)
        steps: list[AnyStep] = []
        for v in n.outputs:
            if id(v) in low.inlined or id(v) not in low.exprs:
                continue
            if low.is_alias(v):
                steps += self._alias(v, low)
            elif v.uses or id(v) in low.forced:
                home = self.home(v, low)
                steps.append(self.store(v, home, low.exprs[id(v)], n.origin, n, low=low))
        return steps

    def _alias(self, v: Value, low: Lowerings) -> list[AnyStep]:
        x = low.alias_input(v)
        if id(x) not in low.inlined and not x.is_const and id(x) in self.place:
            at = self.place[id(x)]
            mine = self.place.get(id(v))
            if not x.tensor.layout and (mine is None or mine is at):
                self.place[id(v)] = at
                return []
        n = v.producer
        assert n is not None
        return [self.store(v, self.home(v, low), low.exprs[id(v)], n.origin, n, low=low)]

    def home(self, v: Value, low: Lowerings) -> Buffer:
        """The buffer that v is to be computed into."""
        if id(v) not in self.place:
            self.place[id(v)] = self._part_of_concat(v, low) or self.buffer(
                v.name, "arena", v.tensor
            )
        return self.place[id(v)]

    def _part_of_concat(self, v: Value, low: Lowerings) -> Buffer | None:
        """A share of the buffer of the concatenation that v is a part of, where it is one run."""
        for n in v.uses:
            p = low.lowered.get(id(n))
            if not isinstance(p, Pieces) or sum(u is v for u in n.inputs) != 1:
                continue
            y = n.outputs[0]
            outer = dims.product(y.shape[: p.axis])
            start = self._start_of(v, n, p)
            if outer != 1 or start is None or y.tensor.memory is not v.tensor.memory:
                continue
            block = y.tensor.layout
            if block != v.tensor.layout or (block and (p.axis != 1 or dims.mod(start, block) != 0)):
                continue
            inner = dims.product(y.shape[p.axis + 1 :])
            offset = dims.mul(start, inner)
            if not isinstance(offset, int) or not v.tensor.static:
                continue
            whole = self.home(y, low)
            if whole.kind != "arena":
                continue
            b = self.buffer(v.name, "arena", v.tensor)
            b.parent, b.offset = whole, offset * v.tensor.memory.bytes
            return b
        return None

    def _start_of(self, v: Value, n: Node, p: Pieces) -> Dim | None:
        """Where v begins in the concatenation n, if it is a whole part of it as it is."""
        if len(n.inputs) != len(p.parts):
            return None
        k = next(i for i, u in enumerate(n.inputs) if u is v)
        start, part = p.parts[k]
        return start if part.shape == v.shape else None

    def _pieces(self, n: Node, p: Pieces, low: Lowerings) -> list[AnyStep]:
        y = n.outputs[0]
        whole = self.home(y, low)
        steps: list[AnyStep] = []
        for k, (start, part) in enumerate(p.parts):
            u = n.inputs[k] if len(n.inputs) == len(p.parts) else None
            mine = None if u is None else self.place.get(id(u))
            if mine is not None and mine.parent is whole and mine.type.shape == part.shape:
                continue
            at = [0] * p.axis + [start] + [0] * (len(y.shape) - p.axis - 1)
            first = u if u is not None and id(u) in low.inlined else None
            steps.append(self.store(y, whole, part, n.origin, n, at, low, first))
        return steps

    # -- steps -------------------------------------------------------------------------------

    def store(
        self,
        out: Value,
        at: Buffer,
        expr: TensorExpr,
        origin: Origin,
        node: Node,
        start: Sequence[Dim] | None = None,
        low: Lowerings | None = None,
        first: Value | None = None,
    ) -> Step:
        """A step that computes `expr` into a buffer. `first`: the one input that it computes."""
        _, index = generic_index(expr.shape)
        tree = list(walk(expr(*index)))
        expr._cache.clear()
        absorbed = _absorbed(node, low, first) if low is not None else [node]
        for inner in absorbed:
            origin = inner.origin | origin
        kernel_nodes = {id(s.node): s.node for s in tree if isinstance(s, Acc)}
        choice: Choice | None = None
        if kernel_nodes:
            (knode,) = kernel_nodes.values()
            choice = self.kernels.find(knode)
        reads = list({id(s.value): s.value for s in tree if isinstance(s, Load)}.values())
        draft = Draft(out, expr, start, reads, choice=choice)
        draft.agreements = _agreements(absorbed)
        if choice is not None:
            draft.reads = list({id(v): v for v in (*choice.reads, *reads)}.values())
        step = self.step(draft, [self.of(v) for v in draft.reads], [at], origin, node)
        step.macs = sum(inner.op.macs(inner) for inner in absorbed)
        heavy = max(absorbed, key=lambda inner: inner.op.macs(inner))
        if step.macs:
            step.op = heavy.op.name
        if choice is not None:
            step.algorithm, step.next_best = choice.name, choice.next_best
            step.tuned = choice.seconds > 0
        return step

    def copy(self, v: Value, to: Buffer) -> Step:
        out = Value(to.name, replace(to.type, shape=v.shape))
        self.keep.append(out)
        origin = v.producer.origin if v.producer is not None else Origin()
        node = v.producer
        draft = Draft(out, stored(v), None, [] if _is_literal(v) else [v])
        step = self.step(draft, [self.of(u) for u in draft.reads], [to], origin, node)
        step.op, step.macs = "Copy", 0
        return step

    def _code(self, n: Node, code: Code, k: Lowering) -> Step:
        outs = [self.place.get(id(v)) or self._new_home(v) for v in n.outputs]
        ins = [v for v in n.inputs if v is not None]
        draft = Draft(n.outputs[0], None, None, ins, code=code, lowering=k, node=n)
        draft.scratch = self._scratch(n.outputs[0].name, dims.upper(code.scratch))
        draft.agreements = _agreements([n])
        self.found += k.written.values()
        return self.step(draft, [self.of(v) for v in ins], outs, n.origin, n)

    def _scratch(self, name: str, size: int) -> Buffer | None:
        """Memory that a step needs while it runs."""
        if not size:
            return None
        return self.buffer(f"{name}.scratch", "arena", TensorType((size,), dtypes.u8))

    def _new_home(self, v: Value) -> Buffer:
        b = self.place[id(v)] = self.buffer(v.name, "arena", v.tensor)
        return b

    def step(
        self,
        draft: Draft,
        reads: Iterable[Buffer],
        writes: Iterable[Buffer],
        origin: Origin,
        node: Node | None,
    ) -> Step:
        """A step that is made of a draft, with the constants and the scratch memory of its
        kernel; `render` writes it."""
        draft.ins, draft.outs = list(reads), list(writes)
        if draft.choice is not None:
            for k, a in enumerate(draft.choice.packed()):
                t = TensorType(a.shape, dtypes.of(a.dtype))
                kept = a if a.nbytes < HELD else _again(draft.choice, k, a.shape)
                draft.packed.append(self.constant(f"{draft.out.name}.packed{k}", kept, t))
            draft.scratch = self._scratch(draft.out.name, draft.choice.scratch)
        own = () if draft.scratch is None else (draft.scratch,)
        s = Step(
            EMPTY, (), (), (), (*draft.ins, *draft.packed), (*draft.outs, *own), origin,
            "Copy" if node is None else node.op.name, 0 if node is None else node.op.macs(node),
        )  # fmt: skip
        self.drafts[id(s)] = draft
        return s

    # -- regions -----------------------------------------------------------------------------

    def _region(self, n: Node) -> list[AnyStep]:
        from onefold.plan.regions import assemble_region

        return assemble_region(self, n)

    def render(self, program: Program) -> None:
        """Write the kernels, once it is known which buffers are one."""
        self._render(program)
        settle(list(program.flat()), self.kernels.options.goal == "size")

    def _render(self, program: Program) -> None:
        threads = self.kernels.options.threads
        for s in program.flat():
            render(s, self.drafts[id(s)], threads)
        if threads == 1:
            return
        total = sum(cycles(self.drafts[id(s)]) for s in program.flat())
        shared = [s for s in program.flat() if s.kernel.split]
        cost = sum(cycles(self.drafts[id(s)]) for s in shared)
        if pays(cost, total, 2 * len(shared), threads):
            program.threads = threads
            return
        program.notes.append(f"runs on one thread: {threads} would not pay")
        for s in shared:
            render(s, self.drafts[id(s)])


def _agreements(nodes: Iterable[Node]) -> list[tuple[Dim, Dim]]:
    return list(dict.fromkeys(p for n in nodes for p in n.op.agreements(n)))


def _absorbed(node: Node, low: Lowerings, first: Value | None) -> list[Node]:
    """The nodes that a step computes: the node itself and what it computes on the way."""
    seen: dict[int, Node] = {id(node): node}
    waiting = [first] if first is not None else list(node.present())
    if first is None and isinstance(low.lowered.get(id(node)), Pieces):
        waiting = []
    while waiting:
        v = waiting.pop()
        n = v.producer
        if n is not None and id(v) in low.inlined and id(n) not in seen:
            seen[id(n)] = n
            waiting += list(n.present())
    return list(seen.values())


def _again(choice: Choice, k: int, shape: tuple[int, ...]) -> Recipe:
    return Recipe(lambda: choice.packed()[k], shape)


def _is_literal(v: Value) -> bool:
    return v.data is not None and v.data.size == 1


def assemble(graph: Graph, kernels: KernelChoice) -> tuple[Program, Assembler]:
    """The program of a graph, its buffers not yet placed and its kernels not yet written."""
    a = Assembler(kernels)
    inputs = []
    for k, v in enumerate(graph.inputs):
        b = a.place[id(v)] = a.buffer(v.name, "input", v.tensor, k)
        inputs.append(Port(v.name, v.tensor, b))
    states = []
    for k, s in enumerate(graph.states):
        b = a.place[id(s.value)] = a.buffer(s.name, "state", s.value.tensor, k)
        states.append((s.name, b, s.initial))
    outs: list[Buffer | None] = [
        a.buffer(v.name, "output", v.tensor, k) for k, v in enumerate(graph.outputs)
    ]
    steps = a.block(graph, outs)
    outputs = [
        Port(v.name, v.tensor, b) for v, b in zip(graph.outputs, outs, strict=True) if b is not None
    ]
    given = {
        s.name: s for v in [*graph.inputs, *(s.value for s in graph.states)]
        for d in v.shape for s in dims.symbols(d)
    }  # fmt: skip
    program = Program(
        graph.name, graph, inputs, outputs, states, steps, list(given.values()), a.found, a.buffers
    )
    return program, a
