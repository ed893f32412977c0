"""Element types of model files: their names here, widths, and how bytes become NumPy arrays.

The names are the strings used in every record: `float32`, `int4`, `float8e4m3fn`, ...
Elements narrower than a byte are packed without gaps, the first element in the lowest bits
(ONNX `onnx.proto`, TFLite `schema.fbs`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onefold.errors import MemoryLimitError, ModelFormatError

Array = npt.NDArray[Any]

BITS: dict[str, int] = {
    "float32": 32, "float64": 64, "float16": 16, "bfloat16": 16, "bool": 8,
    "int8": 8, "int16": 16, "int32": 32, "int64": 64, "int4": 4, "int2": 2,
    "uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64, "uint4": 4, "uint2": 2,
    "complex64": 64, "complex128": 128,
    "float8e4m3fn": 8, "float8e4m3fnuz": 8, "float8e5m2": 8, "float8e5m2fnuz": 8,
    "float8e8m0": 8, "float6e2m3": 6, "float6e3m2": 6, "float4e2m1": 4,
}
"""Bits of one element; `string` and the handle types of TFLite have no fixed width."""

_ML_DTYPES = {
    "bfloat16": "bfloat16", "int4": "int4", "uint4": "uint4", "int2": "int2", "uint2": "uint2",
    "float8e4m3fn": "float8_e4m3fn", "float8e4m3fnuz": "float8_e4m3fnuz",
    "float8e5m2": "float8_e5m2", "float8e5m2fnuz": "float8_e5m2fnuz",
    "float8e8m0": "float8_e8m0fnu", "float6e2m3": "float6_e2m3fn",
    "float6e3m2": "float6_e3m2fn", "float4e2m1": "float4_e2m1fn",
}

MAX_ELEMENTS = 2**58
"""More elements than this cannot be addressed; a shape beyond it is an error, not a number."""

MAX_RANK = 64
"""Most dimensions of a tensor, as in NumPy."""

MAX_DENSE_BYTES = 2**30
"""Largest array made from a sparse tensor: its size is bounded by no number of file bytes."""


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """The NumPy type of an element type; those that NumPy lacks come from `ml_dtypes`."""
    if dtype in _ML_DTYPES:
        import ml_dtypes  # 10 ms that most models do not need
        exotic: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _ML_DTYPES[dtype]))
        return exotic
    return np.dtype(object) if dtype == "string" else np.dtype(dtype)


def element_count(dims: Sequence[int], where: str) -> int:
    """Product of `dims`.

    Raises `ModelFormatError` when a dimension is negative, when there are too many, and when the
    product overflows, which is judged without the zeros, so that strides stay computable.
    """
    if len(dims) > MAX_RANK:
        raise ModelFormatError("too many dimensions", where=where,
                               why=f"{len(dims)} of at most {MAX_RANK}")
    if any(d < 0 for d in dims):
        raise ModelFormatError("negative dimension", where=where, why=f"the shape is {_show(dims)}")
    if math.prod(d for d in dims if d) > MAX_ELEMENTS:
        raise ModelFormatError("shape overflows", where=where,
                               why=f"the shape {_show(dims)} has over 2^58 elements")
    return math.prod(dims)


def byte_count(dtype: str, count: int) -> int:
    """Bytes that `count` elements take in a file, packed."""
    return (count * BITS[dtype] + 7) // 8


def decode(raw: memoryview, dtype: str, dims: Sequence[int], where: str) -> Array:
    """Little-endian packed bytes as an array of shape `dims`.

    Types of 8 bits and more are a read-only view of `raw`; bool and sub-byte types are a copy,
    one byte per element.  Raises `ModelFormatError` when `raw` has not exactly the right length.
    """
    count = element_count(dims, where)
    need = byte_count(dtype, count)
    if len(raw) != need:
        raise ModelFormatError(
            "tensor data has the wrong length", where=where,
            why=f"{count} elements of {dtype} take {need} bytes, the file gives {len(raw)}")
    if dtype == "bool":
        # A view would let bytes other than 0 and 1 pass as booleans.
        truth: Array = np.frombuffer(raw, np.uint8) != 0
        return truth.reshape(dims)
    if BITS[dtype] < 8:
        return unpack(np.frombuffer(raw, np.uint8), dtype, count).reshape(dims)
    flat: Array = np.frombuffer(raw, numpy_dtype(dtype))
    return (flat if sys.byteorder == "little" else flat.byteswap()).reshape(dims)


def unpack(packed: npt.NDArray[np.uint8], dtype: str, count: int) -> Array:
    """Elements of 2, 4 or 6 bits, one per byte, as the `ml_dtypes` type (unused bits are 0)."""
    bits = BITS[dtype]
    if bits == 6:
        stream = np.unpackbits(packed, bitorder="little", count=count * 6).reshape(count, 6)
        codes = stream @ (1 << np.arange(6, dtype=np.uint8))
    else:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        codes = ((packed[:, None] >> shifts) & ((1 << bits) - 1)).reshape(-1)[:count]
    return codes.astype(np.uint8).view(numpy_dtype(dtype))


def check_dense(count: int, dtype: str, where: str) -> None:
    """Refuses to expand a sparse tensor that would need more than `MAX_DENSE_BYTES`."""
    if byte_count(dtype, count) > MAX_DENSE_BYTES:
        raise MemoryLimitError(
            "sparse tensor is too large to expand", where=where,
            why=f"its dense form has {count} elements of {dtype}, over 1 GiB")


def _show(dims: Sequence[int]) -> str:
    shown = "x".join(str(d) for d in dims[:12])
    return shown + ("x..." if len(dims) > 12 else "")
