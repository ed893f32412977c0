"""Protobuf messages, read through a table of the schema with every access checked.

Encoding: https://protobuf.dev/programming-guides/encoding/.  A message is a row of fields, each a
tag (number and wire type) and a value.  Unknown fields are skipped, of a singular field the last
one counts, and repeated numbers may be packed or not, as the format demands.  A message that is
singular may come only once: merging two halves, which the format also allows, is refused.

A `Plan` says what is wanted of a message; decoding calls one small handler per field and hands the
values to the plan's `make`.  Nesting is limited as in Google's own readers, and the objects made
are charged to a budget, so that time and memory are bounded by the size of the file.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from struct import Struct
from typing import Any

from onefold.errors import ModelFormatError
from onefold.frontend._gen.onnx_schema import MESSAGES
from onefold.frontend.source import Source

MAX_DEPTH = 100
"""Deepest nesting of messages; protobuf's own limit."""

_FLOAT = Struct("<f").unpack_from
_DOUBLE = Struct("<d").unpack_from

Values = list[Any]
Handler = Callable[[memoryview, int, int, Values, "Reading"], int]
"""Reads the value at a position into its slot and returns the position after it."""


class WireError(Exception):
    """The bytes are not a well-formed message: what, and at which byte."""

    def __init__(self, what: str, pos: int) -> None:
        super().__init__(what)
        self.what, self.pos = what, pos


class Reading:
    """The state of reading one file: how deep, and how much may still be made.

    `left` are the bytes of Python objects that may still be made, of 24 times the file's size
    and 45 MB in all.  A file of nothing but small nodes needs up to 14 times its size; weights
    need nothing.
    """

    __slots__ = ("depth", "left", "source")

    def __init__(self, source: Source) -> None:
        self.source = source
        self.depth = 0
        self.left = 24 * len(source.data) + 45_000_000

    def bad(self, what: str, why: str = "", where: str = "") -> ModelFormatError:
        place = f"{self.source.name}: {where}" if where else self.source.name
        return ModelFormatError(f"malformed ONNX file: {what}", where=place, why=why)


@dataclass(slots=True, eq=False)
class Plan:
    """How one kind of message is read: handlers by tag, slots, the maker of its record."""

    message: str
    slots: int
    cost: int
    make: Callable[[Values, Reading], Any]
    handlers: dict[int, Handler] = field(default_factory=dict)


def decode(plan: Plan, data: memoryview, pos: int, end: int, reading: Reading) -> Any:
    """The record of the message in `data[pos:end]`; raises `WireError` or `ModelFormatError`."""
    reading.left -= plan.cost
    if reading.left < 0:
        raise WireError("the file expands without bound: too many tiny parts", pos)
    values: Values = [None] * plan.slots
    handlers = plan.handlers
    while pos < end:
        tag = data[pos]
        pos += 1
        if tag >= 0x80:
            tag, pos = _rest_of_varint(data, pos, tag)
        handler = handlers.get(tag)
        pos = handler(data, pos, end, values, reading) if handler else _skip(data, pos, end, tag)
    if pos != end:
        raise WireError(f"a field runs past the end of its {plan.message}", end)
    return plan.make(values, reading)


def make_plans(wanted: dict[str, tuple[tuple[str, ...], int, Callable[[Values, Reading], Any]]]
               ) -> dict[str, Plan]:
    """Plans from message name -> (fields in the order of slots, cost in bytes, maker)."""
    plans = {name: Plan(name, len(names), cost, make)
             for name, (names, cost, make) in wanted.items()}
    for name, (names, _, _) in wanted.items():
        slots = {n: i for i, n in enumerate(names)}
        rows = [r for r in MESSAGES[name] if r[1] in slots]
        missing = slots.keys() - {r[1] for r in rows}
        assert not missing, f"{name} has no field {missing}"
        for number, label, kind, repeated, packed, target, oneof in rows:
            rivals = tuple(slots[r[1]] for r in rows if oneof and r[6] == oneof and r[1] != label)
            made = _handlers(kind, slots[label], repeated, packed, plans.get(target))
            for wire, handler in made:
                plans[name].handlers[number << 3 | wire] = _exclusive(handler, rivals)
    return plans


