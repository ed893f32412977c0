"""The text of every error, and that the tree, the codes and the explanations stay complete."""

from __future__ import annotations

import inspect
import json
import pickle
import re
import threading

import pytest

from onefold import errors, events, knobs
from onefold.errors import (
    AcceleratorModelError,
    CacheError,
    DiskError,
    DTypeError,
    EmulatorError,
    FallbackError,
    GraphError,
    InputError,
    MemoryLimitError,
    Miss,
    MissingExtraError,
    ModelFormatError,
    OnefoldError,
    OptionError,
    PlanError,
    RunError,
    ShapeError,
    TargetError,
    ToolchainError,
    UnsupportedModelError,
    all_kinds,
    explain,
    printable,
)

CASES: list[tuple[OnefoldError, str]] = [
    (OnefoldError("something failed"), """\
OF001: something failed
  next:  Report it with the model and the command line."""),
    (ModelFormatError("the file ends inside a tensor", where="net.onnx",
                      why="byte 512 of 400 was asked for"), """\
OF101: the file ends inside a tensor
  where: net.onnx
  why:   byte 512 of 400 was asked for
  next:  Fetch or export the file again; compare its size and checksum with the source."""),
    (UnsupportedModelError("2 layers cannot be taken", where="net.tflite",
                           misses=[("a/b", "CUSTOM_X", "no such operator"),
                                   Miss("c", "Conv", "5-D is not supported")]), """\
OF110: 2 layers cannot be taken
  where: net.tflite
    | layer 'a/b' (CUSTOM_X): no such operator
    | layer 'c' (Conv): 5-D is not supported
  next:  Export without the listed operators, or add them with `--ops FILE.py`."""),
    (AcceleratorModelError("the model was compiled for the Edge TPU", where="net_edgetpu.tflite"),
     """\
OF111: the model was compiled for the Edge TPU
  where: net_edgetpu.tflite
  next:  Use the file from before the accelerator's compiler ran."""),
    (ShapeError("MatMul got 3x4 and 5x6", where="layer 'fc'", why="4 and 5 differ"), """\
OF201: MatMul got 3x4 and 5x6
  where: layer 'fc'
  why:   4 and 5 differ
  next:  Compare the shapes in the message with the model's definition."""),
    (DTypeError("Add got f32 and i64", where="layer 'sum'"), """\
OF205: Add got f32 and i64
  where: layer 'sum'
  next:  Insert a Cast in the source model, or export in one precision."""),
    (GraphError("value 'x' has two producers", where="layer 'b'", why="after pass 'fuse'"), """\
OF210: value 'x' has two producers
  where: layer 'b'
  why:   after pass 'fuse'
  next:  If the message names a pass, report it; else repair the model's export."""),
    (PlanError("the arena needs 80000 bytes", why="memory 'ram' has 65536", kind=PlanError.FIT),
     """\
OF302: the arena needs 80000 bytes
  why:   memory 'ram' has 65536
  next:  Use a smaller input, a quantized model, or a target with more memory."""),
    (FallbackError("Einsum has no compiled form", where="layer 'mix'"), """\
OF310: Einsum has no compiled form
  where: layer 'mix'
  next:  Run in a host session without `--no-fallback`, or give the operator a C form."""),
    (TargetError("there is no target 'cortex-m4e'", why="Did you mean 'cortex-m4'?"), """\
OF401: there is no target 'cortex-m4e'
  why:   Did you mean 'cortex-m4'?
  next:  `onefold targets` lists the devices and their features."""),
    (ToolchainError("the C compiler or linker failed", where="zig cc a.c", why="exit status 1",
                    detail=["a.c:1:1: error: \x1b[31mno"]), """\
OF412: the C compiler or linker failed
  where: zig cc a.c
  why:   exit status 1
    | a.c:1:1: error: \\x1b[31mno
  next:  If a custom operator is named, correct its C; else report it with the model."""),
    (CacheError("other users may write to the cache folder", where="/c", kind=CacheError.UNSAFE),
     """\
OF421: other users may write to the cache folder
  where: /c
  next:  Remove the folder or `chmod 700` it, or set ONEFOLD_CACHE_DIR to another one."""),
    (DiskError("no space left while storing a program", where="/c"), """\
OF425: no space left while storing a program
  where: /c
  next:  Free some space (`onefold cache clear`), or set ONEFOLD_CACHE_DIR to another disk."""),
    (InputError("input 'x' has the shape 1x3", why="1x3x224x224 is expected"), """\
OF501: input 'x' has the shape 1x3
  why:   1x3x224x224 is expected
  next:  `onefold inspect MODEL` shows the names, shapes and types that are expected."""),
    (RunError("the program stopped with an error", where="layer 'gather'",
              why="index out of range"), """\
OF510: the program stopped with an error
  where: layer 'gather'
  why:   index out of range
  next:  Check the input values that reach the layer named in the message."""),
    (EmulatorError("'qemu-aarch64' is not installed", remedy="apt-get install qemu-user",
                   kind=EmulatorError.MISSING), """\
OF521: 'qemu-aarch64' is not installed
  next:  apt-get install qemu-user"""),
    (MemoryLimitError("a tensor of 2^40 bytes was asked for", where="layer 'pad'"), """\
OF601: a tensor of 2^40 bytes was asked for
  where: layer 'pad'
  next:  Check the shapes; raise ONEFOLD_MEMORY_LIMIT if the model is trusted."""),
    (OptionError("--threads is 0", why="it must be from 1 to 1024"), """\
OF610: --threads is 0
  why:   it must be from 1 to 1024
  next:  `onefold VERB --help` lists the options and their values."""),
    (MissingExtraError("onnxruntime", "check", "comparing with ONNX Runtime"), """\
OF611: the package 'onnxruntime' is not installed
  why:   comparing with ONNX Runtime needs it, and it is not installed by default
  next:  pip install 'onefold[check]'"""),
]


