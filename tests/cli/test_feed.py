"""Files as inputs."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from onefold.dev.feed import Port, Style, arrays, dequantize, image, quantize, sound
from onefold.dev.feed.ports import random
from onefold.errors import InputError, OptionError

F32, I8, U8 = np.dtype(np.float32), np.dtype(np.int8), np.dtype(np.uint8)


@pytest.mark.parametrize(("shape", "last", "want"), [
    ((1, 3, 32, 48), False, ("NCHW", 32, 48, 3)), ((1, 32, 48, 3), True, ("NHWC", 32, 48, 3)),
    ((1, 32, 48, 1), False, ("NHWC", 32, 48, 1)), ((3, 8, 3, 3), True, ("NHWC", 8, 3, 3)),
    ((1, 3, 5, 3), False, ("NCHW", 5, 3, 3)), ((1, 3, 5, 3), True, ("NHWC", 3, 5, 3)),
    ((1, 28, 28), True, ("NHWC", 28, 28, 1)), ((3, 10, 20), False, ("NCHW", 10, 20, 3)),
    (None, False, ("NHWC", None, None, 3)),
])  # fmt: skip
def test_geometry(shape, last: bool, want) -> None:
    port = Port("x", F32, shape, channels_last=last)
    assert image.geometry(port, Style()) == want


def test_layout_can_be_said() -> None:
    port = Port("x", F32, (1, 3, 5, 3))
    assert image.geometry(port, Style(layout="nhwc")) == ("NHWC", 3, 5, 3)


def test_no_picture_shape() -> None:
    with pytest.raises(InputError, match="as NCHW it would have 7 channels"):
        image.geometry(Port("x", F32, (1, 7, 9, 9)), Style())
    with pytest.raises(InputError, match="a picture needs 3 or 4"):
        image.geometry(Port("x", F32, (1, 10)), Style())


@pytest.mark.parametrize(("dtype", "want"), [
    (U8, [0, 128, 255]), (I8, [-128, 0, 127]), (F32, [0, 128 / 255, 1]),
])  # fmt: skip
def test_pixels_by_the_type_of_the_input(dtype, want) -> None:
    pixels = np.array([0.0, 128.0, 255.0]).reshape(3, 1, 1)
    got, _ = image.numbers(pixels, Port("x", dtype, (1, 3, 1, 1)), Style())
    np.testing.assert_allclose(got.reshape(-1), want)


def test_mean_and_std_in_pixels_and_in_fractions() -> None:
    pixels = np.array([0.0, 127.5, 255.0]).reshape(3, 1, 1)
    port = Port("x", F32, (1, 3, 1, 1))
    for style in (Style(mean=(127.5,), std=(127.5,)), Style(mean=(0.5,), std=(0.5,))):
        np.testing.assert_allclose(image.numbers(pixels, port, style)[0].reshape(-1), [-1, 0, 1])
    as_they_are = Style(mean=(0.0,), std=(1.0,))
    assert image.numbers(pixels, port, as_they_are)[0].reshape(-1).tolist() == [0, 127.5, 255]
    imagenet = image.numbers(pixels, port, Style(mean=(0.485,)))[0].reshape(-1)
    np.testing.assert_allclose(imagenet, [-0.485, 0.015, 0.515])
    quantized = Port("x", I8, (1, 3, 1, 1), scale=1 / 127.5, zero_point=-1)
    got, how = image.numbers(pixels, quantized, Style(mean=(0.5,), std=(0.5,)))
    assert got.reshape(-1).tolist() == [-128, -1, 127]
    assert "quantized by" in how
    with pytest.raises(OptionError, match="--mean has 2 values for 1 channels"):
        image.numbers(pixels, port, Style(mean=(1.0, 2.0)))
    with pytest.raises(OptionError, match="--std must be above 0"):
        image.numbers(pixels, port, Style(std=(0.0,)))


@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
def test_pictures_get_the_size(tmp_path: Path, fit: str) -> None:
    from PIL import Image

    Image.new("RGB", (30, 10), (255, 0, 0)).save(tmp_path / "p.bmp")
    fed = image.read(tmp_path / "p.bmp", Port("x", U8, (1, 8, 8, 3)), Style(fit=fit))
    assert fed.array.shape == (1, 8, 8, 3)
    corner = fed.array[0, 0, 0].tolist()
    assert corner == ([0, 0, 0] if fit == "pad" else [255, 0, 0])
    assert "30x10" in fed.notes[0]


def test_no_picture(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is not a picture"):
        image.read(tmp_path / "p.png", Port("x", U8, (1, 8, 8, 3)), Style())


def write_wav(path: Path, frames: bytes, width: int, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, 8000, 0, "NONE", ""))
        file.writeframes(frames)
    return path


@pytest.mark.parametrize(("width", "frames"), [
    (1, bytes([0, 128, 192])), (2, struct.pack("<3h", -32768, 0, 16384)),
    (3, b"\x00\x00\x80\x00\x00\x00\x00\x00\x40"), (4, struct.pack("<3i", -(1 << 31), 0, 1 << 30)),
])  # fmt: skip
def test_samples_of_every_width(tmp_path: Path, width: int, frames: bytes) -> None:
    samples, rate = sound.read_wav(write_wav(tmp_path / "s.wav", frames, width))
    assert rate == 8000
    assert samples.tolist() == [-1.0, 0.0, 0.5]


def test_sounds_by_the_type_of_the_input(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "s.wav", struct.pack("<4h", -32768, 0, 16384, 0), 2, channels=2)
    floats = sound.read(path, Port("x", F32, (1, 3)), Style()).array
    assert floats.tolist() == [[-0.5, 0.25, 0.0]]  # channels averaged, one zero behind
    whole = sound.read(path, Port("x", np.dtype(np.int16), (2,)), Style()).array
    assert whole.tolist() == [-16384, 8192]
    open_end = sound.read(path, Port("x", F32, (1, None)), Style()).array
    assert open_end.shape == (1, 2)


def test_no_sound(tmp_path: Path) -> None:
    (tmp_path / "s.wav").write_bytes(b"RIFF....")
    with pytest.raises(InputError, match="is not a PCM sound file"):
        sound.read(tmp_path / "s.wav", Port("x", F32, (4,)), Style())


def test_arrays_change_type_only_where_values_stay() -> None:
    port = Port("x", U8, (3,))
    assert arrays.fitted(np.array([1, 2, 255]), port).array.dtype == U8
    with pytest.raises(InputError, match="converting it would change values"):
        arrays.fitted(np.array([1, 2, 256]), port)
    with pytest.raises(InputError, match="converting it would change values"):
        arrays.fitted(np.array([0.5, 1, 2]), port)
    real = arrays.fitted(np.array([0.5, 1.0, 2.0]), Port("x", U8, (3,), scale=0.5, zero_point=1))
    assert real.array.tolist() == [2, 3, 5]


def test_text(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array(["a", "bc"]))
    port = Port("x", np.dtype(object), (2,))
    fed = arrays.read(tmp_path / "t.npy", port, Style())
    assert fed.array.dtype == object and fed.array.tolist() == ["a", "bc"]
    with pytest.raises(InputError, match="not float32"):
        arrays.fitted(np.array(["1"]), Port("x", F32, (1,)))


def test_archives_hold_no_pickles(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(InputError, match="is not an array file"):
        arrays.read_npy(tmp_path / "x.npy")
    (tmp_path / "x.npz").write_bytes(b"PK\3\4damaged")
    with pytest.raises(InputError, match="is not an archive of arrays"):
        arrays.read_npz(tmp_path / "x.npz")


def test_quantize_and_back() -> None:
    port = Port("x", I8, (4,), scale=0.5, zero_point=-3)
    stored = quantize(np.array([-1000.0, 0.25, 0.75, 1000.0]), port)
    assert stored.tolist() == [-128, -3, -1, 127]  # halves to even, then saturated
    assert dequantize(stored[1:3], 0.5, -3).tolist() == [0.0, 1.0]


def test_random_contents_by_type() -> None:
    rng = np.random.default_rng(0)
    floats = random(Port("x", F32, (500,)), rng).array
    assert -1 <= floats.min() < -0.9 and 0.9 < floats.max() < 1
    bytes_ = random(Port("x", U8, (2000,)), rng).array
    assert bytes_.min() == 0 and bytes_.max() == 255
    indices = random(Port("x", np.dtype(np.int64), (50,)), rng).array
    assert set(indices.tolist()) == {0, 1}
    with pytest.raises(InputError, match="holds text"):
        random(Port("x", np.dtype(object), (1,)), rng)
