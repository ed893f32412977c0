"""Standard architectures with seeded weights, written as ONNX files.

    python -m bench.zoo DIR [mobilenet_v2 resnet50 ...]
"""

from __future__ import annotations

from collections.abc import Callable

from bench.zoo import classic, mobile, tiny, transformers
from bench.zoo.net import Net

_MAKERS: list[Callable[[], Net]] = [
    tiny.autoencoder, tiny.ds_cnn, tiny.resnet8, tiny.lstm,
    mobile.mobilenet_v1, mobile.mobilenet_v2, mobile.mobilenet_v3_large, mobile.efficientnet_lite0,
    mobile.efficientnet_b0, mobile.squeezenet1_1, mobile.shufflenet_v2,
    classic.resnet18, classic.resnet50, classic.densenet121, classic.inception_v3,
    classic.yolo_n_320,
    transformers.mobilevit_xxs, transformers.deit_tiny, transformers.convnext_nano,
    transformers.bert_tiny, transformers.minilm6, transformers.decoder,
]  # fmt: skip

NETWORKS = {make.__name__: make for make in _MAKERS}
"""Makers by the name of the network."""
