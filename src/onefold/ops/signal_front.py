"""The fixed-point audio front end of TFLite Micro (custom operators Signal*).

Source of the arithmetic: tflite-micro's signal library, and kissfft's 16-bit real transform.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.graph import Node, Value
from onefold.ir.scalar import Scalar
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Code, Lowered, Lowering, Op, Refusal, operator


def check(ok: bool, n: Node) -> None:
    if not ok:
        shapes = ", ".join(repr(v.type) for v in n.present())
        raise Refusal(f"its inputs are {shapes}")


def typed(v: Value, kind: dtypes.DType, rank: int | None = None) -> bool:
    return v.dtype is kind and v.tensor.static and (rank is None or v.tensor.rank == rank)


@operator
class SignalWindow(Op):
    """x i16 [..., n] times weights i16 [n], shifted right and saturated."""

    shift: int = 0
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((2, 9), "i16"), ((9,), "i16")), {"shift": 12}),
        Case((((5,), "i16"), ((5,), "i16")), {"shift": 15}),
        Case((((3, 1, 2), "i16"), ((2,), "i16")), {"shift": 0}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, w = n.arg(0), n.arg(1)
        check(x.dtype is dtypes.i16 and typed(w, dtypes.i16, 1) and x.shape[-1:] == w.shape, n)
        if not 0 <= self.shift <= 31:
            raise Refusal(f"a shift of {self.shift}")
        return [TensorType(x.shape, dtypes.i16)]

    def ref(self, n: Node, *x: Any) -> Any:
        v = (x[0].astype(np.int64) * x[1]) >> self.shift
        return np.clip(v, -32768, 32767).astype(np.int16)

    def lower(self, k: Lowering) -> Lowered:
        x, w = k.x(0), k.x(1)

        def element(*i: Dim) -> Scalar:
            p = x(*i).cast(dtypes.i32) * w(i[-1]).cast(dtypes.i32)
            v = scalar.call("shr", p, self.shift)
            return scalar.clamp(v, -32768, 32767).cast(dtypes.i16)

        return k.map(element)


@operator
class SignalFftAutoScale(Op):
    """x i16 [n] scaled up to use all bits -> y i16 [n], the bits of the shift i32 []."""

    exact: ClassVar = True
    cases: ClassVar = (
        Case((((9,), "i16"),)),
        Case((np.array([3, -7, 0, 100], np.int16),)),
        Case((np.zeros(4, np.int16),)),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        check(typed(n.arg(0), dtypes.i16), n)
        return [n.arg(0).tensor, TensorType((), dtypes.i32)]

    def ref(self, n: Node, *x: Any) -> Any:
        v = x[0].astype(np.int64)
        top = int(np.where(-v > 32767, -32768, np.abs(v)).max(initial=0)) if v.size else 0
        bits = max(16 - _msb(top & 0xFFFFFFFF) - 1, 0)
        return (v << bits).astype(np.int16), np.array(bits, np.int32)

    def lower(self, k: Lowering) -> Lowered:
        size = k.dim(dims.product(k.x(0).shape))
        return Code(
            f"""
