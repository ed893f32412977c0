"""What an operator is.

One class per operator says everything that is simple about it: its names in the source formats,
the types of its results, a slow obvious NumPy reference, how one element of the result is
computed (from which C is made, for every target), and cases to test it with. A class is found by
being defined in this package or in a file given with `--ops`.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, dataclass_transform

import numpy as np

from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Builder, Node, Value
from onefold.ir.scalar import Scalar, TensorExpr, stored
from onefold.ir.types import AnyType, TensorType

if TYPE_CHECKING:
    from onefold.ops.formats import OnnxNode, TfliteNode

Budget = str  # "exact" | "ulp:4" | "rel:1e-4"


class NeedsValue(Exception):
    """An operator cannot be typed without the contents of a value that only run time knows."""

    def __init__(self, value: Value, reason: str) -> None:
        super().__init__(f"{value.name}: {reason}")
        self.value = value
        self.reason = reason


class Refusal(Exception):
    """An operator's attributes, types or shapes are not taken; the text says why."""


class TooLarge(Refusal):
    """A result would take more bytes than ONEFOLD_MEMORY_LIMIT allows."""


@dataclass(frozen=True, slots=True)
class Case:
    """One test of an operator: inputs (arrays, made by a seeded function or given), attributes.

    `id` renders it as `Op(attr=..)(shape:dtype,...;seed=n)`, which identifies it everywhere.
    """

    inputs: tuple[Any, ...]  # ndarray | None | (shape, dtype short name)
    attrs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    low: float = -3.0
    high: float = 3.0
    const: tuple[int, ...] = ()  # inputs that are constants of the graph

    def id(self, op: str) -> str:
        """The case in one line; contents that are given appear as a digest."""
        attrs = ",".join(f"{k}={v!r}".replace(" ", "") for k, v in self.attrs.items())
        inputs = ",".join(_input_id(x) + "!" * (k in self.const) for k, x in enumerate(self.inputs))
        drawn = any(isinstance(x, tuple) for x in self.inputs)
        span = "" if (self.low, self.high) == (-3.0, 3.0) else f";{self.low:g}..{self.high:g}"
        return f"{op}({attrs})({inputs}{span if drawn else ''};seed={self.seed})"

    def arrays(self) -> list[Array | None]:
        rng = np.random.Generator(np.random.PCG64(self.seed))
        out: list[Array | None] = []
        for x in self.inputs:
            if isinstance(x, tuple):
                shape, kind = x
                t = dtypes.BY_NAME[kind]
                if t is dtypes.b1:
                    out.append(rng.integers(0, 2, shape).astype(bool))
                elif t.is_int:
                    lo, hi = max(t.lo, -(1 << 31)), min(t.hi, (1 << 31) - 1)
                    out.append(rng.integers(lo, hi + 1, shape).astype(t.numpy))
                else:
                    out.append(np.asarray(rng.uniform(self.low, self.high, shape), t.numpy))
            else:
                out.append(x)
        return out


def _input_id(x: Any) -> str:
    if x is None:
        return "-"
    if isinstance(x, tuple):
        return "x".join(map(str, x[0])) + ":" + str(x[1])
    a = np.asarray(x)
    raw = repr(a.tolist()).encode() if a.dtype == object else a.tobytes()
    return "x".join(map(str, a.shape)) + f":{dtypes.of(a.dtype).name}#{zlib.crc32(raw):08x}"


@dataclass(frozen=True, slots=True)
class Code:
    """C text of a step whose inputs and outputs lie in memory row by row.

    The text is a function body: x0, x1, ... point at the inputs (storage types), y0, ... at the
    outputs, `s` at `scratch` bytes; sizes are written through `Lowering.dim`. `stop(reason)` ends
    the program with an error; includes name headers of `onefold/kernels`. Where `turns` is not
    empty, the body is the loop `turns("0", turns)` with what it declares before, and its turns may
    run in any order and at once; each gets at its own of as many equal shares of what `inplace`
    names, in the order of the turns.
    """

    text: str
    includes: tuple[str, ...] = ()
    scratch: Dim = 0
    stops: bool = False  # may end the program with an error
    inplace: tuple[tuple[int, int], ...] = ()  # (output, input) that may share memory
    turns: str = ""


def turns(first: str, end: str) -> str:
    """The head of the loop of a `Code` whose turns are independent of each other."""
    return f"for (ix o = {first}; o < {end}; o++)"


@dataclass(frozen=True, slots=True)
class Alias:
    """The result is input `index` under another shape: no step at all, where memory allows."""

    index: int = 0


@dataclass(frozen=True, slots=True)
class Pieces:
    """The result is put together from parts: (start, part) along `axis`; each part writes its own
    share of the result, by the step that computes it where memory allows."""

    axis: int
    parts: tuple[tuple[Dim, TensorExpr], ...]


