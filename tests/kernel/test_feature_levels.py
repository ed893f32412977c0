"""Kernels on CPUs that have no more than their target says: a CPU that lacks an instruction stops
there. QEMU plays the CPU.

Every kernel family's net and every operator's cases run on each of them; `make test-slow` for all,
some always. AVX-512 is not QEMU's: its levels run on machines that have it (test_families.py).
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onefold.dev.cases import all_cases, check_together, compare
from onefold.ir.graph import Graph
from onefold.ops.base import Case, Op
from onefold.run import emulator
from onefold.ship.bundle import build_graph
from onefold.target import Emulator, find
from tests.kernel.test_families import NETS, Array, Net
from tests.kernel.test_threads import MORE

pytestmark = [pytest.mark.toolchain, pytest.mark.emulator]

CPUS = (
    ("x86-64-v2", "qemu-x86_64", "Nehalem"), ("x86-64-v3", "qemu-x86_64", "Haswell"),
    ("arm64", "qemu-aarch64", "cortex-a53"), ("arm64", "qemu-aarch64", "cortex-a72"),
    ("arm64+dotprod", "qemu-aarch64", "cortex-a76"), ("arm64+dotprod", "qemu-aarch64", "max"),
    ("arm64+dotprod+fp16", "qemu-aarch64", "neoverse-n1"),
    ("arm64+dotprod+i8mm", "qemu-aarch64", "max"),
    ("arm64+fp16fml+bf16+i8mm", "qemu-aarch64", "max"),
    ("riscv64", "qemu-riscv64", "rv64"),
)  # fmt: skip
ALWAYS = {("conv_direct", "cortex-a53"), ("q_conv", "cortex-a76"), ("conv_winograd", "Haswell"),
          ("conv_int", "Nehalem"), ("conv_winograd4", "cortex-a53"),
          ("resize", "rv64")}  # fmt: skip

FAMILIES: dict[str, Callable[[], Net]] = {**NETS, **MORE}
OPERATORS: dict[str, list[tuple[Op, Case]]] = defaultdict(list)
"""Cases by the file that their operators are in."""
for _op, _case in all_cases():
    OPERATORS[type(_op).__module__.rpartition(".")[2]].append((_op, _case))


def cells(names: Sequence[str]) -> Iterator[Any]:
    for name in names:
        for cpu in CPUS:
            marks = () if (name, cpu[2]) in ALWAYS else (pytest.mark.slow,)
            yield pytest.param(name, *cpu, marks=marks, id=f"{name}-{cpu[0]}-{cpu[2]}")


Runner = Callable[[Graph, Sequence[Array]], list[Array]]


@pytest.fixture
def run(
    target: str, qemu: str, cpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Runner:
    """Runs a graph on a CPU."""
    if shutil.which(qemu) is None:
        pytest.skip(f"{qemu} is not installed (apt-get install qemu-user)")
    command = (qemu, "-cpu", cpu, "{program}", "{arguments}")
    t = replace(find(target), emulator=Emulator("qemu-user", command))
    monkeypatch.setattr(emulator, "runs_here", lambda _: False)

    def on_cpu(graph: Graph, feeds: Sequence[Array]) -> list[Array]:
        return list(build_graph(graph, t, tmp_path, "net", measure=False).run(list(feeds)))

    return on_cpu


@pytest.mark.parametrize(("name", "target", "qemu", "cpu"), list(cells(list(FAMILIES))))
def test_family_on_cpu(name: str, cpu: str, run: Runner) -> None:
    net = FAMILIES[name]()
    want = net.expected()
    for w, y, v in zip(want, run(net.graph, net.feeds), net.graph.outputs, strict=True):
        exact = v.producer is not None and v.producer.op.exact
        compare(w, y, f"{v.producer!r} on {cpu}", 0 if exact else 1e-5)


@pytest.mark.parametrize(("name", "target", "qemu", "cpu"), list(cells(sorted(OPERATORS))))
def test_operators_on_cpu(name: str, run: Runner) -> None:
    check_together(OPERATORS[name], run=run)


@pytest.mark.slow
def test_page_is_what_is_planned() -> None:
    from tests.kernel.kernels_by_level import PAGE, page

    assert PAGE.read_text("utf-8") == page(), "run: python -m tests.kernel.kernels_by_level"
