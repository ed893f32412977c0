"""Fourier transforms and complex numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onefold.frontend.tflite.common import canonical, ints, reshaped
from onefold.frontend.tflite.rules import tflite_rule
from onefold.ir import dtypes
from onefold.ir.graph import Builder, Value
from onefold.ops.base import Refusal
from onefold.ops.complexes import ComplexOf, ComplexPart
from onefold.ops.formats import TfliteNode


@tflite_rule("RFFT2D")
def rfft_2d(n: TfliteNode, b: Builder) -> Sequence[Value]:
    x, size = n.arg(0), ints(n, 1, "length of the transform")
    rank = len(x.shape)
    if rank < 2 or len(size) != 2 or min(size) < 1 or x.dtype is not dtypes.f32:
        raise Refusal(f"a transform of {list(size)} points of {x.type}")
    pairs = reshaped(b, x, (*x.shape, 1))
    row = canonical("DFT", axis=rank - 1, onesided=True)
    y = b.op(row, pairs, b.const(np.int64(size[1])))
    if (size[0], x.shape[-2]) != (1, 1):
        y = b.op(canonical("DFT", axis=rank - 2), y, b.const(np.int64(size[0])))
    return b.ops(ComplexOf(), y)


@tflite_rule("COMPLEX_ABS", "REAL", "IMAG")
def complex_part(n: TfliteNode, b: Builder) -> Sequence[Value]:
    part = {"COMPLEX_ABS": "abs", "REAL": "real", "IMAG": "imag"}[n.op_type]
    return b.ops(ComplexPart(part), n.arg(0))