int16_t top = 0;
for (ix i = 0; i < {size}; i++) {{
  if (x0[i] > top) top = x0[i];
  else if (-x0[i] > top) top = (int16_t)-x0[i];
}}
const int bits = 15 - of_msb_u32((uint32_t)(int32_t)top), up = bits > 0 ? bits : 0;
for (ix i = 0; i < {size}; i++) y0[i] = (int16_t)(x0[i] * (1 << up));
y1[0] = up;""",
            ("of_signal.h",),
        )


def _msb(x: int) -> int:
    """The number of significant bits; 32 for 0, as the library has it."""
    return x.bit_length() if x else 32


def fft_order(n: int) -> list[int]:
    """Radices of a transform of n points, outermost first; 4 before 2."""
    out = []
    while n > 1:
        p = 4 if n % 4 == 0 else 2
        if n % p:
            raise Refusal(f"a transform of {n} points, which is no power of two")
        out.append(p)
        n //= p
    return out


def fft_places(radices: Sequence[int]) -> list[int]:
    """Input index of each element before the first butterflies."""
    places, stride = [0], 1
    for p in radices:
        places = [i + k * stride for i in places for k in range(p)]
        stride *= p
    return places


def _cexp(phase: float) -> tuple[int, int]:
    return math.floor(0.5 + 32767 * math.cos(phase)), math.floor(0.5 + 32767 * math.sin(phase))


def fft_tables(n: int) -> tuple[Any, Any, Any]:
    """(places [n], twiddles [n, 2], those of the last step of a real transform [n / 2, 2])."""
    places = np.array(fft_places(fft_order(n)), np.int16)
    turns = np.array([_cexp(-2 * math.pi * i / n) for i in range(n)], np.int16)
    last = [_cexp(-math.pi * ((i + 1) / n + 0.5)) for i in range(n // 2)]
    return places, turns, np.array(last, np.int16)


@operator
class SignalRfft(Op):
    """Real transform of x i16 [..., n], padded with zeros to fft_length points, in 16-bit fixed
    point scaled by 1 / fft_length -> i16 [..., fft_length + 2]: real and imaginary parts in turn.

    Inputs: x, and the tables of `fft_tables(fft_length / 2)`.
    """

    fft_length: int = 512
    exact: ClassVar = True
    cases: ClassVar = tuple(
        Case((((*rows, length), "i16"), *fft_tables(size // 2)), {"fft_length": size}, seed)
        for seed, (rows, length, size) in enumerate(
            [((), 30, 32), ((2,), 16, 16), ((1,), 400, 512)]
        )
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, half = n.arg(0), self.fft_length // 2
        check(typed(x, dtypes.i16) and x.tensor.rank >= 1, n)
        if not 4 <= self.fft_length <= 1 << 15 or x.tensor.ints[-1] > self.fft_length:
            raise Refusal(f"{x.shape[-1]} samples in a transform of {self.fft_length}")
        fft_order(half)
        check([n.arg(k).shape for k in (1, 2, 3)] == [(half,), (half, 2), (half // 2, 2)], n)
        return [TensorType((*x.shape[:-1], self.fft_length + 2), dtypes.i16)]

    def ref(self, n: Node, *x: Any) -> Any:
        size, half = self.fft_length, self.fft_length // 2
        rows = x[0].reshape(-1, x[0].shape[-1]).astype(np.int64)
        out = np.zeros((len(rows), size + 2), np.int64)
        for row, y in zip(rows, out, strict=True):
            full = np.zeros(size, np.int64)
            full[: len(row)] = row
            z = _complex_fft(full.reshape(half, 2)[x[1].astype(int)], x[2].astype(np.int64))
            _last_step(z, x[3].astype(np.int64), y)
        return out.astype(np.int16).reshape(*x[0].shape[:-1], size + 2)

    def lower(self, k: Lowering) -> Lowered:
        shape = k.x(0).type.ints
        rows, length, size, half = (
            math.prod(shape[:-1]),
            shape[-1],
            self.fft_length,
            self.fft_length // 2,
        )
        stages, m, stride = [], 1, half
        for p in reversed(fft_order(half)):
            stride //= p
            stages.append(f"  of_fft_radix{p}_i16(z, x2, {half}, {m}, {stride});")
            m *= p
        return Code(f"""
