"""Memory layouts: which activations lie in channel blocks as wide as a vector.

Convolutions write whole vectors of channels, so their results are blocked (`TensorType.layout`),
and so is what operators make of blocked values as long as they read them at the result's own
channel: elementwise work, pools, resizing, concatenation. Every reader follows the types, so a
change of layout is no node: it happens where one operator reads across. Inputs, outputs, states,
and what is read as a whole (`Code`, bodies) stay row by row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from onefold.codegen.families.conv import refused
from onefold.codegen.tiles import Machine
from onefold.ir import dims, dtypes
from onefold.ir.graph import Graph, Node, Value
from onefold.ir.scalar import Load, TensorExpr, counter, walk
from onefold.ir.types import TensorType
from onefold.ops.base import Alias, Code, Lowered, Lowering, Pieces, Refusal, as_inputs
from onefold.ops.conv import Conv, ConvTranspose
from onefold.target import Target


def choose_layouts(graph: Graph, target: Target) -> int:
    """Set the layout of a graph's values (not of its regions'); returns how many are blocked."""
    m = Machine.of(target)
    if m is None or not any(isinstance(n.op, (Conv, ConvTranspose)) for n in graph.nodes):
        return 0
    lowered = {id(n): _lowered(n) for n in graph.nodes}
    plain = graph.pinned() | _read_whole(graph, lowered)
    blocked: dict[int, Value] = {}
    for n in graph.nodes:
        for k, v in enumerate(n.outputs):
            if id(v) not in plain and _fits(v, m.lanes) and _wants(n, k, lowered, blocked, m.lanes):
                blocked[id(v)] = v
    _drop_unused(graph, lowered, blocked)
    for v in blocked.values():
        v.type = replace(v.tensor, layout=m.lanes)
    return len(blocked)


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
    for n in graph.nodes:
        if isinstance(lowered[id(n)], (Code, type(None))):
            out.update(id(v) for v in (*n.present(), *n.captures()))
    return out


def _fits(v: Value, lanes: int) -> bool:
    """Whether blocks make sense: f32 [batch, channels, 1 to 3 spatial axes], channels enough."""
    t = v.type
    if not isinstance(t, TensorType) or t.dtype is not dtypes.f32 or t.rank not in (3, 4, 5):
        return False
    channels = t.shape[1]
    known = isinstance(channels, int) and dims.is_static(t.shape[2:])
    return known and 2 * int(channels) >= lanes and t.shape[2:] != (1,) * (t.rank - 2)  # type: ignore[arg-type]


def _wants(
    n: Node, k: int, lowered: dict[int, Lowered | None], blocked: dict[int, Value], lanes: int
) -> bool:
    low = lowered[id(n)]
    if is_vector_conv(n):
        return n.op.group == 1 or id(n.arg(0)) in blocked  # type: ignore[attr-defined]
    if not any(id(v) in blocked for v in n.present()):
        return False
    if isinstance(low, Pieces):
        if low.axis == 1 and not all(isinstance(start, int) for start, _ in low.parts):
            return False
        return all(_keeps_channels(part, blocked, lanes) for _, part in low.parts)
    if isinstance(low, TensorExpr):
        return _keeps_channels(low, blocked, lanes)
    if isinstance(low, (list, tuple)):
        return k < len(low) and _keeps_channels(low[k], blocked, lanes)
    return False


def is_vector_conv(n: Node) -> bool:
    """A convolution of one group or a depthwise one, that kernels of vectors take."""
    if not isinstance(n.op, (Conv, ConvTranspose)) or refused(n):
        return False
    x, w = n.arg(0), n.arg(1)
    if isinstance(n.op, ConvTranspose):
        return n.op.group == 1
    return n.op.group == 1 or n.op.group == x.shape[1] == w.shape[0]


def _keeps_channels(expr: TensorExpr, blocked: dict[int, Value], lanes: int) -> bool:
    """Whether every blocked value is read at the channel that is computed, whole blocks apart."""
    index = [dims.atom(counter(n, "i")) if n != 1 else 0 for n in expr.shape]
    value = expr(*index)
    expr._cache.clear()
    for s in walk(value):
        if isinstance(s, Load) and id(s.value) in blocked:
            if len(s.index) != len(index):
                return False
            apart = dims.add(s.index[1], dims.mul(index[1], -1))
            if not isinstance(apart, int) or apart % lanes:
                return False
    return True


def _drop_unused(
    graph: Graph, lowered: dict[int, Lowered | None], blocked: dict[int, Value]
) -> None:
    """Back to rows where nobody who reads a value gains from blocks."""
    for n in reversed(graph.nodes):
        for v in n.outputs:
            if id(v) in blocked and not any(_gains(u, lowered, blocked) for u in v.uses):
                del blocked[id(v)]


def _gains(n: Node, lowered: dict[int, Lowered | None], blocked: dict[int, Value]) -> bool:
    if is_vector_conv(n) or _any_blocked(n.outputs, blocked):
        return True
    low = lowered[id(n)]
    # What moves channels to the end, or reduces over the image, reads blocks well.
    plain = isinstance(low, (Alias, Code, type(None))) or isinstance(n.op, (Conv, ConvTranspose))
    return not plain


def _any_blocked(values: Iterable[Value], blocked: dict[int, Value]) -> bool:
    return any(id(v) in blocked for v in values)
