"""Custom operators: the audio front end of TFLite Micro, and detection post-processing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onefold.errors import ModelFormatError
from onefold.frontend.tflite import flexbuffer
from onefold.frontend.tflite.arithmetic import scale_of, zero_of
from onefold.frontend.tflite.common import is_quantized
from onefold.frontend.tflite.rules import tflite_rule
from onefold.ir import dtypes
from onefold.ir.graph import Builder, Value
from onefold.ir.types import TensorType
from onefold.ops import signal_front as s
from onefold.ops.base import Refusal
from onefold.ops.detection import DetectionPostProcess
from onefold.ops.formats import TfliteNode
from onefold.ops.quant_arith import AffineDequantize


def options(n: TfliteNode) -> Mapping[str, Any]:
    if not n.custom_options:
        return {}
    try:
        return flexbuffer.options(n.custom_options, n.op_type)
    except ModelFormatError as e:
        raise Refusal(f"its options cannot be read: {e}") from None


def number(o: Mapping[str, Any], key: str, default: float | None = None) -> Any:
    v = o.get(key, default)
    if isinstance(v, bool) or not isinstance(v, (int, float)):
        raise Refusal(f"its option {key} is {v!r}")
    return v


def whole(o: Mapping[str, Any], key: str, default: int | None = None) -> int:
    v = number(o, key, default)
    if v != v or abs(v) > 1 << 62 or v != int(v):
        raise Refusal(f"its option {key} is {v!r}")
    return int(v)


@tflite_rule("SignalWindow")
def window(n: TfliteNode, b: Builder) -> Sequence[Value]:
    return b.ops(s.SignalWindow(whole(options(n), "shift")), n.arg(0), n.arg(1))


@tflite_rule("SignalFftAutoScale")
def fft_auto_scale(n: TfliteNode, b: Builder) -> Sequence[Value]:
    return b.ops(s.SignalFftAutoScale(), n.arg(0))


@tflite_rule("SignalRfft")
def rfft(n: TfliteNode, b: Builder) -> Sequence[Value]:
    size = whole(options(n), "fft_length")
    if n.arg(0).dtype is not dtypes.i16:
        raise Refusal(f"a transform of {n.arg(0).dtype}")
    if not 4 <= size <= 1 << 15 or size & (size - 1):
        raise Refusal(f"a transform of {size} points, which is no power of two up to 32768")
    tables = [b.const(t) for t in s.fft_tables(size // 2)]
    return b.ops(s.SignalRfft(size), n.arg(0), *tables)


@tflite_rule("SignalEnergy")
def energy(n: TfliteNode, b: Builder) -> Sequence[Value]:
    o = options(n)
    return b.ops(s.SignalEnergy(whole(o, "start_index"), whole(o, "end_index")), n.arg(0))


@tflite_rule("SignalFilterBank")
def filter_bank(n: TfliteNode, b: Builder) -> Sequence[Value]:
    y = b.op(s.SignalFilterBank(), *(n.arg(k) for k in range(6)))
    if y.shape != (whole(options(n), "num_channels"),):
        raise Refusal(f"{y.shape[0]} channels, its options say {options(n)['num_channels']}")
    return [y]


@tflite_rule("SignalFilterBankSquareRoot")
def square_root(n: TfliteNode, b: Builder) -> Sequence[Value]:
    return b.ops(s.SignalFilterBankSquareRoot(), n.arg(0), n.arg(1))


@tflite_rule("SignalFilterBankSpectralSubtraction")
def spectral_subtraction(n: TfliteNode, b: Builder) -> Sequence[Value]:
    o = options(n)
    names = ("smoothing", "one_minus_smoothing", "alternate_smoothing",
             "alternate_one_minus_smoothing", "smoothing_bits", "min_signal_remaining",
             "spectral_subtraction_bits")  # fmt: skip
    op = s.SignalSpectralSubtraction(**{k: whole(o, k) for k in names},
                                     clamping=bool(o.get("clamping", False)))  # fmt: skip
    x = n.arg(0)
    noise = n.importer.state(f"{n.name}.noise", TensorType(x.shape, dtypes.u32))
    rest, estimate = b.ops(op, x, noise)
    n.importer.keep(noise, estimate)
    return [rest, estimate]


@tflite_rule("SignalPCAN")
def pcan(n: TfliteNode, b: Builder) -> Sequence[Value]:
    op = s.SignalPcan(whole(options(n), "snr_shift"))
    return b.ops(op, n.arg(0), n.arg(1), n.arg(2))


@tflite_rule("SignalFilterBankLog")
def filter_bank_log(n: TfliteNode, b: Builder) -> Sequence[Value]:
    o = options(n)
    op = s.SignalFilterBankLog(whole(o, "input_correction_bits"), whole(o, "output_scale"))
    return b.ops(op, n.arg(0), b.const(s.log_table()))


@tflite_rule("TFLite_Detection_PostProcess")
def detection(n: TfliteNode, b: Builder) -> Sequence[Value]:
    o = options(n)
    real = [
        b.op(AffineDequantize((scale_of(v),), (zero_of(v),)), v) if is_quantized(v) else v
        for v in (n.arg(0), n.arg(1), n.arg(2))
    ]
    op = DetectionPostProcess(
        max_detections=whole(o, "max_detections"),
        classes_per_detection=whole(o, "max_classes_per_detection"),
        detections_per_class=whole(o, "detections_per_class", 100),
        num_classes=whole(o, "num_classes"),
        score_threshold=float(number(o, "nms_score_threshold")),
        iou_threshold=float(number(o, "nms_iou_threshold")),
        scales=tuple(float(number(o, f"{k}_scale")) for k in "yxhw"),  # type: ignore[arg-type]
        regular=bool(o.get("use_regular_nms", False)),
    )  # fmt: skip
    return b.ops(op, *real)
