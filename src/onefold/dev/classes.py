"""Outputs that name classes: which they are, and what the best ones are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onefold.errors import InputError

if TYPE_CHECKING:
    from onefold.ir.graph import Array

MOST = 100_000  # classes


@dataclass(frozen=True)
class Ranked:
    """One class of the best ones."""

    index: int
    label: str
    score: float


def looks_like_classes(array: Array) -> bool:
    """Whether an output is one score per class: numbers along one axis, one sample."""
    long = [d for d in array.shape if d != 1]
    return array.dtype.kind in "fiuV" and len(long) == 1 and 2 <= long[0] <= MOST


def read_labels(path: Path) -> list[str]:
    """One label per line; `index,label` and `index label` lines lose the index.

    Raises InputError where the file cannot be read.
    """
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError as e:
        raise InputError(f"the labels '{path}' cannot be read", why=str(e),
                         remedy="Give a text file with one label per line.") from None  # fmt: skip
    if "\0" in text:
        raise InputError(f"the labels '{path}' are not a text",
                         remedy="Give a text file with one label per line.")  # fmt: skip
    rows = [line.strip() for line in text.splitlines()]
    while rows and not rows[-1]:
        rows.pop()
    numbered = [_split(r, k) for k, r in enumerate(rows)]
    return [n for n in numbered if n is not None] if None not in numbered else rows


def _split(row: str, index: int) -> str | None:
    for sign in (",", ":", " ", "\t"):
        head, found, tail = row.partition(sign)
        if found and head.strip() == str(index) and tail.strip():
            return tail.strip()
    return None


def best(array: Array, labels: Sequence[str], top: int) -> tuple[list[Ranked], str]:
    """The `top` classes, best first, and a note where the labels had to be moved.

    With one label too few, class 0 is the background that ImageNet's 1001-class networks have.
    """
    flat = array.reshape(-1).astype(np.float64)
    order = np.argsort(-np.nan_to_num(flat, nan=-np.inf), kind="stable")[:top]
    shift, note = 0, ""
    if labels and len(labels) == flat.size - 1:
        shift, note = 1, "one label fewer than classes: class 0 is taken as background"
    elif labels and len(labels) != flat.size:
        note = f"{len(labels)} labels for {flat.size} classes"
    names = (["background"] if shift else []) + list(labels)
    picked = [Ranked(int(k), names[k] if k < len(names) else "", float(flat[k])) for k in order]
    return picked, note
