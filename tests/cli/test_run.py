"""`onefold run`."""

from __future__ import annotations

import wave

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tests.cli.made import save, value

pytestmark = pytest.mark.toolchain

QUICK = ("--runs", "2")


def expected(model, **inputs):
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def test_random_inputs_from_a_seed(cli, models) -> None:
    net = models / "net.onnx"
    first = cli("run", net, "--json", *QUICK).json
    again = cli("run", net, "--json", "--seed", 0, *QUICK).json
    other = cli("run", net, "--json", "--seed", 1, *QUICK).json
    assert first["seed"] == 0
    assert first["outputs"] == again["outputs"] != other["outputs"]
    assert first["latency"]["runs"] == 2
    assert 0 < first["latency"]["min_s"] <= first["latency"]["median_s"]
    assert [i["from"] for i in first["inputs"]] == ["random"]


def test_text_says_seed_classes_and_time(cli, models) -> None:
    done = cli("run", models / "net.onnx", "--top", 2, *QUICK)
    assert done.code == 0
    assert "random inputs from seed 0 (--seed)" in done.out
    assert "best classes of scores" in done.out
    assert "a call (median of 2" in done.out
    assert "\x1b" not in done.out, "no colours where the output is no terminal"


def test_arrays(cli, models, tmp_path) -> None:
    x = np.random.default_rng(0).normal(size=(3, 8, 8))
    np.save("x.npy", x)
    done = cli("run", models / "net.onnx", "--input", "x.npy", "--json", *QUICK).json
    want = expected(models / "net.onnx", x=x[None].astype(np.float32))
    np.testing.assert_allclose(done["outputs"][0]["values"], want, rtol=1e-5)
    assert done["seed"] is None
    assert done["inputs"][0]["notes"] == [
        "shape [3, 8, 8] taken as [1, 3, 8, 8]", "float64 converted to float32",
    ]  # fmt: skip


def test_two_inputs_by_name_and_from_an_archive(cli, models) -> None:
    a, b = np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32)
    np.save("a.npy", a)
    np.save("b.npy", b)
    np.savez("both.npz", a=a, b=b)
    named = cli("run", models / "two.onnx", "--input", "a=a.npy", "--input", "b=b.npy", "--json")
    assert named.json["outputs"][0]["values"] == [[3.0] * 3] * 2
    archive = cli("run", models / "two.onnx", "--input", "both.npz", "--json")
    assert archive.json["outputs"][0]["values"] == [[3.0] * 3] * 2
    half = cli("run", models / "two.onnx", "--input", "a=a.npy", "--json").json
    assert [i["from"] for i in half["inputs"]] == ["a.npy", "random"]
    assert half["seed"] == 0


def test_an_input_without_a_name_where_there_are_two(cli, models) -> None:
    np.save("a.npy", np.ones((2, 3), np.float32))
    done = cli("run", models / "two.onnx", "--input", "a.npy")
    assert done.code == 2
    assert "the names are a, b" in done.err


def test_picture(cli, models) -> None:
    from PIL import Image

    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    Image.fromarray(pixels).save("p.png")
    done = cli("run", models / "net.onnx", "--input", "p.png", "--json", *QUICK).json
    chw = np.moveaxis(pixels / np.float32(255), -1, 0)[None].astype(np.float32)
    np.testing.assert_allclose(done["outputs"][0]["values"], expected(models / "net.onnx", x=chw),
                               rtol=1e-4, atol=1e-6)  # fmt: skip
    assert done["inputs"][0]["notes"] == ["RGB, NCHW, pixel / 255 (--mean and --std change it)"]


