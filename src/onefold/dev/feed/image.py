"""Pictures: cut and scaled to the input's size, then numbers as the input's type suggests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onefold.dev.feed import Fed, Port, Style, quantize
from onefold.errors import InputError, MissingExtraError, OptionError
from onefold.ir.graph import Array

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
COLOURS = {1: "L", 3: "RGB", 4: "RGBA"}


def read(path: Path, port: Port, style: Style) -> Fed:
    """A picture as the port wants it; see `numbers` for how pixels become values.

    Raises InputError where the file is no picture or the input no picture's shape.
    """
    layout, height, width, channels = geometry(port, style)
    picture = _open(path, COLOURS[channels])
    notes = []
    size = (width or picture.width, height or picture.height)
    if picture.size != size:
        notes.append(f"{picture.width}x{picture.height} {_VERBS[style.fit]} {size[0]}x{size[1]}")
        picture = _fit(picture, size, style.fit)
    pixels = np.asarray(picture, np.float64).reshape(size[1], size[0], channels)
    if style.channels == "bgr" and channels == 3:
        pixels = pixels[..., ::-1]
    values, how = numbers(pixels, port, style)
    colours = "grey" if channels == 1 else style.channels.upper()
    notes.append(f"{colours}, {layout}, {how}")
    if layout == "NCHW":
        values = np.moveaxis(values, -1, 0)
    rank = 4 if port.shape is None else len(port.shape)
    array = np.ascontiguousarray(values).astype(port.dtype)
    if rank == 3 and channels == 1 and not _has_channel(port):
        return Fed(array.reshape(1, size[1], size[0]), tuple(notes))
    return Fed(array[None] if rank == 4 else array, tuple(notes))


_VERBS = {"crop": "cut in the middle and scaled to", "stretch": "stretched to",
          "pad": "scaled with borders to"}  # fmt: skip


def geometry(port: Port, style: Style) -> tuple[str, int | None, int | None, int]:
    """Layout, height, width and channels of a picture input; sizes None where open."""
    shape = port.shape if port.shape is not None else (1, None, None, 3)
    if len(shape) == 3 and not _has_channel(port):
        return "NHWC", shape[1], shape[2], 1  # N, H, W of a grey picture
    if len(shape) not in (3, 4):
        raise InputError(f"a picture does not fit the input '{port.name}'",
                         why=f"it has {len(shape)} dimensions, a picture needs 3 or 4")  # fmt: skip
    first, last = shape[-3], shape[-1]
    layout = style.layout.upper()
    if not layout:
        fits_last, fits_first = last in COLOURS, first in COLOURS
        last_wins = port.channels_last or not fits_first
        layout = "NHWC" if fits_last and last_wins else "NCHW"
    channels = last if layout == "NHWC" else first
    height, width = shape[-3:-1] if layout == "NHWC" else shape[-2:]
    if channels is not None and channels not in COLOURS:
        raise InputError(f"a picture does not fit the input '{port.name}'",
                         why=f"as {layout} it would have {channels} channels")  # fmt: skip
    return layout, height, width, channels or 3


def _has_channel(port: Port) -> bool:
    """Whether a shape of rank 3 holds channels (C,H,W or H,W,C), not N,H,W."""
    shape = port.shape or ()
    return len(shape) != 3 or shape[-1] in COLOURS or shape[0] in (3, 4)


def numbers(pixels: Array, port: Port, style: Style) -> tuple[Array, str]:
    """Pixels 0..255 as values of the port, and in words how.

    With mean or std: (pixel - mean) / std, and quantized by the input's scale; pixels are 0..255,
    or 0..1 where one of these numbers is a fraction, as those of normalised pictures are. Else
    integers take the pixels (signed ones less 128), which is what quantized picture models are
    trained for, and floats take pixel / 255.
    """
    if style.mean or style.std:
        return _normalised(pixels, port, style)
    if port.dtype.kind == "u" and port.dtype.itemsize == 1:
        return pixels, "the pixels as they are"
    if port.dtype.kind == "i" and port.dtype.itemsize == 1:
        return pixels - 128, "pixel - 128"
    if port.dtype.kind in "iu":
        return pixels, "the pixels as they are"
    return pixels / 255, "pixel / 255 (--mean and --std change it)"


def _normalised(pixels: Array, port: Port, style: Style) -> tuple[Array, str]:
    mean, std = np.array(style.mean or (0.0,)), np.array(style.std or (1.0,))
    for what, given in (("--mean", mean), ("--std", std)):
        if given.size not in (1, pixels.shape[-1]):
            raise OptionError(f"{what} has {given.size} values for {pixels.shape[-1]} channels")
    if not np.all(std > 0):
        raise OptionError("--std must be above 0")
    given = np.abs(np.concatenate([mean, std]))
    unit = 255.0 if np.all(given <= 1) and np.any((given > 0) & (given < 1)) else 1.0
    real = (pixels / unit - mean) / std
    shown = "pixel / 255" if unit == 255 else "pixel"
    how = f"({shown} - {_list(mean)}) / {_list(std)}"
    if port.quantized and port.dtype.kind in "iu":
        return quantize(real, port), f"{how}, quantized by {port.scale:.6g}"
    return real, how


def _list(values: Array) -> str:
    return ",".join(f"{v:g}" for v in values)


def _open(path: Path, mode: str) -> Any:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MissingExtraError("pillow", "images", "reading pictures") from None
    try:
        with Image.open(path) as picture:
            return picture.convert(mode)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as e:
        raise InputError(f"'{path.name}' is not a picture that can be read", why=str(e)) from None


def _fit(picture: Any, size: tuple[int, int], fit: str) -> Any:
    from PIL import Image, ImageOps

    bilinear = Image.Resampling.BILINEAR
    if fit == "stretch":
        return picture.resize(size, bilinear)
    if fit == "pad":
        return ImageOps.pad(picture, size, bilinear)
    return ImageOps.fit(picture, size, bilinear)
