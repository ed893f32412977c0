"""Mutations of model files: blind ones, and ones that know TFLite's and ONNX's structure.

    mutate(rng, data, kind) -> bytes

`kind` is `blind`, `tflite` or `onnx`.  The structured kinds leave most of a file intact, so that a
damaged value reaches the code behind the reader; a file that they cannot walk is mutated blindly.
Everything depends on `rng` and `data` alone, so a finding is repeated from its seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from onefold.errors import ModelFormatError
from onefold.frontend._gen.onnx_schema import MESSAGES
from onefold.frontend._gen.tflite_schema import TABLES
from onefold.frontend.sniff import fields
from onefold.frontend.tflite.flatbuffer import FlatBuffer, TableRef

KINDS = ("blind", "tflite", "onnx")

INTERESTING = (0, 1, 2, 3, 7, 8, 16, 64, 100, 127, 128, 255, 256, 1000, 1024, 32767, 32768, 65535,
               65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def mutate(rng: random.Random, data: bytes, kind: str) -> bytes:
    """A changed copy of `data`; one to four changes, mostly one."""
    times = rng.choice((1, 1, 1, 2, 4))
    if kind == "tflite":
        return tflite(rng, data, times)
    change = {"blind": blind, "onnx": onnx}[kind]
    for _ in range(times):
        data = change(rng, data)
    return data


def _number(rng: random.Random, old: int, size: int) -> int:
    """A number to put in place of `old`: near it, interesting, related to the file, or any."""
    near = old + rng.choice((-1, 1, -2, 2, 4, -4))
    return rng.choice((near, near, rng.choice(INTERESTING), rng.choice(INTERESTING), -1,
                       -rng.choice(INTERESTING), rng.randrange(size + 1), rng.randrange(16),
                       rng.getrandbits(32), old * 2, old ^ (1 << rng.randrange(32))))


# --- blind ---


def blind(rng: random.Random, data: bytes) -> bytes:
    """One change that knows nothing of the format."""
    if not data:
        return rng.randbytes(8)
    return rng.choice(_BLIND)(rng, data)


def _flip_bits(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 32))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _truncate(rng: random.Random, data: bytes) -> bytes:
    return data[:rng.randrange(len(data))]


def _set_number(rng: random.Random, data: bytes) -> bytes:
    """A 1, 2, 4 or 8 byte field, aligned mostly, set to something else: lengths, offsets."""
    width = rng.choice((1, 2, 4, 4, 4, 8))
    if len(data) <= width:
        return data
    pos = rng.randrange(len(data) - width)
    if rng.random() < 0.8:
        pos -= pos % width
    old = int.from_bytes(data[pos:pos + width], "little")
    new = _number(rng, old, len(data)) % (1 << 8 * width)
    return data[:pos] + new.to_bytes(width, "little") + data[pos + width:]


def _piece(rng: random.Random, data: bytes) -> tuple[int, int]:
    begin = rng.randrange(len(data))
    return begin, min(len(data), begin + 1 + int(rng.expovariate(1 / 32)))


def _splice(rng: random.Random, data: bytes) -> bytes:
    """A piece of the file over another place in it."""
    begin, end = _piece(rng, data)
    to = rng.randrange(len(data))
    return data[:to] + data[begin:end] + data[to + end - begin:]


def _insert(rng: random.Random, data: bytes) -> bytes:
    begin, end = _piece(rng, data)
    to = rng.randrange(len(data))
    return data[:to] + rng.choice((data[begin:end], rng.randbytes(end - begin))) + data[to:]


def _delete(rng: random.Random, data: bytes) -> bytes:
    begin, end = _piece(rng, data)
    return data[:begin] + data[end:]


def _fill(rng: random.Random, data: bytes) -> bytes:
    begin, end = _piece(rng, data)
    return data[:begin] + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF))]) * (end - begin) + data[end:]


_BLIND: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _flip_bits, _flip_bits, _truncate, _set_number, _set_number, _splice, _insert, _delete, _fill)


# --- TFLite ---


class Site(NamedTuple):
    """A number in a FlatBuffer: where, how wide, and what it is (`offset`, `length`, `value`)."""

    pos: int
    width: int
    role: str


def tflite(rng: random.Random, data: bytes, times: int = 1) -> bytes:
    """Numbers of tables, vectors and vtables changed, or copied from another of their kind."""
    sites = tflite_sites(data)
    if not sites:
        return blind(rng, data)
    out = bytearray(data)
    for _ in range(times):
        site = rng.choice(sites[rng.choice(list(sites))])
        if rng.random() < 0.2:
            other = rng.choice(sites[site.role])
            new = int.from_bytes(data[other.pos:other.pos + other.width], "little")
        else:
            old = int.from_bytes(data[site.pos:site.pos + site.width], "little")
            new = _number(rng, old, len(data))
        raw = (new % (1 << 8 * site.width)).to_bytes(site.width, "little")
        out[site.pos:site.pos + site.width] = raw
    return bytes(out)


@lru_cache(maxsize=64)
def tflite_sites(data: bytes) -> dict[str, list[Site]]:
    """All numbers of a TFLite file by role, the contents of long vectors sampled; `{}` if the
    file cannot be walked."""
    sites: dict[str, list[Site]] = {}
    flat = FlatBuffer(memoryview(data), "fuzz")
    try:
        queue = [flat.root("Model")]
        seen: set[TableRef] = set()
        while queue and len(seen) < 100_000:
            ref = queue.pop()
            if ref not in seen and ref.table in TABLES:
                seen.add(ref)
                queue += _table_sites(flat, ref, sites)
    except ModelFormatError:
        return {}
    return sites


_WIDTH = {"?": 1, "b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "f": 4, "q": 8, "Q": 8, "d": 8}


def _table_sites(flat: FlatBuffer, ref: TableRef, sites: dict[str, list[Site]]) -> list[TableRef]:
    """Adds the numbers of one table; returns the tables that it refers to."""
    def at(pos: int, width: int) -> int:
        flat.need(pos, width, "a number")
        return int.from_bytes(flat.data[pos:pos + width], "little")

    def add(role: str, pos: int, width: int) -> None:
        sites.setdefault(role, []).append(Site(pos, width, role))

    vtable = ref.pos - (at(ref.pos, 4) ^ 0x8000_0000) + 0x8000_0000
    add("vtable", ref.pos, 4)
    values = flat.fields(ref)
    for slot, name, kind, what, _ in TABLES[ref.table]:
        entry = vtable + 4 + 2 * slot
        if 6 + 2 * slot > at(vtable, 2) or not at(entry, 2):
            continue
        place = ref.pos + at(entry, 2)
        add("vtable", entry, 2)
        if kind in ("number", "enum"):
            add(f"{ref.table}.{name}", place, _WIDTH[what[0]])
            continue
        add("offset", place, 4)
        target = place + at(place, 4)
        if kind not in ("table", "union"):
            add("length", target, 4)
        if kind == "numbers":
            width = _WIDTH[what]
            for i in range(min(at(target, 4), 16)):
                add(f"{ref.table}.{name}", target + 4 + i * width, width)
        elif kind in ("tables", "strings"):
            for i in range(min(at(target, 4), 64)):
                add("offset", target + 4 + 4 * i, 4)
    return [v for f in values.values() for v in (f if isinstance(f, tuple) else (f,))
            if isinstance(v, TableRef)]


# --- ONNX ---

_TARGETS = {message: {row[0]: row[5] for row in rows if row[5]}
            for message, rows in MESSAGES.items()}
_NUMBERS = {message: [row[0] for row in rows] for message, rows in MESSAGES.items()}


def onnx(rng: random.Random, data: bytes, message: str = "ModelProto") -> bytes:
    """One field of the message, or of one inside it, changed; the lengths around it fit again."""
    rows = fields(memoryview(data), 1 << 20)
    begins = [0, *(row[3] for row in rows)]
    if not rows or begins[-1] > len(data):
        return blind(rng, data)
    i = rng.randrange(len(rows))
    number, wire, begin, end = rows[i]
    inner = _TARGETS.get(message, {}).get(number)
    before, whole, after = data[:begins[i]], data[begins[i]:end], data[end:]
    if wire == 2 and inner and end > begin and rng.random() < 0.85:
        made = _field(number, onnx(rng, data[begin:end], inner))
        return before + made + after
    how = rng.random()
    if how < 0.1:
        return before + after
    if how < 0.2:
        return before + whole * rng.choice((2, 2, 3, 50)) + after
    if how < 0.3:
        return _move(rng, data, begins, i)
    if how < 0.4:
        known = _NUMBERS.get(message) or [1]
        return before + _retag(rng.choice((rng.choice(known), rng.randrange(1, 40))), wire,
                               data[begin:end]) + after
    return before + _changed(rng, number, wire, data[begin:end], len(data)) + after


def _move(rng: random.Random, data: bytes, begins: list[int], i: int) -> bytes:
    """Field i put before another one of the same message."""
    j = rng.randrange(len(begins) - 1)
    whole = data[begins[i]:begins[i + 1]]
    rest = data[:begins[i]] + data[begins[i + 1]:]
    to = begins[j] if j <= i else begins[j] - len(whole)
    return rest[:to] + whole + rest[to:]


def _retag(number: int, wire: int, payload: bytes) -> bytes:
    return _field(number, payload) if wire == 2 else _varint(number << 3 | wire) + payload


def _changed(rng: random.Random, number: int, wire: int, payload: bytes, size: int) -> bytes:
    """A field with another value: a number, a name, bytes."""
    if wire == 0:
        old = int.from_bytes(payload, "little") & 0x7F
        return _varint(number << 3) + _varint(_number(rng, old, size) % (1 << 64))
    if wire in (1, 5):
        return _varint(number << 3 | wire) + rng.choice((
            rng.randbytes(len(payload)), bytes(len(payload)), b"\xff" * len(payload),
            b"\x00\x00\x80\x7f\x00\x00\xf0\x7f"[-len(payload):]))
    return _field(number, rng.choice((
        b"", payload + b"x", payload[:-1], payload * 2, blind(rng, payload),
        rng.choice((b"*/", b"??/", b"\n", b"\xff\xfe", b"int", b"../w", b"\0", b"x" * 5000)))))


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
