"""Onefold: a neural network in, a program made for exactly that network and device out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Model", "OnefoldError", "Program", "__version__", "load"]

if TYPE_CHECKING:
    from onefold.api import Model, load
    from onefold.errors import OnefoldError
    from onefold.forms import Program

_HOMES = {"load": "onefold.api", "Model": "onefold.api", "OnefoldError": "onefold.errors",
          "Program": "onefold.forms"}  # fmt: skip


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'onefold' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(home), name)
