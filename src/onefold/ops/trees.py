"""Ensembles of decision trees, and what is made of their scores (ai.onnx.ml)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Builder, Node, Value
from onefold.ir.scalar import Scalar
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Code, Lowered, Lowering, Op, Refusal, operator
from onefold.ops.cast import Cast

MODES = ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ", "MEMBER")
AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
_TESTS = ("v <= t", "v < t", "v >= t", "v > t", "v == t", "v != t")


@dataclass
class Forest:
    """Trees as rows. A link >= 0 is a node, ~link a leaf; no node lies on a way to itself.

    nodes: (feature, mode, NaN goes to yes, yes, no, first member, end of members);
    leaves: (first, end) of the contributions, which are (target, weight).
    """

    nodes: list[tuple[int, int, int, int, int, int, int]] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    members: list[float] = field(default_factory=list)
    leaves: list[tuple[int, int]] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)

    def check(self, targets: int) -> None:
        """Raises Refusal for a link, target or feature out of range, or a cycle."""
        for row in self.nodes:
            for link in row[3:5]:
                if not -len(self.leaves) <= link < len(self.nodes):
                    raise Refusal("a branch leads to a node that does not exist")
            if row[0] < 0 or not 0 <= row[1] < len(MODES):
                raise Refusal(f"a node tests feature {row[0]} by mode {row[1]}")
        if any(not 0 <= t < targets for t in self.targets):
            raise Refusal(f"a leaf contributes to a target beyond {targets}")
        if any(not -len(self.leaves) <= r < len(self.nodes) for r in self.roots):
            raise Refusal("a tree begins at a node that does not exist")
        self._check_cycles()

    def _check_cycles(self) -> None:
        above = [0] * len(self.nodes)
        for row in self.nodes:
            for link in row[3:5]:
                if link >= 0:
                    above[link] += 1
        free = [i for i, count in enumerate(above) if not count]
        seen = 0
        while free:
            seen += 1
            for link in self.nodes[free.pop()][3:5]:
                if link >= 0:
                    above[link] -= 1
                    if not above[link]:
                        free.append(link)
        if seen != len(self.nodes):
            raise Refusal("the branches of a tree form a cycle")

    def tables(self, kind: Any) -> list[Array]:
        """The inputs of `Trees` after x; kind: NumPy type of thresholds and weights."""
        return [
            np.array(self.nodes, np.int32).reshape(-1, 7), np.array(self.thresholds, kind),
            np.array(self.members, kind), np.array(self.leaves, np.int32).reshape(-1, 2),
            np.array(self.targets, np.int32), np.array(self.weights, kind),
            np.array(self.roots, np.int32),
        ]  # fmt: skip


_STUMPS = Forest(
    [(0, 0, 0, -1, 1, 0, 0), (1, 6, 1, -2, -3, 0, 2)], [0.5, 0.0], [1.0, 3.0],
    [(0, 1), (1, 3), (3, 4)], [0, 0, 1, 1], [1.5, -2.0, 4.0, 0.25], [0, 1],
)  # fmt: skip
_X = np.array([[0, 1], [0.5, 2], [1, 3], [np.nan, np.nan]], np.float32)


@operator
class Trees(Op):
    """Scores [n, targets] of x [n, features]: every tree contributes the leaf that a row reaches.

    Inputs: x, and the tables of a `Forest`, which has been checked.
    """

    targets: int = 1
    aggregate: str = "SUM"
    cases: ClassVar = tuple(
        Case((_X, *_STUMPS.tables(np.float32)), {"targets": 2, "aggregate": a}) for a in AGGREGATES
    ) + (Case((_X[:0], *_STUMPS.tables(np.float32)), {"targets": 2}),)

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, kind = n.arg(0).tensor, n.arg(2).dtype
        if x.rank != 2 or x.dtype is not kind or not kind.is_float or kind.bits < 32:
            raise Refusal(f"trees of {kind.long} on {x}")
        if self.aggregate not in AGGREGATES or self.targets < 1:
            raise Refusal(f"{self.targets} targets joined by {self.aggregate}")
        nodes = n.arg(1).data
        most = -1 if nodes is None or not len(nodes) else int(nodes[:, 0].max())
        if isinstance(x.shape[1], int) and most >= x.shape[1]:
            raise Refusal(f"the trees test feature {most} of {x.shape[1]}")
        return [TensorType((x.shape[0], self.targets), kind)]

    def ref(self, n: Node, x: Any, nodes: Any, thresholds: Any, members: Any, leaves: Any,
            targets: Any, weights: Any, roots: Any) -> Any:  # fmt: skip
        y = np.zeros((len(x), self.targets), x.dtype)
        for row, out in zip(x, y, strict=True):
            parts: list[list[float]] = [[] for _ in range(self.targets)]
            for at in roots:
                while at >= 0:
                    feature, mode, missing, yes, no, first, end = nodes[at]
                    v, t = row[feature], thresholds[at]
                    hit = bool(np.any(members[first:end] == v)) if mode == 6 else bool(
                        (v <= t, v < t, v >= t, v > t, v == t, v != t)[mode])  # fmt: skip
                    at = yes if hit or (missing and v != v) else no
                for j in range(*leaves[~at]):
                    parts[targets[j]].append(weights[j])
            for k, p in enumerate(parts):
                if p:
                    f = {"MIN": min, "MAX": max}.get(self.aggregate, sum)
                    out[k] = f(p) / (len(roots) if self.aggregate == "AVERAGE" else 1)
        return y

    def lower(self, k: Lowering) -> Lowered:
        x = k.x(0)
        kind, c = x.dtype.name, x.dtype.ctype
        begin = {"MIN": f"OF_INF_{kind.upper()}", "MAX": f"-OF_INF_{kind.upper()}"}
        start = begin.get(self.aggregate, "0")
        join = "out[x5[j]] += x6[j];"
        if self.aggregate in ("MIN", "MAX"):
            join = f"out[x5[j]] = of_{self.aggregate.lower()}_{kind}(out[x5[j]], x6[j]);"
        end = {"AVERAGE": f"out[j] /= ({c})roots;", "SUM": ""}.get(
            self.aggregate, f"if (out[j] == {start}) out[j] = 0;")  # fmt: skip
        tests = "\n".join(f"        case {m}: hit = {t}; break;" for m, t in enumerate(_TESTS))
        nodes = k.node.arg(1).data
        most = -1 if nodes is None or not len(nodes) else int(nodes[:, 0].max())
        checked = isinstance(x.shape[1], int)
        text = f"""
