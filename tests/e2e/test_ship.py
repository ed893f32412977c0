"""Bundles: built for other machines, run in their emulators, equal to the host."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import onefold
from onefold.errors import FallbackError, ShapeError, TargetError
from onefold.run import emulator
from onefold.ship import build
from onefold.target import find
from tests.e2e.made import DIGITS, branch, decoder, powers
from tests.frontend.models import DATA

pytestmark = pytest.mark.toolchain
KWS = DATA / "models" / "tflite" / "kws_ref_model.tflite"
REPORT = {"macs", "code_bytes", "weights_bytes", "flash_bytes", "arena_bytes", "arena_lower_bound",
          "state_bytes", "stack_bytes", "ram_bytes"}  # fmt: skip


def need(target: str) -> None:
    if not emulator.available(find(target)):
        pytest.skip(f"no emulator for {target}: apt-get install qemu-user qemu-system-arm")


@pytest.mark.parametrize("target", ["host", "arm64", "cortex-m4f"])
@pytest.mark.emulator
def test_a_float_network_runs_as_on_the_host(target: str, tmp_path: Path) -> None:
    need(target)
    model = onefold.load(DIGITS)
    bundle = build(model, target, tmp_path)
    x = np.random.default_rng(0).random(bundle.inputs[0][1], np.float32)
    (out,) = bundle.run([x])
    (want,) = model.compile(fallback=False)(x).values()
    np.testing.assert_allclose(out, want, atol=2e-6)
    report = json.loads((tmp_path / "report.json").read_text())
    assert REPORT <= set(report)
    assert report["stack_bytes"] > 0
    assert report["flash_bytes"] == report["code_bytes"] + report["weights_bytes"]


@pytest.mark.parametrize("target", ["arm64", "cortex-m4f"])
@pytest.mark.emulator
@pytest.mark.testdata
def test_an_integer_network_is_equal_bit_for_bit(target: str, tmp_path: Path) -> None:
    need(target)
    if not KWS.exists():
        pytest.skip(f"no {KWS.name}: set ONEFOLD_TESTDATA")
    model = onefold.load(KWS)
    bundle = build(model, target, tmp_path)
    program = model.compile(fallback=False)
    for seed in range(2):
        rng = np.random.default_rng(seed)
        x = rng.integers(-128, 128, bundle.inputs[0][1]).astype(np.int8)
        np.testing.assert_array_equal(bundle.run([x])[0], next(iter(program(x).values())))


@pytest.mark.emulator
def test_a_runner_without_its_files_says_so(tmp_path: Path) -> None:
    bundle = build(onefold.load(DIGITS), "host", tmp_path / "b", measure=False)
    away = tmp_path / "away"
    away.mkdir()
    done = subprocess.run([bundle.program], cwd=away, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "cannot read input0.bin\n")


def test_nothing_is_left_of_an_interrupted_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        assert (tmp_path / "new" / "digits.c").exists() or (tmp_path / "old" / "digits.c").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr("onefold.run.toolchain.compile_units", interrupted)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "mine").touch()
    for name in ("new", "old"):
        with pytest.raises(KeyboardInterrupt):
            build(onefold.load(DIGITS), "cortex-m4f", tmp_path / name)
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "old" / "mine").exists()


def test_firmware_needs_nothing_but_memory_functions(tmp_path: Path) -> None:
    """The model's own objects name no function of a libc but mem*, and no heap."""
    from onefold.run import toolchain

    build(onefold.load(DIGITS), "cortex-m4f", tmp_path, measure=False)
    zig = toolchain.find().zig
    link = [zig, "cc", "-target", "thumb-freestanding-eabihf", "-nostdlib", "-r"]
    done = subprocess.run([*link, "digits.o", "-o", "whole.o"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    names = set(re.findall(rb"[A-Za-z_]\w+", (tmp_path / "whole.o").read_bytes()))
    assert not names & {b"malloc", b"free", b"printf", b"expf", b"sqrtf", b"tanhf", b"calloc"}


@pytest.mark.usefixtures("split_all")
@pytest.mark.emulator
@pytest.mark.parametrize("target", ["host", "arm64"])
def test_a_runner_brings_its_threads(target: str, tmp_path: Path) -> None:
    need(target)
    model = onefold.load(DIGITS)
    one = build(model, target, tmp_path / "1", measure=False)
    bundle = build(model, target, tmp_path / "3", threads=3)
    x = np.random.default_rng(1).random(bundle.inputs[0][1], np.float32)
    assert bundle.run([x])[0].tobytes() == one.run([x])[0].tobytes()
    assert (one.report["threads"], bundle.report["threads"]) == (1, 3)
    assert bundle.report["stack_bytes"] > 0
    for folder, has in ((one.folder, False), (bundle.folder, True)):
        for name in ("digits.h", "digits.c", "main.c"):
            assert ("_team(" in (folder / name).read_text()) is has


def test_threads_need_an_operating_system(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="run on one thread, not on 2"):
        build(onefold.load(DIGITS), "cortex-m4f", tmp_path, threads=2)


def test_if_from_c(tmp_path: Path) -> None:
    bundle = build(onefold.load(branch(tmp_path)), "host", tmp_path / "out")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(bundle.run([x, np.array(True)])[0], x * 2 + x)
    np.testing.assert_array_equal(bundle.run([x, np.array(False)])[0], x - 1 + x)
    assert "if (*" in (tmp_path / "out" / "branch.c").read_text()


def test_loop_from_c(tmp_path: Path) -> None:
    path = powers(tmp_path)
    bundle = build(onefold.load(path), "host", tmp_path / "out")
    x = np.array([1, 2, 3, 4], np.float32)
    last, sums = bundle.run([x])
    np.testing.assert_array_equal(last, x * 16)
    np.testing.assert_array_equal(sums, [20, 40, 80, 160])
    out = onefold.load(path).compile(fallback=False)(x)
    np.testing.assert_array_equal(out["sums"], [20, 40, 80, 160])
    assert "for (int64_t" in (tmp_path / "out" / "powers.c").read_text()


@pytest.mark.parametrize("target", ["host", "arm64", "cortex-m4f"])
@pytest.mark.emulator
def test_sizes_that_the_program_finds_out(target: str, tmp_path: Path) -> None:
    from onnx import TensorProto as T
    from onnx import helper as h

    from tests.e2e.made import save

    need(target)
    path = save(tmp_path, "places", [h.make_node("NonZero", ["x"], ["y"])],
                [("x", T.FLOAT, [2, 3])], [("y", T.INT64, [2, "n"])])  # fmt: skip
    bundle = build(onefold.load(path), target, tmp_path / "out")
    for x in ([[0, 1, 0], [2, 0, 3]], [[0, 0, 0], [0, 0, 0]]):
        a = np.array(x, np.float32)
        np.testing.assert_array_equal(bundle.run([a])[0], np.array(np.nonzero(a)))


@pytest.mark.parametrize("target", ["host", "arm64"])
@pytest.mark.emulator
def test_sizes_that_the_inputs_tell(target: str, tmp_path: Path) -> None:
    from onnx import TensorProto as T
    from onnx import helper as h

    from tests.e2e.made import save

    need(target)
    path = save(tmp_path, "rows", [h.make_node("Softmax", ["x"], ["y"])],
                [("x", T.FLOAT, ["n", 3])], [("y", T.FLOAT, ["n", 3])])  # fmt: skip
    model = onefold.load(path)
    bundle = build(model, target, tmp_path / "out", dims={"n": "0..9"})
    program = model.compile(dims={"n": "0..9"})
    for n in (9, 1, 4):
        x = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
        np.testing.assert_allclose(bundle.run([x])[0], program(x)["y"], atol=1e-6)


def test_open_sizes_are_refused_without_a_heap(tmp_path: Path) -> None:
    model = onefold.load(decoder(tmp_path))
    with pytest.raises(ShapeError, match="sizes are open: past_k0"):
        build(model, "cortex-m4f", tmp_path / "out", dims={"past": "0..16", "seq": 1})


def test_layers_for_the_host_only_are_refused(tmp_path: Path) -> None:
    from onnx import TensorProto as T
    from onnx import helper as h

    from tests.e2e.made import save

    nodes = [h.make_node("StringConcat", ["a", "a"], ["b"], name="join")]
    path = save(tmp_path, "text", nodes, [("a", T.STRING, [2])], [("b", T.STRING, [2])])
    with pytest.raises(FallbackError) as e:
        build(onefold.load(path), "arm64", tmp_path / "out")
    assert "join" in str(e.value) and "StringConcat" in str(e.value)


def test_two_models_in_one_program(tmp_path: Path) -> None:
    """Every symbol carries the model's prefix, so two libraries link together."""
    from onefold.run import toolchain

    a = build(onefold.load(branch(tmp_path)), "host", tmp_path / "a", measure=False)
    b = build(onefold.load(powers(tmp_path)), "host", tmp_path / "b", measure=False)
    main = '#include "branch.h"\n#include "powers.h"\nint main(void) {\n' \
           "  return branch_run == 0 || (void *)powers_run == (void *)branch_run;\n}\n"  # fmt: skip
    host = find("host")
    objects = toolchain.compile_units([("both.c", main)], host, tmp_path,
                                      include_dirs=[a.folder, b.folder])  # fmt: skip
    out = tmp_path / "both"
    toolchain.link_executable([*objects, a.library, b.library], out, host)
    assert subprocess.run([out]).returncode == 0


@pytest.mark.emulator
def test_an_arena_in_two_memories(tmp_path: Path) -> None:
    """What the fast memory has no room for lies in the slow one; the result is the same."""
    need("cortex-m55")
    from onnx import TensorProto as T
    from onnx import helper as h

    from tests.e2e.made import save

    weights = np.random.default_rng(0).standard_normal((4, 2, 3, 3)).astype(np.float32)
    nodes = [h.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], name="first"),
             h.make_node("Sigmoid", ["a"], ["b"]), h.make_node("Mul", ["a", "b"], ["c"]),
             h.make_node("Softmax", ["c"], ["d"], axis=1),
             h.make_node("ReduceMax", ["d"], ["y"], axes=[2, 3], keepdims=0)]  # fmt: skip
    path = save(tmp_path, "wide", nodes, [("x", T.FLOAT, [1, 2, 160, 160])],
                [("y", T.FLOAT, [1, 4])], [("w", weights)])  # fmt: skip
    model = onefold.load(path)
    bundle = build(model, "cortex-m55", tmp_path / "out")
    assert set(bundle.report["arenas"]) == {"ram", "sram"}
    x = np.random.default_rng(1).random((1, 2, 160, 160), np.float32)
    (want,) = model.compile(fallback=False)(x).values()
    np.testing.assert_allclose(bundle.run([x])[0], want, atol=1e-5)


