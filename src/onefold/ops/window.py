"""Sliding windows: sizes, padding and the index arithmetic that convolutions and pools share.

Positions are along one spatial axis: a window at output o reads o * stride - begin + r * dilation
for 0 <= r < kernel. Formulas: ONNX's Conv, ConvTranspose and MaxPool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onefold.ir import dims
from onefold.ir.dims import Dim
from onefold.ir.graph import Array
from onefold.ir.scalar import Inside, Scalar
from onefold.ops.base import Refusal
from onefold.ops.formats import OnnxNode

LARGEST = 1 << 31  # sizes, pads and strides beyond this are a broken model


@dataclass(frozen=True, slots=True)
class Axis:
    """A window along one axis; begin and end are the padding."""

    size: Dim
    kernel: Dim
    stride: int = 1
    dilation: int = 1
    begin: Dim = 0
    end: Dim = 0
    ceil: bool = False

    @property
    def reach(self) -> Dim:
        """Elements from the first to the last that one window touches."""
        return dims.add(dims.mul(dims.add(self.kernel, -1), self.dilation), 1)

    @property
    def out(self) -> Dim:
        """Windows that fit; with ceil also a partial one, if it begins before the end padding."""
        whole = dims.add(self.size, dims.add(self.begin, self.end))
        room = dims.add(whole, dims.mul(self.reach, -1))
        if not self.ceil:
            return dims.add(dims.floordiv(room, self.stride), 1)
        start = dims.ceildiv(dims.add(self.size, self.begin), self.stride)
        return dims.minimum(dims.add(dims.ceildiv(room, self.stride), 1), start)

    @property
    def guarded(self) -> bool:
        """True where a window may read outside of the input."""
        if self.begin != 0 or self.end != 0:
            return True
        return self.ceil and self.stride > 1

    def at(self, o: Dim, r: Dim) -> Dim:
        """The input position that the window at o reads at its element r."""
        first = dims.add(dims.mul(o, self.stride), dims.mul(self.begin, -1))
        return dims.add(first, dims.mul(r, self.dilation))

    def inside(self, at: Dim) -> Scalar | None:
        return Inside(at, 0, self.size) if self.guarded else None

    def count(self, o: Dim, lo: Dim, hi: Dim) -> Dim:
        """How many elements of the window at o lie in [lo, hi)."""
        first = self.at(o, 0)
        skipped = dims.ceildiv(dims.maximum(dims.add(lo, dims.mul(first, -1)), 0), self.dilation)
        stop = dims.ceildiv(dims.maximum(dims.add(hi, dims.mul(first, -1)), 0), self.dilation)
        return dims.add(dims.minimum(self.kernel, stop), dims.mul(skipped, -1))


def all_of(tests: Sequence[Scalar | None]) -> Scalar | None:
    """The conjunction of the tests that are there."""
    out: Scalar | None = None
    for t in tests:
        if t is not None:
            out = t if out is None else out & t
    return out


def check_axes(axes: Sequence[Axis], what: str) -> None:
    """Raises Refusal for windows that cannot be: they would read or compute without end."""
    for k, a in enumerate(axes):
        if isinstance(a.kernel, int) and not 0 < a.kernel < LARGEST:
            raise Refusal(f"{what} has a window of {a.kernel} along spatial axis {k}")
        if not (0 < a.stride < LARGEST and 0 < a.dilation < LARGEST):
            raise Refusal(f"{what} has stride {a.stride}, dilation {a.dilation}; both must be > 0")
        for p in (a.begin, a.end):
            if isinstance(p, int) and not 0 <= p < LARGEST:
                raise Refusal(f"{what} has padding {p} along spatial axis {k}")
        if dims.upper(a.out) < 0 or (isinstance(a.out, int) and a.out < 0):
            raise Refusal(f"{what}: the window reaches {a.reach}, the padded input is smaller")


def spatial(values: Sequence[Any] | None, rank: int, default: Any, what: str) -> tuple[Any, ...]:
    """An attribute with one entry per spatial axis. Raises Refusal for another length."""
    if not values:
        return (default,) * rank
    if len(values) != rank:
        raise Refusal(f"{what} has {len(values)} entries for {rank} spatial axes")
    return tuple(v if isinstance(v, dims.Expr) else int(v) for v in values)


def same_pads(size: Dim, reach: Dim, stride: int, upper: bool) -> tuple[Dim, Dim]:
    """(begin, end) so that ceil(size / stride) windows fit; the odd element goes to the end where
    upper is set."""
    out = dims.ceildiv(size, stride)
    total = dims.add(dims.mul(dims.add(out, -1), stride), dims.add(reach, dims.mul(size, -1)))
    total = dims.maximum(total, 0)
    half = dims.floordiv(total, 2)
    rest = dims.add(total, dims.mul(half, -1))
    return (half, rest) if upper else (rest, half)


@dataclass(frozen=True, slots=True)
class Window:
    """The attributes of a windowed ONNX node, resolved for its input; pads: all begins, then all
    ends."""

    kernel: tuple[Dim, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[Dim, ...]


def window_of(n: OnnxNode, sizes: Sequence[Dim], kernel: Sequence[Dim]) -> Window:
    """kernel_shape (default `kernel`), strides, dilations, pads and auto_pad of a node."""
    rank = len(sizes)
    shape = spatial(n.attr("kernel_shape"), rank, 0, "kernel_shape")
    if not n.attr("kernel_shape"):
        if len(kernel) != rank:
            raise Refusal(f"{n.op_type} has no kernel_shape")
        shape = tuple(kernel)
    strides = spatial(n.attr("strides"), rank, 1, "strides")
    dilations = spatial(n.attr("dilations"), rank, 1, "dilations")
    if min((*strides, *dilations), default=1) < 1:
        raise Refusal(f"{n.op_type} has a stride or dilation below 1")
    mode = n.attr("auto_pad", "NOTSET") or "NOTSET"
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        pairs = [
            same_pads(size, Axis(size, k, 1, d).reach, s, mode == "SAME_UPPER")
            for size, k, s, d in zip(sizes, shape, strides, dilations, strict=True)
        ]
        pads = tuple(p[0] for p in pairs) + tuple(p[1] for p in pairs)
    elif mode == "VALID":
        pads = (0,) * (2 * rank)
    elif mode == "NOTSET":
        pads = tuple(int(p) for p in n.attr("pads") or (0,) * (2 * rank))
    else:
        raise Refusal(f"auto_pad {mode!r} is not known")
    if len(pads) != 2 * rank:
        raise Refusal(f"pads has {len(pads)} entries for {rank} spatial axes")
    return Window(shape, strides, dilations, pads)


def patches(
    x: Array, axes: Sequence[Axis], fill: Any, outs: Sequence[int] | None = None
) -> Array:
    """x [N, C, *spatial] as windows [N, C, *out, *kernel]; what lies outside of x is `fill`."""
    rank = len(axes)
    counts = [int(o) for o in outs] if outs is not None else [_int(a.out) for a in axes]
    widths = [(0, 0), (0, 0)]
    for a, o in zip(axes, counts, strict=True):
        need = max(0, (o - 1) * a.stride + _int(a.reach) - _int(a.size) - _int(a.begin))
        widths.append((_int(a.begin), need))
    y = np.pad(x, widths, constant_values=fill)
    index: list[Any] = [slice(None), slice(None)]
    for k, (a, o) in enumerate(zip(axes, counts, strict=True)):
        at = np.arange(o)[:, None] * a.stride + np.arange(_int(a.kernel))[None] * a.dilation
        where = [1] * (2 * rank)
        where[k], where[rank + k] = at.shape
        index.append(at.reshape(where))
    return np.asarray(y[tuple(index)])


def _int(d: Dim) -> int:
    if not isinstance(d, int):
        raise TypeError(f"{d} is not known")
    return d