const ix features = {k.dim(x.shape[1])}, roots = {k.dim(k.x(7).shape[0])};
{"" if checked else f"if (features <= {most}) OF_STOP(OF_BAD_SIZE);"}
for (ix r = 0; r < {k.dim(x.shape[0])}; r++) {{
  {c} *const out = y0 + r * {self.targets};
  for (ix j = 0; j < {self.targets}; j++) out[j] = {start};
  for (ix tree = 0; tree < roots; tree++) {{
    int32_t at = x7[tree];
    while (at >= 0) {{
      const int32_t *const node = x1 + (ix)at * 7;
      const {c} v = x0[r * features + node[0]], t = x2[at];
      bool hit = false;
      switch (node[1]) {{
{tests}
        default: for (int32_t j = node[5]; j < node[6] && !hit; j++) hit = x3[j] == v;
      }}
      at = hit || (node[2] && v != v) ? node[3] : node[4];
    }}
    for (int32_t j = x4[~at * 2]; j < x4[~at * 2 + 1]; j++) {join}
  }}
  for (ix j = 0; j < {self.targets}; j++) {{
    {end}
  }}
}}"""
        return Code(text, stops=not checked)


@operator
class ScoreTransform(Op):
    """Scores [n, c] to probabilities, by the post_transform of ai.onnx.ml."""

    kind: str = "SOFTMAX"
    cases: ClassVar = tuple(Case((((3, 4), "f32"),), {"kind": k}) for k in TRANSFORMS[1:4]) + (
        Case((((3, 2), "f32"),), {"kind": "PROBIT"}, low=0.01, high=0.99),
        Case((np.array([[0, 1, -1], [0, 0, 0]], np.float32),), {"kind": "SOFTMAX_ZERO"}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = n.arg(0).tensor
        if self.kind not in TRANSFORMS or t.rank != 2 or not t.dtype.is_float:
            raise Refusal(f"post_transform {self.kind} of {t}")
        return [t]

    def ref(self, n: Node, x: Any) -> Any:
        v = x.astype(np.float64)
        with np.errstate(all="ignore"):
            if self.kind == "LOGISTIC":
                y = 1 / (1 + np.exp(-v))
            elif self.kind == "PROBIT":
                y = _probit(v)
            else:
                zero = (np.abs(v) <= 1e-7) & (self.kind == "SOFTMAX_ZERO")
                top = v.max(1, keepdims=True)
                e = np.exp(v - top)
                total = np.where(zero, 0, e).sum(1, keepdims=True)
                y = np.where(zero, v * np.exp(-top), e) / np.where(total == 0, 1, total)
        return y.astype(x.dtype)

    def lower(self, k: Lowering) -> Lowered:
        x = k.x()
        c = x.shape[1]
        if self.kind == "LOGISTIC":
            return k.map(lambda *i: scalar.call("sigmoid", x(*i)))
        if self.kind == "PROBIT":
            return k.map(lambda *i: _probit_expr(x(*i)))
        zeros = self.kind == "SOFTMAX_ZERO"

        def small(v: Scalar) -> Scalar:
            return scalar.call("abs", v) <= 1e-7

        def element(r: Dim, j: Dim) -> Scalar:
            top = scalar.reduce("max", [c], lambda m: x(r, m))

            def part(m: Dim) -> Scalar:
                e = scalar.call("exp", x(r, m) - top)
                return scalar.where(small(x(r, m)), 0, e) if zeros else e

            total = scalar.reduce("sum", [c], part)
            v = x(r, j)
            e = scalar.call("exp", v - top)
            if not zeros:
                return e / total
            rest = v * scalar.call("exp", -top)
            return scalar.where(small(v), rest, e) / scalar.where(total.eq(0), 1, total)

        return k.map(element)


_A = 2 / (np.pi * 0.147)


def _probit(p: Any) -> Any:
    """sqrt(2) erfinv(2 p - 1), erfinv by Winitzki's approximation, as other runtimes compute it."""
    v = 2 * p - 1
    log = np.log((1 - v) * (1 + v))
    a = _A + 0.5 * log
    return np.sqrt(2) * np.sign(v) * np.sqrt(-a + np.sqrt(a * a - log / 0.147))


def _probit_expr(p: Scalar) -> Scalar:
    v = p * 2 - 1
    log = scalar.call("log", (1.0 - v) * (v + 1))
    a = log * 0.5 + float(_A)
    root = scalar.call("sqrt", scalar.call("sqrt", a * a - log / 0.147) - a)
    return scalar.call("copysign", root * float(np.sqrt(2)), v)


def forest_scores(
    b: Builder, x: Value, forest: Forest, targets: int, aggregate: str, wide: bool
) -> Value:
    """Nodes for the scores of a forest. Raises Refusal where it is not well-formed."""
    forest.check(targets)
    kind = dtypes.f64 if wide else dtypes.f32
    if x.dtype is not kind:
        x = b.op(Cast(kind), x)
    tables = [b.const(a) for a in forest.tables(kind.numpy)]
    return b.op(Trees(targets, aggregate), x, *tables)


