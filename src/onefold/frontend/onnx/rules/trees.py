"""Tree ensembles of ai.onnx.ml, in their old form (a regressor, a classifier) and the new one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from onefold.frontend.onnx.rules import rule
from onefold.frontend.onnx.tensors import Tensor
from onefold.ir import dtypes
from onefold.ir.graph import Builder, Value
from onefold.ops.base import Refusal
from onefold.ops.cast import Cast
from onefold.ops.elementwise import Add, Sub
from onefold.ops.formats import OnnxNode
from onefold.ops.indexing import Gather
from onefold.ops.logic import Greater
from onefold.ops.movement import Concat
from onefold.ops.shape import Reshape
from onefold.ops.sort import TopK
from onefold.ops.trees import AGGREGATES, MODES, TRANSFORMS, Forest, ScoreTransform, forest_scores
from onefold.ops.unary import Neg

MAX_TARGETS = 1 << 24


def _list(n: OnnxNode, name: str) -> list[Any]:
    """An attribute, or the tensor that may stand for it."""
    for key in (name, f"{name}_as_tensor"):
        v = n.attr(key)
        if v is not None:
            return list(v.numpy().reshape(-1)) if isinstance(v, Tensor) else list(v)
    return []


def _wide(n: OnnxNode, *names: str) -> bool:
    """True where an attribute is a tensor of doubles."""
    tensors = [n.attr(k) for name in names for k in (name, f"{name}_as_tensor")]
    return any(isinstance(t, Tensor) and t.dtype == "float64" for t in tensors)


def _old_forest(n: OnnxNode, what: str) -> Forest:
    """Nodes known by (tree, node); `what`: prefix of the leaves' attributes."""
    keys = _keys(n, "nodes_treeids", "nodes_nodeids")
    names = ("modes", "featureids", "values", "truenodeids", "falsenodeids")
    columns = [_list(n, f"nodes_{c}") for c in names]
    missing = _list(n, "nodes_missing_value_tracks_true") or [0] * len(keys)
    if any(len(c) != len(keys) for c in (*columns, missing)) or len(set(keys)) != len(keys):
        raise Refusal("the nodes of the trees are not well-formed")
    rows = list(zip(*columns, missing, strict=True))
    inner = [k for k, row in zip(keys, rows, strict=True) if row[0] != "LEAF"]
    outer = [k for k, row in zip(keys, rows, strict=True) if row[0] == "LEAF"]
    links = {k: i for i, k in enumerate(inner)} | {k: ~i for i, k in enumerate(outer)}
    f = Forest()
    _old_leaves(n, what, f, outer)
    for (tree, _), (mode, feature, value, yes, no, nan) in zip(keys, rows, strict=True):
        if mode == "LEAF":
            continue
        ends = [links.get((tree, int(e))) for e in (yes, no)]
        if None in ends or str(mode).removeprefix("BRANCH_") not in MODES[:6]:
            raise Refusal(f"a node of tree {tree} branches by {mode} to {yes} or {no}")
        at = MODES.index(mode.removeprefix("BRANCH_"))
        f.nodes.append((int(feature), at, int(nan), ends[0] or 0, ends[1] or 0, 0, 0))
        f.thresholds.append(float(value))
    below = {e for row in f.nodes for e in row[3:5]}
    first = {tree: links[tree, node] for tree, node in reversed(keys)}
    tops = {tree: links[tree, node] for tree, node in reversed(keys)
            if links[tree, node] not in below}  # fmt: skip
    f.roots = [tops.get(tree, link) for tree, link in reversed(first.items())]
    return f


def _keys(n: OnnxNode, trees: str, nodes: str) -> list[tuple[int, int]]:
    a, b = _list(n, trees), _list(n, nodes)
    if len(a) != len(b):
        raise Refusal(f"{trees} and {nodes} have different lengths")
    return [(int(t), int(i)) for t, i in zip(a, b, strict=True)]


