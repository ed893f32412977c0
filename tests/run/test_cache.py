"""The cache: atomic, built once, verified, bounded, private; whatever happens to it."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from onefold import events, knobs
from onefold.errors import CacheError, DiskError, RunError
from onefold.run import cache, digest, store
from onefold.run.lock import KeyLock
from tests.work import calls, must_end

KEY = cache.key("a model", "its options")
BIG = bytes(range(256)) * 8192  # 2 MB: verified by its stamp
FORK = multiprocessing.get_context("spawn")


def build(folder: Path) -> dict[str, object]:
    (folder / "code.so").write_bytes(b"code")
    (folder / "weights").write_bytes(BIG)
    (folder / "src").mkdir()
    (folder / "src" / "model.c").write_text("int x;", "utf-8")
    return {"name": "net.onnx", "prefix": "p"}


def never(folder: Path) -> None:
    raise AssertionError("built again")


def leftovers(root: Path) -> list[str]:
    return [p.name for d in ("tmp", "locks") if (root / d).exists() for p in (root / d).iterdir()]


# --- hits and misses -----------------------------------------------------------------------------


def test_an_entry_is_built_once_and_found_again(own_cache: Path) -> None:
    first = cache.get_or_build(KEY, build)
    assert first.fresh and (first.path / "code.so").read_bytes() == b"code"
    second = cache.get_or_build(KEY, never)
    assert not second.fresh and second.path == first.path
    assert second.meta == {"name": "net.onnx", "prefix": "p"}
    assert not leftovers(own_cache)


def test_keys_depend_on_every_part_and_its_borders() -> None:
    keys = {cache.key("ab", "c"), cache.key("a", "bc"), cache.key("abc"),
            cache.key(b"ab", b"c", ""), cache.key()}
    assert len(keys) == 5 and all(len(k) == 64 for k in keys)
    assert cache.key("a") == cache.key(b"a")


def test_the_builder_may_decide_the_key(own_cache: Path) -> None:
    def name(meta: Mapping[str, object]) -> str:
        return cache.key(str(meta["name"]))

    first = cache.get_or_build(KEY, build, name)
    assert first.fresh and first.key == cache.key("net.onnx") and cache.get(KEY) is None
    assert cache.get_or_build(first.key, never).path == first.path
    inode = (first.path / "code.so").stat().st_ino
    again = cache.get_or_build(KEY, build, name)
    assert not again.fresh and again.path == first.path
    assert (again.path / "code.so").stat().st_ino == inode, "it may be in use"
    assert not leftovers(own_cache)


def test_nothing_is_found_before_it_is_built() -> None:
    assert cache.get(KEY) is None


def test_what_a_builder_raises_arrives_and_leaves_nothing(own_cache: Path) -> None:
    def fails(folder: Path) -> None:
        build(folder)
        raise RunError("no such layer")
    with pytest.raises(RunError, match="no such layer"):
        cache.get_or_build(KEY, fails)
    assert not leftovers(own_cache) and cache.entries() == []
    assert cache.get_or_build(KEY, build).fresh


def test_other_file_errors_of_a_builder_pass_unchanged() -> None:
    with pytest.raises(FileNotFoundError):
        cache.get_or_build(KEY, lambda folder: Path("/nowhere/at/all").read_text("utf-8") and None)


# --- damage --------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def flip_and_restore_the_time(path: Path) -> None:
    facts = path.stat()
    flip(path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def remove(path: Path) -> None:
    path.unlink()


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["code.so", "weights", "src/model.c"])
@pytest.mark.parametrize("harm", [flip, flip_and_restore_the_time, truncate, remove,
                                  replace_by_folder])
def test_a_damaged_file_is_noticed_and_built_again(
        own_cache: Path, name: str, harm: Callable[[Path], None]) -> None:
    entry = cache.get_or_build(KEY, build)
    harm(entry.path / name)
    with events.collected() as seen:
        again = cache.get_or_build(KEY, build)
    assert again.fresh and [e.kind for e in seen] == ["cache.damaged", "cache.build"]
    assert name in str(seen[0].facts["why"])
    assert (again.path / "weights").read_bytes() == BIG
    assert not leftovers(own_cache)


@pytest.mark.parametrize("text", [b"", b"\n", b"{}", b"0" * 64 + b'\n{"files": {}, "meta": {}}',
                                  b"\xff\xfe", b"[" * 100000])
def test_a_damaged_manifest_is_noticed_and_built_again(text: bytes) -> None:
    entry = cache.get_or_build(KEY, build)
    (entry.path / cache.MANIFEST).write_bytes(text)
    assert cache.get_or_build(KEY, build).fresh
    assert not cache.get_or_build(KEY, never).fresh


def test_every_single_changed_byte_of_the_manifest_is_noticed() -> None:
    entry = cache.get_or_build(KEY, build)
    path = entry.path / cache.MANIFEST
    raw = path.read_bytes()
    for at in range(0, len(raw), 7):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1:])
        assert cache.get(KEY) is None, at
        cache.get_or_build(KEY, build)
        raw = path.read_bytes()


def test_an_entry_without_manifest_is_built_again(own_cache: Path) -> None:
    entry = cache.get_or_build(KEY, build)
    (entry.path / cache.MANIFEST).unlink()
    assert cache.get_or_build(KEY, build).fresh


def test_a_file_in_place_of_an_entry_is_replaced(own_cache: Path) -> None:
    entry = cache.get_or_build(KEY, build)
    shutil.rmtree(entry.path)
    entry.path.write_bytes(b"")
    assert cache.get_or_build(KEY, build).fresh


def test_large_files_are_hashed_once_per_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.get_or_build(KEY, build)
    hashed: list[str] = []
    real = cache._digest
    monkeypatch.setattr(cache, "_digest", lambda path: hashed.append(path.name) or real(path))
    cache.get(KEY)
    assert sorted(hashed) == ["code.so", "model.c"]
    monkeypatch.setattr(cache, "_boot", lambda: "another boot")
    hashed.clear()
    cache.get(KEY)
    assert "weights" in hashed
    hashed.clear()
    cache.get(KEY)
    assert "weights" not in hashed


def test_a_link_is_not_stored() -> None:
    def links(folder: Path) -> None:
        (folder / "code.so").symlink_to("/etc/passwd")
    with pytest.raises(CacheError, match="link or a special file"):
        cache.get_or_build(KEY, links)


# --- processes -----------------------------------------------------------------------------------


def slow_build(folder: Path) -> None:
    with (store.cache_folder().parent / "builds").open("a", encoding="utf-8") as log:
        log.write("x")
    time.sleep(0.3)
    build(folder)


def builder(folder: str, start: float) -> bool:
    os.environ["ONEFOLD_CACHE_DIR"] = folder
    time.sleep(max(0.0, start - time.time()))
    entry = cache.get_or_build(KEY, slow_build)
    return entry.fresh and (entry.path / "weights").read_bytes() == BIG


def test_processes_that_need_the_same_program_build_it_once(own_cache: Path) -> None:
    start = time.time() + 1.5
    with FORK.Pool(4) as pool:
        fresh = pool.starmap(builder, [(str(own_cache), start)] * 4)
    assert sorted(fresh) == [False, False, False, True]
    assert (own_cache.parent / "builds").read_text("utf-8") == "x"
    assert not leftovers(own_cache)


def test_threads_that_need_the_same_program_build_it_once(own_cache: Path) -> None:
    entries: list[cache.Entry] = []
    threads = [threading.Thread(target=lambda: entries.append(cache.get_or_build(KEY, slow_build)))
               for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(e.fresh for e in entries) == 1 and len(entries) == 6


def test_different_programs_are_built_at_once() -> None:
    meeting = threading.Barrier(2, timeout=60)

    def meets(folder: Path) -> None:
        meeting.wait()
    threads = [threading.Thread(target=cache.get_or_build, args=(cache.key(str(i)), meets))
               for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache.entries()) == 2


KILLED = """
import signal, sys, time
from pathlib import Path
from onefold.run import cache
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
def build(folder):
    (folder / "weights").write_bytes(b"half")
    print("building", flush=True)
    time.sleep(600)
