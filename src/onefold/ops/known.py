"""Values that decide shapes: what importers know of them before the program runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node, Value
from onefold.ir.scalar import Index, Scalar, TensorExpr
from onefold.ir.types import TensorType
from onefold.ops.base import Lowering, NeedsValue, Op, Refusal, agree

MAX_RANK = 32
MAX_EXTENT = 1 << 48
MAX_TABLE = 1 << 20  # elements of an axis for which tables are made when compiling
MAX_CONTENT = 64  # elements whose meaning as dimensions is followed


def content_of(v: Value) -> tuple[Dim, ...] | None:
    """The elements of a small integer value as dimensions, in row-major order, where known."""
    if v.content is not None:
        return v.content
    if v.data is not None and v.dtype.is_int and v.data.size <= MAX_CONTENT:
        return tuple(int(d) for d in v.data.reshape(-1))
    return None


def dims_of(v: Value, what: str) -> tuple[Dim, ...]:
    """The elements of v as dimensions (symbols allowed). Raises NeedsValue where unknown."""
    known = content_of(v)
    if known is not None:
        return known
    return ints_of(v, what)


def ints_of(v: Value, what: str) -> tuple[int, ...]:
    """The elements of v as numbers. Raises NeedsValue where they are known only at run time."""
    data = data_of(v, what)
    if not v.dtype.is_int and v.dtype is not dtypes.b1:
        raise Refusal(f"the {what} must be integers, not {v.dtype.long}")
    return tuple(int(d) for d in data.reshape(-1))


def floats_of(v: Value, what: str) -> list[float]:
    """The elements of v as floats. Raises Refusal, NeedsValue."""
    if not (v.dtype.is_float or v.dtype.is_int):
        raise Refusal(f"the {what} must be numbers, not {v.dtype.long}")
    return [float(d) for d in data_of(v, what).reshape(-1)]


def one_int(v: Value, what: str) -> int:
    """The only element of v. Raises Refusal where it has another number of elements."""
    found: int = _only(ints_of(v, what), what)
    return found


def one_dim(v: Value, what: str) -> Dim:
    """The only element of v as a dimension. Raises Refusal, NeedsValue."""
    found: Dim = _only(dims_of(v, what), what)
    return found


def one_element(v: Value, what: str) -> Any:
    """The only element of v, of any type. Raises Refusal, NeedsValue."""
    return _only(data_of(v, what).reshape(-1), what)


def _only(found: Sequence[Any] | Array, what: str) -> Any:
    if len(found) != 1:
        raise Refusal(f"the {what} must be one number, not {len(found)}")
    return found[0]


def data_of(v: Value, what: str) -> Array:
    """The contents of v. Raises NeedsValue where they are known only at run time."""
    if v.data is not None:
        return v.data
    known = content_of(v)
    if known is not None and all(isinstance(c, int) for c in known):
        return np.array(known, v.dtype.numpy).reshape(v.tensor.ints)
    raise NeedsValue(v, f"the {what} must be known to compile")


def checked_shape(shape: Sequence[Dim], what: str = "shape") -> tuple[Dim, ...]:
    """The shape as it is. Raises Refusal for a negative or absurd extent, or too high a rank."""
    if len(shape) > MAX_RANK:
        raise Refusal(f"{what} has {len(shape)} axes; at most {MAX_RANK} are taken")
    for d in shape:
        if isinstance(d, int) and not 0 <= d <= MAX_EXTENT:
            raise Refusal(f"{what} [{', '.join(map(str, shape))}] has an extent of {d}")
    size = dims.product(shape)
    if isinstance(size, int) and size > MAX_EXTENT:
        raise Refusal(f"{what} [{', '.join(map(str, shape))}] has {size} elements")
    return tuple(shape)


def number(d: Dim) -> int:
    """A size that is known by now, as references need it."""
    if isinstance(d, dims.Expr):
        raise TypeError(f"{d} is not known")
    return d


def numbers(shape: Sequence[Dim]) -> tuple[int, ...]:
    """A shape that is known by now."""
    return tuple(number(d) for d in shape)


def may_differ(a: Dim, b: Dim) -> bool:
    """True where two extents are certainly different."""
    return not agree(a, b)


def inside(i: Dim, extent: Dim) -> Dim:
    """The index i of an axis: where 0 <= i < extent is not proved, it is checked at run time."""
    if dims.below(i, extent):
        return i
    return scalar.loaded(Index(i), extent, wrap=False)


def found(hint: str, most: Dim) -> Dim:
    """A size that the program finds out: a symbol of its own between 0 and `most`."""
    return dims.sym(dims.fresh_name(f"found_{hint}"), 0, dims.upper(most))


def put(k: Lowering, d: Dim, text: str) -> str:
    """C statement that stores a size made by `found`."""
    return f"{k.put_dim(d)} = {text};" if isinstance(d, dims.Expr) else ""


def listed(k: Lowering, values: Sequence[Dim]) -> TensorExpr:
    """A small integer result whose elements are dimensions."""
    kind = k.y().dtype
    shape = k.y().shape

    def element(*index: Dim) -> Scalar:
        at = dims.linear(index, shape)
        out: Scalar = scalar.Const(0, kind)
        for j, d in reversed(list(enumerate(values))):
            here = scalar.cast(Index(d), kind)
            hit = scalar.Inside(at, j, j + 1)
            out = here if j == len(values) - 1 else scalar.where(hit, here, out)
        return out

    return k.map(element)


def table(data: Array, name: str = "table") -> TensorExpr:
    """Numbers that a lowering brings along; they are stored among the constants."""
    kind = dtypes.of(data.dtype)
    return scalar.stored(Value(name, TensorType(data.shape, kind), data))


class Sized(Op):
    """An operator whose attributes may hold dimensions that only run time knows."""

    def ref_in(self, n: Node, env: Any, *x: Any) -> Any:
        return at_sizes(self, env.sizes).ref(n, *x)


def at_sizes(op: Op, sizes: Mapping[str, int]) -> Op:
    """The operator with numbers for the dimensions in its attributes."""
    changes = {}
    for f in dataclasses.fields(op):  # type: ignore[arg-type]
        v = getattr(op, f.name)
        parts = v if isinstance(v, tuple) else (v,)
        if any(isinstance(d, dims.Expr) for d in parts):
            known = tuple(dims.evaluate(d, sizes) if isinstance(d, dims.Expr) else d for d in parts)
            changes[f.name] = known if isinstance(v, tuple) else known[0]
    return dataclasses.replace(op, **changes) if changes else op  # type: ignore[type-var]


class Movement(Sized):
    """Elements only change their places; what is known of the input's elements stays known."""

    exact = True

    def contents(self, n: Node) -> Sequence[tuple[Dim, ...] | None]:
        nothing: list[tuple[Dim, ...] | None] = [None] * len(n.outputs)
        for v in n.outputs:
            t = v.tensor
            if not (t.dtype.is_int and t.static and dims.upper(t.size) <= MAX_CONTENT):
                return nothing
        arrays = self.symbolic(n)
        if arrays is None:
            return nothing
        result = self.ref(n, *arrays)
        outs = result if isinstance(result, tuple) else (result,)
        return [tuple(_plain(d) for d in np.asarray(y, object).reshape(-1)) for y in outs]

    def symbolic(self, n: Node) -> list[Array | None] | None:
        """The inputs as arrays of dimensions; None where some are not known."""
        out: list[Array | None] = []
        for v in n.inputs:
            a = None if v is None else dims_array(v)
            if v is not None and a is None:
                return None
            out.append(a)
        return out


def dims_array(v: Value) -> Array | None:
    """The elements of v as an array of dimensions in its shape."""
    if not v.tensor.static:
        return None
    known = content_of(v)
    if known is None:
        return None
    a = np.empty(len(known), object)
    for k, d in enumerate(known):
        a[k] = d
    return a.reshape(v.tensor.ints)


def _plain(d: Dim) -> Dim:
    return d if isinstance(d, dims.Expr) else int(d)
