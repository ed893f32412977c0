"""Kernels on CPUs that have no more than their target says: a CPU that lacks an instruction stops
there. QEMU plays the CPU."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onefold.dev.cases import compare
from onefold.run import emulator
from onefold.ship.bundle import build_graph
from onefold.target import Emulator, find
from tests.kernel.test_threads import MORE

pytestmark = [pytest.mark.toolchain, pytest.mark.emulator]

CPUS = (
    ("x86-64-v2", "qemu-x86_64", "Nehalem"), ("x86-64-v3", "qemu-x86_64", "Haswell"),
    ("arm64", "qemu-aarch64", "cortex-a53"), ("arm64", "qemu-aarch64", "cortex-a72"),
    ("arm64+dotprod", "qemu-aarch64", "cortex-a76"), ("arm64+dotprod", "qemu-aarch64", "max"),
    ("arm64+dotprod+i8mm", "qemu-aarch64", "max"),
)  # fmt: skip
ALWAYS = {("conv_direct", "cortex-a53"), ("q_conv", "cortex-a76"), ("conv_winograd", "Haswell"),
          ("conv_int", "Nehalem")}  # fmt: skip


def cells() -> Iterator[Any]:
    for name in MORE:
        for cpu in CPUS:
            marks = () if (name, cpu[2]) in ALWAYS else (pytest.mark.slow,)
            yield pytest.param(name, *cpu, marks=marks, id=f"{name}-{cpu[0]}-{cpu[2]}")


@pytest.mark.parametrize(("name", "target", "qemu", "cpu"), list(cells()))
def test_family_on_cpu(
    name: str, target: str, qemu: str, cpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which(qemu) is None:
        pytest.skip(f"{qemu} is not installed (apt-get install qemu-user)")
    command = (qemu, "-cpu", cpu, "{program}", "{arguments}")
    t = replace(find(target), emulator=Emulator("qemu-user", command))
    monkeypatch.setattr(emulator, "runs_here", lambda _: False)
    net = MORE[name]()
    want = net.expected()
    bundle = build_graph(net.graph, t, tmp_path, "net", measure=False)
    for w, y, v in zip(want, bundle.run(net.feeds), net.graph.outputs, strict=True):
        exact = v.producer is not None and v.producer.op.exact
        compare(w, y, f"{v.producer!r} on {cpu}", 0 if exact else 1e-5)
