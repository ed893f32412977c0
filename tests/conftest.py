"""For every test: a cache of its own worker, and no silent skips where CI must run everything.

The toolchain's folder (`ONEFOLD_TOOLCHAIN_DIR`) stays the shared one: it holds only the libc that
the compiler builds once per architecture.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Generator, Iterator

import numpy as np
import pytest

# Reasons to skip that are good on somebody's laptop, and a hole in CI.
MUST_BE_THERE = re.compile(
    r"qemu|emulator|apt-get install gcc|"
    r"could not import '(onnx|onnxruntime|ai_edge_litert|flatbuffers)\b",
    re.I,
)


@pytest.fixture(scope="session", autouse=True)
def cache_of_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled programs go to a new folder; nobody's own cache is read or written."""
    folder = tmp_path_factory.mktemp("onefold-cache")
    folder.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEFOLD_CACHE_DIR", str(folder))
        yield


@pytest.fixture(autouse=True)
def numbers_of_test(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module's RNG gives a test the same numbers whatever ran before it."""
    if hasattr(request.module, "RNG"):
        seed = zlib.crc32(request.node.name.encode())
        monkeypatch.setattr(request.module, "RNG", np.random.default_rng(seed))


@pytest.fixture
def split_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs for several threads split whatever can be split, and get four threads even on a
    machine with fewer CPUs. What is compiled so must not come from the cache, or go there."""
    from onefold.codegen import team
    from onefold.run import team as running

    for name in ("WORTH", "WORTH_ALL", "GAIN"):
        monkeypatch.setattr(team, name, 0)
    monkeypatch.setattr(running, "TEAM", running.Team())
    monkeypatch.setenv("ONEFOLD_THREADS", "4")


def _judged(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or os.environ.get("CI") != "true" or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    if MUST_BE_THERE.search(reason):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _judged(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _judged(report)
    return report
