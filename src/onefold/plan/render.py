"""Drafts of steps, and how they become kernels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from onefold.codegen.family import Choice, Rendering
from onefold.codegen.loops import (
    address,
    canonical,
    nest,
    padded_channels,
    places_in,
    unused_lanes,
)
from onefold.codegen.team import HEADER, Team, parts_for
from onefold.codegen.text import Scope, Writer, dim_text, rounded, simd
from onefold.ir import dims
from onefold.ir.dims import Dim, Sym
from onefold.ir.graph import Node, Value
from onefold.ir.scalar import TensorExpr, counter, index_of
from onefold.ops.base import Code, Lowering, turns
from onefold.plan.program import Buffer, Kernel, Param, Step
from onefold.plan.schedule import element_cost


@dataclass
class Draft:
    """What a step will be made of."""

    out: Value
    expr: TensorExpr | None
    start: Sequence[Dim] | None
    reads: list[Value]
    choice: Choice | None = None
    code: Code | None = None
    lowering: Lowering | None = None
    node: Node | None = None
    ins: list[Buffer] = field(default_factory=list)
    outs: list[Buffer] = field(default_factory=list)
    packed: list[Buffer] = field(default_factory=list)
    scratch: Buffer | None = None
    agreements: Sequence[tuple[Dim, Dim]] = ()  # extents that must be equal, else the step stops


class Pointers:
    """C parameters for buffers: one pointer for each place in memory, so that a step which works
    in place names that memory once and every pointer may be `restrict`."""

    def __init__(self, writes: Sequence[Buffer]) -> None:
        self.written = {self._where(b) for b in writes}
        self.names: dict[tuple[int, int], str] = {}
        self.args: list[Buffer] = []
        self.params: list[Param] = []

    @staticmethod
    def _where(b: Buffer) -> tuple[int, int]:
        return id(b.root), b.start

    def name(self, b: Buffer, ctype: str, hint: str) -> str:
        where = self._where(b)
        if where not in self.names:
            name = f"{hint}{sum(p.name.startswith(hint) for p in self.params)}"
            self.names[where] = name
            self.args.append(b)
            self.params.append(Param(name, ctype, where not in self.written))
        return self.names[where]


LANES = 4  # elements that a loop nest computes at once, on average: not all are vectorised
CODE = 2  # cycles for an element of the result of a `Code`, if it may be split


def cycles(draft: Draft) -> float:
    """An estimate of how long a step takes on one thread."""
    if draft.choice is not None:
        return draft.choice.cost
    if draft.code is not None:
        macs = 0 if draft.node is None else draft.node.op.macs(draft.node)
        return max(CODE * dims.upper(draft.out.tensor.size), macs / LANES)
    assert draft.expr is not None
    size = dims.upper(dims.product(draft.expr.shape))
    return size * max(element_cost(draft.expr), 1.0) / LANES


def render(step: Step, draft: Draft, threads: int = 1) -> None:
    """Give the step its kernel and arguments; so many threads may share its work."""
    team = Team(parts_for(cycles(draft), threads))
    if draft.code is not None:
        _render_code(step, draft, team)
    elif draft.choice is not None:
        _render_choice(step, draft, team)
    else:
        _render_nest(step, draft, team)
    if team.used:
        k = step.kernel
        includes = (*k.includes, HEADER)
        step.kernel = replace(k, split=True, shares=team.shares(), includes=includes)


def _finish(
    step: Step, draft: Draft, p: Pointers, symbols: Sequence[Sym], body: str,
    includes: tuple[str, ...], stops: bool,
) -> None:  # fmt: skip
    step.sizes, checks = _checked(draft, symbols)
    body = checks + body
    step.kernel = Kernel(
        tuple(p.params), tuple(s.name for s in step.sizes), (), body, includes,
        stops or bool(draft.agreements),
    )  # fmt: skip
    step.args, step.outs = tuple(p.args), ()


def _checked(draft: Draft, symbols: Iterable[Sym]) -> tuple[tuple[Sym, ...], str]:
    """All sizes that the step takes, and the text that stops it where its extents do not agree."""
    known = {s.name: s for s in symbols}
    text = ""
    for a, b in draft.agreements:
        known.update({s.name: s for d in (a, b) for s in dims.symbols(d)})
        text += f"if ({dim_text(a)} != {dim_text(b)}) OF_STOP(OF_BAD_SHAPE);\n"
    return tuple(known[k] for k in sorted(known)), text


def _names(draft: Draft, p: Pointers) -> dict[int, str]:
    names = {id(draft.out): p.name(draft.outs[0], draft.out.tensor.memory.ctype, "y")}
    for v, b in zip(draft.reads, draft.ins, strict=True):
        names[id(v)] = p.name(b, v.tensor.memory.ctype, "x")
    return names


def _render_nest(step: Step, draft: Draft, team: Team) -> None:
    assert draft.expr is not None
    p = Pointers(step.writes)
    names = _names(draft, p)
    n = nest(draft.out, draft.expr, names, draft.start, team)
    draft.expr._cache.clear()
    _finish(step, draft, p, n.symbols, "\n".join(n.lines), (), n.checked)


def _render_choice(step: Step, draft: Draft, team: Team) -> None:
    choice, expr = draft.choice, draft.expr
    assert choice is not None and expr is not None
    p = Pointers(step.writes)
    names = _names(draft, p)
    symbols: dict[str, Sym] = {}
    checked = False

    def note(found: Iterable[Sym]) -> None:  # counters are the kernel's own
        symbols.update({s.name: s for s in found if s.extent is None})

    def where(index: Sequence[Dim]) -> Dim:
        at = list(index)
        if draft.start is not None:
            at = [dims.add(i, s) for i, s in zip(at, draft.start, strict=True)]
        place = address(draft.out.tensor, at)
        team.note(names[id(draft.out)], place)
        return place

    find = places_in(names)

    def places(v: Value, index: Sequence[Dim]) -> tuple[str, Dim]:
        name, place = find(v, index)
        team.note(name, place)
        return name, place

    def store(index: Sequence[Dim], acc: str) -> list[str]:
        nonlocal checked
        w = Writer(places, acc)
        value = expr(*index)
        w.count_uses(value)
        scope = Scope()
        text = w.value(value, scope)
        target = w.index(where(index), scope)
        note(w.symbols.values())
        checked |= w.checked
        return [*scope.lines, f"{names[id(draft.out)]}[{target}] = "
                f"{rounded(text, draft.out.tensor)};"]  # fmt: skip

    def dim(d: Dim) -> str:
        note(dims.symbols(d))
        return dim_text(d)

    streams: list[tuple[str, bool]] = []

    def following(weights: str, by_parts: bool) -> str:
        streams.append((weights, by_parts))
        return "next"

    kernel_ptrs = [names[id(v)] for v in choice.reads]
    for b in draft.packed:
        kernel_ptrs.append(p.name(b, b.type.dtype.ctype, "w"))
    if draft.scratch is not None:
        kernel_ptrs.append(p.name(draft.scratch, "uint8_t", "s"))
    t = draft.out.tensor
    blocked = t.layout > 0 and padded_channels(t) != t.shape[1]
    # A kernel clears the lanes behind its own channels: those of the whole result, not of a part.
    fills = blocked and choice.blocks and draft.start is None
    body = choice.render(
        Rendering(
            tuple(kernel_ptrs), names[id(draft.out)], store, dim, where,
            fills, team, simd(draft.out.tensor), following,
        )
    )
    if blocked and not fills:
        helped = team if team.used else Team()
        rest = unused_lanes(draft.out, expr.shape, names, draft.start, helped)
        note(rest.symbols)
        body = "\n".join([body, *rest.lines])
    body = "\n".join(canonical(body.split("\n")))
    expr._cache.clear()
    _finish(step, draft, p, list(symbols.values()), body, choice.includes, checked)
    if streams:
        step.kernel = replace(step.kernel, streams=streams[0])


def _render_code(step: Step, draft: Draft, team: Team) -> None:
    code, k, node = draft.code, draft.lowering, draft.node
    assert code is not None and k is not None and node is not None
    params: list[Param] = []
    args: list[Buffer] = []
    shared = {id(b.root) for b in draft.outs} & {id(b.root) for b in draft.ins}

    def add(name: str, b: Buffer, ctype: str, const: bool) -> None:
        params.append(Param(name, ctype + ("" if id(b.root) not in shared else " "), const))
        args.append(b)

    ins = iter(draft.ins)
    for i, v in enumerate(node.inputs):
        if v is not None:
            add(f"x{i}", next(ins), v.dtype.ctype, True)
    for i, v in enumerate(node.outputs):
        add(f"y{i}", draft.outs[i], v.dtype.ctype, False)
    if draft.scratch is not None:
        add("s", draft.scratch, "uint8_t", False)
    text = code.text.strip("\n")
    if code.turns and team.parts > 1:
        head, tail = text.split(turns("0", code.turns))
        text = f"{_shared_turns(node, code, team)}\n{head}{turns('from', 'to')}{tail}"
    step.sizes, checks = _checked(draft, k.symbols.values())
    step.kernel = Kernel(
        tuple(params), tuple(s.name for s in step.sizes), tuple(sorted(k.written)), checks + text,
        code.includes, code.stops or bool(checks),
    )  # fmt: skip
    step.args = tuple(args)
    step.outs = tuple(k.written[s] for s in sorted(k.written))


def _shared_turns(node: Node, code: Code, team: Team) -> str:
    """The statement that shares the turns of a step among threads."""
    if not code.turns.isdecimal():
        return team.bounds(code.turns)
    n = int(code.turns)
    turn = counter(n, "o")
    for k, i in code.inplace:
        for name, v in ((f"y{k}", node.outputs[k]), (f"x{i}", node.arg(i))):
            own = dims.floordiv(v.tensor.size, n)
            place = dims.mul(index_of(turn), own)
            team.note(name, dims.add(place, index_of(counter(own, "i"))))
    return team.bounds(code.turns, unit=(turn, n))
