"""Machines as data: one TOML file per device in `devices/`, one per architecture in `isa/`.

`find("cortex-m4f")` gives the facts of a device; `find("arm64+dotprod+i8mm")` adds features of
its architecture; `find("host")` looks at the running machine. `levels("x86-64-v2+v3+v4")` are the
machines that one library is made for.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from onefold import knobs
from onefold.errors import TargetError, did_you_mean, printable
from onefold.target.host import host_arch, host_facts
from onefold.target.model import Emulator, Feature, Isa, Memory, Target

__all__ = ["Emulator", "Feature", "Isa", "Memory", "Target", "best_level", "find", "host_arch",
           "level_word", "levels", "load_isa", "missing_features", "require_buildable",
           "require_features", "runs_here", "targets"]

_HERE = Path(__file__).parent


def targets() -> tuple[str, ...]:
    """The names of all devices, `host` first."""
    return ("host", *sorted(p.stem for p in (_HERE / "devices").glob("*.toml")))


@cache
def find(name: str) -> Target:
    """The target of that name, with features added by `+NAME` suffixes, or replaced by a later one
    of its series (`+v3`).

    Raises `TargetError` for an unknown device or feature, naming the nearest known ones.
    """
    base, *extra = str(name).strip().split("+")
    known = targets()
    if base not in known:
        raise TargetError(f"there is no target '{printable(name, 60)}'",
                          why=did_you_mean(base, known) or "Known are " + ", ".join(known) + ".")
    target = _host() if base == "host" else _device(base)
    features: list[str] = []
    for word in extra:
        if (later := _series(base, word)) in known:
            target = _device(later)
        else:
            features.append(word)
    return _with_features(target, tuple(features), name) if features else target


@cache
def levels(name: str) -> tuple[Target, ...]:
    """The machines that a program for this target has kernels for, the least one first: with
    suffixes (`x86-64-v2+v3+v4`, `arm64+dotprod+i8mm`) one for the device alone and one for it with
    each suffix and those before.

    Raises `TargetError` where one is unknown, has nothing that the one before lacks, or cannot be
    told from it by a running program.
    """
    base, *extra = str(name).strip().split("+")
    whole = find(name)
    if whole.is_host or whole.os != "linux":
        return (whole,)
    found = [find(base)]
    for k, word in enumerate(extra):
        at = find("+".join([base, *extra[: k + 1]]))
        if not found[-1].features < at.features:
            raise TargetError(
                f"the levels of '{printable(name, 60)}' do not ascend",
                why=f"'{word}' has nothing that '{([base, *extra])[k]}' lacks",
                remedy="Name the least one first, and each after what it needs.",
                kind=TargetError.UNKNOWN)
        found.append(at)
    rows = load_isa(whole.arch).features
    blind = sorted(n for n in whole.features if not rows[n].detect)
    if extra and blind:
        raise TargetError(
            f"a program cannot find out whether a CPU has {', '.join(blind)}",
            where=f"target {printable(name, 60)}", kind=TargetError.CANNOT)
    return tuple(found)


def level_word(t: Target) -> str:
    """The short name of a level: its last suffix, or the device's (`v3` of `x86-64-v3`)."""
    last = t.name.rpartition("+")[2]
    series = last.rpartition("-")[0]
    alike = [n for n in targets() if n.rpartition("-")[0] == series]
    return last.rpartition("-")[2] if len(alike) > 1 else last


def best_level(name: str) -> Target:
    """The last level of a target that this machine is as good as, or the one that ONEFOLD_LEVEL
    asks for. Raises `TargetError` where it is below all of them, or below that one."""
    found = levels(name)
    asked = knobs.LEVEL.get()
    if len(found) == 1:
        return found[0]
    words = [level_word(t) for t in found]
    if asked and asked not in words:
        raise TargetError(
            f"ONEFOLD_LEVEL asks for '{printable(asked, 40)}'", where=f"target {name}",
            why=f"the levels are {', '.join(words)}", kind=TargetError.UNKNOWN)
    wanted = [t for t in found if not asked or level_word(t) == asked]
    fit = [t for t in wanted if not missing_features(t.arch, t.features)]
    return fit[-1] if fit else wanted[0]


def _series(base: str, word: str) -> str:
    """The name of another device of the same series, as `x86-64-v3` for `x86-64-v2` and `v3`."""
    return f"{base.rpartition('-')[0]}-{word}"


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
                              tuple(row.get("implies", ())), row.get("vector_bytes", 0),
                                row.get("detect", ""))
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
    series = base.name.rpartition("-")[0]
    known = [n.rpartition("-")[2] for n in targets() if n.rpartition("-")[0] == series != ""]
    known += isa.features
    for word in extra:
        if word not in isa.features:
            raise TargetError(
                f"'{printable(word, 40)}' is not a feature of {base.arch}", where=f"target {name}",
                why=did_you_mean(word, known) or "Known are " + ", ".join(known))
    features = isa.closure(base.features | frozenset(extra))
    added = (isa.features[n].compiler for n in sorted(features - base.features))
    return replace(base, name="+".join([base.name, *extra]), features=features,
                   cpu="+".join([base.cpu, *(a for a in added if a)]),
                   vector_bytes=_vector_bytes(isa, features))