int16_t *z = (int16_t *)s;
for (ix row = 0; row < {rows}; row++) {{
  const int16_t *x = x0 + row * {length};
  for (ix i = 0; i < {half}; i++) {{
    const ix at = 2 * (ix)x1[i];
    z[2 * i] = at < {length} ? x[at] : 0;
    z[2 * i + 1] = at + 1 < {length} ? x[at + 1] : 0;
  }}
{chr(10).join(stages)}
  of_fft_real_i16(z, x3, {half}, y0 + row * {size + 2});
}}""", ("of_signal.h",), scratch=4 * half)  # fmt: skip


def _round15(x: Any) -> Any:
    """x / 2^15 to nearest, kept in 16 bits."""
    return ((((x + (1 << 14)) >> 15) + 32768) & 0xFFFF) - 32768


def _wrap16(x: Any) -> Any:
    return ((x + 32768) & 0xFFFF) - 32768


def _scaled(x: Any, by: int) -> Any:
    return _round15(x * (32767 // by))


def _times(a: Any, b: Any) -> Any:
    real = _round15(a[..., 0] * b[..., 0] - a[..., 1] * b[..., 1])
    return np.stack([real, _round15(a[..., 0] * b[..., 1] + a[..., 1] * b[..., 0])], -1)


def _complex_fft(z: Any, turns: Any) -> Any:
    n, m, stride = len(z), 1, len(z)
    for p in reversed(fft_order(n)):
        stride //= p
        v = _scaled(z.reshape(n // (p * m), p, m, 2), p)
        t = [_times(v[:, j], turns[np.arange(m) * stride * j]) if j else v[:, 0] for j in range(p)]
        if p == 2:
            parts = [t[0] + t[1], t[0] - t[1]]
        else:
            s5, s0 = _wrap16(t[0] - t[2]), _wrap16(t[0] + t[2])
            s3, s4 = _wrap16(t[1] + t[3]), _wrap16(t[1] - t[3])
            turned = np.stack([s4[..., 1], -s4[..., 0]], -1)
            parts = [s0 + s3, s5 + turned, s0 - s3, s5 - turned]
        z = _wrap16(np.stack(parts, 1)).reshape(n, 2)
        m *= p
    return z


def _last_step(z: Any, turns: Any, y: Any) -> None:
    n = len(z)
    dc = _scaled(z[0], 2)
    y[0], y[2 * n] = _wrap16(dc[0] + dc[1]), _wrap16(dc[0] - dc[1])
    for k in range(1, n // 2 + 1):
        a = _scaled(z[k], 2)
        b = _scaled(_wrap16(z[n - k] * np.array([1, -1])), 2)
        f1, f2 = _wrap16(a + b), _wrap16(a - b)
        t = _times(f2, turns[k - 1])
        y[2 * k : 2 * k + 2] = (f1 + t) >> 1
        y[2 * (n - k)] = (f1[0] - t[0]) >> 1
        y[2 * (n - k) + 1] = (t[1] - f1[1]) >> 1


@operator
class SignalEnergy(Op):
    """Squared magnitudes of complex x i16 [2 n] from index start to end -> u32 [n], 0 elsewhere."""

    start: int = 0
    end: int = 0
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((20,), "i16"),), {"start": 2, "end": 9}),
        Case((((2,), "i16"),), {"end": 1}),
        Case((((8,), "i16"),), {"start": 3, "end": 3}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        x = n.arg(0)
        check(typed(x, dtypes.i16, 1) and x.tensor.ints[0] % 2 == 0, n)
        count = x.tensor.ints[0] // 2
        if not 0 <= self.start <= self.end <= count:
            raise Refusal(f"bins {self.start} to {self.end} of {count}")
        return [TensorType((count,), dtypes.u32)]

    def ref(self, n: Node, *x: Any) -> Any:
        y = (x[0].astype(np.int64).reshape(-1, 2) ** 2).sum(axis=1)
        i = np.arange(len(y))
        return np.where((i >= self.start) & (i < self.end), y, 0).astype(np.uint32)

    def lower(self, k: Lowering) -> Lowered:
        x = k.x(0)

        def element(i: Dim) -> Scalar:
            re, im = (x(i * 2 + j).cast(dtypes.i32).cast(dtypes.u32) for j in (0, 1))
            return scalar.where(scalar.Inside(i, self.start, self.end), re * re + im * im, 0)

        return k.map(element)


@operator
class SignalFilterBank(Op):
    """Energies x u32 [bins] -> channels u64 [n]: every bin gives its weight to a channel and the
    rest to the next one.

    Inputs: x, weights, unweights i16, and for each of the n + 1 channels (the first is dropped)
    its first bin, first weight and width, all i16 and constant.
    """

    exact: ClassVar = True
    cases: ClassVar = tuple(
        Case((((12,), "u32"), np.arange(1, 11, dtype=np.int16),
              np.arange(10, 0, -1, dtype=np.int16), *(np.array(v, np.int16) for v in table)),
             {}, seed)
        for seed, table in enumerate([
            ([0, 2, 5], [0, 2, 5], [2, 3, 4]), ([1, 1, 1], [0, 0, 0], [1, 0, 9]),
            ([3, 4], [7, 9], [1, 1])])
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        check(typed(n.arg(0), dtypes.u32, 1) and all(
            typed(n.arg(k), dtypes.i16, 1) for k in range(1, 6)), n)  # fmt: skip
        counts = {n.arg(k).tensor.ints[0] for k in (3, 4, 5)}
        if len(counts) != 1 or min(counts) < 2:
            raise Refusal(f"channel tables of {sorted(counts)} entries")
        self._check_tables(n)
        return [TensorType((counts.pop() - 1,), dtypes.u64)]

    def _check_tables(self, n: Node) -> None:
        first, weight, width = (n.const(k) for k in (3, 4, 5))
        if first is None or weight is None or width is None:
            return
        bins = n.arg(0).tensor.ints[0]
        weights = min(n.arg(1).tensor.ints[0], n.arg(2).tensor.ints[0])
        for f, w, size in zip(first.tolist(), weight.tolist(), width.tolist(), strict=True):
            if size > 0 and not (0 <= f and f + size <= bins and 0 <= w and w + size <= weights):
                raise Refusal(f"a channel of {size} bins from {f} on, weights from {w} on")

    def ref(self, n: Node, *x: Any) -> Any:
        v = [a.astype(object) for a in x]
        out, rest = [], 0
        for f, w, size in zip(*(a.tolist() for a in x[3:6]), strict=True):
            bins = v[0][f : f + size] if size > 0 else v[0][:0]
            own = int((bins * v[1][w : w + len(bins)]).sum()) if len(bins) else 0
            out.append(rest + own)
            rest = int((bins * v[2][w : w + len(bins)]).sum()) if len(bins) else 0
        return np.array([o % (1 << 64) for o in out[1:]], np.uint64)

    def lower(self, k: Lowering) -> Lowered:
        bins, weights = k.x(0).type.ints[0], min(k.x(1).type.ints[0], k.x(2).type.ints[0])
        return Code(
            f"""
