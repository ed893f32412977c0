"""Files to begin fuzzing from: one TFLite operator each, as in the operator tests.

    PYTHONPATH=src:. python -m tests.fuzz.seeds DIR
"""

from __future__ import annotations

import sys
from pathlib import Path


def tflite() -> list[tuple[str, bytes]]:
    from tests.frontend.test_tflite_ops import CASES, options_of
    from tests.frontend.tflite_build import build

    return [
        (f"{k:04d}-{op.name}", build(op.name, op.inputs, op.outputs, options_of(op)))
        for k, op in enumerate(CASES)
    ]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in tflite():
        (folder / f"{name}.tflite").write_bytes(data)
