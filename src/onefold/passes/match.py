"""What rules ask about nodes and constants."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from onefold.ir.graph import Array, Node, Value
from onefold.ir.types import TensorType
from onefold.ops.base import Op

T = TypeVar("T", bound=Op)


def producer(v: Value | None, *kinds: type[Op]) -> Node | None:
    """The node that makes a value, where its operator is of one of these classes."""
    n = None if v is None else v.producer
    return n if n is not None and type(n.op) in kinds else None


def op_of(n: Node, kind: type[T]) -> T:
    """The operator of a node that is known to be of a class."""
    assert isinstance(n.op, kind)
    return n.op


def number(v: Value | None) -> float | None:
    """The one number that a constant of any shape holds everywhere."""
    if v is None or v.data is None or not v.data.size or v.data.dtype.kind in "OUSc":
        return None
    flat = v.data.reshape(-1)
    first = float(flat[0])
    if flat.size > 1 and (flat.size > 4096 or not bool(np.all(flat == flat[0]))):
        return None
    return first


def is_number(v: Value | None, wanted: float, tolerance: float = 0.0) -> bool:
    found = number(v)
    return found is not None and near(found, wanted, tolerance)


def near(a: float, b: float, tolerance: float = 1e-4) -> bool:
    """Equal up to a relative tolerance; infinities are near to nothing."""
    return math.isfinite(a - b) and abs(a - b) <= tolerance * max(abs(a), abs(b))


def is_float(v: Value) -> bool:
    return isinstance(v.type, TensorType) and v.type.dtype.is_float


def same_shape(a: Value, b: Value) -> bool:
    return a.tensor.shape == b.tensor.shape


def finite(a: Array) -> bool:
    return bool(np.isfinite(a.astype(np.float64)).all())


def axes_from(axes: tuple[int, ...] | None, rank: int) -> tuple[int, ...]:
    """Axes counted from the front, sorted; all of them for None."""
    if axes is None:
        return tuple(range(rank))
    return tuple(sorted(a % rank for a in axes)) if rank else ()
