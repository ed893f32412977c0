"""The value of one element, as an expression: what operators lower to.

An operator says how one element of its result is computed from elements of its inputs
(`TensorExpr`: index -> Scalar). The same expressions become C loops, fuse by substitution, and
know which elements they read, so that in-place writes can be proved.

Arithmetic happens in compute types: f32 for every float type narrower than f64, the integer type
itself (wrapping) for integers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.dtypes import DType
from onefold.ir.graph import Node, Value
from onefold.ir.types import TensorType

Number = int | float | bool


class Scalar:
    """Base of the expression nodes. Nodes are shared, never changed, compared by identity."""

    __slots__ = ("dtype",)
    dtype: DType

    def parts(self) -> tuple[Scalar, ...]:
        return ()

    def indices(self) -> tuple[Dim, ...]:
        """Index expressions held by this node itself."""
        return ()

    def index_symbols(self) -> set[dims.Sym]:
        """Every loop counter or dimension that the value depends on."""
        out: set[dims.Sym] = set()
        for s in walk(self):
            for d in s.indices():
                out.update(dims.symbols(d))
        return out

    def _bin(self, op: str, other: Scalar | Number, swap: bool = False) -> Scalar:
        o = as_scalar(other, self.dtype)
        a, b = (o, self) if swap else (self, o)
        return binary(op, a, b)

    def __add__(self, o: Scalar | Number) -> Scalar:
        return self._bin("+", o)

    def __radd__(self, o: Number) -> Scalar:
        return self._bin("+", o, True)

    def __sub__(self, o: Scalar | Number) -> Scalar:
        return self._bin("-", o)

    def __rsub__(self, o: Number) -> Scalar:
        return self._bin("-", o, True)

    def __mul__(self, o: Scalar | Number) -> Scalar:
        return self._bin("*", o)

    def __rmul__(self, o: Number) -> Scalar:
        return self._bin("*", o, True)

    def __truediv__(self, o: Scalar | Number) -> Scalar:
        return self._bin("/", o)

    def __rtruediv__(self, o: Number) -> Scalar:
        return self._bin("/", o, True)

    def __neg__(self) -> Scalar:
        return Call("neg", (self,), self.dtype)

    def __lt__(self, o: Scalar | Number) -> Scalar:
        return self._bin("<", o)

    def __le__(self, o: Scalar | Number) -> Scalar:
        return self._bin("<=", o)

    def __gt__(self, o: Scalar | Number) -> Scalar:
        return self._bin(">", o)

    def __ge__(self, o: Scalar | Number) -> Scalar:
        return self._bin(">=", o)

    def eq(self, o: Scalar | Number) -> Scalar:
        return self._bin("==", o)

    def ne(self, o: Scalar | Number) -> Scalar:
        return self._bin("!=", o)

    def __and__(self, o: Scalar | Number) -> Scalar:
        return self._bin("&", o)

    def __or__(self, o: Scalar | Number) -> Scalar:
        return self._bin("|", o)

    def __xor__(self, o: Scalar | Number) -> Scalar:
        return self._bin("^", o)

    def cast(self, to: DType) -> Scalar:
        return cast(self, to)


class Const(Scalar):
    """A literal."""

    __slots__ = ("value",)

    def __init__(self, value: Number, dtype: DType) -> None:
        self.value = value
        self.dtype = dtype


class Load(Scalar):
    """An element of a value that lies in memory; dtype is the compute type."""

    __slots__ = ("index", "value")

    def __init__(self, value: Value, index: Sequence[Dim]) -> None:
        self.value = value
        self.index = tuple(index)
        self.dtype = value.dtype.compute

    def indices(self) -> tuple[Dim, ...]:
        return self.index


class Index(Scalar):
    """A dimension or a loop counter as a number of type i64."""

    __slots__ = ("expr",)

    def __init__(self, expr: Dim) -> None:
        self.expr = expr
        self.dtype = dtypes.i64

    def indices(self) -> tuple[Dim, ...]:
        return (self.expr,)


class Call(Scalar):
    """A C function `of_<fn>_<type of the first argument>`, or the C operator `fn`.

    Results of integer operators wrap to the type.
    """

    __slots__ = ("args", "fn")

    def __init__(self, fn: str, args: Sequence[Scalar], dtype: DType) -> None:
        self.fn = fn
        self.args = tuple(args)
        self.dtype = dtype

    def parts(self) -> tuple[Scalar, ...]:
        return self.args


class Cast(Scalar):
    """Conversion to `to`; for a storage-only type (f16, f8...) the value rounded to it."""

    __slots__ = ("a", "saturate", "to")

    def __init__(self, a: Scalar, to: DType, saturate: bool = True) -> None:
        self.a = a
        self.to = to
        self.saturate = saturate
        self.dtype = to.compute

    def parts(self) -> tuple[Scalar, ...]:
        return (self.a,)


class Select(Scalar):
    """a where cond holds, else b; only the branch taken is evaluated."""

    __slots__ = ("a", "b", "cond")

    def __init__(self, cond: Scalar, a: Scalar, b: Scalar) -> None:
        self.cond, self.a, self.b = cond, a, b
        self.dtype = a.dtype

    def parts(self) -> tuple[Scalar, ...]:
        return (self.cond, self.a, self.b)


class Inside(Scalar):
    """True where lo <= index < hi."""

    __slots__ = ("expr", "hi", "lo")

    def __init__(self, expr: Dim, lo: Dim, hi: Dim) -> None:
        self.expr, self.lo, self.hi = expr, lo, hi
        self.dtype = dtypes.b1

    def indices(self) -> tuple[Dim, ...]:
        return (self.expr, self.lo, self.hi)


class Reduce(Scalar):
    """A reduction of `body` over loop counters; kind: sum prod max min and or."""

    __slots__ = ("body", "counters", "kind")

    def __init__(self, kind: str, counters: Sequence[dims.Sym], body: Scalar) -> None:
        self.kind = kind
        self.counters = tuple(counters)
        self.body = body
        self.dtype = body.dtype

    def parts(self) -> tuple[Scalar, ...]:
        return (self.body,)


class Acc(Scalar):
    """The result of `node`'s kernel at an output index: what that kernel's epilogue begins with."""

    __slots__ = ("index", "node")

    def __init__(self, node: Node, index: Sequence[Dim], dtype: DType) -> None:
        self.node = node
        self.index = tuple(index)
        self.dtype = dtype

    def indices(self) -> tuple[Dim, ...]:
        return self.index


def walk(s: Scalar) -> Iterator[Scalar]:
    """Every node below s, s included, each once; index expressions' loads too."""
    seen: set[int] = set()
    stack = [s]
    while stack:
        n = stack.pop()
        if id(n) in seen:
            continue
        seen.add(id(n))
        yield n
        stack.extend(n.parts())
        for d in n.indices():
            for a in dims.atoms(d):
                if isinstance(a, dims.Loaded):
                    stack.append(a.scalar)


