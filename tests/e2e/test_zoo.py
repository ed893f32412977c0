"""Real models against their own runtimes, and the table of all of them in the docs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onefold.dev.zoo.data import Sample
from onefold.dev.zoo.inputs import SEEDS, Run
from onefold.dev.zoo.judge import Gauge, Output, Player, Row, _accuracy, _classes, _on_edge, judge
from onefold.dev.zoo.memory import Memory
from onefold.dev.zoo.page import page
from onefold.dev.zoo.records import Record, recorded
from onefold.dev.zoo.scores import find
from tests.frontend.models import DATA, ROOT

TAKE = 3  # samples of a data set, frames of a stream

FAST = [
    "onnx/dtln_model_1.onnx", "onnx/mnist.onnx",
    "tflite/ad01_fp32.tflite", "tflite/ad01_int8.tflite",
    "tflite/audio_preprocessor_float.tflite", "tflite/audio_preprocessor_int8.tflite",
    "tflite/dtln_model_1.tflite", "tflite/dtln_model_2.tflite", "tflite/kws_ref_model.tflite",
    "tflite/kws_ref_model_float32.tflite", "tflite/micro_speech_quantized.tflite",
    "tflite/mobilenet_v1_0.25_128_quant.tflite", "tflite/person_detect.tflite",
    "tflite/pretrainedResnet.tflite", "tflite/pretrainedResnet_quant.tflite",
    "tflite/str_ww_ref_model.tflite", "tflite/trained_lstm_int8.tflite",
    "tflite/vww_96_float.tflite", "tflite/vww_96_int8.tflite",
]  # fmt: skip
ACCELERATED = [
    "tflite/deeplabv3_mnv2_dm05_pascal_quant_edgetpu.tflite",
    "tflite/mobilenet_v1_0.25_128_quant_edgetpu.tflite", "tflite/person_detect_vela.tflite",
]  # fmt: skip


def files() -> list[Path]:
    return sorted([*DATA.glob("models/onnx/*.onnx"), *DATA.glob("models/tflite/*.tflite")])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    folder.chmod(0o700)
    return folder


def _model(name: str) -> Path:
    path = DATA / "models" / name
    if not path.exists():
        pytest.skip(f"no {name} in {DATA.name}/models: set ONEFOLD_TESTDATA")
    return path


@pytest.mark.testdata
@pytest.mark.toolchain
@pytest.mark.parametrize("name", FAST)
def test_a_model_agrees_with_its_runtime(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _model(name)
    monkeypatch.setenv("ONEFOLD_CACHE_DIR", str(cache))
    for package in ("ai_edge_litert", "onnxruntime", "tflite_micro", "PIL"):
        pytest.importorskip(package)
    rows = list(judge(path, DATA / "data", take=TAKE, timing=False))
    assert [r.problems for r in rows] == [[] for _ in rows]
    for row in rows:
        assert row.real >= 2
        assert row.random == SEEDS
        assert row.memory is not None
        assert all(set(o.gauges) == {"real", "random"} for o in row.outputs)


@pytest.mark.testdata
@pytest.mark.parametrize("name", ACCELERATED)
def test_a_model_for_an_accelerator_is_refused(name: str) -> None:
    (row,) = judge(_model(name), DATA / "data")
    assert "already compiled for" in row.refused


@pytest.mark.testdata
def test_the_page_of_the_docs_has_every_model_and_no_failure() -> None:
    if not files():
        pytest.skip(f"no models in {DATA.name}: set ONEFOLD_TESTDATA")
    text = (ROOT / "docs" / "models.md").read_text("utf-8")
    missing = [p.name for p in files() if f"`{p.parent.name}/{p.name}`" not in text]
    assert missing == []
    assert "**fails**" not in text
    assert f"{len(files())} model files" in text and " 0 failing" in text


@pytest.mark.testdata
def test_every_model_has_a_record_unless_it_is_refused() -> None:
    if not files():
        pytest.skip(f"no models in {DATA.name}: set ONEFOLD_TESTDATA")
    refused = {Path(n).name for n in ACCELERATED}
    assert {p.name for p in files()} - refused == recorded()


# --- what the table would say of wrong results ---------------------------------------------------


def _output(exact: bool = False) -> Output:
    return Output("y", exact, 0.0 if exact else 1e-4)


def _gauged(o: Output, ours: np.ndarray, theirs: np.ndarray) -> list[str]:
    o.gauges["real"] = Gauge()
    o.gauges["real"].add(ours, theirs)
    return o.problems()


def test_floats_beyond_the_budget_are_a_problem() -> None:
    theirs = np.linspace(0, 1, 11, dtype=np.float32)
    assert _gauged(_output(), theirs + np.float32(5e-5), theirs) == []
    assert _gauged(_output(), theirs + np.float32(2e-4), theirs) == ["y: 2.0e-04 of the range"]


def test_one_integer_beside_its_own_is_a_problem() -> None:
    theirs = np.arange(8, dtype=np.int8)
    ours = theirs.copy()
    ours[3] += 2
    assert _gauged(_output(exact=True), theirs, theirs) == []
    assert _gauged(_output(exact=True), ours, theirs) == ["y: 1 integers differ, by up to 2"]


def test_a_shape_or_a_nan_of_our_own_is_a_problem() -> None:
    theirs = np.zeros((2, 2), np.float32)
    assert "shape" in _gauged(_output(), theirs.reshape(4), theirs)[0]
    assert _gauged(_output(), theirs * np.nan, theirs) != []


def test_other_classes_count_unless_the_referee_is_undecided() -> None:
    run = Run("k", "real", [{}])
    theirs = np.array([[0.0, 0.5, 0.50001, 1.0]], np.float32)[:, :3]
    near, far = _output(), _output()
    _classes(near, run, theirs[:, [0, 2, 1]], theirs, -1)
    _classes(far, run, theirs[:, [2, 1, 0]], theirs, -1)
    assert (near.same_class, near.other_class, len(near.ties)) == (0, 0, 1)
    assert (far.same_class, far.other_class, len(far.ties)) == (0, 1, 0)


@pytest.mark.parametrize("edge", [True, False])
def test_an_edge_is_where_the_referee_jumps_itself(edge: bool) -> None:
    """A referee that rounds its input to integers: at a half it jumps, elsewhere it does not."""
    x = np.array([0.5, 3.5, 8.0] if edge else [0.4, 3.3, 8.0], np.float32)
    judge_ = Player(lambda feeds: {"y": np.floor(feeds["x"] + np.float32(0.5))}, lambda: None)
    theirs = judge_.call({"x": x})["y"]
    ours = theirs.copy()
    ours[0] -= 1
    o = _output()
    assert _on_edge(o, Run("k", "real", [{"x": x}]), ours, theirs, judge_) is edge
    assert len(o.edges) == edge


def test_lower_accuracy_is_a_problem() -> None:
    row = Row("f", "onnx", outputs=[_output()])
    _accuracy(row, {"top1": np.array([[8.0, 10.0], [9.0, 10.0]])})
    assert row.problems == ["top1 is 8, the referee's 9"]


def test_an_arena_above_its_bound_or_that_of_others_is_a_problem() -> None:
    fine = Memory(10_000, 10_000, 10_000, 0, 0, 0, 12_000, 9_000)
    assert fine.problems() == []
    assert len(Memory(12_000, 10_000, 10_000, 0, 0, 0).problems()) == 1
    assert len(Memory(10_000, 10_000, 9_000, 0, 0, 0).problems()) == 1
    assert len(Memory(10_000, 10_000, 10_000, 0, 0, 0, 9_000, 8_000).problems()) == 1


def test_the_page_shows_a_failure() -> None:
    row = Row("net.onnx", "onnx", outputs=[_output()], problems=["y: 2.0e-04 of the range"])
    text = page([row])
    assert "1 failing" in text and "**fails**" in text and "2.0e-04 of the range |" in text


def test_scores() -> None:
    scores = np.array([[0.1, 0.2, 0.05, 0.9, 0.3, 0.25]])
    record, sample = Record(offset=1), Sample("k", None, 2)
    assert find("top1")([{"y": scores}], sample, record) == (1.0, 1.0)
    assert find("top5")([{"y": scores}], Sample("k", None, 1), record) == (0.0, 1.0)
    frames = [{"p": np.array([[v]])} for v in (0.2, 0.6, 0.9)]
    assert find("speech")(frames, sample, record) == (2.0, 3.0)
    mask = np.array([[3, 3], [0, 0]])
    found = {"y": np.array([[[3, 0], [3, 0]]])}
    assert find("iou")([found], Sample("k", None, mask), Record(offset=3)) == (1.0, 3.0)
