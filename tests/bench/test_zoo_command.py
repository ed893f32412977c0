"""The command that writes the networks of the zoo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.made import ROOT

pytest.importorskip("onnxruntime")


def zoo(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = 'zoo'\n" \
           "import runpy; runpy.run_module('bench.zoo', run_name='__main__')"  # fmt: skip
    return subprocess.run([sys.executable, "-c", code, *args], cwd=folder, text=True,
                          capture_output=True, check=False)  # fmt: skip


def test_help_makes_nothing(tmp_path: Path) -> None:
    done = zoo(tmp_path, "--help")
    assert done.returncode == 0 and "mobilenet_v2" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("args", [(), ("--no-such-option",), ("made", "mobilenet_v9")])
def test_wrong_words_make_nothing(args: tuple[str, ...], tmp_path: Path) -> None:
    done = zoo(tmp_path, *args)
    assert done.returncode == 2 and "usage:" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_network_is_written(tmp_path: Path) -> None:
    done = zoo(tmp_path, "made", "autoencoder")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made" / "autoencoder.onnx").exists()
