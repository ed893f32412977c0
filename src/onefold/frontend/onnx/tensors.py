"""ONNX tensors: where their elements lie, and how they become arrays.

Elements may lie in `raw_data`, in one of five typed fields, in `string_data`, or in another file;
narrow types share the field `int32_data` (`onnx.proto`, message TensorProto).
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onefold.errors import ModelFormatError
from onefold.frontend import elements
from onefold.frontend.source import Source

Segments = Sequence["memoryview | array[Any]"]
Array = npt.NDArray[Any]

CHUNK = 1 << 20
"""Bytes of packed numbers decoded at a time, which bounds the scratch memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One tensor, not decoded yet.

    `dtype` is a name of `frontend.elements.BITS`, or `string`, `undefined`, or `UNKNOWN_<n>`.
    `raw_data` is None unless the elements lie there; `fields` are the typed fields present, by
    name; `external` are the entries that name another file, or None.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    raw_data: memoryview | None
    fields: Mapping[str, Segments]
    strings: Sequence[memoryview]
    external: Mapping[str, str] | None
    source: Source

    @property
    def count(self) -> int:
        """Number of elements."""
        return elements.element_count(self.dims, self.where)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements as a file holds them, packed; of strings, their characters."""
        if self.dtype == "string":
            return sum(len(s) for s in self.strings)
        return elements.byte_count(self._known(), self.count)

    @property
    def where(self) -> str:
        return f"{self.source.name}: tensor '{self.name[:200]}'"

    @property
    def is_external(self) -> bool:
        """True when the elements lie in another file, which is not opened before they are read."""
        return self.external is not None

    def numpy(self) -> Array:
        """The elements as an array of shape `dims`, read-only where it is a view of the file.

        Types that NumPy lacks are those of `ml_dtypes`, one element per byte where narrower;
        strings are an object array of str (bytes where not UTF-8).
        Raises `ModelFormatError` when the data is missing or of the wrong length.
        """
        if self.dtype == "string":
            return self._string_array()
        dtype = self._known()
        raw = self.raw()
        if raw is not None:
            return elements.decode(raw, dtype, self.dims, self.where)
        return self._from_fields(dtype)

    def raw(self) -> memoryview | None:
        """The elements as little-endian packed bytes, uncopied; None when in typed fields."""
        return self._external_bytes() if self.external is not None else self.raw_data

    def _known(self) -> str:
        if self.dtype not in elements.BITS:
            raise ModelFormatError(f"tensor has element type {self.dtype}", where=self.where,
                                   why="its bytes cannot be understood")
        return self.dtype

    def _string_array(self) -> Array:
        if len(self.strings) != self.count:
            raise self._wrong_count(f"{len(self.strings)} strings")
        flat = np.empty(self.count, object)
        for i, s in enumerate(self.strings):
            flat[i] = text_or_bytes(s)
        return flat.reshape(self.dims)

    def _wrong_count(self, found: str) -> ModelFormatError:
        return ModelFormatError(
            "tensor data has the wrong length", where=self.where,
            why=f"the shape {list(self.dims)[:12]} has {self.count} elements, the file gives "
                f"{found}")

    def _from_fields(self, dtype: str) -> Array:
        """Elements of the typed field that belongs to the type."""
        name, storage = _FIELD.get(dtype, ("int32_data", "i4"))
        segments = self.fields.get(name, ())
        bits = elements.BITS[dtype]
        count = self.count
        stored = {4: (count + 1) // 2, 2: (count + 3) // 4}.get(bits, count)
        if dtype.startswith("complex"):
            stored *= 2
        values = numbers(segments, np.dtype(storage), stored, self.where)
        if values is None:
            size = sum(memoryview(s).nbytes for s in segments)
            raise self._wrong_count(f"another number of values in {size} bytes of {name}")
        if bits < 8 and bits != 6:
            return elements.unpack(values.astype(np.uint8), dtype, count).reshape(self.dims)
        if dtype == "bool":
            truth: Array = values != 0
            return truth.reshape(self.dims)
        if name == "int32_data" or dtype == "uint32":
            # The integer's low bits are the element's own bits.
            values = values.astype(f"u{bits // 8 or 1}")
            values = values & 0x3F if bits == 6 else values
        return values.view(elements.numpy_dtype(dtype)).reshape(self.dims)

    def _external_bytes(self) -> memoryview:
        """The part of another file that holds the elements, mapped and checked."""
        assert self.external is not None
        if self.dtype == "string":
            raise self._external_error("strings cannot lie in another file")
        location = self.external.get("location")
        if location is None:
            raise self._external_error("no location is given")
        offset = self._external_number("offset", 0)
        length = self._external_number("length", self.nbytes)
        if length != self.nbytes:
            raise self._external_error(f"it is {length} bytes long, the shape needs {self.nbytes}")
        data = self.source.external(location)
        if offset + length > len(data):
            raise self._external_error(f"'{location}' has {len(data)} bytes, but "
                                       f"{offset + length} are needed")
        return data[offset:offset + length]

    def _external_number(self, key: str, default: int) -> int:
        text = self.external.get(key, "") if self.external else ""
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise self._external_error(f"its {key} '{text[:40]}' is not a number")
        return int(text)

    def _external_error(self, why: str) -> ModelFormatError:
        return ModelFormatError("external data cannot be used", where=self.where, why=why,
                                kind=ModelFormatError.EXTERNAL)


_FIELD = {
    "float32": ("float_data", "f4"), "complex64": ("float_data", "f4"),
    "float64": ("double_data", "f8"), "complex128": ("double_data", "f8"),
    "int64": ("int64_data", "i8"), "uint64": ("uint64_data", "u8"),
    "uint32": ("uint64_data", "u8"),
}


@dataclass(frozen=True, slots=True, eq=False)
class SparseTensor:
    """Non-zero `values` (one dimension) at `indices`: linear ones, or one row of coordinates each.

    The name is that of `values`.
    """

    values: Tensor
    indices: Tensor
    dims: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.values.name

    @property
    def dtype(self) -> str:
        return self.values.dtype

    def numpy(self) -> Array:
        """The dense array.  `ModelFormatError` when an index lies outside of `dims`,
        `MemoryLimitError` when it would exceed 1 GiB."""
        where = self.values.where
        count = elements.element_count(self.dims, where)
        values, indices = self.values.numpy().reshape(-1), self.indices.numpy()
        elements.check_dense(count, self.dtype if self.dtype in elements.BITS else "int64", where)
        shapes = ((len(values),), (len(values), len(self.dims)))
        if indices.dtype != np.int64 or indices.shape not in shapes:
            raise ModelFormatError("sparse tensor is malformed", where=where,
                                   why=f"indices of shape {list(indices.shape)} for "
                                       f"{len(values)} values")
        limits = np.array(self.dims if indices.ndim == 2 else [count], np.int64)
        if indices.size and ((indices < 0).any() or (indices >= limits).any()):
            raise ModelFormatError("sparse tensor is malformed", where=where,
                                   why="an index lies outside of its shape")
        dense = np.zeros(self.dims, values.dtype)
        dense[tuple(indices.T) if indices.ndim == 2 else np.unravel_index(indices, self.dims)] \
            = values
        return dense


def text_or_bytes(raw: memoryview) -> str | bytes:
    """Text where the bytes are UTF-8, else the bytes."""
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        return bytes(raw)


def numbers(segments: Segments, dtype: np.dtype[Any], count: int, where: str) -> Array | None:
    """The `count` numbers of a repeated field; None when there are more or fewer.

    `dtype` f4 and f8 are stored as such, integers as varints.
    """
    parts: list[Array] = []
    found = 0
    for segment in segments:
        if isinstance(segment, array):
            made = [np.frombuffer(segment, segment.typecode).astype(dtype)]
        elif dtype.kind == "f":
            if len(segment) % dtype.itemsize:
                return None
            made = [np.frombuffer(segment, dtype.newbyteorder("<"))]
        else:
            made = _varints(segment, dtype, count - found, where)
        found += sum(map(len, made))
        parts += made
        if found > count:
            return None
    if found != count:
        return None
    return parts[0] if len(parts) == 1 else np.concatenate(parts or [np.zeros(0, dtype)])


def _varints(raw: memoryview, dtype: np.dtype[Any], most: int, where: str) -> list[Array]:
    """Packed varints, decoded in chunks; stops once there are more than `most`."""
    parts: list[Array] = []
    pos = found = 0
    while pos < len(raw) and found <= most:
        stop = min(pos + CHUNK, len(raw))
        chunk = np.frombuffer(raw[pos:stop], np.uint8)
        ends = np.flatnonzero(chunk < 0x80)
        if not len(ends):
            raise ModelFormatError("tensor data is malformed", where=where,
                                   why="a packed number does not end")
        part = _decode_varints(chunk, ends, where).astype(dtype)
        parts.append(part)
        found += len(part)
        pos += int(ends[-1]) + 1
        if stop == len(raw) and pos != stop:
            raise ModelFormatError("tensor data is malformed", where=where,
                                   why="a packed number does not end")
    return parts


def _decode_varints(chunk: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64],
                    where: str) -> npt.NDArray[np.int64]:
    if len(ends) == ends[-1] + 1:
        return chunk[:len(ends)].astype(np.int64)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > 10:
        raise ModelFormatError("tensor data is malformed", where=where,
                               why="a packed number is longer than ten bytes")
    values = np.zeros(len(ends), np.uint64)
    for k in range(longest):
        some = np.flatnonzero(lengths > k)
        values[some] |= (chunk[starts[some] + k] & np.uint64(0x7F)).astype(np.uint64) \
            << np.uint64(7 * k)
    return values.view(np.int64)
