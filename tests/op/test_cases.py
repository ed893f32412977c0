"""Every operator's own cases: the compiled form against the reference, one program an operator."""

from __future__ import annotations

from collections import defaultdict

import pytest

from onefold.dev.cases import all_cases, check_together
from onefold.ops.base import Case, Op

BY_OPERATOR: dict[str, list[tuple[Op, Case]]] = defaultdict(list)
for _op, _case in all_cases():
    BY_OPERATOR[_op.name].append((_op, _case))


@pytest.mark.parametrize("name", sorted(BY_OPERATOR))
def test_cases(name: str) -> None:
    check_together(BY_OPERATOR[name])


def test_ids_identify() -> None:
    ids = [c.id(op.name) for op, c in all_cases()]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    assert not twice
