"""ONNX operators that are composed of ours: one function each, found by being in this package."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence

from onefold.ir.graph import Builder, Value
from onefold.ops.formats import OnnxNode

Rule = Callable[[OnnxNode, Builder], Sequence[Value]]
rules: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Decorator: the function imports the ONNX operators of these names ("domain:Name")."""

    def add(f: Rule) -> Rule:
        for name in names:
            rules[name] = f
        return f

    return add


def _find_all() -> None:
    for m in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{m.name}")


_find_all()
