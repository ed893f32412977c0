"""Accuracy on labelled data: each measure takes the outputs of a run's calls and the sample, and
gives what was gained of what could be. Both runtimes are scored by the same code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onefold.dev.zoo.sounds import sound_of
from onefold.errors import OptionError

if TYPE_CHECKING:
    from onefold.dev.zoo.records import Record
    from onefold.ir.graph import Array

Outputs = Mapping[str, Any]
Score = Callable[[Sequence[Outputs], Any, "Record"], tuple[float, float]]
SCORES: dict[str, Score] = {}

SURE = 0.7  # score of a face
FOUND = 0.3  # score of an object
OVERLAP = 0.5  # of a box with the true one
SMALL = 32.0  # pixels; smaller boxes do not count


def _score(made: Score) -> Score:
    SCORES[made.__name__] = made
    return made


def find(name: str) -> Score:
    """A measure by name. Raises OptionError."""
    if name not in SCORES:
        raise OptionError(f"there is no score '{name}'", why="known: " + ", ".join(SCORES))
    return SCORES[name]


def _first(outs: Sequence[Outputs]) -> Array:
    return np.asarray(next(iter(outs[0].values())))


@_score
def top1(outs: Sequence[Outputs], sample: Any, record: Record) -> tuple[float, float]:
    return _top(_first(outs), sample.truth + record.offset, 1)


@_score
def top5(outs: Sequence[Outputs], sample: Any, record: Record) -> tuple[float, float]:
    return _top(_first(outs), sample.truth + record.offset, 5)


def _top(scores: Array, wanted: int, count: int) -> tuple[float, float]:
    order = np.argsort(-scores.reshape(-1).astype(np.float64), kind="stable")
    return float(wanted in order[:count]), 1.0


@_score
def iou(outs: Sequence[Outputs], sample: Any, record: Record) -> tuple[float, float]:
    """Pixels of the true class that are found, of those that are found or true."""
    found = _first(outs)
    found = found.argmax(axis=-1) if found.dtype.kind == "f" else found
    found = found.reshape(found.shape[-2:])
    rows, columns = (
        (np.arange(n) * m // n) for n, m in zip(found.shape, sample.truth.shape, strict=True)
    )
    true = sample.truth[rows][:, columns] == record.offset
    return float(((found == record.offset) & true).sum()), float(
        ((found == record.offset) | true).sum()
    )


@_score
def speech(outs: Sequence[Outputs], sample: Any, record: Record) -> tuple[float, float]:
    """Frames that are taken for speech, of all."""
    return float(sum(float(_first([o]).reshape(-1)[0]) > 0.5 for o in outs)), float(len(outs))


@_score
def same_sound(outs: Sequence[Outputs], sample: Any, record: Record) -> tuple[float, float]:
    """Correlation with the sound that should come out, to six digits."""
    if sample.truth is None:
        return 0.0, 0.0
    made = sound_of([_first([o]) for o in outs])
    size = min(len(made), len(sample.truth))
    return round(float(np.corrcoef(made[:size], sample.truth[:size])[0, 1]), 6), 1.0


@_score
def faces(outs: Sequence[Outputs], sample: Any, record: Record) -> tuple[float, float]:
    """Faces that are found, of those that other detectors find."""
    by_size = {np.shape(a)[-1]: np.asarray(a)[0] for a in outs[0].values()}
    boxes = by_size[4] if not record.offset else _decoded(by_size[4])
    count = len(_apart(boxes, by_size[2][:, 1]))
    return float(count), float(sample.truth)


def _decoded(raw: Array) -> Array:
    """Boxes (left, top, right, bottom) of what the Ultra-Light face detector at 320x240 says
    about its prior boxes (variances 0.1 and 0.2)."""
    sizes = {8: (10, 16, 24), 16: (32, 48), 32: (64, 96), 64: (128, 192, 256)}
    priors = [
        ((x + 0.5) / -(-320 // step), (y + 0.5) / -(-240 // step), s / 320, s / 240)
        for step, widths in sizes.items()
        for y in range(-(-240 // step)) for x in range(-(-320 // step)) for s in widths
    ]  # fmt: skip
    p = np.array(priors)
    middle = raw[:, :2] * 0.1 * p[:, 2:] + p[:, :2]
    size = np.exp(raw[:, 2:] * 0.2) * p[:, 2:]
    return np.concatenate([middle - size / 2, middle + size / 2], axis=1)


def _apart(boxes: Array, scores: Array) -> list[int]:
    """Sure boxes, the surest first, without those that overlap a surer one."""
    kept: list[int] = []
    for k in np.argsort(-scores, kind="stable"):
        if scores[k] > SURE and all(_iou(boxes[k], boxes[j]) < OVERLAP for j in kept):
            kept.append(int(k))
    return kept


def _iou(a: Array, b: Array) -> float:
    """Overlap of two boxes (left, top, right, bottom)."""
    inner = np.maximum(0, np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).prod()
    return float(inner / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner + 1e-12))


@_score
def objects_of_grid(outs: Sequence[Outputs], sample: Any, record: Record) -> tuple[float, float]:
    """True boxes found by a YOLOX at 416 pixels, whose output counts from its grid."""
    raw = _first(outs)[0].astype(np.float64)
    cells = [
        (x, y, step) for step in (8, 16, 32)
        for y in range(416 // step) for x in range(416 // step)
    ]  # fmt: skip
    grid = np.array(cells, np.float64)
    middle = (raw[:, :2] + grid[:, :2]) * grid[:, 2:]
    size = np.exp(raw[:, 2:4]) * grid[:, 2:]
    width, height = _size(sample.raw)
    boxes = np.concatenate([middle - size / 2, middle + size / 2], axis=1)
    boxes /= min(416 / width, 416 / height)
    scores = raw[:, 4:5] * raw[:, 5:]
    true, numbers = sample.truth
    found = [(numbers[t[0]], t) for t in true]
    return _found(boxes, lambda c: scores[:, c], found)


@_score
def objects(outs: Sequence[Outputs], sample: Any, record: Record) -> tuple[float, float]:
    """True boxes found by a detector with its own suppression: boxes, classes, scores, count."""
    boxes, classes, scores, _ = (np.asarray(a)[0] for a in outs[0].values())
    width, height = _size(sample.raw)
    corners = boxes[:, [1, 0, 3, 2]] * np.array([width, height, width, height])
    found = [(t[0] - record.offset, t) for t in sample.truth[0]]
    return _found(corners, lambda c: np.where(classes == c, scores, 0), found)


def _size(path: Any) -> tuple[int, int]:
    from PIL import Image

    with Image.open(path) as picture:
        return int(picture.width), int(picture.height)


def _found(
    boxes: Array, scores: Callable[[int], Array], true: Sequence[tuple[int, Any]]
) -> tuple[float, float]:
    gained = possible = 0
    for number, (_, x, y, w, h) in true:
        if w < SMALL or h < SMALL:
            continue
        possible += 1
        sure = boxes[scores(number) > FOUND]
        gained += any(_iou(b, np.array([x, y, x + w, y + h])) > OVERLAP for b in sure)
    return float(gained), float(possible)