def test_picture_with_mean_and_std_in_bgr(cli, models) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).save("p.png")
    done = cli("run", models / "net.onnx", "--input", "p.png", "--mean", "0.5,0.4,0.3", "--std",
               "0.2", "--channels", "bgr", "--json", *QUICK).json  # fmt: skip
    real = (pixels[..., ::-1] / 255 - [0.5, 0.4, 0.3]) / 0.2
    chw = np.moveaxis(real, -1, 0)[None].astype(np.float32)
    np.testing.assert_allclose(done["outputs"][0]["values"], expected(models / "net.onnx", x=chw),
                               rtol=1e-4, atol=1e-5)  # fmt: skip


def test_sound(cli, models) -> None:
    samples = np.arange(-20, 40, dtype="<i2") * 500
    with wave.open("s.wav", "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    done = cli("run", models / "wave.onnx", "--input", "s.wav", "--json", "--save", "o.npz").json
    assert done["inputs"][0]["notes"] == [
        "0.00 s at 16000 Hz (not resampled)", "the first 40 of 60 samples",
    ]  # fmt: skip
    saved = np.load("o.npz")
    np.testing.assert_array_equal(saved["x"][0], (samples[:40] / 32768).astype(np.float32))
    np.testing.assert_array_equal(saved["output:y"], np.maximum(saved["x"], 0))


def test_labels(cli, models, tmp_path) -> None:
    (tmp_path / "l.txt").write_text("cat\ndog\nowl\nfox\n")
    done = cli("run", models / "net.onnx", "--labels", "l.txt", "--top", 1, "--json", *QUICK).json
    best = done["top"][0]["classes"][0]
    scores = np.array(done["outputs"][0]["values"][0])
    assert best["class"] == scores.argmax()
    assert best["label"] == ["cat", "dog", "owl", "fox"][scores.argmax()]
    missing = cli("run", models / "net.onnx", "--labels", "no.txt")
    assert missing.code == 1
    assert "the labels 'no.txt' cannot be read" in missing.err


def test_open_dimension(cli, models) -> None:
    assumed = cli("run", models / "open.onnx", *QUICK)
    assert "the open dimension batch is taken as 1 (--dim batch=SIZE)" in assumed.out
    given = cli("run", models / "open.onnx", "--dim", "batch=7", "--json", *QUICK).json
    assert given["outputs"][0]["shape"] == [7, 3]
    assert given["assumed"] == []
    ranged = cli("run", models / "open.onnx", "--dim", "batch=0..5", "--json", *QUICK).json
    assert ranged["outputs"][0]["shape"] == [5, 3]


def test_contents_that_do_not_fit(cli, models) -> None:
    np.save("x.npy", np.zeros((3, 9, 8), np.float32))
    done = cli("run", models / "net.onnx", "--input", "x.npy")
    assert done.code == 1
    assert "the data for 'x' has shape [3, 9, 8]" in done.err
    assert "the model wants [1, 3, 8, 8]" in done.err
    unknown = cli("run", models / "net.onnx", "--input", "x.txt")
    assert unknown.code == 2
    assert "Known endings are .bmp, .jpeg, .jpg, .npy, .npz, .png, .wav." in unknown.err


def test_nan_is_counted_and_json_stays_json(cli, models) -> None:
    np.save("x.npy", np.full((1, 40), np.nan, np.float32))
    done = cli("run", models / "wave.onnx", "--input", "x.npy", "--json", *QUICK)
    assert done.json["outputs"][0]["nan"] == 40
    assert done.json["outputs"][0]["max"] == "nan"


def test_text(cli, tmp_path) -> None:
    ports = [value(n, [2], TensorProto.STRING) for n in "xy"]
    node = helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action="UPPER")
    path = save(tmp_path / "t.onnx", [node], ports[:1], ports[1:])
    np.save("t.npy", np.array(["ab", "c"]))
    done = cli("run", path, "--input", "t.npy")
    assert done.code == 0 and "y: ['AB', 'C']" in done.out


def test_names_cannot_disturb_the_terminal(cli, models) -> None:
    done = cli("run", models / "nasty.onnx", *QUICK)
    assert done.code == 0
    assert "\x1b" not in done.out
