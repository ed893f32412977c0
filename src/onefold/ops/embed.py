"""Embeddings looked up and summed."""

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

_IDS = np.array([[1, 0, 4], [2, 2, 3]], np.int32)


@operator
class EmbeddingSum(Op):
    """word[ids] + position[place] + segment[segments], of shape [batch, sequence, hidden].

    Inputs: ids, word table, position table, places (default: the position in the sequence),
    segments, segment table; the last two may be left out together.
    """

    cases: ClassVar = (
        Case((_IDS, ((5, 8), "f32"), ((3, 8), "f32"))),
        Case((_IDS, ((5, 8), "f32"), ((9, 8), "f32"), None, _IDS % 2, ((2, 8), "f32"))),
        Case((_IDS, ((5, 3), "f16"), ((9, 3), "f16"), _IDS[::-1] + 3, None, None)),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        ids, word, position = (tensor(n, i) for i in range(3))
        tables = [word, position]
        if n.input(4) is not None:
            tables.append(tensor(n, 5))
        for t in tables:
            if len(t.shape) != 2 or t.shape[1] != word.shape[1] or t.dtype is not word.dtype:
                raise Refusal(f"{t} is no table of embeddings like {word}")
        for i in (0, 3, 4):
            if n.input(i) is not None and tensor(n, i).dtype not in (dtypes.i32, dtypes.i64):
                raise Refusal(f"indices of type {tensor(n, i).dtype.long} are not defined")
        if len(ids.shape) != 2 or not word.dtype.is_float:
            raise Refusal(f"ids {ids} and embeddings {word} are not defined")
        for i in (3, 4):
            if n.input(i) is not None and len(tensor(n, i).shape) != 2:
                raise Refusal(f"indices {tensor(n, i)} are not of two axes")
        return [TensorType((*ids.shape, word.shape[1]), word.dtype)]

    def ref(self, n: Node, *x: Any) -> Any:
        ids, word, position, places, segments, table = [*x, None, None, None][:6]
        at = np.arange(ids.shape[1])[None] if places is None else places
        wide = np.float64 if word.dtype == np.float64 else np.float32
        y = word[ids].astype(wide) + position[at].astype(wide)
        if segments is not None:
            y = y + table[segments].astype(wide)
        return y.astype(word.dtype)

    def lower(self, k: Lowering) -> TensorExpr:
        def row(table: int, at: Dim, h: Dim) -> Scalar:
            return k.x(table)(at, h)

        def found(i: int, table: int, index: Sequence[Dim]) -> Dim:
            return scalar.loaded(k.x(i).broadcast(index), k.x(table).shape[0])

        def position(at: Dim) -> Dim:
            rows = k.x(2).shape[0]
            safe = dims.upper(k.y().shape[1]) <= dims.bounds(rows)[0]
            return at if safe else scalar.loaded(scalar.Index(at), rows)

        def element(*i: Dim) -> Scalar:
            place = found(3, 2, i[:2]) if k.has(3) else position(i[1])
            y = row(1, found(0, 1, i[:2]), i[2]) + row(2, place, i[2])
            return y + row(5, found(4, 5, i[:2]), i[2]) if k.has(4) else y

        return k.map(element)
