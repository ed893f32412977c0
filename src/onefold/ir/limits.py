"""Bounds on what a model may make the compiler do before it runs: sizes and folded constants.

A file of a few hundred bytes can describe tensors of any size.  A result beyond
ONEFOLD_MEMORY_LIMIT is refused when its type is inferred, and constants are folded only while
they stay in proportion to those that the file itself holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from onefold import knobs
from onefold.ir import dims
from onefold.ir.types import AnyType, TensorType

FOLD_LIMIT = 1 << 26
"""Elements of a result that is still folded."""

FOLD_BYTES = 64 * 2**20
"""Bytes of folded constants that every graph may hold ..."""

FOLD_FACTOR = 8
"""... and how many times the bytes of its own constants in addition (int4 weights that become
floats take eight times as much)."""

WORK_LIMIT = 1 << 28
"""Multiply-adds of an operator that is still folded: references are slow."""

MAX_RANK = 64


def refusal(types: Iterable[AnyType]) -> tuple[str, bool]:
    """Why a result of one of these types is not taken, empty where all are; and whether it is
    only the limit of memory."""
    limit = knobs.MEMORY_LIMIT.get()
    for t in types:
        if not isinstance(t, TensorType):
            continue
        if t.rank > MAX_RANK:
            return f"its result has {t.rank} dimensions, and at most {MAX_RANK} are taken", False
        if any(isinstance(d, int) and d < 0 for d in t.shape):
            return f"its result would have the shape {list(t.shape)}", False
        size = t.size
        if isinstance(size, int) and size * t.dtype.bytes > limit:
            return (f"its result takes {size * t.dtype.bytes} bytes, more than the limit of "
                    f"{limit} (ONEFOLD_MEMORY_LIMIT)"), True  # fmt: skip
    return "", False


def foldable_size(t: AnyType) -> int:
    """Bytes of a result that may be folded, -1 where it may not."""
    if not isinstance(t, TensorType):
        return -1
    size = dims.upper(t.size)
    return size * t.dtype.bytes if size <= FOLD_LIMIT else -1


class FoldBudget:
    """How many bytes of constants may still be folded in a graph."""

    def __init__(self) -> None:
        self.left = FOLD_BYTES
        # Weak, so that what was replaced by its folded form is not kept alive.
        self._seen: WeakValueDictionary[int, np.ndarray[Any, Any]] = WeakValueDictionary()

    def give(self, data: np.ndarray[Any, Any]) -> None:
        """Counts a constant of the model, once."""
        if self._seen.get(id(data)) is not data:
            self._seen[id(data)] = data
            self.left += FOLD_FACTOR * data.nbytes

    def take(self, data: np.ndarray[Any, Any]) -> None:
        """Counts a folded constant."""
        self._seen[id(data)] = data
        self.left -= data.nbytes

    def allows(self, types: Iterable[AnyType]) -> bool:
        """Whether results of these types may be folded."""
        total = 0
        for t in types:
            size = foldable_size(t)
            if size < 0:
                return False
            total += size
        return total <= self.left
