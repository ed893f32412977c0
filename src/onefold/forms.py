"""A program as the user holds it: the forms it has been compiled in, and which one runs.

A model with open dimensions is compiled for the sizes that come, while few come; then once with
its dimensions bounded at run time. Inputs that decide shapes are compiled in by value.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onefold import events
from onefold.backends import Backend, Runnable
from onefold.errors import (
    FallbackError,
    InputError,
    MemoryLimitError,
    OnefoldError,
    OptionError,
    RunError,
    ShapeError,
)
from onefold.feeds import (
    as_array,
    bad_shape,
    by_name,
    check_lies,
    check_names,
    fingerprint,
    sizes_of,
)
from onefold.frontend.binding import Binding, ValueNeeded
from onefold.options import Options, check_precision
from onefold.run import cache as store
from onefold.run import tuned
from onefold.run.artifact import Artifact
from onefold.run.session import Loaded, PreparedCall
from onefold.target import Target, best_level, require_features

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.frontend.model import Declared
    from onefold.ir.graph import Graph
    from onefold.plan.partition import Part

FEW = 4  # shapes that get a form of their own before one form is made for all
KEPT = 8  # forms that stay loaded
ROOM = 4096  # least upper bound of a dimension that varies; memory is touched only as far as used

Range = tuple[int, int]


@dataclass(frozen=True)
class Wanted:
    """What the user fixed. buckets: upper ends, ascending, by dimension name."""

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dims: Mapping[str, int | Range] = field(default_factory=dict)
    buckets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(shapes: Any, dims: Any, states: Any, values: Any) -> Wanted:
        fixed: dict[str, int | Range] = {}
        buckets: dict[str, tuple[int, ...]] = {}
        for name, d in (dims or {}).items():
            d = parse_dim(name, d)
            if isinstance(d, list):
                buckets[name] = tuple(sorted(d))
            else:
                fixed[name] = d
        return Wanted(
            {k: sizes_of(k, v) for k, v in (shapes or {}).items()}, fixed, buckets,
            dict(states or {}), {k: np.asarray(v) for k, v in (values or {}).items()},
        )  # fmt: skip


def parse_dim(name: str, d: Any) -> int | Range | list[int]:
    """A size, a range, or buckets, from 224, "0..2048", range(0, 2049), "32,64" or [32, 64]."""
    try:
        if isinstance(d, str) and ".." in d:
            lo, hi = d.split("..")
            out: Any = (int(lo), int(hi))
        elif isinstance(d, str) and "," in d:
            out = [int(x) for x in d.split(",")]
        elif isinstance(d, range):
            out = (d.start, d.stop - 1)
        elif isinstance(d, tuple) and len(d) == 2:
            out = (int(d[0]), int(d[1]))
        elif isinstance(d, (list, tuple)):
            out = [int(x) for x in d]
        else:
            out = int(d)
    except (TypeError, ValueError):
        raise OptionError(
            f"the dimension {name}={d} is not understood",
            remedy="Write NAME=64, NAME=32,64,128 or NAME=0..2048.") from None  # fmt: skip
    ends = out if isinstance(out, (list, tuple)) else [out]
    if min(ends) < 0 or max(ends) >= 1 << 31 or (isinstance(out, tuple) and out[0] > out[1]):
        raise OptionError(
            f"the dimension {name}={d} is out of range",
            remedy="Sizes lie between 0 and 2147483647, the lower end first.")  # fmt: skip
    return out  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Form:
    """One compiled form: parts in order, with the ids of the values that pass between them."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parts: tuple[tuple[Runnable, tuple[Any, ...], tuple[Any, ...]], ...]
    constants: Mapping[Any, Any]
    facts: Mapping[str, Any]
    output_keys: tuple[Any, ...]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        if len(self.parts) == 1 and not self.constants:
            runnable, ins, outs = self.parts[0]
            if ins == self.inputs and outs == self.outputs:
                return dict(zip(outs, runnable.run([feeds[n] for n in ins]), strict=True))
        known: dict[Any, Any] = {**self.constants, **feeds}
        for runnable, ins, outs in self.parts:
            known.update(zip(outs, runnable.run([known[k] for k in ins]), strict=True))
        given = self.constants.keys() | feeds.keys()
        return {
            n: np.array(known[k]) if k in given and isinstance(known[k], np.ndarray) else known[k]
            for n, k in zip(self.outputs, self.output_keys, strict=True)
        }

    def reset(self) -> None:
        for runnable, _, _ in self.parts:
            runnable.reset()


