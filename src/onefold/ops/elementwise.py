"""Base classes of operators that work element by element, and the arithmetic ones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.dtypes import DType
from onefold.ir.graph import Array, Builder, Node, Value
from onefold.ir.scalar import Scalar
from onefold.ir.types import TensorType
from onefold.ops.base import (
    Alias,
    Case,
    Lowered,
    Lowering,
    Op,
    Refusal,
    broadcast_shapes,
    operator,
)
from onefold.ops.formats import OnnxNode

_TAKES: dict[str, Callable[[DType], bool]] = {
    "float": lambda t: t.is_float and t.bits >= 16,
    "number": lambda t: (t.is_float and t.bits >= 16) or (t.is_int and t.bits >= 8),
    "int": lambda t: t.is_int and t.bits >= 8,
    "bool": lambda t: t is dtypes.b1,
    "any": lambda t: True,
}


def tensor(n: Node, i: int) -> TensorType:
    """The type of input i. Raises Refusal where it is missing or no tensor."""
    v = n.input(i)
    if v is None:
        raise Refusal(f"{n.op.name} needs its input {i}")
    if not isinstance(v.type, TensorType):
        raise Refusal(f"input {i} is a {v.type}, and {n.op.name} takes tensors")
    return v.type


class Elementwise(Op):
    """result[i] = expr(a[i], b[i], ...) with NumPy broadcasting.

    takes: which element types (a key of _TAKES); arity: number of inputs, 0 for one or more.
    """

    takes: ClassVar[str] = "number"
    arity: ClassVar[int] = 1

    def result(self, *kinds: DType) -> DType:
        """Element type of the result."""
        return kinds[0]

    def expr(self, *x: Scalar) -> Scalar:
        raise NotImplementedError(self.name)

    def numpy(self, *x: Any) -> Any:
        """The reference on arrays of compute types."""
        raise NotImplementedError(self.name)

    def combine(self, *x: Dim) -> Dim | None:
        """The result for sizes instead of numbers, where it is one; see Value.content."""
        return None

    def infer(self, n: Node) -> Sequence[TensorType]:
        want = self.arity or max(len(n.inputs), 1)
        if len(n.inputs) != want:
            raise Refusal(f"{self.name} takes {want} inputs, not {len(n.inputs)}")
        types = [tensor(n, i) for i in range(want)]
        for t in types:
            if not _TAKES[self.takes](t.dtype):
                raise Refusal(f"{self.name} is not defined on elements of type {t.dtype.long}")
        shape = broadcast_shapes(*(t.shape for t in types))
        return [TensorType(shape, self.result(*(t.dtype for t in types)))]

    def contents(self, n: Node) -> Sequence[tuple[Dim, ...] | None]:
        t = n.outputs[0].tensor
        parts = [v.content for v in n.present()]
        if not t.dtype.is_int or not t.static or any(p is None for p in parts):
            return [None]
        grids = [
            np.broadcast_to(_grid(v.content or (), v.tensor.ints), t.ints) for v in n.present()
        ]
        out = []
        for xs in zip(*(g.reshape(-1) for g in grids), strict=True):
            y = self.combine(*xs)
            if y is None:
                return [None]
            out.append(y)
        return [tuple(out)]

    def ref(self, n: Node, *x: Any) -> Any:
        wide = [np.asarray(a).astype(dtypes.of(a.dtype).compute.numpy) for a in x]
        with np.errstate(all="ignore"):
            return np.asarray(self.numpy(*wide)).astype(n.outputs[0].dtype.numpy)

    def lower(self, k: Lowering) -> Lowered:
        xs = [x for x in k.inputs if x is not None]
        return k.map(lambda *i: self.expr(*(x.broadcast(i) for x in xs)))


def _grid(content: Sequence[Dim], shape: tuple[int, ...]) -> Array:
    out = np.empty(len(content), object)
    out[:] = content
    return out.reshape(shape)


class Same(Elementwise):
    """Inputs of one element type."""

    arity: ClassVar[int] = 2

    def result(self, *kinds: DType) -> DType:
        for k in kinds[1:]:
            if k is not kinds[0]:
                raise Refusal(
                    f"{self.name} of different element types {kinds[0].long} and {k.long}"
                )
        return kinds[0]


@operator
class TrailingOnes(Op):
    """The shape with `count` axes of size 1 after its own: what aligns a vector with an axis."""

    count: int = 0
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3,), "f32"),), {"count": 2}),
        Case((((2, 3), "i8"),), {"count": 1}),
        Case((((0,), "f64"),), {"count": 1}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = tensor(n, 0)
        return [TensorType((*t.shape, *(1 for _ in range(self.count))), t.dtype)]

    def ref(self, n: Node, x: Any) -> Any:
        return x.reshape(x.shape + (1,) * self.count)

    def lower(self, k: Lowering) -> Lowered:
        return Alias()


def trailing_ones(b: Builder, v: Value, count: int) -> Value:
    """v with `count` axes of size 1 appended; v itself for none."""
    return b.op(TrailingOnes(count), v) if count > 0 else v


def aligned(n: OnnxNode, b: Builder) -> list[Value | None]:
    """Inputs of a binary operator, the second as the attributes of opsets before 7 place it:
    `axis` says with which axis of the first input its first axis is matched."""
    xs = list(n.inputs)
    if n.opset >= 7 or len(xs) != 2 or not n.attr("broadcast", 0) or "axis" not in n.attrs:
        return xs
    x, y = n.tensor(0), n.tensor(1)
    rank, axis = len(x.shape), int(n.attr("axis"))
    count = rank - (axis + rank if axis < 0 else axis) - len(y.shape)
    if not 0 <= count <= rank:
        raise Refusal(f"axis {axis} does not match a tensor of rank {rank}")
    return [x, trailing_ones(b, y, count)]


class Aligned(Same):
    """Two inputs that older opsets broadcast by attributes."""

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        return b.ops(cls(**n.fields(cls)), *aligned(n, b), name=n.output_names)


TWO: tuple[Case, ...] = (
    Case((((2, 3, 4), "f32"), ((2, 3, 4), "f32"))),
    Case((((3, 1, 5), "f32"), ((4, 1), "f32")), seed=1),
    Case((((7,), "i32"), ((), "i32")), seed=2),
    Case((((17,), "i8"), ((17,), "i8")), seed=3),
    Case((((9,), "u64"), ((1,), "u64")), seed=4),
    Case((((5, 3), "f16"), ((5, 3), "f16")), seed=5),
    Case((((5, 3), "bf16"), ((3,), "bf16")), seed=6),
    Case((((33,), "f64"), ((33,), "f64")), seed=7),
    Case((((0, 3), "f32"), ((3,), "f32"))),
)


@operator
class Add(Aligned):
    """a + b."""

    onnx: ClassVar = ("Add",)
    cases: ClassVar = TWO

    def numpy(self, *x: Any) -> Any:
        return np.add(x[0], x[1])

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] + x[1]

    def combine(self, *x: Dim) -> Dim | None:
        return x[0] + x[1]


@operator
class Sub(Aligned):
    """a - b."""

    onnx: ClassVar = ("Sub",)
    cases: ClassVar = TWO

    def numpy(self, *x: Any) -> Any:
        return np.subtract(x[0], x[1])

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] - x[1]

    def combine(self, *x: Dim) -> Dim | None:
        return x[0] - x[1]


@operator
class Mul(Aligned):
    """a * b."""

    onnx: ClassVar = ("Mul",)
    cases: ClassVar = TWO

    def numpy(self, *x: Any) -> Any:
        return np.multiply(x[0], x[1])

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] * x[1]

    def combine(self, *x: Dim) -> Dim | None:
        return x[0] * x[1]


@operator
class Div(Aligned):
    """a / b; of integers truncated, and x / 0 = 0."""

    onnx: ClassVar = ("Div",)
    cases: ClassVar = TWO

    def numpy(self, *x: Any) -> Any:
        a, b = x
        if a.dtype.kind not in "iu":
            return np.divide(a, b)
        safe = np.where(b == 0, np.ones((), b.dtype), b)
        q = np.floor_divide(a, safe)
        up = (q < 0) & (q * safe != a) if a.dtype.kind == "i" else np.zeros(q.shape, bool)
        return np.where(b == 0, np.zeros((), a.dtype), q + up.astype(a.dtype))

    def expr(self, *x: Scalar) -> Scalar:
        return x[0] / x[1]

    def combine(self, *x: Dim) -> Dim | None:
        positive = dims.bounds(x[0])[0] >= 0 and dims.bounds(x[1])[0] > 0
        return dims.floordiv(x[0], x[1]) if positive else None


@operator
class Mod(Same):
    """Remainder: of the divisor's sign, with fmod of the dividend's; x mod 0 = 0 for integers."""

    fmod: bool = False
    onnx: ClassVar = ("Mod",)
    cases: ClassVar = (
        Case((((4, 7), "i32"), ((7,), "i32"))),
        Case((((40,), "i8"), ((40,), "i8")), {"fmod": True}),
        Case((((40,), "f32"), ((40,), "f32")), {"fmod": True}),
        Case((((40,), "f64"), ((40,), "f64"))),
        Case((((40,), "u16"), ((40,), "u16"))),
    )

    def numpy(self, *x: Any) -> Any:
        return np.fmod(x[0], x[1]) if self.fmod else np.mod(x[0], x[1])

    def expr(self, *x: Scalar) -> Scalar:
        return scalar.call("fmod" if self.fmod else "mod", x[0], x[1])

    def combine(self, *x: Dim) -> Dim | None:
        positive = dims.bounds(x[0])[0] >= 0 and dims.bounds(x[1])[0] > 0
        return dims.mod(x[0], x[1]) if positive else None


@operator
class Pow(Elementwise):
    """x to the power of y, of x's type. Integers wrap; a negative power of an integer is the
    truncated reciprocal."""

    onnx: ClassVar = ("Pow",)
    arity: ClassVar = 2
    cases: ClassVar = (
        Case((((3, 5), "f32"), ((5,), "f32")), low=0.1),
        Case((((9,), "f32"), (np.array(2.0, np.float32)))),
        Case((((9,), "f32"), np.array([-3, -2, -1, 0, 1, 2, 3, 4, 5]))),
        Case((((9,), "f16"), ((9,), "f32")), low=0.2, high=2.0),
        Case((np.arange(-4, 5), np.array([3, 0, 2, 1, 5, 6, 7, 2, 3], np.int32))),
        Case((np.arange(1, 9, dtype=np.int32), np.full(8, 1.5, np.float32))),
    )

    def numpy(self, *x: Any) -> Any:
        a, e = x
        if a.dtype.kind == "f":
            return np.power(a, e.astype(a.dtype))
        if e.dtype.kind == "f":
            return np.trunc(np.power(a.astype(np.float64), e.astype(np.float64)))
        whole = np.power(a, np.maximum(e, np.zeros((), e.dtype)).astype(a.dtype))
        minus = a == np.array(-1).astype(a.dtype)
        inverse = np.where(a == 1, 1, np.where(minus, 1 - 2 * (e % 2), 0))
        return np.where(e < 0, inverse, whole).astype(a.dtype)

    def expr(self, *x: Scalar) -> Scalar:
        a, e = x
        if isinstance(e, scalar.Const) and a.dtype.is_float and e.value in (1, 2, 3):
            return functools.reduce(lambda p, q: p * q, [a] * int(e.value))
        if a.dtype.is_float:
            return scalar.call("pow", a, scalar.cast(e, a.dtype))
        if e.dtype.is_float:
            power = scalar.call("pow", scalar.cast(a, dtypes.f64), scalar.cast(e, dtypes.f64))
            return scalar.cast(power, a.dtype)
        if e.dtype is not a.dtype:
            wide = dtypes.i64 if a.dtype is not dtypes.u64 else dtypes.u64
            power = scalar.call("pow", scalar.cast(a, wide), scalar.cast(e, wide))
            return scalar.cast(power, a.dtype)
        return scalar.call("pow", a, e)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        return b.ops(cls(), *aligned(n, b), name=n.output_names)


GROUP = 32  # operands of one expression


class Variadic(Same):
    """One input or more, of one type."""

    arity: ClassVar[int] = 0

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        """Many inputs are taken in groups, so that no expression grows without bound."""
        y, rest = None, list(n.inputs)
        while len(rest) > GROUP:
            y = b.op(cls(), *([] if y is None else [y]), *rest[:GROUP])
            rest = rest[GROUP:]
        return b.ops(cls(), *([] if y is None else [y]), *rest, name=n.output_names)


MANY: tuple[Case, ...] = (
    Case((((3, 5), "f32"), ((5,), "f32"), ((3, 1), "f32"))),
    Case((((7,), "f32"),)),
    Case((((7,), "f16"), ((7,), "f16"))),
    Case((np.array([np.nan, 1, 2], np.float32), np.array([0, np.nan, 3], np.float32))),
)
MANY_INTS: tuple[Case, ...] = (
    Case((((9,), "i8"), ((9,), "i8"))),
    Case((((9,), "u64"), ((1,), "u64"))),
)


@operator
class Min(Variadic):
    """The smallest; NaN if any is NaN."""

    onnx: ClassVar = ("Min",)
    cases: ClassVar = MANY + MANY_INTS

    def numpy(self, *x: Any) -> Any:
        return functools.reduce(np.minimum, x)

    def expr(self, *x: Scalar) -> Scalar:
        return functools.reduce(scalar.minimum, x)

    def combine(self, *x: Dim) -> Dim | None:
        return functools.reduce(dims.minimum, x)


@operator
class Max(Variadic):
    """The largest; NaN if any is NaN."""

    onnx: ClassVar = ("Max",)
    cases: ClassVar = MANY + MANY_INTS

    def numpy(self, *x: Any) -> Any:
        return functools.reduce(np.maximum, x)

    def expr(self, *x: Scalar) -> Scalar:
        return functools.reduce(scalar.maximum, x)

    def combine(self, *x: Dim) -> Dim | None:
        return functools.reduce(dims.maximum, x)


@operator
class Sum(Variadic):
    """The sum of all inputs."""

    onnx: ClassVar = ("Sum",)
    cases: ClassVar = MANY

    def numpy(self, *x: Any) -> Any:
        return functools.reduce(np.add, x)

    def expr(self, *x: Scalar) -> Scalar:
        return functools.reduce(lambda p, q: p + q, x)


@operator
class Mean(Variadic):
    """The mean of all inputs."""

    onnx: ClassVar = ("Mean",)
    takes: ClassVar = "float"
    cases: ClassVar = MANY

    def numpy(self, *x: Any) -> Any:
        return functools.reduce(np.add, x) / x[0].dtype.type(len(x))

    def expr(self, *x: Scalar) -> Scalar:
        return functools.reduce(lambda p, q: p + q, x) / len(x)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        if len(n.inputs) <= GROUP:
            return b.ops(cls(), *n.inputs, name=n.output_names)
        (total,) = Sum.from_onnx(n, b)
        if not total.dtype.is_float:
            raise Refusal(f"{cls.__name__} is not defined on elements of type {total.dtype.long}")
        return b.ops(Div(), total, b.const(len(n.inputs), total.dtype), name=n.output_names)


@operator
class Clip(Op):
    """min(max(x, low), high); a bound that is left out does not bind."""

    onnx: ClassVar = ("Clip",)
    cases: ClassVar = (
        Case((((3, 5), "f32"), np.array(-1, np.float32), np.array(1, np.float32))),
        Case((((9,), "f32"), None, np.array(0.5, np.float32))),
        Case((((9,), "i8"), np.array(-20, np.int8))),
        Case((((9,), "f64"), np.array(2.0), np.array(1.0))),
        Case((np.array([np.nan, -3, 9], np.float16), np.array(0, np.float16))),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = tensor(n, 0)
        if not _TAKES["number"](t.dtype):
            raise Refusal(f"Clip is not defined on elements of type {t.dtype.long}")
        for i in range(1, len(n.inputs)):
            if n.inputs[i] is not None:
                bound = tensor(n, i)
                if bound.size != 1 or bound.dtype is not t.dtype:
                    raise Refusal(f"bound {bound} of {t} is no single number of that type")
        return [TensorType(t.shape, t.dtype)]

    def ref(self, n: Node, x: Any, low: Any = None, high: Any = None) -> Any:
        y = x if low is None else np.maximum(x, low.reshape(()))
        y = y if high is None else np.minimum(y, high.reshape(()))
        return y.astype(x.dtype)

    def lower(self, k: Lowering) -> Lowered:
        def element(*i: Dim) -> Scalar:
            y = k.x(0)(*i)
            for j, fn in ((1, scalar.maximum), (2, scalar.minimum)):
                if k.has(j):
                    bound = k.x(j)
                    y = fn(y, bound(*(0 for _ in bound.shape)))
            return y

        return k.map(element)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        xs: list[Value | None] = list(n.inputs)
        if n.opset < 11:
            bounds = [n.attr("min"), n.attr("max")]
            kind = n.tensor(0).dtype
            xs = [n.tensor(0), *(None if v is None else b.const(v, kind) for v in bounds)]
        return b.ops(cls(), *xs, name=n.output_names)
