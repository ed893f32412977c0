"""Numbers in the text of kernels that are data: zero points, factors, bounds.

A text holds them marked, and in the end each is written into it. Where bytes of code count, kernels
that are alike but for such numbers become one, and what differs between them its parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from onefold.codegen.text import MARKED
from onefold.plan.program import Kernel, Param, Step

MOST = 12  # parameters: beyond, calls take as many bytes as they save


def settle(steps: Sequence[Step], joined: bool) -> None:
    """Write the numbers into the kernels of all steps; joined: or let kernels share their code."""
    alike = sorted(steps, key=lambda s: _key(s.kernel)) if joined else steps
    for _, some in groupby(alike, lambda s: _key(s.kernel) if joined else id(s)):
        _write(list(some))


def _key(k: Kernel) -> str:
    """What kernels have in common that may be one."""
    body = MARKED.sub(lambda m: f"\ue000{m[1]}\ue002", k.body)
    return repr(replace(k, body=body))


def _write(steps: Sequence[Step]) -> None:
    """Steps whose kernels are alike but for their numbers."""
    found = [MARKED.findall(s.kernel.body) for s in steps]
    columns = list(zip(*found, strict=True))
    differ = dict.fromkeys(c for c in columns if len(set(c)) > 1)
    if len(differ) > MOST:
        for s in steps:
            _write([s])
        return
    names = {c: Param(f"number{k}", c[0][0]) for k, c in enumerate(differ)}
    texts = iter([names[c].name if c in names else c[0][1] for c in columns])
    kernel = replace(
        steps[0].kernel, body=MARKED.sub(lambda m: next(texts), steps[0].kernel.body),
        numbers=tuple(names.values()),
    )  # fmt: skip
    for k, s in enumerate(steps):
        s.kernel, s.numbers = kernel, tuple(c[k][1] for c in names)
