"""One library for several CPUs: each level under an emulator that has it, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import onefold
from onefold.errors import TargetError
from onefold.ship import Bundle, build
from onefold.target import find, levels, load_isa, runs_here
from tests.e2e.made import DIGITS
from tests.frontend.models import DATA

pytestmark = pytest.mark.toolchain

X86 = "x86-64-v2+v3+v4"
ARM = "arm64+dotprod+i8mm"
SHORT = "x86-64-v3+avxvnni"
KWS = DATA / "models" / "tflite" / "kws_ref_model.tflite"

CPUS = [
    (X86, "qemu-x86_64", "Nehalem", "v2"), (X86, "qemu-x86_64", "Haswell", "v3"),
    (SHORT, "qemu-x86_64", "Haswell", "v3"),
    (ARM, "qemu-aarch64", "cortex-a53", "arm64"), (ARM, "qemu-aarch64", "cortex-a76", "dotprod"),
    (ARM, "qemu-aarch64", "max", "i8mm"),
]  # fmt: skip
"""A CPU that an emulator has, and the level that a program runs on it."""

SAYS = """
#include <stdio.h>
#include "net.h"
int main(void) {
  printf("%d", net_level());
  return 0;
}
"""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """The demo's network for each family of CPUs."""
    model = onefold.load(DIGITS)
    return {t: build(model, t, tmp_path_factory.mktemp("levels"), prefix="net", measure=False)
            for t in (X86, ARM, SHORT)}  # fmt: skip


def image() -> np.ndarray:
    return np.random.default_rng(1).random((1, 1, 8, 8), np.float32)


