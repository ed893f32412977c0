"""The sparse tensor format of TFLite, and its expansion to a dense array.

The format is that of TACO (Kjolstad et al., OOPSLA 2017): the dimensions of the tensor, and after
them those of a dense block, are traversed in `traversal_order`; each level is either dense
(an extent) or compressed (segments and indices, as in CSR).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onefold.errors import ModelFormatError
from onefold.frontend import elements

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """One level of the traversal: `size` entries each, or a compressed list of them."""

    dense: bool
    size: int
    segments: npt.NDArray[Any]
    indices: npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Sparsity:
    """`traversal_order[i]` is the dimension (or block dimension) that level i walks;
    `block_map[j]` is the dimension that block dimension j divides."""

    traversal_order: tuple[int, ...]
    block_map: tuple[int, ...]
    levels: tuple[Level, ...]


def densify(raw: memoryview, dtype: str, shape: Sequence[int], sparsity: Sparsity,
            where: str) -> npt.NDArray[Any]:
    """The dense array of `shape`, zeros where nothing is stored.

    Raises `ModelFormatError` when the levels contradict each other, the shape or the data, and
    `MemoryLimitError` when the dense array would exceed 1 GiB.
    """
    count = elements.element_count(shape, where)
    elements.check_dense(count, dtype, where)
    extents = _extents(shape, sparsity, where)
    coordinates = _walk(sparsity, extents, len(raw) * 8 // elements.BITS[dtype], where)
    stored = len(coordinates[0]) if coordinates else 1
    values = elements.decode(raw[:elements.byte_count(dtype, stored)], dtype, (stored,), where)
    flat = np.zeros(stored, np.int64)
    block = {len(shape) + j: d for j, d in enumerate(sparsity.block_map)}
    strides = np.cumprod([1, *shape[:0:-1]])[::-1] if len(shape) else np.ones(1, np.int64)
    for level, position in zip(sparsity.traversal_order, coordinates, strict=True):
        if level >= len(shape):
            flat += position * strides[block[level]]
        else:
            inner = [extents[b] for b, d in block.items() if d == level]
            flat += position * strides[level] * (inner[0] if inner else 1)
    dense = np.zeros(count, values.dtype)
    dense[flat] = values
    return dense.reshape(shape)


def _bad(why: str, where: str) -> ModelFormatError:
    return ModelFormatError("sparse tensor is malformed", where=where, why=why)


def _extents(shape: Sequence[int], sparsity: Sparsity, where: str) -> list[int]:
    """How far each dimension and block dimension runs; a blocked dimension counts blocks."""
    rank, total = len(shape), len(shape) + len(sparsity.block_map)
    if sorted(sparsity.traversal_order) != list(range(total)) or len(sparsity.levels) != total:
        raise _bad("the traversal order does not name each dimension once", where)
    if len(set(sparsity.block_map)) != len(sparsity.block_map) or \
            not all(0 <= d < rank for d in sparsity.block_map):
        raise _bad("the block map names no dimension, or one twice", where)
    extents = [*shape, *(0 for _ in sparsity.block_map)]
    for j, blocked in enumerate(sparsity.block_map):
        level = sparsity.levels[sparsity.traversal_order.index(rank + j)]
        if not level.dense or level.size < 1 or shape[blocked] % level.size:
            raise _bad("a block does not divide its dimension", where)
        extents[rank + j] = level.size
        extents[blocked] = shape[blocked] // level.size
    return extents


def _walk(sparsity: Sparsity, extents: Sequence[int], most: int, where: str) -> list[Ints]:
    """Per level, the coordinate of every stored element; at most `most` elements."""
    coordinates: list[Ints] = []
    nodes = 1
    for dimension, level in zip(sparsity.traversal_order, sparsity.levels, strict=True):
        extent = extents[dimension]
        if level.dense:
            if level.size != extent:
                raise _bad(f"a dense level has {level.size} entries, its dimension {extent}", where)
            repeats: int | Ints = level.size
            position = np.tile(np.arange(level.size, dtype=np.int64), nodes) \
                if nodes * level.size <= most else None
            nodes *= level.size
        else:
            repeats, position = _compressed(level, nodes, extent, where)
            nodes = len(position)
        if position is None or nodes > most:
            raise _bad("it names more elements than its data holds", where)
        coordinates = [np.repeat(c, repeats) for c in coordinates]
        coordinates.append(position)
    return coordinates


def _compressed(level: Level, nodes: int, extent: int, where: str) -> tuple[Ints, Ints]:
    segments = level.segments.astype(np.int64)
    indices = level.indices.astype(np.int64)
    if len(segments) != nodes + 1 or segments[0] != 0 or (np.diff(segments) < 0).any() \
            or segments[-1] != len(indices):
        raise _bad("the segments of a compressed level do not fit its indices", where)
    if len(indices) and (indices.min() < 0 or indices.max() >= extent):
        raise _bad(f"an index lies outside of its dimension of {extent}", where)
    return np.diff(segments), indices
