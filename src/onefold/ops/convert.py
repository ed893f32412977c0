"""Element type conversion in NumPy, by ONNX's rules, for operator references."""

from __future__ import annotations

from typing import Any

import numpy as np

from onefold.ir import dtypes
from onefold.ir.dtypes import DType
from onefold.ir.graph import Array

_FINITE_MAX = {"f8e4m3fn": 448.0, "f8e4m3fnuz": 240.0, "f8e5m2": 57344.0, "f8e5m2fnuz": 57344.0}


def convert(x: Array, to: DType, saturate: bool = True, round_mode: str = "nearest") -> Array:
    """x in the element type `to`.

    Floats to integers truncate toward zero and saturate (NaN gives 0), where there are at least
    eight bits; integers to narrower integers wrap; eight-bit floats saturate on demand (ONNX
    Cast-19). round_mode is that of float8e8m0.
    """
    source = dtypes.of(x.dtype)
    if source is to:
        return x
    if to is dtypes.string:
        return _to_text(x)
    if source is dtypes.string:
        return _from_text(x, to, saturate)
    if to is dtypes.b1:
        return np.asarray(x != 0)
    with np.errstate(all="ignore"):
        if to.is_int and source.is_float:
            if to.bits < 8:
                return _wrap(_to_int(x.astype(np.float64), dtypes.i32).astype(np.int64), to)
            return _to_int(x.astype(np.float64), to)
        if to.bits < 8 and to.is_int:
            return _wrap(x.astype(np.int64), to)
        if to.name in _FINITE_MAX:
            return _to_f8(x.astype(np.float32), to, saturate)
        if to is dtypes.f8e8m0:
            wide: Array = x.astype(np.float32)
            return rounded_e8m0(wide, round_mode, saturate).astype(to.numpy)
        if to.is_float and source.is_float and to.bits < 16:
            return x.astype(np.float32).astype(to.numpy)
        return x.astype(to.numpy)


def _to_int(x: Array, to: DType) -> Array:
    t = np.trunc(np.nan_to_num(x, nan=0.0, posinf=float(to.hi), neginf=float(to.lo)))
    big, small = t >= float(to.hi), t <= float(to.lo)
    inner = np.where(big | small, 0.0, t)
    wide: Any = inner.astype(np.uint64 if to is dtypes.u64 else np.int64)
    low, high = np.array(to.lo, wide.dtype), np.array(to.hi, wide.dtype)
    out = np.where(big, high, np.where(small, low, wide))
    return np.asarray(out).astype(to.numpy)


def _wrap(x: Array, to: DType) -> Array:
    span = 1 << to.bits
    y = np.mod(x, span)
    if to.kind == "int":
        y = np.where(y > to.hi, y - span, y)
    return np.asarray(y).astype(to.numpy)


def _to_f8(x: Array, to: DType, saturate: bool) -> Array:
    y = x.astype(to.numpy)
    if saturate:
        top = np.float32(_FINITE_MAX[to.name])
        over = np.abs(x) > top
        clipped = np.copysign(top, x).astype(to.numpy)
        y = np.where(over, clipped, y)
    return np.asarray(y)


def rounded_e8m0(x: Array, mode: str, saturate: bool) -> Array:
    """Float32 numbers rounded to powers of two that float8e8m0 holds (ONNX Cast-24); the sign is
    ignored."""
    a = np.abs(x)
    code = (a.view(np.uint32) >> 23).astype(np.int64)
    rest = (a.view(np.uint32) & 0x7FFFFF).astype(np.int64)
    if mode == "up":
        code += rest > 0
    elif mode == "nearest":
        code += (rest > 0x400000) | ((rest == 0x400000) & (code > 0))
    y = np.exp2(np.minimum(code, 254).astype(np.float64) - 127).astype(np.float32)
    lost = (code > 254) | ((a == 0) & (not saturate))
    return np.where(np.isnan(x) | (lost & (not saturate)), np.float32(np.nan), y)


def _to_text(x: Array) -> Array:
    """The shortest decimal text that gives the number back; infinities as INF and -INF."""
    names = {"inf": "INF", "-inf": "-INF", "nan": "NaN", "True": "1", "False": "0"}
    wide = x.astype(np.float32) if dtypes.of(x.dtype).is_float and x.dtype.itemsize < 2 else x
    texts = [str(v) for v in wide.reshape(-1)]
    out = np.empty(len(texts), object)
    out[:] = [names.get(s, s) for s in texts]
    return out.reshape(x.shape)


def _from_text(x: Array, to: DType, saturate: bool) -> Array:
    values = []
    for v in x.reshape(-1):
        text = v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v)
        try:
            values.append(int(text) if to.is_int else float(text))
        except ValueError:
            values.append(float(text))
    kind = object if to.is_int and all(isinstance(v, int) for v in values) else np.float64
    wide = np.array(values, kind).reshape(x.shape)
    if kind is object:
        span = 1 << to.bits
        wrapped = [(int(v) - to.lo) % span + to.lo for v in values]
        return np.array(wrapped, object).reshape(x.shape).astype(to.numpy)
    return convert(wide, to, saturate)
