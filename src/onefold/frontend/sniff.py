"""Which model format some bytes are in, told from the bytes alone.

Formats with an importer are recognised so that it can be called; the others so that the refusal
can name them and say what to do.  Each row of `FORMATS` is one format with its probe, which looks
at a bounded number of bytes and answers how sure it is: 1 a signature, 0.8 a structure that hardly
anything else has, 0.5 a resemblance, 0 no.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

Probe = Callable[[memoryview], float]

SURE, LIKELY, MAYBE, NO = 1.0, 0.8, 0.5, 0.0
HEAD = 4096
TAIL = 65_536


@dataclass(frozen=True, slots=True)
class Format:
    """A file format: its short name, its title for people, and how to get from it to ONNX."""

    name: str
    title: str
    remedy: str
    probe: Probe


@dataclass(frozen=True, slots=True)
class Recognised:
    """What the bytes are, and how sure that is (0 to 1)."""

    name: str
    title: str
    remedy: str
    confidence: float


UNKNOWN = Recognised("unknown", "an unknown format",
                     "Give a .onnx or .tflite file; if it is one, it is damaged from the start.", 0)


def sniff(data: memoryview) -> Recognised:
    """The format that fits `data` best; `UNKNOWN` when none does."""
    scored = [(f.probe(data), f) for f in FORMATS]
    confidence, best = max(scored, key=lambda pair: pair[0])
    if confidence == NO:
        return UNKNOWN
    return Recognised(best.name, best.title, best.remedy, confidence)


# --- building blocks ---


def _magic(*signatures: bytes, at: int = 0) -> Probe:
    def probe(data: memoryview) -> float:
        found = any(bytes(data[at:at + len(s)]) == s for s in signatures)
        return SURE if found else NO
    return probe


def _text(data: memoryview) -> str:
    """The beginning as text, empty when it is binary."""
    head = bytes(data[:HEAD])
    if b"\0" in head:
        return ""
    return head.decode("utf-8", "ignore").lstrip("\ufeff \t\r\n")


def _pattern(pattern: str, confidence: float) -> Probe:
    compiled = re.compile(pattern)
    return lambda data: confidence if compiled.match(_text(data)) else NO


def _json_with(*keys: str) -> Probe:
    """JSON whose beginning or end has one of the keys."""
    wanted = [f'"{k}"'.encode() for k in keys]

    def probe(data: memoryview) -> float:
        if not _text(data).startswith("{"):
            return NO
        ends = bytes(data[:TAIL]) + bytes(data[-TAIL:])
        return LIKELY if any(k in ends for k in wanted) else NO
    return probe


def _zip_with(*names: bytes) -> Probe:
    """A zip archive whose directory (at the end) has an entry ending in one of the names."""
    def probe(data: memoryview) -> float:
        if bytes(data[:4]) != b"PK\3\4":
            return NO
        listed = bytes(data[:HEAD]) + bytes(data[-TAIL:])
        return SURE if any(n in listed for n in names) else NO
    return probe


def _weaker(probe: Probe, confidence: float) -> Probe:
    return lambda data: confidence if probe(data) else NO


def fields(data: memoryview, most: int = 64) -> list[tuple[int, int, int, int]]:
    """The first fields of what may be a protobuf message: (number, wire type, begin, end).

    Ends early where the bytes stop making sense; the last field may reach beyond the data.
    """
    found: list[tuple[int, int, int, int]] = []
    pos = 0
    while pos < len(data) and len(found) < most:
        tag, begin = _varint(data, pos)
        number, wire = tag >> 3, tag & 7
        if number == 0 or wire not in (0, 1, 2, 5):
            break
        if wire == 2:
            size, begin = _varint(data, begin)
            end = begin + size
        else:
            end = {0: _varint(data, begin)[1], 1: begin + 8, 5: begin + 4}[wire]
        found.append((number, wire, begin, end))
        pos = end
    return found


def _varint(data: memoryview, pos: int) -> tuple[int, int]:
    value = 0
    for k in range(10):
        if pos + k >= len(data):
            return 0, len(data)
        value |= (data[pos + k] & 0x7F) << (7 * k)
        if data[pos + k] < 0x80:
            return value, pos + k + 1
    return 0, len(data)


# --- formats without a signature ---

_ONNX_FIELDS = {(1, 0), (2, 2), (3, 2), (4, 2), (5, 0), (6, 2), (7, 2), (8, 2), (14, 2), (20, 2),
                (25, 2), (26, 2)}


def _onnx(data: memoryview) -> float:
    """A ModelProto: only its field numbers, a graph among them or an operator set."""
    found = fields(data)
    kinds = {(number, wire) for number, wire, _, _ in found}
    known = kinds <= _ONNX_FIELDS and len(found) > 1
    if not known or not kinds & {(7, 2), (8, 2)}:
        return NO
    if (1, 0) not in kinds:
        return MAYBE
    return LIKELY if found[-1][3] <= len(data) else MAYBE + 0.1


def _inner(data: memoryview, field: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
    return fields(data[field[2]:field[3]], 8)


def _is_text(data: memoryview, field: tuple[int, int, int, int]) -> bool:
    raw = bytes(data[field[2]:min(field[3], field[2] + 200)])
    return raw.isascii() and raw.decode("ascii").isprintable()


def _graph_def(data: memoryview) -> float:
    """TensorFlow GraphDef: rows of NodeDef (name, operator, inputs, attributes)."""
    found = fields(data, 4)
    if not found or {(n, w) for n, w, _, _ in found} - {(1, 2), (2, 2), (3, 0), (4, 2)}:
        return NO
    inner = _inner(data, found[0])
    is_node = [f[:2] for f in inner[:2]] == [(1, 2), (2, 2)] and found[0][0] == 1
    return LIKELY if is_node and all(_is_text(data[found[0][2]:], f) for f in inner[:2]) else NO


def _saved_model(data: memoryview) -> float:
    found = fields(data, 3)
    if [f[:2] for f in found[:2]] != [(1, 0), (2, 2)]:
        return NO
    inner = [f[:2] for f in _inner(data, found[1])[:2]]
    return LIKELY if inner == [(1, 2), (2, 2)] and found[1][3] - found[1][2] > 200 else NO


def _cntk(data: memoryview) -> float:
    found = fields(data, 3)
    if [f[:2] for f in found[:2]] != [(1, 0), (2, 2)]:
        return NO
    head = bytes(data[:2000])
    return LIKELY + 0.1 if b"\x0a\x07version" in head or b"\x0a\x03uid" in head else NO


def _caffe_model(data: memoryview) -> float:
    """NetParameter: `layer` is field 100, in older files `layers` is field 2."""
    found = fields(data, 16)
    if any(f[:2] == (100, 2) for f in found):
        return LIKELY
    if len(found) < 2 or found[0][:2] != (1, 2) or found[1][:2] != (2, 2):
        return NO
    # V1LayerParameter: bottom = 2, top = 3, name = 4, type = 5 as a number
    kinds = {f[:2] for f in _inner(data, found[1])}
    return LIKELY if (5, 0) in kinds and (4, 2) in kinds else NO


def _caffe2(data: memoryview) -> float:
    """NetDef: perhaps a name, then operators (inputs, outputs, a type as text)."""
    found = fields(data, 3)
    if found and found[0][:2] == (1, 2) and _is_text(data, found[0]):
        found = found[1:]
    if not found or found[0][:2] != (2, 2):
        return NO
    kinds = [f[:2] for f in _inner(data, found[0])]
    return LIKELY if (4, 2) in kinds and set(kinds) <= {(n, 2) for n in range(1, 9)} else NO


def _safetensors(data: memoryview) -> float:
    size = int.from_bytes(data[:8], "little")
    return LIKELY if 2 <= size < len(data) and bytes(data[8:10]) == b'{"' else NO


def _mnn(data: memoryview) -> float:
    """A FlatBuffer without identifier, whose root is a table of the size MNN's Net has."""
    if len(data) < 32:
        return NO
    root = int.from_bytes(data[:4], "little")
    if not 8 <= root <= 64 or root + 4 > len(data):
        return NO
    table = root - int.from_bytes(data[root:root + 4], "little", signed=True)
    if not 4 <= table < root:
        return NO
    length = int.from_bytes(data[table:table + 2], "little")
    return 0.4 if 16 <= length <= 32 and length % 2 == 0 and table + length <= root + 4 else NO


