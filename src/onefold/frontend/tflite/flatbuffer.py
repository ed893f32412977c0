"""FlatBuffers, read through a table of the schema with every access checked.

Encoding: https://flatbuffers.dev/internals/.  A table starts with the distance back to its
vtable; the vtable holds its own size, the table's size, and one 16-bit offset per field (0 =
absent).  Strings, vectors and tables are reached by unsigned distances, so they always lie ahead
of the reference and no cycle can be built; sharing can, and `Budget` bounds what it costs.
"""

from __future__ import annotations

from functools import cache
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from onefold.errors import ModelFormatError
from onefold.frontend._gen.tflite_schema import ENUMS, TABLES

_U16 = Struct("<H").unpack_from
_I32 = Struct("<i").unpack_from
_U32 = Struct("<I").unpack_from
_STRUCTS = {code: Struct("<" + code) for code in "?bBhHiIqQfd"}
_DTYPES = {code: np.dtype("<" + {"b": "i1", "B": "u1", "h": "i2", "H": "u2", "i": "i4", "I": "u4",
                                 "q": "i8", "Q": "u8", "f": "f4", "d": "f8"}[code])
           for code in "bBhHiIqQfd"} | {"?": np.dtype("u1")}

NUMBER, ENUM, STRING, NUMBERS, TABLE, TABLE_LIST, STRING_LIST, UNION = range(8)
_KINDS = {"number": NUMBER, "enum": ENUM, "string": STRING, "numbers": NUMBERS, "table": TABLE,
          "tables": TABLE_LIST, "strings": STRING_LIST, "union": UNION}


class TableRef(NamedTuple):
    """A table not yet looked into: the name of its type (`""` = none known) and its position."""

    table: str
    pos: int


class FieldPlan(NamedTuple):
    """How one field is read: its place in the vtable, and what is found there."""

    at: int
    name: str
    kind: int
    code: str
    target: str
    default: object


@cache
def plan(table: str) -> tuple[FieldPlan, ...]:
    """The fields of a table of the schema, prepared for reading."""
    made = []
    for slot, name, kind, what, default in TABLES[table]:
        code, target = (what[:1], what[1:]) if kind == "enum" else (what, what)
        if kind == "enum":
            default = ENUMS[target][int(str(default))]
        made.append(FieldPlan(4 + 2 * slot, name, _KINDS[kind], code, target, default))
    return tuple(made)


@cache
def defaults(table: str) -> dict[str, Any]:
    """The values of a table's fields when the file holds none of them."""
    empty: dict[int, object] = {NUMBERS: (), TABLE_LIST: (), STRING_LIST: ()}
    return {f.name: empty.get(f.kind, f.default) for f in plan(table)}


