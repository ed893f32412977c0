"""Where threads need not meet between steps: programs whose threads run one after the other.

From one meeting to the next, one thread after the other runs alone, in a given order, while the
others wait. If one thread reads what another writes without a meeting in between, or writes what
another has yet to read, then one of the orders gives a wrong result, every time.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from onefold import plan
from onefold.codegen import model
from onefold.codegen.model import emit
from onefold.codegen.team import Reach, Shares, _reach
from onefold.ir import dims
from onefold.ir.dims import Dim
from onefold.ir.scalar import counter, index_of
from onefold.ops.activation import Relu
from onefold.ops.attention import Attention
from onefold.ops.conv import Conv
from onefold.ops.elementwise import Add, Mul
from onefold.ops.matmul import MatMul
from onefold.ops.movement import Transpose
from onefold.ops.normalize import LayerNormalization
from onefold.ops.pool import MaxPool
from onefold.ops.shape import Reshape
from onefold.options import Options
from onefold.run import building
from onefold.target import find
from tests.kernel.test_families import Array, Net
from tests.kernel.test_threads import MORE, QUANTIZED_FIRST, results

pytestmark = [pytest.mark.toolchain, pytest.mark.usefixtures("split_all")]

ROWS = 24  # shared evenly by 2, 3 and 4 threads

BATON = """
// crew->now: 1 + the rank of the thread whose turn it is; 0: nobody has begun
static uint32_t of_rank(struct of_part me) { return @DOWN@ ? me.parts - 1 - me.part : me.part; }
static void of_give(struct of_part me, uint32_t to) {
  __atomic_store_n(&me.crew->now, to, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&me.crew->queue, __ATOMIC_SEQ_CST)) of_futex(&me.crew->now, 1, INT32_MAX);
}
static void of_turn(struct of_part me) {
  for (;;) {
    const uint32_t now = __atomic_load_n(&me.crew->now, __ATOMIC_SEQ_CST);
    if (now == 1 + of_rank(me)) return;
    if (now == 0 && of_rank(me) == 0) of_give(me, 1);
    else of_wait_while(&me.crew->now, now, &me.crew->queue);
  }
}
OF_COLD int32_t of_meet(struct of_part me) {
  of_give(me, 1 + (of_rank(me) + 1) % me.parts);
  of_turn(me);
  return __atomic_load_n(&me.crew->stopped, __ATOMIC_RELAXED);
}
"""


def in_turns(monkeypatch: pytest.MonkeyPatch, folder: Path, down: bool) -> None:
    """Compile with a team whose threads run one after the other."""
    kernels = folder / f"kernels{int(down)}"
    shutil.copytree(building.KERNELS, kernels)
    text = (kernels / "of_team.h").read_text()
    text = text.replace("int32_t of_meet(", "int32_t of_met(", 1)
    text = text.replace(
        "AI int32_t of_wait(", BATON.replace("@DOWN@", str(int(down))) + "AI int32_t of_wait(", 1
    )
    leave = "of_give(me, of_rank(me) == me.parts - 1 ? 0 : 2 + of_rank(me));"
    fields = "int32_t stopped, result;"
    text = text.replace(fields, f"uint32_t now, queue; {fields}", 1)
    helper = r"t->job\(t->call, me\);\s*of_meet\(me\);"
    alone = f"of_turn(me); t->job(t->call, me); of_meet(me); {leave}"
    text, n = re.subn(helper, alone, text)
    caller = r"(const int32_t code = job\(call, me\);\s*const int32_t stopped = of_meet\(me\);)"
    text, m = re.subn(caller, rf"of_turn(me); \1 {leave}", text)
    assert n == m == 1
    (kernels / "of_team.h").write_text(text)
    monkeypatch.setattr(building, "KERNELS", kernels)


def transformer_net() -> Net:
    """Rows that go through products, norms and residual sums, and meet in attention."""
    net = Net(31)
    x = net.op(LayerNormalization(), net.input(ROWS, 32), net.const(32), net.const(32))
    for _ in range(2):
        heads = []
        for _ in range(3):
            y = net.op(Add(), net.op(MatMul(), x, net.const(32, 32)), net.const(32))
            y = net.op(Reshape(shape=(1, ROWS, 4, 8)), y)
            heads.append(net.op(Transpose(perm=(0, 2, 1, 3)), y))
        y = net.op(Transpose(perm=(0, 2, 1, 3)), net.op(Attention(scale=0.3), *heads))
        y = net.op(Reshape(shape=(ROWS, 32)), y)
        x = net.op(Add(), x, net.op(MatMul(), y, net.const(32, 32)))
        x = net.op(LayerNormalization(), x, net.const(32), net.const(32))
        y = net.op(Relu(), net.op(Add(), net.op(MatMul(), x, net.const(32, 48)), net.const(48)))
        x = net.op(Add(), x, net.op(MatMul(), y, net.const(48, 32)))
        x = net.op(LayerNormalization(), x, net.const(32), net.const(32))
    net.output(x)
    net.output(net.op(Mul(), x, net.const(32)))
    return net


def bottleneck_net() -> Net:
    """Convolutions of single pixels, between others that see neighbours."""
    net = Net(32)
    x = net.input(1, 16, ROWS, 12)
    for stride in (1, 2, 1):
        y = net.op(Relu(), net.op(Conv(), x, net.const(16, 16, 1, 1), net.const(16)))
        y = net.op(Conv(strides=(stride, stride), pads=(1, 1, 1, 1)), y, net.const(16, 16, 3, 3))
        y = net.op(Conv(), net.op(Relu(), y), net.const(16, 16, 1, 1))
        if stride == 1:
            y = net.op(Add(), x, y)
        x = net.op(Relu(), y)
        net.output(net.op(MaxPool(kernel_shape=(2, 2)), x))
    net.output(x)
    return net


CHAINS: dict[str, Callable[[], Net]] = {
    "transformer": transformer_net, "bottleneck": bottleneck_net,
}  # fmt: skip
ALL = {**CHAINS, **MORE}


def wrong(name: str, threads: int, folder: Path, want: list[Array]) -> list[int]:
    """The outputs that are not those of one thread."""
    least = 0.4 if name in QUANTIZED_FIRST else 0.7
    got, *_ = results(ALL[name](), "host", threads, folder, least=least)
    return [k for k, (w, y) in enumerate(zip(want, got, strict=True)) if w.tobytes() != y.tobytes()]


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in CHAINS else pytest.mark.slow) for n in ALL]
)
def test_threads_one_after_the_other_compute_the_same(
    name: str, down: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want, *_ = results(ALL[name](), "host", 1, tmp_path / "one")
    in_turns(monkeypatch, tmp_path, down)
    for n in (2, 3, 4):
        assert not wrong(name, n, tmp_path / str(n), want), f"{n} threads"


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("name", CHAINS)
def test_without_meetings_the_results_are_wrong(
    name: str, down: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is what the test before sees."""
    want, *_ = results(ALL[name](), "host", 1, tmp_path / "one")
    monkeypatch.setattr(model, "must_meet", lambda first, then, threads: False)
    in_turns(monkeypatch, tmp_path, down)
    assert wrong(name, 2, tmp_path / "two", want)