def run(bundle: Bundle, command: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    (bundle.folder / "input0.bin").write_bytes(image().tobytes())
    (bundle.folder / "output0.bin").unlink(missing_ok=True)
    return subprocess.run(
        [*command, str(bundle.program)], cwd=bundle.folder, env={**os.environ, **env},
        stderr=subprocess.PIPE, text=True, check=False, timeout=120,
    )  # fmt: skip


def output(bundle: Bundle) -> np.ndarray:
    return np.fromfile(bundle.folder / "output0.bin", np.float32)


def expected() -> np.ndarray:
    return onefold.load(DIGITS).run(image())["probabilities"].reshape(-1)


def emulator(tool: str) -> str:
    found = shutil.which(tool) or shutil.which(f"{tool}-static")
    if found is None:
        pytest.skip(f"{tool} is not installed: apt-get install qemu-user")
    return found


def level_on(bundle: Bundle, command: list[str], **env: str) -> int:
    """What the library says about a CPU."""
    from onefold.codegen.levels import baseline
    from onefold.run import toolchain

    program = bundle.folder / "says"
    if not program.exists():
        t = baseline(bundle.target)
        (unit,) = toolchain.compile_units(
            [("says.c", SAYS)], t, bundle.folder, include_dirs=[bundle.folder]
        )
        toolchain.link_executable([unit, bundle.library], program, t)
    done = subprocess.run([*command, str(program)], env={**os.environ, **env},
                          capture_output=True, text=True, check=True)  # fmt: skip
    return int(done.stdout)


@pytest.mark.emulator
@pytest.mark.parametrize(("target", "tool", "cpu", "word"), CPUS)
def test_each_cpu_gets_its_level(
    target: str, tool: str, cpu: str, word: str, bundles: dict[str, Bundle]
) -> None:
    command = [emulator(tool), "-cpu", cpu]
    bundle = bundles[target]
    names = [v["name"] for v in bundle.report["levels"]]
    assert names[level_on(bundle, command)] == word
    done = run(bundle, command)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(output(bundle), expected(), atol=2e-6)


@pytest.mark.parametrize("word", ["v2", "v3", "v4"])
def test_a_lower_level_may_be_asked_for(word: str, bundles: dict[str, Bundle]) -> None:
    if not runs_here(find(f"x86-64-{word}")):
        pytest.skip(f"this machine is below x86-64-{word}")
    done = run(bundles[X86], [], ONEFOLD_LEVEL=word)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(output(bundles[X86]), expected(), atol=2e-6)
    assert level_on(bundles[X86], [], ONEFOLD_LEVEL=word) == ["v2", "v3", "v4"].index(word)


def test_a_feature_makes_a_level(bundles: dict[str, Bundle]) -> None:
    if not runs_here(find(SHORT)):
        pytest.skip(f"this machine is below {SHORT}")
    assert level_on(bundles[SHORT], []) == 1
    assert level_on(bundles[SHORT], [], ONEFOLD_LEVEL="v3") == 0
    done = run(bundles[SHORT], [])
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(output(bundles[SHORT]), expected(), atol=2e-6)


@pytest.mark.emulator
@pytest.mark.parametrize(("cpu", "asked"), [("qemu64", ""), ("Nehalem", "v3"), ("Haswell", "v5")])
def test_a_cpu_below_is_told_so(cpu: str, asked: str, bundles: dict[str, Bundle]) -> None:
    done = run(bundles[X86], [emulator("qemu-x86_64"), "-cpu", cpu], ONEFOLD_LEVEL=asked)
    assert done.returncode == 6
    assert "this CPU is not as good as x86-64-v2" in done.stderr
    assert not (bundles[X86].folder / "output0.bin").exists()


@pytest.mark.emulator
@pytest.mark.testdata
def test_integers_are_the_same_on_every_level(tmp_path: Path) -> None:
    if not KWS.exists():
        pytest.skip(f"no {KWS.name}: set ONEFOLD_TESTDATA")
    model = onefold.load(KWS)
    for target, tool in ((X86, "qemu-x86_64"), (ARM, "qemu-aarch64")):
        bundle = build(model, target, tmp_path / target, measure=False)
        x = np.random.default_rng(0).integers(-128, 128, bundle.inputs[0][1]).astype(np.int8)
        want = next(iter(model.compile(fallback=False)(x).values())).tobytes()
        for _, _, cpu, _ in (row for row in CPUS if row[0] == target):
            (bundle.folder / "input0.bin").write_bytes(x.tobytes())
            subprocess.run([emulator(tool), "-cpu", cpu, str(bundle.program)],
                           cwd=bundle.folder, check=True, timeout=120)  # fmt: skip
            assert (bundle.folder / "output0.bin").read_bytes() == want, cpu


def test_equal_constants_lie_once(bundles: dict[str, Bundle]) -> None:
    """The packing of f32 is the same on all of Arm; x86-64 has vectors of three widths."""
    for bundle in bundles.values():
        r = bundle.report
        each = [v["weights_bytes"] for v in r["levels"]]
        assert max(each) <= r["weights_bytes"] < sum(each)
        assert r["weights_bytes"] == (bundle.folder / "net_weights.bin").stat().st_size
    assert bundles[ARM].report["weights_bytes"] < 1.05 * bundles[ARM].report["source_bytes"]


def test_threads_on_every_level(tmp_path: Path) -> None:
    if not runs_here(find("x86-64-v2")):
        pytest.skip("this machine is below x86-64-v2")
    bundle = build(onefold.load(DIGITS), X86, tmp_path, prefix="net", measure=False, threads=2)
    facts = json.loads((tmp_path / "manifest.json").read_text())
    assert [v["name"] for v in facts["levels"]] == ["v2", "v3", "v4"]
    done = run(bundle, [])
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(output(bundle), expected(), atol=2e-6)


def test_in_python_the_best_level_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = onefold.load(DIGITS)
    if not runs_here(find("x86-64-v3")):
        pytest.skip("this machine is below x86-64-v3")
    monkeypatch.setenv("ONEFOLD_LEVEL", "v3")
    program = model.compile("x86-64-v2+v3", fallback=False)
    assert program.report["target"] == "x86-64-v3"
    np.testing.assert_allclose(program(image())["probabilities"].reshape(-1), expected(), atol=2e-6)
    monkeypatch.setenv("ONEFOLD_LEVEL", "v9")
    with pytest.raises(TargetError, match="the levels are v2, v3"):
        model.compile("x86-64-v2+v3")


@pytest.mark.parametrize(("name", "text"), [
    ("x86-64-v2+v4+v3", "do not ascend"), ("x86-64-v2+v2", "do not ascend"),
    ("arm64+i8mm+dotprod", "'dotprod' has nothing that 'i8mm' lacks"),
    ("x86-64-v2+v5", "Did you mean 'v4' or 'v3'"), ("arm64+v3", "is not a feature of aarch64"),
])  # fmt: skip
def test_levels_that_make_no_sense_are_refused(name: str, text: str) -> None:
    with pytest.raises(TargetError) as caught:
        levels(name)
    assert text in str(caught.value) and caught.value.code == "OF401"


def test_what_a_program_cannot_find_out_is_no_level() -> None:
    for arch in ("x86_64", "aarch64"):
        assert all(f.detect for f in load_isa(arch).features.values())
    assert [t.name for t in levels("host")] == ["host"]
    assert [t.name for t in levels("cortex-m4f")] == ["cortex-m4f"]