uint64_t own = 0, rest = 0;
for (ix c = 0; c < {k.x(3).type.ints[0]}; c++) {{
  const ix f = x3[c], w = x4[c], n = x5[c] > 0 ? x5[c] : 0;
  if (n && (f < 0 || w < 0 || f + n > {bins} || w + n > {weights})) OF_STOP(OF_BAD_INDEX);
  for (ix j = 0; j < n; j++) {{
    own += (uint64_t)(int64_t)x1[w + j] * x0[f + j];
    rest += (uint64_t)(int64_t)x2[w + j] * x0[f + j];
  }}
  if (c) y0[c - 1] = own;
  own = rest;
  rest = 0;
}}""",
            stops=True,
        )


@operator
class SignalFilterBankSquareRoot(Op):
    """Rounded roots of x u64 [n], shifted right by a number i32 [] -> u32 [n]."""

    exact: ClassVar = True
    cases: ClassVar = (
        Case((((9,), "u64"), np.array(2, np.int32))),
        Case((np.array([0, 1, 2, 3, 2**32 - 1, 2**32, 2**63, 2**64 - 1], np.uint64),
              np.array(0, np.int32))),
        Case((np.array([10**9, 5], np.uint64), np.array(31, np.int32))),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        check(typed(n.arg(0), dtypes.u64) and typed(n.arg(1), dtypes.i32), n)
        return [TensorType(n.arg(0).shape, dtypes.u32)]

    def ref(self, n: Node, *x: Any) -> Any:
        out = [_root(int(v)) >> int(x[1].reshape(-1)[0]) for v in x[0].reshape(-1)]
        return np.array(out, np.uint32).reshape(x[0].shape)

    def lower(self, k: Lowering) -> Lowered:
        x, bits = k.x(0), k.x(1)

        def element(*i: Dim) -> Scalar:
            root = scalar.call("rounded_root", x(*i), dtype=dtypes.u32)
            return scalar.call("shr", root, bits(*[0] * len(bits.shape)).cast(dtypes.u32))

        return k.map(element)


def _root(x: int) -> int:
    """The root to nearest; that of 32 bits (16) is not rounded beyond all ones."""
    r = math.isqrt(x)
    most = 0xFFFF if x >> 32 == 0 else 0xFFFFFFFF
    return r + 1 if x - r * r > r and r != most else r


@operator
class SignalSpectralSubtraction(Op):
    """Removes a running estimate of the noise from x u32 [n].

    Inputs: x, estimate u32 [n] -> the rest u32 [n], the new estimate u32 [n]. Odd channels use
    the alternate smoothing.
    """

    smoothing: int = 0
    one_minus_smoothing: int = 0
    alternate_smoothing: int = 0
    alternate_one_minus_smoothing: int = 0
    smoothing_bits: int = 10
    min_signal_remaining: int = 0
    spectral_subtraction_bits: int = 14
    clamping: bool = False
    exact: ClassVar = True
    cases: ClassVar = tuple(
        Case((np.arange(1, 8, dtype=np.uint32) * 977, ((7,), "u32")),
             {"smoothing": 409, "one_minus_smoothing": 15975, "alternate_smoothing": 983,
              "alternate_one_minus_smoothing": 15401, "min_signal_remaining": 819,
              "clamping": clamping, "smoothing_bits": bits}, seed)
        for seed, (clamping, bits) in enumerate([(False, 10), (True, 10), (True, 4)])
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, e = n.arg(0), n.arg(1)
        check(typed(x, dtypes.u32, 1) and typed(e, dtypes.u32, 1) and x.shape == e.shape, n)
        for v in (self.smoothing_bits, self.spectral_subtraction_bits):
            if not 0 <= v <= 31:
                raise Refusal(f"a shift of {v}")
        for v in (self.smoothing, self.one_minus_smoothing, self.alternate_smoothing,
                  self.alternate_one_minus_smoothing, self.min_signal_remaining):  # fmt: skip
            if not 0 <= v < 1 << 31:
                raise Refusal(f"a smoothing of {v}")
        return [x.tensor, x.tensor]

    def ref(self, n: Node, *x: Any) -> Any:
        out, kept, mask = [], [], 0xFFFFFFFF
        for i, (v, e) in enumerate(zip(x[0].tolist(), x[1].tolist(), strict=True)):
            a = self.alternate_smoothing if i & 1 else self.smoothing
            b = self.alternate_one_minus_smoothing if i & 1 else self.one_minus_smoothing
            up = (v << self.smoothing_bits) & mask
            new = (((up * a + e * b) & ((1 << 64) - 1)) >> self.spectral_subtraction_bits) & mask
            low = min(new, up)
            kept.append(low if self.clamping else new)
            floor = ((v * self.min_signal_remaining) >> self.spectral_subtraction_bits) & mask
            out.append(max((up - low) >> self.smoothing_bits, floor))
        return np.array(out, np.uint32), np.array(kept, np.uint32)

    def lower(self, k: Lowering) -> Lowered:
        sub = self.spectral_subtraction_bits
        return Code(f"""
