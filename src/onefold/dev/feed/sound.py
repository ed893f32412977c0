"""Sounds: PCM samples of .wav files, mixed to one channel, cut or filled to the input's length."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from onefold.dev.feed import Fed, Port, Style, quantize
from onefold.errors import InputError
from onefold.ir.graph import Array

SUFFIXES = (".wav",)


def read(path: Path, port: Port, style: Style) -> Fed:
    """Samples in -1..1 for float inputs, 16-bit values for int16 ones, quantized for the rest.

    The rate is told but not changed. Raises InputError for what is no PCM file.
    """
    if sum(d is None or d > 1 for d in port.shape or ()) > 1:
        raise InputError(f"a sound does not fit the input '{port.name}'",
                         why="it has more than one dimension to fill")  # fmt: skip
    samples, rate = read_wav(path)
    notes = [f"{len(samples) / rate:.2f} s at {rate} Hz (not resampled)"]
    shape = port.shape if port.shape is not None else (None,)
    count = _length(shape, len(samples))
    if count < len(samples):
        notes.append(f"the first {count} of {len(samples)} samples")
    elif count > len(samples):
        notes.append(f"{count - len(samples)} zeros behind {len(samples)} samples")
    used = np.zeros(count)
    used[: min(count, len(samples))] = samples[:count]
    return Fed(_typed(used, port).reshape(_sizes(shape, count)), tuple(notes))


def _length(shape: tuple[int | None, ...], count: int) -> int:
    if any(d is None for d in shape):
        inner = int(np.prod([d for d in shape if d is not None], dtype=np.int64))
        return max(count // max(inner, 1), 1) * inner
    return int(np.prod(shape, dtype=np.int64))  # type: ignore[arg-type]


def _sizes(shape: tuple[int | None, ...], count: int) -> list[int]:
    """The last open dimension takes the samples, other open ones are 1."""
    open_axes = [k for k, d in enumerate(shape) if d is None]
    sizes = [1 if d is None else d for d in shape]
    if open_axes:
        sizes[open_axes[-1]] = -1
    return sizes


def _typed(samples: Array, port: Port) -> Array:
    if port.dtype.kind in "iu" and port.quantized:
        return quantize(samples, port)
    if port.dtype.kind in "iu":
        top = np.iinfo(port.dtype).max
        whole: Array = np.clip(np.rint(samples * 32768), -top - 1, top).astype(port.dtype)
        return whole
    return samples.astype(port.dtype)


def read_wav(path: Path) -> tuple[Array, int]:
    """Samples in -1..1 as float64, channels averaged, and the rate in Hz."""
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError, OSError) as e:
        raise InputError(f"'{path.name}' is not a PCM sound file", why=str(e) or "it ends early",
                         remedy="Convert it to 16-bit PCM WAV.") from None  # fmt: skip
    raw = raw[: len(raw) // (width * channels) * width * channels]
    samples = _decode(raw, width)
    return samples.reshape(-1, channels).mean(axis=1), rate


def _decode(raw: bytes, width: int) -> Array:
    """PCM of 1 byte is unsigned, wider is signed, little end first."""
    if width == 1:
        return (np.frombuffer(raw, np.uint8).astype(np.float64) - 128) / 128
    if width == 3:
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        return wide.reshape(-1).view("<i4").astype(np.float64) / (1 << 31)
    kind = {2: "<i2", 4: "<i4"}[width]
    return np.frombuffer(raw, kind).astype(np.float64) / (1 << (8 * width - 1))
