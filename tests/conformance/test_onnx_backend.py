"""A sample of ONNX's own backend test suite: what docs/onnx-backend-tests.md claims still holds.

The whole suite takes minutes: `python -m onefold.dev.conformance`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from onefold.dev.conformance import Outcome, run_here

PAGE = Path(__file__).parents[2] / "docs" / "onnx-backend-tests.md"
EVERY = 12
KINDS = ("if", "loop", "scan", "lstm", "gru", "qlinear", "convinteger", "matmulinteger",
         "nonmaxsuppression")  # fmt: skip


def sample(names: Sequence[str]) -> list[str]:
    whole = re.compile(rf"test_({'|'.join(KINDS)})\d*(_|$)")
    return [n for k, n in enumerate(names) if k % EVERY == 0 or whole.match(n)]


def listed(page: str, title: str) -> set[str]:
    """The tests in the table under a title of the page."""
    part = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", page, re.M | re.S)
    assert part, f"the page has no part '{title}'"
    return set(re.findall(r"^\| `(\w+)` \|", part[1], re.M))


@pytest.fixture(scope="module")
def page() -> str:
    assert PAGE.exists(), (
        "docs/onnx-backend-tests.md is missing: python -m onefold.dev.conformance --markdown "
        "docs/onnx-backend-tests.md"
    )
    return PAGE.read_text("utf-8")


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(run_here(sample))


@pytest.mark.toolchain
def test_what_passes(page: str, outcomes: list[Outcome]) -> None:
    assert len(outcomes) > 150
    known = listed(page, "Not passed")
    broken = {o.name: o.reason for o in outcomes if o.status != "pass" and o.name not in known}
    assert not broken, "\n".join(f"{n}: {why}" for n, why in broken.items())
    mended = [o.name for o in outcomes if o.status == "pass" and o.name in known]
    assert not mended, f"the page is out of date: {mended} pass"


@pytest.mark.toolchain
def test_what_is_compiled(page: str, outcomes: list[Outcome]) -> None:
    known = listed(page, "Passed, but not compiled")
    host = {o.name: o.host for o in outcomes if o.status == "pass" and not o.compiled}
    assert host.keys() <= known, {n: host[n] for n in host.keys() - known}
    assert sum(o.compiled for o in outcomes) >= 0.88 * len(outcomes)


def test_the_page_says_what_was_asked_for(page: str) -> None:
    """At least 97 % pass and 88 % are compiled, skips counted as failures."""
    counts = re.search(r"(\d+) tests, (\d+) pass .*?, (\d+) of them ran compiled", page, re.S)
    assert counts, "the page gives no totals"
    tests, passed, compiled = map(int, counts.groups())
    assert tests - passed == len(listed(page, "Not passed"))
    assert passed - compiled == len(listed(page, "Passed, but not compiled"))
    assert passed >= 0.97 * tests and compiled >= 0.88 * tests
