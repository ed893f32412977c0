"""`onefold targets`: the machines that programs can be made for."""

from __future__ import annotations

from typing import Any

import click

from onefold.cli._options import Wishes, json_option
from onefold.cli._output import Column, Out, finish, memory


@click.command(short_help="Machines that programs can be made for.")
@json_option
def command(wishes: Wishes) -> None:
    """Lists the machines that programs can be made for, and how they can be run here."""
    from onefold import target

    finish({"targets": [_facts(target.find(n)) for n in target.targets()]}, wishes.json, _show)


def _facts(t: Any) -> dict[str, Any]:
    from onefold.run import emulator, toolchain
    from onefold.target import runs_here

    how = "directly" if runs_here(t) else "no"
    if how == "no" and t.emulator is not None:
        how = "emulator" if emulator.available(t) else f"needs {t.emulator.package}"
    return {
        "name": t.name, "summary": t.summary, "arch": t.arch, "os": t.os, "cpu": t.cpu,
        "features": sorted(t.features), "vector_bits": 8 * t.vector_bytes, "fpu": t.fpu,
        "cores": t.cores, "caches": list(t.caches), "runs_here": how,
        "memories": [{"name": m.name, "kind": m.kind, "bytes": m.size} for m in t.memories],
        "prepared": toolchain.is_prepared(t),
    }  # fmt: skip


def _show(facts: dict[str, Any], out: Out) -> None:
    columns: list[Column | str] = ["target", Column("machine", limit=80), "architecture", "system",
               Column("vector bits", right=True), "memories", "runs here"]  # fmt: skip
    out.table(columns, [_row(t) for t in facts["targets"]])
    host = facts["targets"][0]
    out.line(f"host is {host['cpu']}; add features of an architecture with '+': "
             "arm64+dotprod+i8mm.")  # fmt: skip


def _row(t: dict[str, Any]) -> tuple[Any, ...]:
    system = t["os"] if t["os"] != "none" else "bare metal"
    memories = ", ".join(f"{m['name']} {memory(m['bytes'])}" for m in t["memories"]) or "-"
    vector = t["vector_bits"] or "-"
    return t["name"], t["summary"], t["arch"], system, vector, memories, t["runs_here"]
