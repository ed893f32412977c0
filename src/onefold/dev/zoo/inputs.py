"""From samples and streams to the arrays that a model is called with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onefold.dev.feed import Port, Style, image, quantize
from onefold.dev.feed.ports import ports_of, random
from onefold.dev.zoo.data import SETS, Sample
from onefold.dev.zoo.sounds import STREAMS, Stream
from onefold.errors import OptionError

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.dev.zoo.records import Record
    from onefold.forms import Wanted
    from onefold.ir.graph import Array

SEEDS = 5
BORDER = 114  # grey of a letterbox


@dataclass(frozen=True)
class Run:
    """Calls in order, beginning from zero states. kind: real or random; sample: with the truth,
    None where the run is not scored."""

    name: str
    kind: str
    calls: Sequence[Mapping[str, Any]]
    sample: Sample | Stream | None = None


def settled(model: Model, wanted: Wanted) -> dict[str, Port]:
    """The model's inputs, open dimensions taken as 1."""
    return {
        n: Port(n, p.dtype, _sizes(p), p.scale, p.zero_point, p.channels_last)
        for n, p in ports_of(model, wanted).items()
    }  # fmt: skip


def runs_of(record: Record, ports: Mapping[str, Port], data: Path, take: int = 0) -> Iterator[Run]:
    """Real runs, then random ones. take: at most so many samples of a set (frames of a stream)."""
    fixed = {n: np.asarray(v, ports[n].dtype) for n, v in record.values.items()}
    filled = next(n for n in ports if n not in fixed and n not in record.feedback.values())
    for k, source in enumerate(record.sources):
        for item in _items(source, data, record.take, take):
            raws = item.frames if isinstance(item, Stream) else [item.raw]
            calls = [{**fixed, filled: array_of(r, ports[filled], record)} for r in raws]
            yield Run(item.name, "real", calls, item if k == 0 else None)
    for seed in range(SEEDS):
        rng = np.random.Generator(np.random.PCG64(seed))
        made = {n: _random(p, record, rng) for n, p in ports.items() if n not in fixed}
        yield Run(f"seed {seed}", "random", [{**made, **fixed}])


def _items(source: str, data: Path, first: int, take: int) -> Iterator[Sample | Stream]:
    """The first samples; `take` of them, or so many frames of each stream."""
    known = {**SETS, **STREAMS}
    if source not in known:
        raise OptionError(f"there is no data set '{source}'", why="known: " + ", ".join(known))
    items = list(islice(known[source](data), first or None))
    if not isinstance(items[0], Stream):
        yield from _some(items, take)
        return
    for item in items:
        assert isinstance(item, Stream)
        yield Stream(item.name, item.frames[: take or None], None if take else item.truth)


def _some(items: Sequence[Any], take: int) -> Sequence[Any]:
    """`take` of them, evenly spread."""
    if not take or take >= len(items):
        return items
    return [items[k * len(items) // take] for k in range(take)]


def array_of(raw: Any, port: Port, record: Record) -> Array:
    """A picture or raw numbers in the input's shape and type."""
    numbers = _picture(raw, port, record) if isinstance(raw, Path) else np.asarray(raw)
    if record.normalised or numbers.dtype != port.dtype:
        real = numbers.astype(np.float64)
        if record.normalised:
            axis = _channel_axis(numbers.shape)
            real = (
                (real - _along(record.mean or (0.0,), axis, real.ndim))
                / _along(record.std or (1.0,), axis, real.ndim)
                * record.scale
            )
        stored = port.quantized and port.dtype.kind in "iu"
        numbers = quantize(real, port) if stored else real.astype(port.dtype)
    return np.ascontiguousarray(numbers.reshape(_sizes(port)))


def _sizes(port: Port) -> tuple[int, ...]:
    return tuple(1 if d is None else d for d in port.shape or ())


def _channel_axis(shape: tuple[int, ...]) -> int:
    return 1 if len(shape) == 4 and shape[1] == 3 else -1


def _along(values: Sequence[float], axis: int, rank: int) -> Array:
    if len(values) == 1:
        return np.array(values[0])
    shape = [1] * rank
    shape[axis] = len(values)
    return np.array(values).reshape(shape)


def _picture(path: Path, port: Port, record: Record) -> Array:
    """Pixels 0..255 in the port's shape."""
    pixels = Port(port.name, np.dtype(np.uint8), port.shape, channels_last=port.channels_last)
    if record.fit == "letterbox":
        return _letterbox(path, pixels, record.channels)
    return image.read(path, pixels, Style(channels=record.channels, fit=record.fit)).array


def _letterbox(path: Path, port: Port, channels: str) -> Array:
    """Scaled to fit, in the upper left corner, grey behind it."""
    from PIL import Image

    layout, height, width, _ = image.geometry(port, Style())
    assert height and width
    with Image.open(path) as picture:
        ratio = min(width / picture.width, height / picture.height)
        size = (int(picture.width * ratio), int(picture.height * ratio))
        small = picture.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    whole = np.full((height, width, 3), BORDER, np.uint8)
    whole[: size[1], : size[0]] = np.asarray(small)
    whole = whole[..., ::-1] if channels == "bgr" else whole
    return (whole if layout == "NHWC" else np.moveaxis(whole, -1, 0))[None]


def _random(port: Port, record: Record, rng: np.random.Generator) -> Array:
    if port.dtype.kind == "f" and port.name not in record.feedback.values():
        return np.asarray(rng.uniform(record.low, record.high, _sizes(port)), port.dtype)
    if port.dtype == np.int16:  # samples of a sound
        return rng.integers(-32768, 32768, _sizes(port)).astype(port.dtype)
    made: Array = random(port, rng).array
    return made
