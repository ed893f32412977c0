"""What a machine is, as facts: frozen dataclasses without behaviour of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

MemoryKind = Literal["flash", "ram"]
Fpu = Literal["none", "single", "double"]


@dataclass(frozen=True, slots=True)
class Feature:
    """One optional part of an instruction set, as `isa/ARCH.toml` describes it."""

    name: str
    compiler: str
    """The compiler's words for it, joined by `+`; empty if the CPU's own name includes it."""
    probe: str = ""
    """The word in /proc/cpuinfo that shows it; empty where there is no such file."""
    implies: tuple[str, ...] = ()
    vector_bytes: int = 0
    detect: str = ""
    """Where a program finds it at run time, as arguments of `of_cpu_has` in of_cpu.h."""


@dataclass(frozen=True, slots=True)
class Isa:
    """An architecture: its triple for the compiler and its features by name."""

    arch: str
    triple: str
    pointer_bytes: int
    features: dict[str, Feature]

    def closure(self, names: frozenset[str]) -> frozenset[str]:
        """`names` with everything they imply."""
        found: set[str] = set()
        todo = list(names)
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += self.features[name].implies
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class Memory:
    """One memory of a device: base address and size in bytes."""

    name: str
    kind: MemoryKind
    base: int
    size: int


@dataclass(frozen=True, slots=True)
class Emulator:
    """How to run a program for the target on another machine.

    `command` has the placeholders `{program}`, `{arguments}` (one word per argument) and
    `{semihosting}` (arguments in the form of QEMU's `-semihosting-config`).
    """

    package: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """One machine that programs are made for."""

    name: str
    summary: str
    arch: str
    triple: str
    cpu: str
    """CPU and features in the compiler's own spelling; goes to compiling only."""
    features: frozenset[str]
    """Everything the kernels may use, closed under implication."""
    vector_bytes: int
    """Width of the widest vector register; 0 where there is none."""
    pointer_bytes: int
    os: Literal["linux", "none"]
    fpu: Fpu
    cores: int = 1
    caches: tuple[int, ...] = ()
    """Bytes of the data caches, level 1 first; empty where unknown."""
    memories: tuple[Memory, ...] = ()
    emulator: Emulator | None = None
    is_host: bool = False
    """Made by looking at this machine."""

    @property
    def has_heap(self) -> bool:
        return self.os != "none"

    @property
    def cpu_flags(self) -> tuple[str, ...]:
        """Flags for compiling (never for linking, see `run.toolchain`)."""
        flags = (f"-mcpu={self.cpu}",)
        # From AVX-512 on the compiler would split 64-byte vectors in halves by itself.
        return (*flags, "-mprefer-vector-width=512") if "avx512f" in self.features else flags

    def memory(self, name: str) -> Memory:
        """The memory of that name.  Raises `KeyError` when there is none."""
        return {m.name: m for m in self.memories}[name]

    def facts(self) -> dict[str, Any]:
        """What a compiled artifact records about the machine it is for."""
        return {"target": self.name, "arch": self.arch, "triple": self.triple, "cpu": self.cpu,
                "features": sorted(self.features), "os": self.os}


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What was read from the running machine."""

    arch: str
    cpu: str
    features: frozenset[str]
    cores: int
    caches: tuple[int, ...] = field(default=())