def _old_leaves(n: OnnxNode, what: str, f: Forest, order: Sequence[tuple[int, int]]) -> None:
    """Contributions of the leaves, in the order given."""
    keys = _keys(n, f"{what}_treeids", f"{what}_nodeids")
    ids, weights = _list(n, f"{what}_ids"), _list(n, f"{what}_weights")
    if not len(keys) == len(ids) == len(weights):
        raise Refusal(f"the {what}_ attributes have different lengths")
    parts: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for key, target, weight in zip(keys, ids, weights, strict=True):
        parts.setdefault(key, []).append((int(target), float(weight)))
    for key in order:
        mine = parts.get(key, [])
        f.leaves.append((len(f.targets), len(f.targets) + len(mine)))
        f.targets += [t for t, _ in mine]
        f.weights += [w for _, w in mine]


def _transform(b: Builder, scores: Value, kind: str) -> Value:
    if kind not in TRANSFORMS:
        raise Refusal(f"post_transform '{kind}' is not one of {', '.join(TRANSFORMS)}")
    return scores if kind == "NONE" else b.op(ScoreTransform(kind), scores)


def _based(b: Builder, scores: Value, base: Sequence[float]) -> Value:
    """Scores with the base value of each column (or one for all) added."""
    if not base:
        return scores
    if len(base) not in (1, scores.shape[1]):
        raise Refusal(f"{len(base)} base values for {scores.shape[1]} columns")
    return b.op(Add(), scores, b.const(np.array([list(base)], scores.dtype.numpy)))


def _float(b: Builder, v: Value) -> Value:
    return v if v.dtype is dtypes.f32 else b.op(Cast(dtypes.f32), v)


@rule("ai.onnx.ml:TreeEnsembleRegressor")
def regressor(n: OnnxNode, b: Builder) -> Sequence[Value]:
    targets = int(n.attr("n_targets", 1))
    if not 1 <= targets <= MAX_TARGETS:
        raise Refusal(f"{targets} targets")
    wide = _wide(n, "nodes_values", "target_weights")
    how = n.attr("aggregate_function", "SUM")
    scores = forest_scores(b, n.arg(0), _old_forest(n, "target"), targets, how, wide)
    scores = _based(b, scores, [float(v) for v in _list(n, "base_values")])
    return [_float(b, _transform(b, scores, n.attr("post_transform", "NONE")))]


