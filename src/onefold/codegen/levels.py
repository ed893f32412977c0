"""One library for several CPUs: kernels for each of them, and a function that picks.

Each level is a program of its own under a prefix of its own; all have the same interface, and read
one file of weights, in which what is equal lies once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onefold import knobs
from onefold.codegen.model import Sources, emit, header
from onefold.codegen.team import HEADER
from onefold.codegen.text import c_comment, c_name
from onefold.plan.program import ALIGN, Buffer, Program, Recipe, used_constants
from onefold.target import Target, find, level_word, load_isa

VARIABLE = knobs.LEVEL.name
BELOW = -1  # what the program returns where the CPU has not even the lowest level


@dataclass(frozen=True)
class Level:
    """A program for one of the CPUs."""

    target: Target
    program: Program

    @property
    def word(self) -> str:
        return level_word(self.target)


@dataclass(frozen=True)
class Leveled:
    """The whole program as its users see it, and the sources: `whole` has the interface and picks,
    `parts` are those of the levels."""

    program: Program
    whole: Sources
    parts: tuple[Sources, ...]


def share(programs: Sequence[Program]) -> int:
    """Give all constants of several programs places in one file, equal ones the same; returns the
    bytes of it."""
    at = 0
    places: dict[bytes, int] = {}
    for p in programs:
        for b in used_constants(p):
            key = _digest(b)
            if key not in places:
                places[key] = at
                at += -(-b.bytes // ALIGN) * ALIGN
            b.offset = places[key]
    for p in programs:
        p.weights_bytes = at
    return at


def _digest(b: Buffer) -> bytes:
    assert b.data is not None
    data = b.data.make() if isinstance(b.data, Recipe) else b.data
    name = f"{b.bytes} {b.type.layout and (b.type.layout, data.shape)}"
    content = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data if data.size else b""
    return hashlib.blake2b(content, digest_size=24, person=b"level").digest() + name.encode()


def emit_levels(levels: Sequence[Level], prefix: str) -> Leveled:
    """The sources of all levels and of what picks one of them."""
    programs = [v.program for v in levels]
    first = replace(
        programs[0], arena_bytes=max(p.arena_bytes for p in programs),
        threads=max(p.threads for p in programs), weights_bytes=programs[0].weights_bytes,
    )  # fmt: skip
    names = [f"{prefix}_{c_name(v.word).lower()}" for v in levels]
    parts = tuple(emit(p, n) for p, n in zip(programs, names, strict=True))
    files = {
        f"{prefix}.h": header(first, prefix) + _header(levels, prefix),
        f"{prefix}.c": _source(first, levels, names, prefix),
    }
    return Leveled(first, Sources(prefix, files, (f"{prefix}.c",), ()), parts)


def _header(levels: Sequence[Level], prefix: str) -> str:
    up = prefix.upper()
    listed = ", ".join(f"{k} {v.target.name}" for k, v in enumerate(levels))
    return f"""
