"""Operators that move elements: reshape, slice, pad, join, gather."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onefold.frontend.tflite.arithmetic import scale_of, zero_of
from onefold.frontend.tflite.common import canonical, ints, is_quantized, reshaped, transposed
from onefold.frontend.tflite.rules import tflite_rule
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Builder, Value
from onefold.ir.types import TensorType
from onefold.ops.base import Refusal, axis_of, true_axis
from onefold.ops.cast import Cast, Identity
from onefold.ops.formats import TfliteNode
from onefold.ops.known import checked_shape, dims_of
from onefold.ops.movement import Concat, Expand, Slice, Tile, cut, split
from onefold.ops.pad import Pad
from onefold.ops.shape import Reshape, Shape, squeezed, target_shape, unsqueezed


@tflite_rule("RESHAPE")
def reshape(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    shape: Sequence[Dim]
    if n.input(1) is not None and n.arg(1).dtype.is_int and len(n.arg(1).shape) == 1:
        shape = dims_of(n.arg(1), "shape of RESHAPE")
    else:
        shape = n.option("new_shape", ()) or ()
    if not shape and x.tensor.size != 1:
        shape = n.option("new_shape", ()) or n.output_types[0].shape
    return b.ops(Reshape(target_shape(x.shape, shape, True)), x)


@tflite_rule("SQUEEZE")
def squeeze(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    return b.ops(Reshape(squeezed(x.shape, n.option("squeeze_dims") or None)), x)


@tflite_rule("DENSIFY")
def densify(n: TfliteNode, b: Builder) -> Sequence[Value]:
    return b.ops(Identity(), n.arg(0))  # sparse constants are made dense when they are read


@tflite_rule("EXPAND_DIMS")
def expand_dims(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    axis = ints(n, 1, "axis")
    if len(axis) != 1:
        raise Refusal(f"{len(axis)} axes")
    return b.ops(Reshape(unsqueezed(x.shape, axis)), x)


@tflite_rule("SHAPE")
def shape(n: TfliteNode, b: Builder) -> Sequence[Value]:
    y = b.op(Shape(), n.arg(0))
    kind = n.output_types[0].dtype
    return [y if y.dtype is kind else b.op(Cast(kind), y)]


@tflite_rule("RANK")
def rank(n: TfliteNode, b: Builder) -> Sequence[Value]:
    return [b.const(np.int32(len(n.arg(0).shape)))]


@tflite_rule("TRANSPOSE")
def transpose(n: TfliteNode, b: Builder) -> Sequence[Value]:
    perm = [axis_of(p, len(n.arg(0).shape)) for p in ints(n, 1, "permutation")]
    return [transposed(b, n.arg(0), perm)]


@tflite_rule("CONCATENATION")
def concatenation(n: TfliteNode, b: Builder) -> Sequence[Value]:
    parts = [n.arg(k) for k in range(len(n.inputs))]
    y = n.output_types[0]
    if n.quantized and y.dtype is dtypes.u8:
        parts = [_rescaled_u8(b, v, y) for v in parts]
    return b.ops(Concat(int(n.option("axis", 0))), *parts)


def _rescaled_u8(b: Builder, v: Value, y: TensorType) -> Value:
    """A uint8 part in the scale of the whole (TFLite: in single precision, halves away from 0)."""
    if v.quant is None or v.quant == y.quant or not is_quantized(v):
        return v
    from onefold.frontend.tflite.rules.arith import all_values
    from onefold.ops import fixedpoint as fx
    from onefold.ops.quant_arith import QuantTable

    inverse = np.float32(1) / np.float32(scale_of(y))
    scale = np.float32(scale_of(v)) * inverse
    bias = np.float32(-zero_of(v)) * scale
    real = (all_values(v).astype(np.float32) * scale + bias).astype(np.float32)
    table = np.clip(fx.round_away(real).astype(np.int64) + zero_of(y), 0, 255)
    return b.op(QuantTable(), v, b.const(table, dtypes.u8, "table"))


@tflite_rule("PACK")
def pack(n: TfliteNode, b: Builder) -> Sequence[Value]:
    parts = [n.arg(k) for k in range(len(n.inputs))]
    if not parts:
        raise Refusal("it has nothing to put together")
    axis = axis_of(int(n.option("axis", 0)), len(parts[0].shape) + 1)
    lifted = [reshaped(b, v, unsqueezed(v.shape, (axis,))) for v in parts]
    return b.ops(Concat(axis), *lifted)


@tflite_rule("UNPACK")
def unpack(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    axis = true_axis(int(n.option("axis", 0)), len(x.shape))
    if x.shape[axis] != len(n.output_names):
        raise Refusal(f"{len(n.output_names)} results of an axis of {x.shape[axis]}")
    parts = split(b, x, axis, [1] * len(n.output_names), ())
    return [reshaped(b, p, (*p.shape[:axis], *p.shape[axis + 1 :])) for p in parts]


@tflite_rule("SPLIT")
def split_even(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, count = n.arg(1), len(n.output_names)
    axis = axis_of(ints(n, 0, "axis")[0], len(x.shape))
    d = x.shape[axis]
    if isinstance(d, int) and (not count or d % count):
        raise Refusal(f"an axis of {d} in {count} parts")
    return split(b, x, axis, [dims.floordiv(d, count)] * count, ())


@tflite_rule("SPLIT_V")
def split_v(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    sizes: list[Dim] = list(ints(n, 1, "sizes"))
    axis = axis_of(ints(n, 2, "axis")[0], len(x.shape))
    if sizes.count(-1) == 1:
        rest = dims.add(x.shape[axis], -sum(s for s in sizes if isinstance(s, int) and s > 0))
        sizes[sizes.index(-1)] = rest
    return split(b, x, axis, sizes, ())


@tflite_rule("SLICE")
def slice_(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    begin = dims_of(n.arg(1), "begin of SLICE")
    size = dims_of(n.arg(2), "size of SLICE")
    if not len(begin) == len(size) == len(x.shape):
        raise Refusal(f"a slice of {len(begin)} axes of rank {len(x.shape)}")
    sizes = [
        dims.add(d, dims.mul(s, -1)) if z == -1 else z
        for s, z, d in zip(begin, size, x.shape, strict=True)
    ]
    for s, z, d in zip(begin, sizes, x.shape, strict=True):
        if all(isinstance(v, int) for v in (s, z, d)) and not (0 <= s and 0 <= z and s + z <= d):  # type: ignore[operator]
            raise Refusal(f"{z} elements from {s} on of an axis of {d}")
    return b.ops(Slice(tuple(begin), tuple(sizes), (1,) * len(begin)), x)


@tflite_rule("STRIDED_SLICE")
def strided_slice(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    begin = dims_of(n.arg(1), "begin of STRIDED_SLICE")
    end = dims_of(n.arg(2), "end of STRIDED_SLICE")
    step = ints(n, 3, "strides")
    if not len(begin) == len(end) == len(step) or len(step) > 32:
        raise Refusal("begin, end and strides differ in length")
    masks = {k: int(n.option(f"{k}_mask", 0)) for k in
             ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}  # fmt: skip
    return [_strided(b, x, begin, end, step, masks, bool(n.option("offset", False)))]


def _strided(
    b: Builder, x: Value, begin: Sequence[Dim], end: Sequence[Dim], step: Sequence[int],
    masks: dict[str, int], offset: bool,
) -> Value:  # fmt: skip
    """NumPy's x[begin:end:step, ..., newaxis, index] as the bit masks spell it."""
    used = sum(1 for k in range(len(step)) if not _bit(masks["new_axis"], k)
               and not _bit(masks["ellipsis"], k))  # fmt: skip
    if used > len(x.shape):
        raise Refusal(f"{used} slices of a tensor of rank {len(x.shape)}")
    axis = 0
    starts: list[Dim] = []
    ends: list[Dim] = []
    axes: list[int] = []
    steps: list[int] = []
    kept: list[int] = []  # axes of the cut that stay, -1 for a new one
    for k in range(len(step)):
        if _bit(masks["ellipsis"], k):
            more = len(x.shape) - used
            kept += range(axis, axis + more)
            axis += more
        elif _bit(masks["new_axis"], k):
            kept.append(-1)
        else:
            s, e, by = begin[k], end[k], step[k]
            if by == 0:
                raise Refusal("a stride of 0")
            if offset:
                e = dims.add(s, e)
            if _bit(masks["shrink_axis"], k):
                s, e, by = _single(s, x.shape[axis])
            else:
                s = (0 if by > 0 else dims.INF) if _bit(masks["begin"], k) else s
                e = (dims.INF if by > 0 else -dims.INF) if _bit(masks["end"], k) else e
                kept.append(axis)
            axes.append(axis)
            starts.append(s)
            ends.append(e)
            steps.append(by)
            axis += 1
    kept += range(axis, len(x.shape))
    part = cut(b, x, starts, ends, axes, steps)
    return reshaped(b, part, [1 if a < 0 else part.shape[a] for a in kept])