for (ix i = 0; i < {k.dim(k.x(0).shape[0])}; i++) {{
  const uint32_t a = i & 1 ? {self.alternate_smoothing}u : {self.smoothing}u;
  const uint32_t b = i & 1 ? {self.alternate_one_minus_smoothing}u : {self.one_minus_smoothing}u;
  const uint32_t v = x0[i], up = v << {self.smoothing_bits};
  const uint32_t next = (uint32_t)(((uint64_t)up * a + (uint64_t)x1[i] * b) >> {sub});
  const uint32_t low = next > up ? up : next;
  const uint32_t least = (uint32_t)(((uint64_t)v * {self.min_signal_remaining}u) >> {sub});
  const uint32_t rest = (up - low) >> {self.smoothing_bits};
  y1[i] = {"low" if self.clamping else "next"};
  y0[i] = rest > least ? rest : least;
}}""")


@operator
class SignalPcan(Op):
    """Per-channel gain: x u32 [n] times a gain looked up (i16 table) by the noise u32 [n]."""

    snr_shift: int = 6
    exact: ClassVar = True
    cases: ClassVar = tuple(
        Case((np.array([0, 1, 5, 900, 123456, 2**31], np.uint32) * scale,
              np.array([0, 2, 3, 1000, 2**20, 2**32 - 1], np.uint32),
              np.random.default_rng(seed).integers(0, 9000, 125).astype(np.int16)),
             {"snr_shift": shift}, seed)
        for seed, (scale, shift) in enumerate([(1, 6), (3, 0), (7, 12)])
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, e, t = n.arg(0), n.arg(1), n.arg(2)
        check(typed(x, dtypes.u32, 1) and typed(e, dtypes.u32, 1) and x.shape == e.shape
              and typed(t, dtypes.i16, 1) and t.tensor.ints[0] >= 125, n)  # fmt: skip
        if not 0 <= self.snr_shift <= 63:
            raise Refusal(f"a shift of {self.snr_shift}")
        return [x.tensor]

    def ref(self, n: Node, *x: Any) -> Any:
        lut = x[2].astype(np.int64).tolist()
        out = []
        for v, e in zip(x[0].tolist(), x[1].tolist(), strict=True):
            gain = _wide_dynamic(e, lut) & 0xFFFFFFFF
            snr = (((v * gain) & ((1 << 64) - 1)) >> self.snr_shift) & 0xFFFFFFFF
            small = ((snr * snr) & 0xFFFFFFFF) >> 20
            out.append(small if snr < 2 << 12 else ((snr >> 6) - 64) & 0xFFFFFFFF)
        return np.array(out, np.uint32)

    def lower(self, k: Lowering) -> Lowered:
        return Code(
            f"""
