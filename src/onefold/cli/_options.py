"""Options that several verbs share, in one place."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onefold.errors import OptionError

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.forms import Program, Wanted
    from onefold.frontend.binding import Binding
    from onefold.options import Options

F = TypeVar("F", bound=Callable[..., Any])
PRECISIONS = ("f32", "bf16", "f16", "auto")


@dataclass(frozen=True)
class Wishes:
    """What the shared options say."""

    json: bool = False
    ops: str | None = None
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dims: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    target: str = "host"
    threads: int = 1
    precision: str = "f32"
    optimize: str = ""
    exact: bool = False
    tuned: bool = True
    fallback: bool = True

    def load(self, path: str) -> Model:
        """The model. Raises OptionError where an option names what it does not have."""
        import onefold

        model = onefold.load(path, ops=self.ops)
        if self.shapes or self.dims or self.states or self.values:
            self._check_names(model)
            self._fit_values(model)
        return model

    def _fit_values(self, model: Model) -> None:
        """Values in the element types of their inputs, where that loses nothing."""
        from onefold.dev.feed import Port
        from onefold.dev.feed.arrays import fitted
        from onefold.ir import dtypes

        for d in model.inputs:
            if d.name in self.values and d.dtype in dtypes.BY_NAME:
                port = Port(d.name, dtypes.BY_NAME[d.dtype].numpy, None)
                self.values[d.name] = fitted(self.values[d.name], port).array

    def _check_names(self, model: Model) -> None:
        inputs = [d.name for d in model.inputs]
        open_dims = dict.fromkeys(
            d.dim_name(k) for d in model.inputs for k, n in enumerate(d.shape or ())
            if not isinstance(n, int) or n < 0
        )  # fmt: skip
        # Some formats give a size to what may be resized; such axes are not declared as open.
        axes = [f"{d.name}.{k}" for d in model.inputs for k in range(len(d.shape or ()))]
        _known("--shape", self.shapes, inputs, "input")
        _known("--value", self.values, inputs, "input")
        _known("--state", self.states.values(), inputs, "input")
        _known("--state", self.states, [d.name for d in model.outputs], "output")
        resized = [n for n in self.dims if n not in axes]
        _known("--dim", resized, list(open_dims), "open dimension")

    def compile(self, model: Model, **more: Any) -> Program:
        """The program; `more` replaces arguments of `Model.compile`."""
        given: dict[str, Any] = {
            "target": self.target, "precision": self.precision, "threads": self.threads,
            "optimize": self.options().optimize, "exact": self.exact, "tuned": self.tuned,
            "shapes": self.shapes, "dims": self.dims, "states": self.states,
            "values": self.values, "fallback": self.fallback,
        }  # fmt: skip
        return model.compile(**{**given, **more})

    def options(self) -> Options:
        """What is asked of programs for this machine."""
        from onefold.options import DEFAULTS, Options

        goal = self.optimize or DEFAULTS.optimize
        return Options(self.precision, self.threads, goal, self.exact)

    def wanted(self) -> Wanted:
        """What is fixed about the model."""
        from onefold.forms import Wanted

        return Wanted.of(self.shapes, self.dims, self.states, self.values)

    def binding(self) -> Binding:
        """What is fixed, for verbs that look at the graph; of several buckets the largest."""
        from onefold.frontend.binding import Binding

        w = self.wanted()
        largest = {name: ends[-1] for name, ends in w.buckets.items()}
        return Binding(w.shapes, {**w.dims, **largest}, w.values, w.states)


def _known(option: str, given: Iterable[str], known: list[str], what: str) -> None:
    from onefold.errors import did_you_mean

    for name in given:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise OptionError(f"{option}: the model has no {what} '{name}'",
                              why=did_you_mean(name, known),
                              remedy=f"It has these {what}s: {listed}.")  # fmt: skip


def _pairs(what: str) -> Callable[[Any, Any, tuple[str, ...]], dict[str, str]]:
    def parse(ctx: Any, param: Any, given: tuple[str, ...]) -> dict[str, str]:
        out = {}
        for text in given:
            name, sign, value = text.rpartition("=") if what == "NAME=DIMS" else text.partition("=")
            if not sign or not name or not value:
                raise click.BadParameter(f"'{text}' is not of the form {what}.")
            out[name] = value
        return out

    return parse


def _shapes(ctx: Any, param: Any, given: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    out = {}
    for name, text in _pairs("NAME=DIMS")(ctx, param, given).items():
        try:
            out[name] = tuple(int(d) for d in text.replace("x", ",").split(","))
        except ValueError:
            raise click.BadParameter(f"'{text}' is not a shape such as 1x3x224x224.") from None
        if min(out[name]) < 0:
            raise click.BadParameter(f"'{text}' has a negative size.")
    return out


def _values(ctx: Any, param: Any, given: tuple[str, ...]) -> dict[str, Any]:
    pairs = _pairs("NAME=FILE.npy or NAME=1,2,3")(ctx, param, given)
    return {name: _value(name, text) for name, text in pairs.items()}


def _value(name: str, text: str) -> Any:
    import numpy as np

    if text.endswith(".npy"):
        from onefold.dev.feed.arrays import read_npy

        return read_npy(text)
    try:
        numbers = [int(x) for x in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"'{text}' is neither a .npy file nor whole numbers.") from None
    return np.array(numbers if "," in text else numbers[0], np.int64)


_JSON = [click.option("--json", is_flag=True, help="Print one JSON object instead of text.")]
_BIND = [
    click.option("--ops", metavar="FILE.py", help="Operators of your own."),
    click.option("--shape", "shapes", multiple=True, callback=_shapes, metavar="NAME=1x3x224x224",
                 help="Whole shape of an input."),
    click.option("--dim", "dims", multiple=True, callback=_pairs("NAME=SIZE"), metavar="NAME=SIZE",
                 help="An open dimension: one size, several (32,64), or a range (0..2048)."),
    click.option("--state", "states", multiple=True, callback=_pairs("OUT=IN"), metavar="OUT=IN",
                 help="An output that is an input of the next call."),
    click.option("--value", "values", multiple=True, callback=_values, metavar="NAME=FILE.npy",
                 help="Contents of an input that decides shapes (or numbers: NAME=1,2,3)."),
]  # fmt: skip
_TARGET = click.option("--target", default="host", show_default=True, metavar="T",
                       help="Machine to compile for; `onefold targets` lists them.")  # fmt: skip
_THREADS = click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True,
                        help="Threads of one call.")  # fmt: skip
_EXACT = click.option("--exact", is_flag=True,
                      help="Only algorithms whose rounding errors are those of plain sums: no "
                           "Winograd convolutions.")  # fmt: skip
_OPTIMIZE = click.option(
    "--optimize", default="", metavar="latency|size|-O2|...",
    help="What to make it for: the shortest calls, or few bytes of code and weights (default: "
         "latency, and size without an operating system); or a level of the C compiler.",
)  # fmt: skip
_TUNED = click.option("--no-tuned", "tuned", is_flag=True, flag_value=False, default=True,
                      help="Choose kernels by their estimated cost alone, not by times that "
                           "`onefold tune` has measured.")  # fmt: skip
_PRECISION = click.option(
    "--precision", type=click.Choice(PRECISIONS), default="f32", show_default=True,
    help="Type in which convolutions and matrix products of f32 multiply; sums stay f32.",
)  # fmt: skip
_COMPILE = [
    _THREADS,
    _OPTIMIZE,
    _EXACT,
    _TUNED,
    _PRECISION,
    click.option("--no-fallback", "fallback", is_flag=True, flag_value=False, default=True,
                 help="Refuse layers that have no compiled form."),
]  # fmt: skip


def json_option(fn: F) -> F:
    """--json alone, as argument `wishes`."""
    return _with(_JSON)(fn)


def bind_options(fn: F) -> F:
    """Options about the model and its target: --ops, --shape, --dim, --state, --value, --target,
    and --json."""
    return _with([*_BIND, _TARGET, *_JSON])(fn)


def build_options(fn: F) -> F:
    """Those of `bind_options`, --threads, --optimize, --exact, --no-tuned and --precision."""
    return _with([*_BIND, _TARGET, _THREADS, _OPTIMIZE, _EXACT, _TUNED, _PRECISION, *_JSON])(fn)


def compile_options(fn: F) -> F:
    """All shared options."""
    return _with([*_BIND, _TARGET, *_COMPILE, *_JSON])(fn)


def _with(options: list[Any]) -> Callable[[F], F]:
    names = list(Wishes.__dataclass_fields__)

    def decorate(fn: F) -> F:
        @functools.wraps(fn)
        def call(**given: Any) -> Any:
            wishes = Wishes(**{n: given.pop(n) for n in names if n in given})
            return fn(wishes=wishes, **given)

        wrapped: Any = call
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped  # type: ignore[no-any-return]

    return decorate


def name_and_file(text: str, names: list[str]) -> tuple[str, str]:
    """NAME=FILE, or FILE alone for the only input. Raises OptionError for an unknown name."""
    name, sign, _path = text.partition("=")
    for known in names:  # a name may contain the sign itself
        if text.startswith(known + "="):
            return known, text[len(known) + 1 :]
    if not sign and (len(names) == 1 or text.endswith(".npz")):
        return (names[0] if len(names) == 1 else ""), text
    from onefold.errors import did_you_mean

    if not sign:
        raise OptionError(
            f"the model has {len(names)} inputs, and '{text}' is given for none",
            remedy=f"Write --input NAME={text}; the names are {', '.join(names)}.",
        )
    raise OptionError(f"there is no input '{name}'", why=did_you_mean(name, names),
                      remedy=f"The model's inputs are {', '.join(names)}.")  # fmt: skip
