"""The inputs of a model that a caller has to fill, and what fills them where nothing is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from onefold.dev.feed import Fed, Port
from onefold.errors import InputError, OptionError
from onefold.ir import dtypes

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.forms import Wanted
    from onefold.frontend.model import Declared


def ports_of(model: Model, wanted: Wanted) -> dict[str, Port]:
    """The inputs to fill, by name: not those that are states or were given by value.

    Open dimensions that `wanted` bounds take its upper end (a bucket: the smallest).
    """
    quants = quants_of(model)
    tied = set(wanted.states.values())
    out = {}
    for d in model.inputs:
        if d.name in tied or d.name in wanted.values:
            continue
        if d.kind != "tensor":
            raise InputError(
                f"the input '{d.name}' is a {d.kind}, which no file can hold",
                remedy="Call the program from Python with a list of arrays.",
            )
        scale, zero = quants.get(d.name, (0.0, 0))
        kind = dtypes.BY_NAME[d.dtype].numpy
        last = model.read.format == "tflite"
        out[d.name] = Port(d.name, kind, _shape(d, wanted), scale, zero, last)
    return out


def _shape(d: Declared, wanted: Wanted) -> tuple[int | None, ...] | None:
    if d.name in wanted.shapes:
        return wanted.shapes[d.name]
    if d.shape is None:
        return None
    return tuple(
        n if isinstance(n, int) and n >= 0 else _size(d.dim_name(k), wanted)
        for k, n in enumerate(d.shape)
    )


def _size(name: str, wanted: Wanted) -> int | None:
    if name in wanted.buckets:
        return wanted.buckets[name][0]
    given = wanted.dims.get(name)
    if isinstance(given, tuple):
        return given[1]
    return given


def quants_of(model: Model) -> Mapping[str, tuple[float, int]]:
    """Scale and zero point of quantized inputs and outputs, where the format writes them there
    (ONNX does not)."""
    if model.read.format == "onnx":
        return {}
    g = model.graph
    ports = [
        *zip(model.inputs, g.inputs, strict=False),
        *zip(model.outputs, g.outputs, strict=False),
    ]
    found = {d.name: getattr(v.type, "quant", None) for d, v in ports}
    return {n: (q.scale[0], q.zero_point[0]) for n, q in found.items() if q is not None}


def settle(ports: Mapping[str, Port], model: Model) -> tuple[dict[str, Port], list[str]]:
    """The ports with every open dimension fixed to 1, and notes that say so."""
    notes: dict[str, str] = {}
    out = {}
    declared = {d.name: d for d in model.inputs}
    for name, p in ports.items():
        if p.shape is None:
            raise OptionError(
                f"the shape of the input '{name}' is open",
                remedy=f"Give it: --shape {name}=1x3x224x224, or a file.",
            )
        for k, d in enumerate(p.shape):
            if d is None:
                dim = declared[name].dim_name(k)
                notes[dim] = f"the open dimension {dim} is taken as 1 (--dim {dim}=SIZE)"
        sizes = tuple(1 if d is None else d for d in p.shape)
        out[name] = Port(name, p.dtype, sizes, p.scale, p.zero_point, p.channels_last)
    return out, list(notes.values())


def random(port: Port, rng: np.random.Generator) -> Fed:
    """Random contents: floats in [-1, 1), quantized and 8-bit integers over their whole range,
    other integers 0 or 1 (they are mostly indices, lengths and switches)."""
    assert port.shape is not None
    shape: Any = port.shape
    kind = dtypes.of(port.dtype)
    if kind is dtypes.string:
        raise InputError(f"the input '{port.name}' holds text, which cannot be made up",
                         remedy="Give a file with --input.")  # fmt: skip
    if kind.kind == "complex":
        pair = rng.uniform(-1, 1, (2, *shape))
        return Fed((pair[0] + 1j * pair[1]).astype(port.dtype), ("random",))
    if kind is dtypes.b1:
        return Fed(rng.integers(0, 2, shape).astype(bool), ("random",))
    if kind.is_int:
        whole = port.quantized or kind.bits <= 8
        low, high = (kind.lo, kind.hi) if whole and kind.bits <= 16 else (0, 1)
        made = rng.integers(low, high + 1, shape).astype(port.dtype)
        return Fed(made, (f"random {low}..{high}",))
    return Fed(rng.uniform(-1, 1, shape).astype(port.dtype), ("random in [-1, 1)",))
