"""Fourier transforms, mel weights and determinants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Code, Lowering, Op, Refusal, axis_of, need_const, operator
from onefold.ops.formats import OnnxNode

LONGEST = 1 << 26  # points of one transform


def scalar_of(n: Node, i: int, what: str) -> int:
    """The one element of a constant input. Raises Refusal, NeedsValue."""
    a = need_const(n, i, what)
    if a.size != 1:
        raise Refusal(f"{n.op.name} has a {what} of {a.size} elements")
    if a.dtype.kind not in "iu":
        raise Refusal(f"{n.op.name} has a {what} of type {a.dtype.name}")
    return int(a.reshape(-1)[0])


def length_of(n: Node, i: int, default: Dim, what: str) -> int:
    size = default if n.input(i) is None else scalar_of(n, i, what)
    if not isinstance(size, int):
        raise Refusal(f"{n.op.name} needs to know its {what}")
    if not 0 < size <= LONGEST:
        raise Refusal(f"{n.op.name} has a {what} of {size}")
    return size


def transform(x: Any, size: int, axis: int, inverse: bool, onesided: bool) -> Any:
    """x [..., 1 or 2] along an axis, cut or filled with zeros to `size` (a one-sided inverse takes
    size // 2 + 1 of a Hermitian signal and gives reals)."""
    z = x[..., 0].astype(np.complex128)
    if x.shape[-1] == 2:
        z = z + 1j * x[..., 1].astype(np.float64)
    if inverse and onesided:
        return np.fft.irfft(z, size, axis)[..., None]
    y = np.fft.ifft(z, size, axis) if inverse else np.fft.fft(z, size, axis)
    if onesided:
        y = np.take(y, range(size // 2 + 1), axis)
    return np.stack([y.real, y.imag], -1)


@operator
class DFT(Op):
    """The discrete Fourier transform of x [..., 1 or 2] along `axis` (which is not the last one);
    a second input is the length. onesided keeps the first half of a real signal's spectrum, or
    with inverse makes a real signal from it."""

    axis: int = 1
    inverse: bool = False
    onesided: bool = False
    onnx: ClassVar = ("DFT",)
    cases: ClassVar = (
        Case((((2, 12, 1), "f32"),)),
        Case((((2, 7, 3, 2), "f32"),), {"axis": 1, "inverse": True}),
        Case((((3, 9, 1), "f64"),), {"onesided": True}),
        Case((((3, 16, 2), "f32"),), {"onesided": True, "inverse": True}),
        Case((((3, 8, 1), "f16"),), {"axis": 0}),
        Case((((2, 5, 1), "f32"), np.array(8, np.int64)), const=(1,)),
        Case((((70, 24, 1), "f32"),), {"onesided": True}),  # signals at once, the last few again
        Case((((9, 30, 1), "f32"),)),
        Case((((2, 32, 9, 2), "f32"),)),
        Case((((17, 9, 1), "f64"),), {"inverse": True, "onesided": True}),
        Case((((1, 512, 1), "f32"),), {"onesided": True}),
        Case((((1, 400, 1), "f32"),), {"onesided": True}),
        Case((((1, 98, 2), "f32"),)),
        Case((((3, 2, 1), "f32"),), {"onesided": True}),
        Case((((2, 1, 1), "f32"),), {"onesided": True}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        x = n.arg(0)
        rank = len(x.shape)
        if rank < 2 or x.shape[-1] not in (1, 2):
            raise Refusal(f"DFT of shape {list(x.shape)}; the last axis must be 1 or 2 long")
        if x.dtype not in (dtypes.f32, dtypes.f64, dtypes.f16, dtypes.bf16):
            raise Refusal(f"DFT of {x.dtype}")
        axis = axis_of(self.axis, rank)
        if axis == rank - 1:
            raise Refusal("DFT along the axis of real and imaginary parts")
        if self.onesided and not self.inverse and x.shape[-1] == 2:
            raise Refusal("DFT: a complex signal has no one-sided spectrum")
        size = self.length(n)
        shape = list(x.shape)
        shape[axis] = size // 2 + 1 if self.onesided and not self.inverse else size
        shape[-1] = 1 if self.onesided and self.inverse else 2
        return [TensorType(tuple(shape), x.dtype)]

    def length(self, n: Node) -> int:
        x = n.arg(0).shape
        own = x[axis_of(self.axis, len(x))]
        if self.onesided and self.inverse:
            own = dims.mul(dims.add(own, -1), 2)
        return length_of(n, 1, own, "length")

    def ref(self, n: Node, x: Any, size: Any = None) -> Any:
        y = transform(x, self.length(n), self.axis % x.ndim, self.inverse, self.onesided)
        return y.astype(x.dtype)

    def lower(self, k: Lowering) -> Code:
        x, y, size = k.x(0), k.y(), self.length(k.node)
        axis = self.axis % len(x.shape)
        before, inner = dims.product(x.shape[:axis]), dims.product(x.shape[axis + 1 : -1])
        kind, parts = x.dtype.compute, dims.upper(x.shape[-1])
        own, outs = x.shape[axis], y.shape[axis]
        mirror = self.inverse and self.onesided

        def element(part: int) -> str:
            return k.load(0, f"p * {parts} + {part}") if part < parts else "0"

        def read(j: str) -> tuple[list[str], str, str]:
            at, lines = j, list[str]()
            if mirror:
                lines.append(f"const bool back = {j} > {size // 2};")
                lines.append(f"const ix at = back ? {size} - {j} : {j};")
                at = "at"
            inside = f"{at} < {k.dim(own)}"
            lines.append(
                f"const ix p = (a * {k.dim(own)} + ({inside} ? {at} : 0)) * {k.dim(inner)} + b;"
            )
            im = f"back ? -{element(1)} : {element(1)}" if mirror else element(1)
            return lines, f"{inside} ? {element(0)} : 0", f"{inside} ? ({im}) : 0"

        scale = f" * ({kind.ctype})(1.0 / {size})" if self.inverse else ""

        def write(j: str, re: str, im: str) -> list[str]:
            at = f"((a * {k.dim(outs)} + {j}) * {k.dim(inner)} + b)"
            if mirror:
                return [k.store(0, at, re + scale)]
            return [k.store(0, f"2 * {at}", re + scale), k.store(0, f"2 * {at} + 1", im + scale)]

        signals = [f"const ix a = o / {k.dim(inner)}, b = o % {k.dim(inner)};"]
        count = dims.mul(before, inner)
        t = _Transforms(kind, size, count, outs, parts == 1 and not self.inverse, self.inverse)
        return t.code(k, signals, read, write)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        """Opset 17 has the axis as an attribute, 20 as a third input (default -2)."""
        x, size = n.arg(0), n.input(1)
        axis = int(n.attr("axis", 1))
        if n.opset >= 20:
            axis = -2
            if n.input(2) is not None:
                axis = _constant(n, b, 2, "axis")
        op = cls(axis, bool(n.attr("inverse", 0)), bool(n.attr("onesided", 0)))
        return b.ops(op, x, size, name=n.output_names)


def _constant(n: OnnxNode, b: Builder, i: int, what: str) -> int:
    probe = Node(DFT(), [n.arg(i)], (), b.origin)
    try:
        return scalar_of(probe, 0, what)
    finally:
        n.arg(i).uses.remove(probe)


LANES = 16  # signals at once, at most
MANY = (
    4  # times as many signals as are transformed at once: then their scratch is little beside them
)

Read = Callable[[str], tuple[list[str], str, str]]
Write = Callable[[str, str, str], list[str]]


@dataclass(frozen=True)
class _Transforms:
    """Transforms of `count` signals of `size` points, of which `outs` are wanted; real: the signals
    are."""

    kind: dtypes.DType
    size: int
    count: Dim
    outs: Dim
    real: bool
    inverse: bool

    def code(self, k: Lowering, signal: Sequence[str], read: Read, write: Write) -> Code:
        """signal: statements that make what stands for signal `o`; read(j): statements, and the
        real and imaginary part of its point j; write(j, re, im): statements that store those.

        Two neighbours of a real signal are one complex point of a transform of half the size."""
        size, t, name = self.size, self.kind.ctype, self.kind.name
        lanes = LANES
        while lanes > 1 and not (isinstance(self.count, int) and self.count >= MANY * lanes):
            lanes //= 2
        halved = self.real and size % 2 == 0
        points = size // 2 if halved else size
        room = 2 * lanes * (points + 1)
        outs, count = k.dim(self.outs), k.dim(self.count)

        def each(body: Sequence[str], points: str) -> list[str]:
            some = ["const ix o = of_min_ix(g + l, last);", *signal] if lanes > 1 else [
                "const ix o = g;", *signal]  # fmt: skip
            inner = [f"  for (ix j = 0; j < {points}; j++) {{", *_indented(body, 4), "  }"]
            return [f"for (ix l = 0; l < {lanes}; l++) {{", *_indented(some), *inner, "}"]

        lines, re, im = read("j")
        if halved:
            fill = [*lines, f"in[(j % 2 * {points} + j / 2) * {lanes} + l] = {re};"]
        else:
            fill = [*lines, f"in[j * {lanes} + l] = {re};"]
            fill.append(f"in[({points} + j) * {lanes} + l] = {im};")
        sign = -1 if self.inverse else 1
        run = [f"const {t} *z = of_dft_{name}(in, work, table, {points}, {lanes}, {size}, {sign});"]
        to = f"z[j * {lanes} + l]", f"z[({points} + j) * {lanes} + l]"
        if halved:
            run.append(f"z = of_dft_real_{name}(z, z == in ? work : in, table, {size}, {lanes});")
            both = not isinstance(self.outs, int) or self.outs > points + 1
            at = f"(j > {points} ? {size} - j : j)" if both else "j"
            to = f"z[{at} * {lanes} + l]", f"z[({points + 1} + {at}) * {lanes} + l]"
            if both:
                to = to[0], f"(j > {points} ? -{to[1]} : {to[1]})"
        text = [
            f"{t} *const table = ({t} *)s, *const in = table + {2 * size};",
            f"{t} *const work = in + {room};",
            f"of_dft_table_{name}(table, {size});",
            *([f"const ix last = {count} - 1;"] if lanes > 1 else []),
            f"for (ix g = 0; g < {count}; g += {lanes}) {{",
            *_indented([*each(fill, str(size)), *run, *each(write("j", *to), outs)]),
            "}",
        ]
        return Code("\n".join(text), ("of_dft.h",), (2 * size + 2 * room) * self.kind.bytes)


def _indented(lines: Sequence[str], by: int = 2) -> list[str]:
    return [" " * by + line for line in lines]


@operator
class STFT(Op):
    """Spectra [B, frames, bins, 2] of frames of a signal [B, L, 1 or 2] (or [B, L]): inputs signal,
    frame_step, window or absent, frame_length or absent."""

    onesided: bool = True
    onnx: ClassVar = ("STFT",)
    cases: ClassVar = (
        Case((((2, 40, 1), "f32"), np.array(8, np.int64), ((16,), "f32")), const=(1,)),
        Case((((1, 30, 2), "f32"), np.array(5, np.int64), None, np.array(10, np.int64)),
             {"onesided": False}, const=(1, 3)),
        Case((((1, 21, 1), "f64"), np.array(4, np.int64), ((7,), "f64"), np.array(7, np.int64)),
             const=(1, 3)),
        Case((((2, 96, 1), "f32"), np.array(5, np.int64), ((12,), "f32")), const=(1,)),
    )  # fmt: skip

    def geometry(self, n: Node) -> tuple[int, int]:
        """(frame step, frame length)."""
        step = length_of(n, 1, 0, "frame step")
        window = n.input(2)
        if window is None and n.input(3) is None:
            raise Refusal("STFT has neither a window nor a frame length")
        own = window.shape[0] if window is not None and len(window.shape) == 1 else 0
        size = length_of(n, 3, own, "frame length")
        if window is not None and (window.shape != (size,) or window.dtype is not n.arg(0).dtype):
            raise Refusal(f"STFT has a window {window.type} for frames of {size}")
        return step, size

    def infer(self, n: Node) -> Sequence[TensorType]:
        x = n.arg(0)
        if len(x.shape) not in (2, 3) or (len(x.shape) == 3 and x.shape[2] not in (1, 2)):
            raise Refusal(f"STFT of shape {list(x.shape)}")
        if x.dtype not in (dtypes.f32, dtypes.f64, dtypes.f16, dtypes.bf16):
            raise Refusal(f"STFT of {x.dtype}")
        if self.onesided and len(x.shape) == 3 and x.shape[2] == 2:
            raise Refusal("STFT: a complex signal has no one-sided spectrum")
        step, size = self.geometry(n)
        frames = dims.add(dims.floordiv(dims.add(x.shape[1], -size), step), 1)
        if dims.upper(frames) < 1:
            raise Refusal(f"STFT of {x.shape[1]} samples in frames of {size}")
        bins = size // 2 + 1 if self.onesided else size
        return [TensorType((x.shape[0], frames, bins, 2), x.dtype)]

    def ref(self, n: Node, x: Any, step: Any, window: Any = None, size: Any = None) -> Any:
        hop, length = self.geometry(n)
        x = x[..., None] if x.ndim == 2 else x
        count = (x.shape[1] - length) // hop + 1
        at = np.arange(count)[:, None] * hop + np.arange(length)
        frames = x[:, at].astype(np.float64)
        if window is not None:
            frames = frames * window.astype(np.float64)[:, None]
        return transform(frames, length, 2, False, self.onesided).astype(x.dtype)

    def lower(self, k: Lowering) -> Code:
        x, y = k.x(0), k.y()
        step, size = self.geometry(k.node)
        kind = x.dtype.compute
        parts = x.shape[2] if len(x.shape) == 3 else 1
        frames, bins = y.shape[1], y.shape[2]

        def read(j: str) -> tuple[list[str], str, str]:
            lines = [f"const ix p = a * {k.dim(x.shape[1])} + f * {step} + {j};"]
            weight = f"{k.load(2, j)} * " if k.has(2) else ""
            im = f"{weight}{k.load(0, '2 * p + 1')}" if parts == 2 else "0"
            return lines, f"{weight}{k.load(0, f'{parts} * p')}", im

        def write(j: str, re: str, im: str) -> list[str]:
            at = f"2 * (o * {k.dim(bins)} + {j})"
            return [k.store(0, at, re), k.store(0, f"{at} + 1", im)]

        signals = [f"const ix a = o / {k.dim(frames)}, f = o % {k.dim(frames)};"]
        count = dims.mul(x.shape[0], frames)
        return _Transforms(kind, size, count, bins, parts == 1, False).code(k, signals, read, write)


@operator
class MelWeightMatrix(Op):
    """Weights [dft_length // 2 + 1, bins] that turn a spectrum into mel bands: triangles whose
    corners are spaced evenly in mel. All five inputs are known when the model is compiled."""

    to: dtypes.DType = dtypes.f32
    host_only: ClassVar = "its inputs are constants, so that it is folded"
    cases: ClassVar = ()

    def infer(self, n: Node) -> Sequence[TensorType]:
        bins, size = scalar_of(n, 0, "number of bins"), scalar_of(n, 1, "length")
        scalar_of(n, 2, "sample rate")
        for i in (3, 4):
            need_const(n, i, "edge frequency")
        if not 0 < bins <= 1 << 16 or not 0 < size <= LONGEST or bins * size > LONGEST:
            raise Refusal(f"MelWeightMatrix of {bins} bins for {size} points")
        if not self.to.is_float and not self.to.is_int:
            raise Refusal(f"MelWeightMatrix of {self.to}")
        return [TensorType((size // 2 + 1, bins), self.to)]

    def ref(self, n: Node, *x: Any) -> Any:
        bins, size, rate = (int(np.ravel(a)[0]) for a in x[:3])
        low, high = (float(np.ravel(a)[0]) for a in x[3:])
        mel = np.linspace(0, bins + 1, bins + 2)
        ends = [2595 * np.log10(1 + f / 700) for f in (low, high)]
        mel = mel * ((ends[1] - ends[0]) / (bins + 2)) + ends[0]
        hertz = 700 * (np.power(10, mel / 2595) - 1)
        corner = np.floor((size + 1) * hertz / max(rate, 1)).astype(np.int64)
        y = np.zeros((size // 2 + 1, bins))
        for k in range(bins):
            left, middle, right = (int(c) for c in corner[k : k + 3])
            for i in range(max(left, 0), min(middle, len(y) - 1) + 1):
                y[i, k] = 1.0 if left == middle else (i - left) / (middle - left)
            for i in range(max(middle, 0), min(right, len(y))):
                y[i, k] = (right - i) / (right - middle)
        return y.astype(self.to.numpy)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        to = n.dtype("output_datatype") or dtypes.f32
        return b.ops(cls(to), *n.inputs, name=n.output_names)

    onnx: ClassVar = ("MelWeightMatrix",)


@operator
class Det(Op):
    """The determinant of square matrices [..., n, n], by elimination with partial pivoting."""

    onnx: ClassVar = ("Det",)
    cases: ClassVar = (
        Case((((3, 3), "f32"),)),
        Case((((2, 3, 4, 4), "f32"),)),
        Case((np.zeros((2, 5, 5), np.float32),)),
        Case((((1, 1), "f64"),)),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        x = n.arg(0)
        if len(x.shape) < 2 or x.shape[-1] != x.shape[-2]:
            raise Refusal(f"Det of shape {list(x.shape)}; square matrices are needed")
        if not x.dtype.is_float:
            raise Refusal(f"Det of {x.dtype}")
        return [TensorType(x.shape[:-2], x.dtype)]

    def ref(self, n: Node, x: Any) -> Any:
        return np.linalg.det(x.astype(np.float64)).astype(x.dtype)

    def lower(self, k: Lowering) -> Code:
        x = k.x(0)
        size, c = k.dim(x.shape[-1]), x.dtype.compute
        text = f"""
{c.ctype} *const a = ({c.ctype} *)s;
for (ix b = 0; b < {k.dim(dims.product(x.shape[:-2]))}; b++) {{
  for (ix i = 0; i < {size} * {size}; i++) a[i] = {k.load(0, f"b * {size} * {size} + i")};
  {c.ctype} det = 1;
  for (ix j = 0; j < {size}; j++) {{
    ix p = j;
    for (ix i = j + 1; i < {size}; i++)
      if (of_abs_{c.name}(a[i * {size} + j]) > of_abs_{c.name}(a[p * {size} + j])) p = i;
    if (p != j) {{
      det = -det;
      for (ix i = j; i < {size}; i++) {{
        const {c.ctype} t = a[j * {size} + i];
        a[j * {size} + i] = a[p * {size} + i];
        a[p * {size} + i] = t;
      }}
    }}
    const {c.ctype} pivot = a[j * {size} + j];
    det *= pivot;
    if (pivot == 0) break;
    for (ix i = j + 1; i < {size}; i++) {{
      const {c.ctype} f = a[i * {size} + j] / pivot;
      for (ix l = j + 1; l < {size}; l++) a[i * {size} + l] -= f * a[j * {size} + l];
    }}
  }}
  {k.store(0, "b", "det")}
}}"""
        return Code(text, (), dims.mul(dims.mul(x.shape[-1], x.shape[-1]), c.bytes))
