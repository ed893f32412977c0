"""Trained networks on labelled data: the classes that bf16 tells beside those of f32."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest

import onefold
from onefold.dev.zoo.data import SETS
from onefold.options import PRODUCTS
from onefold.passes import recurrent
from onefold.target import find
from tests.frontend.models import DATA

CASES = (
    # file, data, samples, divisor of a sample
    ("tflite/pretrainedResnet.tflite", "cifar10", 300, 1.0),
    ("tflite/trained_lstm.tflite", "mnist", 1000, 255.0),
)


@pytest.mark.testdata
@pytest.mark.toolchain
@pytest.mark.parametrize(("file", "data", "count", "divisor"), CASES)
def test_classes(
    file: str, data: str, count: int, divisor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = DATA / "models" / file
    if not path.exists():
        pytest.skip(f"no {file} in {DATA.name}/models: set ONEFOLD_TESTDATA")
    if not PRODUCTS["bf16"] & find("host").features:
        pytest.skip("this machine has no products of bf16")
    monkeypatch.setattr(recurrent, "FEWEST", 1)  # steps of small layers too
    model = onefold.load(path)
    samples = list(islice(SETS[data](DATA / "data"), count))
    told: dict[str, Any] = {}
    (given,) = model.graph.inputs
    raw = [np.asarray(s.raw, np.float32).reshape(given.shape) for s in samples]
    for precision in ("f32", "bf16"):
        program = model.compile(precision=precision)
        feeds = ({given.name: x / np.float32(divisor)} for x in raw)
        outs = [next(iter(program(feed).values())).reshape(-1) for feed in feeds]
        told[precision] = np.array(outs)
    plain, narrow = (np.argmax(told[p], 1) for p in ("f32", "bf16"))
    assert (told["f32"] != told["bf16"]).any()
    assert (plain == narrow).mean() >= 0.99
    truth = np.array([s.truth for s in samples])
    assert (narrow == truth).mean() >= (plain == truth).mean() - 0.01
