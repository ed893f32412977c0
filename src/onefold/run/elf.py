"""Sizes read from an ELF file: what a report calls code, constants, data and zeroed memory."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from onefold.errors import ToolchainError

_ALLOC, _EXEC, _WRITE, _NOBITS = 2, 4, 1, 8


@dataclass(frozen=True, slots=True)
class Section:
    """One section: name, address, bytes, and whether it is loaded, code, writable, zeroed."""

    name: str
    address: int
    size: int
    allocated: bool
    code: bool
    writable: bool
    zeroed: bool


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of an image: machine code, constants, initialised and zeroed variables."""

    code: int
    constants: int
    data: int
    zeroed: int

    @property
    def flash(self) -> int:
        return self.code + self.constants + self.data

    @property
    def ram(self) -> int:
        return self.data + self.zeroed


def sections(path: Path) -> list[Section]:
    """The sections of an ELF file, little endian, 32 or 64 bits.

    Raises `ToolchainError` when it is not one.
    """
    raw = path.read_bytes()
    try:
        return _sections(raw)
    except (struct.error, IndexError, OverflowError, ValueError) as error:
        raise ToolchainError("the linked file cannot be read", where=path.name,
                             why=str(error)) from error


def _sections(raw: bytes) -> list[Section]:
    if raw[:4] != b"\x7fELF" or raw[5] != 1:
        raise ValueError("it is not a little-endian ELF file")
    wide = raw[4] == 2
    offset, = struct.unpack_from("<Q" if wide else "<I", raw, 0x28 if wide else 0x20)
    size, count, names = struct.unpack_from("<HHH", raw, 0x3A if wide else 0x2E)
    layout = "<IIQQQQ" if wide else "<IIIIII"
    rows = [struct.unpack_from(layout, raw, offset + i * size) for i in range(count)]
    if not rows:
        return []
    table = rows[names][4]
    return [Section(_text(raw, table + name), address, bytes_, bool(flags & _ALLOC),
                    bool(flags & _EXEC), bool(flags & _WRITE), kind == _NOBITS)
            for name, kind, flags, address, _, bytes_ in rows]


def _text(raw: bytes, at: int) -> str:
    return raw[at:raw.index(b"\0", at)].decode("utf-8", "replace")


def sizes(path: Path) -> Sizes:
    """Sums over the sections that are loaded.

    Bare-metal images keep code and constants in one section, which counts as code.
    """
    totals = {"code": 0, "constants": 0, "data": 0, "zeroed": 0}
    for section in sections(path):
        if section.allocated:
            totals[_class(section)] += section.size
    return Sizes(**totals)


def _class(section: Section) -> str:
    if section.zeroed:
        return "zeroed"
    if section.code:
        return "code"
    return "data" if section.writable else "constants"
