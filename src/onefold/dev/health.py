"""What is installed, and what each missing part would give."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from onefold.errors import OnefoldError


@dataclass(frozen=True)
class Part:
    """One thing that may be there. found: its version or place, empty where it is missing."""

    name: str
    found: str
    gives: str
    how: str  # to get it
    required: bool = False


# import name, distribution, what it gives, pip words; the first block is required
_REQUIRED = (
    ("numpy", "numpy", "arrays and the operators' references"),
    ("ml_dtypes", "ml_dtypes", "bf16, 8-bit floats, 4-bit integers"),
    ("ziglang", "ziglang", "the C compiler and linker for every target"),
    ("platformdirs", "platformdirs", "the place of the cache"),
    ("rich", "rich", "tables and progress bars"),
    ("click", "click", "this command line"),
)
_OPTIONAL = (
    ("onnx", "onnx", "check --each on ONNX models, onefold.onnx_backend, ModelProto as input",
     "onefold[onnx]"),
    ("onnxruntime", "onnxruntime", "check and bench against ONNX Runtime", "onefold[check]"),
    ("ai_edge_litert", "ai-edge-litert", "check and bench against LiteRT", "onefold[check]"),
    ("tflite_micro", "tflite-micro", "check of TFLite models that LiteRT refuses (x86-64 Linux)",
     "tflite-micro"),
    ("PIL", "pillow", "pictures as inputs of run", "onefold[images]"),
)  # fmt: skip


def parts() -> list[Part]:
    """Every part, the required ones first."""
    return [*_packages(), _machine(), _cache(), *_emulators()]


def healthy(found: list[Part]) -> bool:
    """Whether everything that is required is there."""
    return all(p.found for p in found if p.required)


def _packages() -> Iterator[Part]:
    wanted = (3, 11)
    python = ".".join(map(str, sys.version_info[:3])) if sys.version_info >= wanted else ""
    yield Part("python", python, "everything", "Python 3.11 or newer", True)
    for module, name, gives in _REQUIRED:
        yield Part(name, _version(module, name), gives, f"pip install {name}", True)
    for module, name, gives, words in _OPTIONAL:
        yield Part(name, _version(module, name), gives, f"pip install '{words}'")


def _version(module: str, distribution: str) -> str:
    if find_spec(module) is None:
        return ""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "installed"


def _machine() -> Part:
    gives = "running compiled programs in this process (target host)"
    try:
        from onefold.target import find

        return Part("host", find("host").cpu, gives, "x86-64 or arm64 Linux")
    except OnefoldError as e:
        return Part("host", "", f"{gives}: {e.what}", "x86-64 or arm64 Linux")


def _cache() -> Part:
    from onefold.run import store

    gives = "keeping compiled programs"
    try:
        return Part("cache", str(store.cache_folder()), gives, "", True)
    except OnefoldError as e:
        return Part("cache", "", f"{gives}: {e.what}", e.remedy, True)


def _emulators() -> list[Part]:
    """One part per emulator, with the targets that it runs."""
    from onefold.target import find, runs_here, targets

    served: dict[tuple[str, str], list[str]] = {}
    for name in targets():
        t = find(name)
        if t.emulator is not None and not runs_here(t):
            served.setdefault((t.emulator.command[0], t.emulator.package), []).append(name)
    return [
        Part(command, _where(command), "running programs for " + ", ".join(names),
             f"apt-get install {package}")
        for (command, package), names in served.items()
    ]  # fmt: skip


def _where(command: str) -> str:
    return shutil.which(command) or shutil.which(f"{command}-static") or ""
