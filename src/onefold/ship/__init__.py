"""What leaves the compiler: a folder with the sources, the library, a program that runs it on
files, a manifest and a report whose sizes are read from the binaries."""

from __future__ import annotations

from onefold.ship.bundle import Bundle, build

__all__ = ["Bundle", "build"]
