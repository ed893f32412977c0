"""Mutations of TFLite files that keep them well-formed: what a graph says is changed.

Numbers are changed where they lie.  A vector or string that becomes longer is written behind the
file and its reference is led there, which the format allows: references only point forward.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from functools import lru_cache

from onefold.dev.mutate import Site, tflite_sites
from onefold.dev.mutate_onnx import DIMS, FLOATS, INTS, NAMES, SMALL
from onefold.errors import ModelFormatError
from onefold.frontend._gen.tflite_schema import TABLES
from onefold.frontend.tflite.flatbuffer import FlatBuffer, TableRef

_CODES = {f"{table}.{row[1]}": str(row[3])[:1] for table, rows in TABLES.items() for row in rows}
_STRUCTURE = ("vtable", "offset", "length")


def mutate(rng: random.Random, data: bytes) -> tuple[bytes, list[str]]:
    """A changed copy, and the names of the changes."""
    sites = tflite_sites(data)
    out = bytearray(data)
    done = []
    if sites:
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 6))):
            change = rng.choice(CHANGES)
            change(rng, data, out, sites)
            done.append(change.__name__)
    return bytes(out), done


Sites = dict[str, list[Site]]


def _put(out: bytearray, site: Site, value: int) -> None:
    raw = (value % (1 << 8 * site.width)).to_bytes(site.width, "little")
    out[site.pos : site.pos + site.width] = raw


def _value(rng: random.Random, role: str, width: int, sites: Sites) -> int:
    """A number that means something where it is put."""
    code = _CODES.get(role, "i")
    if code in "fd":
        v = rng.choice((*FLOATS, rng.uniform(-4, 4), rng.uniform(0, 0.1)))
        packed = struct.pack("<d", v) if width == 8 else _float(v)
        return int.from_bytes(packed, "little")
    table = role.partition(".")[0]
    if role == "Tensor.type":
        return rng.randrange(22)
    if role in ("Operator.inputs", "Operator.outputs", "SubGraph.inputs", "SubGraph.outputs"):
        return rng.randrange(-1, max(len(sites.get("Tensor.type", ())), 2))
    if role in ("Tensor.shape", "Tensor.shape_signature"):
        return rng.choice(DIMS)
    if table == "OperatorCode":
        return rng.randrange(210)
    if code in "?bB":
        return rng.choice((0, 1, 2, 3, 4, 5, 127, 128, 255))
    return rng.choice(SMALL) if rng.random() < 0.6 else rng.choice(INTS)


def _float(v: float) -> bytes:
    try:
        return struct.pack("<f", v)
    except OverflowError:
        return struct.pack("<f", float("inf"))


def value(rng: random.Random, data: bytes, out: bytearray, sites: Sites) -> None:
    """A number of a table: an option, a type, a scale, an extent, an input."""
    roles = [r for r in sites if r not in _STRUCTURE and not r.startswith("Buffer.")]
    if roles:
        role = rng.choice(roles)
        site = rng.choice(sites[role])
        _put(out, site, _value(rng, role, site.width, sites))


def option(rng: random.Random, data: bytes, out: bytearray, sites: Sites) -> None:
    """A number of an operator's options."""
    roles = [r for r in sites if r.partition(".")[0].endswith("Options")]
    if roles:
        role = rng.choice(roles)
        site = rng.choice(sites[role])
        _put(out, site, _value(rng, role, site.width, sites))


def extent(rng: random.Random, data: bytes, out: bytearray, sites: Sites) -> None:
    """A small change to a shape, mostly one that can still fit."""
    found = sites.get("Tensor.shape")
    if found:
        _put(out, rng.choice(found), rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 33)))


def all_extents(rng: random.Random, data: bytes, out: bytearray, sites: Sites) -> None:
    """One extent changed everywhere: shapes that still agree."""
    found = sites.get("Tensor.shape")
    if not found:
        return
    one = rng.choice(found)
    old = data[one.pos : one.pos + 4]
    new = rng.choice((0, 1, 2, 3, 5, 8, 17, 64, 1000))
    for site in found:
        if data[site.pos : site.pos + 4] == old:
            _put(out, site, new)


def all_types(rng: random.Random, data: bytes, out: bytearray, sites: Sites) -> None:
    """One element type replaced everywhere."""
    found = sites.get("Tensor.type")
    if not found:
        return
    old, new = data[rng.choice(found).pos], rng.choice((0, 1, 2, 3, 4, 6, 7, 9, 10, 15, 16, 17))
    for site in found:
        if data[site.pos] == old:
            _put(out, site, new)


def operator(rng: random.Random, data: bytes, out: bytearray, sites: Sites) -> None:
    """Another operator with the same inputs."""
    new = rng.randrange(210)
    for role in ("OperatorCode.builtin_code", "OperatorCode.deprecated_builtin_code"):
        found = sites.get(role)
        if found:
            _put(out, found[0], min(new, 127) if "deprecated" in role else new)


def inputs(rng: random.Random, data: bytes, out: bytearray, sites: Sites) -> None:
    """An operator's inputs or outputs swapped, doubled or left out."""
    found = sites.get(rng.choice(("Operator.inputs", "Operator.outputs", "SubGraph.outputs")))
    if not found:
        return
    a, b = rng.choice(found), rng.choice(found)
    if rng.random() < 0.3:
        _put(out, a, -1)
        return
    old = out[a.pos : a.pos + 4]
    out[a.pos : a.pos + 4] = out[b.pos : b.pos + 4]
    if rng.random() < 0.6:
        out[b.pos : b.pos + 4] = old


