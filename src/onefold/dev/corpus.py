"""Small models to begin fuzzing from.

    python -m onefold.dev.corpus DIR

writes the models of ONNX's own operator tests, if `onnx` is installed.  Inputs with a few
integers (shapes, axes, k) become constants with the test's own contents, so that mutations of
them reach what depends on them.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from onefold import knobs

LARGEST = 20_000
"""Bytes of a model beyond which it is left out: small models are mutated faster."""

DIGITS = Path(__file__).resolve().parents[3] / "demo" / "digits.onnx"


def operator_tests() -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of the small models among ONNX's operator tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        tests = load_model_tests(kind="node")
    for test in tests:
        if test.model is None:
            continue
        inputs = test.data_sets[0][0] if test.data_sets else []
        data = _baked(test.model, inputs).SerializeToString()
        if len(data) <= LARGEST:
            yield test.name.removeprefix("test_"), data


def _baked(model: Any, inputs: Any) -> Any:
    """The model with its small integer inputs as constants."""
    from onnx import numpy_helper

    made = type(model)()
    made.CopyFrom(model)
    for k in reversed(range(min(len(inputs), len(made.graph.input)))):
        x = inputs[k]
        if not isinstance(x, (np.ndarray, np.generic)) or x.dtype.kind not in "iu":
            continue
        if x.ndim <= 1 and x.size <= 16:
            made.graph.initializer.append(
                numpy_helper.from_array(np.asarray(x), made.graph.input[k].name)
            )
            del made.graph.input[k]
    return made


def files(format: str, folder: Path | None, largest: int = 60_000) -> list[tuple[str, bytes]]:
    """(name, bytes) of the models to mutate: those of `folder`, and the small ones of
    ONEFOLD_TESTDATA; without a folder, for ONNX, the operator tests too."""
    found: dict[str, bytes] = {}
    places = [p for p in (folder, knobs.TESTDATA.get()) if p is not None]
    for place in places:
        for path in sorted(place.rglob(f"*.{format}")):
            if path.stat().st_size <= largest:
                found[str(path.relative_to(place))] = path.read_bytes()
    if format == "onnx":
        if DIGITS.exists():
            found["digits.onnx"] = DIGITS.read_bytes()
        if folder is None:
            found.update(operator_tests())
    return sorted(found.items())


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    folder = Path(argv[0])
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, data in operator_tests():
        (folder / f"{name}.onnx").write_bytes(data)
        count += 1
    print(f"{count} models")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
