"""Memory layouts: which activations lie in channel blocks.

Convolutions write whole vectors of channels, so their results are blocked (`TensorType.layout`):
those of f32 in blocks as wide as a vector, those of integers in one block of all channels, since
their sums take several input channels at a time. So is what operators make of blocked values as
long as they read them at the result's own place: elementwise work, pools, resizing, concatenation.
Every reader follows the types, so a change of layout is no node: it happens where one operator
reads across. Inputs, outputs, states, and what is read as a whole (`Code`, bodies) stay row by row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from onefold.codegen.families.conv import refused
from onefold.codegen.families.norm import refused as norm_refused
from onefold.codegen.family import families
from onefold.codegen.int_layers import Layer, layer_of
from onefold.codegen.tiles import Machine
from onefold.ir import dims, dtypes
from onefold.ir.graph import Graph, Node, Value
from onefold.ir.scalar import Load, TensorExpr, counter, index_of, walk
from onefold.ir.types import TensorType
from onefold.ops.base import Alias, Code, Lowered, Lowering, Pieces, Refusal, as_inputs
from onefold.ops.conv import Conv, ConvTranspose
from onefold.ops.normalize import ChannelNormalization
from onefold.ops.quantized import QConv
from onefold.target import Target


@dataclass(frozen=True)
class _Blocks:
    """A value's layout; whole: one block of all channels, wherever they are."""

    value: Value
    size: int
    whole: bool


Blocked = dict[int, _Blocks]


def choose_layouts(graph: Graph, target: Target) -> int:
    """Set the layout of a graph's values (not of its regions'); returns how many are blocked."""
    m = Machine.of(target)
    kinds = (Conv, ConvTranspose, QConv)
    if m is None or not any(isinstance(n.op, kinds) for n in graph.nodes):
        return 0
    lowered = {id(n): _lowered(n) for n in graph.nodes}
    plain = graph.pinned() | _read_whole(graph, lowered)
    blocked: Blocked = {}
    asked = _asked_for(graph) - plain
    for n in graph.nodes:
        for k, v in enumerate(n.outputs):
            found = None if id(v) in plain else _wanted(n, k, lowered, blocked, m.lanes)
            if id(v) in asked and isinstance(lowered[id(n)], TensorExpr):
                found = found or _Blocks(v, m.lanes, False)
            if found is not None and _fits(found, m.lanes):
                blocked[id(v)] = found
    _drop_unused(graph, lowered, blocked)
    for b in blocked.values():
        b.value.type = replace(b.value.tensor, layout=b.size)
    return len(blocked)


def _asked_for(graph: Graph) -> set[int]:
    """ids of the inputs of depthwise convolutions, whose kernel reads nothing but blocks: who
    computes one element by element may as well write blocks."""
    return {
        id(n.arg(0)) for n in graph.nodes
        if is_vector_conv(n) and n.op.group > 1  # type: ignore[attr-defined]
    }  # fmt: skip


def _lowered(n: Node) -> Lowered | None:
    if n.regions or n.op.compiled(n):
        return None
    try:
        return n.op.lower(Lowering(n, as_inputs(n)))
    except Refusal:
        return None


def _read_whole(graph: Graph, lowered: dict[int, Lowered | None]) -> set[int]:
    """ids of values that a reader takes as they lie in memory, row by row."""
    out: set[int] = set()
    rows = {op for f in families() if not f.blocks for op in f.ops}
    for n in graph.nodes:
        if is_vector_norm(n):
            continue
        if isinstance(lowered[id(n)], (Code, type(None))) or n.op.name in rows:
            out.update(id(v) for v in (*n.present(), *n.captures()))
    return out


def _fits(b: _Blocks, lanes: int) -> bool:
    """Whether blocks make sense: [batch, channels, 1 to 3 spatial axes], channels enough."""
    t = b.value.type
    if not isinstance(t, TensorType) or t.rank not in (3, 4, 5) or not dims.is_static(t.shape[2:]):
        return False
    channels = t.shape[1]
    if not isinstance(channels, int) or t.shape[2:] == (1,) * (t.rank - 2):
        return False
    if b.whole:
        return channels > 1 and t.dtype.bits >= 8
    return t.dtype is dtypes.f32 and 2 * channels >= lanes


