"""Generated C under address and undefined-behaviour sanitizers, against the references."""

from __future__ import annotations

import numpy as np
import pytest

from onefold.dev import sanitize
from onefold.dev.cases import all_cases, graph_of
from onefold.ops.elementwise import Add
from onefold.plan import plan
from onefold.target import find

if not sanitize.compiler():
    pytest.skip("no C compiler with address sanitizer (apt-get install gcc)",
                allow_module_level=True)  # fmt: skip

NAMES = sorted({op.name for op, _ in all_cases()})


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES[::16])
def test_operators(name: str) -> None:
    """A sample; `python -m onefold.dev.sanitize` takes all."""
    sanitize.check_operator([(op, c) for op, c in all_cases() if op.name == name])


def test_a_byte_too_far_is_seen() -> None:
    """The sanitizers are on: a program that reads one element beyond its input is caught."""
    a = np.ones(5, np.float32)
    program = plan(graph_of(Add(), [a, a]), find("host"))
    assert sanitize.run(program, [a, a], {}, sanitize.compiler())[0].tolist() == [2.0] * 5
    step = next(program.flat())
    step.kernel = type(step.kernel)(**{**vars(step.kernel), "body": step.kernel.body.replace(
        "5", "6")})  # fmt: skip
    with pytest.raises(sanitize.Report, match="heap-buffer-overflow"):
        sanitize.run(program, [a, a], {}, sanitize.compiler())


def test_a_mutated_model_is_judged() -> None:
    from tests.fuzz.test_findings import M, node, x

    m = M("", [node("Softmax", "x")], [x("N", 3)])
    assert sanitize.judge("onnx", m.data(), 3) == ("equal", "")
