"""Programs for several threads in this process: who helps whom, errors, forks, idle time, ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onefold
from onefold.errors import OptionError, RunError
from onefold.run import team as running
from tests.e2e.made import DIGITS, branch, powers, save
from tests.kernel.test_threads import helped

pytestmark = [pytest.mark.toolchain, pytest.mark.usefixtures("split_all")]


def digits(threads: int) -> onefold.Program:
    return onefold.load(DIGITS).compile(threads=threads, cache=False)


def image(seed: int) -> Any:
    return np.random.default_rng(seed).random((1, 1, 8, 8), np.float32)


def ready(program: onefold.Program, *inputs: Any) -> onefold.Program:
    """The program after its helpers have come."""
    program(*inputs)
    ((loaded, _, _),) = program._all()[-1].parts
    helped(loaded.library)
    return program


def same(a: Any, b: Any) -> None:
    assert list(a) == list(b)
    for name in a:
        assert np.asarray(a[name]).tobytes() == np.asarray(b[name]).tobytes(), name


def test_the_report_tells_the_threads() -> None:
    program = digits(3)
    program(image(0))
    assert program.report["threads"] == 3
    assert {s["threads"] for s in program.report["steps"]} <= {1, 3}
    one = digits(1)
    one(image(0))
    assert one.report["threads"] == 1


def test_threads_that_would_not_pay_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from onefold.codegen import team

    monkeypatch.setattr(team, "WORTH_ALL", 1e12)
    program = digits(2)
    same(program(image(1)), digits(1)(image(1)))
    assert program.report["threads"] == 1


@pytest.mark.parametrize("threads", [0, -1, 257, 1.5])
def test_numbers_of_threads_that_are_none(threads: Any) -> None:
    with pytest.raises(OptionError, match="out of range"):
        onefold.load(DIGITS).compile(threads=threads)


def test_more_threads_than_cpus_are_told_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEFOLD_THREADS", "2")
    with pytest.warns(UserWarning, match="3 threads were asked for; calls in this process use 2"):
        program = digits(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        digits(2)
    before = threading.active_count()
    same(program(image(2)), digits(1)(image(2)))
    assert threading.active_count() == before + 1


def test_many_callers_of_one_program() -> None:
    program = ready(digits(3), image(0))
    want = [digits(1)(image(k)) for k in range(4)]

    def call(k: int) -> None:
        for _ in range(50):
            same(program(image(k)), want[k])

    with ThreadPoolExecutor(4) as callers:
        for done in [callers.submit(call, k) for k in range(4)]:
            done.result(120)


def test_two_programs_share_the_helpers() -> None:
    before = threading.active_count()
    two, four = ready(digits(2), image(0)), ready(digits(4), image(0))
    assert threading.active_count() == before + 3
    want = digits(1)(image(5))
    for _ in range(30):
        same(two(image(5)), want)
        same(four(image(5)), want)


def test_programs_come_and_go() -> None:
    model, before = onefold.load(DIGITS), threading.active_count()
    want = model.compile()(image(6))
    for _ in range(4):
        program = model.compile(threads=2, cache=False)
        for _ in range(3):
            same(program(image(6)), want)
        del program
    assert threading.active_count() == before + 1


def asleep() -> bool:
    """Whether all helpers wait until the system wakes them."""
    helpers = [t for t in threading.enumerate() if t.name.startswith("onefold-")]
    assert len(helpers) >= 3
    facts = [Path(f"/proc/self/task/{t.native_id}/stat").read_text() for t in helpers]
    return all(text.rpartition(")")[2].split()[0] == "S" for text in facts)


def test_helpers_without_work_sleep() -> None:
    program = ready(digits(4), image(0))
    program(image(0))
    end = time.monotonic() + 30
    while not asleep():
        assert time.monotonic() < end, "helpers do not fall asleep"
        time.sleep(0.01)
    for _ in range(20):
        time.sleep(0.01)
        assert asleep()


def lookup(folder: Path) -> Path:
    """Rows of a table by indices that may be wrong, then a product and a sum over it."""
    from onnx import TensorProto as T
    from onnx import helper as h

    table = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)
    nodes = [
        h.make_node("Gather", ["table", "at"], ["rows"], name="find"),
        h.make_node("MatMul", ["rows", "square"], ["y"], name="turn"),
    ]
    square = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)
    return save(folder, "lookup", nodes, [("at", T.INT64, [40])], [("y", T.FLOAT, [40, 64])],
                [("table", table), ("square", square)])  # fmt: skip


@pytest.mark.parametrize("where", [0, 20, 39])
def test_an_error_stops_all_threads(where: int, tmp_path: Path) -> None:
    model = onefold.load(lookup(tmp_path))
    program = ready(model.compile(threads=3, cache=False), np.zeros(40, np.int64))
    good = np.arange(40)
    bad = good.copy()
    bad[where] = 50
    want = model.compile()(good)
    for _ in range(20):
        with pytest.raises(RunError, match="find"):
            program(bad)
        same(program(good), want)


def test_branches_and_loops(tmp_path: Path) -> None:
    model = onefold.load(branch(tmp_path))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    program = ready(model.compile(threads=3, cache=False), [x, np.array(True)])
    one = model.compile()
    for flag in (True, False) * 10:
        same(program([x, np.array(flag)]), one([x, np.array(flag)]))
    model = onefold.load(powers(tmp_path))
    program, one = model.compile(threads=2, cache=False), model.compile()
    ready(program, np.ones(4, np.float32))
    for first in (1, 2, 5, 100):
        x = np.array([first, 2, 3, 4], np.float32)
        same(program(x), one(x))


def found(folder: Path) -> Path:
    """As many rows as an input has elements that are not zero, used by what follows."""
    from onnx import TensorProto as T
    from onnx import helper as h

    nodes = [
        h.make_node("NonZero", ["x"], ["at"], name="which"),
        h.make_node("Cast", ["at"], ["f"], to=T.FLOAT),
        h.make_node("Mul", ["f", "two"], ["y"]),
        h.make_node("MatMul", ["x", "square"], ["z"]),
    ]
    square = np.random.default_rng(1).standard_normal((48, 48)).astype(np.float32)
    return save(folder, "found", nodes, [("x", T.FLOAT, [30, 48])],
                [("y", T.FLOAT, [2, "n"]), ("z", T.FLOAT, [30, 48])],
                [("two", np.float32(2)), ("square", square)])  # fmt: skip


def test_sizes_that_are_found_out(tmp_path: Path) -> None:
    model = onefold.load(found(tmp_path))
    program, one = model.compile(threads=3, cache=False), model.compile()
    rng = np.random.default_rng(3)
    ready(program, np.zeros((30, 48), np.float32))
    for share in (0.0, 0.1, 0.9, 1.0, 0.5):
        x = (rng.random((30, 48)) < share).astype(np.float32)
        same(program(x), one(x))


SCRIPT = """\
import os, signal, sys, threading
import numpy as np
import onefold
from onefold.codegen import team as plan
from onefold.run import team
plan.WORTH = plan.WORTH_ALL = plan.GAIN = 0
program = onefold.load(sys.argv[1]).compile(threads=2, cache=False)
x = np.ones((1, 1, 8, 8), np.float32)
want = program(x)["probabilities"].tobytes()
"""

FORK = SCRIPT + """
assert team.TEAM.threads == 2
for _ in range(3):
    child = os.fork()
    if child == 0:
        ok = team.TEAM.threads == 1
        for _ in range(20):
            ok = ok and program(x)["probabilities"].tobytes() == want
        os._exit(0 if ok and team.TEAM.threads == 2 else 1)
    for _ in range(20):
        assert program(x)["probabilities"].tobytes() == want
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""

