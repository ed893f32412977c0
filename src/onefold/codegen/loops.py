"""From a tensor expression to a C loop nest that stores it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from onefold.codegen.team import Team, evenness, is_even
from onefold.codegen.text import Scope, Writer, braced, initial, loop, rounded, simd, update
from onefold.ir import dims
from onefold.ir.dims import Dim, Sym
from onefold.ir.graph import Value
from onefold.ir.scalar import (
    Const,
    Load,
    Reduce,
    Scalar,
    Select,
    TensorExpr,
    counter,
    index_of,
    walk,
)
from onefold.ir.types import TensorType

SIMD = "OF_SIMD"
SHORT = "OF_SHORT"
SHORT_LIMIT = range(5, 100)
LANE_LIMIT = 64  # sums that are made at once
BLOCK_LIMIT = 2048  # where they are a block of channels
CUT = 16  # elements that lie next to each other are shared in multiples of so many


def padded_channels(t: TensorType) -> Dim:
    """Channels as stored: a blocked layout fills the last block."""
    return dims.mul(dims.ceildiv(t.shape[1], t.layout), t.layout) if t.layout else t.shape[1]


def address(t: TensorType, index: Sequence[Dim]) -> Dim:
    """Position, in elements, of an index in the memory of a tensor of this type."""
    if not t.layout:
        return dims.linear(index, t.shape)
    c = t.layout
    n, ch, rest = index[0], index[1], tuple(index[2:])
    blocks = dims.ceildiv(t.shape[1], c)
    outer = (n, dims.floordiv(ch, c), *rest, dims.mod(ch, c))
    return dims.linear(outer, (t.shape[0], blocks, *t.shape[2:], c))


def stored_size(t: TensorType) -> Dim:
    """Elements that the tensor takes in memory."""
    if not t.layout:
        return t.size
    return dims.product((t.shape[0], padded_channels(t), *t.shape[2:]))


@dataclass(frozen=True, slots=True)
class Nest:
    """A loop nest as text, with what it refers to."""

    lines: tuple[str, ...]
    symbols: tuple[Sym, ...]  # dimensions, by name
    checked: bool
    split: bool = False  # among threads


@dataclass(frozen=True, slots=True)
class Part:
    """Loops over a part of a tensor: counters, outermost first, and the index that they stand
    for; `used` is False for lanes of a channel block that hold no channel and are set to zero."""

    counters: list[Sym]
    index: tuple[Dim, ...]
    used: bool = True


def parts_of(
    out: TensorType, shape: Sequence[Dim], start: Sequence[Dim] | None, read: int = 0
) -> list[Part]:
    """Loops that together write `shape` elements of `out` from `start` on, in the order of its
    memory; channel blocks are entered by whole blocks and by what is left before and after.
    read: blocks of what is read, which rule where a channel has one element only."""
    first = 0 if start is None else start[1] if len(start) > 1 else 0
    if read and not out.layout and start is None and out.rank > 2 and isinstance(shape[1], int):
        if all(d == 1 for d in shape[2:]):
            spans = [(0, shape[1] // read, read), (shape[1] // read * read, 1, shape[1] % read)]
            return [_span(shape, a, n, lanes, read) for a, n, lanes in spans if n and lanes]
    total = out.shape[1] if out.layout else 0
    if not out.layout or not isinstance(total, int) or not isinstance(first, int):
        cs = [counter(n, "i") for n in shape]
        idx = tuple(0 if n == 1 else dims.atom(c) for c, n in zip(cs, shape, strict=True))
        return [Part(cs, idx)]
    channels, c = shape[1], out.layout
    assert isinstance(channels, int)
    head = min(-first % c, channels)
    blocks, tail = divmod(channels - head, c)
    spans = [(0, 1, head), (head, blocks, c), (head + blocks * c, 1, tail)]
    parts = [_span(shape, a, n, lanes, c) for a, n, lanes in spans if n and lanes]
    if first + channels == total and total % c:
        last = _span(shape, channels, 1, -total % c, c)
        parts.append(Part(last.counters, last.index, False))
    return parts


def _span(shape: Sequence[Dim], first: int, blocks: int, lanes: int, c: int) -> Part:
    """Loops over `blocks` blocks of channels from `first` on, `lanes` of each."""
    block, lane = counter(blocks, "i"), counter(lanes, "i")
    outer = [counter(n, "i") for n in (shape[0], *shape[2:])]
    at = [index_of(o) for o in (*outer, block, lane)]
    ch = dims.add(dims.add(dims.mul(at[-2], c), at[-1]), first)
    return Part([outer[0], block, *outer[1:], lane], (at[0], ch, *at[1:-2]))


def merge_counters(
    counters: Sequence[Sym], places: Sequence[Dim]
) -> tuple[list[Sym], dict[Sym, Dim]]:
    """The loops to write, and what the old counters are in terms of them.

    Neighbouring counters that every place walks as one become one counter.
    """
    groups: list[list[Sym]] = []
    sizes: list[Dim] = []
    for c in reversed([c for c in counters if c.extent != 1]):
        if groups and all(_joins(p, c, groups[-1], sizes[-1]) for p in places):
            groups[-1].insert(0, c)
            sizes[-1] = dims.mul(_extent(c), sizes[-1])
        else:
            groups.append([c])
            sizes.append(_extent(c))
    loops: list[Sym] = []
    env: dict[Sym, Dim] = {}
    for cs, size in zip(reversed(groups), reversed(sizes), strict=True):
        if len(cs) == 1:
            loops.append(cs[0])
            continue
        joint = counter(size, "i")
        loops.append(joint)
        env.update(zip(cs, dims.unravel(dims.atom(joint), [_extent(c) for c in cs]), strict=True))
    return loops, env


def _extent(c: Sym) -> Dim:
    return 1 if c.extent is None else c.extent


def _joins(place: Dim, outer: Sym, inner: Sequence[Sym], size: Dim) -> bool:
    a = dims.coefficient(place, outer)
    last = dims.coefficient(place, inner[-1])
    return a is not None and last is not None and a == dims.mul(last, size)


def nest(
    out: Value,
    expr: TensorExpr,
    names: dict[int, str],
    start: Sequence[Dim] | None = None,
    team: Team | None = None,
) -> Nest:
    """Loops that store `expr` into `out`, beginning at index `start` of it (for pieces).

    names: id of value -> C pointer name. The values' types give the memory layouts. team: the
    threads that share the loops.
    """
    team = team or Team()
    parts = parts_of(out.tensor, expr.shape, start, _block_read(expr))
    nests = [_loops(out, expr if p.used else None, names, start, p, team) for p in parts]
    symbols = {s.name: s for n in nests for s in n.symbols}
    split = any(n.split for n in nests)
    lines = list(nests[0].lines) if len(nests) == 1 else _one_after_another(nests, split)
    checked = any(n.checked for n in nests)
    found = tuple(symbols[n] for n in sorted(symbols))
    return Nest(tuple(canonical(lines)), found, checked)


def _one_after_another(nests: Sequence[Nest], split: bool) -> list[str]:
    """Loop nests of one step; split: threads share it, and one of them runs those nests that are
    not split themselves."""
    lines: list[str] = []
    for n in nests:
        alone = split and not n.split
        lines += braced(n.lines, "if (me.part == 0)" if alone else "")
    return lines


def unused_lanes(
    out: Value, shape: Sequence[Dim], names: dict[int, str], start: Sequence[Dim] | None,
    team: Team,
) -> Nest:  # fmt: skip
    """Loops that set to zero the lanes of channel blocks that hold no channel; team: the threads
    that share the kernel before."""
    lanes = [p for p in parts_of(out.tensor, shape, start) if not p.used]
    nests = [_loops(out, None, names, start, p, team) for p in lanes]
    symbols = {s.name: s for n in nests for s in n.symbols}
    lines = [line for n in nests for line in n.lines]
    if team.parts > 1:
        lines = _one_after_another(nests, True)
    return Nest(tuple(lines), tuple(symbols.values()), False)


def _loops(
    out: Value, expr: TensorExpr | None, names: dict[int, str], start: Sequence[Dim] | None,
    part: Part, team: Team,
) -> Nest:  # fmt: skip
    """One loop nest; no expression means zeros."""

    def target(idx: Sequence[Dim]) -> Dim:
        at = idx if start is None else tuple(map(dims.add, idx, start))
        return address(out.tensor, at)

    def element(idx: Sequence[Dim]) -> Scalar:
        return Const(0, out.dtype.compute) if expr is None else expr(*idx)

    index = part.index
    value = element(index)
    loops, env = merge_counters(part.counters, [target(index), *_places(value)])
    if env:
        index = tuple(dims.substitute(i, env) for i in index)
        value = element(index)
    writer = Writer(places_in(names))
    writer.count_uses(value)
    scope = Scope()
    blocks = () if expr is None else (out.tensor.layout, _block_read(expr))
    limit = BLOCK_LIMIT if loops and loops[-1].extent in blocks else LANE_LIMIT
    lanes = lane_sums(value, loops[-1], writer, scope, limit) if loops else []
    text = writer.value(value, scope)
    if team.parts > 1:  # also where this nest is not shared: then these are nobody's own
        for name, place in [(names[id(out)], target(index)), *_read(value, names)]:
            team.note(name, place)
    store = f"{names[id(out)]}[{writer.index(target(index), scope)}] = "
    body = [*scope.lines, store + rounded(text, out.tensor) + ";"]
    shared = shared_loop(loops[:-1] if lanes else loops, team.parts)
    bounds: list[str] = []
    for k, c in enumerate(reversed(loops)):
        extent = writer.index(_extent(c), scope)
        if c is shared:
            bounds = [team.bounds(extent, CUT if k == 0 else 1, unit=(c, _extent(c)))]
        body = loop(c.name, "to", body, "from") if c is shared else loop(c.name, extent, body)
        if k == 0:
            by_lane = bool(lanes) or (out.tensor.layout > 0 and c is part.counters[-1])
            by_lane |= out.tensor.rounded is not None
            if by_lane:
                body = [simd(out.tensor), *body]
            elif _short(c, value, target(index)):
                body = [SHORT, *body]
            body = [*lanes, *body]
    body = [*bounds, *body]
    bound = {c.name for c in loops} | _reduce_counters(value)
    symbols = tuple(s for n, s in sorted(writer.symbols.items()) if n not in bound)
    return Nest(tuple(body), symbols, writer.checked, shared is not None)


def shared_loop(loops: Sequence[Sym], parts: int) -> Sym | None:
    """The loop whose turns threads share: the outermost one that gives all of them work."""
    if parts == 1 or not loops:
        return None
    even = [c for c in loops if is_even(_extent(c), parts)]
    return even[0] if even else max(loops, key=lambda c: evenness(_extent(c), parts))


def lane_sums(
    value: Scalar, lane: Sym, writer: Writer, scope: Scope, limit: int = LANE_LIMIT
) -> list[str]:
    """Statements that reduce for all values of the innermost counter at once, where its extent is
    small and the elements lie next to each other: arrays of sums, whose loops over the counter
    become vector operations. Empty where that is not so; else the sums have names in `scope`."""
    extent = lane.extent
    if not isinstance(extent, int) or not 4 <= extent <= limit:
        return []
    found = [s for s in _outer_reduces(value) if lane in s.index_symbols()]
    if not found or not all(_by_lane(s, lane) and not _divides(s) for s in found):
        return []
    lines: list[str] = []
    for s in found:
        name = writer.fresh("a")
        lines.append(f"{s.dtype.ctype} {name}[{extent}];")
        lines += [SIMD, *loop(lane.name, str(extent), [f"{name}[{lane.name}] = {initial(s)};"])]
        inner = Scope()
        text = writer.value(s.body, inner)
        body = [*inner.lines, update(s, f"{name}[{lane.name}]", text)]
        body = [SIMD, *loop(lane.name, str(extent), body)]
        for c in reversed(s.counters):
            body = loop(c.name, writer.index(_extent(c), Scope()), body)
        lines += body
        scope.names[id(s)] = f"{name}[{lane.name}]"
    return lines


def _outer_reduces(value: Scalar) -> list[Reduce]:
    """Reductions that lie in no other one."""
    out: dict[int, Reduce] = {}
    stack = [value]
    seen: set[int] = set()
    while stack:
        s = stack.pop()
        if id(s) in seen:
            continue
        seen.add(id(s))
        if isinstance(s, Reduce):
            out[id(s)] = s
        else:
            stack.extend(s.parts())
    return list(out.values())


def _by_lane(s: Reduce, lane: Sym) -> bool:
    """Whether the reduction walks memory along the lanes and holds nothing that stands in the
    way of vectors."""
    steps = []
    for part in walk(s.body):
        if isinstance(part, Reduce):
            return False
        if isinstance(part, Load):
            steps.append(dims.coefficient(address(part.value.tensor, part.index), lane))
    return all(d in (0, 1) for d in steps) and 1 in steps


def _short(lane: Sym, value: Scalar, to: Dim) -> bool:
    """Whether the innermost loop is one of few elements that do not fill vectors, next to each
    other in all that it reads and writes: what is left over then takes most of the time."""
    extent = lane.extent
    if not isinstance(extent, int) or extent not in SHORT_LIMIT or extent % 16 == 0:
        return False
    steps = [dims.coefficient(to, lane)]
    for part in walk(value):
        if isinstance(part, Reduce | Select):
            return False
        if isinstance(part, Load):
            steps.append(dims.coefficient(address(part.value.tensor, part.index), lane))
    return steps[0] == 1 and all(d in (0, 1) for d in steps)


def _divides(s: Reduce) -> bool:
    """Whether what is read under a condition lies at a place with a division by an open size:
    Clang 22 takes that division from the first lane, also where the condition hides it, and so
    gives wrong addresses to all."""
    pairs = (a for part in walk(s.body) if isinstance(part, Select)
             for load in walk(part) if isinstance(load, Load)
             for a in dims.atoms(address(load.value.tensor, load.index))
             if isinstance(a, dims.Pair))  # fmt: skip
    return any(a.op in ("//", "%") and not isinstance(a.b, int) for a in pairs)


def _block_read(expr: TensorExpr) -> int:
    """The channel blocks of what an expression reads; 0 where it reads none."""
    index = [0 if n == 1 else dims.atom(counter(n)) for n in expr.shape]
    value = expr(*index)
    expr._cache.clear()
    return max((s.value.tensor.layout for s in walk(value) if isinstance(s, Load)), default=0)


def places_in(names: Mapping[int, str]) -> Callable[[Value, Sequence[Dim]], tuple[str, Dim]]:
    """Where elements lie; names: id of value -> C pointer name."""
    return lambda v, index: (names[id(v)], address(v.tensor, index))


def canonical(lines: Sequence[str]) -> list[str]:
    """Counters renamed i0, i1, ... in order of appearance: equal loops become equal text."""
    order: dict[str, str] = {}

    def rename(m: re.Match[str]) -> str:
        return order.setdefault(m[0], f"i{len(order)}")

    return [re.sub(r"\b[ir]\d+\b", rename, line) for line in lines]


def _read(value: Scalar, names: Mapping[int, str]) -> list[tuple[str, Dim]]:
    """Which pointers are read, and where."""
    find = places_in(names)
    return [find(s.value, s.index) for s in walk(value) if isinstance(s, Load)]


def _places(value: Scalar) -> list[Dim]:
    out: list[Dim] = []
    for s in walk(value):
        if isinstance(s, Load):
            out.append(address(s.value.tensor, s.index))
        else:
            out.extend(s.indices())
    return out


def _reduce_counters(value: Scalar) -> set[str]:
    return {c.name for s in walk(value) if isinstance(s, Reduce) for c in s.counters}
