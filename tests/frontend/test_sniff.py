"""Files are recognised by what they contain, and refusals name the format and the remedy."""

from __future__ import annotations

import gzip
import io
import json
import random
import zipfile
from pathlib import Path

import pytest

import onefold.frontend as frontend
from onefold.errors import ModelFormatError
from onefold.frontend import importer, importer_for, recognise
from onefold.frontend.sniff import FORMATS, UNKNOWN, sniff
from onefold.frontend.source import open_source
from tests.frontend.models import DATA
from tests.frontend.test_hostile_files import SMALL_ONNX
from tests.work import must_end

# folder of the test data -> format, with the endings of files that are no models by themselves
FOLDERS = {
    "onnx": "onnx", "tflite": "tflite", "caffe": "caffe", "caffe2": "caffe2", "cntk": "cntk",
    "darknet": "darknet", "keras_h5": "keras_h5", "llama2c": "llama2c", "mnn": "mnn",
    "mxnet": "mxnet", "ncnn": "ncnn", "openvino": "openvino", "tensorflow_frozen": "graphdef",
    "tensorflow_savedmodel": "savedmodel", "tfjs": "tfjs", "pytorch": "pytorch",
}
NO_MODELS = (".bin", ".index", ".data-00000-of-00001")


def real_files() -> list[tuple[str, Path]]:
    files = ((name, p) for name, folder in ((v, k) for k, v in FOLDERS.items())
             for p in sorted((DATA / "models" / folder).rglob("*")) if p.is_file())
    return [(name, p) for name, p in files if p.suffix not in NO_MODELS or name == "llama2c"]


@pytest.mark.testdata
def test_every_real_model_is_recognised() -> None:
    files = [(n, p) for n, p in real_files() if p.name != "tok512.bin"]
    if not files:
        pytest.skip("no models: set ONEFOLD_TESTDATA")
    wrong = [(p.name, recognise(p).name) for name, p in files if recognise(p).name != name
             and (p.name, recognise(p).name) != ("silero_vad.jit", "torchscript")]
    assert not wrong


@pytest.mark.testdata
def test_weights_and_texts_are_not_taken_for_models() -> None:
    files = [p for folder in ("openvino", "ncnn", "tfjs", "tensorflow_savedmodel")
             for p in sorted((DATA / "models" / folder).rglob("*")) if p.suffix in NO_MODELS]
    if not files:
        pytest.skip("no models: set ONEFOLD_TESTDATA")
    assert [p.name for p in files if recognise(p) != UNKNOWN] == []
    assert recognise(DATA / "models" / "README.md") == UNKNOWN


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 100)
    return file.getvalue()


@pytest.mark.parametrize("raw,name", [
    (SMALL_ONNX, "onnx"), (SMALL_ONNX[:len(SMALL_ONNX) - 3], "onnx"),
    (b"\x1c\0\0\0TFL3" + bytes(30), "tflite"),
    (zipped("net/data.pkl", "net/data/0"), "pytorch"),
    (zipped("net/data.pkl", "net/constants.pkl", "net/code/__torch__.py"), "torchscript"),
    (zipped("config.json", "model.weights.h5"), "keras"),
    (zipped("readme.txt"), "zip"), (gzip.compress(b"x", mtime=0), "gzip"),
    (b"GGUF\3\0\0\0", "gguf"), (b"\x0a\0\0\0\0\0\0\0" + b'{"a":{}}  ', "safetensors"),
    (b"\x18\0\0\0ORTM" + bytes(20), "ort"), (b"\x18\0\0\0ET12" + bytes(20), "executorch"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "lfs"),
    (b"<!DOCTYPE html><html>", "html"), (b"\n  <html><body>404", "html"),
    (b'<?xml version="1.0"?>\n<!-- made by mo -->\n<net name="a" version="11">', "openvino"),
    (b"# yolo\n[net]\nbatch=1\n", "darknet"), (b"7767517\n75 83\nInput data 0 1 data\n", "ncnn"),
    (b'name: "LeNet"\n# comment\nlayer {\n name: "data"\n}', "caffe"),
    (json.dumps({"nodes": [], "arg_nodes": [], "heads": []}).encode(), "mxnet"),
    (json.dumps({"format": "layers-model", "modelTopology": {}}).encode(), "tfjs"),
    (json.dumps({"class_name": "Sequential", "config": {}}).encode(), "keras_json"),
    (b"<\n  ir_version: 8,\n  opset_import: [\"\" : 17]\n>\n", "onnxtxt"),
    (b"", "unknown"), (b"hello", "unknown"), (bytes(100), "unknown"), (b"\xff" * 100, "unknown"),
    (b"{}", "unknown"),
])
def test_signatures(raw: bytes, name: str) -> None:
    found = recognise(raw)
    assert found.name == name
    assert (found.confidence > 0) == (name != "unknown")


def test_every_format_without_an_importer_has_a_remedy() -> None:
    for entry in FORMATS:
        assert entry.name in ("onnx", "tflite") or entry.remedy.endswith((".", ")", "..."))


def test_any_bytes_are_recognised_in_bounded_time() -> None:
    evil = (b"<?xml?>" + b"<!-- -->" * 50_000, b"#\n" * 100_000, b"{" * 100_000,
            b"name:" * 20_000, b"\x0a" * 100_000, b"\x08\x80" * 100_000, b"PK\3\4" * 50_000)
    rng = random.Random(5)
    with must_end():
        for raw in (*evil, *(rng.randbytes(rng.randrange(200)) for _ in range(500))):
            sniff(memoryview(raw))


def test_a_format_without_an_importer_is_refused_by_name() -> None:
    with pytest.raises(ModelFormatError) as error:
        importer_for(open_source(b"7767517\n75 83\n", name="net.param"))
    text = str(error.value)
    assert error.value.code == "OF102" and "there is no importer for ncnn" in text
    assert "net.param" in text and "it was made from" in text


def test_what_is_no_model_is_refused_with_its_first_bytes() -> None:
    with pytest.raises(ModelFormatError, match="it begins with b'hello'"):
        importer_for(open_source(b"hello"))
    with pytest.raises(ModelFormatError, match="it is empty"):
        importer_for(open_source(b""))


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="a folder is not a model"):
        recognise(tmp_path)
    (tmp_path / "model.json").write_text('{"modelTopology": {}}')
    assert recognise(tmp_path).name == "tfjs"


def test_a_new_format_brings_its_own_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontend, "_IMPORTERS", dict(frontend._IMPORTERS))

    @importer(format="mine", title="My format", probe=lambda data: float(data[:4] == b"MINE"))
    def load(source: object) -> str:
        return "graph"
    assert recognise(b"MINE....").title == "My format"
    assert importer_for(open_source(b"MINE....")).load is load
    with pytest.raises(AssertionError, match="two importers"):
        importer(format="mine", title="Another")(lambda source: None)