@rule("ai.onnx.ml:TreeEnsembleClassifier")
def classifier(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """Labels and scores. Two classes of which the trees score only one are a case of their own."""
    labels: Any = np.array(_list(n, "classlabels_int64s"), np.int64)
    if n.attr("classlabels_strings"):
        labels = np.array(n.attr("classlabels_strings"), object)
    if not 1 <= len(labels) <= MAX_TARGETS:
        raise Refusal(f"{len(labels)} class labels")
    forest = _old_forest(n, "class")
    kind = n.attr("post_transform", "NONE")
    base = [float(v) for v in _list(n, "base_values")]
    scored = set(forest.targets)
    wide = _wide(n, "nodes_values", "class_weights")
    scores = forest_scores(b, n.arg(0), forest, len(labels), "SUM", wide)
    if len(labels) == 2 and len(scored) == 1:
        index, scores = _binary(b, scores, scored == {1}, base, kind, min(forest.weights) >= 0)
    else:
        scores = _based(b, scores, base)
        _, best = b.ops(TopK(1, 1, True), scores)
        index = b.op(Reshape(scores.shape[:1]), best)
        scores = _transform(b, scores, kind)
    names = [*n.output_names, ""][:2]
    return [b.op(Gather(0), b.const(labels), index, name=names[0]), _float(b, scores)]


def _binary(
    b: Builder, scores: Value, second: bool, base: Sequence[float], kind: str, positive: bool
) -> tuple[Value, Value]:
    """(index of the label, scores) where the trees score one of two classes.

    Positive weights are probabilities, decided at 1/2; others are margins, decided at 0.
    """
    def column(k: int) -> Value:
        return b.op(Gather(1), scores, b.const(np.array([k], np.int64)))

    one = column(int(second))
    if len(base) > 2:
        raise Refusal(f"{len(base)} base values for two classes")
    shift = (base[1] if len(base) == 2 else 0.0 if second else base[0]) if base else 0.0
    if shift:
        one = b.op(Add(), one, b.const(np.array(shift, one.dtype.numpy)))
    limit = b.const(np.array(0.5 if positive else 0.0, one.dtype.numpy))
    chosen = b.op(Cast(dtypes.i64), b.op(Greater(), one, limit))
    index = b.op(Reshape(scores.shape[:1]), chosen)
    if second:
        return index, _transform(b, b.op(Concat(1), column(0), one), kind)
    if kind == "PROBIT":
        return index, _transform(b, one, kind)
    if positive:
        rest = b.op(Sub(), b.const(np.ones((), one.dtype.numpy)), one)
        return index, b.op(Concat(1), rest, one)
    both = b.op(Concat(1), b.op(Neg(), one), one)
    return index, _transform(b, both, kind) if kind == "LOGISTIC" else both


@rule("ai.onnx.ml:TreeEnsemble")
def ensemble(n: OnnxNode, b: Builder) -> Sequence[Value]:
    """TreeEnsemble-5: inner nodes and leaves apart, attributes by number."""
    names = ("featureids", "modes", "truenodeids", "falsenodeids", "trueleafs", "falseleafs")
    columns = [_list(n, f"nodes_{c}") for c in names]
    splits = _list(n, "nodes_splits")
    missing = _list(n, "nodes_missing_value_tracks_true") or [0] * len(splits)
    if any(len(c) != len(splits) for c in (*columns, missing)):
        raise Refusal("the nodes_ attributes have different lengths")
    f = Forest(thresholds=[float(v) for v in splits])
    f.targets = [int(v) for v in _list(n, "leaf_targetids")]
    f.weights = [float(v) for v in _list(n, "leaf_weights")]
    if len(f.targets) != len(f.weights):
        raise Refusal("the leaf_ attributes have different lengths")
    f.leaves = [(i, i + 1) for i in range(len(f.targets))]
    sets = _members(n, f)
    for row, nan in zip(zip(*columns, strict=True), missing, strict=True):
        feature, mode, yes, no, yes_leaf, no_leaf = (int(v) for v in row)
        first, end = next(sets, (0, 0)) if mode == 6 else (0, 0)
        ends = (~yes if yes_leaf else yes), (~no if no_leaf else no)
        f.nodes.append((feature, mode, int(nan), *ends, first, end))
    f.roots = [int(v) for v in _list(n, "tree_roots")]
    targets, how = int(n.attr("n_targets", 1)), int(n.attr("aggregate_function", 1))
    kind = int(n.attr("post_transform", 0))
    if not 1 <= targets <= MAX_TARGETS or not 0 <= how < 4 or not 0 <= kind < 5:
        raise Refusal(f"{targets} targets, aggregate_function {how}, post_transform {kind}")
    wide = _wide(n, "nodes_splits", "leaf_weights")
    scores = forest_scores(b, n.arg(0), f, targets, AGGREGATES[how], wide)
    y = _transform(b, scores, TRANSFORMS[kind])
    return [y if y.dtype is n.arg(0).dtype else b.op(Cast(n.arg(0).dtype), y)]


def _members(n: OnnxNode, f: Forest) -> Iterator[tuple[int, int]]:
    """(first, end) of each set of members; NaN ends a set."""
    f.members = [float(v) for v in _list(n, "membership_values")]
    spans: list[tuple[int, int]] = []
    start = 0
    for i, v in enumerate(f.members):
        if v != v:
            spans.append((start, i))
            start = i + 1
    if start < len(f.members):
        spans.append((start, len(f.members)))
    return iter(spans)
