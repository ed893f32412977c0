"""Operators composed of reshapes, transposes, slices and repetitions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onefold.frontend.onnx.rules import rule
from onefold.ir import dims
from onefold.ir.dims import Dim
from onefold.ir.graph import Builder, Value
from onefold.ops.base import Refusal, axis_of, true_axis
from onefold.ops.formats import OnnxNode
from onefold.ops.known import dims_of, ints_of
from onefold.ops.movement import Tile, Transpose, cut, split
from onefold.ops.pad import Pad
from onefold.ops.shape import Reshape, axes_of

MAX_PARTS = 65536


@rule("Split")
def split_rule(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Runs along an axis: of given sizes, or of equal ones, the last smaller (Split-18)."""
    x = n.arg(0)
    axis = true_axis(int(n.attr("axis", 0)), len(x.shape))
    given: Sequence[Dim] | None = n.attr("split")
    if n.opset >= 13 or (n.opset == 1 and n.input(1) is not None):
        given = None if n.input(1) is None else dims_of(n.arg(1), "sizes of Split")
    if given is None:
        given = equal_parts(x.shape[axis], int(n.attr("num_outputs", len(n.output_names))))
    if len(given) != len(n.output_names):
        raise Refusal(f"{len(given)} sizes for {len(n.output_names)} outputs")
    return split(b, x, axis, given, n.output_names)


def equal_parts(whole: Dim, count: int) -> list[Dim]:
    """`count` sizes of which only the last may be smaller."""
    if not 1 <= count <= MAX_PARTS:
        raise Refusal(f"an axis cannot be split in {count}")
    each = dims.ceildiv(whole, count)
    last = dims.add(whole, dims.mul(each, 1 - count))
    if isinstance(last, int) and last < 0:
        raise Refusal(f"an axis of {whole} cannot be split in {count}")
    return [each] * (count - 1) + [last]


