"""From a tensor expression to a C loop nest that stores it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onefold.codegen.text import Scope, Writer, dim_text, loop, to_storage
from onefold.ir import dims
from onefold.ir.dims import Dim, Sym
from onefold.ir.graph import Value
from onefold.ir.scalar import Load, Reduce, Scalar, TensorExpr, counter, walk
from onefold.ir.types import TensorType


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


def loop_counters(t: TensorType) -> tuple[list[Sym], tuple[Dim, ...]]:
    """Counters over a tensor in the order of its memory, and the logical index they stand for."""
    if not t.layout:
        cs = [counter(n, "i") for n in t.shape]
        return cs, tuple(0 if n == 1 else dims.atom(c) for c, n in zip(cs, t.shape, strict=True))
    c = t.layout
    blocks = counter(dims.ceildiv(t.shape[1], c), "i")
    lane = counter(c, "i")
    outer = [counter(n, "i") for n in (t.shape[0], *t.shape[2:])]
    ch = dims.add(dims.mul(dims.atom(blocks), c), dims.atom(lane))
    idx = (dims.atom(outer[0]), ch, *[dims.atom(o) for o in outer[1:]])
    return [outer[0], blocks, *outer[1:], lane], idx


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
) -> Nest:
    """Loops that store `expr` into `out`, beginning at index `start` of it (for pieces).

    names: id of value -> C pointer name. The values' types give the memory layouts.
    """
    part = TensorType(expr.shape, out.dtype, None, out.tensor.layout if start is None else 0)
    counters, index = loop_counters(part)

    def target(idx: Sequence[Dim]) -> Dim:
        at = idx if start is None else tuple(map(dims.add, idx, start))
        return address(out.tensor, at)

    value = expr(*index)
    loops, env = merge_counters(counters, [target(index), *_places(value)])
    if env:
        index = tuple(dims.substitute(i, env) for i in index)
        value = expr(*index)
    writer = Writer(_addressing(names))
    writer.count_uses(value)
    scope = Scope()
    text = writer.value(value, scope)
    store = f"{names[id(out)]}[{writer.index(target(index), scope)}] = "
    body = [*scope.lines, store + to_storage(text, out.dtype) + ";"]
    for c in reversed(loops):
        body = loop(c.name, writer.index(_extent(c), scope), body)
    bound = {c.name for c in loops} | _reduce_counters(value)
    symbols = tuple(s for n, s in sorted(writer.symbols.items()) if n not in bound)
    return Nest(tuple(canonical(body)), symbols, writer.checked)


def _addressing(names: dict[int, str]) -> Callable[[Value, Sequence[Dim], dict[str, str]], str]:
    def place(v: Value, idx: Sequence[Dim], loads: dict[str, str]) -> str:
        return f"{names[id(v)]}[{dim_text(address(v.tensor, idx), loads)}]"

    return place


def canonical(lines: Sequence[str]) -> list[str]:
    """Counters renamed i0, i1, ... in order of appearance: equal loops become equal text."""
    order: dict[str, str] = {}

    def rename(m: re.Match[str]) -> str:
        return order.setdefault(m[0], f"i{len(order)}")

    return [re.sub(r"\b[ir]\d+\b", rename, line) for line in lines]


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