def _bit(mask: int, k: int) -> bool:
    return bool(mask >> k & 1)


def _single(at: Dim, extent: Dim) -> tuple[Dim, Dim, int]:
    """One index as a slice."""
    if isinstance(at, int) and at < 0:
        at = dims.add(extent, at)
    if isinstance(at, int) and isinstance(extent, int) and not 0 <= at < extent:
        raise Refusal(f"index {at} of an axis of {extent}")
    return at, dims.add(at, 1), 1


@tflite_rule("PAD", "PADV2")
def pad(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    before, after = _pads(n, x)
    if n.op_type == "PADV2":
        value = reshaped(b, n.arg(2), ())
    else:
        value = b.const(zero_of(x) if is_quantized(x) else 0, x.dtype)
    return b.ops(Pad(before, after), x, value)


def _pads(n: TfliteNode, x: Value) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
    pads = ints(n, 1, "paddings")
    if len(pads) != 2 * len(x.shape) or min(pads, default=0) < 0:
        raise Refusal(f"paddings {list(pads)} for rank {len(x.shape)}")
    return tuple(pads[::2]), tuple(pads[1::2])


@tflite_rule("MIRROR_PAD")
def mirror_pad(n: TfliteNode, b: Builder) -> Sequence[Value]:
    before, after = _pads(n, n.arg(0))
    mode = {"REFLECT": "reflect", "SYMMETRIC": "symmetric"}.get(n.option("mode", "REFLECT"))
    if mode is None:
        raise Refusal(f"mirroring mode {n.option('mode')}")
    return b.ops(Pad(before, after, mode), n.arg(0))


@tflite_rule("TILE")
def tile(n: TfliteNode, b: Builder) -> Sequence[Value]:
    return b.ops(Tile(tuple(dims_of(n.arg(1), "multiples of TILE"))), n.arg(0))


@tflite_rule("BROADCAST_TO")
def broadcast_to(n: TfliteNode, b: Builder) -> Sequence[Value]:
    return b.ops(Expand(tuple(dims_of(n.arg(1), "shape of BROADCAST_TO"))), n.arg(0))


@tflite_rule("FILL")
def fill(n: TfliteNode, b: Builder) -> Sequence[Value]:
    shape = checked_shape(dims_of(n.arg(0), "shape of FILL"))
    return b.ops(Expand(shape), reshaped(b, n.arg(1), ()))


@tflite_rule("ZEROS_LIKE")
def zeros_like(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    return b.ops(canonical("FilledLike", value=0, to=x.dtype), x)


@tflite_rule("REVERSE_V2")
def reverse(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x = n.arg(0)
    gone = {axis_of(a, len(x.shape)) for a in ints(n, 1, "axes")}
    starts = tuple(dims.add(d, -1) if a in gone else 0 for a, d in enumerate(x.shape))
    steps = tuple(-1 if a in gone else 1 for a in range(len(x.shape)))
    return b.ops(Slice(starts, x.shape, steps), x)


@tflite_rule("SPACE_TO_DEPTH", "DEPTH_TO_SPACE")
def depth_space(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, s = n.arg(0), int(n.option("block_size", 0))
    if len(x.shape) != 4 or s < 1:
        raise Refusal(f"blocks of {s} in rank {len(x.shape)}")
    batch, h, w, c = x.shape
    if n.op_type == "SPACE_TO_DEPTH":
        _divides(s, h, w)
        split_up = (batch, dims.floordiv(h, s), s, dims.floordiv(w, s), s, c)
        y = transposed(b, reshaped(b, x, split_up), (0, 1, 3, 2, 4, 5))
        return [reshaped(b, y, (batch, split_up[1], split_up[3], dims.mul(c, s * s)))]
    _divides(s * s, c)
    deep = dims.floordiv(c, s * s)
    y = transposed(b, reshaped(b, x, (batch, h, w, s, s, deep)), (0, 1, 3, 2, 4, 5))
    return [reshaped(b, y, (batch, dims.mul(h, s), dims.mul(w, s), deep))]


def _divides(s: int, *extents: Dim) -> None:
    for d in extents:
        if isinstance(d, int) and d % s:
            raise Refusal(f"{s} does not divide an extent of {d}")


@tflite_rule("SPACE_TO_BATCH_ND")
def space_to_batch(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, block = n.arg(0), ints(n, 1, "block shape")
    pads = ints(n, 2, "paddings")
    m, r = len(block), len(x.shape)
    if not 1 <= m < r or len(pads) != 2 * m or min(*block, *(p + 1 for p in pads)) < 1:
        raise Refusal(f"blocks {list(block)} and paddings {list(pads)} for rank {r}")
    before = (0, *pads[::2], *[0] * (r - 1 - m))
    after = (0, *pads[1::2], *[0] * (r - 1 - m))
    zero = b.const(zero_of(x) if is_quantized(x) else 0, x.dtype)
    x = b.op(Pad(before, after), x, zero) if any(pads) else x
    for s, d in zip(block, x.shape[1:], strict=False):
        _divides(s, d)
    inner = [v for s, d in zip(block, x.shape[1 : m + 1], strict=True)
             for v in (dims.floordiv(d, s), s)]  # fmt: skip
    y = reshaped(b, x, (x.shape[0], *inner, *x.shape[m + 1 :]))
    perm = [*range(2, 2 * m + 1, 2), 0, *range(1, 2 * m, 2), *range(2 * m + 1, r + m)]
    y = transposed(b, y, perm)
    batch = dims.mul(x.shape[0], dims.product(block))
    return b.ops(Reshape((batch, *inner[::2], *x.shape[m + 1 :])), y)


@tflite_rule("BATCH_TO_SPACE_ND")
def batch_to_space(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, block = n.arg(0), ints(n, 1, "block shape")
    crops = ints(n, 2, "crops")
    m, r = len(block), len(x.shape)
    if not 1 <= m < r or len(crops) != 2 * m or min(*block, *(p + 1 for p in crops)) < 1:
        raise Refusal(f"blocks {list(block)} and crops {list(crops)} for rank {r}")
    whole = int(np.prod(block))
    _divides(whole, x.shape[0])
    batch = dims.floordiv(x.shape[0], whole)
    y = reshaped(b, x, (*block, batch, *x.shape[1:]))
    perm = [m, *(v for k in range(m) for v in (m + 1 + k, k)), *range(2 * m + 1, r + m)]
    y = transposed(b, y, perm)
    sizes = [dims.mul(d, s) for d, s in zip(x.shape[1:], block, strict=False)]
    y = reshaped(b, y, (batch, *sizes, *x.shape[m + 1 :]))
    ends = [dims.add(d, -c) for d, c in zip(sizes, crops[1::2], strict=True)]
    out = cut(b, y, crops[::2], ends, range(1, m + 1))
    return [out if out is not x else b.op(Identity(), x)]

