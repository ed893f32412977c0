"""A decoder with a key-value cache: the cache grows, the compiler does not run again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onefold
from onefold.errors import InputError
from tests.e2e.made import decoder

pytestmark = pytest.mark.toolchain
TOKENS = 200
LAYERS, HEADS, EACH = 2, 4, 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder(tmp_path_factory.mktemp("decoder"), LAYERS)


Run = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def generate(run: Run, cached: bool = True) -> list[int]:
    names = [f"{c}{k}" for k in range(LAYERS) for c in "kv"] if cached else []
    past = {f"past_{n}": np.zeros((1, HEADS, 0, EACH), np.float32) for n in names}
    ids = np.array([[1, 5, 7]], np.int64)
    out: list[int] = []
    for _ in range(TOKENS):
        result = run({"ids": ids, **past})
        out.append(int(np.argmax(result["logits"][0, -1])))
        ids = np.array([[out[-1]]], np.int64)
        past = {f"past_{n}": result[f"next_{n}"] for n in names}
    return out


@pytest.fixture(scope="module")
def expected(model: Path) -> list[int]:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(str(model))
    names = [o.name for o in session.get_outputs()]
    return generate(lambda feeds: dict(zip(names, session.run(None, dict(feeds)), strict=True)))


def test_one_compile_for_a_bounded_cache(model: Path, expected: list[int]) -> None:
    program = onefold.load(model).compile(
        dims={"past": "0..256", "seq": "1..8"}, fallback=False, cache=False
    )
    assert generate(program) == expected
    assert program.compiles == 1


def test_two_compiles_when_nothing_is_said(model: Path, expected: list[int]) -> None:
    program = onefold.load(model).compile(fallback=False, cache=False)
    assert generate(program) == expected
    assert program.compiles <= 2


def test_the_cache_as_state(model: Path, expected: list[int]) -> None:
    states = {f"next_{c}{k}": f"past_{c}{k}" for k in range(LAYERS) for c in "kv"}
    program = onefold.load(model).compile(
        dims={"past": "0..256", "seq": "1..8"}, states=states, fallback=False, cache=False
    )
    assert generate(program, cached=False) == expected
    program.reset()
    assert generate(program, cached=False) == expected
    with pytest.raises(InputError, match="the state is full: n_past would become"):
        generate(program, cached=False)
