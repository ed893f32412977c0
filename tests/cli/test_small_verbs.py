"""`cache`, `doctor`, `explain`, `targets`, `build`, and the listeners."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onefold.dev import health
from onefold.errors import all_kinds


def test_explain(cli) -> None:
    assert cli("explain", "of425").out.startswith("OF425: no space left on the device\n")
    listed = cli("explain", "--json").json["codes"]
    assert [r["code"] for r in listed] == list(all_kinds())
    wrong = cli("explain", "OF999")
    assert wrong.code == 2
    assert "there is no error code 'OF999'" in wrong.err


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_no_word_is_cut(cli, monkeypatch, width: int) -> None:
    whole = cli("targets").out
    assert all(line == line.rstrip() for line in whole.splitlines())
    monkeypatch.setenv("COLUMNS", str(width))
    narrow = cli("targets").out
    assert set(narrow.split()) >= {w for w in whole.split() if w.isalnum() and w != "target"}


def test_targets(cli) -> None:
    rows = {t["name"]: t for t in cli("targets", "--json").json["targets"]}
    assert rows["host"]["runs_here"] == "directly"
    assert rows["cortex-m4f"]["os"] == "none" and rows["cortex-m4f"]["memories"]
    assert "bare metal" in cli("targets").out


@pytest.mark.toolchain
def test_cache(cli, models, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "own"
    monkeypatch.setenv("ONEFOLD_CACHE_DIR", str(folder))
    assert "The cache is empty." in cli("cache", "list").out
    cli("run", models / "open.onnx", "--dim", "batch=2", "--runs", 0)
    (entry,) = cli("cache", "list", "--json").json["entries"]
    assert entry["model"] == "open.onnx" and entry["target"] == "host"
    assert "open.onnx" in cli("cache", "list").out
    assert cli("cache", "--json").json["entries"] == [entry]
    assert cli("cache", "--json", "list").code == 2
    size = cli("cache", "size", "--json").json
    assert size["bytes"] == entry["bytes"] > 0 and size["folder"] == str(folder)
    assert cli("cache", "clear", "--json").json["freed"] == entry["bytes"]
    assert cli("cache", "size", "--json").json["bytes"] == 0


def test_cache_that_others_may_write(cli, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("ONEFOLD_CACHE_DIR", str(folder))
    done = cli("cache", "size")
    assert done.code == 1
    assert "OF421" in done.err


def test_doctor(cli) -> None:
    done = cli("doctor", "--json")
    facts = done.json
    assert done.code == 0 and facts["ok"]
    rows = {p["name"]: p for p in facts["parts"]}
    assert rows["numpy"]["found"] and rows["numpy"]["required"]
    assert "onnx" in [f["name"] for f in facts["formats"]]
    assert all(p["gives"] for p in facts["parts"])


def test_doctor_says_what_is_missing(cli, monkeypatch) -> None:
    real = health.find_spec
    monkeypatch.setattr(health, "find_spec", lambda n: None if n == "PIL" else real(n))
    optional = cli("doctor")
    assert optional.code == 0
    assert "pip install 'onefold[images]'" in optional.out
    monkeypatch.setattr(health, "find_spec", lambda n: None if n == "ziglang" else real(n))
    required = cli("doctor")
    assert required.code == 1
    assert "Missing and required: ziglang." in required.out


@pytest.mark.toolchain
def test_debug_and_dump(cli, models, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ONEFOLD_CACHE_DIR", str(tmp_path / "fresh"))
    monkeypatch.setenv("ONEFOLD_DUMP", str(tmp_path / "dump"))
    monkeypatch.setenv("ONEFOLD_DEBUG", "4")
    done = cli("run", models / "net.onnx", "--runs", 0)
    assert done.code == 0
    assert "[pass] name=dead" in done.err and "[toolchain.run] command=zig cc" in done.err
    names = sorted(p.name for p in (tmp_path / "dump").iterdir())
    assert names[0] == "00-import.txt"
    kinds = {n.split("-", 1)[1] for n in names}
    assert {"import.txt", "plan.json", "memory.txt"} <= kinds
    assert any(k.endswith(".c") for k in kinds)
    plan = next(p for p in (tmp_path / "dump").iterdir() if p.name.endswith("plan.json"))
    facts = json.loads(plan.read_text())
    assert facts["steps"] and facts["arena_bytes"] >= facts["arena_lower_bound"]


@pytest.mark.toolchain
def test_dump_from_python(models, tmp_path, monkeypatch, capsys) -> None:
    import onefold

    monkeypatch.setenv("ONEFOLD_DUMP", str(tmp_path / "dump"))
    monkeypatch.setenv("ONEFOLD_DEBUG", "3")
    onefold.load(models / "net.onnx").compile(cache=False)
    assert "[pass] name=dead" in capsys.readouterr().err
    first = len(list((tmp_path / "dump").iterdir()))
    onefold.load(models / "net.onnx").compile(cache=False)
    assert len(list((tmp_path / "dump").iterdir())) == 2 * first
    monkeypatch.delenv("ONEFOLD_DEBUG")
    onefold.load(models / "net.onnx").compile(cache=False)
    assert capsys.readouterr().err.count("[pass] name=dead") == 1


def test_a_knob_with_a_wrong_value(cli, monkeypatch) -> None:
    monkeypatch.setenv("ONEFOLD_DEBUG", "loud")
    done = cli("explain", "OF001")
    assert done.code == 2
    assert "ONEFOLD_DEBUG has the value 'loud'" in done.err
    assert "Traceback" not in done.err


@pytest.mark.toolchain
@pytest.mark.emulator
def test_build_for_a_microcontroller(cli, models) -> None:
    from onefold.run import emulator
    from onefold.target import find

    if not emulator.available(find("cortex-m4f")):
        pytest.skip("qemu-system-arm is not installed")
    done = cli("build", models / "net.onnx", "--target", "cortex-m4f", "--out", "bundle", "--json")
    assert done.code == 0, done.err + done.out
    report = done.json["report"]
    for key in ("macs", "code_bytes", "weights_bytes", "flash_bytes", "arena_bytes",
                "arena_lower_bound", "state_bytes", "stack_bytes", "ram_bytes"):  # fmt: skip
        assert isinstance(report[key], int), key
    assert report["macs"] == 5 * 8 * 8 * 27 + 20
    assert json.loads(Path("bundle/report.json").read_text()) == report
    assert Path("bundle", done.json["library"]).exists()


@pytest.mark.toolchain
@pytest.mark.emulator
def test_run_for_a_microcontroller_gives_what_the_host_gives(cli, models) -> None:
    from onefold.run import emulator
    from onefold.target import find

    if not emulator.available(find("cortex-m4f")):
        pytest.skip("qemu-system-arm is not installed")
    there = cli("run", models / "net.onnx", "--target", "cortex-m4f", "--json")
    assert there.code == 0, there.out
    assert there.json["emulated"] and there.json["latency"] is None
    here = cli("run", models / "net.onnx", "--json", "--runs", 0).json
    (want,) = here["outputs"][0]["values"]
    assert there.json["outputs"][0]["values"][0] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(("option", "value"), [("--precision", "bf16"), ("--optimize", "fast")])
def test_what_is_run_in_an_emulator_is_built_with_the_options(cli, models, option, value) -> None:
    done = cli("run", models / "net.onnx", "--target", "cortex-m4f", option, value)
    assert done.code == 2 and value in done.err


def test_a_target_that_does_not_exist(cli, models) -> None:
    done = cli("build", models / "net.onnx", "--target", "cortex-m4g", "--out", "b")
    assert done.code == 1
    assert "there is no target 'cortex-m4g'" in done.err
