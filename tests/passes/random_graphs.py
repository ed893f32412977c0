"""Small graphs at random: an operator's own case, and behind it what rules look for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onefold.dev.cases import all_cases, expected, graph_of
from onefold.ir import dtypes
from onefold.ir.graph import Array, Builder, Graph, Value
from onefold.ir.types import TensorType
from onefold.ops import registry
from onefold.ops.base import Case, NeedsValue, Op, Refusal
from onefold.ops.cast import Cast, Identity
from onefold.ops.conv import Conv, ConvTranspose
from onefold.ops.elementwise import Add, Clip, Div, Max, Min, Mul, Pow, Sub
from onefold.ops.matmul import Gemm, MatMul
from onefold.ops.movement import Concat, Expand, Slice, Tile, Transpose
from onefold.ops.pad import Pad
from onefold.ops.pool import AveragePool, MaxPool
from onefold.ops.reduce import ReduceMax, ReduceMean, ReduceSum
from onefold.ops.shape import Reshape
from onefold.ops.softmax import LogSoftmax, Softmax

Rng = np.random.Generator
Step = Callable[[Builder, Rng, list[Value]], Value]
LARGEST = 20_000  # elements of a value that is built upon


def pick(rng: Rng, pool: list[Value]) -> Value:
    """Late values more often, so that chains form."""
    return pool[-1 - int(min(rng.geometric(0.4) - 1, len(pool) - 1))]


def unary(b: Builder, rng: Rng, pool: list[Value]) -> Value:
    names = ("Relu", "Neg", "Abs", "Sigmoid", "Exp", "Tanh", "HardSigmoid", "Erf", "Sqrt",
             "Reciprocal", "Not", "Log")  # fmt: skip
    return b.op(registry.by_name[str(rng.choice(names))](), pick(rng, pool))


def constant(b: Builder, rng: Rng, v: Value) -> Value:
    """A number, or one per channel, row or place, often of those that rules know."""
    shape = v.tensor.ints
    kind = int(rng.integers(4))
    if kind == 0 or not shape:
        own: tuple[int, ...] = ((), (1,), (1,) * len(shape))[int(rng.integers(3))]
    elif kind == 1:
        axis = int(rng.integers(len(shape)))
        own = (shape[axis], *[1] * (len(shape) - 1 - axis))
    else:
        own = shape[int(rng.integers(len(shape))) :]
    usual = np.array([0, 1, 1, 2, 0.5, -1, 3, 6])
    data = np.full(own, rng.choice(usual)) if rng.random() < 0.6 else rng.uniform(-2, 2, own)
    if v.dtype is dtypes.b1:
        return b.const(data > 0)
    return b.const(data.astype(v.dtype.numpy))


def binary(b: Builder, rng: Rng, pool: list[Value]) -> Value:
    op = (Add, Sub, Mul, Div, Min, Max, Mul, Add)[int(rng.integers(8))]()
    x = pick(rng, pool)
    y = constant(b, rng, x) if rng.random() < 0.7 else pick(rng, pool)
    return b.op(op, *((x, y) if rng.random() < 0.7 else (y, x)))


def power(b: Builder, rng: Rng, pool: list[Value]) -> Value:
    x = pick(rng, pool)
    return b.op(Pow(), x, b.const(rng.choice([1, 2, 3, 0.5]), x.dtype))


def limits(b: Builder, rng: Rng, pool: list[Value]) -> Value:
    x = pick(rng, pool)
    low, high = (b.const(v, x.dtype) for v in rng.integers(0, 4, 2))
    return b.op(Clip(), x, low if rng.random() < 0.7 else None, high)


def transpose(b: Builder, rng: Rng, pool: list[Value]) -> Value:
    x = pick(rng, pool)
    rank = len(x.shape)
    perms: list[tuple[int, ...]] = []
    if rank == 4:
        perms = [(0, 2, 3, 1), (0, 3, 1, 2)]
    perms.append(tuple(int(p) for p in rng.permutation(rank)))
    return b.op(Transpose(perms[int(rng.integers(len(perms)))]), x)


def reshape(b: Builder, rng: Rng, pool: list[Value]) -> Value:
    x = pick(rng, pool)
    shape = list(x.tensor.ints)
    at = int(rng.integers(len(shape) + 1))
    kind = int(rng.integers(4))
    if kind == 0:
        shape.insert(at, 1)
    elif kind == 1 and 0 < at < len(shape):
        shape[at - 1 : at + 1] = [shape[at - 1] * shape[at]]
    elif kind == 2 and at < len(shape) and shape[at] % 2 == 0:
        shape[at : at + 1] = [2, shape[at] // 2]
    else:
        shape = [d for d in shape if d != 1]
    return b.op(Reshape(tuple(shape)), x)


def movement(b: Builder, rng: Rng, pool: list[Value]) -> Value:
    x = pick(rng, pool)
    shape = x.tensor.ints
    rank = len(shape)
    kind = int(rng.integers(5))
    few = tuple(int(v) for v in rng.integers(0, 2, rank))
    if kind == 0:
        value = b.const(np.zeros((), x.dtype.numpy))
        return b.op(Pad(few, tuple(reversed(few))), x, value)
    if kind == 1:
        starts = tuple(min(f, d - 1) if d else 0 for f, d in zip(few, shape, strict=True))
        sizes = tuple(max(d - s, 0) for s, d in zip(starts, shape, strict=True))
        return b.op(Slice(starts, sizes, (1,) * rank), x)
    if kind == 2:
        return b.op(Tile(tuple(1 + f for f in few)), x)
    if kind == 3:
        wider = tuple(2 if d == 1 and f else d for f, d in zip(few, shape, strict=True))
        return b.op(Expand(wider), x)
    axis = int(rng.integers(max(rank, 1)))
    return b.op(Concat(axis), *[x if rng.random() < 0.5 else pick(rng, pool) for _ in range(2)], x)


def reduction(b: Builder, rng: Rng, pool: list[Value]) -> Value:
    x = pick(rng, pool)
    rank = len(x.shape)
    axes = tuple(int(a) for a in np.flatnonzero(rng.integers(0, 2, rank)))
    op = (ReduceMean, ReduceSum, ReduceMax)[int(rng.integers(3))]
    return b.op(op(axes, bool(rng.random() < 0.7)), x)


def rows(b: Builder, rng: Rng, pool: list[Value]) -> Value:
    op = (Softmax, LogSoftmax)[int(rng.integers(2))]
    return b.op(op(int(rng.integers(-2, 2))), pick(rng, pool))


def cast(b: Builder, rng: Rng, pool: list[Value]) -> Value:
    x = pick(rng, pool)
    kinds: tuple[dtypes.DType, ...] = (dtypes.f64, x.dtype)
    if x.dtype.is_int or x.dtype is dtypes.b1:
        kinds = (*kinds, dtypes.f32, dtypes.i32, dtypes.i8)
    return b.op(Cast(kinds[int(rng.integers(len(kinds)))]), x)


def contraction(b: Builder, rng: Rng, pool: list[Value]) -> Value:
    x = pick(rng, pool)
    shape = x.tensor.ints
    kind = int(rng.integers(4))

    def weights(*size: int) -> Value:
        return b.const(rng.uniform(-1, 1, size).astype(x.dtype.numpy))

    if kind == 0 or len(shape) < 2:
        return b.op(MatMul(), x, weights(shape[-1] if shape else 1, 3))
    if kind == 1 and len(shape) == 2:
        return b.op(Gemm(transB=True), x, weights(4, shape[1]), weights(4))
    spatial = len(shape) - 2
    pads = (int(rng.integers(2)),) * (2 * spatial)
    bias = weights(4) if rng.random() < 0.5 else None
    group = 2 if shape[1] % 2 == 0 and rng.random() < 0.4 else 1
    if kind == 2:
        return b.op(ConvTranspose((2,) * spatial, pads, group=group), x,
                    weights(shape[1], 4 // group, *[2] * spatial), bias)  # fmt: skip
    return b.op(Conv((1,) * spatial, pads, group=group), x,
                weights(4, shape[1] // group, *[2] * spatial), bias)  # fmt: skip


def affine(b: Builder, rng: Rng, pool: list[Value]) -> Value:
    """A contraction between scales and shifts per channel."""
    x = pick(rng, pool)
    if rng.random() < 0.5:
        x = per_channel(b, rng, x, 1 if len(x.shape) > 2 else -1)
    y = contraction(b, rng, [x])
    return per_channel(b, rng, y, 1 if len(y.shape) > 2 else -1)


def per_channel(b: Builder, rng: Rng, x: Value, axis: int) -> Value:
    shape = x.tensor.ints
    own = (shape[axis], *[1] * (len(shape) - 2)) if axis == 1 else shape[-1:]
    c = b.const(rng.uniform(0.5, 2, own).astype(x.dtype.numpy))
    y = b.op((Mul, Add, Sub, Div)[int(rng.integers(4))](), x, c)
    return b.op(Add(), c, y) if rng.random() < 0.5 else y


def pool_of(b: Builder, rng: Rng, pool: list[Value]) -> Value:
    x = pick(rng, pool)
    spatial = len(x.shape) - 2
    if any(isinstance(d, int) and d < 2 for d in x.shape[2:]):
        raise Refusal("no window fits")
    window, strides = (2,) * spatial, (1,) * spatial
    return b.op((AveragePool if rng.random() < 0.5 else MaxPool)(window, strides), x)


def identity(b: Builder, rng: Rng, pool: list[Value]) -> Value:
    return b.op(Identity(), pick(rng, pool))


STEPS: tuple[Step, ...] = (
    unary, binary, binary, binary, power, limits, transpose, transpose, transpose, reshape,
    movement, movement, reduction, rows, cast, contraction, affine, affine, pool_of, identity,
)  # fmt: skip
STARTS = [
    (op, case) for op, case in all_cases()
    if op.pure and not case.const and not op.host_only
]  # fmt: skip


def random_graph(seed: int, steps: int = 14) -> tuple[Graph, list[Array]]:
    """A graph, and inputs for it; its outputs are two values at random and the last."""
    rng = np.random.default_rng(seed)
    op, case = STARTS[int(rng.integers(len(STARTS)))]
    graph, arrays = start(op, case)
    inputs = [a for a in arrays if a is not None]
    image = rng.uniform(-2, 2, (1, 4, 5, 6))
    graph.inputs.append(Value("image", TensorType(image.shape, dtypes.f64)))
    inputs.append(image)
    builder = Builder(graph, fold=True)
    pool = [v for n in graph.nodes for v in n.outputs if usable(v)] + [graph.inputs[-1]]
    rng.shuffle(pool)
    for _ in range(steps):
        step = STEPS[int(rng.integers(len(STEPS)))]
        try:
            v = step(builder, rng, pool)
        except (Refusal, NeedsValue):
            continue
        if usable(v):
            pool.append(v)
    made = [v for v in pool if v.producer is not None]
    chosen = [made[int(k)] for k in sorted(rng.permutation(len(made))[:3])]
    graph.outputs = list(dict.fromkeys([*chosen, *made[-1:]]))
    return graph, inputs


def start(op: Op, case: Case) -> tuple[Graph, list[Array | None]]:
    """The operator on its case's inputs, in double precision if it is defined there."""
    arrays = [doubled(a) for a in case.arrays()]
    try:
        graph = graph_of(op, arrays)
        kinds = [w.dtype for w in expected(graph, arrays)]
        if kinds == [v.dtype.numpy for v in graph.outputs]:
            return graph, arrays
    except Refusal:
        pass
    arrays = case.arrays()
    return graph_of(op, arrays), arrays


def doubled(a: Array | None) -> Array | None:
    """Floats in double precision, so that a wrong result stands out from rounding."""
    return a if a is None or not dtypes.of(a.dtype).is_float else a.astype(np.float64)


def usable(v: Value) -> bool:
    t = v.type
    return isinstance(t, TensorType) and t.static and not v.is_const and (
        0 < int(np.prod(t.ints)) <= LARGEST and t.dtype.kind != "complex"
    ) and (t.dtype.bits >= 8 or t.dtype is dtypes.b1)  # fmt: skip