class Program:
    """A compiled model: call it with a dict of arrays, or with one array if it has one input."""

    def __init__(
        self, model: Model, target: str, options: Options, wanted: Wanted,
        fallback: bool = True, cache: bool = True,
    ) -> None:  # fmt: skip
        self.model = model
        self.target: Target = best_level(target)
        self.options = options
        self.wanted = wanted
        self.fallback = fallback
        self.cache = cache
        self.by_value: set[str] = set()
        self.compiles = 0
        self.told: dict[str, Any] = {}  # what else the report says
        self._forms: OrderedDict[Any, Form] = OrderedDict()
        self._seen: list[dict[str, int]] = []
        self._general: dict[str, int | Range] | None = None
        self._growing = False
        self._too_wide = False  # a form for all sizes would take too much memory
        check_precision(options.precision, self.target)
        require_features(self.target.arch, self.target.features, self.target.name)
        first = self._eager()
        self._first = first

    # -- calling -----------------------------------------------------------------------------

    def __call__(self, inputs: Mapping[str, Any] | Any = None, **named: Any) -> dict[str, Any]:
        """Outputs by name. Raises InputError for names, types or shapes that do not fit."""
        form = self._first
        if form is not None and not self.by_value:
            if type(inputs) is np.ndarray and len(form.inputs) == 1 and not named:
                name = form.inputs[0]
                kind = form.facts["input_dtypes"][name]
                feeds = {name: as_array(name, inputs, kind)}
            else:
                feeds = self._static_feeds(form, inputs, named)
        else:
            feeds = self._feeds(inputs, named)
            form = self._form_for(feeds)
        try:
            return form.run(feeds)
        except RunError as e:
            if e.kind is not RunError.SIZES:
                raise
            return self._otherwise(form, feeds, e)

    def _otherwise(self, form: Form, feeds: Mapping[str, Any], e: RunError) -> dict[str, Any]:
        """Outputs by a form for these sizes, where the form for many takes some as equal. Raises
        RunError, with the sizes, where there is none or they do not fit either."""
        sizes = self._sizes(feeds)
        ones = self._ones(sizes)
        named = ", ".join(f"{n}={s}" for n, s in sizes.items())
        remedy = "Give inputs whose sizes fit each other."
        if form.facts["state_bytes"]:
            if ones:
                dims = " ".join(f"--dim {n}=1" for n in ones)
                remedy = f"To repeat what has a size of 1, compile for it: {dims}."
        elif ones or form is not self._first:
            own = self._form_for(feeds, wide=False)
            if own is not form:
                try:
                    return own.run(feeds)
                except RunError as again:
                    if again.kind is not RunError.SIZES:
                        raise
        raise RunError(e.what, where=e.where, why=f"{e.why}: {named}", remedy=remedy,
                       kind=RunError.SIZES) from None  # fmt: skip

    def _ones(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Bounded dimensions that are 1 now, and may be 1 where others are repeated."""
        bounds: dict[str, int | Range] = {**self.wanted.dims}
        bounds.update((n, (0, ends[-1])) for n, ends in self.wanted.buckets.items())
        return {
            n: 1 for n, d in bounds.items() if not isinstance(d, int) and sizes.get(n) == 1
        }

    def reset(self) -> None:
        """States back to their initial contents."""
        for f in self._all():
            f.reset()

    def prepare(
        self, inputs: Mapping[str, Any] | Any = None, outputs: Mapping[str, Any] | None = None
    ) -> PreparedCall:
        """A call bound to arrays, for the lowest cost per call. What is not given is made.

        inputs: as for a call; they are read where they lie, at each call. outputs: arrays by name
        that results are written to. Raises InputError for arrays that cannot be used where they
        lie, OptionError where sizes are not known beforehand or layers run in NumPy.
        """
        form = self._first
        if form is not None and not self.by_value:
            feeds = None if inputs is None else self._static_feeds(form, inputs, {})
        elif inputs is None:
            raise OptionError(f"sizes of '{self.model.name}' are open",
                              remedy="Give the inputs: their sizes are those of the call.")
        else:
            feeds = self._feeds(inputs, {})
            form = self._form_for(feeds)
        loaded = form.parts[0][0] if len(form.parts) == 1 else None
        if not isinstance(loaded, Loaded) or form.parts[0][1:] != (form.inputs, form.outputs):
            raise OptionError("a call can only be prepared where everything is compiled",
                              why="some layers run in their NumPy reference, or an output is a "
                                  "constant")  # fmt: skip
        if feeds is None:
            return loaded.prepare(None, outputs)
        given = by_name(inputs, {}, list(feeds))
        for name in form.inputs:
            check_lies(name, given[name], feeds[name])
        return loaded.prepare([feeds[n] for n in form.inputs], outputs)

    def ticks(self) -> list[list[int]]:
        """Of a program compiled with `profile`: the time that each step of `report["steps"]` has
        taken so far, a list for each of `report["placement"]`, and at its end the time now, each
        in units of a clock of its own; the counts begin anew."""
        return [r.ticks() for r, _, _ in (self._first or self._all()[-1]).parts]

    @property
    def report(self) -> dict[str, Any]:
        """What was compiled: steps, MACs, bytes, arena and its lower bound, placement."""
        forms = self._all()
        if not forms:
            return {"state": "compiled at the first call", **self.told}
        return {**(self._first or forms[-1]).facts, **self.told}

    @property
    def closed(self) -> bool:
        """Whether all sizes are known: there is one form, for all calls."""
        return self._first is not None and not self.by_value

    def _all(self) -> list[Form]:
        return ([self._first] if self._first is not None else []) + list(self._forms.values())

    # -- inputs ------------------------------------------------------------------------------

    def _static_feeds(self, form: Form, inputs: Any, named: Mapping[str, Any]) -> dict[str, Any]:
        kinds = form.facts["input_dtypes"]
        given = by_name(inputs, named, form.inputs, self.wanted.states.values())
        return {
            n: as_array(n, given[n], kinds[n]) if kinds[n] else given[n] for n in form.inputs
        }

    def _feeds(self, inputs: Any, named: Mapping[str, Any]) -> dict[str, Any]:
        tied = set(self.wanted.states.values())
        declared = [
            d for d in self.model.inputs if d.name not in tied and d.name not in self.wanted.values
        ]
        given = by_name(inputs, named, [d.name for d in declared], tied)
        arrays = {
            d.name: as_array(d.name, given[d.name], d.dtype) for d in declared if d.kind == "tensor"
        }
        return {d.name: arrays.get(d.name, given[d.name]) for d in declared}

    def _sizes(self, feeds: Mapping[str, Any]) -> dict[str, int]:
        """Sizes of the open dimensions, by name. Raises InputError where the shape does not fit."""
        env: dict[str, int] = {}
        for d in self.model.inputs:
            if d.name not in feeds or d.kind != "tensor" or d.shape is None:
                continue
            shape = feeds[d.name].shape
            if len(shape) != len(d.shape):
                raise bad_shape(d, shape, f"it has {len(shape)} dimensions, not {len(d.shape)}")
            for k, (size, want) in enumerate(zip(shape, d.shape, strict=True)):
                if isinstance(want, int) and want >= 0:
                    if want != size:
                        raise bad_shape(d, shape, f"dimension {k} is {size}, not {want}")
                    continue
                name = d.dim_name(k)
                if env.setdefault(name, size) != size:
                    raise bad_shape(d, shape, f"{name} is {env[name]} in another input")
        return env

    # -- forms -------------------------------------------------------------------------------

    def _eager(self) -> Form | None:
        """The only form there will be, if nothing is open; found in the cache without reading
        the model where it has been compiled before."""
        w = self.wanted
        if w.buckets:
            return None
        binding = Binding(w.shapes, w.dims, w.values, w.states)
        try:
            return self._make(binding, closed=True)
        except ValueNeeded as e:
            open_rank = any(d.name in e.inputs and d.shape is None for d in self.model.inputs)
            if not open_rank:
                self.by_value.update(e.inputs)
            return None
        except _Open:
            return None

    def check_wanted(self) -> None:
        """Raises OptionError where the user names an input or dimension that is not there."""
        w, names = self.wanted, [d.name for d in self.model.inputs]
        check_names("input", w.shapes, names)
        check_names("input", w.values, names)
        for d in self.model.inputs:
            if d.name in w.values and d.kind == "tensor":
                as_array(d.name, w.values[d.name], d.dtype)
        dims = [d.dim_name(k) for d in self.model.inputs for k in range(len(d.shape or ()))]
        check_names("open dimension", {**w.dims, **w.buckets}, sorted(set(dims)))
        self._check_states()

    def _check_states(self) -> None:
        """Raises ShapeError where nothing tells how large a state may become."""
        w, tied = self.wanted, set(self.wanted.states.values())
        told = {n for d in self.model.inputs if d.name not in tied for n in _open_names(d)}
        for d in self.model.inputs:
            if d.name not in tied or d.name in w.shapes:
                continue
            unknown = [n for n in _open_names(d) if n not in told and n not in w.dims]
            if unknown:
                raise ShapeError(
                    f"the state '{d.name}' has no largest size",
                    why=f"its dimension {unknown[0]} is open, and no other input has it",
                    remedy=f"Bound it: --dim {unknown[0]}=0..LARGEST.", kind=ShapeError.UNKNOWN,
                )  # fmt: skip

    def open_dims(self) -> list[str]:
        """Dimensions of the model's inputs that nothing fixes or bounds yet."""
        w = self.wanted
        out = []
        for d in self.model.inputs:
            if d.kind != "tensor" or d.name in w.shapes or d.name in w.values:
                continue
            if d.shape is None:
                out.append(d.name)
                continue
            out += [n for n in _open_names(d) if n not in w.dims]
        return out

    def _form_for(self, feeds: Mapping[str, Any], wide: bool = True) -> Form:
        """The form for these inputs; wide: it may be the one for all sizes."""
        sizes = self._sizes(feeds)
        for _ in range(len(feeds) + 3):
            binding, key = self._binding(feeds, sizes, wide and not self._too_wide)
            form = self._forms.get(key)
            if form is not None:
                self._forms.move_to_end(key)
                return form
            try:
                form = self._make(binding)
            except ValueNeeded as e:
                missing = [n for n in e.inputs if n not in feeds or n in self.by_value]
                if missing or not e.inputs:
                    why = f"it depends on {', '.join(e.inputs)}"
                    raise ShapeError(e.reason, where=e.layer, why=why) from None
                self.by_value.update(e.inputs)
                continue
            except MemoryLimitError:
                if self._general is None or self._too_wide:
                    raise
                self._too_wide = True
                continue
            self._forms[key] = form
            while len(self._forms) > KEPT:
                self._forms.popitem(last=False)
            return form
        raise ShapeError("the model's shapes cannot be found out", where=self.model.name)

    def _binding(
        self, feeds: Mapping[str, Any], sizes: Mapping[str, int], wide: bool
    ) -> tuple[Binding, Any]:
        w = self.wanted
        bound: dict[str, int | Range] = dict(w.dims)
        for name, ends in w.buckets.items():
            size = sizes.get(name, 0)
            fit = [e for e in ends if e >= size]
            if not fit:
                raise InputError(f"the dimension {name} is {size}",
                                 why=f"the largest bucket is {ends[-1]}",
                                 remedy="Compile with a larger bucket.")  # fmt: skip
            bound[name] = (0, fit[0])
        free = {n: s for n, s in sizes.items() if n not in bound}
        if free and dict(free) not in self._seen:
            self._growing |= bool(self._seen) and _grows(self._seen[-1], free)
            self._seen.append(dict(free))
        if not wide:
            bound.update(self._ones(sizes))
        if wide and (self._growing or len(self._seen) > FEW):
            bound.update(self._widen(free))
        else:
            bound.update(free)
        values = {**w.values, **{n: feeds[n] for n in sorted(self.by_value) if n in feeds}}
        shapes = dict(w.shapes)
        for d in self.model.inputs:
            if d.shape is None and d.kind == "tensor" and d.name in feeds:
                shapes[d.name] = feeds[d.name].shape
        for n in list(shapes):
            if n in values:
                del shapes[n]
        digest = tuple((n, fingerprint(v)) for n, v in values.items())
        key = (tuple(sorted(bound.items())), tuple(sorted(shapes.items())), digest)
        return Binding(shapes, bound, values, w.states), key

    def _widen(self, free: Mapping[str, int]) -> dict[str, int | Range]:
        """Ranges that take in everything seen so far, with room to grow."""
        g = self._general
        if g is None or any(not _within(free[n], g[n]) for n in free):
            out: dict[str, int | Range] = {}
            for n in free:
                seen = [s[n] for s in self._seen if n in s]
                top = max(ROOM, 1 << (4 * max(seen)).bit_length())
                out[n] = seen[0] if len(set(seen)) == 1 else (0, top)
            self._general = g = out
        return g

    def _make(self, binding: Binding, closed: bool = False) -> Form:
        from onefold.dev import listeners

        builder = FormBuilder(self, binding, closed)
        with listeners.installed():
            form = builder.form()
        self.compiles += builder.compiled
        return form


def _open_names(d: Declared) -> list[str]:
    """Names of an input's open dimensions."""
    known = [isinstance(n, int) and n >= 0 for n in d.shape or ()]
    return [d.dim_name(k) for k, fixed in enumerate(known) if not fixed]


def _grows(before: Mapping[str, int], now: Mapping[str, int]) -> bool:
    """Whether a size grew by one, or by another size of the call before, as a cache does."""
    steps = {1, *before.values()}
    grown = [size - before.get(n, size) for n, size in now.items()]
    return any(more > 0 and more in steps for more in grown)


def _within(size: int, d: int | Range) -> bool:
    return size == d if isinstance(d, int) else d[0] <= size <= d[1]


class _Open(Exception):
    """The graph still has dimensions without a bound."""


class FormBuilder:
    """Makes one form: from the cache, or by importing, optimising and compiling."""

    def __init__(self, program: Program, binding: Binding, closed: bool) -> None:
        self.program = program
        self.binding = binding
        self.closed = closed
        self.compiled = 0

    def form(self) -> Form:
        p = self.program
        if not p.cache:
            import shutil
            import tempfile
            import weakref

            folder = Path(tempfile.mkdtemp(prefix="onefold-"))
            try:
                whole, made = self._parts()
                form = self._open(folder, self._write(folder, whole, made), whole, made)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            weakref.finalize(form, shutil.rmtree, folder, ignore_errors=True)
            return form
        base, known = self._key(), p.options.tuned
        key = tuned.key_of(base, known)
        entry = store.get(key) if key else None
        graph: Graph | None = None
        parts: Sequence[Part] = ()
        if entry is None:
            graph, parts = self._parts()
            g, ps = graph, parts
            entry = store.get_or_build(
                key or base, lambda folder: self._write(folder, g, ps),
                lambda meta: tuned.remembered(base, meta["tuned"]),
            )  # fmt: skip
        elif not entry.meta["plain"]:
            graph, parts = self._parts()
        return self._open(entry.path, entry.meta, graph, parts)

    def _key(self) -> str:
        """Of everything but the times that kernels have been chosen by."""
        import json

        from onefold.run import toolchain
        from onefold.run.digest import package_digest

        p, b = self.program, self.binding
        values = {n: repr(fingerprint(v)) for n, v in b.values.items()}
        wanted = json.dumps(
            [dict(b.shapes), dict(b.dims), values, dict(b.states), p.options.precision,
             p.options.threads, p.options.optimize, p.options.exact, p.options.profile,
             p.model.format, p.fallback],
            sort_keys=True, default=list,
        )  # fmt: skip
        target = json.dumps(p.target.facts(), sort_keys=True)
        return store.key(
            p.model.digest, wanted, target, toolchain.version(), package_digest(), "form-1"
        )

    def _parts(self) -> tuple[Graph, Sequence[Part]]:
        from onefold.backends.cpu import Cpu
        from onefold.backends.reference import Reference
        from onefold.ir import dims
        from onefold.passes import pipeline
        from onefold.plan.partition import partition

        p = self.program
        p.check_wanted()
        if self.closed and p.open_dims():
            raise _Open
        graph = p.model.bind(self.binding)
        events.emit("import", graph=graph)
        for v in graph.inputs:
            for d in getattr(v.type, "shape", ()):
                if dims.upper(d) >= dims.INF:
                    if self.closed:
                        raise _Open
                    raise ShapeError(f"the dimension {d} of '{v.name}' has no bound")
        pipeline.run(graph)
        backends: list[Backend] = [Cpu(), Reference()]
        parts = partition(graph, backends, p.target)
        self._tell(parts)
        return graph, parts

    def _tell(self, parts: Sequence[Part]) -> None:
        refusals = [r for part in parts for r in part.refusals]
        if not refusals:
            return
        lines = [f"{layer} ({op}): {why}" for layer, op, _, why in refusals]
        if not self.program.fallback:
            raise FallbackError(
                f"{len(lines)} layers have no compiled form", where=self.program.model.name,
                detail=lines,
            )  # fmt: skip
        events.emit("fallback", layers=lines)
        warnings.warn(
            f"{len(lines)} of the model's layers run in their NumPy reference, which is slow: "
            + "; ".join(lines[:5]) + ("; ..." if len(lines) > 5 else ""),
            stacklevel=6,
        )  # fmt: skip

    def _write(self, folder: Path, graph: Graph, parts: Sequence[Part]) -> Mapping[str, Any]:
        p = self.program
        facts = []
        for k, part in enumerate(parts):
            sub = folder / f"part{k}"
            sub.mkdir()
            facts.append(dict(part.backend.compile(part.graph, p.target, sub, p.options)))
        p.model.check_unwritten()
        self.compiled += 1
        names = [part.backend.name for part in parts]
        plain = names == ["cpu"] and not any(v.is_const for v in graph.outputs)
        plain = plain and len({id(v) for v in graph.outputs}) == len(graph.outputs)
        inputs = [v.name for v in graph.inputs]
        return {
            "parts": names, "plain": plain, "model": p.model.name, "inputs": inputs,
            "outputs": [d.name for d in _kept_outputs(p)],
            "report": _report(facts, names, p.target),
            "refusals": [r for part in parts for r in part.refusals],
            "tuned": [f["tuned"] for f in facts if "tuned" in f],
            "input_dtypes": {
                v.name: getattr(getattr(v.type, "dtype", None), "long", "") for v in graph.inputs
            },
        }  # fmt: skip

    def _open(
        self, folder: Path, meta: Mapping[str, Any], graph: Graph | None, parts: Sequence[Part]
    ) -> Form:
        facts = {**meta["report"], "input_dtypes": meta["input_dtypes"],
                 "refusals": meta["refusals"]}  # fmt: skip
        if meta["plain"]:
            ins, outs = tuple(meta["inputs"]), tuple(meta["outputs"])
            runnable = Loaded(Artifact.open(folder / "part0"))
            return Form(ins, outs, ((runnable, ins, outs),), {}, facts, outs)
        assert graph is not None
        names = {id(v): v.name for v in graph.inputs}
        made = []
        for k, part in enumerate(parts):
            r = part.backend.load(folder / f"part{k}", part.graph)
            keys = tuple(names.get(id(v), id(v)) for v in part.graph.inputs)
            made.append((r, keys, tuple(id(v) for v in part.graph.outputs)))
        constants = {id(v): v.data for v in graph.outputs if v.is_const}
        outs = tuple(d.name for d in _kept_outputs(self.program))
        keys = tuple(names.get(id(v), id(v)) for v in graph.outputs)
        return Form(tuple(meta["inputs"]), outs, tuple(made), constants, facts, keys)


def _kept_outputs(p: Program) -> list[Declared]:
    return [d for d in p.model.outputs if d.name not in p.wanted.states]


def _report(
    facts: Sequence[Mapping[str, Any]], backends: Sequence[str], target: Target
) -> dict[str, Any]:
    keep = ("arena_bytes", "arena_lower_bound", "weights_bytes", "state_bytes")
    out: dict[str, Any] = {k: sum(f.get(k, 0) for f in facts) for k in keep}
    pairs = zip(facts, backends, strict=True)
    steps = [{**s, "backend": b} for f, b in pairs for s in f.get("steps", ())]
    out["macs"] = sum(s.get("macs", 0) for s in steps)
    out["steps"] = steps
    out["placement"] = list(backends)
    out["target"] = target.name
    out["tuned"] = sum(s.get("tuned", False) for s in steps)
    out["threads"] = max((f.get("threads", 1) for f in facts), default=1)
    return out


def run_reference(model: Model, inputs: Any) -> dict[str, Any]:
    """See Model.run."""
    from onefold.dev.reference import evaluate

    feeds = by_name(inputs, {}, [d.name for d in model.inputs])
    arrays = {
        d.name: as_array(d.name, feeds[d.name], d.dtype) if d.kind == "tensor" else feeds[d.name]
        for d in model.inputs
    }
    shapes = {n: a.shape for n, a in arrays.items() if isinstance(a, np.ndarray)}
    binding = Binding(shapes=shapes)
    for _ in range(len(arrays) + 1):
        try:
            graph = model.bind(binding)
            break
        except ValueNeeded as e:
            missing = [n for n in e.inputs if n not in binding.values]
            if not missing:
                raise ShapeError(e.reason, where=e.layer) from None
            values = {**binding.values, **{n: arrays[n] for n in missing}}
            binding = replace(binding, values=values)
    outs = evaluate(graph, [arrays[v.name] for v in graph.inputs])
    return dict(zip([d.name for d in model.outputs], outs, strict=True))


__all__ = ["Form", "OnefoldError", "Program", "Wanted", "parse_dim", "run_reference"]