Lowered = TensorExpr | Sequence[TensorExpr] | Code | Alias | Pieces


class Lowering:
    """What `Op.lower` works with: the node, and its inputs element by element."""

    def __init__(self, node: Node, inputs: Sequence[TensorExpr | None]) -> None:
        self.node = node
        self.inputs = list(inputs)
        self.symbols: dict[str, dims.Sym] = {}
        self.written: dict[str, dims.Sym] = {}

    def x(self, i: int = 0) -> TensorExpr:
        t = self.inputs[i] if i < len(self.inputs) else None
        if t is None:
            raise Refusal(f"input {i} is missing")
        return t

    def has(self, i: int) -> bool:
        return i < len(self.inputs) and self.inputs[i] is not None

    def y(self, i: int = 0) -> TensorType:
        """The type of output i."""
        return self.node.outputs[i].tensor

    def map(self, fn: Callable[..., Scalar], i: int = 0) -> TensorExpr:
        """Output i, element by element: fn(i0, i1, ...) -> Scalar."""
        return TensorExpr(self.y(i), fn)

    def dim(self, d: Dim) -> str:
        """A size as C text, inside `Code`."""
        from onefold.codegen.text import dim_text

        for s in dims.symbols(d):
            self.symbols[s.name] = s
        text = dim_text(d)
        return f"({text})" if " * " in text else text

    def put_dim(self, d: Dim) -> str:
        """The C place where `Code` stores the size that it found out (a fresh symbol)."""
        (s,) = dims.symbols(d)
        self.written[s.name] = s
        return f"(*o_{s.name})"

    def ctype(self, i: int) -> str:
        """C storage type of input i."""
        return self.x(i).dtype.ctype

    def load(self, i: int, at: str) -> str:
        """C text: element `at` of input i in its compute type."""
        from onefold.codegen.text import from_storage

        return from_storage(f"x{i}[{at}]", self.x(i).dtype)

    def store(self, i: int, at: str, value: str) -> str:
        """C text: statement that stores a compute-type value into output i."""
        from onefold.codegen.text import to_storage

        return f"y{i}[{at}] = {to_storage(value, self.y(i).dtype)};"


class Op:
    """Base of all operators; a subclass is a frozen dataclass whose fields are its attributes."""

    onnx: ClassVar[tuple[str, ...]] = ()  # "Add", "com.microsoft:FusedMatMul"
    tflite: ClassVar[tuple[str, ...]] = ()  # "ADD", custom names as they are
    pure: ClassVar[bool] = True  # same inputs, same result: may be folded, merged, dropped
    lazy: ClassVar[bool] = False  # folded by the pass of that name only, so that others see it
    exact: ClassVar[bool] = False  # integer or movement: results must be equal
    cases: ClassVar[tuple[Case, ...]] = ()
    host_only: ClassVar[str] = ""  # why there is no compiled form

    @property
    def name(self) -> str:
        return type(self).__name__

    def infer(self, n: Node) -> Sequence[AnyType]:
        """Types of the results. Raises Refusal or NeedsValue."""
        raise NotImplementedError(self.name)

    def contents(self, n: Node) -> Sequence[tuple[Dim, ...] | None]:
        """Elements of small integer results where they follow from shapes (see Value.content)."""
        return [None] * len(n.outputs)

    def agreements(self, n: Node) -> Sequence[tuple[Dim, Dim]]:
        """Extents that `infer` takes to be equal although run time could have it otherwise: the
        step that computes the node stops where they are not."""
        if all(isinstance(v.type, TensorType) and v.type.static for v in n.present()):
            return ()
        found: list[tuple[Dim, Dim]] = []
        token = _AGREED.set(found)
        try:
            self.infer(n)
        finally:
            _AGREED.reset(token)
        return found

    def ref(self, n: Node, *x: Any) -> Any:
        """The slow, obvious result(s) on NumPy arrays; the definition of the operator."""
        raise NotImplementedError(self.name)

    def ref_in(self, n: Node, env: Any, *x: Any) -> Any:
        """As `ref`, for operators that run bodies: env.run(graph, inputs), env.get(value)."""
        return self.ref(n, *x)

    def lower(self, k: Lowering) -> Lowered:
        """The compiled form."""
        raise NotImplementedError(self.name)

    def macs(self, n: Node) -> int:
        """Multiply-adds of one execution at the largest shape; 0 for everything else."""
        return 0

    def work(self, n: Node) -> int:
        """Elements that the reference goes through, where they are many more than its results."""
        return self.macs(n)

    def compiled(self, n: Node) -> str:
        """Empty where this node can become C, else the reason why not."""
        if self.host_only:
            return self.host_only
        if type(self).lower is Op.lower and not n.regions:
            return f"{self.name} has no compiled form yet"
        for v in (*n.present(), *n.outputs):
            if not isinstance(v.type, TensorType):
                return f"{v.name} is a {v.type}, which lives on the host only"
            if v.type.dtype is dtypes.string:
                return f"{v.name} holds strings, which live on the host only"
        return ""

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        """Nodes for one ONNX node: fields take the attributes of the same names."""
        return b.ops(cls(**n.fields(cls)), *n.inputs, name=n.output_names)

    @classmethod
    def from_tflite(cls, n: TfliteNode, b: Builder) -> Sequence[Value]:
        """Nodes for one TFLite operator: fields take the options of the same names."""
        return b.ops(cls(**n.fields(cls)), *n.inputs, name=n.output_names, types=n.output_types)


