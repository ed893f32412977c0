"""Resize and Upsample as chains of one-axis resizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from onefold.frontend.onnx.rules import rule
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Builder, Value
from onefold.ops.base import Refusal, axis_of
from onefold.ops.cast import Cast
from onefold.ops.formats import OnnxNode
from onefold.ops.known import dims_of, floats_of
from onefold.ops.resize import ResizeAxis
from onefold.ops.window import LARGEST

_MODES = {"nearest": "nearest", "linear": "linear", "bilinear": "linear", "cubic": "cubic"}


@rule("Upsample")
def upsample(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Scales were attributes before opset 9; positions are those of Resize-10."""
    x = n.arg(0)
    if n.opset < 7:
        scales = [1.0, 1.0, n.attr("height_scale", 1.0), n.attr("width_scale", 1.0)]
    elif n.opset < 9:
        scales = list(n.attr("scales", ()))
    else:
        scales = floats_of(n.arg(1), "scales of Upsample")
    return [_scaled(n, b, x, scales, range(len(x.shape)), _plain(n), None)]


@rule("Resize")
def resize(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """By scales or to sizes; everything else is told by attributes (opsets 11 to 19)."""
    x = n.arg(0)
    rank = len(x.shape)
    if n.opset < 11:
        scales = floats_of(n.arg(1), "scales of Resize")
        return [_scaled(n, b, x, scales, range(rank), _plain(n), None)]
    given = n.attr("axes")
    axes = [axis_of(int(a), rank) for a in (range(rank) if given is None else given)]
    op = ResizeAxis(
        mode=_mode(n),
        coordinate=n.attr("coordinate_transformation_mode", "half_pixel"),
        nearest=n.attr("nearest_mode", "round_prefer_floor"),
        cubic=float(n.attr("cubic_coeff_a", -0.75)),
        exclude_outside=bool(n.attr("exclude_outside", 0)),
        antialias=bool(n.attr("antialias", 0)),
        extrapolation=float(n.attr("extrapolation_value", 0.0)),
    )
    roi = None
    if op.coordinate == "tf_crop_and_resize":
        roi = floats_of(n.arg(1), "region of Resize")
        if len(roi) != 2 * len(axes):
            raise Refusal(f"a region of {len(roi)} numbers for {len(axes)} axes")
    sizes = n.input(3)
    if sizes is not None and sizes.shape != (0,):
        return [_sized(n, b, x, dims_of(sizes, "sizes of Resize"), axes, op, roi)]
    scales = floats_of(n.arg(2), "scales of Resize")
    return [_scaled(n, b, x, scales, axes, op, roi)]


def _mode(n: OnnxNode) -> str:
    mode = n.attr("mode", "nearest")
    if mode not in _MODES:
        raise Refusal(f"mode '{mode}' is not nearest, linear or cubic")
    return _MODES[mode]


def _plain(n: OnnxNode) -> ResizeAxis:
    return ResizeAxis(mode=_mode(n), coordinate="asymmetric", nearest="simple")


def _scaled(
    n: OnnxNode, b: Builder, x: Value, scales: Sequence[float], axes: Sequence[int],
    op: ResizeAxis, roi: Sequence[float] | None,
) -> Value:  # fmt: skip
    if len(scales) != len(axes) or not all(np.isfinite(scales)) or min(scales, default=1) <= 0:
        raise Refusal(f"scales {list(scales)} for {len(axes)} axes")
    sizes: list[Dim] = []
    for k, (a, s) in enumerate(zip(axes, scales, strict=True)):
        d = x.shape[a]
        if roi is not None:
            s = s * (roi[k + len(axes)] - roi[k])
        sizes.append(scaled(d, s))
    return _chain(n, b, x, axes, sizes, list(scales), op, roi)


def scaled(d: Dim, s: float) -> Dim:
    """floor(d * s), in float32 where d is a number."""
    if isinstance(d, int):
        with np.errstate(over="ignore"):
            size = np.floor(np.float32(d) * np.float32(s))
        if not size < LARGEST:
            raise Refusal(f"an axis of {d} elements cannot be scaled by {s}")
        return int(size)
    f = Fraction(s).limit_denominator(4096)
    if np.float32(f.numerator / f.denominator) != np.float32(s):
        raise Refusal(f"an axis of {d} elements cannot be scaled by {s}")
    return dims.floordiv(dims.mul(d, f.numerator), f.denominator)


def _sized(
    n: OnnxNode, b: Builder, x: Value, sizes: Sequence[Dim], axes: Sequence[int],
    op: ResizeAxis, roi: Sequence[float] | None,
) -> Value:  # fmt: skip
    if len(sizes) != len(axes):
        raise Refusal(f"{len(sizes)} sizes for {len(axes)} axes")
    policy = n.attr("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return _chain(n, b, x, axes, sizes, [None] * len(axes), op, roi)
    if policy not in ("not_larger", "not_smaller"):
        raise Refusal(f"keep_aspect_ratio_policy '{policy}' is not understood")
    pairs = [(x.shape[a], s) for a, s in zip(axes, sizes, strict=True)]
    known = [(d, s) for d, s in pairs if isinstance(d, int) and isinstance(s, int) and d]
    if len(known) != len(pairs) or not known:
        raise Refusal("keeping the aspect ratio needs to know the extents")
    choose = min if policy == "not_larger" else max
    scale = choose(np.float32(s) / np.float32(d) for d, s in known)
    kept: list[Dim] = [int(np.floor(scale * np.float32(d) + np.float32(0.5))) for d, _ in known]
    return _chain(n, b, x, axes, kept, [float(scale)] * len(axes), op, roi)


def _chain(
    n: OnnxNode, b: Builder, x: Value, axes: Sequence[int], sizes: Sequence[Dim],
    scales: Sequence[float | None], op: ResizeAxis, roi: Sequence[float] | None,
) -> Value:  # fmt: skip
    steps = []
    for k, (a, size, scale) in enumerate(zip(axes, sizes, scales, strict=True)):
        if size == x.shape[a] and scale in (None, 1.0) and roi is None:
            continue
        start, end = (0.0, 1.0) if roi is None else (roi[k], roi[k + len(axes)])
        step = replace(op, axis=a, size=size, scale=scale, start=start, end=end)
        steps.append((_growth(x.shape[a], size), step))
    kind = x.dtype
    wide = dtypes.f64 if kind.bits == 64 else dtypes.f32
    cast = op.mode != "nearest" and kind is not wide and bool(steps)
    y = b.op(Cast(wide), x) if cast else x
    for _, step in sorted(steps, key=lambda s: s[0]):  # shrink first: less to compute
        y = b.op(step, y)
    return b.op(Cast(kind), y, name=n.output_names) if cast else y


def _growth(old: Dim, new: Dim) -> float:
    return dims.upper(new) / max(dims.upper(old), 1)
