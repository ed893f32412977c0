"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.scalar import Scalar, TensorExpr
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Lowering, NeedsValue, Op, Refusal, axis_of, operator
from onefold.ops.elementwise import tensor
from onefold.ops.formats import OnnxNode

FLOATS: tuple[Case, ...] = (
    Case((((3, 5, 7), "f32"),), {"axes": (1,)}),
    Case((((3, 5, 7), "f32"),), {"axes": (-1, 0), "keepdims": False}),
    Case((((3, 40), "f16"),), {"axes": None, "keepdims": False}, low=0.1, high=1.0),
    Case((((17,), "f64"),), {"axes": (0,)}),
    Case((((2, 3), "f32"),), {"axes": ()}),
)
EMPTY = Case((((2, 0, 3), "f32"),), {"axes": (1,)})
INTS: tuple[Case, ...] = (
    Case((((3, 5), "i32"),), {"axes": (1,)}),
    Case((((3, 5), "i64"),), {"axes": None}),
)


@dataclass(frozen=True)
class Reduction(Op):
    """post(kind over the axes of pre(x)); axes None: all of them."""

    axes: tuple[int, ...] | None = None
    keepdims: bool = True
    kind: ClassVar[str] = "sum"
    takes: ClassVar[tuple[str, ...]] = ("float", "int", "uint")

    def pre(self, x: Scalar) -> Scalar:
        return x

    def post(self, r: Scalar, count: Dim) -> Scalar:
        return r

    def numpy(self, x: Any, axes: tuple[int, ...]) -> Any:
        """The reference on compute types, axes kept."""
        raise NotImplementedError(self.name)

    def _axes(self, rank: int) -> tuple[int, ...]:
        if self.axes is None:
            return tuple(range(rank))
        found = tuple(axis_of(int(a), rank) for a in self.axes)
        if len(set(found)) != len(found):
            raise Refusal(f"axes {list(self.axes)} name one axis twice")
        return tuple(sorted(found)) if rank else ()

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = tensor(n, 0)
        if t.dtype.kind not in self.takes or (t.dtype.kind != "bool" and t.dtype.bits < 8):
            raise Refusal(f"{self.name} is not defined on elements of type {t.dtype.long}")
        axes = self._axes(len(t.shape))
        if self.keepdims:
            shape = tuple(1 if k in axes else d for k, d in enumerate(t.shape))
        else:
            shape = tuple(d for k, d in enumerate(t.shape) if k not in axes)
        return [TensorType(shape, t.dtype)]

    def ref(self, n: Node, x: Any, *_: Any) -> Any:
        axes = self._axes(x.ndim)
        wide = x.astype(dtypes.of(x.dtype).compute.numpy)
        with np.errstate(all="ignore"):
            y = np.asarray(self.numpy(wide, axes)).astype(x.dtype)
        return y if self.keepdims else np.squeeze(y, axes)

    def element(self, x: TensorExpr, axes: tuple[int, ...], index: Sequence[Dim]) -> Scalar:
        """One result; index has all axes of x."""
        extents = [x.shape[a] for a in axes]

        def body(*r: Dim) -> Scalar:
            return self.pre(x(*_placed(index, axes, r)))

        return self.post(scalar.reduce(self.kind, extents, body), dims.product(extents))

    def lower(self, k: Lowering) -> TensorExpr:
        x = k.x(0)
        axes = self._axes(len(x.shape))

        def at(*i: Dim) -> Scalar:
            if self.keepdims:
                return self.element(x, axes, i)
            rest = iter(i)
            full = [0 if a in axes else next(rest) for a in range(len(x.shape))]
            return self.element(x, axes, full)

        return k.map(at)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        axes = axes_of(n)
        if axes is None and n.attr("noop_with_empty_axes", 0):
            axes = ()
        return b.ops(cls(axes, bool(n.attr("keepdims", 1))), n.tensor(0), name=n.output_names)


def _placed(index: Sequence[Dim], axes: Sequence[int], r: Sequence[Dim]) -> list[Dim]:
    out = list(index)
    for a, c in zip(axes, r, strict=True):
        out[a] = c
    return out


def axes_of(n: OnnxNode, i: int = 1) -> tuple[int, ...] | None:
    """Axes by attribute or by input i; None where there are none. Raises NeedsValue."""
    v = n.input(i)
    if v is None:
        given = n.attr("axes")
        return tuple(int(a) for a in given) if given else None
    return tuple(known(v, "axes")) or None


