"""Builds a model for a target: folder with sources, library, runner, manifest, report."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onefold.backends.cpu import Cpu
from onefold.codegen.levels import Level, baseline, emit_levels, share
from onefold.codegen.model import Sources, emit
from onefold.codegen.text import c_name, is_c_name
from onefold.errors import (
    FallbackError,
    OnefoldError,
    OptionError,
    PlanError,
    ShapeError,
    TargetError,
    ToolchainError,
)
from onefold.frontend.binding import Binding, ValueNeeded
from onefold.ir import dims as sizes
from onefold.ir.graph import Array, Graph
from onefold.options import (
    Options,
    check_optimize,
    check_precision,
    check_threads,
    usual_goal,
)
from onefold.plan import plan
from onefold.plan.program import Program, used_constants
from onefold.run import elf, emulator, toolchain
from onefold.run.artifact import KERNELS
from onefold.run.building import manifest, write_weights
from onefold.run.ports import PortFacts, shape_of
from onefold.run.tuned import times_for
from onefold.ship.sources import main_source, weights_source
from onefold.target import Target, levels, require_buildable

if TYPE_CHECKING:
    from onefold.api import Model


@dataclass(frozen=True)
class Bundle:
    """A finished folder: `program` is the runner, a Linux executable or a bare-metal image."""

    folder: Path
    prefix: str
    target: Target
    library: Path
    program: Path
    report: Mapping[str, Any]
    inputs: tuple[tuple[str, tuple[int, ...], str], ...]
    outputs: tuple[tuple[str, tuple[int, ...], str], ...]
    facts: Mapping[str, Any]

    def run(self, arrays: Sequence[Array], dims: Sequence[int] = ()) -> list[Array]:
        """The runner on these inputs, in the emulator where the machine is another one.

        dims: the sizes that the caller gives, where the inputs' shapes do not tell them. Raises
        InputError for a shape that does not fit.
        """
        f = self.facts
        env = {d["name"]: d["lo"] for d in f["dims"] if d["next"] is not None}
        for k, (a, port) in enumerate(zip(arrays, f["inputs"], strict=True)):
            PortFacts.of(port).match(a.shape, env)
            raw = np.ascontiguousarray(a).tobytes()
            (self.folder / f"input{k}.bin").write_bytes(raw.ljust(port["bytes"], b"\0"))
        env.update(zip((d["name"] for d in f["dims"]), dims, strict=False))
        if f["dims"]:
            given = [env[d["name"]] for d in f["dims"]]
            np.asarray(given, np.int64).tofile(self.folder / "dims.bin")
        emulator.run(self.program, self.target, cwd=self.folder)
        if f["found"]:
            sizes = np.fromfile(self.folder / "sizes.bin", np.int64)[len(f["dims"]) :]
            env.update(zip((d["name"] for d in f["found"]), sizes.tolist(), strict=True))
        return [self._output(k, PortFacts.of(port), env) for k, port in enumerate(f["outputs"])]

    def _output(self, k: int, port: PortFacts, env: Mapping[str, int]) -> Array:
        shape = shape_of(port, env)
        raw = np.fromfile(self.folder / f"output{k}.bin", port.dtype, math.prod(shape))
        return raw.reshape(shape)

    def stack(self) -> int:
        """Bytes of stack that the last run took."""
        return int(np.fromfile(self.folder / "stack.bin", np.uint32)[0])


def build(
    model: Model,
    target: str,
    out: Path | str,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, Any] | None = None,
    states: Mapping[str, str] | None = None,
    values: Mapping[str, Any] | None = None,
    prefix: str = "",
    optimize: str = "",
    measure: bool = True,
    threads: int = 1,
    exact: bool = False,
    tuned: bool = True,
    precision: str = "f32",
) -> Bundle:
    """Write the bundle of a model for a target into a folder.

    The names as for `Model.compile`; the precision "auto" is f32 here, since nothing is measured
    that could tell the error of another one. measure: run the runner once, in the emulator if need
    be, to read how much stack it takes. Raises FallbackError for layers without a compiled form,
    ShapeError for sizes that are open, TargetError, ToolchainError.
    """
    check_threads(threads)
    if optimize:
        check_optimize(optimize)
    if prefix and not is_c_name(prefix):
        raise OptionError(
            f"'{prefix}' cannot begin the names of functions",
            why="in C they are letters, digits and '_', no digit in front, no word of C itself and "
                "nothing that begins with of_",
            remedy=f"Take for instance '{c_name(prefix, 32)}'.",
        )  # fmt: skip
    stem = model.name.rsplit(".", 1)[0]
    name = prefix or c_name(stem, 32).lower()
    parts = []
    for t in levels(target):
        graph = graph_for(model, t, shapes, dims, states, values)
        graph.name = stem
        parts.append((graph, t))
    precision = "f32" if precision == "auto" else precision
    options = Options(precision, threads, optimize or usual_goal(parts[0][1]), exact)
    with _whole(Path(out)):
        return _build(parts, out, name, options, measure, tuned)


@contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """A folder that was not there before is not there after a failure or an interruption."""
    existed = folder.exists()
    try:
        yield
    except BaseException:
        if not existed:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def build_graph(
    graph: Graph, t: Target, out: Path | str, name: str, options: Options | None = None,
    measure: bool = True,
) -> Bundle:  # fmt: skip
    """The bundle of an optimised graph; name is the prefix of its symbols. See `build`."""
    options = options or Options(optimize=usual_goal(t))
    return _build([(graph, t)], out, name, options, measure, tuned=False)


def _build(
    parts: Sequence[tuple[Graph, Target]], out: Path | str, name: str, options: Options,
    measure: bool, tuned: bool,
) -> Bundle:  # fmt: skip
    """One graph for each level, the least first. Levels without products of the precision compute
    in f32. tuned: kernels are chosen by what has been measured."""
    t = parts[0][1]
    if options.threads > 1 and t.os != "linux":
        raise TargetError(
            f"programs for '{t.name}' run on one thread, not on {options.threads}",
            why="it has no operating system", kind=TargetError.CANNOT,
            remedy="Build it without --threads.",
        )  # fmt: skip
    require_buildable(t)
    check_precision(options.precision, parts[-1][1])
    folder = Path(out).resolve()  # the compiler runs in it
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for graph, at in parts:
        known = times_for(at) if tuned else None
        found.append(Level(at, plan(graph, at, replace(options, tuned=known))))
    share([v.program for v in found])
    leveled = emit_levels(found, name) if len(found) > 1 else None
    program = leveled.program if leveled else found[0].program
    whole = leveled.whole if leveled else emit(program, name)
    units = [_Unit(whole, baseline(t) if leveled else t, options.flags)]
    for v, part in zip(found, leveled.parts if leveled else (), strict=False):
        units.append(_Unit(part, v.target, ("-DOF_PUBLIC=OF_HIDDEN", *options.flags)))
    _write_sources(program, units, [v.program for v in found], folder)
    with _fitting(program, t):
        made = _compile(units, folder, options.level(t))
    report = _report(program, t, made, options)
    facts = manifest(program, whole, t)
    if leveled:
        report["levels"] = [_level_facts(v, made.objects[k + 1]) for k, v in enumerate(found)]
        facts["levels"] = [
            {"name": v.word, "target": v.target.facts(), "labels": list(part.labels)}
            for v, part in zip(found, leveled.parts, strict=True)
        ]
    bundle = Bundle(
        folder, name, t, made.library, made.program, report,
        tuple((p.name, _upper(p.type.shape), p.type.dtype.name) for p in program.inputs),
        tuple((p.name, _upper(p.type.shape), p.type.dtype.name) for p in program.outputs),
        facts,
    )  # fmt: skip
    if measure and emulator.available(t):
        report.update(_measured(bundle, program))
    _write(folder / "manifest.json", facts)
    _write(folder / "report.json", report)
    return bundle


def graph_for(
    model: Model, t: Target, shapes: Any, dims: Any, states: Any, values: Any
) -> Graph:
    """The optimised graph, all of which the CPU takes."""
    from onefold.forms import Wanted
    from onefold.passes import pipeline

    w = Wanted.of(shapes, dims, states, values)
    if w.buckets:
        name, ends = next(iter(w.buckets.items()))
        raise OptionError(
            f"buckets cannot be built: {name}={','.join(map(str, ends))}",
            why="a folder holds one program",
            remedy=f"Build one for each size: --dim {name}={ends[0]}"
            + (f", or one for all: --dim {name}=0..{ends[-1]}." if t.has_heap else "."),
        )  # fmt: skip
    try:
        graph = model.bind(Binding(w.shapes, w.dims, w.values, w.states))
    except ValueNeeded as e:
        raise ShapeError(
            e.reason, where=e.layer, why=f"it depends on the inputs {', '.join(e.inputs)}",
            remedy="Give their contents: --value NAME=FILE.npy, or export with a constant.",
        ) from None  # fmt: skip
    open_dims = sorted(
        {f"{v.name}[{k}]" for v in graph.inputs for k, d in enumerate(v.shape)
         if sizes.upper(d) >= sizes.INF or (not isinstance(d, int) and not t.has_heap)}
    )  # fmt: skip
    if open_dims:
        raise ShapeError(
            f"sizes are open: {', '.join(open_dims)}", where=model.name,
            why=f"'{t.name}' has no heap" if not t.has_heap else "memory is planned beforehand",
            remedy="Fix them: --dim NAME=SIZE or --shape INPUT=1x3x224x224"
            + (", or bound them: --dim NAME=0..2048." if t.has_heap else "."),
        )  # fmt: skip
    pipeline.run(graph)
    cpu = Cpu()
    refused = [(n, cpu.accepts(n, t)) for n in graph.nodes]
    lines = [f"{n.origin} ({n.op.name}): {why}" for n, why in refused if why]
    if lines:
        raise FallbackError(f"{len(lines)} layers cannot be compiled", where=model.name,
                            detail=lines)  # fmt: skip
    return graph


@dataclass(frozen=True)
class _Unit:
    """Sources that are compiled for one machine."""

    sources: Sources
    target: Target
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Made:
    """objects: those of each unit."""

    objects: tuple[tuple[Path, ...], ...]
    weights: Path
    library: Path
    program: Path


def _write_sources(
    program: Program, units: Sequence[_Unit], programs: Sequence[Program], folder: Path
) -> None:
    for unit in units:
        for name, text in unit.sources.files.items():
            (folder / name).write_text(text, "utf-8")
    p, t = units[0].sources.prefix, units[0].target
    write_weights(programs, folder / f"{p}_weights.bin")
    (folder / f"{p}_weights.c").write_text(weights_source(p, program.weights_bytes), "utf-8")
    lowest = units[1].target.name if len(units) > 1 else ""
    (folder / "main.c").write_text(main_source(program, p, t, lowest), "utf-8")
    headers = folder / "kernels"
    headers.mkdir(exist_ok=True)
    for h in KERNELS.glob("*.h"):
        shutil.copyfile(h, headers / h.name)


def _compile(units: Sequence[_Unit], folder: Path, level: str) -> _Made:
    from onefold.run.bare import INCLUDE

    made = []
    for unit in units:
        paths = [folder / u for u in unit.sources.units]
        objects = toolchain.compile_units(
            paths, unit.target, folder, include_dirs=[folder / "kernels", folder],
            flags=unit.flags, optimize=level,
        )  # fmt: skip
        named = [_rename(o, f"{u.stem}.o") for o, u in zip(objects, paths, strict=True)]
        made.append(tuple(named))
    prefix, t = units[0].sources.prefix, units[0].target
    weights, runner = toolchain.compile_units(
        [folder / f"{prefix}_weights.c", folder / "main.c"], t, folder,
        include_dirs=[folder, INCLUDE], optimize="-O1", jobs=1,
    )  # fmt: skip
    weights, runner = _rename(weights, f"{prefix}_weights.o"), _rename(runner, "main.o")
    every = [*(o for some in made for o in some), weights]
    library = folder / f"lib{prefix}.a"
    toolchain.archive(every, library)
    if t.os == "none":
        program = folder / f"{prefix}.elf"
        toolchain.link_firmware([runner, *every], program, t)
    else:
        program = folder / f"{prefix}_run"
        toolchain.link_executable([runner, *every], program, t)
    runner.unlink()
    return _Made(tuple(made), weights, library, program)


def _level_facts(v: Level, objects: Sequence[Path]) -> dict[str, Any]:
    """What one level takes of the whole."""
    sizes = [elf.sizes(o) for o in objects]
    return {
        "name": v.word, "target": v.target.name,
        "code_bytes": sum(s.code + s.constants for s in sizes),
        "weights_bytes": sum(b.bytes for b in used_constants(v.program)),
        "arena_bytes": v.program.arena_bytes,
    }  # fmt: skip


@contextmanager
def _fitting(program: Program, t: Target) -> Iterator[None]:
    """The linker knows to the byte what does not fit; its message becomes one about the device,
    with the largest of what lies in its memories."""
    try:
        yield
    except ToolchainError as e:
        over = [line for line in e.detail if "overflow" in line]
        if not over:
            raise
        sizes = ", ".join(f"{m.size:,} bytes of {m.name}" for m in t.memories)
        raise PlanError(
            f"the program does not fit into the memory of '{t.name}'", why=f"it has {sizes}",
            detail=[*_largest(program), *_overflows(over)],
            kind=PlanError.FIT,
        ) from e  # fmt: skip


def _largest(program: Program) -> Iterator[str]:
    for kind, what in (("const", "weights are"), ("arena", "intermediate result is"),
                       ("state", "state is")):  # fmt: skip
        found = [b for b in program.buffers if b.kind == kind]
        if found:
            b = max(found, key=lambda b: b.bytes)
            yield f"the largest {what} '{b.name}' with {b.bytes:,} bytes"


def _overflows(said: Sequence[str]) -> list[str]:
    """What the linker says of sections, as one line for each memory."""
    most: dict[str, int] = {}
    others = []
    for line in said:
        found = re.search(r"region '(\w+)': overflowed by (\d+) bytes", line)
        if found:
            most[found[1]] = max(most.get(found[1], 0), int(found[2]))
        else:
            others.append(line.removeprefix("ld.lld: error: "))
    return [f"{name} overflows by {size:,} bytes" for name, size in most.items()] + others


def _rename(o: Path, name: str) -> Path:
    return o.replace(o.with_name(name))


def _report(
    program: Program, t: Target, made: _Made, options: Options
) -> dict[str, Any]:
    objects = [elf.sizes(o) for some in made.objects for o in some]
    code = sum(s.code + s.constants for s in objects)
    data = sum(s.data + s.zeroed for s in objects)
    return {
        "model": program.name, "target": t.name, "macs": program.macs,
        "optimize": options.optimize, "source_bytes": program.graph.source_bytes,
        "library_bytes": made.library.stat().st_size,
        "code_bytes": code, "weights_bytes": program.weights_bytes,
        "flash_bytes": code + program.weights_bytes, "arena_bytes": program.arena_bytes,
        "arena_lower_bound": program.arena_lower_bound, "state_bytes": program.state_bytes,
        "arenas": {a.space or "arena": a.bytes for a in program.arenas},
        "stack_bytes": None, "ram_bytes": program.arena_bytes + program.state_bytes + data,
        "steps": sum(1 for _ in program.flat()),
        "tuned": sum(s.tuned for s in program.flat()), "threads": program.threads,
    }  # fmt: skip


def _measured(bundle: Bundle, program: Program) -> dict[str, Any]:
    """The stack, from a run on zeros. A model that refuses zeros leaves it unknown."""
    zeros = [np.zeros(shape, _np(dtype)) for _, shape, dtype in bundle.inputs]
    try:
        bundle.run(zeros, [s.lo if s.name in program.grown else s.hi for s in program.dims])
    except OnefoldError as e:
        return {"stack_note": str(e.what)}
    stack = bundle.stack()
    ram = int(bundle.report["ram_bytes"])
    return {"stack_bytes": stack, "ram_bytes": ram + stack}


def _np(dtype: str) -> Any:
    from onefold.ir.dtypes import BY_NAME

    return BY_NAME[dtype].numpy


def _upper(shape: sizes.Shape) -> tuple[int, ...]:
    return tuple(sizes.upper(d) for d in shape)


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
