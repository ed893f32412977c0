"""A cache folder per test; what the toolchain builds once is shared by all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from onefold.run import cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("ONEFOLD_CACHE_DIR", str(folder))
    monkeypatch.setattr(cache._Budget, "built", -1)
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder
