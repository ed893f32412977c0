"""FlexBuffers, the schemaless format in which custom operators keep their options.

Encoding: https://flatbuffers.dev/flatbuffers_internals (FlexBuffers).  The root lies at the end:
its value, its type byte, its width.  Every value has a type (upper six bits of its type byte) and
the width of what it points to (lower two); offsets point backwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Any

from onefold.errors import ModelFormatError

MAX_DEPTH = 32

_UINT = {w: Struct("<" + c).unpack_from for w, c in {1: "B", 2: "H", 4: "I", 8: "Q"}.items()}
_INT = {w: Struct("<" + c).unpack_from for w, c in {1: "b", 2: "h", 4: "i", 8: "q"}.items()}
_FLOAT = {w: Struct("<" + c).unpack_from for w, c in {2: "e", 4: "f", 8: "d"}.items()}

(NULL, INT, UINT, FLOAT, KEY, STRING, INDIRECT_INT, INDIRECT_UINT, INDIRECT_FLOAT, MAP, VECTOR,
 VECTOR_INT, VECTOR_UINT, VECTOR_FLOAT, VECTOR_KEY, VECTOR_STRING, VECTOR_INT2) = range(17)
VECTOR_FLOAT4, BLOB, BOOL, VECTOR_BOOL = 24, 25, 26, 36


def parse(data: memoryview | bytes, where: str = "FlexBuffer") -> Any:
    """The value as plain Python: dict, list, str, int, float, bool, bytes or None.

    Raises `ModelFormatError` for malformed bytes.  Work is bounded by 8 values per byte.
    """
    return _Parser(bytes(data), where).root()


def options(data: memoryview | bytes, where: str = "custom options") -> Mapping[str, Any]:
    """The map that a custom operator's options are; empty when there are no bytes at all."""
    if not len(data):
        return {}
    value = parse(data, where)
    if not isinstance(value, dict):
        raise ModelFormatError("custom options are not a map", where=where,
                               why=f"they are a {type(value).__name__}")
    return value


class _Parser:
    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.where = data, where
        self.left = 8 * len(data) + 64

    def bad(self, why: str) -> ModelFormatError:
        return ModelFormatError("malformed FlexBuffer", where=self.where, why=why)

    def root(self) -> Any:
        if len(self.data) < 3:
            raise self.bad(f"{len(self.data)} bytes are too few")
        width = self.data[-1]
        if width not in _UINT:
            raise self.bad(f"the root's width is {width}")
        return self.value(len(self.data) - 2 - width, width, self.data[-2], 0)

    def uint(self, pos: int, width: int) -> int:
        self.need(pos, width)
        return int(_UINT[width](self.data, pos)[0])

    def need(self, pos: int, count: int) -> None:
        if pos < 0 or count < 0 or pos + count > len(self.data):
            raise self.bad(f"{count} bytes at {pos} lie outside of its {len(self.data)}")

    def target(self, pos: int, width: int) -> int:
        return pos - self.uint(pos, width)

    def number(self, kind: int, pos: int, width: int) -> int | float | bool:
        self.need(pos, width)
        if kind == FLOAT:
            if width == 1:
                raise self.bad("a float of one byte")
            return float(_FLOAT[width](self.data, pos)[0])
        form = _INT if kind == INT else _UINT
        number = int(form[width](self.data, pos)[0])
        return bool(number) if kind == BOOL else number

    def value(self, pos: int, width: int, packed: int, depth: int) -> Any:
        """The value whose slot of `width` bytes lies at `pos`."""
        kind, inner = packed >> 2, 1 << (packed & 3)
        self.spend(1)
        if depth > MAX_DEPTH:
            raise self.bad("it is nested too deeply")
        if kind == NULL:
            return None
        if kind in (INT, UINT, FLOAT, BOOL):
            return self.number(kind, pos, width)
        target = self.target(pos, width)
        if kind in (INDIRECT_INT, INDIRECT_UINT, INDIRECT_FLOAT):
            return self.number(kind - INDIRECT_INT + INT, target, inner)
        if kind == KEY:
            return self.key(target)
        if kind in (STRING, BLOB):
            size = self.uint(target - inner, inner)
            self.need(target, size)
            self.spend(size // 8)
            raw = self.data[target:target + size]
            return raw if kind == BLOB else raw.decode("utf-8", "backslashreplace")
        if kind == MAP:
            return self.map(target, inner, depth)
        return self.vector(kind, target, inner, depth)

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise self.bad("its parts are shared without bound")

    def key(self, pos: int) -> str:
        self.need(pos, 1)
        end = self.data.find(0, pos)
        if end < 0:
            raise self.bad("a key does not end")
        self.spend((end - pos) // 8)
        return self.data[pos:end].decode("utf-8", "backslashreplace")

    def map(self, pos: int, width: int, depth: int) -> dict[str, Any]:
        keys_at = self.target(pos - 3 * width, width)
        key_width = self.uint(pos - 2 * width, width)
        if key_width not in _UINT:
            raise self.bad(f"keys of width {key_width}")
        keys = self.vector(VECTOR_KEY, keys_at, key_width, depth + 1)
        values = self.vector(VECTOR, pos, width, depth)
        if len(keys) != len(values):
            raise self.bad(f"{len(keys)} keys for {len(values)} values")
        return dict(zip(keys, values, strict=True))

    def vector(self, kind: int, pos: int, width: int, depth: int) -> list[Any]:
        if VECTOR_INT2 <= kind <= VECTOR_FLOAT4:
            # Fixed lengths 2, 3, 4 of int, uint, float: no size is stored.
            size, kind = (kind - VECTOR_INT2) // 3 + 2, (kind - VECTOR_INT2) % 3 + VECTOR_INT
        elif kind in (VECTOR, VECTOR_BOOL) or VECTOR_INT <= kind <= VECTOR_STRING:
            size = self.uint(pos - width, width)
        else:
            raise self.bad(f"type {kind} is not known")
        self.need(pos, size * width)
        slots = range(pos, pos + size * width, width)
        if kind == VECTOR:
            self.need(pos + size * width, size)
            types = self.data[pos + size * width:pos + size * width + size]
            return [self.value(p, width, t, depth + 1) for p, t in zip(slots, types, strict=True)]
        item = BOOL if kind == VECTOR_BOOL else kind - VECTOR_INT + INT
        # The slots of typed vectors have no type bytes; strings count their bytes in one byte.
        return [self.value(p, width, item << 2, depth + 1) for p in slots]
