"""Reads a TFLite file into the records of `frontend.tflite.records`.

Safe on hostile bytes: every offset, length and index is checked, nothing recurses, and work and
memory are bounded by the size of the file (`flatbuffer.Budget`).  Weights stay where they are:
tensors are views of the mapped file.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from onefold.errors import ModelFormatError
from onefold.frontend import elements
from onefold.frontend._gen.tflite_schema import ENUMS, OPERATOR_OPTIONS
from onefold.frontend.source import Bytes, Source, open_source
from onefold.frontend.tflite.flatbuffer import FlatBuffer, TableRef, defaults
from onefold.frontend.tflite.records import (
    Model,
    Operator,
    Quantization,
    Signature,
    Subgraph,
    Tensor,
)
from onefold.frontend.tflite.sparsity import Level, Sparsity

IDENTIFIER = b"TFL3"

_DTYPES = {name: name.replace("_", "").lower() for name in ENUMS["TensorType"].values()}
_NO_FLOATS = np.zeros(0, np.float32)
_NO_BYTES = memoryview(b"")


def read(model: str | os.PathLike[str] | Bytes | Source) -> Model:
    """The records of a TFLite file given as a path (mapped), as bytes, or as a `Source`.

    Raises `ModelFormatError` for anything that is not a well-formed TFLite model.
    """
    source = model if isinstance(model, Source) else open_source(model)
    return _Reader(source).model()


def is_tflite(data: memoryview) -> bool:
    """Whether the bytes carry the identifier of a TFLite FlatBuffer."""
    return bytes(data[4:8]) == IDENTIFIER


class _Reader:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.where = source.name
        self.flat = FlatBuffer(source.data, source.name)
        self.buffers: tuple[TableRef, ...] = ()
        self.views: dict[int, memoryview | None] = {}
        self.codes: list[tuple[str, bool, int]] = []
        self.external: dict[int, TableRef] = {}
        self.groups: tuple[TableRef, ...] = ()

    def bad(self, what: str, why: str = "", where: str = "") -> ModelFormatError:
        return ModelFormatError(f"malformed TFLite file: {what}", why=why,
                                where=f"{self.where}: {where}" if where else self.where)

    def model(self) -> Model:
        if not is_tflite(self.source.data):
            raise self.bad("the identifier 'TFL3' is missing", "bytes 4 to 7 are "
                           f"{bytes(self.source.data[4:8])!r}")
        top = self.flat.fields(self.flat.root("Model"))
        if top["version"] != 3:
            raise self.bad(f"schema version {top['version']}", "only version 3 exists in the field")
        if not top["subgraphs"]:
            raise self.bad("there is no subgraph")
        self.buffers = top["buffers"]
        self.groups = top["external_buffer_groups"]
        for ref in top["external_buffers"]:
            self.external[self.flat.fields(ref)["id"]] = ref
        self.codes = [self._code(ref) for ref in top["operator_codes"]]
        subgraphs = tuple(self._subgraph(i, ref) for i, ref in enumerate(top["subgraphs"]))
        return Model(
            version=top["version"], description=top["description"] or "", subgraphs=subgraphs,
            signatures=tuple(self._signature(r, subgraphs) for r in top["signature_defs"]),
            metadata=self._metadata(top["metadata"]),
            operator_names=tuple(name for name, _, _ in self.codes))

    def _metadata(self, refs: tuple[TableRef, ...]) -> dict[str, memoryview]:
        entries = (self.flat.fields(ref) for ref in refs)
        return {e["name"] or "": self._buffer(e["buffer"], "metadata") or _NO_BYTES
                for e in entries}

    def _code(self, ref: TableRef) -> tuple[str, bool, int]:
        code = self.flat.fields(ref)
        # Files from before builtin 127 have only the deprecated field; newer ones have both.
        number = max(code["deprecated_builtin_code"], code["builtin_code"])
        name = ENUMS["BuiltinOperator"].get(number, f"UNKNOWN_{number}")
        if name == "CUSTOM":
            return code["custom_code"] or "", True, code["version"]
        return name, False, code["version"]

    # --- buffers ---

    def _buffer(self, index: int, where: str) -> memoryview | None:
        """The bytes of a buffer, or None when it is empty."""
        if index not in self.views:
            if index >= len(self.buffers):
                raise self.bad("buffer index out of range",
                               f"buffer {index} of {len(self.buffers)}", where)
            self.views[index] = self._buffer_data(self.flat.fields(self.buffers[index]), where)
        return self.views[index]

    def _buffer_data(self, buffer: dict[str, Any], where: str) -> memoryview | None:
        # Offsets 0 and 1 mark a buffer that lies in the table itself.
        if buffer["offset"] > 1 and buffer["size"]:
            return self._tail(buffer["offset"], buffer["size"], where)
        return buffer["data"] if len(buffer["data"]) else None

    def _tail(self, offset: int, size: int, where: str) -> memoryview:
        """Bytes behind the FlatBuffer, which has no offsets beyond 2 GB."""
        if offset + size > len(self.source.data):
            raise self.bad("a buffer lies outside of the file",
                           f"bytes {offset} to {offset + size} of {len(self.source.data)}", where)
        return self.source.data[offset:offset + size]

    def _external_buffer(self, number: int, where: str) -> memoryview:
        """A buffer kept in another file, which must lie in the model's own folder."""
        if number not in self.external:
            raise self.bad(f"external buffer {number} is not defined", "", where)
        entry = self.flat.fields(self.external[number])
        if entry["group"] >= len(self.groups):
            raise self.bad("external buffer group out of range", "", where)
        if entry["packing"]:
            raise self.bad(f"external buffer is packed as '{entry['packing']}'",
                           "only plain bytes are known", where)
        location = self.flat.fields(self.groups[entry["group"]])["name"] or ""
        data = self.source.external(location)
        begin, end = entry["offset"], entry["offset"] + entry["length"]
        if end > len(data):
            raise ModelFormatError(
                f"external data file '{location}' is too short", where=f"{self.where}: {where}",
                why=f"bytes {begin} to {end} are needed, it has {len(data)}",
                kind=ModelFormatError.EXTERNAL)
        return data[begin:end]

    # --- subgraphs ---

    def _subgraph(self, index: int, ref: TableRef) -> Subgraph:
        graph = self.flat.fields(ref)
        where = f"subgraph {index}"
        tensors = tuple(self._tensor(i, r, where) for i, r in enumerate(graph["tensors"]))
        count = len(tensors)
        return Subgraph(
            index=index, name=graph["name"] or "", tensors=tensors,
            inputs=self._indices(graph["inputs"], 0, count, f"{where}, inputs"),
            outputs=self._indices(graph["outputs"], 0, count, f"{where}, outputs"),
            operators=tuple(self._operator(i, r, count, where)
                            for i, r in enumerate(graph["operators"])))

    def _ints(self, numbers: Any) -> tuple[int, ...]:
        self.flat.budget.charge(36 * len(numbers))
        return tuple(numbers.tolist()) if len(numbers) else ()

    def _indices(self, numbers: Any, low: int, count: int, where: str) -> tuple[int, ...]:
        found = self._ints(numbers)
        for i in found:
            if not low <= i < count:
                raise self.bad("tensor index out of range", f"index {i} of {count} tensors", where)
        return found

    def _tensor(self, index: int, ref: TableRef, where: str) -> Tensor:
        t = self.flat.fields(ref)
        self.flat.budget.charge(200)
        name = t["name"] or ""
        where = f"{where}, tensor {index} '{name[:80]}'"
        if max(len(t["shape"]), len(t["shape_signature"])) > elements.MAX_RANK:
            raise self.bad("too many dimensions", f"at most {elements.MAX_RANK} are possible",
                           where)
        shape = self._ints(t["shape"])
        dtype = _DTYPES.get(t["type"], t["type"])
        count = elements.element_count(shape, f"{self.where}: {where}")
        data = self._buffer(t["buffer"], where)
        if t["external_buffer"]:
            data = self._external_buffer(t["external_buffer"], where)
        sparsity = self._sparsity(t["sparsity"]) if t["sparsity"] else None
        if data is not None and sparsity is None and dtype in elements.BITS:
            need = elements.byte_count(dtype, count)
            if len(data) < need:
                raise self.bad("tensor data is too short",
                               f"its shape needs {need} bytes, the file gives {len(data)}", where)
        return Tensor(
            index=index, name=name, shape=shape, shape_signature=self._ints(t["shape_signature"]),
            dtype=dtype, data=data, is_variable=t["is_variable"], sparsity=sparsity,
            quant=self._quantization(t["quantization"], shape, where),
            buffer=t["buffer"], has_rank=t["has_rank"] or bool(shape),
            variant=tuple(self._variant(r) for r in t["variant_tensors"]))

    def _variant(self, ref: TableRef) -> tuple[tuple[int, ...], str]:
        part = self.flat.fields(ref)
        return self._ints(part["shape"]), _DTYPES.get(part["type"], part["type"])

    def _quantization(self, ref: TableRef | None, shape: tuple[int, ...],
                      where: str) -> Quantization | None:
        if ref is None:
            return None
        q = self.flat.fields(ref)
        scale, zero_point, axis = q["scale"], q["zero_point"], q["quantized_dimension"]
        details: TableRef | None = q["details"]
        if not len(scale) and details is None:
            return None
        if len(zero_point) != len(scale):
            if len(zero_point) != 1:
                raise self.bad("quantization is inconsistent", f"{len(scale)} scales and "
                               f"{len(zero_point)} zero points", where)
            self.flat.budget.charge(8 * len(scale))
            zero_point = np.repeat(zero_point, len(scale))
        if len(scale) > 1 and shape == (len(scale),):
            axis = 0  # some writers give a bias the axis of its weights
        elif len(scale) > 1 and (not 0 <= axis < len(shape) or shape[axis] != len(scale)):
            raise self.bad("quantization is inconsistent",
                           f"{len(scale)} scales along axis {axis} of shape {list(shape)}", where)
        return Quantization(
            scale=scale if len(scale) else _NO_FLOATS, axis=axis,
            zero_point=zero_point if len(zero_point) else np.zeros(0, np.int64),
            min=q["min"] if len(q["min"]) else _NO_FLOATS,
            max=q["max"] if len(q["max"]) else _NO_FLOATS,
            details_type=details.table if details else "",
            details=self._table_options(details) if details else None)

    def _sparsity(self, ref: TableRef) -> Sparsity:
        s = self.flat.fields(ref)
        return Sparsity(self._ints(s["traversal_order"]), self._ints(s["block_map"]),
                        tuple(self._level(r) for r in s["dim_metadata"]))

    def _level(self, ref: TableRef) -> Level:
        d = self.flat.fields(ref)
        return Level(d["format"] == "DENSE", d["dense_size"],
                     self._index_vector(d["array_segments"]),
                     self._index_vector(d["array_indices"]))

    def _index_vector(self, ref: TableRef | None) -> Any:
        if ref is None or ref.table not in ("Int32Vector", "Uint16Vector", "Uint8Vector"):
            return np.zeros(0, np.int64)
        values = self.flat.fields(ref)["values"]
        return np.frombuffer(values, np.uint8) if isinstance(values, memoryview) else \
            np.asarray(values)

    # --- operators ---

    def _operator(self, index: int, ref: TableRef, tensors: int, where: str) -> Operator:
        op = self.flat.fields(ref)
        self.flat.budget.charge(200)
        where = f"{where}, operator {index}"
        if op["opcode_index"] >= len(self.codes):
            raise self.bad("operator code out of range",
                           f"code {op['opcode_index']} of {len(self.codes)}", where)
        name, is_custom, version = self.codes[op["opcode_index"]]
        where = f"{where} {name[:80]}"
        options, options_type = self._options(name, is_custom, op)
        return Operator(
            index=index, name=name, is_custom=is_custom, version=version,
            inputs=self._indices(op["inputs"], -1, tensors, f"{where}, inputs"),
            outputs=self._indices(op["outputs"], -1, tensors, f"{where}, outputs"),
            options=options, options_type=options_type,
            custom_options=self._custom_options(op, where),
            intermediates=self._indices(op["intermediates"], -1, tensors, f"{where}, scratch"),
            mutating_variable_inputs=tuple(map(bool, self._ints(op["mutating_variable_inputs"]))))

    def _custom_options(self, op: dict[str, Any], where: str) -> memoryview:
        if op["large_custom_options_offset"] > 1 and op["large_custom_options_size"]:
            return self._tail(op["large_custom_options_offset"], op["large_custom_options_size"],
                              where)
        return memoryview(op["custom_options"] or b"")

    def _options(self, name: str, is_custom: bool,
                 op: dict[str, Any]) -> tuple[dict[str, Any], str]:
        found: TableRef | None = op["builtin_options"] or op["builtin_options2"]
        expected = None if is_custom else OPERATOR_OPTIONS.get(name)
        given = found.table if found else ""
        if found and expected and given == expected:
            return self._table_options(found), given
        return dict(defaults(expected)) if expected else {}, given

    def _table_options(self, ref: TableRef) -> dict[str, Any]:
        """A table without tables inside, as a dict of plain values."""
        if ref.table not in _OPTION_TABLES:
            return {}
        return {k: self._plain(v) for k, v in self.flat.fields(ref).items()}

    def _plain(self, value: Any) -> Any:
        if isinstance(value, memoryview):
            self.flat.budget.charge(64 + len(value))
            return bytes(value)
        return self._ints(value) if isinstance(value, np.ndarray) else value

    def _signature(self, ref: TableRef, subgraphs: tuple[Subgraph, ...]) -> Signature:
        s = self.flat.fields(ref)
        key, index = s["signature_key"] or "", s["subgraph_index"]
        where = f"signature '{key[:80]}'"
        if index >= len(subgraphs):
            raise self.bad("subgraph index out of range", f"{index} of {len(subgraphs)}", where)
        count = len(subgraphs[index].tensors)
        return Signature(key, index, self._names(s["inputs"], count, where),
                         self._names(s["outputs"], count, where))

    def _names(self, refs: tuple[TableRef, ...], count: int, where: str) -> dict[str, int]:
        names: dict[str, int] = {}
        for ref in refs:
            entry = self.flat.fields(ref)
            name, index = entry["name"] or "", entry["tensor_index"]
            if index >= count:
                raise self.bad("tensor index out of range", f"index {index} of {count} tensors",
                               where)
            if name in names:
                raise self.bad(f"name '{name[:80]}' occurs twice", "", where)
            names[name] = index
        return names


_OPTION_TABLES = {name for union in ("BuiltinOptions", "BuiltinOptions2", "QuantizationDetails")
                  for name in ENUMS[union].values()} - {"NONE"}
