"""The generated schema tables are what their generators make of the installed packages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.frontend.models import ROOT

GENERATED = ROOT / "src/onefold/frontend/_gen"


@pytest.mark.parametrize("name,package", [("tflite", "ai-edge-litert"), ("onnx", "onnx")])
def test_tables_are_current(name: str, package: str, tmp_path: Path) -> None:
    committed = (GENERATED / f"{name}_schema.py").read_text()
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    if f"from {package} {version};" not in committed:
        pytest.skip(f"{package} {version} is not the version that the table was made from")
    out = tmp_path / "schema.py"
    arguments = [str(out)] if name == "onnx" else [official_schema(), str(out)]
    subprocess.run([sys.executable, str(ROOT / f"tools/gen_{name}_schema.py"), *arguments],
                   check=True, capture_output=True)
    assert out.read_text() == committed


def official_schema() -> str:
    spec = importlib.util.find_spec("ai_edge_litert")
    assert spec is not None and spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / "schema_py_generated.py")
