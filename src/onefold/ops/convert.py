"""Element type conversion in NumPy, by ONNX's rules, for operator references."""

from __future__ import annotations

from typing import Any

import numpy as np

from onefold.ir import dtypes
from onefold.ir.dtypes import DType
from onefold.ir.graph import Array

_FINITE_MAX = {"f8e4m3fn": 448.0, "f8e4m3fnuz": 240.0, "f8e5m2": 57344.0, "f8e5m2fnuz": 57344.0}


def convert(x: Array, to: DType, saturate: bool = True) -> Array:
    """x in the element type `to`.

    Floats to integers truncate toward zero and saturate (NaN gives 0); integers to narrower
    integers wrap; eight-bit floats saturate on demand (ONNX Cast-19).
    """
    source = dtypes.of(x.dtype)
    if source is to:
        return x
    if to is dtypes.b1:
        return np.asarray(x != 0)
    with np.errstate(all="ignore"):
        if to.is_int and source.is_float:
            return _to_int(x.astype(np.float64), to)
        if to.bits < 8 and to.is_int:
            return _wrap(x.astype(np.int64), to)
        if to.name in _FINITE_MAX:
            return _to_f8(x.astype(np.float32), to, saturate)
        if to.is_float and source.is_float and to.bits < 16:
            return x.astype(np.float32).astype(to.numpy)
        return x.astype(to.numpy)


def _to_int(x: Array, to: DType) -> Array:
    t = np.trunc(np.nan_to_num(x, nan=0.0, posinf=float(to.hi), neginf=float(to.lo)))
    big, small = t >= float(to.hi), t <= float(to.lo)
    inner = np.where(big | small, 0.0, t)
    wide: Any = inner.astype(np.uint64 if to is dtypes.u64 else np.int64)
    out = np.where(big, np.array(to.hi, wide.dtype), np.where(small, np.array(to.lo, wide.dtype), wide))
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
