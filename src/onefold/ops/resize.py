"""Resizing along one axis: every image resize is a chain of these.

Positions and weights follow the definition of ONNX Resize; they are computed in float32, in which
exporters and their runtimes compute them too, so that ties fall the same way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node
from onefold.ir.scalar import Const, Index, Scalar
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Lowered, Lowering, Refusal, axis_of, operator
from onefold.ops.known import MAX_TABLE, Sized, checked_shape, number, table

F = np.float32
COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
    "tf_half_pixel_for_nn", "tf_crop_and_resize",
)  # fmt: skip
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple")
MAX_TAPS = 4096
UNROLLED = 4


@dataclass(frozen=True)
class Taps:
    """For every element of the result: which input elements, with which weights [size, taps];
    valid is False where the result is the extrapolation value instead."""

    places: Array
    weights: Array
    valid: Array


@operator
class ResizeAxis(Sized):
    """Resamples one axis to `size` elements.

    mode "nearest", "linear" or "cubic"; scale: output over input (None: size over extent);
    start, end: the region of interest as fractions, for tf_crop_and_resize only.
    """

    axis: int = 0
    size: Dim = 1
    mode: str = "nearest"
    coordinate: str = "half_pixel"
    scale: float | None = None
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    start: float = 0.0
    end: float = 1.0
    extrapolation: float = 0.0
    cases: ClassVar = (
        Case((((2, 5), "f32"),), {"axis": 1, "size": 8}),
        Case((((2, 5, 3), "f32"),), {"axis": -2, "size": 11, "mode": "linear"}),
        Case((((7, 2), "f32"),), {"size": 3, "mode": "cubic", "coordinate": "align_corners"}),
        Case((((9,), "f32"),), {"size": 4, "mode": "cubic", "antialias": True}),
        Case((((9,), "f32"),), {"size": 4, "mode": "linear", "antialias": True,
                                "exclude_outside": True}),
        Case((((5,), "f32"),), {"size": 6, "mode": "linear", "coordinate": "tf_crop_and_resize",
                                "start": -0.2, "end": 0.9, "extrapolation": 7.0}),
        Case((((6,), "i8"),), {"size": 12, "coordinate": "asymmetric", "nearest": "floor"}),
        Case((((1,), "f64"),), {"size": 3, "mode": "cubic", "exclude_outside": True}),
    )  # fmt: skip

    @property
    def exact(self) -> bool:  # type: ignore[override]
        return self.mode == "nearest"

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = n.arg(0).tensor
        axis = axis_of(self.axis, t.rank)
        if self.mode not in ("nearest", "linear", "cubic"):
            raise Refusal(f"mode '{self.mode}' is not nearest, linear or cubic")
        if self.coordinate not in COORDINATES or self.nearest not in NEAREST:
            raise Refusal(f"'{self.coordinate}' with '{self.nearest}' is not understood")
        if self.mode != "nearest" and not t.dtype.is_float:
            raise Refusal(f"interpolation of elements of type {t.dtype.long}")
        if isinstance(self.size, int) and self.size > MAX_TABLE:
            raise Refusal(f"an axis of {self.size} elements is too long to be resized")
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale > 0):
            raise Refusal(f"a scale of {self.scale}")
        if not isinstance(self.size, int) or not isinstance(t.shape[axis], int):
            self._check_symbolic()
        elif self.size and not t.shape[axis]:
            raise Refusal("an empty axis has nothing to interpolate")
        shape = list(t.shape)
        shape[axis] = self.size
        if isinstance(self.size, int) and isinstance(t.shape[axis], int):
            self._reach(number(t.shape[axis]))
        return [TensorType(checked_shape(shape), t.dtype, t.quant)]

    def _check_symbolic(self) -> None:
        if self.antialias and self.mode != "nearest":
            raise Refusal("antialiased resizing needs to know the extent of the axis")
        if self.exclude_outside and self.mode == "cubic":
            raise Refusal("exclude_outside needs to know the extent of the axis")
        if self.coordinate in ("tf_crop_and_resize", "half_pixel_symmetric"):
            raise Refusal(f"{self.coordinate} needs to know the extent of the axis")

    def _reach(self, extent: int) -> int:
        """Input elements on each side that take part. Raises Refusal where there are too many."""
        width = {"nearest": 1, "linear": 1, "cubic": 2}[self.mode]
        s = min(self._scale(extent), 1.0) if self.antialias else 1.0
        if s <= 0 or not math.isfinite(width / s):
            raise Refusal(f"antialiased resizing by a scale of {s}")
        reach = math.ceil(width / s)
        if reach > MAX_TAPS:
            raise Refusal(f"a scale of {s} takes {2 * reach} elements together")
        return reach

    def _scale(self, extent: int) -> float:
        return self.scale if self.scale is not None else number(self.size) / max(extent, 1)

    # -- positions, known in advance ---------------------------------------------------------

    def positions(self, extent: int) -> Array:
        """Where each element of the result lies among the input's elements, float32."""
        size = number(self.size)
        s, i = F(self._scale(extent)), np.arange(size, dtype=F)
        width = s * F(extent) if self.scale is not None else F(size)
        last = F(extent - 1)
        half = (i + F(0.5)) / s - F(0.5)
        if self.coordinate == "align_corners":
            return np.zeros(size, F) if width == 1 or size == 1 else i * last / (width - F(1))
        if self.coordinate == "asymmetric":
            return i / s
        if self.coordinate == "tf_half_pixel_for_nn":
            return (i + F(0.5)) / s
        if self.coordinate == "pytorch_half_pixel":
            return np.zeros(size, F) if size == 1 else half
        if self.coordinate == "half_pixel_symmetric":
            return F(extent / 2) * (F(1) - F(size) / width) + half
        if self.coordinate == "tf_crop_and_resize":
            a, b = F(self.start), F(self.end)
            if width == 1:
                return np.full(size, F(0.5) * (a + b) * last, F)
            return a * last + i * (b - a) * last / (width - F(1))
        return half

    def rounded(self, x: Array, extent: int) -> Array:
        """The nearest element of each position, by the rule for ties."""
        how = self.nearest
        if how == "simple":
            how = "ceil" if self._scale(extent) < 1 else "floor"
        y = {
            "round_prefer_floor": lambda: np.ceil(x - F(0.5)),
            "round_prefer_ceil": lambda: np.floor(x + F(0.5)),
            "floor": lambda: np.floor(x),
            "ceil": lambda: np.ceil(x),
        }[how]()
        return np.clip(y, 0, extent - 1).astype(np.int32)

    def taps(self, extent: int) -> Taps:
        x = self.positions(extent)
        valid = np.ones(x.shape, bool)
        if self.coordinate == "tf_crop_and_resize":
            valid = (x >= 0) & (x <= extent - 1)
        if self.mode == "nearest":
            places = self.rounded(x, extent).reshape(-1, 1)
            return Taps(places, np.ones(places.shape, F), valid)
        reach = self._reach(extent)
        s = min(self._scale(extent), 1.0) if self.antialias else 1.0
        low = np.ceil(x.astype(np.float64)) - 1  # the share of the right one lies in (0, 1]
        share = x - low
        offsets = np.arange(1 - reach, 1 + reach)
        w = kernel(self.mode, (offsets - share[:, None]) * s, self.cubic)
        at = low[:, None].astype(np.int64) + offsets
        if self.exclude_outside:
            w = np.where((at < 0) | (at >= extent), 0.0, w)
        if self.exclude_outside or self.antialias:
            w = w / np.where(w.sum(1, keepdims=True) == 0, 1, w.sum(1, keepdims=True))
        used = np.any(w != 0, axis=0)
        used[0] |= not used.any()
        at = np.clip(at, 0, extent - 1).astype(np.int32)
        return Taps(at[:, used], w[:, used], valid)

    def ref(self, n: Node, x: Any) -> Any:
        axis = axis_of(self.axis, x.ndim)
        t = self.taps(x.shape[axis])
        if self.mode == "nearest" and t.valid.all():
            return np.take(x, t.places[:, 0], axis)
        rows = np.moveaxis(x, axis, -1).astype(np.float64)
        y = (rows[..., t.places] * t.weights).sum(-1)
        y = np.where(t.valid, y, self.extrapolation)
        return np.moveaxis(y, -1, axis).astype(x.dtype)

    # -- compiled ----------------------------------------------------------------------------

    def lower(self, k: Lowering) -> Lowered:
        x = k.x()
        axis = axis_of(self.axis, len(x.shape))
        extent = x.shape[axis]
        if not isinstance(extent, int) or not isinstance(self.size, int):
            return k.map(lambda *i: self._computed(x, i, axis))
        t = self.taps(extent)
        ratio = _steps(t.places[:, 0], extent, self.size) if self.mode == "nearest" else None
        places, kind = table(t.places, "places"), k.y().dtype.compute
        weights = table(t.weights.astype(kind.numpy), "weights") if kind.is_float else None
        valid = None if t.valid.all() else table(t.valid, "valid")

        def tap(i: Sequence[Dim], j: Dim) -> Scalar:
            at = places(i[axis], j)
            place = int(at.value) if isinstance(at, Const) else scalar.loaded(
                at, extent, check=False)  # fmt: skip
            return x(*i[:axis], place, *i[axis + 1 :])

        def element(*i: Dim) -> Scalar:
            if ratio is not None:
                value = x(*i[:axis], dims.floordiv(dims.mul(i[axis], ratio[0]), ratio[1]),
                          *i[axis + 1 :])  # fmt: skip
            elif self.mode == "nearest" or weights is None:
                value = tap(i, 0)
            else:
                value = _weighted(t.places.shape[1], lambda j: tap(i, j) * weights(i[axis], j))
            if valid is None:
                return value
            return scalar.where(valid(i[axis]), value, Const(self.extrapolation, kind))

        return k.map(element)

    def _computed(self, x: scalar.TensorExpr, i: Sequence[Dim], axis: int) -> Scalar:
        """An element where extents are known at run time only."""
        extent = x.shape[axis]
        times = self._repeats(extent)
        if times is not None:
            return x(*i[:axis], dims.floordiv(i[axis], times), *i[axis + 1 :])
        at = self._position(i[axis], extent)
        top = Index(dims.add(extent, -1))

        def read(place: Scalar) -> Scalar:
            whole = scalar.cast(place, dtypes.i64)
            clamped = scalar.minimum(scalar.maximum(whole, 0), top)
            return x(*i[:axis], scalar.loaded(clamped, extent, wrap=False), *i[axis + 1 :])

        if self.mode == "nearest":
            return read(self._round(at, extent))
        low = scalar.call("ceil", at) - 1.0
        share = at - low
        reach = self._reach(1)
        total: Scalar | None = None
        kind = x.dtype.compute
        for offset in range(1 - reach, 1 + reach):
            w = scalar.cast(_weight(self.mode, share, offset, self.cubic), kind)
            term = read(low + float(offset)) * w
            total = term if total is None else total + term
        assert total is not None
        return total

    def _repeats(self, extent: Dim) -> int | None:
        """How often each element is repeated, where the nearest one is found by a division."""
        whole = self.scale is not None and self.scale == int(self.scale)
        times = int(self.scale) if self.scale is not None and whole else 0
        if self.mode != "nearest" or not times or self.size != dims.mul(extent, times):
            return None
        plain = self.coordinate == "asymmetric" and self.nearest in ("floor", "simple")
        centred = self.coordinate == "half_pixel" and self.nearest.startswith("round")
        return times if plain or centred else None

    def _position(self, i: Dim, extent: Dim) -> Scalar:
        at = scalar.cast(Index(i), dtypes.f32)
        old, new = (scalar.cast(Index(d), dtypes.f32) for d in (extent, self.size))
        s: Scalar = new / old if self.scale is None else Const(float(F(self.scale)), dtypes.f32)
        width = new if self.scale is None else s * old
        half = (at + 0.5) / s - 0.5
        if self.coordinate == "align_corners":
            return scalar.where(width.eq(1.0), 0.0, at * (old - 1.0) / (width - 1.0))
        if self.coordinate == "asymmetric":
            return at / s
        if self.coordinate == "tf_half_pixel_for_nn":
            return (at + 0.5) / s
        if self.coordinate == "pytorch_half_pixel":
            return scalar.where(new.eq(1.0), 0.0, half)
        return half

    def _round(self, x: Scalar, extent: Dim) -> Scalar:
        how = self.nearest
        if how == "simple":
            small = self.scale is not None and self.scale < 1
            how = "ceil" if small else "floor"
        if how == "round_prefer_floor":
            return scalar.call("ceil", x - 0.5)
        if how == "round_prefer_ceil":
            return scalar.call("floor", x + 0.5)
        return scalar.call(how, x)