def _wanted(
    n: Node, k: int, lowered: dict[int, Lowered | None], blocked: Blocked, lanes: int
) -> _Blocks | None:
    v = n.outputs[k]
    whole = _Blocks(v, v.shape[1], True) if _channelled(v) else None  # type: ignore[arg-type]
    if is_integer_conv(n):
        return whole
    if is_vector_conv(n):
        own = n.op.group == 1 or id(n.arg(0)) in blocked  # type: ignore[attr-defined]
        return _Blocks(v, lanes, False) if own else None
    if is_vector_norm(n):
        return _Blocks(v, lanes, False) if id(n.arg(0)) in blocked else None
    read = [blocked[id(u)] for u in n.present() if id(u) in blocked]
    if any(b.whole for b in read):
        return whole if whole and _keeps(lowered[id(n)], k, blocked, 0) else None
    return _Blocks(v, lanes, False) if read and _keeps(lowered[id(n)], k, blocked, lanes) else None


def _channelled(v: Value) -> bool:
    t = v.type
    return isinstance(t, TensorType) and t.rank > 2 and isinstance(t.shape[1], int)


def _keeps(low: Lowered | None, k: int, blocked: Blocked, lanes: int) -> bool:
    """Whether result k is computed where its inputs lie; lanes: of blocks, 0 for whole ones."""
    if isinstance(low, Pieces):
        if low.axis == 1 and not all(isinstance(start, int) for start, _ in low.parts):
            return False
        return all(_keeps_channels(part, blocked, lanes) for _, part in low.parts)
    if isinstance(low, TensorExpr):
        return _keeps_channels(low, blocked, lanes)
    if isinstance(low, (list, tuple)):
        return k < len(low) and _keeps_channels(low[k], blocked, lanes)
    return False


def is_integer_conv(n: Node) -> bool:
    """An integer convolution that kernels take, with the channels first."""
    if not isinstance(n.op, QConv):
        return False
    layer = layer_of(n)
    return isinstance(layer, Layer) and (layer.groups == 1 or layer.depthwise)


def is_vector_conv(n: Node) -> bool:
    """A convolution of one group or a depthwise one, that kernels of vectors take."""
    if not isinstance(n.op, (Conv, ConvTranspose)) or refused(n):
        return False
    x, w = n.arg(0), n.arg(1)
    if isinstance(n.op, ConvTranspose):
        return n.op.group == 1
    return n.op.group == 1 or n.op.group == x.shape[1] == w.shape[0]


def is_vector_norm(n: Node) -> bool:
    """A normalisation of channels that a kernel reads from channel blocks."""
    return isinstance(n.op, ChannelNormalization) and not norm_refused(n)


def _keeps_channels(expr: TensorExpr, blocked: Blocked, lanes: int) -> bool:
    """Whether every blocked value is read at the channel that is computed, whole blocks apart; with
    no lanes, at channels that depend on the channel alone and places that do not depend on it."""
    counters = [counter(n, "i") for n in expr.shape]
    index = [index_of(c) for c in counters]
    value = expr(*index)
    expr._cache.clear()
    for s in walk(value):
        if isinstance(s, Load) and id(s.value) in blocked:
            if len(s.index) != len(index):
                return False
            if not lanes:
                place = {d for i in (s.index[0], *s.index[2:]) for d in dims.symbols(i)}
                own = set(dims.symbols(s.index[1]))
                if counters[1] in place or own & {counters[0], *counters[2:]}:
                    return False
                continue
            apart = dims.add(s.index[1], dims.mul(index[1], -1))
            if not isinstance(apart, int) or apart % lanes:
                return False
    return True


def _drop_unused(
    graph: Graph, lowered: dict[int, Lowered | None], blocked: Blocked
) -> None:
    """Back to rows where nobody who reads a value gains from blocks."""
    for n in reversed(graph.nodes):
        for v in n.outputs:
            if id(v) in blocked and not any(_gains(u, lowered, blocked) for u in v.uses):
                del blocked[id(v)]


def _gains(n: Node, lowered: dict[int, Lowered | None], blocked: Blocked) -> bool:
    if is_vector_conv(n) or is_integer_conv(n) or is_vector_norm(n):
        return True
    if _any_blocked(n.outputs, blocked):
        return True
    low = lowered[id(n)]
    # What moves channels to the end, or reduces over the image, reads blocks well.
    plain = isinstance(low, (Alias, Code, type(None)))
    return not plain and not isinstance(n.op, (Conv, ConvTranspose, QConv))


def _any_blocked(values: Iterable[Value], blocked: Blocked) -> bool:
    return any(id(v) in blocked for v in values)