// There are kernels for {len(levels)} CPUs: {listed}.
// Those of the last one that this CPU is as good as are called; {prefix}_level tells which that is,
// {BELOW} where it is below all of them, and {prefix}_run then returns {BELOW}, too. The variable
// {VARIABLE} of the environment, read at the first call, asks for a lower one: {_words(levels)}.
#define {up}_LEVELS {len(levels)}
int32_t {prefix}_level(void);
"""


def _words(levels: Sequence[Level]) -> str:
    return ", ".join(v.word for v in levels)


def _source(
    program: Program, levels: Sequence[Level], names: Sequence[str], prefix: str
) -> str:
    given = ("void *arena, const void *weights, void *state,\n    const void *const *inputs, "
             "void *const *outputs, int64_t *dims")  # fmt: skip
    args = "arena, weights, state, inputs, outputs, dims"
    team = program.threads > 1
    lines = [
        f"// {c_comment(program.name)}: picks the kernels for the running CPU.",
        f'#include "of_program.h"\n#include "of_cpu.h"\n#include "{prefix}.h"',
        *([f'#include "{HEADER}"'] if team else []), "",
    ]  # fmt: skip
    for v, name in zip(levels, names, strict=True):
        lines.append(f"int32_t {name}_run({given});")
        if v.program.threads > 1:
            lines.append(f"int32_t {name}_run_team(void *team, {given});")
    lines += [
        f"void {names[0]}_state_init(void *state);", "",
        "static int32_t pick(void) {", "  int32_t level = -1;",
    ]  # fmt: skip
    for k, v in enumerate(levels):
        lines.append(f"  if (level == {k - 1} && {_test(v.target)}) level = {k};")
    lines += [f'  const char *const asked = getenv("{VARIABLE}");',
              "  if (!asked || !*asked) return level;"]  # fmt: skip
    for k, v in enumerate(levels):
        lines.append(f'  if (level >= {k} && of_same(asked, "{v.word}")) return {k};')
    lines += [
        f"  return {BELOW};", "}", "",
        f"OF_PUBLIC int32_t {prefix}_level(void) {{",
        "  static int32_t known = -2;  // every thread would find the same",
        "  int32_t level = __atomic_load_n(&known, __ATOMIC_RELAXED);",
        "  if (level == -2) __atomic_store_n(&known, level = pick(), __ATOMIC_RELAXED);",
        "  return level;", "}", "",
        f"OF_PUBLIC int32_t {prefix}_run({given}) {{",
        *_switch(prefix, [f"{n}_run({args})" for n in names]), "}", "",
        f"OF_PUBLIC void {prefix}_state_init(void *state) {{",
        f"  if ({prefix}_level() >= 0) {names[0]}_state_init(state);", "}", "",
    ]  # fmt: skip
    if team:
        calls = [
            f"{n}_run_team(team, {args})" if v.program.threads > 1 else f"{n}_run({args})"
            for v, n in zip(levels, names, strict=True)
        ]
        lines += [
            f"OF_PUBLIC int32_t {prefix}_run_team(void *team, {given}) {{",
            *_switch(prefix, calls), "}",
            f"OF_PUBLIC void {prefix}_work(void *team, int32_t part) {{ of_work(team, part); }}",
            f"OF_PUBLIC int32_t {prefix}_helpers(void *team) {{ "
            "return of_helpers(team, OF_TEAM_MAX); }",
            f"OF_PUBLIC void {prefix}_end(void *team) {{ of_end(team); }}", "",
        ]  # fmt: skip
    return "\n".join(lines)


def _switch(prefix: str, calls: Sequence[str]) -> list[str]:
    cases = [f"    case {k}: return {c};" for k, c in enumerate(calls)]
    return [f"  switch ({prefix}_level()) {{", *cases, f"    default: return {BELOW};", "  }"]


def _test(t: Target) -> str:
    """C text: whether the running CPU is as good as the target."""
    device = find(t.name.partition("+")[0])
    isa = load_isa(t.arch)
    out = []
    if t.arch == "x86_64":
        out.append(f"of_cpu_{device.cpu}()")
        if t.vector_bytes > 16:
            out.append(f"of_cpu_keeps({'0xe6' if t.vector_bytes == 64 else '0x6'})")
        if any(f.startswith("amx") for f in t.features):
            out.append("of_cpu_tiles()")
        wanted = t.features - device.features
    else:
        wanted = t.features
    out += [f"of_cpu_has({isa.features[n].detect})" for n in sorted(wanted)]
    return " && ".join(out)


def baseline(t: Target) -> Target:
    """The least machine of an architecture, for what runs before a level is known."""
    isa = load_isa(t.arch)
    cpu = {"x86_64": "x86_64", "aarch64": "generic"}[t.arch]
    return replace(t, name=t.arch, cpu=cpu, features=frozenset(), vector_bytes=0, triple=isa.triple)
