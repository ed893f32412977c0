"""Writes artifacts: a program's sources compiled for a target, its weights, its manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onefold import events
from onefold.codegen.model import Sources, emit
from onefold.codegen.text import c_name
from onefold.errors import DiskError
from onefold.ir.graph import Array
from onefold.ir.types import TensorType
from onefold.plan.program import Port, Program, Recipe, used_constants
from onefold.run import toolchain, tuned
from onefold.run.artifact import FORMAT, KERNELS, LIBRARY, MANIFEST, WEIGHTS, Artifact
from onefold.target import Target


def build(
    program: Program, target: Target, folder: Path, prefix: str = "", optimize: str = "-O3",
    profile: bool = False, flags: Sequence[str] = (),
) -> Artifact:  # fmt: skip
    """Compile a program for a target with an operating system into an existing folder."""
    prefix = prefix or c_name(program.name, 24).lower()
    sources = emit(program, prefix, profile)
    events.emit("sources", files=sources.files)
    for name, text in sources.files.items():
        (folder / name).write_text(text, "utf-8")
    write_weights([program], folder / WEIGHTS)
    objects = toolchain.compile_units(
        [folder / u for u in sources.units], target, folder, include_dirs=[KERNELS],
        shared=True, optimize=optimize, flags=flags,
    )  # fmt: skip
    toolchain.link_shared(objects, folder / LIBRARY, target)
    for o in objects:
        o.unlink(missing_ok=True)
    facts = manifest(program, sources, target)
    (folder / MANIFEST).write_text(json.dumps(facts, indent=1), "utf-8")
    return Artifact(folder, facts)


def write_weights(programs: Sequence[Program], path: Path) -> None:
    """All constants in use at their offsets, one at a time, so that memory stays small. Several
    programs that share them have the equal ones at equal offsets."""
    at = 0
    total = programs[0].weights_bytes
    constants = {(b.offset, b.bytes): b for p in programs for b in used_constants(p)}
    try:
        with path.open("wb") as f, events.Progress("weights", total) as progress:
            for b in (constants[k] for k in sorted(constants)):
                assert b.data is not None
                f.write(b"\0" * (b.offset - at))
                at = b.offset
                data = b.data.make() if isinstance(b.data, Recipe) else b.data
                for chunk in _chunks(data, b.type):
                    f.write(chunk)
                    at += len(chunk)
                    progress.step("", len(chunk))
            f.write(b"\0" * (total - at))
    except OSError as e:
        raise DiskError("the weights cannot be written", where=str(path), why=str(e)) from None


def stored_bytes(data: Array, t: TensorType) -> Array:
    """A constant as it lies in memory: row by row, or in channel blocks, the last one filled."""
    if not t.layout:
        return np.ascontiguousarray(data)
    n, c, *rest = data.shape
    blocks = -(-c // t.layout)
    padded = np.zeros((n, blocks * t.layout, *rest), data.dtype)
    padded[:, :c] = data
    split = padded.reshape(n, blocks, t.layout, *rest)
    return np.ascontiguousarray(np.moveaxis(split, 2, -1))


def _chunks(data: Array, t: TensorType, size: int = 1 << 24) -> Any:
    flat = stored_bytes(data, t).reshape(-1)
    step = max(size // max(flat.itemsize, 1), 1)
    for i in range(0, flat.size, step):
        yield flat[i : i + step].tobytes()


def manifest(program: Program, sources: Sources, target: Target) -> dict[str, Any]:
    """Everything that running needs to know, as plain data."""
    return {
        "format": FORMAT,
        "name": program.name,
        "prefix": sources.prefix,
        "target": target.facts(),
        "inputs": [_port(p) for p in program.inputs],
        "outputs": [_port(p) for p in program.outputs],
        "dims": [
            {"name": s.name, "lo": s.lo, "hi": s.hi, "next": _next(program, s.name)}
            for s in program.dims
        ],
        "found": [{"name": s.name, "lo": s.lo, "hi": s.hi} for s in program.found],
        "arena_bytes": program.arena_bytes,
        "arena_lower_bound": program.arena_lower_bound,
        "arenas": [{"space": a.space, "bytes": a.bytes} for a in program.arenas],
        "weights_bytes": program.weights_bytes,
        "state_bytes": program.state_bytes,
        "states": [
            {"name": n, "dtype": b.type.dtype.name, "offset": b.offset, "bytes": b.bytes,
             "initial": None if a is None else np.ascontiguousarray(a).tobytes().hex()}
            for n, b, a in program.states
        ],
        "labels": list(sources.labels),
        "steps": [
            {"op": s.op, "origin": str(s.origin), "macs": s.macs, "algorithm": s.algorithm,
             "next_best": s.next_best, "tuned": s.tuned,
             "threads": program.threads if s.kernel.split else 1,
             "bytes": sum(b.bytes for b in (*s.reads, *s.writes))}
            for s in program.flat()
        ],
        "tuned": tuned.used(program.asked),
        "notes": program.notes,
        "threads": program.threads,
    }  # fmt: skip


def _next(program: Program, name: str) -> Any:
    """What the size of a state becomes by a call; None for sizes that the caller gives."""
    from onefold.ir import dims

    d = program.grown.get(name)
    return None if d is None else dims.to_data(d)


def _port(p: Port) -> dict[str, Any]:
    from onefold.ir import dims

    return {
        "name": p.name, "dtype": p.type.dtype.name, "bytes": p.buffer.bytes,
        "shape": [dims.to_data(d) for d in p.type.shape],
        "quant": None if p.type.quant is None else
                 {"scale": p.type.quant.scale[0], "zero_point": p.type.quant.zero_point[0]},
    }  # fmt: skip
