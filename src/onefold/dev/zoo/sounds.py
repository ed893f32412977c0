"""Streams of sound: frames one after another, as each front end cuts them.

A stream is a function of the data folder; its name is the name records use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onefold.dev.feed.sound import read_wav
from onefold.dev.zoo.data import Sample

if TYPE_CHECKING:
    from onefold.ir.graph import Array

RATE = 16000


@dataclass(frozen=True)
class Stream:
    """Calls in order; truth: a class, or the sound that should come out, or None."""

    name: str
    frames: Sequence[Any]
    truth: Any = None


Source = Callable[[Path], Iterator["Stream | Sample"]]
STREAMS: dict[str, Source] = {}


def _stream(made: Source) -> Source:
    STREAMS[made.__name__] = made
    return made


def _wave(data: Path, name: str) -> Array:
    return read_wav(data / "audio" / f"{name}.wav")[0]


def _frames(wave: Array, size: int, hop: int) -> list[Array]:
    return [wave[k : k + size] for k in range(0, len(wave) - size + 1, hop)]


def _speech(wave: Array, size: int, context: int) -> list[Array]:
    """Pieces of `size` samples behind the last `context` of the piece before."""
    padded = np.concatenate([np.zeros(context), wave])
    return _frames(padded, context + size, size)


@_stream
def speech_16k(data: Path) -> Iterator[Stream]:
    yield Stream("silero_test", _speech(_wave(data, "silero_test"), 512, 64))


@_stream
def speech_8k(data: Path) -> Iterator[Stream]:
    wave = _wave(data, "silero_test")
    halved = wave[: len(wave) // 2 * 2].reshape(-1, 2).mean(axis=1)
    yield Stream("silero_test at 8 kHz", _speech(halved, 256, 32))


@_stream
def noisy_blocks(data: Path) -> Iterator[Stream]:
    yield Stream("noisy_speech_mix", _frames(_wave(data, "noisy_speech_mix"), 512, 128))


@_stream
def noisy_magnitudes(data: Path) -> Iterator[Stream]:
    blocks = _frames(_wave(data, "noisy_speech_mix"), 512, 128)
    yield Stream("noisy_speech_mix", [np.abs(np.fft.rfft(b)) for b in blocks])


def root_hann() -> Array:
    """The square root of a periodic Hann window of 512."""
    return np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512))


@_stream
def noisy_spectra(data: Path) -> Iterator[Stream]:
    """Spectra of 512 samples every 256, mirrored at the ends, real and imaginary parts last."""
    wave = np.pad(_wave(data, "noisy_speech_mix"), 256, mode="reflect")
    spectra = [np.fft.rfft(f * root_hann()) for f in _frames(wave, 512, 256)]
    frames = [np.stack([s.real, s.imag], axis=-1) for s in spectra]
    yield Stream("noisy_speech_mix", frames, _wave(data, "noisy_speech_enhanced_ref"))


def sound_of(spectra: Sequence[Array]) -> Array:
    """The sound of the spectra that `noisy_spectra` yields."""
    wave = np.zeros(256 * (len(spectra) + 1))
    for k, s in enumerate(spectra):
        pair = s.reshape(257, 2)
        frame = np.fft.irfft(pair[:, 0] + 1j * pair[:, 1], 512)
        wave[256 * k : 256 * k + 512] += frame * root_hann()
    return wave[256:-256]


WORDS = {"silence_1000ms": 0, "noise_1000ms": 0, "yes_1000ms": 2, "no_1000ms": 3}
"""Recordings of one second, and their classes (1 is an unknown word)."""


@_stream
def word_windows(data: Path) -> Iterator[Stream]:
    """Windows of 480 samples of 16 bits every 320."""
    for name in WORDS:
        stored = np.rint(_wave(data, name) * 32768).astype(np.int16)
        yield Stream(name, _frames(stored, 480, 320))


@_stream
def word_features(data: Path) -> Iterator[Sample]:
    """What the front end `audio_preprocessor_int8.tflite` makes of a second."""
    import onefold

    path = data.parent / "models/tflite/audio_preprocessor_int8.tflite"
    front = onefold.load(path).compile(fallback=False)
    name = next(iter(front.model.inputs)).name
    for stream in word_windows(data):
        assert isinstance(stream, Stream)
        front.reset()
        rows = [next(iter(front({name: f[None]}).values())) for f in stream.frames]
        yield Sample(stream.name, np.concatenate([r.reshape(-1) for r in rows]), WORDS[stream.name])


@_stream
def mel_features(data: Path) -> Iterator[Sample]:
    """Decibels of 40 mel bands of a second, 30 frames, as shares of 64 dB. The training's own
    front end is not in the file; this one has its frames and bands."""
    bank = _mel_bank(40, 1024, 20.0, 4000.0)
    for name in ("marvin_617de221_0", "yes_1000ms", "no_1000ms", "noise_1000ms", "silence_1000ms"):
        frames = np.stack(_frames(_wave(data, name), 1024, 512)[:30])
        power = np.abs(np.fft.rfft(frames * np.hanning(1024), axis=1)) ** 2
        decibels = 10 * np.log10(np.maximum(power @ bank, 1e-10))
        yield Sample(name, np.clip((decibels + 52) / 64, 0, 1))


def _mel_bank(bands: int, size: int, low: float, high: float) -> Array:
    """Triangles over the bins of a spectrum, evenly spaced in mel: (size / 2 + 1, bands)."""
    first, last = (2595 * math.log10(1 + hertz / 700) for hertz in (low, high))
    mel = np.linspace(first, last, bands + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    bins = np.arange(size // 2 + 1)[:, None] * RATE / size
    up = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    bank: Array = np.maximum(0, np.minimum(up, down))
    return bank
