"""A compiled program on disk: its library, its weights, and a manifest that says the rest.

A program is always run from an artifact, cold or warm, so that a warm start parses no model; what
writes artifacts is in `onefold.run.building`, which a warm start does not import.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KERNELS = Path(__file__).resolve().parent.parent / "kernels"
MANIFEST = "manifest.json"
LIBRARY = "model.so"
WEIGHTS = "weights.bin"
FORMAT = 1


@dataclass(frozen=True)
class Artifact:
    """A folder with a compiled program."""

    path: Path
    facts: Mapping[str, Any]

    @staticmethod
    def open(path: Path) -> Artifact:
        return Artifact(path, json.loads((path / MANIFEST).read_text("utf-8")))