def kernel(mode: str, distance: Array, cubic: float) -> Array:
    """Weight of an element at a distance: the triangle, or Keys' cubic convolution."""
    d = np.abs(distance)
    if mode == "linear":
        return np.asarray(np.clip(1 - d, 0, 1))
    a = cubic
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.asarray(np.where(d <= 1, near, np.where(d < 2, far, 0.0)))


def _weight(mode: str, share: Scalar, offset: int, a: float) -> Scalar:
    """The same for the element `offset` after the one whose distance is `share` in (0, 1]."""
    d = share - float(offset) if offset <= 0 else Const(float(offset), share.dtype) - share
    if mode == "linear":
        return Const(1.0, share.dtype) - d
    if offset in (0, 1):
        return (d * (a + 2) - (a + 3)) * d * d + 1.0
    return ((d * a - 5 * a) * d + 8 * a) * d - 4 * a


def _weighted(count: int, term: Any) -> Scalar:
    if count > UNROLLED:
        return scalar.reduce("sum", [count], term)
    out: Scalar = term(0)
    for j in range(1, count):
        out = out + term(j)
    return out


def _steps(places: Array, extent: int, size: int) -> tuple[int, int] | None:
    """(a, b) where every place is i * a // b, so that no table is needed."""
    i = np.arange(size, dtype=np.int64)
    common = math.gcd(extent, size) or 1
    a, b = extent // common, max(size // common, 1)
    return (a, b) if np.array_equal(places, i * a // b) else None
