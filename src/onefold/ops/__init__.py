"""The operators: one class each, found by being in this package."""

from __future__ import annotations

import importlib
import pkgutil

from onefold.ops.base import registry

__all__ = ["registry"]

for _m in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_m.name}")
