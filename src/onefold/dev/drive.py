"""One file through the whole compiler, short of the C compiler: how far it comes, how it ends."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onefold.backends.cpu import Cpu
from onefold.backends.reference import Reference
from onefold.codegen.model import Sources, emit
from onefold.errors import OnefoldError, ShapeError
from onefold.frontend import read_model
from onefold.frontend.binding import Binding, ValueNeeded
from onefold.ir import dims, dtypes
from onefold.ir.graph import Graph
from onefold.ir.types import TensorType
from onefold.options import Options
from onefold.passes import pipeline
from onefold.plan import plan
from onefold.plan.partition import partition
from onefold.plan.program import Program
from onefold.target import Target, find

STAGES = ("bytes", "records", "graph", "passes", "plan", "C")
OPTIONS = Options()


@dataclass
class Way:
    """How far a file came. stage: index into STAGES; refusal: the error that ended it."""

    stage: int = 0
    refusal: str = ""
    graph: Graph | None = None
    programs: list[Program] = field(default_factory=list)
    sources: list[Sources] = field(default_factory=list)


def drive(format: str, data: bytes, rng: random.Random, target: Target | None = None) -> Way:
    """Reads, imports, optimises, plans and emits a file.

    Whatever is not an `OnefoldError` is a defect and comes out as it is.
    """
    way = Way()
    try:
        _drive(way, format, data, rng, target or find("host"))
    except OnefoldError as e:
        way.refusal = f"{e.code} {e.what}"
        str(e)
        e.to_json()
    return way


def _drive(way: Way, format: str, data: bytes, rng: random.Random, target: Target) -> None:
    model = read_model(data, format)
    way.stage = 1
    graph = bound(model, rng)
    way.graph, way.stage = graph, 2
    pipeline.run(graph)
    parts = partition(graph, [Cpu(), Reference()], target)
    way.stage = 3
    for k, part in enumerate(parts):
        if isinstance(part.backend, Cpu):
            program = plan(part.graph, target)
            way.programs.append(program)
            way.stage = 4
            way.sources.append(emit(program, f"m{k}"))
            check_text(way.sources[-1])
    if way.programs:
        way.stage = 5


def bound(model: Any, rng: random.Random) -> Graph:
    """The graph, with sizes and contents chosen for what the file leaves open."""
    shapes, sizes = _chosen(model, rng)
    values: dict[str, Any] = {}
    declared = {d.name: d for d in model.inputs}
    for _ in range(len(declared) + 1):
        try:
            graph: Graph = model.graph(Binding(shapes, sizes, values))
        except ValueNeeded as e:
            missing = [n for n in e.inputs if n not in values and n in declared]
            if not missing:
                raise ShapeError(e.reason, where=e.layer) from None
            for n in missing:
                values[n] = contents(declared[n], sizes, rng)
            continue
        for v in graph.inputs:
            for d in getattr(v.type, "shape", ()):
                if dims.upper(d) >= dims.INF:
                    raise ShapeError(f"the dimension {d} of '{v.name}' has no bound")
        return graph
    raise ShapeError("the model's shapes cannot be found out")


def _chosen(model: Any, rng: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    shapes: dict[str, Any] = {}
    sizes: dict[str, Any] = {}
    for d in model.inputs:
        if d.kind != "tensor":
            continue
        if d.shape is None:
            shapes[d.name] = tuple(rng.choice((1, 2, 3)) for _ in range(rng.randrange(4)))
            continue
        for k, n in enumerate(d.shape):
            if not isinstance(n, int) or n < 0:
                sizes.setdefault(d.dim_name(k), rng.choice((1, 2, 3, 5, (0, 4), (1, 16))))
    return shapes, sizes


def contents(d: Any, sizes: Any, rng: random.Random) -> Any:
    """Contents for an input that decides shapes: small numbers."""
    if d.kind != "tensor" or d.dtype not in dtypes.BY_NAME:
        return [np.zeros((2, 3), np.float32)] if d.kind == "sequence" else np.ones((), np.float32)
    shape = []
    for k, n in enumerate(d.shape or ()):
        size = n if isinstance(n, int) and n >= 0 else sizes.get(d.dim_name(k), 1)
        shape.append(size if isinstance(size, int) else size[1])
    if np.prod([float(n) for n in shape]) > 1e6 or max(shape, default=0) > 1e9:
        raise ShapeError(f"'{d.name}' is too large to be made up")
    kind = dtypes.BY_NAME[d.dtype]
    draws = np.random.Generator(np.random.PCG64(rng.getrandbits(32)))
    return drawn(draws, tuple(shape), kind)


def drawn(rng: np.random.Generator, shape: tuple[int, ...], kind: dtypes.DType) -> Any:
    """Random contents of a type: small numbers, where a narrow type has no others."""
    if kind is dtypes.string:
        return np.full(shape, "a b", object)
    if kind is dtypes.b1:
        return rng.integers(0, 2, shape).astype(bool)
    if kind.is_int:
        wide = kind in (dtypes.i8, dtypes.u8)
        lo, hi = (kind.lo, kind.hi) if wide else (max(kind.lo, -3), min(kind.hi, 6))
        return rng.integers(lo, hi + 1, shape).astype(kind.numpy)
    return rng.uniform(-3, 3, shape).astype(kind.numpy)


def feeds(graph: Graph, rng: np.random.Generator) -> tuple[list[Any], dict[str, int]]:
    """Random inputs of a graph, and its run-time sizes, chosen within their bounds."""
    env: dict[str, int] = {}
    out = []
    for v in graph.inputs:
        if not isinstance(v.type, TensorType):
            return [], env
        for d in v.type.shape:
            for s in dims.symbols(d):
                env.setdefault(s.name, int(rng.integers(s.lo, min(s.hi, s.lo + 9) + 1)))
        shape = tuple(dims.evaluate(d, env) for d in v.type.shape)
        out.append(drawn(rng, shape, v.type.dtype))
    return out, env


def check_text(sources: Sources) -> None:
    """The rules of generated text that a hostile name could break."""
    for name, text in sources.files.items():
        assert text.isascii(), f"{name}: not ASCII"
        assert "??" not in text, f"{name}: a trigraph"
        for line in text.split("\n"):
            assert not (line.endswith("\\") and "//" in line), f"{name}: {line[:80]}"
            assert len(line) < 200_000, f"{name}: a line of {len(line)} characters"
            assert all(c >= " " or c == "\t" for c in line), f"{name}: {line[:80]!r}"


__all__ = ["STAGES", "Way", "bound", "drawn", "drive", "feeds"]
