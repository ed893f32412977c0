"""What a model eats and how it is scored: one table of a TOML file per model, by file name."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from onefold.errors import OptionError

FOLDER = Path(__file__).parent / "records"


@dataclass(frozen=True)
class Record:
    """A model's inputs.

    sources: data sets of data.py, the first with the labels that `score` (of scores.py) takes.
    A raw number becomes (raw - mean) / std * scale, then stored by the input's own quantization;
    without these it is stored as it is. fit: crop, stretch or letterbox of a picture. take: the
    first samples, at most so many. offset: what `score` adds to a class, or is about. shapes: of
    the inputs; values: of those that data do not fill; feedback: output -> input of the next call
    of a stream. classes: output -> axis whose largest element is the answer, the first output's
    last one where there are classes to be scored. low, high: of random inputs.
    """

    sources: tuple[str, ...] = ()
    take: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: float = 1.0
    channels: str = "rgb"
    fit: str = "crop"
    score: tuple[str, ...] = ()
    offset: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    values: Mapping[str, int] = field(default_factory=dict)
    feedback: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    low: float = -1.0
    high: float = 1.0

    @property
    def normalised(self) -> bool:
        return bool(self.mean or self.std) or self.scale != 1.0


@cache
def _all() -> dict[str, Record]:
    found: dict[str, Record] = {}
    for path in sorted(FOLDER.glob("*.toml")):
        for name, table in tomllib.loads(path.read_text("utf-8")).items():
            found[name] = _record(name, table)
    return found


def _record(name: str, table: Mapping[str, Any]) -> Record:
    known = {f.name for f in fields(Record)}
    unknown = sorted(set(table) - known)
    if unknown:
        raise OptionError(f"the record of {name} has unknown fields: {', '.join(unknown)}")
    made: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            value = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        made[key] = tuple(value) if isinstance(value, list) else value
    return Record(**made)


def records(name: str) -> dict[str, Record]:
    """The records of a file by variant ("name@variant"); an empty one where there is none."""
    found = {}
    for key, record in _all().items():
        file, _, variant = key.partition("@")
        if file == name:
            found[variant] = record
    return found or {"": Record()}


def recorded() -> set[str]:
    """File names that have a record."""
    return {key.partition("@")[0] for key in _all()}