def contents(rng: random.Random, data: bytes, out: bytearray, sites: Sites) -> None:
    """Numbers of a constant."""
    found = sites.get("Buffer.data")
    if not found:
        return
    at = rng.choice(found).pos
    width = rng.choice((1, 4, 4, 4, 8))
    role = rng.choice(("Int32Vector.values", "QuantizationParameters.scale"))
    _put(out, Site(at - at % min(width, 4), width, ""), _value(rng, role, width, sites))


def scales(rng: random.Random, data: bytes, out: bytearray, sites: Sites) -> None:
    """A scale or a zero point."""
    role = rng.choice(("QuantizationParameters.scale", "QuantizationParameters.zero_point"))
    found = sites.get(role)
    if found:
        site = rng.choice(found)
        near = rng.random() < 0.5
        if role.endswith("scale") and near:
            _put(out, site, int.from_bytes(_float(rng.choice((0.001, 0.02, 0.7, 3.0))), "little"))
        else:
            _put(out, site, rng.randrange(-130, 260) if near else rng.choice(INTS))


def drop_field(rng: random.Random, data: bytes, out: bytearray, sites: Sites) -> None:
    """A field of a table left out."""
    entries = [s for s in sites["vtable"] if s.width == 2]
    if entries:
        _put(out, rng.choice(entries), 0)


@lru_cache(maxsize=64)
def references(data: bytes) -> dict[str, list[int]]:
    """Places of the references to vectors and strings, by field."""
    found: dict[str, list[int]] = {}
    flat = FlatBuffer(memoryview(data), "fuzz")
    try:
        queue, seen = [flat.root("Model")], set[TableRef]()
        while queue and len(seen) < 10_000:
            ref = queue.pop()
            if ref in seen or ref.table not in TABLES:
                continue
            seen.add(ref)
            values = flat.fields(ref)
            vtable = ref.pos - (_u32(data, ref.pos) ^ 0x8000_0000) + 0x8000_0000
            size = int.from_bytes(data[vtable : vtable + 2], "little")
            for slot, name, kind, _, _ in TABLES[ref.table]:
                at = vtable + 4 + 2 * slot
                entry = int.from_bytes(data[at : at + 2], "little") if 6 + 2 * slot <= size else 0
                if entry and kind in ("string", "numbers"):
                    found.setdefault(f"{ref.table}.{name}", []).append(ref.pos + entry)
            queue += [v for f in values.values() for v in (f if isinstance(f, tuple) else (f,))
                      if isinstance(v, TableRef)]  # fmt: skip
    except ModelFormatError:
        return {}
    return found


def _u32(data: bytes, pos: int) -> int:
    return int.from_bytes(data[pos : pos + 4], "little")


def _behind(out: bytearray, place: int, count: int, raw: bytes) -> None:
    """A vector of `count` elements behind the file, and the reference at `place` led to it."""
    out += bytes(-len(out) % 16 + 12)  # elements behind the length are aligned to 16 bytes
    out[place : place + 4] = (len(out) - place).to_bytes(4, "little")
    out += count.to_bytes(4, "little") + raw + b"\0"


def name(rng: random.Random, data: bytes, out: bytearray, sites: Sites) -> None:
    """A hostile name."""
    found = references(data)
    roles = [r for r in found if r.endswith((".name", "custom_code", ".key", "description"))]
    if roles:
        raw = rng.choice(NAMES).encode()
        _behind(out, rng.choice(found[rng.choice(roles)]), len(raw), raw)


def shape(rng: random.Random, data: bytes, out: bytearray, sites: Sites) -> None:
    """A shape of another rank."""
    places = references(data).get("Tensor.shape")
    if places:
        rank = rng.choice((0, 1, 2, 3, 4, 5, 6, 9, 70))
        made = [rng.choice((1, 1, 2, 3, 4, 5)) for _ in range(rank)]
        _behind(out, rng.choice(places), rank, struct.pack(f"<{rank}i", *made))


def vector(rng: random.Random, data: bytes, out: bytearray, sites: Sites) -> None:
    """A vector of numbers with one more or one fewer, or with many."""
    found = references(data)
    numbers = [r for r in found if _CODES.get(r) in ("i", "I", "q", "f")]
    roles = [r for r in numbers if not r.startswith("Buffer")]
    if not roles:
        return
    role = rng.choice(roles)
    code, place = _CODES[role], rng.choice(found[role])
    at = place + _u32(data, place)
    count, width = _u32(data, at), struct.calcsize("<" + code)
    raw = data[at + 4 : at + 4 + count * width]
    one = (_value(rng, role, width, sites) % (1 << 8 * width)).to_bytes(width, "little")
    made = rng.choice((raw + one, raw[width:], raw[:-width], raw + one * 500, one))
    _behind(out, place, len(made) // width, made)


def constant(rng: random.Random, data: bytes, out: bytearray, sites: Sites) -> None:
    """A constant with other contents, maybe of another length."""
    places = references(data).get("Buffer.data")
    if not places:
        return
    place = rng.choice(places)
    count = _u32(data, place + _u32(data, place))
    if not 0 < count <= 4096:
        return
    size = rng.choice((count, count, count, count // 2, count + 4, 4))
    pool = rng.choice((SMALL, SMALL, INTS))
    numbers = [rng.choice(pool) & 0xFFFF_FFFF for _ in range(size // 4 + 1)]
    made = struct.pack(f"<{len(numbers)}I", *numbers) if rng.random() < 0.7 else rng.randbytes(size)
    _behind(out, place, size, made[:size])


CHANGES: tuple[Callable[[random.Random, bytes, bytearray, Sites], None], ...] = (
    value, value, option, option, option, extent, extent, all_extents, all_extents, all_types,
    operator, operator, inputs, contents, contents, contents, scales, scales, drop_field, name,
    shape, vector, constant, constant,
)  # fmt: skip
