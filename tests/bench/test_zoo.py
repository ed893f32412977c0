"""The networks of the benchmark: what they are, and that compiled code agrees with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onefold

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from bench import networks
from bench.zoo import NETWORKS

SMALL = ("autoencoder", "ds_cnn", "resnet8", "lstm")


@pytest.mark.toolchain
@pytest.mark.parametrize("name", SMALL)
def test_compiled_network_gives_the_outputs_it_was_built_with(name: str, tmp_path: Path) -> None:
    path = NETWORKS[name]().save(tmp_path)
    with np.load(path.with_suffix(".npz")) as inputs:
        found = onefold.load(path).compile(fallback=False)(dict(inputs))
    with np.load(path.with_suffix(".expected.npz")) as outputs:
        assert set(outputs) == set(found)
        for key, want in outputs.items():
            np.testing.assert_allclose(found[key], want, atol=1e-4 * np.abs(want).max())


MACS = {"autoencoder": 0.265, "ds_cnn": 2.7, "resnet8": 12.5, "mobilenet_v2": 300.8}
"""Millions, as the papers and MLPerf Tiny tell."""


@pytest.mark.parametrize("name", MACS)
def test_a_network_is_of_its_size(name: str, tmp_path: Path) -> None:
    net = networks.network(name, "f32", tmp_path)
    assert net.macs / 1e6 == pytest.approx(MACS[name], rel=0.02)


def test_activations_stay_in_range_in_a_deep_network() -> None:
    net = NETWORKS["mobilenet_v2"]()
    assert 0.5 < net.outputs[0].data.std() < 2


def test_a_network_is_the_same_each_time() -> None:
    one, two = (NETWORKS["ds_cnn"]().model().SerializeToString() for _ in range(2))
    assert one == two


def test_the_int8_version_stays_near_and_has_int8_weights(tmp_path: Path) -> None:
    net = networks.network("resnet8", "int8", tmp_path)
    plain = networks.network("resnet8", "f32", tmp_path)
    assert net.macs == plain.macs
    assert net.weights < 0.3 * plain.weights
    import onnxruntime as ort

    with np.load(net.inputs) as inputs:
        found = ort.InferenceSession(str(net.path)).run(None, dict(inputs))
    assert net.exact
    with np.load(net.exact) as outputs:
        np.testing.assert_allclose(found[0], outputs[net.outputs[0]], atol=0.05)


BRANCHY = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N] x, int64 sr) => (float[M] y) {
    limit = Constant <value = int64 {8000}> ()
    high = Greater(sr, limit)
    y = If (high) <then_branch = t () => (y1) { y1 = Relu(x) },
                   else_branch = e () => (y2) { y2 = Neg(x) }>
}"""
PLAIN = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N] x) => (float[M] y) { y = Relu(x) }"""


@pytest.mark.parametrize(("text", "shape"), [(BRANCHY, [None]), (PLAIN, [3])])
def test_inputs_of_a_trained_network(
    text: str, shape: list[int | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its open sizes are fixed, but not those that a branch may have something to say about."""
    import onnx

    onnx.save(onnx.parser.parse_model(text), tmp_path / "net.onnx")
    monkeypatch.setattr(networks, "TRAINED", {"f32": ("onnx/net.onnx",), "int8": ()})
    monkeypatch.setattr(networks, "_file", lambda name: tmp_path / Path(name).name)
    monkeypatch.setattr(networks, "SIZES", {"net": {"x": (3,)}})
    monkeypatch.setattr(networks, "VALUES", {"net": {"sr": 16000}})
    net = networks.network("net.onnx", "f32", tmp_path / "work")
    assert net.path.parent.name == "onnx"  # a network of this name may be there in both formats
    with np.load(net.inputs) as inputs:
        feeds = dict(inputs)
    assert feeds["x"].shape == (3,)
    assert "sr" not in feeds or feeds["sr"] == 16000
    dims = onnx.load(net.path).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value or None for d in dims] == shape
