"""A short run of the fuzzers over every stage, as CI does it; docs/fuzzing.md has the long runs."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from onefold.dev import corpus, fuzz, mutate_tflite
from onefold.dev.drive import STAGES, drive

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def sources() -> dict[str, fuzz.Source]:
    from onnx import TensorProto, helper

    from tests.fuzz.seeds import tflite

    models = [("digits.onnx", corpus.DIGITS.read_bytes())]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3, 4, 4]) for n in "xy")
    for op, attrs in (("Softmax", {"axis": 1}), ("MaxPool", {"kernel_shape": [2, 2]}),
                      ("ReduceSum", {"keepdims": 0}), ("Transpose", {"perm": [0, 2, 3, 1]}),
                      ("Flatten", {"axis": 1}), ("LRN", {"size": 3})):  # fmt: skip
        graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], **attrs)], op, [x], [y])
        sets = [helper.make_opsetid("", 17)]
        proto = helper.make_model(graph, opset_imports=sets, ir_version=8)
        models.append((op, proto.SerializeToString()))
    return {"onnx": fuzz.Source("onnx", models), "tflite": fuzz.Source("tflite", tflite()[::5])}


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_a_few_hundred_files(sources: dict[str, fuzz.Source], format: str) -> None:
    tally = fuzz.fuzz(sources[format], 300, seed=12345)
    assert tally.iterations == 300
    assert not tally.findings, "\n".join(f"{f.seed} {f.key}\n{f.trace}" for f in tally.findings)
    reached = [sum(c for k, c in tally.stages.items() if k >= s) for s in range(len(STAGES))]
    assert tally.structured >= 150, "half of the changes know the format"
    for stage, share in (("graph", 0.2), ("plan", 0.1), ("C", 0.02)):
        assert reached[STAGES.index(stage)] >= share * tally.iterations, stage


def test_a_seed_makes_the_same_file(sources: dict[str, fuzz.Source]) -> None:
    for source in sources.values():
        for seed in range(20):
            assert source.make(seed)[:3] == source.make(seed)[:3]


def test_tflite_vectors_that_grow_leave_a_file_that_reads(sources: dict[str, fuzz.Source]) -> None:
    data = sources["tflite"].models[0][1]
    grown = 0
    for seed in range(60):
        rng = random.Random(seed)
        out = bytearray(data)
        mutate_tflite.name(rng, data, out, mutate_tflite.tflite_sites(data))
        grown += len(out) > len(data)
        assert drive("tflite", bytes(out), rng).stage == STAGES.index("C")
    assert grown > 30


class Hang(fuzz.Source):
    """A source of which one file brings the worker down."""

    def __init__(self, inner: fuzz.Source, seed: int, how: str) -> None:
        self.__dict__.update(inner.__dict__)
        self.seed, self.how = seed, how

    def make(self, seed: int):  # type: ignore[no-untyped-def]
        return seed, "", self.how.encode() if seed == self.seed else b"", random.Random(0)


@pytest.mark.parametrize("how", ["crash", "hang", "memory"])
def test_the_worker_may_die(
    sources: dict[str, fuzz.Source], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """One crash, hang or memory blow-up is one finding, and the rest of the seeds still run."""
    def drive_it(format: str, data: bytes, rng: random.Random) -> object:
        if data == b"crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if data == b"hang":
            time.sleep(60)
        if data == b"memory":
            return bytearray(10**12)
        return fuzz.drive.Way(1)

    monkeypatch.setattr(fuzz, "TIME_LIMIT_S", 0.3)
    monkeypatch.setattr(fuzz.drive, "drive", drive_it)
    tally = fuzz.watch(Hang(sources["onnx"], 7, how), range(20), 0)
    assert tally.iterations == 20 and len(tally.findings) == 1
    assert tally.findings[0].seed == 7
    assert {"crash": "status", "hang": "TooSlow", "memory": "MemoryError"}[how] in (
        tally.findings[0].key
    )


def test_failing_files_become_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that does not matter for the failure goes."""
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    data = corpus.DIGITS.read_bytes()

    def drive_it(format: str, data: bytes, rng: random.Random) -> object:
        try:
            ops = [n.op_type for n in ModelProto.FromString(data).graph.node]
        except DecodeError:
            return fuzz.drive.Way(0)
        if "Conv" in ops:
            raise KeyError("Conv")
        return fuzz.drive.Way(1)

    monkeypatch.setattr(fuzz.drive, "drive", drive_it)
    small = fuzz.reduced("onnx", data)
    assert len(small) < len(data) / 20 and b"Conv" in small


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "digits.onnx").write_bytes(corpus.DIGITS.read_bytes())
    assert fuzz.main(["--format", "onnx", "--iterations", "20", "--corpus", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "20 iterations" in out and "reached plan" in out and "failed   0" in out
