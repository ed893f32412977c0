"""Whole TFLite networks: compiled code against LiteRT's or TFLite Micro's reference kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onefold.errors import AcceleratorModelError, UnsupportedModelError
from onefold.frontend.binding import Binding
from onefold.frontend.tflite.importer import import_tflite
from onefold.frontend.tflite.reader import read
from onefold.ir.graph import Graph
from tests.frontend.models import DATA
from tests.frontend.tflite_build import T, build

MODELS = DATA / "models" / "tflite"
pytestmark = pytest.mark.testdata

INTEGER = [
    "ad01_int8", "hello_world_int8", "keras_lstm_mnist_ptq", "kws_ref_model",
    "micro_speech_quantized", "mobilenet_v1_0.25_128_quant", "pretrainedResnet_quant",
    "str_ww_ref_model", "trained_lstm_int8", "vww_96_int8",
]  # fmt: skip
LARGE = [
    "automl_labeler_model", "coco_ssd_mobilenet_v1_1.0_quant_2018_06_29",
    "deeplabv3_mnv2_dm05_pascal_quant", "mobilenet_v1_0.25_224_quant",
    "mobilenet_v1_0.5_160_quant", "mobilenet_v2_1.0_224_quant",
    "movenet_single_pose_lightning_ptq", "yamnet_audio_classifier_with_metadata",
]  # fmt: skip
FLOAT = [
    "ad01_fp32", "dtln_model_1", "dtln_model_2", "hello_world_float", "keypoint_classifier",
    "kws_ref_model_float32", "pretrainedResnet", "trained_lstm",
]  # fmt: skip


def graph_of(name: str) -> tuple[Graph, Path]:
    path = MODELS / f"{name}.tflite"
    if not path.exists():
        pytest.skip(f"no {path.name} in {DATA.name}/models/tflite: set ONEFOLD_TESTDATA")
    return import_tflite(read(path), Binding(), path.name), path


def feeds(g: Graph, seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    out = []
    for v in g.inputs:
        kind, shape = v.dtype.numpy, v.tensor.ints
        if v.dtype.is_int:
            out.append(rng.integers(v.dtype.lo, v.dtype.hi + 1, shape).astype(kind))
        else:
            out.append(rng.uniform(-1, 1, shape).astype(kind))
    return out


def program(g: Graph, folder: Path) -> Any:
    from onefold import plan
    from onefold.run.building import build as compiled
    from onefold.run.session import Loaded
    from onefold.target import find

    host = find("host")
    return Loaded(compiled(plan.plan(g, host), host, folder))


def litert(path: Path) -> Any:
    tf = pytest.importorskip("ai_edge_litert.interpreter")
    ref = tf.OpResolverType.BUILTIN_REF
    it = tf.Interpreter(model_path=str(path), experimental_op_resolver_type=ref)
    it.allocate_tensors()
    return it


def run_litert(it: Any, xs: list[Any]) -> list[Any]:
    for detail, x in zip(it.get_input_details(), xs, strict=True):
        it.set_tensor(detail["index"], x)
    it.invoke()
    return [it.get_tensor(d["index"]) for d in it.get_output_details()]


@pytest.mark.toolchain
@pytest.mark.parametrize(
    "name", [*INTEGER, *(pytest.param(n, marks=pytest.mark.slow) for n in LARGE)]
)
def test_integer_networks_are_bit_exact(name: str, tmp_path: Path) -> None:
    g, path = graph_of(name)
    it, ours = litert(path), program(g, tmp_path)
    for seed in (1, 2):  # state, where there is any, lasts from call to call in both
        xs = feeds(g, seed)
        for w, y in zip(run_litert(it, xs), ours.run(xs), strict=True):
            assert w.dtype == y.dtype
            np.testing.assert_array_equal(y, w)


@pytest.mark.toolchain
@pytest.mark.parametrize("name", FLOAT)
def test_float_networks_agree(name: str, tmp_path: Path) -> None:
    g, path = graph_of(name)
    it, ours = litert(path), program(g, tmp_path)
    for seed in (1, 2):
        xs = feeds(g, seed)
        for w, y in zip(run_litert(it, xs), ours.run(xs), strict=True):
            extent = max(float(np.ptp(w)), float(np.abs(w).max()))
            np.testing.assert_allclose(y, w, rtol=0, atol=1e-4 * extent)


@pytest.mark.toolchain
@pytest.mark.parametrize(
    "name", ["person_detect", "audio_preprocessor_int8", "audio_preprocessor_float"]
)
def test_what_only_the_micro_interpreter_takes(name: str, tmp_path: Path) -> None:
    micro = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    g, path = graph_of(name)
    it, ours = micro.Interpreter.from_file(str(path)), program(g, tmp_path)
    for seed in range(6):
        xs = [x >> seed if x.dtype == np.int16 else x for x in feeds(g, seed)]
        for k, x in enumerate(xs):
            it.set_input(x, k)
        it.invoke()
        for k, y in enumerate(ours.run(xs)):
            np.testing.assert_array_equal(y.reshape(-1), it.get_output(k).reshape(-1))


@pytest.mark.parametrize(
    ("name", "chip"),
    [
        ("mobilenet_v1_0.25_128_quant_edgetpu", "Edge TPU"),
        ("deeplabv3_mnv2_dm05_pascal_quant_edgetpu", "Edge TPU"),
        ("person_detect_vela", "Arm Ethos-U"),
    ],
)
def test_compiled_for_a_chip(name: str, chip: str) -> None:
    with pytest.raises(AcceleratorModelError) as e:
        graph_of(name)
    assert f"already compiled for the {chip}" in str(e.value)
    assert f"use the .tflite file from before the {chip} compiler ran" in str(e.value)


def test_unknown_operators_are_named() -> None:
    pytest.importorskip("ai_edge_litert.schema_py_generated")
    x = T(np.zeros((2, 3), np.float32))
    model = build("HASHTABLE_SIZE", [x], [T(dtype="float32")])
    with pytest.raises(UnsupportedModelError) as e:
        import_tflite(read(model), Binding(), "m.tflite")
    assert [(m.layer, m.operator) for m in e.value.misses] == [("y0", "HASHTABLE_SIZE")]
