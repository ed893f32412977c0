"""The file of measured times: several processes, damage, a full disk."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onefold.errors import CacheError, DiskError
from onefold.run import store, tuned
from onefold.run.tuned import Record
from onefold.target import find

HERE = "here"


def records(first: int, count: int) -> list[Record]:
    return [Record(HERE, f"node {k}", {"a": 1e-3, "b": 2e-3}) for k in range(first, first + count)]


def nodes() -> list[str]:
    return [node for _, node in tuned.table().records]


def file() -> Path:
    return store.tuned_place() / tuned.NAME


def in_a_process(do: Callable[..., None], *arguments: object) -> multiprocessing.Process:
    p = multiprocessing.get_context("fork").Process(target=do, args=arguments)
    p.start()
    return p


def test_what_is_added_is_there_and_the_last_counts() -> None:
    assert not tuned.table().records
    tuned.add(records(0, 3))
    tuned.add([Record(HERE, "node 1", {"a": 5.0})])
    assert nodes() == ["node 0", "node 1", "node 2"]
    assert tuned.table().records[HERE, "node 1"].times == {"a": 5.0}


def test_superseded_lines_go() -> None:
    for _ in range(8):
        tuned.add(records(0, 2))
    assert len(file().read_text().splitlines()) <= 6
    assert nodes() == ["node 0", "node 1"]


def test_several_processes_at_once() -> None:
    def some(k: int) -> None:
        for i in range(20):
            tuned.add(records(20 * k + i, 1))

    running = [in_a_process(some, k) for k in range(4)]
    for p in running:
        p.join()
    assert sorted(nodes()) == sorted(r.node for r in records(0, 80))


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_line_written_half_costs_that_line_alone(kept: int) -> None:
    """As a process leaves it that is killed while it writes."""
    tuned.add(records(0, 2))
    line = records(2, 1)[0].line().encode()
    with file().open("ab") as f:
        f.write(line[:kept])
    table = tuned.table()
    assert len(table.records) == 2 and table.damaged == 1
    tuned.add(records(3, 1))
    assert nodes() == ["node 0", "node 1", "node 3"] and not tuned.table().damaged


def fill(limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        tuned.add(records(2, 50))
    except DiskError as e:
        os._exit(0 if e.kind is DiskError.FULL else 1)
    os._exit(2)


def test_a_full_disk_is_one_clear_error_and_costs_nothing() -> None:
    tuned.add(records(0, 2))
    before = file().read_bytes()
    child = in_a_process(fill, len(before) + 100)
    child.join()
    assert child.exitcode == 0
    assert file().read_bytes() == before


NOT_RECORDS = [
    b"\xff\xfe\x00garbage", b"[" * 5000, b"{}", b"null", b"1e999",
    b'{"machine": "here", "node": "n", "times": {}}',
    b'{"machine": "here", "node": "n", "times": {"a": -1}}',
    b'{"machine": "here", "node": "n", "times": {"a": NaN}}',
    b'{"machine": "here", "node": "n", "times": {"a": 1e999}}',
    b'{"machine": "here", "node": "n", "times": {"a": true}}',
    b'{"machine": "here", "node": "n", "times": {"a": "fast"}}',
    b'{"machine": "here", "node": "n", "times": {"a": 1' + b"0" * 400 + b"}}",
    b'{"machine": 3, "node": "n", "times": {"a": 1}}',
    b'{"machine": "\\u001b[2J", "node": "n", "times": {"a": 1}}',
    b'{"machine": "here", "node": "\\ud800", "times": {"a": 1}}',
    b'{"machine": "here", "node": "n", "times": {"\\ud800": 1}}',
    b'{"machine": "here", "node": "' + b"n" * tuned.LONGEST + b'", "times": {"a": 1}}',
]  # fmt: skip


def test_damaged_lines_are_left_out_and_then_removed() -> None:
    tuned.add(records(0, 1))
    with file().open("ab") as f:
        f.write(b"\n".join(NOT_RECORDS) + b"\n" + records(1, 1)[0].line().encode())
    table = tuned.table()
    assert nodes() == ["node 0", "node 1"] and table.damaged == len(NOT_RECORDS)
    tuned.add(records(2, 1))
    assert nodes() == ["node 0", "node 1", "node 2"] and not tuned.table().damaged


def test_random_bytes_never_crash() -> None:
    rng = np.random.default_rng(0)
    tuned.add(records(0, 20))
    whole = file().read_bytes()
    for _ in range(200):
        raw = bytearray(whole)
        for at in rng.integers(0, len(raw), 5):
            raw[at] = rng.integers(0, 256)
        file().write_bytes(bytes(raw[: rng.integers(1, len(raw) + 1)]))
        table = tuned.table()
        assert len(table.records) <= 25
        assert all(t > 0 for r in table.records.values() for t in r.times.values())


def test_a_folder_in_its_place_is_an_error() -> None:
    store.tuned_folder()
    file().mkdir()
    host = find("host")
    for do in (tuned.table, lambda: tuned.add(records(0, 1)), lambda: tuned.times_for(host)):
        with pytest.raises(CacheError, match=r"read|remember"):
            do()


def test_a_folder_that_others_may_write_is_refused() -> None:
    store.tuned_folder().chmod(0o777)
    with pytest.raises(CacheError) as e:
        tuned.add(records(0, 1))
    assert e.value.kind is CacheError.UNSAFE


def test_errors_name_the_variable_of_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    knobs = {"TUNED": store.tuned_folder, "TOOLCHAIN": store.toolchain_folder,
             "CACHE": store.cache_folder}  # fmt: skip
    for name, folder in knobs.items():
        with monkeypatch.context() as m:
            m.setenv(f"ONEFOLD_{name}_DIR", str(taken))
            with pytest.raises(CacheError, match="is not a folder") as e:
                folder()
            assert e.value.remedy == f"Set ONEFOLD_{name}_DIR to a folder you can write to."
            m.setenv(f"ONEFOLD_{name}_DIR", "/proc/none")
            with pytest.raises(CacheError, match="cannot be made") as e:
                folder()
            assert f"ONEFOLD_{name}_DIR" in e.value.remedy
            shared = tmp_path / name
            shared.mkdir()
            shared.chmod(0o777)
            m.setenv(f"ONEFOLD_{name}_DIR", str(shared))
            with pytest.raises(CacheError, match="other users may write") as e:
                folder()
            assert e.value.kind is CacheError.UNSAFE
            assert f"set ONEFOLD_{name}_DIR to another" in e.value.remedy


def test_what_fails_beside_measured_times_names_their_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEFOLD_TUNED_DIR", str(tmp_path / "times"))
    (store.tuned_folder() / "tuned.lock").mkdir()
    with pytest.raises(CacheError, match="folder of measured times failed while being locked") as e:
        tuned.add(records(0, 1))
    assert "ONEFOLD_TUNED_DIR" in e.value.remedy


def test_forgetting() -> None:
    tuned.add([*records(0, 4), Record("elsewhere", "node 0", {"a": 1.0})])
    assert tuned.forget(lambda r: r.machine == HERE and r.node != "node 3") == 3
    assert sorted(tuned.table().records) == [("elsewhere", "node 0"), (HERE, "node 3")]
    assert tuned.forget(lambda r: True) == 2
    assert not tuned.table().records


def test_times_are_those_of_the_machine() -> None:
    host = find("host")
    assert tuned.times_for(host) == {}
    tuned.add([Record("elsewhere", "n", {"a": 1.0}), Record(tuned.machine(host), "n", {"a": 2.0})])
    assert tuned.times_for(host) == {"n": {"a": 2.0}}
    assert tuned.times_for(find("x86-64-v3")) == {}


def test_the_key_of_a_program_changes_with_what_it_asked_for_alone() -> None:
    known = {"n": {"a": 1.0}, "other": {"a": 1.0}}
    assert tuned.key_of("base", known) == "", "not compiled yet"
    facts = json.loads(json.dumps(tuned.used({"n": {"a": 1.0}, "unknown": {}})))
    key = tuned.remembered("base", [facts])
    assert key == tuned.key_of("base", known) == tuned.key_of("base", {"n": {"a": 1.0}})
    others = [{"n": {"a": 1.5}}, {**known, "unknown": {"a": 1.0}}, {"other": {"a": 1.0}}, {}]
    keys = [tuned.key_of("base", k) for k in others]
    assert len({key, *keys}) == 4 and keys[2] == keys[3] == tuned.key_of("base", None)
    assert tuned.key_of("another", {}) != keys[3]


def test_a_damaged_memory_of_what_was_asked_is_asked_again() -> None:
    facts = tuned.used({"n": {"a": 1.0}})
    tuned.remembered("base", [facts])
    (memo,) = (store.cache_folder() / "digests").glob("asked-*")
    for damage in (b"", b"\xff", b"3", b"[" * 5000):
        memo.write_bytes(damage)
        assert tuned.key_of("base", {"n": {"a": 1.0}}) == ""
