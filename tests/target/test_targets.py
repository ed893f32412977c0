"""Device descriptions, feature suffixes, and the host as it would look on other machines."""

from __future__ import annotations

import os
import sys
from dataclasses import FrozenInstanceError
from itertools import pairwise
from pathlib import Path

import pytest

import onefold.target as target
from onefold.errors import TargetError
from onefold.target import host

ZEN = ("flags\t: fpu sse2 pni ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt xsave avx f16c lahf_lm abm "
       "bmi1 avx2 bmi2 avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni avx512_bf16\n")
A76 = "Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp cpuid asimdrdm asimddp\n"
A53 = "Features\t: fp asimd evtstrm aes crc32 cpuid\n"


@pytest.mark.parametrize("name", target.targets())
def test_every_target_is_complete(name: str) -> None:
    machine = target.find(name)
    isa = target.load_isa(machine.arch)
    assert machine.name == name and machine.summary and machine.triple
    assert machine.features <= set(isa.features)
    assert isa.closure(machine.features) == machine.features
    assert machine.vector_bytes in (0, 4, 16, 32, 64)
    assert machine.has_heap == (machine.os == "linux")
    assert hash(machine) == hash(target.find(name))
    with pytest.raises(FrozenInstanceError):
        machine.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("name", [n for n in target.targets() if n.startswith("cortex-m")])
def test_microcontrollers_have_memories_apart_from_each_other(name: str) -> None:
    memories = target.find(name).memories
    assert {"flash", "ram"} <= {m.kind for m in memories}
    spans = sorted((m.base, m.base + m.size) for m in memories)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert target.find(name).memory("ram").kind == "ram"


def test_features_are_added_by_name_with_what_they_imply() -> None:
    plain, more = target.find("arm64"), target.find("arm64+i8mm+fp16")
    assert more.features == plain.features | {"i8mm", "dotprod", "fp16"}
    assert more.cpu == "cortex_a53+dotprod+fullfp16+i8mm"
    assert more.name == "arm64+i8mm+fp16" and more.vector_bytes == 16
    assert target.find("wasm32+simd128").vector_bytes == 16
    assert target.find("wasm32").vector_bytes == 0
    wide = target.find("x86-64-v3+avx512f")
    assert wide.vector_bytes == 64 and "-mprefer-vector-width=512" in wide.cpu_flags


@pytest.mark.parametrize(("name", "text"), [
    ("cortex-m4g", "Did you mean 'cortex-m4'"), ("HOST", "Did you mean 'host'?"),
    ("qqq", "Known are host, arm64, "), ("", "there is no target ''"),
    ("../isa/thumb", "there is no target"), ("\x1b[2J" + "x" * 10**5, "\\x1b[2Jxxx")])
def test_an_unknown_target_names_the_nearest(name: str, text: str) -> None:
    with pytest.raises(TargetError) as caught:
        target.find(name)
    assert text in str(caught.value) and caught.value.code == "OF401"
    assert len(str(caught.value)) < 800


def test_an_unknown_feature_names_the_nearest() -> None:
    with pytest.raises(TargetError) as caught:
        target.find("arm64+dotprd")
    assert "'dotprd' is not a feature of aarch64" in str(caught.value)
    assert "Did you mean 'dotprod'?" in str(caught.value)


@pytest.mark.parametrize("text", ["arch = 'thumb'\n", "arch = ", "arch = 'thumb'\nsummary = ''\n"
                                  "cpu = 'x'\nfeatures = []\nos = 'none'\nfpu = 'none'\n"
                                  "memory = [{ nam = 'a' }]\n"])
def test_a_faulty_device_file_is_named(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "devices").mkdir()
    (tmp_path / "isa").symlink_to(Path(target.__file__).parent / "isa")
    (tmp_path / "devices" / "mine.toml").write_text(text, "utf-8")
    monkeypatch.setattr(target, "_HERE", tmp_path)
    with pytest.raises(TargetError, match=r"mine\.toml") as caught:
        target.find("mine")
    assert caught.value.code == "OF403"


def test_an_x86_server_is_recognised() -> None:
    cpu, features = host.describe(target.load_isa("x86_64"), host.cpu_words(ZEN + ZEN))
    assert cpu.startswith("x86_64_v4+") and "+avx512vnni" in cpu
    assert {"avx512vnni", "avx512bf16", "fma", "avx2"} <= features
    assert "avx512fp16" not in features


def test_what_several_features_bring_is_named_once() -> None:
    words = host.cpu_words(ZEN) | {"amx_tile", "amx_int8", "amx_bf16"}
    cpu, features = host.describe(target.load_isa("x86_64"), words)
    assert {"amx-int8", "amx-bf16"} <= features
    assert cpu.split("+").count("amx_tile") == 1


def test_a_feature_whose_prerequisite_is_hidden_is_not_used() -> None:
    words = host.cpu_words(ZEN.replace(" avx2", ""))
    cpu, features = host.describe(target.load_isa("x86_64"), words)
    assert cpu.startswith("x86_64_v2+") and "avx512" not in cpu
    assert not {"avx2", "avx512f", "avx512vnni"} & features


def test_an_arm_board_is_as_good_as_its_weakest_core() -> None:
    isa = target.load_isa("aarch64")
    big, little = host.cpu_words(A76), host.cpu_words(A53)
    assert host.describe(isa, big)[1] == {"neon", "dotprod", "fp16", "lse"}
    assert host.describe(isa, little) == ("generic+neon", frozenset({"neon"}))
    assert host.cpu_words(A76 + "processor: 1\n" + A53) == big & little
    assert host.cpu_words("nothing") == frozenset()


def machine(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    facts = os.uname()
    monkeypatch.setattr(os, "uname", lambda: type(facts)((*facts[:4], name)))


def test_the_host_may_be_an_arm64_board(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "aarch64")
    monkeypatch.setattr(host, "_read", lambda path: A76 if "cpuinfo" in str(path) else "")
    monkeypatch.setattr(target, "host_facts", host.host_facts.__wrapped__)
    board = target._host()
    assert board.triple == "aarch64-linux-musl" and board.cpu == "generic+dotprod+fullfp16+lse+neon"
    assert target.runs_here(target.find("arm64")) and not target.runs_here(target.find("x86-64-v2"))
    assert target.missing_features("aarch64", frozenset({"neon", "i8mm", "sve"})) == ("i8mm", "sve")


def test_other_systems_are_told_that_they_cannot_be_the_host(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(TargetError, match="cannot be the host target"):
        host.host_arch()
    monkeypatch.undo()
    machine(monkeypatch, "s390x")
    with pytest.raises(TargetError, match="s390x"):
        host.host_arch()


def test_an_artifact_for_more_than_this_machine_has_is_refused() -> None:
    here = target.find("host")
    target.require_features(here.arch, here.features, "net.onnx")
    with pytest.raises(TargetError) as caught:
        target.require_features(here.arch, here.features | {"quantum"}, "net.onnx")
    assert "missing here: quantum" in str(caught.value) and caught.value.code == "OF402"
    assert "where: net.onnx" in str(caught.value)
    with pytest.raises(TargetError, match="programs for other cannot be loaded"):
        target.require_features("other", frozenset(), "net.onnx")
