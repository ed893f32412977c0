"""The driver: what it refuses, what it keeps, and that it ends."""

from __future__ import annotations

import pytest

from onefold import events
from onefold.errors import GraphError
from onefold.ir.graph import Graph, Node
from onefold.ir.text import parse, show
from onefold.ir.verify import verify
from onefold.ops.activation import Relu
from onefold.ops.base import Refusal
from onefold.ops.cast import Identity
from onefold.ops.elementwise import Add
from onefold.ops.movement import Transpose
from onefold.ops.unary import Abs, Neg
from onefold.passes import pipeline
from onefold.passes.rewrite import PER_NODE, Patch, Scope, apply_rules, rewrite
from tests.work import must_end


def chain(*ops: str, shape: str = "3") -> Graph:
    lines = [f"%v{k + 1} = {op}()(%v{k}): f32[{shape}]  # l{k}" for k, op in enumerate(ops)]
    body = "\n".join([f"input %v0: f32[{shape}]", *lines, f"output %v{len(ops)}"])
    return parse("graph main {\n" + body + "\n}")


@rewrite("flip", Neg, Abs)
def flip(n: Node, see: Scope) -> Patch | None:
    other = Abs() if isinstance(n.op, Neg) else Neg()
    return Patch((n,), lambda b: [b.op(other, n.arg(0))])


@rewrite("grow", Neg)
def grow(n: Node, see: Scope) -> Patch | None:
    return Patch((n,), lambda b: [b.op(Neg(), b.op(Neg(), n.arg(0)))])


@pytest.mark.parametrize("rule", [flip, grow])
def test_rules_without_an_end_are_stopped(rule: object) -> None:
    graph = chain("Neg", "Relu")
    count = apply_rules(graph, [rule])  # type: ignore[list-item]
    verify(graph)
    assert 1 < count <= PER_NODE * 64


def test_a_patch_of_another_type_is_dropped() -> None:
    @rewrite("wrong", Neg)
    def wrong(n: Node, see: Scope) -> Patch | None:
        return Patch((n,), lambda b: [b.op(Transpose((1, 0)), n.arg(0))])

    graph = chain("Neg", "Relu", shape="3,2")
    text = show(graph)
    with events.collected() as heard:
        assert apply_rules(graph, [wrong]) == 0
    verify(graph)
    assert show(graph) == text
    assert heard[0].kind == "rewrite.dropped"
    assert heard[0].facts["why"] == "f32[2,3] in place of f32[3,2]"


def test_a_patch_that_is_refused_leaves_no_trace() -> None:
    @rewrite("refused", Neg)
    def refused(n: Node, see: Scope) -> Patch | None:
        def build(b: object) -> list[object]:
            b.op(Abs(), n.arg(0))  # type: ignore[attr-defined]
            raise Refusal("no")

        return Patch((n,), build)  # type: ignore[arg-type]

    graph = chain("Neg", "Relu")
    assert apply_rules(graph, [refused]) == 0
    assert len(graph.inputs[0].uses) == 1
    verify(graph)


def test_covers_lie_in_the_same_graph() -> None:
    """What an enclosing graph computes once must not move into a body that may run often."""

    @rewrite("pair", Abs)
    def pair(n: Node, see: Scope) -> Patch | None:
        inner = n.arg(0).producer
        if inner is None or not isinstance(inner.op, Neg):
            return None
        return Patch((n, inner), lambda b: [b.op(Abs(), inner.arg(0))])

    text = """
    graph main {
      input %x: f32[3]
      input %c: b1[]
      %a = Neg()(%x): f32[3]
      %z = If()(%c): f32[3] {
        body 0 {
          %p = Abs()(%a): f32[3]
          output %p
        }
        body 1 {
          %n = Neg()(%x): f32[3]
          %q = Abs()(%n): f32[3]
          output %q
        }
      }
      output %z
    }"""
    graph = parse(text)
    assert apply_rules(graph, [pair]) == 1
    verify(graph)
    assert [n.op.name for n in graph.walk()] == ["Neg", "If", "Abs", "Abs"]


def test_outputs_keep_their_names() -> None:
    graph = chain("Neg", "Relu", "Identity")
    from onefold.passes.algebra import identity

    assert apply_rules(graph, [identity]) == 1
    assert [v.name for v in graph.outputs] == ["v3"]
    assert [n.op for n in graph.nodes] == [Neg(), Relu()]


def test_two_outputs_do_not_become_one() -> None:
    graph = parse("""
    graph main {
      input %x: f32[3]
      %a = Neg()(%x): f32[3]
      %b = Identity()(%a): f32[3]
      output %a
      output %b
    }""")
    from onefold.passes.algebra import identity

    assert apply_rules(graph, [identity]) == 0
    assert [n.op for n in graph.nodes] == [Neg(), Identity()]


def test_a_state_is_updated_by_the_new_value() -> None:
    graph = parse("""
    graph main {
      input %x: f32[3]
      state %s: f32[3] = zeros
      %a = Sum()(%x, %s): f32[3]
      update %s = %a
      output %a
    }""")
    pipeline.run(graph)
    verify(graph)
    (node,) = graph.nodes
    assert isinstance(node.op, Add)
    assert graph.states[0].update is node.outputs[0] is graph.outputs[0]


def test_long_chains_take_linear_time() -> None:
    graph = chain(*["Neg"] * 4000)
    assert sum(a.changes for a in pipeline.run(graph)) >= 1999
    verify(graph)
    assert len(graph.nodes) == 2


def test_passes_are_verified_when_debugging(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Graph) -> int:
        graph.nodes.reverse()
        return 1

    monkeypatch.setenv("ONEFOLD_DEBUG", "1")
    monkeypatch.setattr(pipeline, "PIPELINE", (("broken", broken),))
    with pytest.raises(GraphError, match="after the pass 'broken'"):
        pipeline.run(chain("Neg", "Relu"))


def test_a_hostile_web_of_operators_comes_to_an_end() -> None:
    """Each value is read by all of the next layer: paths are many, nodes few."""
    lines = ["input %x: f32[1,2,2,3]", "input %y: f32[1,2,2,3]",
             "%t = Transpose(perm=(0, 2, 3, 1))(%x): f32[1,2,3,2]",
             "%u = Reshape(shape=(1, 2, 3, 2))(%y): f32[1,2,3,2]",
             "%a0 = Add()(%t, %u): f32[1,2,3,2]"]  # fmt: skip
    last = ["%a0"]
    for layer in range(12):
        here = [f"%v{layer}_{k}" for k in range(12)]
        lines += [f"{v} = Max()({', '.join(last)}): f32[1,2,3,2]" for v in here]
        last = here
    lines += [f"output {v}" for v in last]
    graph = parse("graph main {\n" + "\n".join(lines) + "\n}")
    with must_end():
        pipeline.run(graph)
        verify(graph)
