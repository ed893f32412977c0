"""Einstein summation: a sum of products over the labels that the result lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, scalar
from onefold.ir.dims import Dim
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.scalar import Scalar
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Lowering, Op, Refusal, agree, operator
from onefold.ops.conv import wide
from onefold.ops.formats import OnnxNode
from onefold.ops.matmul import MatMul
from onefold.ops.movement import Transpose

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Equation:
    """The labels of each operand and of the result; axes under an ellipsis are labelled "0", "1",
    ... counted from the last."""

    terms: tuple[Labels, ...]
    result: Labels


def parse(text: str, ranks: Sequence[int]) -> Equation:
    """Raises Refusal for an equation that is malformed or does not fit the operands' ranks."""
    left, arrow, right = text.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(ranks):
        raise Refusal(f"the equation {text!r} is for {len(texts)} operands, there are {len(ranks)}")
    terms = tuple(_labels(t, rank, text) for t, rank in zip(texts, ranks, strict=True))
    widest = max((sum(x.isdigit() for x in t) for t in terms), default=0)
    dots = tuple(str(k) for k in range(widest - 1, -1, -1))
    if arrow:
        result = _labels(right, len(right.replace("...", "")) + widest, text, dots)
    else:
        flat = [x for t in terms for x in t if not x.isdigit()]
        result = dots + tuple(sorted(x for x in set(flat) if flat.count(x) == 1))
    known = {x for t in terms for x in t}
    if len(set(result)) != len(result) or not set(result) <= known:
        raise Refusal(f"the result of the equation {text!r} repeats or invents labels")
    return Equation(terms, result)


def _labels(term: str, rank: int, text: str, dots: Labels | None = None) -> Labels:
    before, ellipsis, after = term.partition("...")
    if not all(c.isascii() and c.isalpha() for c in before + after):
        raise Refusal(f"the equation {text!r} is malformed")
    hidden = rank - len(before) - len(after)
    if hidden < 0 or (hidden and not ellipsis and dots is None):
        raise Refusal(f"the equation {text!r} does not fit an operand of rank {rank}")
    own = dots if dots is not None else tuple(str(k) for k in range(hidden - 1, -1, -1))
    return (*before, *(own if ellipsis else ()), *after)


@operator
class Einsum(Op):
    """NumPy's einsum: ellipsis, repeated labels within an operand, any number of operands."""

    equation: str = ""
    cases: ClassVar = (
        Case((((3, 4), "f32"), ((4, 5), "f32")), {"equation": "ij,jk->ik"}),
        Case((((2, 3, 3), "f32"),), {"equation": "...ii->...i"}),
        Case((((4, 4), "f32"),), {"equation": "ii"}),
        Case((((2, 3, 4), "f32"), ((4, 2), "f32"), ((2,), "f32")), {"equation": "bij,jb,b->ib"}),
        Case((((2, 1, 3, 4), "f32"), ((5, 4, 3), "f32")), {"equation": "...ij,...jk"}),
        Case((((3, 4), "i32"),), {"equation": "ij->"}),
        Case((((0, 4), "f32"), ((4, 2), "f32")), {"equation": "ij,jk->ki"}),
    )

    def sizes(self, n: Node, eq: Equation) -> dict[str, Dim]:
        """The extent of each label. Raises Refusal where operands disagree."""
        out: dict[str, Dim] = {}
        for v, term in zip(n.present(), eq.terms, strict=True):
            for label, d in zip(term, v.shape, strict=True):
                have = out.get(label, 1)
                if have == 1:
                    out[label] = d
                elif d != 1 and not agree(have, d):
                    raise Refusal(f"label {label} of {self.equation!r} is {have} and {d} long")
                elif isinstance(d, int) and d != 1:
                    out[label] = d
        return out

    def infer(self, n: Node) -> Sequence[TensorType]:
        values = list(n.present())
        if not values or any(v.dtype is not values[0].dtype for v in values):
            raise Refusal("Einsum needs operands of one element type")
        if values[0].dtype.kind in ("complex", "string", "bool"):
            raise Refusal(f"Einsum of {values[0].dtype}")
        eq = parse(self.equation, [len(v.shape) for v in values])
        sizes = self.sizes(n, eq)
        return [TensorType(tuple(sizes[x] for x in eq.result), values[0].dtype)]

    def ref(self, n: Node, *x: Any) -> Any:
        eq = parse(self.equation, [a.ndim for a in x])
        names = {label: k for k, label in enumerate(dict.fromkeys(s for t in eq.terms for s in t))}
        pairs: list[Any] = []
        for a, term in zip(x, eq.terms, strict=True):
            pairs += [wide(a), [names[s] for s in term]]
        return np.einsum(*pairs, [names[s] for s in eq.result]).astype(x[0].dtype)

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        xs = [x for x in k.inputs if x is not None]
        eq = parse(self.equation, [len(x.shape) for x in xs])
        sizes = self.sizes(k.node, eq)
        summed = [s for s in sizes if s not in eq.result]

        def element(*index: Dim) -> Scalar:
            at: dict[str, Dim] = dict(zip(eq.result, index, strict=True))

            def term(*r: Dim) -> Scalar:
                place = at | dict(zip(summed, r, strict=True))
                value: Scalar | None = None
                for x, labels in zip(xs, eq.terms, strict=True):
                    own = [0 if d == 1 else place[s] for s, d in zip(labels, x.shape, strict=True)]
                    value = x(*own) if value is None else value * x(*own)
                assert value is not None
                return value

            return scalar.reduce("sum", [sizes[s] for s in summed], term) if summed else term()

        return k.map(element)

    def macs(self, n: Node) -> int:
        values = list(n.present())
        eq = parse(self.equation, [len(v.shape) for v in values])
        return dims.upper(dims.product(self.sizes(n, eq).values())) if len(values) > 1 else 0

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        op = cls(str(n.attr("equation", "")))
        values = [n.arg(i) for i in range(len(n.inputs))]
        plain = _matrix_product(op, values, b)
        return [plain] if plain is not None else b.ops(op, *values, name=n.output_names)

    onnx: ClassVar = ("Einsum",)


def _matrix_product(op: Einsum, values: Sequence[Value], b: Builder) -> Value | None:
    """Two operands that are a batch of matrix products, as MatMul of transposed views."""
    if len(values) != 2 or any(v.dtype is not values[0].dtype for v in values):
        return None
    eq = parse(op.equation, [len(v.shape) for v in values])
    one, two, out = set(eq.terms[0]), set(eq.terms[1]), set(eq.result)
    if any(len(set(t)) != len(t) for t in eq.terms) or any(d == 1 for v in values for d in v.shape):
        return None
    batch = [s for s in eq.result if s in one and s in two]
    rows, columns = one & out - two, two & out - one
    inner = one & two - out
    if not (len(rows) == len(columns) == len(inner) == 1) or len(one | two) != len(batch) + 3:
        return None
    (m,), (p,), (k,) = rows, columns, inner
    y = b.op(
        MatMul(), _arranged(b, values[0], eq.terms[0], [*batch, m, k]),
        _arranged(b, values[1], eq.terms[1], [*batch, k, p]),
    )  # fmt: skip
    return _arranged(b, y, (*batch, m, p), eq.result)


def _arranged(b: Builder, v: Value, have: Sequence[str], want: Sequence[str]) -> Value:
    perm = tuple(list(have).index(s) for s in want)
    return v if perm == tuple(range(len(perm))) else b.op(Transpose(perm), v)
