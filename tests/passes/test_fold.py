"""What is folded, and what is not."""

from __future__ import annotations

from onefold.ir.graph import Graph
from onefold.ir.text import parse
from onefold.passes.fold import fold_constants
from onefold.plan import plan
from onefold.target import find


def table(reader: str) -> Graph:
    """Bytes, widened, and looked up in."""
    graph = parse(f"""
    graph main {{
      input %at: i64[2]
      const %w: i8[3,4] = [[0, 1, 2, 3], [4, 5, 6, 7], [-8, -9, -10, -11]]
      const %s: f32[] = 0.5
      const %z: i8[] = 1
      %f = DequantizeLinear()(%w, %s, %z): f32[3,4]
      {reader}
      output %y
    }}""")
    return graph


def test_a_table_is_widened_where_it_is_looked_up() -> None:
    graph = table("%y = Gather(axis=0)(%f, %at): f32[2,4]")
    assert fold_constants(graph) == 0
    program = plan(graph, find("x86-64-v3"))
    (step,) = program.flat()
    assert next(str(b.type) for b in step.reads if b.kind == "const").startswith("i8")
    assert program.weights_bytes == 64


def test_what_others_read_is_folded() -> None:
    graph = table("%y = Neg()(%f): f32[3,4]")
    assert fold_constants(graph) == 2
    graph = table("""%g = Gather(axis=0)(%f, %at): f32[2,4]
      %n = Neg()(%f): f32[3,4]
      %t = Transpose(perm=(1, 0))(%n): f32[4,3]
      %y = MatMul()(%g, %t): f32[2,3]""")
    assert fold_constants(graph) == 3