T = TypeVar("T", bound=type[Op])


class Registry:
    """All operators, by class name and by the names that the source formats use."""

    def __init__(self) -> None:
        self.by_name: dict[str, type[Op]] = {}
        self.onnx: dict[str, type[Op]] = {}
        self.tflite: dict[str, type[Op]] = {}

    def add(self, cls: T) -> T:
        self.by_name[cls.__name__] = cls
        for name in cls.onnx:
            self.onnx[name] = cls
        for name in cls.tflite:
            self.tflite[name] = cls
        return cls

    def make(self, name: str, **fields: Any) -> Op:
        """An operator of the class `name`."""
        return self.by_name[name](**fields)

    def all(self) -> Iterable[type[Op]]:
        return self.by_name.values()


registry = Registry()


@dataclass_transform(frozen_default=True)
def operator(cls: T) -> T:
    """Class decorator: a frozen dataclass that the registry knows."""
    registry.add(dataclass(frozen=True)(cls))  # made in place: the same class
    return cls


def as_inputs(node: Node) -> list[TensorExpr | None]:
    """The node's inputs as they lie in memory."""
    return [None if v is None else stored(v) for v in node.inputs]


_AGREED: ContextVar[list[tuple[Dim, Dim]] | None] = ContextVar("agreed", default=None)


def agree(a: Dim, b: Dim) -> bool:
    """False where two extents are certainly different; where that is open, they become an
    agreement of the node that is being typed (see Op.agreements)."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    found = _AGREED.get()
    if found is not None and a != b:
        found.append((a, b))
    return True


def broadcast_shapes(*shapes: dims.Shape) -> dims.Shape:
    """NumPy broadcasting over dimensions that may be symbols.

    A symbol meets 1 as itself; two different symbols, or a symbol and another number, are taken
    to be equal: see `agree`.
    """
    rank = max((len(s) for s in shapes), default=0)
    out: list[Dim] = []
    for k in range(rank):
        here: Dim = 1
        for s in shapes:
            at = k - (rank - len(s))
            if at < 0 or s[at] == 1 or s[at] == here:
                continue
            if here == 1:
                here = s[at]
            elif not agree(here, s[at]):
                raise Refusal(f"shapes {_show(shapes)} do not broadcast: {here} against {s[at]}")
            elif isinstance(s[at], int):
                here = s[at]
        out.append(here)
    return tuple(out)


def _show(shapes: Iterable[dims.Shape]) -> str:
    return " and ".join("[" + ",".join(map(str, s)) + "]" for s in shapes)


def axis_of(axis: int, rank: int, what: str = "axis") -> int:
    """A non-negative axis. Raises Refusal outside [-rank, rank)."""
    if not -rank <= axis < max(rank, 1):
        raise Refusal(f"{what} {axis} is outside a tensor of rank {rank}")
    return axis + rank if axis < 0 else axis


def true_axis(axis: int, rank: int, what: str = "axis") -> int:
    """As `axis_of`, of an axis whose extent matters: a single number has none."""
    if not rank:
        raise Refusal(f"{what} {axis} of a single number")
    return axis_of(axis, rank, what)


def need_const(n: Node, i: int, what: str) -> Array:
    """The data of input i, which must be known to compile. Raises NeedsValue."""
    v = n.arg(i)
    if v.data is not None:
        return v.data
    if v.content is not None and all(isinstance(c, int) for c in v.content):
        return np.array(v.content, np.int64).reshape(v.tensor.ints)
    raise NeedsValue(v, f"{n.op.name} needs the values of its {what} to be compiled")


def need_dims(n: Node, i: int, what: str) -> tuple[Dim, ...]:
    """The elements of input i as dimensions (symbols allowed). Raises NeedsValue."""
    v = n.arg(i)
    if v.content is not None:
        return v.content
    data = need_const(n, i, what)
    if data.dtype.kind not in "iub":
        raise Refusal(f"its {what} must be integers, not {data.dtype.name}")
    return tuple(int(d) for d in data.reshape(-1))