def _handlers(kind: str, slot: int, repeated: bool, packed: bool,
              target: Plan | None) -> Iterable[tuple[int, Handler]]:
    """(wire type, handler) for every way in which a field may be written."""
    if kind == "message":
        assert target is not None
        return [(2, _repeated_message(slot, target) if repeated else _message(slot, target))]
    if kind in ("string", "bytes"):
        text = kind == "string"
        return [(2, _repeated_text(slot, text) if repeated else _text(slot, text))]
    wire = {"float": 5, "double": 1}.get(kind, 0)
    if not repeated:
        return [(wire, _number(slot, kind))]
    if packed:
        return [(2, _segment(slot)), (wire, _segment_item(slot, kind))]
    return [(wire, _repeated_number(slot, kind)), (2, _packed_numbers(slot, kind))]


def _exclusive(handler: Handler, rivals: tuple[int, ...]) -> Handler:
    """Of the fields of a `oneof` only the one read last counts."""
    if not rivals:
        return handler

    def read(data: memoryview, pos: int, end: int, values: Values, reading: Reading) -> int:
        for rival in rivals:
            values[rival] = None
        return handler(data, pos, end, values, reading)
    return read


# --- primitives ---


def _rest_of_varint(data: memoryview, pos: int, first: int) -> tuple[int, int]:
    """The value of a varint whose first byte (with its high bit set) was read; at most 64 bits."""
    value, shift = first & 0x7F, 7
    while shift < 70:
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, pos
        shift += 7
    raise WireError("a number is longer than ten bytes", pos)


def varint(data: memoryview, pos: int) -> tuple[int, int]:
    """An unsigned number and the position after it."""
    first = data[pos]
    return (first, pos + 1) if first < 0x80 else _rest_of_varint(data, pos + 1, first)


def _stretch(data: memoryview, pos: int, end: int) -> tuple[int, int]:
    """Begin and end of a length-delimited value."""
    size, pos = varint(data, pos)
    if size > end - pos:
        raise WireError(f"a length of {size} runs past the end of its message", pos)
    return pos, pos + size


def _skip(data: memoryview, pos: int, end: int, tag: int) -> int:
    """The position after a field that is not wanted; groups (an old form) nest."""
    open_groups: list[int] = []
    while True:
        wire, number = tag & 7, tag >> 3
        if number == 0:
            raise WireError("field number 0", pos)
        if wire == 0:
            _, pos = varint(data, pos)
        elif wire == 1:
            pos += 8
        elif wire == 2:
            pos = _stretch(data, pos, end)[1]
        elif wire == 3:
            open_groups.append(number)
            if len(open_groups) > MAX_DEPTH:
                raise WireError("messages are nested too deeply", pos)
        elif wire == 5:
            pos += 4
        elif wire != 4 or not open_groups or open_groups.pop() != number:
            raise WireError(f"wire type {wire} makes no sense here", pos)
        if not open_groups:
            return pos
        if pos >= end:
            raise WireError("a group does not end", pos)
        tag, pos = varint(data, pos)


def _convert(kind: str, value: int) -> int:
    """The number that 64 bits of a varint stand for."""
    if kind == "bool":
        return int(value != 0)
    if kind == "uint64":
        return value
    if kind == "int64":
        return value - (1 << 64) if value >> 63 else value
    value &= 0xFFFF_FFFF
    return value - (1 << 32) if value >> 31 else value


# --- handlers ---


def _text(slot: int, text: bool) -> Handler:
    """Text (bytes that are not UTF-8 as `\\xNN`), or bytes as a view of the file."""
    def read(data: memoryview, pos: int, end: int, values: Values, reading: Reading) -> int:
        size = data[pos]
        pos += 1
        if size >= 0x80:
            size, pos = _rest_of_varint(data, pos, size)
        stop = pos + size
        if stop > end:
            raise WireError(f"a length of {size} runs past the end of its message", pos)
        if text:
            reading.left -= 60 + size
            values[slot] = str(data[pos:stop], "utf-8", "backslashreplace")
        else:
            values[slot] = data[pos:stop]
        return stop
    return read


def _repeated_text(slot: int, text: bool) -> Handler:
    single = _text(0, text)

    def read(data: memoryview, pos: int, end: int, values: Values, reading: Reading) -> int:
        item: Values = [None]
        pos = single(data, pos, end, item, reading)
        reading.left -= 10 if text else 240
        if reading.left < 0:
            raise WireError("the file expands without bound: too many tiny parts", pos)
        if values[slot] is None:
            values[slot] = item
        else:
            values[slot].append(item[0])
        return pos
    return read