for (ix i = 0; i < {k.dim(k.x(0).shape[0])}; i++) {{
  const uint32_t gain = (uint32_t)(int32_t)of_wide_dynamic(x1[i], x2);
  const uint32_t snr = (uint32_t)(((uint64_t)x0[i] * gain) >> {self.snr_shift});
  y0[i] = snr < (2u << 12) ? (snr * snr) >> 20 : (snr >> 6) - 64u;
}}""",
            ("of_signal.h",),
        )


def _wide_dynamic(x: int, lut: Sequence[int]) -> int:
    """A function of 32 bits from a table: a parabola for each power of two."""
    if x <= 2:
        return lut[x]
    bits = _msb(x)
    a, b, c = lut[4 * bits - 6 : 4 * bits - 3]
    f = (x << (11 - bits) if bits < 11 else x >> (bits - 11)) & 0x3FF
    v = ((c * f) >> 5) + (b << 5)
    v = ((v * f + (1 << 14)) >> 15) + a
    return int(_wrap16(v))


@operator
class SignalFilterBankLog(Op):
    """ln(x 2^correction) * scale of x u32 [n] -> i16 [n]; 0 for 0 and 1.

    Inputs: x, a table u16 [130] of the logarithm's difference from a line.
    """

    correction: int = 0
    scale: int = 64
    exact: ClassVar = True

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, t = n.arg(0), n.arg(1)
        check(typed(x, dtypes.u32) and typed(t, dtypes.u16, 1) and t.tensor.ints[0] >= 130, n)
        if not 0 <= self.correction <= 31 or not 0 <= self.scale < 1 << 31:
            raise Refusal(f"a correction of {self.correction} bits, a scale of {self.scale}")
        return [TensorType(x.shape, dtypes.i16)]

    def ref(self, n: Node, *x: Any) -> Any:
        lut = x[1].astype(int).tolist()
        out = [
            _log(v << self.correction & 0xFFFFFFFF, self.scale, lut)
            for v in x[0].reshape(-1).tolist()
        ]
        return np.array(out, np.int16).reshape(x[0].shape)

    def lower(self, k: Lowering) -> Lowered:
        return Code(
            f"""
for (ix i = 0; i < {k.dim(dims.product(k.x(0).shape))}; i++)
  y0[i] = of_scaled_log(x0[i] << {self.correction}, {self.scale}u, x1);""",
            ("of_signal.h",),
        )

    cases: ClassVar = tuple(
        Case((np.array([0, 1, 2, 3, 100, 65535, 65536, 2**31 + 5, 2**32 - 1], np.uint32),
              (np.sin(np.arange(130) / 129 * np.pi) * 5641).round().astype(np.uint16)),
             {"correction": bits, "scale": scale})
        for bits, scale in [(3, 64), (0, 64), (1, 6000)]
    )  # fmt: skip


def log_table() -> Any:
    """65536 (log2(1 + i / 128) - i / 128) for 0 <= i <= 128, and one 0 more."""
    i = np.arange(129) / 128
    return np.append(np.round(65536 * (np.log2(1 + i) - i)), 0).astype(np.uint16)


def _log(x: int, scale: int, lut: Sequence[int]) -> int:
    if x <= 1:
        return 0
    whole = _msb(x) - 1
    f = x - (1 << whole)
    f = f << (16 - whole) if whole < 16 else f >> (whole - 16)
    at = f >> 9
    f2 = f + lut[at] + (((lut[at + 1] - lut[at]) * (f - (at << 9))) >> 16)
    natural = ((45426 * (((whole << 16) + f2) & 0xFFFFFFFF) + 32768) >> 16) & 0xFFFFFFFF
    y = ((scale * natural + 32768) & 0xFFFFFFFF) >> 16
    return min(y, 32767)