@pytest.mark.parametrize(("name", "most"), [("transformer", 0.5), ("bottleneck", 0.85)])
def test_threads_meet_less_often_than_there_are_steps(name: str, most: float) -> None:
    program = plan.plan(ALL[name]().graph, find("host"), Options(threads=2))
    text = emit(program, "net").files["net.c"]
    body = text[text.index("net_steps("):]
    assert 0 < body.count("of_wait(me)") <= most * len(list(program.flat()))


def test_places_of_a_unit() -> None:
    unit = counter(8, "i")
    row, inner, block = index_of(unit), index_of(counter(10, "i")), index_of(counter(4, "i"))

    def place(*terms: Dim) -> Dim:
        total: Dim = 0
        for t in terms:
            total = dims.add(total, t)
        return total

    each = dims.mul(row, 10)
    assert _reach([place(each, inner)], unit, 8) == Reach(10)
    assert _reach([place(each, 3), place(each, inner)], unit, 8) == Reach(10)
    assert _reach([place(each, inner, dims.mul(block, 80))], unit, 8) == Reach(10, 80)
    assert _reach([place(each, inner, dims.mul(block, 80), 160)], unit, 8) == Reach(10, 80)
    assert _reach([place(each, inner, 1)], unit, 8) is None  # reaches into the next unit
    assert _reach([place(each, inner, dims.mul(block, 40))], unit, 8) is None  # blocks overlap
    assert _reach([place(each, inner), place(inner)], unit, 8) is None  # read by everyone
    assert _reach([place(inner)], unit, 8) is None


def test_cuts_are_those_of_the_c_code() -> None:
    assert Shares(10, 4, ()).cuts(2) == [0, 4, 10]
    assert Shares(24, 1, ()).cuts(3) == [0, 8, 16, 24]
    assert Shares(3, 1, ()).cuts(4) == [0, 0, 1, 2, 3]
