"""TFLite operators: one function each, found by being in this package."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence

from onefold.ir.graph import Builder, Value
from onefold.ops.formats import TfliteNode

TfliteRule = Callable[[TfliteNode, Builder], Sequence[Value]]
rules: dict[str, TfliteRule] = {}


def tflite_rule(*names: str) -> Callable[[TfliteRule], TfliteRule]:
    """Decorator: the function imports the TFLite operators of these names."""

    def add(f: TfliteRule) -> TfliteRule:
        for name in names:
            rules[name] = f
        return f

    return add


def _find_all() -> None:
    for m in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{m.name}")


_find_all()
