"""The passes, in order. Each takes a graph, changes it in place, and says how often it did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onefold import events, knobs
from onefold.defects import defects
from onefold.ir.graph import Graph
from onefold.ir.verify import verify
from onefold.options import DEFAULTS, Options
from onefold.passes import (
    affine,
    algebra,
    attention,
    formulas,
    norms,
    padding,
    quantized,
    sink,
    weights,
)
from onefold.passes.clean import remove_dead
from onefold.passes.fold import fold_constants
from onefold.passes.layout import choose_layouts
from onefold.passes.qdq import fuse_qdq
from onefold.passes.recurrent import split_recurrent
from onefold.passes.rewrite import Rule, apply_rules
from onefold.passes.same import merge_equal
from onefold.passes.storage import choose_storage
from onefold.passes.sums import shorten_sums
from onefold.target import Target

Pass = Callable[[Graph], int]
TargetPass = Callable[[Graph, Target, Options], int]



def rules(*groups: Sequence[Rule]) -> Pass:
    """A pass that rewrites with these rules to a fixed point."""
    return lambda graph: apply_rules(graph, [r for group in groups for r in group])


PIPELINE: tuple[tuple[str, Pass], ...] = (
    ("qdq", fuse_qdq),
    ("weights", rules(weights.RULES)),
    ("fold", fold_constants),
    ("dead", remove_dead),
    ("quantized", rules(quantized.RULES)),
    ("algebra", rules(algebra.RULES)),
    ("same", merge_equal),
    ("activations", rules(formulas.RULES)),
    ("norms", rules(norms.RULES)),
    ("transposes", rules(algebra.RULES, sink.RULES)),
    ("attention", rules(attention.RULES)),
    ("affine", rules(algebra.RULES, affine.RULES, padding.RULES)),
    ("tidy", rules(algebra.RULES, algebra.VIEWS)),
    ("merge", merge_equal),
    ("sweep", remove_dead),
)

# What depends on the machine runs on each part of a graph that the compiler gets, when it is
# planned: values that pass between parts must not change.
FOR_TARGET: tuple[tuple[str, TargetPass], ...] = (
    ("recurrent", split_recurrent),
    ("sums", lambda graph, target, options: shorten_sums(graph, target)),
    ("layout", lambda graph, target, options: choose_layouts(graph, target)),
    ("storage", choose_storage),
)


@dataclass(frozen=True)
class Applied:
    """A pass that ran and how many places it changed."""

    name: str
    changes: int


def run(graph: Graph, until: str = "") -> list[Applied]:
    """Apply the pipeline, up to and including the pass `until` where one is named."""
    done = []
    for name, fn in PIPELINE:
        with defects(f"the pass '{name}'"):
            changes = fn(graph)
        if knobs.DEBUG.get():
            verify(graph, name)
        done.append(Applied(name, changes))
        events.emit("pass", name=name, changes=changes, graph=graph)
        if name == until:
            break
    return done


def specialise(graph: Graph, target: Target, options: Options = DEFAULTS) -> list[Applied]:
    """Apply the passes that depend on the target."""
    done = []
    for name, fn in FOR_TARGET:
        with defects(f"the pass '{name}'"):
            changes = fn(graph, target, options)
        done.append(Applied(name, changes))
        events.emit("pass", name=name, changes=changes, graph=graph)
    return done
