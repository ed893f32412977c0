"""The runner: processes, comparison of answers, tables."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from bench import peers, report, run
from bench.job import Job


def test_difference_is_a_share_of_the_largest_number() -> None:
    theirs = [np.array([1.0, -4.0], np.float32)]
    assert run.difference([np.array([1.0, -3.0], np.float32)], theirs) == 0.25
    assert run.difference([np.array([1.0], np.float32)], theirs) == float("inf")
    assert run.difference([np.array([1.0, np.nan], np.float32)], theirs) == float("inf")
    assert run.difference([], theirs) == float("inf")


def test_error_is_in_standard_deviations() -> None:
    exact = [np.array([1.0, -1.0], np.float32)]
    assert run.error([np.array([1.5, -1.5], np.float32)], exact) == 0.5


def test_a_job_survives_its_json() -> None:
    job = Job("n", "n.onnx", "onnx", "n.npz", ("a", "b"), "f32", 2, "x", {"exact": True})
    assert Job.loads(job.dumps()) == job


def test_every_engine_tells_what_it_refuses() -> None:
    job = Job("n", "n.tflite", "tflite", "n.npz", ("a",), "bf16", 1, "x")
    for name in peers.names():
        engine = peers.find(name)
        assert engine.name == name
        assert engine.refuses(job) or name in ("onefold", "openvino")


def test_converters_are_asked_for_only_where_they_convert() -> None:
    litert = peers.find("litert")
    job = Job("n", "n.tflite", "tflite", "n.npz", ("a",), "int8", 1, "x")
    assert litert.converts(job) == litert.runs
    assert "litert_torch" in litert.converts(replace(job, format="onnx"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A short run of one network."""
    args = argparse.Namespace(
        work=tmp_path_factory.mktemp("work"), precision="f32", threads=1, cpus=None, rounds=4,
        seconds=0.02, against=["onnxruntime", "mnn"], python=[], option=[], fresh=False,
    )  # fmt: skip
    return run.Bench(args).measure("ds_cnn")


@pytest.mark.toolchain
def test_engines_run_and_agree(measured: dict[str, Any]) -> None:
    assert measured["referee"] == "onnxruntime"
    ours = measured["engines"]["onefold"]
    assert ours["agrees"] and ours["difference"] < 1e-5
    assert len(ours["rounds"]) == 4 and all(0 < r["min"] <= r["median"] for r in ours["rounds"])
    assert ours["run_peak_bytes"] > 0 and ours["load_s"] > 0
    assert 90_000 < ours["bytes"] < 300_000  # 24 thousand weights and their code
    assert len(measured["machine"]) == 4
    assert all(m["f32"] > 0 and m["read"] > 0 for m in measured["machine"])


@pytest.mark.toolchain
def test_an_engine_that_is_not_there_is_told(measured: dict[str, Any]) -> None:
    from importlib.util import find_spec

    if find_spec("MNN"):
        assert "mnn" in measured["engines"]
    else:
        assert measured["skipped"] == {"mnn": "not installed: MNN"}


def results() -> dict[str, Any]:
    def row(times: list[float], agrees: bool = True) -> dict[str, Any]:
        return {
            "rounds": [{"median": t, "min": t} for t in times], "agrees": agrees, "bytes": 1e6,
            "run_peak_bytes": 2e6, "load_s": 0.5, "convert_s": 3.0, "versions": {"x": "1"},
        }  # fmt: skip

    net = {
        "network": "n", "precision": "int8", "threads": 1, "macs": 1_500_000, "weights": 10,
        "machine": [{"f32": 1e9, "int8": 4e9, "amx_int8": 12e9, "read": 1e9}] * 4, "date": "",
        "engines": {"onefold": row([1e-3, 1e-3, 2e-3, 1e-3]), "a": row([2e-3] * 4),
                    "b": row([1e-4] * 4, agrees=False)},
        "skipped": {"c": "cannot"},
    }  # fmt: skip
    return {"machine": {"cpu": "cpu", "system": "s"}, "precision": "int8", "threads": 1,
            "options": {}, "networks": {"n": net}}  # fmt: skip


def test_figures() -> None:
    net = results()["networks"]["n"]
    assert report.best_peer(net) == "a"  # b is faster and wrong
    assert report.times_ours(net, "a") == 2.0
    assert report.share_of_peak(net, "onefold") == pytest.approx(0.25)  # of the fastest instruction
    assert report.roofline(net) == pytest.approx(3e6 / 12e9)
    assert report.geometric_mean([1.0, 4.0]) == pytest.approx(2)


def test_table_and_picture() -> None:
    found = results()
    text = report.table(found)
    assert "| n | 1.5 | 1 ~ | 2 | 0.1 ! |" in text
    assert "2.000 times faster than the best peer" in text
    assert "- c, all: cannot" in text
    picture = ElementTree.fromstring(report.plot(found))
    shown = [t.text for t in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "n" in shown and "onefold" in shown


def test_a_page_of_several_results(tmp_path: Path) -> None:
    text = report.page({"int8-1": results()}, "pictures")
    assert "pictures/speed-int8-1.svg" in text
    assert "python -m bench.run --networks all --precision int8 --threads 1" in text
