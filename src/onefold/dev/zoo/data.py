"""The labelled data sets, as samples: a picture's path or an array, and what is known about it.

A data set is a function of the data folder; its name is the name records use.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onefold.dev.feed.sound import read_wav

FRAMES = 5
"""Frames that the anomaly detector sees at once."""


@dataclass(frozen=True)
class Sample:
    """raw: path of a picture, or an array; truth: a class, boxes, a mask, a count, or None."""

    name: str
    raw: Any
    truth: Any = None


DataSet = Callable[[Path], Iterator[Sample]]
SETS: dict[str, DataSet] = {}


def _set(made: DataSet) -> DataSet:
    SETS[made.__name__] = made
    return made


def _rows(folder: Path) -> Iterator[list[str]]:
    with open(folder / "labels.csv", newline="", encoding="utf-8-sig") as file:
        yield from list(csv.reader(file))[1:]


@_set
def vww96(data: Path) -> Iterator[Sample]:
    for name, person, *_ in _rows(data / "vww96"):
        yield Sample(name, data / "vww96" / name, int(person))


@_set
def flowers5(data: Path) -> Iterator[Sample]:
    for name, number, *_ in _rows(data / "flowers5"):
        yield Sample(name, data / "flowers5" / name, int(number))


@_set
def imagenet_labelled(data: Path) -> Iterator[Sample]:
    for name, number, *_ in _rows(data / "imagenet_labelled"):
        yield Sample(name, data / "imagenet_labelled" / name, int(number))


@_set
def cifar10(data: Path) -> Iterator[Sample]:
    x, y = np.load(data / "cifar10/x.npy"), np.load(data / "cifar10/y.npy")
    for k in range(len(x)):
        yield Sample(str(k), x[k], int(y[k]))


@_set
def kws_mfcc_int8(data: Path) -> Iterator[Sample]:
    x, y = np.load(data / "kws_mfcc_int8/x.npy"), np.load(data / "kws_mfcc_int8/y.npy")
    for k in range(len(x)):
        yield Sample(str(k), x[k], int(y[k]))


@_set
def mnist(data: Path) -> Iterator[Sample]:
    with np.load(data / "mnist/t10k.npz") as archive:
        x, y = archive["x"], archive["y"]
    for k in range(len(x)):
        yield Sample(str(k), x[k], int(y[k]))


@_set
def hand_keypoint(data: Path) -> Iterator[Sample]:
    table = np.loadtxt(data / "hand_keypoint/keypoint.csv", delimiter=",", dtype=np.float64)
    for k, row in enumerate(table):
        yield Sample(str(k), row[1:], int(row[0]))


@_set
def coco_detection(data: Path) -> Iterator[Sample]:
    """truth: (COCO id, x, y, width, height) of each box, in pixels of the picture."""
    facts = json.loads((data / "coco_detection/instances.json").read_text("utf-8"))
    for picture in facts["images"]:
        boxes = [
            (a["category_id"], *a["bbox"])
            for a in facts["annotations"] if a["image_id"] == picture["id"]
        ]  # fmt: skip
        names = {c["id"]: k for k, c in enumerate(sorted(facts["categories"], key=_id))}
        name = picture["file_name"]
        yield Sample(name, data / "coco_detection" / name, (boxes, names))


def _id(category: dict[str, Any]) -> int:
    return int(category["id"])


FACES = {"face.jpg": 4, "face1.jpg": 1, "people1.jpg": 10, "people2.jpg": 2}
"""How many faces two independent detectors find."""


@_set
def faces(data: Path) -> Iterator[Sample]:
    for name, count in FACES.items():
        yield Sample(name, data / "faces" / name, count)


@_set
def segmentation(data: Path) -> Iterator[Sample]:
    """truth: the mask, 3 where the bird is, 0 elsewhere, others at the border."""
    from PIL import Image

    folder = data / "segmentation"
    with Image.open(folder / "bird_segmentation_mask.png") as mask:
        yield Sample("bird", folder / "bird_segmentation.png", np.asarray(mask))


@_set
def person_detect(data: Path) -> Iterator[Sample]:
    """The pictures' bytes, which are meant as signed."""
    from PIL import Image

    for name, truth in (("person", 1), ("no_person", 0)):
        with Image.open(data / "person_detect" / f"{name}.bmp") as picture:
            yield Sample(name, np.asarray(picture).view(np.int8), truth)


@_set
def ad01(data: Path) -> Iterator[Sample]:
    """Windows of five frames of log-mel values, one after another."""
    path = next((data / "ad01").glob("normal_*.bin"))
    frames = np.fromfile(path, "<f4").reshape(-1, 128)
    for k in range(len(frames) - FRAMES + 1):
        yield Sample(str(k), frames[k : k + FRAMES].reshape(-1))


@_set
def circle(data: Path) -> Iterator[Sample]:
    """Angles all round."""
    for x in np.linspace(0, 2 * np.pi, 200, endpoint=False):
        yield Sample(f"{x:.3f}", np.array([x]))


@_set
def sounds(data: Path) -> Iterator[Sample]:
    """Every recording, samples in -1..1 at 16 kHz, in pieces of 0.975 s."""
    for path in sorted((data / "audio").glob("*.wav")):
        if path.stem == "silero_test":
            continue  # long, and speech like others
        wave, _ = read_wav(path)
        for k in range(0, len(wave) - 15600 + 1, 15600):
            yield Sample(f"{path.stem}+{k}", wave[k : k + 15600])