def _message(slot: int, plan: Plan) -> Handler:
    def read(data: memoryview, pos: int, end: int, values: Values, reading: Reading) -> int:
        if values[slot] is not None:
            raise WireError(f"a {plan.message} that may come once comes twice", pos)
        pos, stop = _stretch(data, pos, end)
        values[slot] = _nested(plan, data, pos, stop, reading)
        return stop
    return read


def _repeated_message(slot: int, plan: Plan) -> Handler:
    def read(data: memoryview, pos: int, end: int, values: Values, reading: Reading) -> int:
        pos, stop = _stretch(data, pos, end)
        record = _nested(plan, data, pos, stop, reading)
        if values[slot] is None:
            values[slot] = [record]
        else:
            values[slot].append(record)
        return stop
    return read


def _nested(plan: Plan, data: memoryview, pos: int, end: int, reading: Reading) -> Any:
    reading.depth += 1
    if reading.depth > MAX_DEPTH:
        raise WireError("messages are nested too deeply", pos)
    record = decode(plan, data, pos, end, reading)
    reading.depth -= 1
    return record


def _one(kind: str) -> Callable[[memoryview, int, int], tuple[Any, int]]:
    """A function that reads one number of a kind: (data, position, end) -> (number, after)."""
    form, width = {"float": (_FLOAT, 4), "double": (_DOUBLE, 8)}.get(kind, (None, 0))

    def fixed(data: memoryview, pos: int, end: int) -> tuple[Any, int]:
        if pos + width > end:
            raise WireError("a number runs past the end of its message", pos)
        assert form is not None
        return form(data, pos)[0], pos + width

    def integer(data: memoryview, pos: int, end: int) -> tuple[Any, int]:
        value = data[pos]
        if value < 0x80:
            return value, pos + 1
        value, pos = _rest_of_varint(data, pos + 1, value)
        return _convert(kind, value), pos
    return fixed if form else integer


def _number(slot: int, kind: str) -> Handler:
    one = _one(kind)

    def read(data: memoryview, pos: int, end: int, values: Values, reading: Reading) -> int:
        values[slot], pos = one(data, pos, end)
        return pos
    return read


def _repeated_number(slot: int, kind: str) -> Handler:
    one = _one(kind)

    def read(data: memoryview, pos: int, end: int, values: Values, reading: Reading) -> int:
        value, pos = one(data, pos, end)
        reading.left -= 30
        if values[slot] is None:
            values[slot] = [value]
        else:
            values[slot].append(value)
        if reading.left < 0:
            raise WireError("the file expands without bound: too many tiny parts", pos)
        return pos
    return read


def _packed_numbers(slot: int, kind: str) -> Handler:
    item = _repeated_number(slot, kind)

    def read(data: memoryview, pos: int, end: int, values: Values, reading: Reading) -> int:
        pos, stop = _stretch(data, pos, end)
        while pos < stop:
            pos = item(data, pos, stop, values, reading)
        if pos != stop:
            raise WireError("a number runs past the end of its packed list", stop)
        return stop
    return read


def _segment(slot: int) -> Handler:
    """A packed run of tensor elements, kept as a view and decoded when it is asked for."""
    def read(data: memoryview, pos: int, end: int, values: Values, reading: Reading) -> int:
        pos, stop = _stretch(data, pos, end)
        reading.left -= 240
        if reading.left < 0:
            raise WireError("the file expands without bound: too many tiny parts", pos)
        if values[slot] is None:
            values[slot] = []
        values[slot].append(data[pos:stop])
        return stop
    return read


def _segment_item(slot: int, kind: str) -> Handler:
    """One tensor element written by itself; neighbours gather in one array."""
    one = _one(kind)
    code = {"float": "f", "double": "d", "uint64": "Q"}.get(kind, "q")

    def read(data: memoryview, pos: int, end: int, values: Values, reading: Reading) -> int:
        value, pos = one(data, pos, end)
        if values[slot] is None:
            values[slot] = []
        if not values[slot] or not isinstance(values[slot][-1], array):
            reading.left -= 240
            if reading.left < 0:
                raise WireError("the file expands without bound: too many tiny parts", pos)
            values[slot].append(array(code))
        values[slot][-1].append(value)
        return pos
    return read
