"""The whole flow on one page: load, compile, run.

    model = onefold.load("net.onnx")
    program = model.compile(target="host")
    out = program({"input": x})
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onefold.errors import ModelFormatError, OptionError, ShapeError
from onefold.files import Files

if TYPE_CHECKING:
    from onefold.forms import Program
    from onefold.frontend.binding import Binding
    from onefold.frontend.model import Declared, SourceModel
    from onefold.ir.graph import Graph

PRECISIONS = ("f32", "bf16", "f16", "auto")


def load(
    source: str | os.PathLike[str] | bytes | Any,
    *,
    format: str = "",
    ops: str | os.PathLike[str] | None = None,
) -> Model:
    """A model from a path, from bytes, or from an `onnx.ModelProto`.

    format: one of the importers' names, where the contents should not decide. ops: a Python file
    with operators of your own. Nothing is parsed before it is needed.
    Raises ModelFormatError for a file that cannot be read.
    """
    if ops is not None:
        from onefold.ops.own import load_file

        load_file(Path(ops))
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.exists():
            raise ModelFormatError(f"there is no file '{path}'", kind=ModelFormatError.MISSING)
        return Model(path, format, ops)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return Model(bytes(source), format, ops)
    if hasattr(source, "SerializeToString"):
        return Model(source, "onnx", ops)
    raise OptionError(
        f"a model cannot be loaded from {type(source).__name__}",
        remedy="Give a path, bytes, or an onnx.ModelProto.",
    )


class Model:
    """A model that can be compiled, looked at and run. Made by `load`."""

    def __init__(
        self,
        source: Path | bytes | Any,
        format: str = "",
        ops: str | os.PathLike[str] | None = None,
    ) -> None:
        self.source = source
        self.format = format
        self.ops = ops
        self._read: SourceModel | None = None
        self._digest = ""
        self._files = Files()

    @property
    def name(self) -> str:
        return self.source.name if isinstance(self.source, Path) else "model"

    @property
    def digest(self) -> str:
        """A digest of the file and of the files with its weights, where there are any."""
        if not self._digest:
            from onefold.run.digest import file_digest, model_digest, with_externals

            if isinstance(self.source, Path):
                def of(path: Path) -> str:
                    self._files.look(path)
                    found = file_digest(path)
                    self._files.look(path)
                    return found

                self._digest = with_externals(self.source, of, lambda: self.read.external_files)
            else:
                self._digest = model_digest(self.source)
            if self.ops is not None:
                self._digest += file_digest(Path(self.ops))
        return self._digest

    @property
    def read(self) -> SourceModel:
        """The file's own records."""
        if self._read is None:
            from onefold.frontend import read_model

            self._read = read_model(self.source, self.format, self._files)
        return self._read

    def check_unwritten(self) -> None:
        """Raises ModelFormatError where the model's files were written to since they were read."""
        self._files.check_unwritten()

    @property
    def inputs(self) -> Sequence[Declared]:
        """Inputs as the file declares them."""
        return self.read.inputs

    @property
    def outputs(self) -> Sequence[Declared]:
        """Outputs as the file declares them."""
        return self.read.outputs

    @property
    def graph(self) -> Graph:
        """The model as a graph, before any pass, open dimensions as symbols."""
        from onefold.frontend.binding import Binding, ValueNeeded

        try:
            return self.bind(Binding())
        except ValueNeeded as e:
            raise ShapeError(e.reason, where=e.layer,
                             why=f"it depends on the contents of {', '.join(e.inputs)}",
                             remedy="model.compile() finds them out when it is called, or takes "
                                    "them as values={name: array}.") from None  # fmt: skip

    def bind(self, binding: Binding) -> Graph:
        """The graph under a binding of shapes, dimensions and values."""
        from onefold.errors import UnsupportedModelError

        try:
            read = self.read
            self.check_unwritten()
            graph = read.graph(binding)
            graph.source_bytes = self.read.weights_bytes
            return graph
        except UnsupportedModelError as e:
            if not self._fits_otherwise(binding, {m.layer for m in e.misses}):
                raise
            layers = "a layer does" if len(e.misses) == 1 else f"{len(e.misses)} layers do"
            raise ShapeError(
                f"{layers} not take the sizes given", where=e.where, detail=e.lines(),
                why="with other sizes the model is taken",
                remedy="Give sizes or contents that fit: --shape INPUT=1x3x224x224, "
                       "--dim NAME=SIZE, --value INPUT=1,2,3.",
            ) from None  # fmt: skip

    def _fits_otherwise(self, binding: Binding, layers: set[str]) -> bool:
        """Whether none of the layers is refused where nothing is fixed."""
        from onefold.errors import OnefoldError, UnsupportedModelError
        from onefold.frontend.binding import Binding, ValueNeeded

        if not (binding.shapes or binding.dims or binding.values):
            return False
        try:
            self.read.graph(Binding())
        except ValueNeeded as e:
            return layers <= e.taken | {e.layer}
        except UnsupportedModelError as e:
            return not layers & {m.layer for m in e.misses}
        except OnefoldError:
            return False
        return True

    def compile(
        self,
        target: str = "host",
        precision: str = "f32",
        threads: int = 1,
        *,
        shapes: Mapping[str, Sequence[int]] | None = None,
        dims: Mapping[str, int | Sequence[int] | tuple[int, int] | range | str] | None = None,
        states: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
        fallback: bool = True,
        optimize: str = "latency",
        exact: bool = False,
        profile: bool = False,
        tuned: bool = True,
        cache: bool = True,
    ) -> Program:
        """A program for this machine or one like it.

        shapes: whole shapes of inputs by name. dims: open dimensions by name: a size, "LO..HI"
        (bounded at run time), or several sizes (buckets). states: output name -> input name that
        receives it at the next call. values: contents of inputs that decide shapes.
        precision: "f32"; "bf16" or "f16" to multiply in these (see docs/numerics.md); or "auto" for
        the fastest of those whose error on random inputs is small, as the report tells. threads: of
        one call; the results are the same for any number. fallback: whether layers without a
        compiled form may run in NumPy, with a warning. optimize: "latency", or "size" for less code
        and no weights in a larger form than needed; or a level of the C compiler ("-O2"). exact:
        keep to algorithms whose errors are those of plain sums: no Winograd convolutions. profile:
        count the time of each step (see Program.ticks). tuned: choose kernels by the times that
        `onefold tune` has measured, where it has.
        Raises UnsupportedModelError, ShapeError, FallbackError, TargetError, ToolchainError.
        """
        from onefold.forms import Program, Wanted
        from onefold.options import Options, check_optimize, check_threads

        _check_precision(precision)
        check_threads(threads)
        check_optimize(optimize)
        if threads > 1:
            _warn_of_cpus(threads)
        wanted = Wanted.of(shapes, dims, states, values)
        known = None
        if tuned:
            from onefold.run.tuned import times_for
            from onefold.target import find

            known = times_for(find(target))

        def make(precision: str) -> Program:
            options = Options(precision, threads, optimize, exact, profile, known)
            return Program(self, target, options, wanted, fallback, cache)

        if precision == "auto":
            from onefold.dev.precision import fastest

            return fastest(make)
        return make(precision)

    def run(self, inputs: Mapping[str, Any] | Any) -> dict[str, Any]:
        """The outputs by the operators' NumPy references: slow, needs no compiler."""
        from onefold.forms import run_reference

        return run_reference(self, inputs)

    def __repr__(self) -> str:
        ins = ", ".join(map(repr, self.inputs))
        outs = ", ".join(map(repr, self.outputs))
        return f"Model({self.name}: {ins} -> {outs})"


def _warn_of_cpus(threads: int) -> None:
    from onefold.run.team import usable

    if threads > usable():
        warnings.warn(
            f"{threads} threads were asked for; calls in this process use {usable()}, one for each "
            "CPU (ONEFOLD_THREADS changes that)",
            stacklevel=3,
        )  # fmt: skip


def _check_precision(precision: str) -> None:
    """Raises OptionError."""
    if precision not in PRECISIONS:
        raise OptionError(f"there is no precision '{precision}'",
                          why="it is one of " + ", ".join(PRECISIONS))  # fmt: skip