def as_scalar(x: Scalar | Number, dtype: DType) -> Scalar:
    return x if isinstance(x, Scalar) else Const(x, dtype)


_COMPARE = {"<", "<=", ">", ">=", "==", "!="}


def binary(op: str, a: Scalar, b: Scalar) -> Scalar:
    if op in _COMPARE:
        return Call(op, (a, b), dtypes.b1)
    if op == "/" and a.dtype.is_int:
        return Call("div", (a, b), a.dtype)
    return Call(op, (a, b), a.dtype)


def call(fn: str, *args: Scalar | Number, dtype: DType | None = None) -> Scalar:
    """of_<fn>_<type>(...); numbers take the first argument's type."""
    first = next(a for a in args if isinstance(a, Scalar))
    scalars = [as_scalar(a, first.dtype) for a in args]
    return Call(fn, scalars, dtype or first.dtype)


def where(cond: Scalar, a: Scalar | Number, b: Scalar | Number) -> Scalar:
    kind = a.dtype if isinstance(a, Scalar) else b.dtype  # type: ignore[union-attr]
    return Select(cond, as_scalar(a, kind), as_scalar(b, kind))


def cast(a: Scalar, to: DType, saturate: bool = True) -> Scalar:
    if a.dtype is to:
        return a
    if isinstance(a, Const) and to in (dtypes.f32, dtypes.f64):
        return Const(float(a.value), to)
    return Cast(a, to, saturate)


