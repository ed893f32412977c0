"""`onefold bench` and the measuring behind it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

import onefold
from onefold.dev.measure import Times, interleaved, peak_call, ratios, timed
from onefold.errors import InputError
from tests.cli.made import save, value


def test_contestants_run_in_turns() -> None:
    order: list[str] = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    times = interleaved(calls, 3)
    changes = "".join(x for k, x in enumerate(order) if k == 0 or order[k - 1] != x)
    assert changes.endswith("ababab")
    assert len(times["a"].rounds) == len(times["b"].rounds) == 3


def test_facts_of_times() -> None:
    times = Times((4.0, 1.0, 2.0, 3.0, 5.0))
    assert times.median == 3 and times.least == 1
    assert times.spread == pytest.approx((4.5 - 1.5) / 3)
    assert ratios((2.0, 9.0, 4.0), (1.0, 3.0, 1.0)) == 3


@pytest.mark.toolchain
def test_a_state_that_is_full_begins_anew(cli, tmp_path) -> None:
    make = helper.make_node
    nodes = [make("Concat", ["past", "frame"], ["cache"], axis=0),
             make("ReduceMean", ["cache"], ["mean"], axes=[0])]  # fmt: skip
    path = save(tmp_path / "w.onnx", nodes, [value("frame", [1, 4]), value("past", ["n", 4])],
                [value("mean", [1, 4]), value("cache", ["m", 4])])  # fmt: skip
    words = ("--state", "cache=past", "--dim", "n=0..3")
    assert cli("run", path, *words, "--json").json["latency"]["runs"] == 20
    assert cli("bench", path, *words, "--against", "none", "--rounds", 3).code == 0
    program = onefold.load(path).compile(dims={"n": "0..1"}, states={"cache": "past"})
    program({"frame": np.zeros((1, 4), np.float32)})
    with pytest.raises(InputError, match="the state is full") as e:
        program({"frame": np.zeros((1, 4), np.float32)})
    assert e.value.code == "OF502"


def test_a_limit_ends_the_runs() -> None:
    import time

    assert len(timed(lambda: time.sleep(0.02), 100, limit=0.05).rounds) <= 4


@pytest.mark.toolchain
def test_the_peak_is_that_of_a_processor() -> None:
    import time

    call, flops = peak_call(20_000)
    call()
    start = time.perf_counter()
    call()
    rate = flops / (time.perf_counter() - start)
    assert 1e8 < rate < 2e12


@pytest.mark.toolchain
def test_bench(cli, models) -> None:
    done = cli("bench", models / "net.onnx", "--rounds", 3, "--json")
    assert done.code == 0
    (m,) = done.json["models"]
    assert m["macs"] == 5 * 8 * 8 * 27 + 20
    assert [r["runtime"] for r in m["results"]] == ["onefold", "onnxruntime"]
    ours = m["results"][0]
    assert ours["times_onefold"] == 1.0
    assert 0 < ours["min_s"] <= ours["median_s"]
    assert 0 < ours["of_peak"]


@pytest.mark.toolchain
def test_bench_alone_and_with_a_peer_that_does_not_fit(cli, models) -> None:
    alone = cli("bench", models / "net.onnx", "--rounds", 3, "--against", "none")
    assert alone.code == 0
    assert "onnxruntime" not in alone.out and "GFLOP/s" in alone.out
    other = cli("bench", models / "net.onnx", "--rounds", 3, "--against", "litert")
    assert "litert does not read onnx models" in other.out