def test_a_network_too_large_for_the_device(tmp_path: Path) -> None:
    from onnx import TensorProto as T
    from onnx import helper as h

    from onefold.errors import PlanError
    from tests.e2e.made import save

    nodes = [h.make_node("Softmax", ["x"], ["a"], axis=1, name="huge"),
             h.make_node("ReduceMax", ["a"], ["y"], axes=[1, 2, 3], keepdims=0)]  # fmt: skip
    path = save(tmp_path, "large", nodes, [("x", T.FLOAT, [1, 64, 64, 60])],
                [("y", T.FLOAT, [1])])  # fmt: skip
    with pytest.raises(PlanError, match="do not fit into the memory of 'cortex-m0'") as refused:
        build(onefold.load(path), "cortex-m0", tmp_path / "out")
    assert refused.value.code == "OF302"


def test_weights_too_large_for_the_device_are_refused(tmp_path: Path) -> None:
    from onnx import TensorProto as T
    from onnx import helper as h

    from onefold.errors import PlanError
    from tests.e2e.made import save

    path = save(tmp_path, "heavy", [h.make_node("MatMul", ["x", "w"], ["y"])],
                [("x", T.FLOAT, [1, 600])], [("y", T.FLOAT, [1, 600])],
                [("w", np.ones((600, 600), np.float32))])  # fmt: skip
    with pytest.raises(PlanError, match="does not fit into the memory of 'cortex-m0'") as refused:
        build(onefold.load(path), "cortex-m0", tmp_path / "out")
    assert refused.value.code == "OF302"
    weights, overflow = refused.value.detail
    assert weights == "the largest weights are 'w' with 1,440,000 bytes"
    assert re.fullmatch(r"flash overflows by \d{3},\d{3} bytes", overflow)


def test_a_target_that_cannot_be_built_for_says_so(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="'wasm32' cannot be built yet") as refused:
        build(onefold.load(DIGITS), "wasm32", tmp_path / "out")
    assert refused.value.code == "OF404"
    assert not (tmp_path / "out").exists()