def known(v: Value, what: str) -> list[int]:
    """The integers of an input that decides what is built. Raises NeedsValue, Refusal."""
    if v.data is not None:
        if v.data.dtype.kind not in "iu":
            raise Refusal(f"{what} are of type {v.dtype.long}, not integers")
        return [int(a) for a in v.data.reshape(-1)]
    if v.content is not None and all(isinstance(c, int) for c in v.content):
        return [int(c) for c in v.content if isinstance(c, int)]
    raise NeedsValue(v, f"its {what} must be known to compile it")


class Wrapping(Reduction):
    """Sum or product, also of sizes."""

    def combine(self, *x: Dim) -> Dim:
        raise NotImplementedError(self.name)

    def contents(self, n: Node) -> Sequence[tuple[Dim, ...] | None]:
        v = n.arg(0)
        if v.content is None or len(v.shape) != 1 or not self._axes(1):
            return [None]
        return [(self.combine(*v.content),)]


@operator
class ReduceSum(Wrapping):
    """The sum."""

    onnx: ClassVar = ("ReduceSum",)
    cases: ClassVar = (*FLOATS, EMPTY, *INTS)

    def numpy(self, x: Any, axes: tuple[int, ...]) -> Any:
        return np.sum(x, axes, dtype=x.dtype, keepdims=True)

    def combine(self, *x: Dim) -> Dim:
        total: Dim = 0
        for d in x:
            total = dims.add(total, d)
        return total


@operator
class ReduceProd(Wrapping):
    """The product."""

    kind: ClassVar = "prod"
    onnx: ClassVar = ("ReduceProd",)
    cases: ClassVar = (*FLOATS, EMPTY, *INTS)

    def numpy(self, x: Any, axes: tuple[int, ...]) -> Any:
        return np.prod(x, axes, dtype=x.dtype, keepdims=True)

    def combine(self, *x: Dim) -> Dim:
        return dims.product(x)


@operator
class ReduceMean(Reduction):
    """The mean; of integers truncated, of nothing NaN."""

    onnx: ClassVar = ("ReduceMean",)
    cases: ClassVar = (*FLOATS, EMPTY, *INTS)

    def numpy(self, x: Any, axes: tuple[int, ...]) -> Any:
        total = np.sum(x, axes, dtype=x.dtype, keepdims=True)
        count = int(np.prod([x.shape[a] for a in axes]))
        if x.dtype.kind == "f":
            return total / x.dtype.type(count)
        if count == 0:
            return np.zeros_like(total)
        return np.trunc(total / count)

    def post(self, r: Scalar, count: Dim) -> Scalar:
        if isinstance(count, int):
            return r / count if count != 1 else r
        return r / scalar.cast(scalar.Index(count), r.dtype)


class Extreme(Reduction):
    """The largest or smallest; NaN if any is NaN. Truth values count as 0 and 1."""

    takes: ClassVar[tuple[str, ...]] = ("float", "int", "uint", "bool")

    def element(self, x: TensorExpr, axes: tuple[int, ...], index: Sequence[Dim]) -> Scalar:
        kind = self.kind
        if x.dtype is dtypes.b1:
            kind = "or" if kind == "max" else "and"
        extents = [x.shape[a] for a in axes]
        return scalar.reduce(kind, extents, lambda *r: x(*_placed(index, axes, r)))

    def numpy(self, x: Any, axes: tuple[int, ...]) -> Any:
        top = self.kind == "max"
        if x.dtype == bool:
            return (np.any if top else np.all)(x, axes, keepdims=True)
        kind = dtypes.of(x.dtype)
        low, high = (-np.inf, np.inf) if kind.is_float else (kind.lo, kind.hi)
        reducer: Any = np.maximum if top else np.minimum
        start = np.array(low if top else high, x.dtype)
        return reducer.reduce(x, axes, keepdims=True, initial=start)


NANS = Case((np.array([[1, np.nan, 2], [3, 4, -5]], np.float32),), {"axes": (1,)})
BOOLS = Case((((3, 2, 2), "b1"),), {"axes": (1,), "keepdims": False})


@operator
class ReduceMax(Extreme):
    """The largest."""

    kind: ClassVar = "max"
    onnx: ClassVar = ("ReduceMax",)
    cases: ClassVar = (*FLOATS, EMPTY, *INTS, NANS, BOOLS)


