"""The int8 version of a network: QDQ by ONNX Runtime's static quantizer, activations u8, weights
s8 per channel, calibrated on seeded random inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SAMPLES = 4

CONTRACTIONS = ["Conv", "MatMul", "Gemm"]
ATTENTION = "Softmax"
"""Networks with attention keep what stands between the contractions in f32."""


def quantize(model: Path, to: Path) -> None:
    """Writes the int8 version and its inputs, which are those of the f32 network."""
    import onnx
    from onnxruntime import quantization as q

    kinds = {n.op_type for n in onnx.load(model, load_external_data=False).graph.node}
    attends = ATTENTION in kinds and "LayerNormalization" in kinds
    with np.load(model.with_suffix(".npz")) as arrays:
        feeds = dict(arrays)
    prepared = to.with_suffix(".prepared.onnx")
    q.shape_inference.quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    q.quantize_static(
        str(prepared), str(to), _Samples(feeds), quant_format=q.QuantFormat.QDQ, per_channel=True,
        activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8,
        op_types_to_quantize=CONTRACTIONS if attends else None,
    )  # fmt: skip
    prepared.unlink()
    np.savez(to.with_suffix(".npz"), **feeds)


class _Samples:
    """A CalibrationDataReader, which is only asked for its next sample."""

    def __init__(self, feeds: dict[str, Any]) -> None:
        self.samples = self._draw(feeds)

    def get_next(self) -> dict[str, Any] | None:
        return next(self.samples, None)

    def _draw(self, feeds: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield feeds
        rng = np.random.default_rng(1)
        for _ in range(SAMPLES - 1):
            yield {
                n: rng.standard_normal(a.shape, np.float32) if a.dtype == np.float32 else a
                for n, a in feeds.items()
            }