class Budget:
    """Bytes of Python objects that reading one file may still make.

    Shared tables let a small file describe a large structure.  Every object read is charged its
    approximate size, and a file may make at most 9 times its own size and 40 MB; a file without
    sharing stays far below, because each object needs bytes of its own in the file.
    """

    __slots__ = ("left", "where")

    def __init__(self, file_size: int, where: str) -> None:
        self.left = 9 * file_size + 40_000_000
        self.where = where

    def charge(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ModelFormatError(
                "file expands without bound", where=self.where,
                why="its parts are shared so often that reading it takes over 9 times its size")


class FlatBuffer:
    """Checked reading of the tables of one FlatBuffer; positions are bytes from its start.

    Every method raises `ModelFormatError` when something lies outside of the buffer.
    """

    __slots__ = ("budget", "data", "size", "where")

    def __init__(self, data: memoryview, where: str) -> None:
        self.data = data
        self.size = len(data)
        self.where = where
        self.budget = Budget(self.size, where)

    def bad(self, what: str, pos: int) -> ModelFormatError:
        return ModelFormatError(f"malformed TFLite file: {what}", where=self.where,
                                why=f"at byte {pos} of {self.size}")

    def need(self, pos: int, count: int, what: str) -> None:
        """Checks that `count` bytes from `pos` lie inside the buffer."""
        if pos < 0 or pos + count > self.size:
            raise self.bad(f"{what} lies outside of the file", pos)

    def root(self, table: str) -> TableRef:
        self.need(0, 4, "the root offset")
        return TableRef(table, int(_U32(self.data, 0)[0]))

    def follow(self, pos: int, what: str) -> int:
        """The position that the unsigned distance at `pos` leads to."""
        self.need(pos, 4, what)
        return pos + int(_U32(self.data, pos)[0])

    def fields(self, ref: TableRef) -> dict[str, Any]:
        """All fields of a table by name, absent ones with the schema's default.

        Enums are their names (`UNKNOWN_7` for a value that the schema lacks); strings are text;
        vectors of bytes are memoryviews, of other numbers NumPy views, `()` when absent; tables
        are `TableRef`, and tuples of them, not yet read.
        """
        data, pos = self.data, ref.pos
        self.need(pos, 4, f"a {ref.table} table")
        vtable = pos - _I32(data, pos)[0]
        self.need(vtable, 4, f"the vtable of a {ref.table}")
        length = _U16(data, vtable)[0]
        self.need(vtable, length, f"the vtable of a {ref.table}")
        out = defaults(ref.table).copy()
        self.budget.charge(200 + 40 * len(out))
        for f in plan(ref.table):
            if f.at + 2 > length:
                continue
            offset = _U16(data, vtable + f.at)[0]
            if offset:
                out[f.name] = self._field(f, pos + offset, vtable, length, pos)
        return out

    def _field(self, f: FieldPlan, at: int, vtable: int, length: int, pos: int) -> object:
        """The value of one present field; `at` is where its inline part lies."""
        kind = f.kind
        if kind == NUMBER:
            return self._number(f, at)
        if kind == ENUM:
            value = self._number(f, at)
            return ENUMS[f.target].get(value) or f"UNKNOWN_{value}"
        target = self.follow(at, f.name)
        if kind == STRING:
            return self.string(target, f.name)
        if kind == NUMBERS:
            return self.numbers(target, f.code, f.name)
        if kind == TABLE:
            return TableRef(f.target, target)
        if kind == TABLE_LIST:
            return tuple(TableRef(f.target, p) for p in self.offsets(target, f.name))
        if kind == STRING_LIST:
            return tuple(self.string(p, f.name) for p in self.offsets(target, f.name))
        return self._union(f, target, vtable, length, pos)

    def _number(self, f: FieldPlan, at: int) -> Any:
        form = _STRUCTS[f.code]
        if at + form.size > self.size:
            raise self.bad(f"field {f.name} lies outside of the file", at)
        return form.unpack_from(self.data, at)[0]

    def _union(self, f: FieldPlan, target: int, vtable: int, length: int, pos: int) -> TableRef:
        """A union's table; its selector is the byte field in the slot before it."""
        selector = 0
        offset = _U16(self.data, vtable + f.at - 2)[0] if f.at <= length else 0
        if offset:
            self.need(pos + offset, 1, f"the type of {f.name}")
            selector = self.data[pos + offset]
        name = ENUMS[f.target].get(selector, f"UNKNOWN_{selector}")
        return TableRef("" if name == "NONE" else name, target)

    def string(self, pos: int, what: str) -> str:
        """A string; bytes that are not UTF-8 appear as `\\xNN`."""
        raw = self.span(pos, 1, what)
        self.budget.charge(64 + len(raw))
        return str(raw, "utf-8", "backslashreplace")

    def span(self, pos: int, width: int, what: str) -> memoryview:
        """The bytes of a vector of elements of `width` bytes, uncopied."""
        self.need(pos, 4, what)
        size = int(_U32(self.data, pos)[0]) * width
        self.need(pos + 4, size, what)
        return self.data[pos + 4:pos + 4 + size]

    def numbers(self, pos: int, code: str, what: str) -> Any:
        """A vector of numbers: a memoryview of bytes, a NumPy view of anything wider."""
        self.budget.charge(300)
        raw = self.span(pos, _DTYPES[code].itemsize, what)
        return raw if code == "B" else np.frombuffer(raw, _DTYPES[code])

    def offsets(self, pos: int, what: str) -> list[int]:
        """The positions that a vector of distances leads to (checked when they are followed)."""
        raw = self.span(pos, 4, what)
        self.budget.charge(100 + 40 * len(raw))
        ahead = np.frombuffer(raw, np.dtype("<u4")).astype(np.int64)
        found: list[int] = (ahead + np.arange(pos + 4, pos + 4 + len(raw), 4)).tolist()
        return found
