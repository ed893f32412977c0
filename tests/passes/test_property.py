"""The pipeline changes no results: on graphs at random, and on real models."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

import onefold
from onefold import events, knobs
from onefold.dev.survey import bound, macs_of
from onefold.errors import OnefoldError
from onefold.frontend.binding import Binding, ValueNeeded
from onefold.ir import dtypes
from onefold.ir.graph import Graph
from onefold.ir.types import TensorType
from onefold.passes import pipeline
from tests.passes.random_graphs import random_graph
from tests.passes.support import difference, inputs_for, is_tensor_graph, outputs

COUNT = int(os.environ.get("ONEFOLD_RANDOM_GRAPHS", "400"))
BLOCK = 50
MACS = 150_000_000  # above, a model's reference takes too long for a test
TOLERANCE = {dtypes.bf16: 2e-2, dtypes.f16: 2e-3, dtypes.f32: 1e-5, dtypes.f64: 1e-9}


@pytest.fixture(autouse=True)
def verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEFOLD_DEBUG", "1")


def tolerance(graph: Graph) -> float:
    """What the narrowest float of a graph allows."""
    kinds = {v.type.dtype for n in graph.walk() for v in (*n.present(), *n.outputs)
             if isinstance(v.type, TensorType)}  # fmt: skip
    return max([TOLERANCE.get(k, 0.0) for k in kinds], default=0.0)


@pytest.mark.parametrize("first", range(0, COUNT, BLOCK))
def test_random_graphs(first: int) -> None:
    for seed in range(first, min(first + BLOCK, COUNT)):
        graph, inputs = random_graph(seed)
        near = tolerance(graph)
        want = outputs(graph, inputs)
        pipeline.run(graph)
        assert difference(want, outputs(graph, inputs)) <= near, f"seed {seed}"


def test_random_graphs_reach_most_rules() -> None:
    """Generic rules at least; patterns of many nodes have their golden texts."""
    seen: Counter[str] = Counter()
    for seed in range(300):
        graph, _ = random_graph(seed)
        with events.collected() as heard:
            pipeline.run(graph)
        seen.update(e.facts["rule"] for e in heard if e.kind == "rewrite")
    wanted = {
        "identity", "neutral-element", "transpose-pair", "transpose-past-elementwise", "reshape",
        "no-movement", "reduce-ones", "affine-after-conv", "affine-before-conv",
        "affine-before-matmul", "scale-after-matmul", "limits", "transpose-past-movement",
        "transpose-past-reduction", "transpose-past-reshape",
    }  # fmt: skip
    assert not wanted - set(seen)


def models() -> list[Path]:
    root = knobs.TESTDATA.get() or Path(__file__).parents[3] / "shared"
    folder = Path(root) / "models"
    return sorted([*folder.glob("onnx/*.onnx"), *folder.glob("tflite/*.tflite")])


def imported(path: Path) -> Graph:
    """The model with its open dimensions as 1. Skips where it cannot be bound or run here."""
    try:
        graph, _ = bound(onefold.load(path), Binding())
    except (OnefoldError, ValueNeeded) as e:
        pytest.skip(str(e).splitlines()[0])
    if not is_tensor_graph(graph):
        pytest.skip("not all of it are tensors of known shapes")
    if sum(macs_of(n) for n in graph.nodes) > MACS:
        pytest.skip("its reference takes too long")
    return graph


@pytest.mark.testdata
@pytest.mark.parametrize("path", models(), ids=lambda p: p.name)
def test_real_models(path: Path) -> None:
    graph = imported(path)
    inputs = inputs_for(graph, 0)
    want = outputs(graph, inputs)
    before = sum(1 for _ in graph.walk())
    pipeline.run(graph)
    after = sum(1 for _ in graph.walk())
    print(f"{path.name}: {before} -> {after} nodes")
    assert after <= before
    assert difference(want, outputs(graph, inputs)) <= 1e-5


@pytest.mark.testdata
@pytest.mark.parametrize("name", [
    "mobilenet_v1_0.25_224_1_default_1", "pretrainedResnet", "vww_96_float"
])  # fmt: skip
def test_channels_last_networks_keep_no_transpose_inside(name: str) -> None:
    path = next((p for p in models() if p.stem == name and p.suffix == ".tflite"), None)
    if path is None:
        pytest.skip("the models are not here")
    graph = imported(path)
    pipeline.run(graph)
    left = [n for n in graph.walk() if n.op.name == "Transpose"]
    inputs = {id(v) for v in graph.inputs}
    assert all(id(n.arg(0)) in inputs for n in left)
