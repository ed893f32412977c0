"""Element types: one frozen record per type, known by its short name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

Kind = Literal["float", "int", "uint", "bool", "complex", "string"]


@dataclass(frozen=True, slots=True)
class DType:
    """An element type.

    name: short name used in the text form ("f32"); long: the name that ONNX and NumPy use
    ("float32"); bits: significant bits; bytes: storage per element in memory (sub-byte types
    take one byte each, they are packed only in files); ctype: storage type in C.
    """

    name: str
    long: str
    kind: Kind
    bits: int
    bytes: int
    ctype: str

    def __repr__(self) -> str:
        return self.name

    @property
    def numpy(self) -> np.dtype[Any]:
        return _numpy(self.name)

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_int(self) -> bool:
        """Signed or unsigned integer (not bool)."""
        return self.kind in ("int", "uint")

    @property
    def lo(self) -> int:
        """Smallest integer of an integer type."""
        return -(1 << (self.bits - 1)) if self.kind == "int" else 0

    @property
    def hi(self) -> int:
        """Largest integer of an integer type."""
        return (1 << (self.bits - 1)) - 1 if self.kind == "int" else (1 << self.bits) - 1

    @property
    def compute(self) -> DType:
        """The type in which arithmetic on this type happens in C."""
        if self.kind == "float":
            return f64 if self.bits == 64 else f32
        return self


f64 = DType("f64", "float64", "float", 64, 8, "double")
f32 = DType("f32", "float32", "float", 32, 4, "float")
f16 = DType("f16", "float16", "float", 16, 2, "of_f16")
bf16 = DType("bf16", "bfloat16", "float", 16, 2, "of_bf16")
f8e4m3fn = DType("f8e4m3fn", "float8e4m3fn", "float", 8, 1, "uint8_t")
f8e4m3fnuz = DType("f8e4m3fnuz", "float8e4m3fnuz", "float", 8, 1, "uint8_t")
f8e5m2 = DType("f8e5m2", "float8e5m2", "float", 8, 1, "uint8_t")
f8e5m2fnuz = DType("f8e5m2fnuz", "float8e5m2fnuz", "float", 8, 1, "uint8_t")
f8e8m0 = DType("f8e8m0", "float8e8m0", "float", 8, 1, "uint8_t")
f4e2m1 = DType("f4e2m1", "float4e2m1", "float", 4, 1, "uint8_t")
i64 = DType("i64", "int64", "int", 64, 8, "int64_t")
i32 = DType("i32", "int32", "int", 32, 4, "int32_t")
i16 = DType("i16", "int16", "int", 16, 2, "int16_t")
i8 = DType("i8", "int8", "int", 8, 1, "int8_t")
i4 = DType("i4", "int4", "int", 4, 1, "int8_t")
i2 = DType("i2", "int2", "int", 2, 1, "int8_t")
u64 = DType("u64", "uint64", "uint", 64, 8, "uint64_t")
u32 = DType("u32", "uint32", "uint", 32, 4, "uint32_t")
u16 = DType("u16", "uint16", "uint", 16, 2, "uint16_t")
u8 = DType("u8", "uint8", "uint", 8, 1, "uint8_t")
u4 = DType("u4", "uint4", "uint", 4, 1, "uint8_t")
u2 = DType("u2", "uint2", "uint", 2, 1, "uint8_t")
b1 = DType("b1", "bool", "bool", 1, 1, "bool")
c64 = DType("c64", "complex64", "complex", 64, 8, "of_c64")
c128 = DType("c128", "complex128", "complex", 128, 16, "of_c128")
string = DType("string", "string", "string", 0, 8, "")

ALL: tuple[DType, ...] = (
    f64, f32, f16, bf16, f8e4m3fn, f8e4m3fnuz, f8e5m2, f8e5m2fnuz, f8e8m0, f4e2m1,
    i64, i32, i16, i8, i4, i2, u64, u32, u16, u8, u4, u2, b1, c64, c128, string,
)  # fmt: skip
BY_NAME: dict[str, DType] = {t.name: t for t in ALL} | {t.long: t for t in ALL}

# ml_dtypes spells these its own way; every other long name is NumPy's.
_ML_NAMES = {
    "bf16": "bfloat16", "f8e4m3fn": "float8_e4m3fn", "f8e4m3fnuz": "float8_e4m3fnuz",
    "f8e5m2": "float8_e5m2", "f8e5m2fnuz": "float8_e5m2fnuz", "f8e8m0": "float8_e8m0fnu",
    "f4e2m1": "float4_e2m1fn", "i4": "int4", "u4": "uint4", "i2": "int2", "u2": "uint2",
}  # fmt: skip


@cache
def _numpy(name: str) -> np.dtype[Any]:
    if name == "string":
        return np.dtype(object)
    if name in _ML_NAMES:
        import ml_dtypes

        made: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _ML_NAMES[name]))
        return made
    return np.dtype(BY_NAME[name].long)


def of(dtype: Any) -> DType:
    """The element type of a NumPy dtype (or of anything NumPy takes for one).

    Raises KeyError where there is none.
    """
    d = np.dtype(dtype)
    if d.kind in "OUST":
        return string
    if d.name in BY_NAME:
        return BY_NAME[d.name]
    for short, long in _ML_NAMES.items():
        if d.name == long:
            return BY_NAME[short]
    raise KeyError(str(dtype))