@pytest.mark.parametrize(("error", "text"), CASES, ids=lambda v: type(v).__name__)
def test_the_message(error: OnefoldError, text: str) -> None:
    assert str(error) == text


def test_every_class_has_a_message_tested() -> None:
    classes = {c for _, c in inspect.getmembers(errors, inspect.isclass)
               if issubclass(c, OnefoldError)}
    assert classes == {type(error) for error, _ in CASES}


@pytest.mark.parametrize("code", all_kinds())
def test_every_code_is_explained(code: str) -> None:
    kind, owner = all_kinds()[code]
    assert re.fullmatch(r"OF\d{3}", code) and explain(code.lower()) is kind
    assert kind in owner.kinds and owner.__doc__
    assert kind.title[0].islower() or kind.title.startswith("C")
    assert kind.meaning.endswith(".") and kind.causes and kind.remedy.endswith(".")
    assert code in kind.text() and all(cause in kind.text() for cause in kind.causes)
    assert owner.kinds[0].code.startswith("OF")


def test_every_kind_can_be_raised_by_its_class() -> None:
    for kind, owner in all_kinds().values():
        error = (MissingExtraError("a", "b", "c") if owner is MissingExtraError
                 else owner("what", kind=kind))
        assert error.code == kind.code and error.to_json()["title"] == kind.title


def test_a_code_is_used_once() -> None:
    with pytest.raises(AssertionError, match="OF101 is used twice"):
        type("Second", (OnefoldError,), {"kinds": (ModelFormatError.MALFORMED,)})


@pytest.mark.parametrize("code", ["OF999", "", "101", "\x1b[0m"])
def test_an_unknown_code(code: str) -> None:
    with pytest.raises(OptionError, match="there is no error code"):
        explain(code)


def test_a_misspelt_code_names_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"Did you mean .*'OF41\d'"):
        explain("OF41")


@pytest.mark.parametrize("error", [e for e, _ in CASES], ids=lambda e: type(e).__name__)
def test_json_and_pickle_keep_everything(error: OnefoldError) -> None:
    data = json.loads(json.dumps(error.to_json()))
    assert data["code"] == error.code and data["what"] == error.what
    assert data["error"] == type(error).__name__ and data["remedy"] == error.remedy
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error)
    assert copy.to_json() == error.to_json() and copy.args == error.args


def test_the_misses_are_data_too() -> None:
    error = UnsupportedModelError("one", misses=[("layer", "Op", "why")])
    assert error.to_json()["misses"] == [{"layer": "layer", "operator": "Op", "reason": "why"}]


def test_the_inner_place_wins() -> None:
    error = ShapeError("bad")
    assert error.at("layer 'a'") is error and error.at("net.onnx").where == "layer 'a'"


