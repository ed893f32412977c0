"""Common subexpressions and equal constants."""

from __future__ import annotations

import numpy as np

from onefold.ir import dtypes
from onefold.ir.graph import Builder, Graph, Value
from onefold.ir.text import parse
from onefold.ir.types import TensorType
from onefold.ir.verify import verify
from onefold.ops.elementwise import Add, Mul
from onefold.ops.random import RandomUniform
from onefold.passes.clean import remove_dead
from onefold.passes.same import merge_equal


def test_equal_nodes_become_one_in_every_body() -> None:
    graph = parse("""
    graph main {
      input %x: f32[3]
      input %c: b1[]
      %a = Neg()(%x): f32[3]  # first
      %b = Neg()(%x): f32[3]  # second
      %s = Add()(%a, %b): f32[3]
      %z = If()(%c): f32[3] {
        body 0 {
          %p = Abs()(%b): f32[3]
          %q = Abs()(%a): f32[3]
          %r = Mul()(%p, %q): f32[3]
          output %r
        }
        body 1 {
          output %s
        }
      }
      output %z
    }""")
    assert merge_equal(graph) == 2
    verify(graph)
    assert [n.op.name for n in graph.walk()] == ["Neg", "Add", "If", "Abs", "Mul"]
    assert graph.nodes[0].origin.layers == ("first", "second")


def test_outputs_keep_their_own_nodes() -> None:
    graph = parse("""
    graph main {
      input %x: f32[3]
      %a = Neg()(%x): f32[3]
      %b = Neg()(%x): f32[3]
      output %a
      output %b
    }""")
    assert merge_equal(graph) == 0
    assert graph.outputs[0] is not graph.outputs[1]


def test_constants_are_equal_by_every_byte() -> None:
    graph = Graph()
    b = Builder(graph)
    x = Value("x", TensorType((4096,), dtypes.f32))
    graph.inputs.append(x)
    one = np.zeros(4096, np.float32)
    other = one.copy()
    other[4095] = 1
    minus = -one
    v = x
    for data in (one, one.copy(), other, minus, one.astype(np.float32)):
        v = b.op(Add(), v, b.const(data))
    graph.outputs.append(v)
    assert merge_equal(graph) == 2
    verify(graph)
    assert len(graph.constants()) == 3


def test_random_numbers_stay_apart() -> None:
    graph = Graph()
    b = Builder(graph)
    stream = Value("stream", TensorType((), dtypes.i64))
    graph.inputs.append(stream)
    draw = RandomUniform(shape=(3,))
    first, second = b.op(draw, None, stream), b.op(draw, None, stream)
    graph.outputs.append(b.op(Mul(), first, second))
    assert merge_equal(graph) == 0
    assert remove_dead(graph) == 0
