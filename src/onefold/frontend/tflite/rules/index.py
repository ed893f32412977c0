"""Operators whose results depend on indices: gather, scatter, sort, count, sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onefold.frontend.tflite.common import canonical, ints, reshaped, transposed
from onefold.frontend.tflite.rules import tflite_rule
from onefold.ir import dims, dtypes
from onefold.ir.graph import Builder, Value
from onefold.ops.base import Refusal, axis_of
from onefold.ops.cast import Cast
from onefold.ops.formats import TfliteNode
from onefold.ops.indexing import Gather, GatherND, OneHot
from onefold.ops.known import checked_shape, data_of, dims_of
from onefold.ops.movement import Expand


def typed(b: Builder, v: Value, n: TfliteNode, k: int = 0) -> Value:
    """v in the element type that the file gives result k."""
    kind = n.output_types[k].dtype
    return v if v.dtype is kind else b.op(Cast(kind), v)


@tflite_rule("GATHER")
def gather(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, index = n.arg(0), n.arg(1)
    axis = axis_of(int(n.option("axis", 0)), len(x.shape))
    batch = int(n.option("batch_dims", 0))
    batch = batch + len(index.shape) if batch < 0 else batch
    if not batch:
        return b.ops(Gather(axis), x, index)
    if not 0 < batch <= axis or batch > len(index.shape):
        raise Refusal(f"{batch} batch axes before axis {axis}")
    # The gathered axis goes behind the batch axes, the indices become rows of one entry.
    rest = [a for a in range(batch, len(x.shape)) if a != axis]
    moved = transposed(b, x, (*range(batch), axis, *rest))
    rows = reshaped(b, index, (*index.shape, 1))
    y = b.op(GatherND(batch), moved, rows)
    between, width = axis - batch, len(index.shape) - batch
    order = [*range(batch), *(batch + width + k for k in range(between)),
             *range(batch, batch + width),
             *range(batch + width + between, len(y.shape))]  # fmt: skip
    return [transposed(b, y, order)]


@tflite_rule("GATHER_ND")
def gather_nd(n: TfliteNode, b: Builder) -> Sequence[Value]:
    return b.ops(GatherND(0), n.arg(0), n.arg(1))


@tflite_rule("EMBEDDING_LOOKUP")
def embedding_lookup(n: TfliteNode, b: Builder) -> Sequence[Value]:
    table = n.arg(1)
    y = b.op(Gather(0), table, n.arg(0))
    if y.dtype is n.output_types[0].dtype:
        return [y]
    raise Refusal(f"a table of {table.dtype} for a result of {n.output_types[0].dtype}")


@tflite_rule("ONE_HOT")
def one_hot(n: TfliteNode, b: Builder) -> Sequence[Value]:
    index, on, off = n.arg(0), n.arg(2), n.arg(3)
    depth = ints(n, 1, "depth")
    if len(depth) != 1 or depth[0] < 0:
        raise Refusal(f"a depth of {list(depth)}")
    values = b.op(canonical("Concat", axis=0), reshaped(b, off, (1,)), reshaped(b, on, (1,)))
    return b.ops(OneHot(depth[0], int(n.option("axis", -1))), index, values)


@tflite_rule("TOPK_V2")
def top_k(n: TfliteNode, b: Builder) -> Sequence[Value]:
    k = ints(n, 1, "k")
    if len(k) != 1 or k[0] < 0:
        raise Refusal(f"k is {list(k)}")
    values, places = b.ops(canonical("TopK", k=k[0], axis=-1, largest=True), n.arg(0))
    return [values, typed(b, places, n, 1) if len(n.output_types) > 1 else places]


@tflite_rule("CUMSUM")
def cumsum(n: TfliteNode, b: Builder) -> Sequence[Value]:
    axis = ints(n, 1, "axis")
    fields = {k: bool(n.option(k, False)) for k in ("exclusive", "reverse")}
    if len(axis) != 1:
        raise Refusal(f"{len(axis)} axes")
    return b.ops(
        canonical("CumSum", axis=axis_of(axis[0], len(n.arg(0).shape)), **fields), n.arg(0)
    )


@tflite_rule("REVERSE_SEQUENCE")
def reverse_sequence(n: TfliteNode, b: Builder) -> Sequence[Value]:
    op = canonical("ReverseSequence", batch_axis=int(n.option("batch_dim", 0)),
                   time_axis=int(n.option("seq_dim", 0)))  # fmt: skip
    return b.ops(op, n.arg(0), n.arg(1))


@tflite_rule("RANGE")
def range_(n: TfliteNode, b: Builder) -> Sequence[Value]:
    start, limit, step = (data_of(n.arg(k), "bounds of RANGE").reshape(-1) for k in range(3))
    if not len(start) == len(limit) == len(step) == 1:
        raise Refusal("its bounds are not single numbers")
    kind = n.arg(0).dtype
    first, end, by = start[0].item(), limit[0].item(), step[0].item()
    if by == 0 or not all(map(math.isfinite, (first, end, by))):
        raise Refusal(f"from {first} to {end} by {by}")
    count = max(math.ceil((end - first) / by), 0)
    checked_shape((count,))
    return b.ops(canonical("Range", start=first, step=by, count=count, dtype=kind))


@tflite_rule("SCATTER_ND")
def scatter_nd(n: TfliteNode, b: Builder) -> Sequence[Value]:
    index, updates = n.arg(0), n.arg(1)
    shape = checked_shape(dims_of(n.arg(2), "shape of SCATTER_ND"))
    empty = b.op(Expand(shape), b.const(np.zeros((), updates.dtype.numpy)))
    return b.ops(canonical("ScatterND", reduction="add"), empty, index, updates)


@tflite_rule("WHERE")
def where(n: TfliteNode, b: Builder) -> Sequence[Value]:
    places = b.op(canonical("NonZero"), n.arg(0))
    return [typed(b, transposed(b, places, (1, 0)), n)]


@tflite_rule("UNIQUE")
def unique(n: TfliteNode, b: Builder) -> Sequence[Value]:
    values, _, inverse, _ = b.ops(canonical("Unique", axis=None, is_sorted=False), n.arg(0))
    return [values, typed(b, inverse, n, 1) if len(n.output_types) > 1 else inverse]


@tflite_rule("MATRIX_DIAG")
def matrix_diag(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    if not x.shape or not isinstance(x.shape[-1], int):
        raise Refusal("the length of the diagonal must be known")
    size = x.shape[-1]
    eye = b.const(np.eye(size, dtype=bool))
    rows = reshaped(b, x, (*x.shape, 1))
    return b.ops(canonical("Where"), eye, rows, b.const(np.zeros((), x.dtype.numpy)))


@tflite_rule("MATRIX_SET_DIAG")
def matrix_set_diag(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, diagonal = n.arg(0), n.arg(1)
    if len(x.shape) < 2 or not all(isinstance(d, int) for d in x.shape[-2:]):
        raise Refusal("the size of the matrix must be known")
    rows, cols = int(x.shape[-2]), int(x.shape[-1])  # type: ignore[arg-type]
    at = b.const(np.arange(cols).clip(max=min(rows, cols) - 1))
    spread = b.op(Gather(len(diagonal.shape) - 1), diagonal, at)
    spread = reshaped(b, spread, (*spread.shape[:-1], 1, cols))
    return b.ops(canonical("Where"), b.const(np.eye(rows, cols, dtype=bool)), spread, x)


@tflite_rule("SEGMENT_SUM")
def segment_sum(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, segments = n.arg(0), ints(n, 1, "segments")
    if (
        x.shape[:1] != (len(segments),)
        or list(segments) != sorted(segments)
        or min(segments, default=0) < 0
    ):
        raise Refusal("its segments are not one ascending number for each row")
    count = checked_shape((segments[-1] + 1 if segments else 0, *x.shape[1:]))
    empty = b.op(Expand(count), b.const(np.zeros((), x.dtype.numpy)))
    rows = b.const(np.asarray(segments, np.int64).reshape(-1, 1))
    return b.ops(canonical("ScatterND", reduction="add"), empty, rows, x)


@tflite_rule("DYNAMIC_UPDATE_SLICE")
def dynamic_update_slice(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, update, start = n.arg(0), n.arg(1), n.arg(2)
    if not (x.tensor.static and update.tensor.static) or len(x.shape) != len(update.shape):
        raise Refusal("the shapes must be known")
    room = [a - c for a, c in zip(x.tensor.ints, update.tensor.ints, strict=True)]
    if min(room, default=0) < 0:
        raise Refusal(f"an update of {update.shape} for {x.shape}")
    at = b.op(Cast(dtypes.i64), start)
    at = b.op(canonical("Max"), at, b.const(np.zeros((), np.int64)))
    at = b.op(canonical("Min"), at, b.const(np.asarray(room, np.int64)))
    if dims.product(update.shape) == 0:
        return b.ops(canonical("Identity"), x)
    grid = np.stack(np.meshgrid(*map(np.arange, update.tensor.ints), indexing="ij"), -1)
    return b.ops(canonical("ScatterND"), x, b.op(canonical("Add"), b.const(grid), at), update)


@tflite_rule("BUCKETIZE")
def bucketize(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    edges = np.asarray(n.option("boundaries", ()), np.float32)
    if (np.diff(edges) < 0).any():
        raise Refusal("its boundaries do not ascend")
    real = x if x.dtype is dtypes.f32 else b.op(Cast(dtypes.f32), x)
    wide = reshaped(b, real, (*x.shape, 1))
    hits = b.op(Cast(dtypes.i32), b.op(canonical("GreaterOrEqual"), wide, b.const(edges)))
    return b.ops(canonical("ReduceSum", axes=(len(x.shape),), keepdims=False), hits)