@pytest.mark.parametrize("name", [
    "a\nb", "a\rb", "\x1b]0;title\x07", "\x00", "\u202eevil", "\ud800", "\x9b2J", "a\u2028b",
    "\x7f"])
def test_hostile_names_do_not_reach_the_terminal(name: str) -> None:
    for error in (GraphError(name, where=name, why=name, detail=[name]),
                  UnsupportedModelError("x", misses=[(name, name, name)])):
        text = str(error)
        assert all(line.isprintable() for line in text.split("\n"))
        assert len(text.split("\n")) <= 5
        text.encode("utf-8")


def test_long_texts_are_cut_but_kept_in_json() -> None:
    name = "n" * 100_000
    error = GraphError(name, where=name, detail=[name] * 100)
    assert len(str(error)) < 10_000 and "and 80 more" in str(error)
    assert error.to_json()["what"] == name and len(error.to_json()["detail"]) == 100
    assert "[99500 more]" in printable(name)


def test_ordinary_text_in_any_language_stays() -> None:
    assert printable("Schicht 'größe' 層 №5 \\n") == "Schicht 'größe' 層 №5 \\n"


# --- knobs ---------------------------------------------------------------------------------------


def test_knobs_are_read_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert knobs.REGISTRY["ONEFOLD_CACHE_LIMIT"] is knobs.CACHE_LIMIT
    monkeypatch.setenv("ONEFOLD_CACHE_LIMIT", "2GB")
    assert knobs.CACHE_LIMIT.get() == 2 * 10**9
    monkeypatch.delenv("ONEFOLD_CACHE_LIMIT")
    assert knobs.CACHE_LIMIT.get() == 4 * 10**9
    monkeypatch.setenv("ONEFOLD_JOBS", "3")
    assert knobs.jobs() == 3
    monkeypatch.setenv("ONEFOLD_JOBS", "")
    assert knobs.jobs() >= 1


@pytest.mark.parametrize(("name", "value", "why"), [
    ("ONEFOLD_DEBUG", "7", "it must be from 0 to 6"),
    ("ONEFOLD_DEBUG", "much", "it must be a whole number"),
    ("ONEFOLD_CACHE_LIMIT", "-1", "it must be a number of bytes"),
    ("ONEFOLD_CACHE_LIMIT", "3 apples", "it must be a number of bytes"),
    ("ONEFOLD_CACHE_LIMIT", "G", "it must be a number of bytes"),
    ("ONEFOLD_JOBS", "0", "it must be from 1 to 1024")])
def test_a_wrong_knob_is_named(
        monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(OptionError) as caught:
        knobs.REGISTRY[name].get()
    assert f"{name} has the value '{value}'" in str(caught.value) and why in str(caught.value)
    assert f"Unset {name}" in str(caught.value)


def test_every_knob_has_one_line_of_help() -> None:
    for name, knob in knobs.REGISTRY.items():
        assert name.startswith("ONEFOLD_") and knob.name == name
        assert knob.help and "\n" not in knob.help


# --- events --------------------------------------------------------------------------------------


def test_events_reach_all_listeners_in_order_until_they_leave() -> None:
    events.emit("nobody.hears")
    assert not events.listening()
    with events.collected() as outer:
        events.emit("a", value=1)
        with events.collected() as inner:
            assert events.listening()
            events.emit("b")
        events.emit("c")
    events.emit("d")
    assert [e.kind for e in outer] == ["a", "b", "c"] and [e.kind for e in inner] == ["b"]
    assert outer[0].facts == {"value": 1} and outer[0].time <= outer[2].time


def test_progress_tells_begin_steps_and_end() -> None:
    with events.collected() as seen, pytest.raises(RunError), events.Progress("work", 2) as task:
        task.step("first")
        raise RunError("stop")
    assert [e.kind for e in seen] == ["progress.begin", "progress.step", "progress.end"]
    assert seen[1].facts == {"task": "work", "done": 1, "total": 2, "name": "first"}
    assert seen[2].facts["ok"] is False and seen[2].facts["seconds"] >= 0


def test_listeners_may_come_and_go_in_threads() -> None:
    def work() -> None:
        for _ in range(200):
            with events.collected():
                events.emit("x")
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not events.listening()
