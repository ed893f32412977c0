"""Counting of n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Code, Lowered, Lowering, Op, Refusal, operator
from onefold.ops.formats import OnnxNode

MAX_SKIP = 1 << 16


@operator
class TfIdf(Op):
    """How often each n-gram of a pool occurs in the rows of x ([c] or [n, c]), f32 [.., size].

    Inputs: x, pool [p] of the same type, grams int32 [g, 3] (length, start in the pool, place in
    the result), weights f32 [size]. Items of a gram lie 1 to max_skip + 1 apart (equally far).
    mode "TF": counts; "IDF": the weight where the count is not zero; "TFIDF": their product.
    """

    mode: str = "TF"
    shortest: int = 1
    longest: int = 1
    max_skip: int = 0
    size: int = 1
    cases: ClassVar = (
        Case((np.array([[1, 1, 3], [3, 3, 7], [2, 5, 7]], np.int32),
              np.array([2, 3, 5, 7, 1, 3, 3, 7], np.int32),
              np.array([[1, 0, 0], [1, 1, 1], [2, 4, 2], [2, 6, 3]], np.int32),
              np.ones(4, np.float32)), {"longest": 2, "max_skip": 1, "size": 4}),
        Case((np.array([5, 5, 6, 5]), np.array([5, 6, 5]),
              np.array([[1, 0, 1], [2, 1, 0]], np.int32), np.array([2, 3], np.float32)),
             {"longest": 2, "size": 2, "mode": "TFIDF"}),
        Case((np.zeros((2, 0), np.int32), np.array([5], np.int32),
              np.array([[1, 0, 0]], np.int32), np.array([2], np.float32)),
             {"mode": "IDF", "size": 1}),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, pool = n.arg(0).tensor, n.arg(1).tensor
        if x.rank not in (1, 2) or pool.dtype is not x.dtype or self.mode not in _MODES:
            raise Refusal(f"{self.mode} of {x} with a pool of {pool}")
        if x.dtype is not dtypes.string and not x.dtype.is_int:
            raise Refusal(f"n-grams of elements of type {x.dtype.long}")
        if not 1 <= self.shortest <= self.longest or not 0 <= self.max_skip <= MAX_SKIP:
            raise Refusal(f"n-grams of {self.shortest} to {self.longest}, skips {self.max_skip}")
        return [TensorType((*x.shape[:-1], self.size), dtypes.f32)]

    def ref(self, n: Node, x: Any, pool: Any, grams: Any, weights: Any) -> Any:
        rows = x.reshape(-1, x.shape[-1]) if x.size else x.reshape(*x.shape[:-1], 0)
        rows = rows.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])
        y = np.zeros((len(rows), self.size), np.float32)
        wanted = [(tuple(pool[at : at + size]), to) for size, at, to in grams
                  if self.shortest <= size <= self.longest]  # fmt: skip
        for row, out in zip(rows, y, strict=True):
            for gram, to in wanted:
                for step in range(1, 2 if len(gram) == 1 else self.max_skip + 2):
                    last = len(row) - (len(gram) - 1) * step
                    for i in range(max(last, 0)):
                        out[to] += tuple(row[i : i + step * len(gram) : step]) == gram
        if self.mode == "IDF":
            y = np.minimum(y, 1)
        return (y if self.mode == "TF" else y * weights).reshape(*x.shape[:-1], self.size)

    def lower(self, k: Lowering) -> Lowered:
        x = k.x(0)
        rows, c = dims.product(x.shape[:-1]), x.shape[-1]
        last = {"TF": "f", "IDF": "(f > 0 ? x3[j] : 0)", "TFIDF": "f * x3[j]"}[self.mode]
        text = f"""
const ix c = {k.dim(c)};
for (ix r = 0; r < {k.dim(rows)}; r++) {{
  const {x.dtype.ctype} *const row = x0 + r * c;
  float *const out = y0 + r * {self.size};
  for (ix j = 0; j < {self.size}; j++) out[j] = 0;
  for (ix g = 0; g < {k.dim(k.x(2).shape[0])}; g++) {{
    const ix size = x2[g * 3];
    const {x.dtype.ctype} *const gram = x1 + x2[g * 3 + 1];
    if (size < {self.shortest} || size > {self.longest}) continue;
    for (ix step = 1; step <= (size == 1 ? 1 : {self.max_skip + 1}); step++) {{
      for (ix i = 0; i + (size - 1) * step < c; i++) {{
        bool same = true;
        for (ix j = 0; j < size && same; j++) same = row[i + j * step] == gram[j];
        if (same) out[x2[g * 3 + 2]] += 1;
      }}
    }}
  }}
  for (ix j = 0; j < {self.size}; j++) {{
    const float f = out[j];
    out[j] = {last};
  }}
}}"""
        return Code(text)


_MODES = ("TF", "IDF", "TFIDF")


def grams_of(counts: Sequence[int], indices: Sequence[int], pool: int) -> Any:
    """int32 [g, 3] for `TfIdf`: counts[k] is where the grams of k + 1 items begin in the pool.

    Raises Refusal where counts or indices do not fit.
    """
    out: list[tuple[int, int, int]] = []
    ends = [*counts[1:], pool]
    for size, (start, end) in enumerate(zip(counts, ends, strict=True), 1):
        if not 0 <= start <= end <= pool or (end - start) % size:
            raise Refusal(f"ngram_counts {list(counts)} for a pool of {pool}")
        out += [(size, at, 0) for at in range(start, end, size)]
    if max(indices, default=0) >= 1 << 31:
        raise Refusal(f"a result of {max(indices)} columns")
    if len(out) != len(indices) or min(indices, default=0) < 0:
        raise Refusal(f"{len(indices)} ngram_indexes for {len(out)} n-grams")
    rows = [(size, at, int(to)) for (size, at, _), to in zip(out, indices, strict=True)]
    return np.array(rows, np.int32).reshape(-1, 3)


def from_onnx(n: OnnxNode, b: Builder) -> Value:
    """ONNX TfIdfVectorizer."""
    x = n.arg(0)
    numbers, words = n.attr("pool_int64s"), n.attr("pool_strings")
    if numbers is None and words is None:
        raise Refusal("TfIdfVectorizer has no pool")
    pool: Any = np.array(words, object) if numbers is None else np.array(numbers, np.int64)
    if numbers is not None and x.dtype is dtypes.i32:
        info = np.iinfo(np.int32)
        if pool.size and (pool.min() < info.min or pool.max() > info.max):
            raise Refusal("the pool holds numbers beyond int32")
        pool = pool.astype(np.int32)
    indices = n.attr("ngram_indexes", ())
    grams = grams_of(n.attr("ngram_counts", ()), indices, len(pool))
    size = max(indices, default=0) + 1
    if size > 1 << 30:
        raise Refusal(f"a result of {size} columns")
    given = n.attr("weights")
    weights = np.ones(size, np.float32)
    if given is not None:
        weights[: len(given)] = np.array(given[:size], np.float32)
    op = TfIdf(n.attr("mode", "TF"), int(n.attr("min_gram_length", 1)),
               int(n.attr("max_gram_length", 1)), int(n.attr("max_skip_count", 0)), size)
    tables = [b.const(pool), b.const(grams), b.const(weights)]
    return b.op(op, x, *tables, name=n.output_names)  # fmt: skip