def _darknet_weights(data: memoryview) -> float:
    version = [int.from_bytes(data[4 * i:4 * i + 4], "little") for i in range(3)]
    fits = version[0] == 0 and version[1] in (1, 2) and version[2] <= 10 and len(data) % 4 == 0
    return 0.4 if fits and len(data) > 20 else NO


def _llama2c(data: memoryview) -> float:
    if len(data) < 28:
        return NO
    dim, hidden, layers, heads, kv_heads, vocabulary, length = (
        int.from_bytes(data[4 * i:4 * i + 4], "little", signed=True) for i in range(7))
    if not (0 < heads <= dim <= 1 << 16 and 0 < kv_heads <= heads and dim % heads == 0
            and 0 < layers < 1000 and dim < hidden < 1 << 20 and 0 < length < 1 << 22):
        return NO
    return MAYBE if 4 * abs(vocabulary) * dim < len(data) else NO


_VIA_ONNX = "Export it to ONNX in its own framework"

FORMATS: tuple[Format, ...] = (
    Format("onnx", "ONNX", "", _onnx),
    Format("tflite", "TensorFlow Lite", "", _magic(b"TFL3", at=4)),
    Format("openvino", "OpenVINO IR", "Use the ONNX file that the IR was made from.",
           _pattern(r"(<\?xml[^>]*>\s*)?(<!--((?!-->).)*-->\s*)*<net\s", LIKELY)),
    Format("caffe", "Caffe prototxt", f"{_VIA_ONNX}, for instance with caffe2onnx.",
           _pattern(r"(?s)(#[^\n]*\n\s*)*(name\s*:.*)?(input|layers?|force_backward|input_param)"
                    r"\s*[:{]", LIKELY)),
    Format("caffe", "Caffe model", f"{_VIA_ONNX}, for instance with caffe2onnx.", _caffe_model),
    Format("caffe2", "Caffe2 NetDef", f"{_VIA_ONNX} with caffe2.python.onnx.", _caffe2),
    Format("savedmodel", "TensorFlow SavedModel",
           "Convert it: python -m tf2onnx.convert --saved-model DIR, or tf.lite.TFLiteConverter.",
           _saved_model),
    Format("graphdef", "TensorFlow frozen graph",
           "Convert it: python -m tf2onnx.convert --graphdef FILE --inputs ... --outputs ...",
           _graph_def),
    Format("keras_h5", "Keras HDF5", "Convert it with tf.lite.TFLiteConverter.from_keras_model or "
           "tf2onnx.convert.from_keras.", _magic(b"\x89HDF\r\n\x1a\n")),
    Format("keras", "Keras archive", "Convert it with tf.lite.TFLiteConverter.from_keras_model or "
           "tf2onnx.convert.from_keras.", _zip_with(b"model.weights.h5")),
    Format("keras_json", "Keras architecture (JSON, no weights)",
           "Load it in Keras with its weights and export that.",
           _weaker(_json_with("class_name"), MAYBE)),
    Format("torchscript", "TorchScript archive", f"{_VIA_ONNX}: torch.onnx.export.",
           _zip_with(b"/constants.pkl", b"/code/__torch__")),
    Format("pytorch", "PyTorch weights", "Load them into the model's class and use "
           "torch.onnx.export.", _weaker(_zip_with(b"/data.pkl"), 0.9)),
    Format("pytorch", "PyTorch weights (before 1.6)", "Load them into the model's class and use "
           "torch.onnx.export.", _magic(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19")),
    Format("executorch", "ExecuTorch program", "Use torch.onnx.export on the source model.",
           _magic(b"ET12", at=4)),
    Format("ort", "ONNX Runtime's own format", "Use the ONNX file that it was made from.",
           _magic(b"ORTM", at=4)),
    Format("ncnn", "ncnn parameters", "Use the ONNX or PyTorch model that it was made from.",
           _magic(b"7767517\n", b"7767517\r\n", b"\xdd\x85\x76\x00")),
    Format("mnn", "MNN", "Use the model that it was made from.", _mnn),
    Format("darknet", "Darknet configuration", f"{_VIA_ONNX}, for instance with darknet2onnx.",
           _pattern(r"(#[^\n]*\n\s*)*\[(net|network)\]", LIKELY)),
    Format("darknet", "Darknet weights", f"{_VIA_ONNX}, with its .cfg beside it.",
           _darknet_weights),
    Format("mxnet", "MXNet symbol", f"{_VIA_ONNX}: mx.onnx.export_model.",
           _json_with("arg_nodes")),
    Format("mxnet", "MXNet parameters", f"{_VIA_ONNX}: mx.onnx.export_model.",
           _magic(b"\x12\x01\0\0\0\0\0\0")),
    Format("cntk", "CNTK model", f"{_VIA_ONNX}: model.save(path, format=C.ModelFormat.ONNX).",
           _cntk),
    Format("tfjs", "TensorFlow.js model", "Convert the source model with tf2onnx or to TFLite.",
           _json_with("modelTopology", "weightsManifest")),
    Format("llama2c", "llama2.c checkpoint", "Export the source model to ONNX.", _llama2c),
    Format("gguf", "GGUF", "Export the source model to ONNX.", _magic(b"GGUF")),
    Format("safetensors", "safetensors weights", "Load them into the model's class and use "
           "torch.onnx.export.", _safetensors),
    Format("rknn", "RKNN model, compiled for Rockchip NPUs", "Use the model that it was made from.",
           _magic(b"RKNN")),
    Format("onnxtxt", "ONNX text", "Write it as protobuf: "
           "onnx.save(onnx.parser.parse_model(text), path).",
           _pattern(r"<\s*(ir_version|opset_import)\s*:", LIKELY)),
    Format("gzip", "gzip archive", "Unpack it first: gunzip.", _magic(b"\x1f\x8b")),
    Format("xz", "xz archive", "Unpack it first: unxz.", _magic(b"\xfd7zXZ\0")),
    Format("zstd", "zstd archive", "Unpack it first: unzstd.", _magic(b"(\xb5/\xfd")),
    Format("bzip2", "bzip2 archive", "Unpack it first: bunzip2.", _magic(b"BZh")),
    Format("tar", "tar archive", "Unpack it first: tar -xf.", _magic(b"ustar", at=257)),
    Format("zip", "zip archive", "Unpack it first: unzip.",
           _weaker(_magic(b"PK\3\4"), MAYBE)),
    Format("lfs", "Git LFS pointer, not the file itself", "Fetch the file: git lfs pull.",
           _magic(b"version https://git-lfs")),
    Format("html", "HTML page, not a model", "The download gave a web page: check the address.",
           _pattern(r"(?i)(<!doctype html|<html)", LIKELY)),
)