@operator
class ReduceMin(Extreme):
    """The smallest."""

    kind: ClassVar = "min"
    onnx: ClassVar = ("ReduceMin",)
    cases: ClassVar = (*FLOATS, EMPTY, *INTS, NANS, BOOLS)


@operator
class ReduceSumSquare(Reduction):
    """The sum of squares."""

    onnx: ClassVar = ("ReduceSumSquare",)
    cases: ClassVar = (*FLOATS, EMPTY, *INTS)

    def pre(self, x: Scalar) -> Scalar:
        return x * x

    def numpy(self, x: Any, axes: tuple[int, ...]) -> Any:
        return np.sum(x * x, axes, dtype=x.dtype, keepdims=True)


@operator
class ReduceL1(Reduction):
    """The sum of absolute values."""

    onnx: ClassVar = ("ReduceL1",)
    cases: ClassVar = (*FLOATS, EMPTY, *INTS)

    def pre(self, x: Scalar) -> Scalar:
        return scalar.call("abs", x)

    def numpy(self, x: Any, axes: tuple[int, ...]) -> Any:
        return np.sum(np.abs(x), axes, dtype=x.dtype, keepdims=True)


def _float(fn: str, r: Scalar) -> Scalar:
    """fn of a number; of an integer computed in double and cut off."""
    if r.dtype.is_float:
        return scalar.call(fn, r)
    return scalar.cast(scalar.call(fn, scalar.cast(r, dtypes.f64)), r.dtype)


@operator
class ReduceL2(Reduction):
    """The square root of the sum of squares."""

    onnx: ClassVar = ("ReduceL2",)
    cases: ClassVar = (*FLOATS, EMPTY, Case((np.arange(-6, 9).reshape(3, 5),), {"axes": (1,)}))

    def pre(self, x: Scalar) -> Scalar:
        return x * x

    def post(self, r: Scalar, count: Dim) -> Scalar:
        return _float("sqrt", r)

    def numpy(self, x: Any, axes: tuple[int, ...]) -> Any:
        return np.sqrt(np.sum(x * x, axes, dtype=x.dtype, keepdims=True))


@operator
class ReduceLogSum(Reduction):
    """The logarithm of the sum."""

    onnx: ClassVar = ("ReduceLogSum",)
    cases: ClassVar = (*FLOATS, EMPTY, Case((np.arange(1, 16).reshape(3, 5),), {"axes": (1,)}))

    def post(self, r: Scalar, count: Dim) -> Scalar:
        return _float("log", r)

    def numpy(self, x: Any, axes: tuple[int, ...]) -> Any:
        return np.log(np.sum(x, axes, dtype=x.dtype, keepdims=True))


@operator
class ReduceLogSumExp(Reduction):
    """The logarithm of the sum of exponentials, relative to the largest."""

    takes: ClassVar = ("float", "int", "uint")
    onnx: ClassVar = ("ReduceLogSumExp",)
    cases: ClassVar = (
        *FLOATS,
        EMPTY,
        Case((np.array([[1e4, 9e3], [-1e4, -9e3], [-np.inf, -np.inf]], np.float32),),
             {"axes": (1,)}),
    )  # fmt: skip

    def element(self, x: TensorExpr, axes: tuple[int, ...], index: Sequence[Dim]) -> Scalar:
        extents = [x.shape[a] for a in axes]

        def number(*r: Dim) -> Scalar:
            v = x(*_placed(index, axes, r))
            return v if v.dtype.is_float else scalar.cast(v, dtypes.f64)

        top = scalar.reduce("max", extents, number)
        # an infinite maximum would give inf - inf; the plain sum is right there
        base = scalar.where(scalar.call("isinf", top, dtype=dtypes.b1), 0, top)
        total = scalar.reduce("sum", extents, lambda *r: scalar.call("exp", number(*r) - base))
        return scalar.cast(base + scalar.call("log", total), x.dtype.compute)

    def numpy(self, x: Any, axes: tuple[int, ...]) -> Any:
        x = x if x.dtype.kind == "f" else x.astype(np.float64)
        top = np.max(x, axes, keepdims=True, initial=-np.inf)
        base = np.where(np.isinf(top), 0, top)
        return base + np.log(np.sum(np.exp(x - base), axes, keepdims=True))
