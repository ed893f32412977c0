"""In CI a missing emulator, compiler or referee fails the run, other reasons to skip do not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = {  # what is missing -> a test file, and what becomes of it in CI
    "emulator": ("def test():\n    pytest.skip('qemu-system-arm is not installed')\n", "FAILED"),
    "compiler": ("def test():\n    pytest.skip('no GCC (apt-get install gcc)')\n", "FAILED"),
    "marked": ("@pytest.mark.skipif(True, reason='no GCC (apt-get install gcc)')\n"
               "def test(): pass\n", "ERROR"),
    "machine": ("def test():\n    pytest.skip('the flags are those of x86-64')\n", "SKIPPED"),
    "referee": ("def test():\n    pytest.importorskip('onnxruntime')\n", "FAILED"),
    "module": ("pytest.importorskip('ai_edge_litert.interpreter')\ndef test(): pass\n", "ERROR"),
    "data": ("def test():\n    pytest.skip('no models: set ONEFOLD_TESTDATA')\n", "SKIPPED"),
}


@pytest.mark.parametrize("ci", [True, False])
def test_what_becomes_of_skips(ci: bool, tmp_path: Path) -> None:
    # None in sys.modules makes an import fail as if the package were not installed
    hidden = "".join(f"sys.modules[{m!r}] = None\n" for m in ("onnxruntime", "ai_edge_litert"))
    for name, (text, _) in FILES.items():
        (tmp_path / f"test_{name}.py").write_text(f"import sys, pytest\n{hidden}{text}")
    command = [sys.executable, "-m", "pytest", "-rA", "--continue-on-collection-errors",
               "--rootdir", str(tmp_path), "-c", os.devnull,
               "-p", "tests.conftest", "-p", "no:cacheprovider"]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CI": "true" if ci else ""}
    env.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    said = dict(
        reversed(pair) for pair in re.findall(r"^([A-Z]+) .*?test_(\w+)\.py", done.stdout, re.M)
    )
    assert said == {n: o if ci else "SKIPPED" for n, (_, o) in FILES.items()}, done.stdout
    assert (done.returncode != 0) == ci
