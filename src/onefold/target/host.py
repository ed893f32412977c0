"""The running machine as a target: read from /proc and /sys, no instruction executed; the system is
asked for what it only grants on request."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

from onefold.errors import TargetError
from onefold.target.model import HostFacts, Isa

_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}

# The psABI's levels: each needs all flags of its row and of the rows before.
_X86_LEVELS = (
    ("x86_64_v2", "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"),
    ("x86_64_v3", "abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"),
    ("x86_64_v4", "avx512f avx512bw avx512cd avx512dq avx512vl"),
)
_ARM64_BASE = "generic"


def host_arch() -> str:
    """The running machine's architecture.  Raises `TargetError` where nothing can be loaded."""
    arch = _MACHINES.get(os.uname().machine.lower()) if sys.platform == "linux" else None
    if arch is None:
        raise TargetError(
            f"this machine ({sys.platform}, {os.uname().machine}) cannot be the host target",
            why="compiled programs are loaded as ELF shared objects on x86-64 and arm64 Linux",
            remedy="Build for another target, or run Onefold on Linux.",
            kind=TargetError.CANNOT)
    return arch


def cpu_words(cpuinfo: str) -> frozenset[str]:
    """The feature words that *every* core lists (big and little cores may differ)."""
    rows = [frozenset(line.partition(":")[2].split()) for line in cpuinfo.splitlines()
            if line.partition(":")[0].strip() in ("flags", "Features")]
    return frozenset.intersection(*rows) if rows else frozenset()


def describe(isa: Isa, words: frozenset[str]) -> tuple[str, frozenset[str]]:
    """The compiler's CPU name and the feature names for a machine showing these words."""
    found = frozenset(f.name for f in isa.features.values() if f.probe in words)
    # A feature whose prerequisites are hidden (by a hypervisor, say) cannot be used.
    usable = frozenset(n for n in found if isa.closure(frozenset({n})) <= found)
    base = _x86_level(words) if isa.arch == "x86_64" else _ARM64_BASE
    spellings = (isa.features[n].compiler for n in sorted(usable))
    parts = [p for s in spellings for p in s.split("+") if p]
    return "+".join(dict.fromkeys([base, *parts])), usable  # one may come with several features


def _x86_level(words: frozenset[str]) -> str:
    level = "x86_64"
    for name, needed in _X86_LEVELS:
        if not words.issuperset(needed.split()):
            break
        level = name
    return level


@cache
def host_facts(isa: Isa | None = None) -> HostFacts:
    """Architecture, CPU name, features, cores and caches of the running machine."""
    from onefold.target import load_isa
    isa = isa or load_isa(host_arch())
    words = cpu_words(_read("/proc/cpuinfo"))
    if "amx_tile" in words and not _allows_tiles():
        words = frozenset(w for w in words if not w.startswith("amx"))
    cpu, features = describe(isa, words)
    if isa.arch == "aarch64":
        features |= {"neon"}  # part of every ARMv8-A Linux; /proc may be hidden in a sandbox
    return HostFacts(isa.arch, cpu, features, len(os.sched_getaffinity(0)), _caches())


@cache
def cpu_model() -> str:
    """What the CPU calls itself; its architecture where it does not say."""
    facts: dict[str, str] = {}
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), " ".join(value.split()))
    part = " ".join(f"{k} {facts[k]}" for k in ("CPU implementer", "CPU part") if facts.get(k))
    return facts.get("model name") or facts.get("Model") or part or os.uname().machine


def _allows_tiles() -> bool:
    """Whether this process may use the matrix unit of x86: Linux grants it once it is asked."""
    arch_prctl, request, tiles = 158, 0x1023, 18
    try:
        return bool(ctypes.CDLL(None).syscall(arch_prctl, request, tiles) == 0)
    except (OSError, AttributeError):
        return False


def _caches() -> tuple[int, ...]:
    """Bytes of the data and unified caches of the first core, level 1 first."""
    found: dict[int, int] = {}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        size, level = _read(folder / "size").strip(), _read(folder / "level").strip()
        if _read(folder / "type").strip() != "Instruction" and size.endswith("K"):
            found[int(level)] = int(size[:-1]) * 1024
    return tuple(found[level] for level in sorted(found))


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""