@rule("Tile")
def tile(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Repetition; Tile-1 repeats one axis."""
    x = n.arg(0)
    if n.opset >= 6:
        repeats = dims_of(n.arg(1), "repeats of Tile")
    else:
        times, axis = dims_of(n.arg(1), "count of Tile"), ints_of(n.arg(2), "axis of Tile")
        at = axis_of(axis[0], len(x.shape))
        repeats = tuple(times[0] if k == at else 1 for k in range(len(x.shape)))
    if any(isinstance(r, int) and r < 0 for r in repeats):
        raise Refusal(f"repeats {list(repeats)} are not valid")
    return [b.op(Tile(tuple(repeats)), x, name=n.output_names)]


def _image(n: OnnxNode) -> tuple[Value, int, bool]:
    x, s = n.arg(0), int(n.attr("blocksize", 0))
    if len(x.shape) != 4 or s < 1:
        raise Refusal(f"{n.op_type} of rank {len(x.shape)} with blocks of {s}")
    return x, s, n.attr("mode", "DCR") == "DCR"


@rule("DepthToSpace")
def depth_to_space(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Channels become blocks of pixels; DCR: depth, column, row order of the channels."""
    x, s, dcr = _image(n)
    batch, c, h, w = x.shape
    if isinstance(c, int) and c % (s * s):
        raise Refusal(f"{c} channels do not fill blocks of {s} by {s}")
    d = dims.floordiv(c, s * s)
    parts = (batch, s, s, d, h, w) if dcr else (batch, d, s, s, h, w)
    y = b.op(Reshape(parts), x)
    y = b.op(Transpose((0, 3, 4, 1, 5, 2) if dcr else (0, 1, 4, 2, 5, 3)), y)
    shape = (batch, d, dims.mul(h, s), dims.mul(w, s))
    return [b.op(Reshape(shape), y, name=n.output_names)]


@rule("SpaceToDepth")
def space_to_depth(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Blocks of pixels become channels."""
    x, s, dcr = _image(n)
    batch, c, h, w = x.shape
    if any(isinstance(d, int) and d % s for d in (h, w)):
        raise Refusal(f"an image of {h} by {w} is not made of blocks of {s} by {s}")
    rows, columns = dims.floordiv(h, s), dims.floordiv(w, s)
    y = b.op(Reshape((batch, c, rows, s, columns, s)), x)
    y = b.op(Transpose((0, 3, 5, 1, 2, 4) if dcr else (0, 1, 3, 5, 2, 4)), y)
    shape = (batch, dims.mul(c, s * s), rows, columns)
    return [b.op(Reshape(shape), y, name=n.output_names)]


@rule("CenterCropPad")
def center_crop_pad(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Each axis cut or filled with zeros around its middle until it has the given extent."""
    x = n.arg(0)
    rank = len(x.shape)
    wanted = dims_of(n.arg(1), "shape of CenterCropPad")
    axes = n.attr("axes", range(rank))
    if len(axes) != len(wanted):
        raise Refusal(f"{len(wanted)} extents for {len(axes)} axes")
    before: list[Dim] = [0] * rank
    after: list[Dim] = [0] * rank
    for a, want in zip((true_axis(int(a), rank) for a in axes), wanted, strict=True):
        have = x.shape[a]
        if dims.bounds(dims.add(have, dims.mul(want, -1)))[0] >= 0:
            start = dims.floordiv(dims.add(have, dims.mul(want, -1)), 2)
            x = cut(b, x, [start], [dims.add(start, want)], [a])
        else:
            missing = dims.maximum(dims.add(want, dims.mul(have, -1)), 0)
            if dims.bounds(dims.add(want, dims.mul(have, -1)))[0] < 0:
                raise Refusal(f"axis {a} of extent {have} may be cut or filled to {want}")
            before[a] = dims.floordiv(missing, 2)
            after[a] = dims.add(missing, dims.mul(before[a], -1))
    if any(d != 0 for d in (*before, *after)):
        zero = b.const(np.zeros((), x.dtype.numpy))
        x = b.op(Pad(tuple(before), tuple(after), "constant"), x, zero, name=n.output_names)
    return [x]


@rule("Pad")
def pad(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Elements added around; negative counts cut. Counts and value were attributes before 11."""
    x, mode = n.arg(0), n.attr("mode", "constant")
    rank = len(x.shape)
    if n.opset < 11:
        counts: Sequence[Dim] = n.attr("pads" if n.opset > 1 else "paddings", ())
        value: Value | None = b.const(np.asarray(n.attr("value", 0.0)).astype(x.dtype.numpy))
    else:
        counts, value = dims_of(n.arg(1), "pads of Pad"), n.input(2)
    axes = axes_of(n, 3, 18) if n.opset >= 18 else None
    places = [axis_of(a, rank) for a in (range(rank) if axes is None else axes)]
    if len(counts) != 2 * len(places):
        raise Refusal(f"{len(counts)} pads for {len(places)} axes")
    before: list[Dim] = [0] * rank
    after: list[Dim] = [0] * rank
    for k, a in enumerate(places):
        before[a], after[a] = counts[k], counts[k + len(places)]
    return [padded(b, x, before, after, mode, value, n.output_names)]


def padded(
    b: Builder, x: Value, before: Sequence[Dim], after: Sequence[Dim], mode: str,
    value: Value | None, name: Sequence[str],
) -> Value:  # fmt: skip
    """x with elements added, or cut where counts are negative (before the others are added)."""
    lo = [dims.maximum(dims.mul(p, -1), 0) if dims.bounds(p)[1] < 0 else 0 for p in before]
    hi = [dims.maximum(dims.mul(p, -1), 0) if dims.bounds(p)[1] < 0 else 0 for p in after]
    ends = [dims.add(d, dims.mul(h, -1)) for d, h in zip(x.shape, hi, strict=True)]
    x = cut(b, x, lo, ends)
    more = [tuple(dims.maximum(p, 0) if dims.bounds(p)[1] < 0 else p for p in side)
            for side in (before, after)]  # fmt: skip
    if all(p == 0 for side in more for p in side):
        return x
    if mode == "constant" and value is None:
        value = b.const(np.zeros((), x.dtype.numpy))
    if value is not None and value.shape != ():
        value = b.op(Reshape(()), value)
    op = Pad(more[0], more[1], mode)
    return b.op(op, x, *([value] if mode == "constant" else []), name=name)
