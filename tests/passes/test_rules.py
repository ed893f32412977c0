"""Every rewrite rule on a small graph in text form: before, after, and the same results.

`golden/<module>/<case>.txt` holds both texts; a case whose name begins with "not-" must stay as
it is. `ONEFOLD_UPDATE_GOLDEN=1` writes the second text anew (look at what changed).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onefold import events
from onefold.ir.text import parse, show
from onefold.ir.verify import verify
from onefold.passes import affine, algebra, attention, formulas, norms, padding, quantized, sink
from onefold.passes.rewrite import Rule, apply_rules
from tests.passes.support import difference, inputs_for, outputs

GROUPS: dict[str, tuple[Rule, ...]] = {
    "algebra": (*algebra.RULES, *algebra.VIEWS),
    "affine": affine.RULES,
    "attention": attention.RULES,
    "bytes": (quantized.chain_of_bytes,),
    "formulas": formulas.RULES,
    "norms": norms.RULES,
    "padding": padding.RULES,
    "sink": (*sink.RULES, algebra.transpose_pair),
}
GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(str(p.relative_to(GOLDEN).with_suffix("")) for p in GOLDEN.glob("*/*.txt"))
MARK = "\n---\n"


def rewritten(group: str, text: str) -> tuple[str, list[str]]:
    """The text after the group's rules, and the names of those that applied."""
    graph = parse(text)
    verify(graph)
    inputs = inputs_for(graph, 1)
    want = outputs(graph, inputs)
    with events.collected() as heard:
        count = apply_rules(graph, GROUPS[group])
    verify(graph, group)
    assert difference(want, outputs(graph, inputs)) < 1e-6
    names = [e.facts["rule"] for e in heard if e.kind == "rewrite"]
    assert count == len(names)
    return show(graph), names


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    path = GOLDEN / f"{case}.txt"
    before, _, after = path.read_text().rstrip("\n").partition(MARK)
    group, name = case.split("/")
    found, names = rewritten(group, before)
    assert bool(names) != name.startswith("not-")
    if os.environ.get("ONEFOLD_UPDATE_GOLDEN"):
        path.write_text(f"{before}{MARK}{found}\n")
    else:
        assert found == after


@pytest.mark.parametrize("group", GROUPS)
def test_every_rule_has_a_case(group: str) -> None:
    seen: set[str] = set()
    for case in CASES:
        if case.startswith(f"{group}/"):
            text = (GOLDEN / f"{case}.txt").read_text().partition(MARK)[0]
            seen.update(rewritten(group, text)[1])
    assert not {r.name for r in GROUPS[group]} - seen


def test_layers_survive() -> None:
    text = (GOLDEN / "norms/normalisation.txt").read_text().partition(MARK)[0]
    graph = parse(text)
    layers = {layer for n in graph.walk() for layer in n.origin.layers}
    apply_rules(graph, norms.RULES)
    (node,) = graph.nodes
    assert set(node.origin.layers) == layers
    assert node.origin.path[-1] == "shift-of-normalisation"
