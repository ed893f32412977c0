"""What is measured: the networks of the zoo, and trained ones where there are some.

Files are made once and kept in a work folder: NAME.onnx or NAME.tflite, with NAME.npz beside it;
trained models in a folder of their format.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.weights import BITS, quantize_weights
from onefold import knobs

ROOT = Path(__file__).resolve().parents[1]

WITHOUT_INT8 = ("lstm",)
"""The quantizer has nothing to say about recurrent layers."""

OF_WEIGHTS = ("bert_tiny", "minilm6", "decoder")
"""Networks that are little but products with weights, for precisions of weights alone."""

SIZES: dict[str, dict[str, tuple[int, ...]]] = {
    "ch_ppocr_mobile_v2.0_cls_infer": {"x": (1, 3, 48, 192)},
    "ch_PP-OCRv3_det_infer": {"x": (1, 3, 320, 320)},
    "silero_vad": {"input": (1, 576), "state": (2, 1, 128)},
    "silero_vad_half": {"input": (1, 576), "state": (2, 1, 128)},
}
"""Shapes of trained models that leave theirs open."""

VALUES = {"silero_vad": {"sr": 16000}}
"""Inputs of trained models that may not be any number."""

TRAINED = {
    "f32": (
        "onnx/version-RFB-320.onnx", "onnx/version-RFB-320_without_postprocessing.onnx",
        "onnx/yolox_nano.onnx", "onnx/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "onnx/ch_PP-OCRv3_det_infer.onnx", "onnx/deeplab_v3_1_default_1.onnx",
        "onnx/dtln_model_1.onnx", "onnx/dtln_model_2.onnx", "onnx/gtcrn_simple.onnx",
        "onnx/silero_vad.onnx", "onnx/silero_vad_half.onnx", "onnx/open-closed-eye.onnx",
        "onnx/mnist.onnx",
        "tflite/vww_96_float.tflite", "tflite/pretrainedResnet.tflite",
        "tflite/kws_ref_model_float32.tflite", "tflite/ad01_fp32.tflite",
        "tflite/mobilenet_v1_0.25_224_1_default_1.tflite",
        "tflite/version-RFB-320_without_postprocessing.tflite",
        "tflite/yamnet_audio_classifier_with_metadata.tflite",
        "tflite/dtln_model_1.tflite", "tflite/dtln_model_2.tflite",
        "tflite/trained_lstm.tflite", "tflite/keypoint_classifier.tflite",
        "tflite/hello_world_float.tflite", "tflite/audio_preprocessor_float.tflite",
    ),
    "int8": (
        "tflite/vww_96_int8.tflite", "tflite/pretrainedResnet_quant.tflite",
        "tflite/kws_ref_model.tflite", "tflite/ad01_int8.tflite", "tflite/str_ww_ref_model.tflite",
        "tflite/micro_speech_quantized.tflite", "tflite/person_detect.tflite",
        "tflite/mobilenet_v1_0.25_128_quant.tflite", "tflite/mobilenet_v1_0.25_224_quant.tflite",
        "tflite/mobilenet_v1_0.5_160_quant.tflite", "tflite/mobilenet_v2_1.0_224_quant.tflite",
        "tflite/automl_labeler_model.tflite",
        "tflite/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite",
        "tflite/deeplabv3_mnv2_dm05_pascal_quant.tflite",
        "tflite/movenet_single_pose_lightning_ptq.tflite",
        "tflite/yolox_nano_int8_quantize.tflite",
        "tflite/keras_lstm_mnist_ptq.tflite", "tflite/trained_lstm_int8.tflite",
        "tflite/hello_world_int8.tflite", "tflite/audio_preprocessor_int8.tflite",
    ),
}  # fmt: skip
"""Files below `models` of ONEFOLD_TESTDATA."""


@dataclass(frozen=True)
class Network:
    """A file to measure, with its inputs beside it. weights: bytes that every run reads, so
    without tables that are only looked up in. exact: the outputs before they were rounded to the
    precision, or by the format's reference kernels, where they are known."""

    name: str
    path: Path
    outputs: tuple[str, ...]
    macs: int
    weights: int
    exact: Path | None = None

    @property
    def inputs(self) -> Path:
        return self.path.with_suffix(".npz")

    @property
    def format(self) -> str:
        return self.path.suffix[1:]


def names(precision: str, wanted: Sequence[str]) -> list[str]:
    """Networks that there are at a precision. wanted: names, or "zoo", "trained", "all"."""
    from bench.zoo import NETWORKS

    zoo = [n for n in NETWORKS if precision != "int8" or n not in WITHOUT_INT8]
    if precision in BITS:
        zoo = [n for n in zoo if n in OF_WEIGHTS]
    trained = TRAINED["int8" if precision == "int8" else "f32"]
    files = [Path(n).name for n in trained if _file(n)]
    groups = {"zoo": zoo, "trained": files, "all": zoo + files}
    return [n for w in wanted for n in groups.get(w, [w])]