cache.get_or_build(sys.argv[1], build)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_builder_blocks_nobody(own_cache: Path, how: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, KEY], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL,
                               env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert process.stdout and process.stdout.readline() == b"building\n"
    assert cache.get(KEY) is None
    process.send_signal(how)
    process.wait(60)
    process.stdout.close()
    with must_end():
        assert cache.get_or_build(KEY, build).fresh
    assert not leftovers(own_cache)


def test_waiting_ends_with_a_clear_error(
        own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEFOLD_COMPILE_TIMEOUT", "1")
    monkeypatch.setattr(time, "sleep", lambda _: None)
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    cache.clear()
    with KeyLock(cache._root("locks"), KEY), pytest.raises(CacheError) as caught:
        cache.get_or_build(KEY, build)
    assert caught.value.code == "OF423"


def test_what_other_killed_builders_left_goes_after_a_day(own_cache: Path) -> None:
    cache.get_or_build(KEY, build)
    old, new = own_cache / "tmp" / "feed.1", own_cache / "tmp" / "beef.2"
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, 0))
    cache.get_or_build(cache.key("other"), build)
    assert not old.exists() and new.exists()


# --- disk ----------------------------------------------------------------------------------------


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() or not mount or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(folder)],
            capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full(tiny_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEFOLD_CACHE_DIR", str(tiny_disk))
    with pytest.raises(DiskError) as caught:
        cache.get_or_build(KEY, build)
    assert "no space left" in str(caught.value) and "ONEFOLD_CACHE_DIR" in str(caught.value)
    assert cache.entries() == [] and not leftovers(tiny_disk)
    small = cache.get_or_build(cache.key("small"), lambda f: (f / "x").write_bytes(b"1") and None)
    assert small.fresh


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_at_every_step(
        own_cache: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    cache.clear()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))
    for owner, name in ((Path, "mkdir"), (Path, "write_text"), (Path, "rename"), (os, "open")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, refuse)
            with pytest.raises(DiskError, match="no space left"):
                cache.get_or_build(KEY, lambda folder: None)
        assert cache.entries() == [] and not leftovers(own_cache), name
    assert cache.get_or_build(KEY, build).fresh


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ONEFOLD_CACHE_DIR", str(tmp_path / "file" / "inside"))
    with pytest.raises(CacheError, match="the cache folder failed while being opened"):
        cache.get(KEY)
    monkeypatch.setenv("ONEFOLD_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(CacheError, match="is not a folder"):
        cache.get(KEY)


# --- privacy -------------------------------------------------------------------------------------


def test_the_folder_is_private(own_cache: Path) -> None:
    cache.get_or_build(KEY, build)
    assert own_cache.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_may_write_to_is_refused(own_cache: Path, mode: int) -> None:
    cache.get_or_build(KEY, build)
    own_cache.chmod(mode)
    with pytest.raises(CacheError) as caught:
        cache.get(KEY)
    assert caught.value.code == "OF421" and "chmod 700" in str(caught.value)


def test_a_folder_of_somebody_else_is_refused(
        own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.get_or_build(KEY, build)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(CacheError, match="belongs to another user"):
        cache.get(KEY)


# --- size ----------------------------------------------------------------------------------------


def make(name: str, size: int, used: float) -> str:
    key = cache.key(name)
    entry = cache.get_or_build(
        key, lambda folder: {"name": name} if (folder / "x").write_bytes(b"0" * size) else None)
    os.utime(entry.path / cache.MANIFEST, (used, used))
    return key


def test_entries_are_listed_with_size_and_order_of_use() -> None:
    make("old", 1000, 1000.0)
    make("new", 2000, 2000.0)
    listed = cache.entries()
    assert [one.meta["name"] for one in listed] == ["new", "old"]
    assert 2000 < listed[0].bytes < 2600 and cache.size() == sum(one.bytes for one in listed)


def test_the_least_recently_used_go_first() -> None:
    keys = [make(f"n{i}", 10000, 1000.0 + i) for i in range(5)]
    cache.get(keys[0])  # used now
    freed = cache.evict(25000)
    assert freed > 30000
    assert {one.key for one in cache.entries()} == {keys[0], keys[4]}


def test_entries_in_use_are_spared() -> None:
    keys = [make(f"n{i}", 1000, time.time()) for i in range(3)]
    assert cache.evict(0) == 0
    cache.evict(0, spare=keys[1], recent=0)
    assert [one.key for one in cache.entries()] == [keys[1]]


def test_building_keeps_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEFOLD_CACHE_LIMIT", "50k")
    for i in range(10):
        make(f"n{i}", 10000, 1000.0 + i)
    assert cache.size() <= 50000
    assert cache.entries()[0].meta["name"] == "n9"


def test_clearing_frees_everything(own_cache: Path) -> None:
    make("a", 1000, 0)
    (own_cache / "tmp" / "half").mkdir()
    assert cache.clear() > 1000
    assert cache.entries() == [] and cache.size() == 0 and not leftovers(own_cache)


# --- speed, digests of files ---------------------------------------------------------------------


def test_a_hit_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files are read when an entry is made, and not again while they are what they were."""
    entry = cache.get_or_build(KEY, build)
    cache.get(KEY)
    read: list[str] = []
    digest_of = cache._digest
    monkeypatch.setattr(cache, "_digest", lambda p: (read.append(p.name), digest_of(p))[1])
    assert calls(lambda: cache.get(KEY)) < 300
    assert "weights" not in read
    os.utime(entry.path / "weights")
    cache.get(KEY)
    assert "weights" in read


def test_digests_of_large_files_are_remembered(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights"
    path.write_bytes(BIG)
    os.utime(path, (1000, 1000))
    monkeypatch.setattr(digest, "LARGE", 1000)
    monkeypatch.setattr(digest, "SETTLED", -1.0)
    first = digest.file_digest(path)
    with monkeypatch.context() as patch:
        patch.setattr(digest.hashes, "of_file", never)
        assert digest.file_digest(path) == first
    flip_and_restore_the_time(path)
    assert digest.file_digest(path) != first


def test_a_file_changed_just_now_is_not_remembered(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(BIG)
    monkeypatch.setattr(digest, "LARGE", 1000)
    digest.file_digest(path)
    assert not (own_cache / "digests").exists()


@pytest.mark.parametrize(("text", "value"), [("5", 5), ("4k", 4000), ("4KB", 4000), ("2GiB", 2**31),
                                             ("1 gib".replace(" ", ""), 2**30)])
def test_sizes(text: str, value: int) -> None:
    assert knobs.size(text) == value
