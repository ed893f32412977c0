"""Machines as data: one TOML file per device in `devices/`, one per architecture in `isa/`.

`find("cortex-m4f")` gives the facts of a device; `find("arm64+dotprod+i8mm")` adds features of
its architecture; `find("host")` looks at the running machine.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from onefold.errors import TargetError, did_you_mean, printable
from onefold.target.host import host_arch, host_facts
from onefold.target.model import Emulator, Feature, Isa, Memory, Target

__all__ = ["Emulator", "Feature", "Isa", "Memory", "Target", "find", "host_arch", "load_isa",
           "missing_features", "require_buildable", "require_features", "runs_here", "targets"]

_HERE = Path(__file__).parent


def targets() -> tuple[str, ...]:
    """The names of all devices, `host` first."""
    return ("host", *sorted(p.stem for p in (_HERE / "devices").glob("*.toml")))


@cache
def find(name: str) -> Target:
    """The target of that name, with features added by `+NAME` suffixes.

    Raises `TargetError` for an unknown device or feature, naming the nearest known ones.
    """
    base, *extra = str(name).strip().split("+")
    known = targets()
    if base not in known:
        raise TargetError(f"there is no target '{printable(name, 60)}'",
                          why=did_you_mean(base, known) or "Known are " + ", ".join(known) + ".")
    target = _host() if base == "host" else _device(base)
    return _with_features(target, tuple(extra), name) if extra else target


def missing_features(arch: str, features: frozenset[str]) -> tuple[str, ...]:
    """What a program for `arch` with these features needs and this machine lacks, sorted."""
    here = host_facts()
    if here.arch != arch:
        return (arch,)
    return tuple(sorted(features - here.features))


def require_buildable(target: Target) -> None:
    """Raises `TargetError` where no image can be made for the target yet."""
    if target.os == "none" and not target.memories:
        raise TargetError(
            f"programs for '{target.name}' cannot be built yet", kind=TargetError.CANNOT,
            why="how its weights and its image are put together is not written yet",
            remedy="`onefold targets` lists the others; those with memories or Linux can be built.")


def runs_here(target: Target) -> bool:
    """Whether programs for the target can be loaded into this process."""
    return target.os == "linux" and not missing_features(target.arch, target.features)


def require_features(arch: str, features: frozenset[str], where: str) -> None:
    """Raises `TargetError` unless this machine has everything the artifact at `where` needs."""
    missing = missing_features(arch, features)
    if missing == (arch,):
        raise TargetError(
            f"programs for {arch} cannot be loaded into this process", where=where,
            why=f"this machine is {host_facts().arch}", kind=TargetError.CANNOT,
            remedy="`onefold build` makes them; `onefold run --target` runs them, in an emulator "
                   "where there is one.")
    if missing:
        raise TargetError(
            "the program was compiled for CPU features that this machine lacks", where=where,
            why=f"missing here: {', '.join(missing)} (this machine is {host_facts().cpu})",
            kind=TargetError.FEATURE)


@cache
def load_isa(arch: str) -> Isa:
    """The architecture described by `isa/ARCH.toml`."""
    data = _load(_HERE / "isa" / f"{arch}.toml")
    features = {name: Feature(name, row["compiler"], row.get("probe", ""),
                              tuple(row.get("implies", ())), row.get("vector_bytes", 0))
                for name, row in data.get("feature", {}).items()}
    return Isa(arch, data["triple"], data["pointer_bytes"], features)


def _load(path: Path) -> dict[str, Any]:
    import tomllib
    with path.open("rb") as file:
        return tomllib.load(file)


def _host() -> Target:
    isa = load_isa(host_arch())
    here = host_facts()
    return Target("host", "this machine", isa.arch, isa.triple, here.cpu, here.features,
                  _vector_bytes(isa, here.features), isa.pointer_bytes, "linux", "double",
                  cores=here.cores, caches=here.caches, is_host=True)


def _device(name: str) -> Target:
    path = _HERE / "devices" / f"{name}.toml"
    try:
        data = _load(path)
        isa = load_isa(data["arch"])
        features = isa.closure(frozenset(data["features"]))
        emulator = data.get("emulator")
        return Target(
            name, data["summary"], isa.arch, data.get("triple", isa.triple), data["cpu"], features,
            _vector_bytes(isa, features), isa.pointer_bytes, data["os"], data["fpu"],
            cores=data.get("cores", 1), caches=tuple(data.get("caches", ())),
            memories=tuple(Memory(**row) for row in data.get("memory", ())),
            emulator=Emulator(emulator["package"], tuple(emulator["command"])) if emulator
            else None)
    except (KeyError, TypeError, ValueError) as error:
        raise TargetError(f"the description of '{name}' is not valid", where=path.name,
                          why=f"{type(error).__name__}: {error}",
                          kind=TargetError.DEVICE) from error


def _vector_bytes(isa: Isa, features: frozenset[str]) -> int:
    return max((isa.features[n].vector_bytes for n in features), default=0)


def _with_features(base: Target, extra: tuple[str, ...], name: str) -> Target:
    from dataclasses import replace
    isa = load_isa(base.arch)
    if base.memories:
        raise TargetError(
            f"features cannot be added to '{base.name}'", where=f"target {name}",
            why="it is one processor, whose features are known", kind=TargetError.CANNOT,
            remedy="Choose the target that has them; `onefold targets` lists all.")
    for word in extra:
        if word not in isa.features:
            raise TargetError(
                f"'{printable(word, 40)}' is not a feature of {base.arch}", where=f"target {name}",
                why=did_you_mean(word, isa.features) or "Known are " + ", ".join(isa.features))
    features = isa.closure(base.features | frozenset(extra))
    added = (isa.features[n].compiler for n in sorted(features - base.features))
    return replace(base, name="+".join([base.name, *extra]), features=features,
                   cpu="+".join([base.cpu, *(a for a in added if a)]),
                   vector_bytes=_vector_bytes(isa, features))
