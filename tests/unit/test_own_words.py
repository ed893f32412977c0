"""The project speaks only of itself: no path of anybody's machine, no address of a registry."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Written in halves, so that this file is scanned too.
FOREIGN = [
    "/wo" "rk/", "/ro" "ot/", "/ho" "me/[a-z]", r"/Us" r"ers/\w", r"[A-Z]:\\Us" "ers",
    r"py" r"pi\.org", "python" "hosted", r"registry\.npm" "js", r"index[-_]" "url",
    "arti" "factory", "work" "place",
]  # fmt: skip
WORDS = re.compile("|".join(FOREIGN), re.IGNORECASE)


def _files() -> list[Path]:
    if not (ROOT / ".git").exists() or not (git := shutil.which("git")):
        pytest.skip("this is not a checkout")
    done = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [p for name in done.stdout.split("\0") if name and (p := ROOT / name).is_file()]


def test_no_foreign_words() -> None:
    found = []
    for path in _files():
        raw = path.read_bytes()
        if b"\0" in raw:
            continue
        for k, line in enumerate(raw.decode("utf-8").splitlines(), 1):
            if hit := WORDS.search(line):
                found.append(f"{path.relative_to(ROOT)}:{k}: {hit.group()}")
    assert not found, "\n".join(found)


def test_no_large_files() -> None:
    """What is committed stays small enough to clone and to read; models and data live elsewhere."""
    large = [f"{p.relative_to(ROOT)}: {n}" for p in _files() if (n := p.stat().st_size) > 2_000_000]
    assert not large, "\n".join(large)


@pytest.mark.parametrize("text", ["see /wo" "rk/main", "pip --index" "-url x", r"C:\Us" r"ers\x"])
def test_the_scan_finds(text: str) -> None:
    assert WORDS.search(text)
