"""From files to graphs: one importer per source format, chosen by what the file contains.

An importer is a function in `onefold/frontend/<format>/importer.py` with the decorator
`importer`; nothing else names it.  It is imported when a file of its format is met.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from onefold.errors import ModelFormatError

if TYPE_CHECKING:  # a warm start imports a module of this package, and reads no file
    from onefold.files import Files
    from onefold.frontend.sniff import Probe, Recognised
    from onefold.frontend.source import Bytes, Source

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Importer:
    """A function from a `Source` to a graph, and the format it takes."""

    format: str
    title: str
    load: Callable[..., Any]
    probe: Probe | None = None


_IMPORTERS: dict[str, Importer] = {}


def importer(*, format: str, title: str, probe: Probe | None = None) -> Callable[[F], F]:
    """Registers a function as the importer of a format of `frontend.sniff`.

    A format that `sniff` does not know brings a `probe`, which answers how sure it is (0 to 1)
    that some bytes are of that format.
    """
    def register(load: F) -> F:
        if format in _IMPORTERS and _IMPORTERS[format].load is not load:
            raise AssertionError(f"two importers for '{format}'")
        _IMPORTERS[format] = Importer(format, title, load, probe)
        return load
    return register


def importers() -> dict[str, Importer]:
    """All importers by format; imports each of them."""
    for name in _packages():
        find_importer(name)
    return dict(_IMPORTERS)


def _packages() -> list[str]:
    return [m.name for m in pkgutil.iter_modules(__path__) if m.ispkg and m.name[0] != "_"]


def find_importer(format: str) -> Importer | None:
    """The importer of a format, imported now if need be; None when there is none."""
    if format not in _IMPORTERS and format in _packages():
        name = f"{__name__}.{format}.importer"
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name)
    return _IMPORTERS.get(format)


def recognise(model: str | os.PathLike[str] | Bytes | Source) -> Recognised:
    """The format of a file, a folder or bytes; `sniff.UNKNOWN` when nothing fits."""
    from onefold.frontend.sniff import sniff
    from onefold.frontend.source import Source, open_source

    if isinstance(model, (str, os.PathLike)) and Path(model).is_dir():
        return _recognise_folder(Path(model))
    source = model if isinstance(model, Source) else open_source(model)
    found = sniff(source.data)
    return found if found.confidence else _recognise_by_importers(source)


def _recognise_by_importers(source: Source) -> Recognised:
    """Asks the importers of formats that `sniff` does not know."""
    from onefold.frontend.sniff import FORMATS, UNKNOWN, Recognised

    best = UNKNOWN
    for name in {*_packages(), *_IMPORTERS} - {f.name for f in FORMATS}:
        entry = find_importer(name)
        confidence = entry.probe(source.data) if entry and entry.probe else 0
        if entry and confidence > best.confidence:
            best = Recognised(entry.format, entry.title, "", confidence)
    return best


def _recognise_folder(folder: Path) -> Recognised:
    from onefold.frontend.sniff import sniff
    from onefold.frontend.source import open_source

    for name in ("saved_model.pb", "model.json"):
        if (folder / name).is_file():
            return sniff(open_source(folder / name).data)
    raise ModelFormatError("a folder is not a model", where=str(folder),
                           why="it has neither saved_model.pb nor model.json",
                           kind=ModelFormatError.UNKNOWN)


def importer_for(source: Source) -> Importer:
    """The importer that takes these bytes.

    Raises `ModelFormatError` (OF102), which names the format when it is known but has no importer
    yet, and says how to convert it.
    """
    found = recognise(source)
    entry = find_importer(found.name)
    if entry is not None:
        return entry
    if found.confidence == 0:
        head = bytes(source.data[:16])
        raise ModelFormatError("the file is not a model of any known format", where=source.name,
                               why=f"it begins with {head!r}" if head else "it is empty",
                               remedy=found.remedy, kind=ModelFormatError.UNKNOWN)
    raise ModelFormatError(f"there is no importer for {found.title}", where=source.name,
                           why=f"the contents are those of {found.title}",
                           remedy=found.remedy, kind=ModelFormatError.UNKNOWN)


def read_model(source: Any, format: str = "", files: Files | None = None) -> Any:
    """The model in a path, bytes or `onnx.ModelProto`, read by the importer of its format: a
    `frontend.model.SourceModel`. files: those that it was seen to lie in before.

    Raises ModelFormatError when it cannot be read, or when no importer takes it.
    """
    from onefold.frontend.source import open_source

    if hasattr(source, "SerializeToString"):
        from onefold.frontend.onnx.reader import serialised

        source = serialised(source)
    opened = open_source(source, files=files)
    entry = importer_for(opened) if not format else find_importer(format)
    if entry is None:
        known = ", ".join(sorted(importers()))
        raise ModelFormatError(f"there is no importer for the format '{format}'",
                               why=f"known are {known}", kind=ModelFormatError.UNKNOWN)
    return entry.load(opened)
