"""What a TFLite file says, as plain records: no graph, no interpretation, no copies of weights.

The importer walks these.  Indices are those of the file; every index in a record has been checked
against what it points into, so it may be used without another check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from onefold.errors import ModelFormatError
from onefold.frontend import elements
from onefold.frontend.tflite import sparsity


@dataclass(frozen=True, slots=True, eq=False)
class Quantization:
    """How the integers of a tensor stand for reals: real = scale * (value - zero_point).

    `scale` and `zero_point` have the same length: 1, or the tensor's extent along `axis`
    (always 0 for a tensor of one dimension, where some writers leave the axis of the weights).
    `details_type` is `""`, or `BlockwiseQuantization`, `CustomQuantization`,
    `MultiAxisQuantization`, and `details` then holds that table's fields; with them the scales
    may lie in another tensor and `scale` be empty.
    `min` and `max` are the recorded ranges (often empty), for people.
    """

    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    axis: int
    min: npt.NDArray[np.float32]
    max: npt.NDArray[np.float32]
    details_type: str = ""
    details: Mapping[str, Any] | None = None

    @property
    def per_axis(self) -> bool:
        """True when there is one scale per slice along `axis`."""
        return len(self.scale) > 1


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a subgraph.

    `shape` has the extents as stored (never negative); `shape_signature` has -1 for a dimension
    that may change, and is empty where the file gives none.  `dtype` is a name of
    `frontend.elements.BITS`, or `string`, `resource`, `variant`, or `UNKNOWN_<n>`.
    `data` are the raw little-endian bytes of a constant, at least as many as the shape needs when
    there is no `sparsity`; None for everything computed at run time.
    `has_rank` is False for a tensor of unknown rank when its shape is empty (the converter writes
    the flag only for such).
    """

    index: int
    name: str
    shape: tuple[int, ...]
    shape_signature: tuple[int, ...]
    dtype: str
    data: memoryview | None
    quant: Quantization | None
    is_variable: bool
    sparsity: sparsity.Sparsity | None
    buffer: int
    has_rank: bool
    variant: tuple[tuple[tuple[int, ...], str], ...] = ()
    """Shape and element type of each part of a `variant` tensor (lists, data sets)."""

    def numpy(self) -> npt.NDArray[Any]:
        """The constant as a dense array of `shape`: a view where possible, read-only.

        Strings give an object array of bytes.  Raises `ModelFormatError` when the tensor has no
        data or broken data.
        """
        where = f"tensor '{self.name}'"
        if self.data is None:
            raise ModelFormatError("tensor has no data", where=where,
                                   why="it is computed at run time")
        if self.dtype == "string":
            return np.array(self.strings(), dtype=object).reshape(self.shape)
        if self.dtype not in elements.BITS:
            raise ModelFormatError(f"tensor of type {self.dtype} holds no numbers", where=where)
        if self.sparsity is not None:
            return sparsity.densify(self.data, self.dtype, self.shape, self.sparsity, where)
        need = elements.byte_count(self.dtype, elements.element_count(self.shape, where))
        return elements.decode(self.data[:need], self.dtype, self.shape, where)

    def strings(self) -> list[bytes]:
        """The elements of a string tensor: a count, count + 1 offsets, then the characters."""
        raw, where = self.data, f"tensor '{self.name}'"
        if raw is None or len(raw) < 8:
            raise ModelFormatError("string tensor is too short", where=where)
        count = int.from_bytes(raw[:4], "little")
        if 4 * (count + 2) > len(raw):
            raise ModelFormatError("string tensor is too short", where=where,
                                   why=f"{count} strings do not fit into {len(raw)} bytes")
        ends = np.frombuffer(raw[4:4 * (count + 2)], "<i4")
        inside = ends[0] >= 0 and ends[-1] <= len(raw) and (np.diff(ends) >= 0).all()
        if not inside or count != elements.element_count(self.shape, where):
            raise ModelFormatError("string tensor is malformed", where=where,
                                   why="its offsets do not ascend, or its count is not its shape's")
        return [bytes(raw[a:b]) for a, b in pairwise(ends.tolist())]


@dataclass(frozen=True, slots=True)
class Operator:
    """One step of a subgraph.

    `name` is the builtin's name (`CONV_2D`), the author's string for a custom operator
    (`is_custom`), or `UNKNOWN_<n>` for a builtin newer than the schema.  In `inputs`, `outputs`
    and `intermediates` -1 stands for an absent tensor.  `options` has every field of the
    operator's option table under its schema name (`stride_w`, `fused_activation_function`), the
    schema's defaults filled in, enums as strings, vectors as tuples (bytes as bytes); it is empty
    for operators without such a table.  `options_type` is the table found in the file, `""` when
    there was none; as in the reference runtime, a table that belongs to another operator is
    ignored.  `custom_options` are the bytes of a custom operator (usually a FlexBuffer: see
    `frontend.tflite.flexbuffer`).
    """

    index: int
    name: str
    is_custom: bool
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]
    options_type: str
    custom_options: memoryview
    intermediates: tuple[int, ...] = ()
    mutating_variable_inputs: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Subgraph:
    """Tensors and the operators over them, in an order of execution."""

    index: int
    name: str
    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """A named entry: the people's names of one subgraph's inputs and outputs."""

    key: str
    subgraph: int
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Model:
    """A whole file; `subgraphs[0]` is the main one."""

    version: int
    description: str
    subgraphs: tuple[Subgraph, ...]
    signatures: tuple[Signature, ...]
    metadata: Mapping[str, memoryview]
    operator_names: tuple[str, ...]
    """Names of all operator codes, used or not, in the file's order."""
