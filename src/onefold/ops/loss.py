"""Losses of classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.graph import Node
from onefold.ir.scalar import Scalar, TensorExpr
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Lowering, Op, Refusal, operator
from onefold.ops.elementwise import tensor

LABELS = np.array([1, 0, 3, 2])


@operator
class NegativeLogLikelihoodLoss(Op):
    """-weight[class] * x[., class] at the target class of every place; 0 where it is ignored.

    Inputs: log-probabilities [N, C, ...], classes [N, ...], weights [C]. reduction "mean" divides
    by the sum of the weights that count. A class outside [-C, C) stops the program.
    """

    reduction: str = "mean"
    ignore_index: int | None = None
    onnx: ClassVar = ("NegativeLogLikelihoodLoss",)
    cases: ClassVar = (
        Case((((4, 5), "f32"), LABELS)),
        Case((((4, 5), "f32"), LABELS, ((5,), "f32")), {"ignore_index": 3, "reduction": "mean"}),
        Case((((2, 5, 2), "f32"), LABELS.reshape(2, 2)), {"reduction": "sum"}),
        Case((((2, 5, 2), "f64"), LABELS.reshape(2, 2).astype(np.int32), ((5,), "f64")),
             {"reduction": "none", "ignore_index": 0}),
        Case((((4, 5), "f16"), np.array([1, -100, 0, 4])), {"ignore_index": -100}),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, target = tensor(n, 0), tensor(n, 1)
        if not (x.dtype.is_float and x.dtype.bits >= 16):
            raise Refusal(f"the loss of {x.dtype.long} elements is not defined")
        if len(x.shape) < 2 or (x.shape[0], *x.shape[2:]) != target.shape:
            raise Refusal(f"targets {target} do not fit {x}")
        if target.dtype not in (dtypes.i32, dtypes.i64):
            raise Refusal(f"targets are of type {target.dtype.long}, not int32 or int64")
        if n.input(2) is not None and tensor(n, 2) != TensorType((x.shape[1],), x.dtype):
            raise Refusal(f"weights {tensor(n, 2)} do not fit {x}")
        if self.reduction not in ("none", "sum", "mean"):
            raise Refusal(f"reduction is '{self.reduction}'")
        return [TensorType(target.shape if self.reduction == "none" else (), x.dtype)]

    def ref(self, n: Node, x: Any, target: Any, weight: Any = None) -> Any:
        wide = x.astype(np.float64)
        w = np.ones(x.shape[1]) if weight is None else weight.astype(np.float64)
        counts = np.ones(target.shape, bool)
        if self.ignore_index is not None:
            counts = target != self.ignore_index
        at = np.where(counts, target, 0)
        picked = np.take_along_axis(wide, np.expand_dims(at, 1), 1).squeeze(1)
        each = np.where(counts, w[at], 0)
        loss = -np.where(counts, picked, 0) * each
        with np.errstate(all="ignore"):
            if self.reduction == "mean":
                loss = loss.sum() / each.sum()
            elif self.reduction == "sum":
                loss = loss.sum()
        return np.asarray(loss).astype(x.dtype)

    def lower(self, k: Lowering) -> TensorExpr:
        x, target = k.x(0), k.x(1)
        one = scalar.Const(1.0, x.dtype.compute)

        def guarded(value: Scalar, t: Scalar) -> Scalar:
            if self.ignore_index is None:
                return value
            return scalar.where(t.eq(self.ignore_index), 0, value)

        def weight(at: Dim) -> Scalar:
            return k.x(2)(at) if k.has(2) else one

        def loss(*i: Dim) -> Scalar:
            t = target(*i)
            at = scalar.loaded(t, x.shape[1])
            return guarded(-(x(i[0], at, *i[1:]) * weight(at)), t)

        def share(*i: Dim) -> Scalar:
            t = target(*i)
            return guarded(weight(scalar.loaded(t, x.shape[1])), t)

        def total() -> Scalar:
            return scalar.reduce("sum", target.shape, loss)

        def mean() -> Scalar:
            if self.ignore_index is None and not k.has(2):
                whole = scalar.Index(dims.product(target.shape))
                return total() / scalar.cast(whole, one.dtype)
            return total() / scalar.reduce("sum", target.shape, share)

        return k.map({"none": loss, "sum": total, "mean": mean}[self.reduction])