def network(name: str, precision: str, work: Path) -> Network:
    """The network, its file made if need be. Raises KeyError where there is none of the name."""
    from bench.zoo import NETWORKS

    folder = work / "networks" / _digest()
    folder.mkdir(parents=True, exist_ok=True)
    if name not in NETWORKS:
        path = _trained(name, folder)
        return Network(name, path, *_facts(path), _by_reference(path))
    path = folder / f"{name}.onnx"
    if not path.exists():
        NETWORKS[name]().save(folder)
    plain = Network(name, path, *_facts(path), path.with_suffix(".expected.npz"))
    if precision != "int8" and precision not in BITS:
        return plain
    path = folder / f"{name}-{precision}.onnx"
    if not path.exists():
        if precision in BITS:
            quantize_weights(plain.path, path, BITS[precision])
        else:
            from bench.quantize import quantize

            quantize(plain.path, path)
    outputs, _, weights = _facts(path)
    return Network(name, path, outputs, plain.macs, weights, plain.exact)


def _trained(name: str, folder: Path) -> Path:
    """A trained model with all shapes fixed, and random inputs. Those of branches stay open: a
    branch that these inputs do not take may be for other sizes, and engines check it."""
    found = [f for n in (*TRAINED["f32"], *TRAINED["int8"]) if Path(n).name == name
             and (f := _file(n))]  # fmt: skip
    if not found:
        raise KeyError(f"there is no network '{name}'")
    path = folder / found[0].suffix[1:] / name  # the same network may be there in both formats
    if path.exists():
        return path
    import onefold

    sizes, values = SIZES.get(path.stem, {}), VALUES.get(path.stem, {})
    feeds: dict[str, Any] = {
        d.name: np.array(values[d.name], d.dtype) if d.name in values
        else _drawn(d.dtype, sizes.get(d.name, d.shape))
        for d in onefold.load(found[0]).inputs
    }  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    np.savez(path.with_suffix(".npz"), **feeds)
    if path.suffix == ".onnx":
        _save_fixed(found[0], {n: a.shape for n, a in feeds.items()}, path)
    else:
        shutil.copyfile(found[0], path)
    return path


def _by_reference(path: Path) -> Path | None:
    """The outputs of a TensorFlow Lite model by LiteRT's reference kernels, whose integer
    arithmetic is the definition."""
    import onefold
    from onefold.dev import peers

    found = path.with_suffix(".expected.npz")
    litert = peers.peers()["litert"]
    if path.suffix != ".tflite" or found.exists() or not peers.available(litert):
        return found if found.exists() else None
    model = onefold.load(path)
    with np.load(path.with_suffix(".npz")) as inputs:
        try:
            outs = litert.load(model, exact=True).run(dict(inputs))
        except peers.PeerRefuses:
            return None
    names = [d.name for d in model.outputs]
    np.savez(found, **dict(zip(names, outs, strict=True)))
    return found


def _drawn(dtype: str, shape: Any) -> Any:
    rng = np.random.default_rng(0)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.standard_normal(shape).astype(kind)
    ends = np.iinfo(kind)
    return rng.integers(ends.min, ends.max + 1, shape, dtype=kind)


def _save_fixed(model: Path, shapes: dict[str, tuple[int, ...]], to: Path) -> None:
    import onnx

    proto = onnx.load(model)
    if any(n.op_type == "If" for n in proto.graph.node):
        shutil.copyfile(model, to)
        return
    for port in proto.graph.input:
        for dim, size in zip(port.type.tensor_type.shape.dim, shapes.get(port.name, ()),
                             strict=False):  # fmt: skip
            dim.dim_value = size
    del proto.graph.value_info[:]
    onnx.save(proto, to)


def _facts(path: Path) -> tuple[tuple[str, ...], int, int]:
    """Names of the outputs, multiply-adds, and bytes of weights that every run reads."""
    import onefold
    from onefold.dev.peers.reference import Evaluator
    from onefold.dev.survey import bytes_of, constants_of, macs_of

    model = onefold.load(path)
    with np.load(path.with_suffix(".npz")) as arrays:
        graph = Evaluator(model).graph(dict(arrays))
    nodes = [n for n in graph.nodes if not n.op.name.startswith("Gather")]
    weights = {id(v): v for n in nodes for v in constants_of(n)}
    macs = sum(macs_of(n) for n in graph.nodes)
    return tuple(d.name for d in model.outputs), macs, bytes_of(list(weights.values()))


def _digest() -> str:
    """Of what the files follow from, so that none of an older zoo is taken."""
    here = Path(__file__).parent
    quantizers = [here / "quantize.py", here / "weights.py"]
    sources = [Path(__file__), *quantizers, *sorted((here / "zoo").glob("*.py"))]
    return hashlib.sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()[:12]


def _file(name: str) -> Path | None:
    root = knobs.TESTDATA.get() or ROOT.parent / "shared"
    path = root / "models" / name
    return path if path.exists() else None
