"""Digests: BLAKE2b of 32 bytes, as hexadecimal numbers.

By Python's own module: `hashlib` loads OpenSSL, which takes 3.6 MB of memory of every process, as
much as all else that running a compiled program imports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from hashlib import blake2b
else:
    try:
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b

BYTES = 32
CHUNK = 1 << 18


def hasher() -> blake2b:
    return blake2b(digest_size=BYTES)


def of_bytes(data: bytes | memoryview) -> str:
    return blake2b(data, digest_size=BYTES).hexdigest()


def of_file(file: BinaryIO) -> str:
    """Of all that is left of a file."""
    digest = hasher()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
