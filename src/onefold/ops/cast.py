"""Conversion between element types, and values passed on as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.dtypes import DType
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.scalar import Scalar, TensorExpr
from onefold.ir.types import AnyType, TensorType
from onefold.ops.base import Alias, Case, Code, Lowered, Lowering, Op, Refusal, operator
from onefold.ops.convert import convert
from onefold.ops.elementwise import Elementwise, tensor
from onefold.ops.formats import OnnxNode

SPECIAL = np.array([0, -0.0, 1, -1, 0.5, 1.5, 2.5, 300, 1e6, -1e6, np.nan, np.inf, -np.inf, 1e-7])


@operator
class Cast(Elementwise):
    """Conversion to another element type.

    saturate concerns the eight-bit floats; round_mode ("up", "down", "nearest") float8e8m0 only.
    Strings are converted on the host.
    """

    to: DType = dtypes.f32
    saturate: bool = True
    round_mode: str = "up"
    onnx: ClassVar = ("Cast",)
    takes: ClassVar = "any"
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((5, 3), "f32"),), {"to": dtypes.i32}, low=-100, high=100),
        Case((((5, 3), "i32"),), {"to": dtypes.f32}),
        Case((((9,), "f32"),), {"to": dtypes.f16}),
        Case((((9,), "i64"),), {"to": dtypes.u8}),
        Case((((9,), "f32"),), {"to": dtypes.b1}),
        Case((((9,), "b1"),), {"to": dtypes.i8}),
        Case((SPECIAL.astype(np.float32),), {"to": dtypes.f8e4m3fn}),
        Case((SPECIAL.astype(np.float32),), {"to": dtypes.f8e5m2, "saturate": False}),
        Case((SPECIAL,), {"to": dtypes.bf16}),
        Case((np.clip(SPECIAL, -6e4, 6e4).astype(np.float16),), {"to": dtypes.f8e4m3fnuz}),
        Case((np.abs(SPECIAL).astype(np.float32),), {"to": dtypes.f8e8m0}),
        Case((SPECIAL.astype(np.float32),), {"to": dtypes.f4e2m1}),
        Case((((9,), "f32"),), {"to": dtypes.i4}, low=-9, high=9),
        Case((((9,), "u4"),), {"to": dtypes.f32}),
        Case((((9,), "i16"),), {"to": dtypes.u2}),
    )

    def result(self, *kinds: DType) -> DType:
        if "complex" in (kinds[0].kind, self.to.kind):
            raise Refusal(f"Cast of {kinds[0].long} to {self.to.long} is not defined")
        if self.round_mode not in ("up", "down", "nearest"):
            raise Refusal(f"round_mode is '{self.round_mode}'")
        return self.to

    def combine(self, *x: Dim) -> Dim | None:
        return x[0] if self.to in (dtypes.i64, dtypes.i32) else None

    def ref(self, n: Node, *x: Any) -> Any:
        return convert(x[0], self.to, self.saturate, self.round_mode)

    def expr(self, *x: Scalar) -> Scalar:
        v = x[0]
        if self.to is dtypes.f8e8m0:
            how = f"e8m0_{self.round_mode}{'' if self.saturate else '_open'}"
            v = scalar.call(how, scalar.cast(v, dtypes.f32))
        return scalar.cast(v, self.to, self.saturate)

    def lower(self, k: Lowering) -> Lowered:
        source = k.x(0)
        if source.dtype is self.to:
            return Alias()
        return super().lower(k)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        to = n.dtype("to")
        if to is None:
            raise Refusal("Cast needs its attribute to")
        fields = {k: v for k, v in n.fields(cls).items() if k != "to"}
        return b.ops(cls(to=to, **fields), *n.inputs, name=n.output_names)


@operator
class Identity(Op):
    """The input, whatever it is."""

    onnx: ClassVar = ("Identity",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3, 4), "f32"),)),
        Case((((0,), "i8"),)),
        Case((((), "b1"),)),
    )

    def infer(self, n: Node) -> Sequence[AnyType]:
        v = n.input(0)
        if v is None:
            raise Refusal("Identity needs its input")
        return [v.type]

    def contents(self, n: Node) -> Sequence[tuple[Dim, ...] | None]:
        return [n.arg(0).content]

    def ref(self, n: Node, x: Any) -> Any:
        return [x]

    def lower(self, k: Lowering) -> Lowered:
        return Alias()


@operator
class FilledLike(Op):
    """A tensor of the input's shape, every element `value`, of type `to`."""

    value: float = 1
    to: DType = dtypes.b1
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3, 4), "f32"),)),
        Case((((3,), "f32"),), {"value": 2.5, "to": dtypes.f16}),
        Case((((0, 2), "i8"),), {"value": 7, "to": dtypes.i64}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        return [TensorType(tensor(n, 0).shape, self.to)]

    def ref(self, n: Node, x: Any) -> Any:
        return np.full(x.shape, self.value, self.to.numpy)

    def lower(self, k: Lowering) -> TensorExpr:
        one = scalar.Const(self.value, self.to.compute)
        return k.map(lambda *i: one)


@operator
class BitCast(Op):
    """The same bits under an element type of the same width."""

    to: DType = dtypes.f32
    onnx: ClassVar = ("BitCast",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3, 4), "f32"),), {"to": dtypes.i32}),
        Case((((9,), "u64"),), {"to": dtypes.f64}),
        Case((((9,), "i8"),), {"to": dtypes.u8}),
        Case((((9,), "i4"),), {"to": dtypes.u4}),
        Case((((9,), "u2"),), {"to": dtypes.i2}),
        Case((((9,), "f16"),), {"to": dtypes.bf16}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = tensor(n, 0)
        if dtypes.string in (t.dtype, self.to) or _width(t.dtype) != _width(self.to):
            raise Refusal(f"{t.dtype.long} and {self.to.long} are not of the same width")
        return [TensorType(t.shape, self.to)]

    def ref(self, n: Node, x: Any) -> Any:
        if self.to is dtypes.b1:
            return np.ascontiguousarray(x).view(np.uint8) != 0
        if self.to.bits >= 8:
            return np.ascontiguousarray(x).view(self.to.numpy)
        raw = np.ascontiguousarray(x).view(np.uint8).astype(np.int64)
        if self.to.is_int:
            return convert(raw, self.to)
        return (raw & ((1 << self.to.bits) - 1)).astype(np.uint8).view(self.to.numpy)

    def lower(self, k: Lowering) -> Lowered:
        size = k.dim(k.y().size)
        if self.to is dtypes.b1 or self.to.bits < 8:
            raw = "((const uint8_t *)x0)[i]"
            bits = f"of_wrap_{self.to.name}({raw})" if self.to.is_int else f"({raw} & 15)"
            text = f"{raw} != 0" if self.to is dtypes.b1 else bits
            return Code(f"for (ix i = 0; i < {size}; i++) y0[i] = {text};")
        text = (
            "const uint8_t *from = (const uint8_t *)x0;\n"
            "uint8_t *to = (uint8_t *)y0;\n"
            f"for (ix i = 0; i < {size} * {self.to.bytes}; i++) to[i] = from[i];"
        )
        return Code(text, inplace=((0, 0),))

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        to = n.dtype("to")
        if to is None:
            raise Refusal("BitCast needs its attribute to")
        return b.ops(cls(to=to), *n.inputs, name=n.output_names)


def _width(t: DType) -> int:
    return {"b1": 8, "c64": 64, "c128": 128}.get(t.name, t.bits)
