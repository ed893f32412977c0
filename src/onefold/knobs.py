"""Environment knobs: one line each, read when asked for, so that tests and users can set them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from onefold.errors import OptionError

T = TypeVar("T")
_SUFFIX = {"k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}

REGISTRY: dict[str, Knob[object]] = {}


@dataclass(frozen=True, slots=True)
class Knob(Generic[T]):
    """An environment variable with a type, a default and one line of help."""

    name: str
    parse: Callable[[str], T]
    default: T
    help: str

    def get(self) -> T:
        """The value now.  Raises `OptionError` when the text is not of the knob's type."""
        text = os.environ.get(self.name, "")
        if not text:
            return self.default
        try:
            return self.parse(text)
        except ValueError as error:
            raise OptionError(f"{self.name} has the value '{text}'", why=str(error),
                              remedy=f"Unset {self.name} or correct it: {self.help}.") from None


def size(text: str) -> int:
    """Bytes from `4000000`, `4M`, `4GB` (decimal) or `4GiB` (binary)."""
    word = text.strip().lower().removesuffix("b")
    digits = word.rstrip("kmgi")
    unit = word[len(digits):]
    if (unit and unit not in _SUFFIX) or not digits.isascii() or not digits.isdigit():
        raise ValueError("it must be a number of bytes such as 4000000, 4M or 4GiB")
    return int(digits) * _SUFFIX.get(unit, 1)


def count(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers from `low` to `high`."""
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError("it must be a whole number") from None
        if not low <= value <= high:
            raise ValueError(f"it must be from {low} to {high}")
        return value
    return parse


def _folder(text: str) -> Path | None:
    return Path(text).expanduser()


def _knob(name: str, parse: Callable[[str], T], default: T, text: str) -> Knob[T]:
    knob = Knob(name, parse, default, text)
    REGISTRY[name] = knob  # type: ignore[assignment]
    return knob


_NONE: Path | None = None
_EVERY = 2**31 - 1

CACHE_DIR = _knob("ONEFOLD_CACHE_DIR", _folder, _NONE,
                  "folder of compiled programs (default: the user's cache folder)")
CACHE_LIMIT = _knob("ONEFOLD_CACHE_LIMIT", size, 4 * 10**9,
                    "most bytes the cache may hold; least recently used entries go first")
TOOLCHAIN_DIR = _knob("ONEFOLD_TOOLCHAIN_DIR", _folder, _NONE,
                      "folder of the libc and run-time parts the toolchain builds once per target "
                      "(default: beside the cache)")
TUNED_DIR = _knob("ONEFOLD_TUNED_DIR", _folder, _NONE,
                  "folder of the times that `onefold tune` has measured (default: in that of the "
                  "cache, where ONEFOLD_CACHE_DIR gives one, or the user's data folder)")
DEBUG = _knob("ONEFOLD_DEBUG", count(0, 6), 0,
              "what is told on stderr: 1 targets, 2 times, 3 decisions, 4 sources, 5 IR, 6 patches")
DUMP = _knob("ONEFOLD_DUMP", _folder, _NONE, "folder that receives the text form of every stage")
TESTDATA = _knob("ONEFOLD_TESTDATA", _folder, _NONE, "folder of test models and data")
JOBS = _knob("ONEFOLD_JOBS", count(1, 1024), 0,
             "compiler processes at once (default: one per CPU that this process may use)")
THREADS = _knob("ONEFOLD_THREADS", count(1, 256), 0,
                "threads that calls of programs for several may run on, all calls together "
                "(default: one per CPU that this process may use)")
LEVEL = _knob("ONEFOLD_LEVEL", str, "",
              "which of its levels a program for several CPUs runs, by the target's last word, as "
              "v3 (default: the last one that this CPU is as good as)")
COMPILE_TIMEOUT = _knob("ONEFOLD_COMPILE_TIMEOUT", count(1, _EVERY), 600,
                        "seconds one compiler or linker run may take")
EMULATOR_TIMEOUT = _knob("ONEFOLD_EMULATOR_TIMEOUT", count(1, _EVERY), 120,
                         "seconds one run under an emulator may take")
MEMORY_LIMIT = _knob("ONEFOLD_MEMORY_LIMIT", size, 16 * 2**30,
                     "most bytes that sizes found in a model may ask for")


def jobs() -> int:
    """How many compiler processes to run at once."""
    if chosen := JOBS.get():
        return chosen
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1
