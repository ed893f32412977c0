"""The generated C by the machine's GCC: it compiles, and gives the same."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from onefold.options import Options
from onefold.run import toolchain
from onefold.target import Target
from tests.kernel.test_families import check
from tests.kernel.test_threads import MORE

pytestmark = [
    pytest.mark.toolchain,
    pytest.mark.skipif(
        platform.machine() != "x86_64", reason="GCC's flags here are those of x86-64"
    ),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no GCC (apt-get install gcc)"),
]

MARCH = {"x86-64-v3": "x86-64-v3", "host": "native"}
LOOKED_AT = (
    "attention", "conv_direct", "conv_depthwise", "conv_winograd", "matmul_packed", "matmul_both",
    "conv_int", "q_tiles", "q_depthwise",
)  # fmt: skip
ALWAYS = {("attention", "host"), ("q_tiles", "host"), ("matmul_both", "x86-64-v3")}
NOT_OF_GCC = ("-ffp-contract=on", "-fno-sanitize=all")


def by_gcc(
    sources: Sequence[Path], target: Target, workdir: Path, *, include_dirs: Sequence[Path],
    optimize: str = "-O3", **_: Any,
) -> list[Path]:  # fmt: skip
    """`toolchain.compile_units` with another compiler."""
    flags = [f for f in toolchain.COMPILE_FLAGS if f not in NOT_OF_GCC]
    flags += [optimize, f"-march={MARCH[target.name]}", "-ffp-contract=off", "-fPIC", "-w"]
    flags += [f"-I{d}" for d in include_dirs]
    made = []
    for source in sources:
        out = workdir / f"{source.stem}.o"
        words = ["gcc", *flags, "-c", str(source), "-o", str(out)]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:3000]
        made.append(out)
    return made


@pytest.mark.parametrize(("name", "target"), [
    pytest.param(n, t, marks=() if (n, t) in ALWAYS else (pytest.mark.slow,))
    for n in LOOKED_AT for t in MARCH
])  # fmt: skip
def test_families_by_gcc(
    name: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "compile_units", by_gcc)
    assert check(MORE[name](), target, tmp_path)


@pytest.mark.usefixtures("split_all")
@pytest.mark.parametrize("name", ["attention", "matmul_packed", "conv_int"])
def test_threads_by_gcc(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "compile_units", by_gcc)
    assert check(MORE[name](), "host", tmp_path, Options(threads=2))