LOOP = SCRIPT + """
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
print("begun", flush=True)
while True:
    program(x)
"""


def script(text: str, folder: Path) -> subprocess.Popen[bytes]:
    path = folder / "script.py"
    path.write_text(text)
    source = Path(onefold.__file__).parent.parent
    env = {**os.environ, "PYTHONPATH": str(source), "ONEFOLD_THREADS": "2"}
    return subprocess.Popen([sys.executable, str(path), str(DIGITS)], env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


@pytest.mark.parametrize("text", [FORK, SCRIPT], ids=["fork", "end"])
def test_processes_that_fork_and_end(text: str, tmp_path: Path) -> None:
    done = script(text, tmp_path)
    _, err = done.communicate(timeout=120)
    assert done.returncode == 0, err.decode()


def test_an_interrupt_ends_the_process(tmp_path: Path) -> None:
    process = script(LOOP, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert b"KeyboardInterrupt" in err


def test_a_forked_child_has_an_arena_of_its_own() -> None:
    from onefold.run.library import Block

    block = Block(64)
    block.fill(b"parent")
    child = os.fork()
    if child == 0:
        try:
            block.fill(b"child!")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bytes(block._map[:6]) == b"parent"


def test_the_function_without_a_team() -> None:
    """PREFIX_run of a program for several threads runs on the calling one."""
    import ctypes

    program = digits(3)
    x = image(7)
    want = program(x)
    ((loaded, _, _),) = program._all()[-1].parts
    run = ctypes.CDLL(str(loaded.library.path))[f"{loaded.library.prefix}_run"]
    outs = [np.empty(p.ints, p.dtype) for p in loaded.outputs]
    ins = (ctypes.c_void_p * 1)(x.ctypes.data)
    to = (ctypes.c_void_p * len(outs))(*(o.ctypes.data for o in outs))
    arena = loaded.arenas.take()
    code = run(ctypes.c_void_p(arena.address), ctypes.c_void_p(loaded.weights.address), None,
               ins, to, (ctypes.c_int64 * 1)())  # fmt: skip
    assert code == 0
    for o, w in zip(outs, want.values(), strict=True):
        assert o.tobytes() == w.tobytes()
    assert running.TEAM.threads == 3


def test_a_system_without_threads_computes_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    program = digits(3)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    same(program(image(8)), digits(1)(image(8)))


CREW = """\
#include "of_team.h"
extern int usleep(unsigned);
struct late { int32_t caller, helper, parts; };
static int32_t job(void *call, struct of_part me) {
  struct late *const c = call;
  if (me.part == 0) c->parts = (int32_t)me.parts;
  const int32_t late = me.part || me.parts == 1 ? c->helper : c->caller;
  if (late) usleep((unsigned)late);
  return of_wait(me);
}
OF_PUBLIC int32_t PREFIX_run(void) { return 0; }
OF_PUBLIC int32_t PREFIX_turn(void *t, struct late *c) { return of_run(t, 2, job, c); }
OF_PUBLIC void PREFIX_work(void *t) { of_work(t, 1); }
OF_PUBLIC int32_t PREFIX_helpers(void *t) { return of_helpers(t, 1); }
OF_PUBLIC void PREFIX_end(void *t) { of_end(t); }
"""


def turns(caller: int, helper: int, count: int, folder: Path) -> list[int]:
    """On how many threads each of some calls ran. caller, helper: microseconds that they take."""
    import ctypes

    from onefold.codegen.team import BYTES
    from onefold.run import toolchain
    from onefold.run.artifact import KERNELS
    from onefold.run.library import Block
    from onefold.target import find

    host = find("host")
    objects = toolchain.compile_units([("crew.c", CREW.replace("PREFIX", "crew"))], host, folder,
                                      include_dirs=[KERNELS], shared=True)  # fmt: skip
    toolchain.link_shared(objects, folder / "crew.so", host, allow=frozenset({"usleep"}))
    crew, memory = ctypes.CDLL(str(folder / "crew.so")), Block(BYTES)
    team = ctypes.c_void_p(memory.address)
    thread = threading.Thread(target=crew.crew_work, args=(team,))
    thread.start()
    while not crew.crew_helpers(team):
        time.sleep(0.001)
    call, found = (ctypes.c_int32 * 3)(caller, helper, 0), []
    for _ in range(count):
        assert crew.crew_turn(team, call) == 0
        found.append(call[2])
    crew.crew_end(team)
    thread.join()
    return found


def test_calls_go_on_without_helpers_that_come_late(tmp_path: Path) -> None:
    """Once may be chance: they do after eight calls, and try them again from time to time: four
    calls, then a pause, each longer than the last."""
    found = turns(0, 3000, 90, tmp_path)
    assert found[:9] == [2] * 8 + [1]
    assert found[9:].count(2) >= 4
    alone = [a for a in "".join(map(str, found)).split("2222") if a]
    assert len(alone) >= 2 and len(alone[0]) < len(alone[1])


def test_helpers_that_are_in_time_stay(tmp_path: Path) -> None:
    assert set(turns(3000, 0, 40, tmp_path)) == {2}
