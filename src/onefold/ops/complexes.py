"""Complex numbers: made of their parts, and taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes
from onefold.ir.graph import Node
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Code, Lowered, Lowering, Op, Refusal, operator

PAIRS: tuple[Case, ...] = (
    Case((np.array([[3 + 4j, -1j], [0, 1e-3]], np.complex64),)),
    Case((np.array(2 - 3j, np.complex64),)),
    Case((np.zeros((0, 2), np.complex64),)),
)


@operator
class ComplexOf(Op):
    """x f32 [..., 2] (real and imaginary part) -> c64 [...]."""

    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3, 4, 2), "f32"),)), Case((((2,), "f32"),)), Case((((0, 2), "f32"),)),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        x = n.arg(0)
        if x.dtype is not dtypes.f32 or x.shape[-1:] != (2,):
            raise Refusal(f"complex numbers of {x.type}")
        return [TensorType(x.shape[:-1], dtypes.c64)]

    def ref(self, n: Node, *x: Any) -> Any:
        return np.asarray(x[0][..., 0] + 1j * x[0][..., 1]).astype(np.complex64)

    def lower(self, k: Lowering) -> Lowered:
        size = k.dim(k.y().size)
        loop = f"for (ix i = 0; i < {size}; i++)"
        return Code(loop + " y0[i] = (of_c64){x0[2 * i], x0[2 * i + 1]};")


@operator
class ComplexPart(Op):
    """The real part, imaginary part or magnitude of c64 -> f32. part: real, imag or abs."""

    part: str = "real"
    cases: ClassVar = tuple(
        Case(c.inputs, {"part": part}) for part in ("real", "imag", "abs") for c in PAIRS
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        x = n.arg(0)
        if x.dtype is not dtypes.c64 or self.part not in ("real", "imag", "abs"):
            raise Refusal(f"the part {self.part} of {x.dtype}")
        return [TensorType(x.shape, dtypes.f32)]

    def ref(self, n: Node, *x: Any) -> Any:
        value = {"real": x[0].real, "imag": x[0].imag}.get(self.part)
        return np.asarray(np.abs(x[0]) if value is None else value, np.float32)

    def lower(self, k: Lowering) -> Lowered:
        value = {
            "real": "x0[i].re", "imag": "x0[i].im",
            "abs": "(float)of_sqrt_f64((double)x0[i].re * x0[i].re + (double)x0[i].im * x0[i].im)",
        }[self.part]  # fmt: skip
        size = k.dim(dims.product(k.x(0).shape))
        return Code(f"for (ix i = 0; i < {size}; i++) y0[i] = {value};")
