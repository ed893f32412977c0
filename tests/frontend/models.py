"""Real model files for the reader tests, and a small FlatBuffer writer for crafted ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DATA = Path(os.environ.get("ONEFOLD_TESTDATA", ROOT.parent / "shared"))


def real(ending: str, limit: int | None = None) -> list[Path]:
    """All real models of a format, smallest first, at most `limit` bytes each."""
    found = sorted((DATA / "models" / ending).glob(f"*.{ending}"), key=lambda p: p.stat().st_size)
    return [p for p in found if limit is None or p.stat().st_size <= limit]


def parameters(ending: str, limit: int | None = None) -> list[object]:
    """`pytest.param`s of the real models, or one that says why there are none."""
    found = real(ending, limit)
    if not found:
        why = f"no models in {DATA.name}/models/{ending}: set ONEFOLD_TESTDATA"
        return [pytest.param(Path("none"), marks=pytest.mark.skip(reason=why))]
    return [pytest.param(p, id=p.name, marks=pytest.mark.testdata) for p in found]