def minimum(a: Scalar, b: Scalar | Number) -> Scalar:
    """The smaller; NaN if either is."""
    return call("min", a, b)


def maximum(a: Scalar, b: Scalar | Number) -> Scalar:
    return call("max", a, b)


def clamp(a: Scalar, lo: Number, hi: Number) -> Scalar:
    return minimum(maximum(a, lo), hi)


_counter = itertools.count()


def counter(extent: Dim, hint: str = "r") -> dims.Sym:
    """A fresh loop counter 0 <= r < extent."""
    hi = max(dims.upper(extent) - 1, 0)
    return dims.Sym(f"{hint}{next(_counter):07}", 0, hi, extent)


def index_of(c: dims.Sym) -> Dim:
    """A loop counter as an index: 0 where it takes no other value."""
    return 0 if c.extent == 1 else dims.atom(c)


def reduce(
    kind: str, extents: Sequence[Dim], body: Callable[..., Scalar], hint: str = "r"
) -> Scalar:
    """Reduce body(r0, r1, ...) over 0 <= rk < extents[k]. An extent of 1 makes no loop."""
    counters: list[dims.Sym] = []
    args: list[Dim] = []
    for n in extents:
        if n == 1:
            args.append(0)
            continue
        c = counter(n, hint)
        counters.append(c)
        args.append(dims.atom(c))
    value = body(*args)
    return Reduce(kind, counters, value) if counters else value


def loaded(value: Scalar, extent: Dim, *, check: bool = True, wrap: bool = True) -> Dim:
    """An index that is read from a tensor, checked at run time to lie in [-extent, extent)
    (negative counts from the end where wrap is set). A bad index stops the program with an error.
    """
    hi = max(dims.upper(extent) - 1, 0)
    s = cast(value, dtypes.i64)
    if check:
        fn = "index_wrap" if wrap else "index_check"
        s = Call(fn, (s, Index(extent)), dtypes.i64)
    return dims.atom(dims.Loaded(f"at{next(_counter):07}", s, 0, hi))


class TensorExpr:
    """How each element of a tensor is computed: a type and a function from index to Scalar."""

    __slots__ = ("_cache", "fn", "type")

    def __init__(self, type: TensorType, fn: Callable[..., Scalar]) -> None:
        self.type = type
        self.fn = fn
        self._cache: dict[tuple[Dim, ...], Scalar] = {}

    def __call__(self, *index: Dim) -> Scalar:
        hit = self._cache.get(index)
        if hit is None:
            hit = self._cache[index] = self.fn(*index)
        return hit

    @property
    def shape(self) -> dims.Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    def broadcast(self, index: Sequence[Dim]) -> Scalar:
        """The element that NumPy broadcasting finds at an index of the (larger) result."""
        skip = len(index) - len(self.shape)
        own = [0 if n == 1 else i for i, n in zip(index[skip:], self.shape, strict=True)]
        return self(*own)


def stored(value: Value) -> TensorExpr:
    """A value that lies in memory, element by element. Scalar constants become literals."""
    t = value.tensor
    if value.data is not None and value.data.size == 1:
        literal = _literal(value)
        if literal is not None:
            return TensorExpr(t, lambda *i: literal)
    return TensorExpr(t, lambda *i: Load(value, i))


def _literal(value: Value) -> Scalar | None:
    kind = value.dtype
    if kind.kind in ("complex", "string") or value.data is None:
        return None
    item: Any = value.data.reshape(-1)[0]
    if kind.is_float:
        return Const(float(item), kind.compute)
    return Const(bool(item) if kind is dtypes.b1 else int(item), kind)
