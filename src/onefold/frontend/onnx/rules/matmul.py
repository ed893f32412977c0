"""Gemm and com.microsoft's fused products."""

from __future__ import annotations

from collections.abc import Sequence

from onefold.frontend.onnx.rules import rule
from onefold.ir.graph import Builder, Value
from onefold.ops.formats import OnnxNode
from onefold.ops.matmul import gemm_from_onnx


@rule("Gemm")
def gemm(n: OnnxNode, b: Builder) -> Sequence[Value]:
    return gemm_from_onnx(n, b)
