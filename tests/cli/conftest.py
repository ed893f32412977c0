"""Small models made here, a cache of their own, and the command line as a function."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from onnx import helper

import onefold
from onefold.cli import run
from tests.cli.made import NASTY, conv_nodes, conv_weights, save, value


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Done]


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    folder.chmod(0o700)
    return folder


@pytest.fixture(autouse=True)
def own_cache(cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEFOLD_CACHE_DIR", str(cache_folder))
    monkeypatch.setenv("PYTHONPATH", str(Path(onefold.__file__).parents[1]))  # for processes
    for name in ("ONEFOLD_DEBUG", "ONEFOLD_DUMP", "COLUMNS"):  # pytest-xdist sets the last
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*words: object) -> Done:
        capsys.readouterr()
        code = run([str(w) for w in words])
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return call


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of net.onnx (pictures of 8x8), nasty.onnx (the same with hostile names), open.onnx
    (an open dimension), two.onnx (two inputs), wave.onnx (40 samples)."""
    folder = tmp_path_factory.mktemp("models")
    ports = [value("x", [1, 3, 8, 8])], [value("scores", [1, 4])]
    save(folder / "net.onnx", conv_nodes(), *ports, **conv_weights())
    save(folder / "nasty.onnx", conv_nodes(NASTY), *ports, **conv_weights())
    add = helper.make_node("Add", ["a", "b"], ["sum"], name="add")
    save(folder / "two.onnx", [add], [value("a", [2, 3]), value("b", [2, 3])],
         [value("sum", [2, 3])])  # fmt: skip
    relu = helper.make_node("Relu", ["x"], ["y"], name="relu")
    save(folder / "open.onnx", [relu], [value("x", ["batch", 3])], [value("y", ["batch", 3])])
    save(folder / "wave.onnx", [relu], [value("x", [1, 40])], [value("y", [1, 40])])
    return folder
