"""What an engine is asked to do; written as JSON for the process that does it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


class Skip(Exception):
    """The engine cannot take this job; the text is the reason."""


@dataclass(frozen=True)
class Job:
    """A network at one precision, with its inputs by name in an .npz file.

    format: "onnx" or "tflite". folder: where the engine's own files are. options: for Onefold's
    `compile`.
    """

    network: str
    model: str
    format: str
    inputs: str
    outputs: tuple[str, ...]
    precision: str
    threads: int
    folder: str
    options: dict[str, Any] = field(default_factory=dict)

    def feeds(self) -> dict[str, Any]:
        with np.load(self.inputs) as arrays:
            return dict(arrays)

    @property
    def at(self) -> Path:
        return Path(self.folder)

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def loads(text: str) -> Job:
        facts = json.loads(text)
        return Job(**{**facts, "outputs": tuple(facts["outputs"])})
