"""`onefold tune`: what is measured decides which kernels programs get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onefold
from onefold.dev.survey import bound
from onefold.dev.tune import Result, tune
from onefold.frontend.binding import Binding
from onefold.options import Options
from onefold.passes import pipeline
from onefold.plan.program import Program
from onefold.run import tuned
from onefold.target import find
from tests.cli.made import save, value

pytestmark = pytest.mark.toolchain

DIGITS = Path(__file__).resolve().parents[2] / "demo" / "digits.onnx"


class Given:
    """A runner whose times are made up: of the kernels named, as given; of others, a second."""

    def __init__(self, times: Mapping[str, float], noise: Sequence[float] = (1.0,)) -> None:
        self.given, self.noise, self.programs = times, noise, 0

    def times(self, program: Program, image: Any, evict: int) -> list[list[float]]:
        self.programs += 1
        assert image.nbytes == program.arena_bytes
        once = [self.given.get(s.algorithm, 1.0) for s in program.flat()]
        return [[t * noise for t in once] for noise in self.noise]


@pytest.fixture(autouse=True)
def own_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEFOLD_TUNED_DIR", str(tmp_path / "tuned"))


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """One layer with several kernels: rows of 64 times a constant matrix."""
    from onnx import helper

    path = tmp_path / "rows.onnx"
    w = np.random.default_rng(0).normal(size=(64, 80)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="rows")
    save(path, [node], [value("x", [24, 64])], [value("y", [24, 80])], w=w)
    return path


def tuned_by(path: Path, times: Mapping[str, float], budget: float = 60, **more: Any) -> Result:
    graph, _ = bound(onefold.load(path), Binding())
    pipeline.run(graph)
    return tune(graph, "net", find("host"), Options(), budget, Given(times), **more)


def kernels(path: Path, **more: Any) -> list[str]:
    steps = onefold.load(path).compile(**more).report["steps"]
    return [s["algorithm"] for s in steps if s["macs"]]


def test_the_fastest_is_taken_from_then_on(net: Path) -> None:
    (before,) = kernels(net)
    (layer,) = tuned_by(net, {}).layers
    others = [k for k in layer.times if k != before]
    assert layer.pick == before and len(others) > 2
    for other in others:
        (found,) = tuned_by(net, {other: 0.5}, again=True).layers
        assert found.best == other and found.gain == 2
        assert kernels(net) == [other]
        assert kernels(net, tuned=False) == [before]


def test_a_busy_machine_is_told_of(net: Path) -> None:
    graph, _ = bound(onefold.load(net), Binding())
    pipeline.run(graph)
    quiet, loud = (1.0, 1.01, 0.99, 1.0, 1.0, 1.0, 1.02, 5.0), (1.0, 3.0, 0.5, 1.5, 0.7, 2.0)
    for noise, busy in ((quiet, False), (loud, True)):
        runner = Given({}, noise)
        assert tune(graph, "net", find("host"), Options(), 60, runner, True).busy == busy


def test_what_is_the_same_within_the_noise_stays(net: Path) -> None:
    (before,) = kernels(net)
    (layer,) = tuned_by(net, {}).layers
    other = next(k for k in layer.times if k != before)
    tuned_by(net, {other: 0.99}, again=True)
    assert kernels(net) == [before]


def test_results_do_not_depend_on_the_choice(net: Path) -> None:
    x = np.random.default_rng(1).normal(size=(24, 64)).astype(np.float32)
    want = onefold.load(net).compile(tuned=False)(x)["y"]
    (layer,) = tuned_by(net, {}).layers
    for k in layer.times:
        tuned_by(net, {k: 0.5}, again=True)
        np.testing.assert_allclose(onefold.load(net).compile()(x)["y"], want, rtol=1e-5, atol=1e-5)


def test_programs_are_compiled_anew_only_where_times_of_theirs_change(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEFOLD_CACHE_DIR", str(tmp_path / "cache"))

    def compiled() -> int:
        return onefold.load(net).compile().compiles

    assert [compiled(), compiled()] == [1, 0]
    (layer,) = tuned_by(net, {}).layers
    assert [compiled(), compiled()] == [1, 0]
    host = tuned.machine(find("host"))
    tuned.add([tuned.Record(host, "another node", {"a": 1.0})])
    assert compiled() == 0
    tuned.add([tuned.Record("another machine", layer.node, {"a": 1.0})])
    assert compiled() == 0
    tuned.forget(lambda r: r.machine == host and r.node == layer.node)
    assert compiled() == 0, "the first one is still there"


def test_what_is_known_is_not_measured_again() -> None:
    first = tuned_by(DIGITS, {})
    assert first.layers and all(y.fresh for y in first.layers)
    second = tuned_by(DIGITS, {})
    assert len(second.layers) == len(first.layers) and not any(y.fresh for y in second.layers)
    assert all(y.fresh for y in tuned_by(DIGITS, {}, again=True).layers)


def test_the_budget_ends_it_after_the_costliest_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onefold.dev.tune.TOGETHER", 1)
    everything = tuned_by(DIGITS, {})
    tuned.forget(lambda r: True)
    ticks = iter(range(1000))
    some = tuned_by(DIGITS, {}, budget=2.5, clock=lambda: float(next(ticks)))
    assert len(some.layers) == 2 and some.left > 0
    costs = sorted((y.cost for y in everything.layers), reverse=True)
    assert sorted((y.cost for y in some.layers), reverse=True) == costs[:2]
    known = tuned_by(DIGITS, {}, budget=0).layers
    assert [y.node for y in known] == [y.node for y in some.layers]
    assert not any(y.fresh for y in known)


def test_times_decide_between_algorithms_too(tmp_path: Path) -> None:
    from onnx import helper

    path = tmp_path / "conv.onnx"
    w = np.random.default_rng(0).normal(size=(64, 64, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], name="first"),
        helper.make_node("Conv", ["a", "w"], ["y"], name="second", pads=[1, 1, 1, 1]),
    ]
    first = np.random.default_rng(1).normal(size=(64, 3, 1, 1)).astype(np.float32)
    save(path, nodes, [value("x", [1, 3, 16, 16])], [value("y", [1, 64, 16, 16])], w=w, first=first)
    found = {y.node: y for y in tuned_by(path, {}).layers}
    second = next(y for y in found.values() if "conv_winograd" in " ".join(y.times))
    direct = next(k for k in second.times if k.startswith("conv_direct"))
    winograd = next(k for k in second.times if k.startswith("conv_winograd"))
    for k in (direct, winograd):
        tuned_by(path, {k: 0.5}, again=True)
        assert kernels(path)[1] == k
    assert "conv_direct" in kernels(path, exact=True)[1]


# --- the verb -------------------------------------------------------------------------------------


def test_the_verb_measures_and_remembers(cli: Any, tmp_path: Path) -> None:
    facts = cli("tune", DIGITS, "--budget", 30, "--json").json
    assert facts["layers"] and facts["loss"] >= 1
    for y in facts["layers"]:
        assert y["times"][y["best"]] == min(y["times"].values()) > 0
        assert y["pick"] in y["times"]
    again = cli("tune", DIGITS, "--no-whole").out
    assert "0 measured now" in again and "by estimate" in again

    count = len(facts["layers"])
    assert len(cli("tune", "--list", "--json").json["machines"][facts["machine"]]) == count
    assert facts["layers"][0]["best"] in cli("tune", "--list").out
    assert cli("run", DIGITS, "--runs", 0, "--json").json["tuned"] > 0
    assert "`onefold tune` has measured" in cli("run", DIGITS, "--runs", 0).out
    assert cli("run", DIGITS, "--no-tuned", "--runs", 0, "--json").json["tuned"] == 0
    profile = cli("bench", DIGITS, "--against", "none", "--rounds", 3, "--profile").out
    assert "x, measured)" in profile and "`onefold tune` has measured" in profile
    built = cli("build", DIGITS, "--out", tmp_path / "out", "--no-measure", "--json").json
    assert built["report"]["tuned"] > 0
    built = cli("build", DIGITS, "--precision", "auto", "--out", tmp_path / "auto", "--no-measure",
                "--json").json  # fmt: skip
    assert built["report"]["tuned"] > 0, "it is f32"

    kept = tmp_path / "times.jsonl"
    assert cli("tune", "--export", kept, "--json").json["records"] == count
    assert cli("tune", "--forget", DIGITS, "--json").json["forgotten"] == count
    assert "Nothing has been measured" in cli("tune", "--list").out
    assert cli("run", DIGITS, "--runs", 0, "--json").json["tuned"] == 0
    assert cli("tune", "--import", kept, "--json").json["here"] == count
    assert cli("run", DIGITS, "--runs", 0, "--json").json["tuned"] > 0
    assert cli("tune", "--forget", "--json").json["forgotten"] == count


def test_what_it_cannot_do_it_says(cli: Any, tmp_path: Path) -> None:
    wrong = cli("tune")
    assert wrong.code == 2 and "Give a MODEL" in wrong.err
    assert cli("tune", DIGITS, "--list").code == 2
    wrong = cli("tune", DIGITS, "--target", "cortex-m4f")
    assert wrong.code == 1 and "cannot be measured here" in wrong.err and "--export" in wrong.err
    for more in ((), ("--forget",)):
        wrong = cli("tune", DIGITS, "--precision", "auto", *more)
        assert wrong.code == 2 and "one precision" in wrong.err and "bf16" in wrong.err
    wrong = cli("tune", DIGITS, "--precision", "f16")
    assert wrong.code == (0 if "fp16fml" in find("host").features else 2), wrong.err
    wrong = cli("tune", DIGITS, "--budget", "nan")
    assert wrong.code == 2 and "--budget" in wrong.err and "not a number" in wrong.err
    wrong = cli("tune", "--export", tmp_path / "none")
    assert wrong.code == 2 and "nothing has been measured" in wrong.err
    (tmp_path / "noise").write_bytes(b"\x00\xff" * 100)
    wrong = cli("tune", "--import", tmp_path / "noise")
    assert wrong.code == 2 and "no measured times" in wrong.err
    assert "cannot be read" in cli("tune", "--import", tmp_path / "missing").err


def test_damage_does_not_keep_a_model_from_running(cli: Any, tmp_path: Path) -> None:
    folder = tmp_path / "tuned"
    folder.mkdir(mode=0o700)
    (folder / "tuned.jsonl").write_bytes(b"\xffnothing\n{\n")
    assert cli("run", DIGITS, "--runs", 0).code == 0
    assert "2 damaged lines" in cli("tune", "--list").out
    assert tuned_by(DIGITS, {}).layers
    assert "damaged" not in cli("tune", "--list").out
