"""How far results may lie apart."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

import onefold
from onefold.dev.budget import Budget, bounded, budget_of, measure, steps_of
from onefold.ir import dtypes
from tests.cli.made import save, value


def test_floats_by_the_range_of_the_referee() -> None:
    want = np.array([-1.0, 0.0, 3.0], np.float32)
    near = measure(want + np.float32(3e-4), want)
    assert near.share == pytest.approx(7.5e-5, rel=1e-3)
    assert near.within(budget_of(dtypes.f32, "onnx"))
    assert not measure(want + np.float32(5e-4), want).within(budget_of(dtypes.f32, "onnx"))
    assert measure(want + np.float32(5e-4), want).within(budget_of(dtypes.f32, "onnx", "bf16"))


def test_integers_by_the_rule_of_the_format() -> None:
    want = np.array([1, 2, 3], np.int8)
    one_off = measure(np.array([1, 2, 4], np.int8), want)
    assert one_off.differ == 1 and one_off.worst == 1
    assert not one_off.within(budget_of(dtypes.i8, "tflite"))
    assert one_off.within(budget_of(dtypes.i8, "onnx"))
    assert not one_off.within(budget_of(dtypes.i64, "onnx"))
    assert measure(want, want).within(budget_of(dtypes.i8, "tflite"))


def test_a_dequantized_output_may_be_one_step_away() -> None:
    budget = budget_of(dtypes.f32, "onnx", step=0.5)
    want = np.array([0.0, 1.0], np.float32)
    assert measure(np.array([0.5, 1.0], np.float32), want).within(budget)
    assert not measure(np.array([1.0, 1.0], np.float32), want).within(budget)


def test_nan_and_infinity_must_agree() -> None:
    budget = Budget(share=1.0)
    odd = np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)
    assert measure(odd, odd).within(budget)
    for bad in (np.nan, np.inf, -np.inf):
        other = odd.copy()
        other[3] = bad
        assert not measure(other, odd).within(budget)
    assert not measure(-odd, odd).within(budget)


def test_shapes_and_types_must_agree() -> None:
    want = np.zeros((2, 2), np.float32)
    assert "shape [4], not [2, 2]" in measure(np.zeros(4, np.float32), want).problem
    wrong = measure(np.zeros((2, 2), np.float64), want)
    assert "type float64, not float32" in wrong.problem
    assert not wrong.within(Budget(share=1.0))
    assert measure(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)).within(Budget())


def test_the_largest_element() -> None:
    want = np.array([1.0, 3.0, 2.0])
    assert measure(np.array([1.0, 3.1, 2.0]), want).same_class
    assert not measure(np.array([4.0, 3.0, 2.0]), want).same_class
    assert measure(np.array([3.0, 3.0, 2.0]), want).same_class, "a tie is no other class"


def test_slivers_of_bounded_operators() -> None:
    want = np.array([0.5, 0.50001], np.float32)
    ours = want + np.float32(3e-7)
    assert measure(ours, want).within(budget_of(dtypes.f32, "onnx", bounded=True))
    assert not measure(ours, want).within(budget_of(dtypes.f32, "onnx"))


def test_what_is_bounded(tmp_path) -> None:
    make = helper.make_node
    save(tmp_path / "m.onnx", [
        make("Sigmoid", ["x"], ["s"]), make("ReduceMean", ["s"], ["m"], axes=[1]),
        make("Concat", ["s", "s"], ["both"], axis=1), make("Identity", ["both"], ["moved"]),
        make("Concat", ["s", "x"], ["mixed"], axis=1), make("Add", ["s", "s"], ["sum"]),
    ], [value("x", [2, 3])], [value("m", [2, 1]), value("moved", [2, 6]), value("mixed", [2, 6]),
                              value("sum", [2, 3])])  # fmt: skip
    outputs = onefold.load(tmp_path / "m.onnx").graph.outputs
    assert [bounded(v) for v in outputs] == [True, True, False, False]


def test_steps_where_floats_are_rounded_to_integers(tmp_path) -> None:
    """x -> relu -> quantize -> dequantize -> transpose has one step; without relu, the input's own
    rounding is exact on both sides."""
    def graph(first: str):
        make = helper.make_node
        nodes = [make("Relu", ["x"], ["r"], name="relu")] if first == "r" else []
        nodes += [
            make("QuantizeLinear", [first, "scale", "zero"], ["q"], name="q"),
            make("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="d"),
            make("Transpose", ["d"], ["y"], name="t"),
        ]
        path = save(
            tmp_path / "q.onnx",
            nodes,
            [value("x", [2, 3])],
            [value("y", [3, 2])],
            scale=np.float32(0.25),
            zero=np.int8(0),
        )
        return onefold.load(path).graph

    assert steps_of(graph("r")) == [0.25]
    assert steps_of(graph("x")) == [0.0]
