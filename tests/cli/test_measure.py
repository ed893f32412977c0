"""`onefold bench` and the measuring behind it."""

from __future__ import annotations

import pytest

from onefold.dev.measure import Times, interleaved, peak_call, ratios, timed


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
