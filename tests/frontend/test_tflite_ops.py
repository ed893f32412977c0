"""One TFLite operator at a time: compiled code against LiteRT's reference kernels.

Integer and index results must be equal, floats within 1e-5 of the result's range.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.frontend.tflite_build import T, build, ours, reference

s = pytest.importorskip("ai_edge_litert.schema_py_generated")
pytestmark = pytest.mark.toolchain


@dataclass
class Op:
    name: str
    inputs: list[T | None]
    outputs: list[T]
    options: dict[str, Any] = field(default_factory=dict)
    table: str = ""
    steps: int = 0  # how far integers may be apart
    tolerance: float = 1e-5
    what: str = ""

    def __str__(self) -> str:
        kinds = ",".join("-" if t is None else t.dtype for t in self.inputs)
        return f"{self.name}-{kinds}{self.what}"


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def f(*shape: int, lo: float = -3, hi: float = 3, seed: int = 0, **k: Any) -> T:
    return T(rng(seed).uniform(lo, hi, shape).astype(np.float32), **k)


def q(
    *shape: int, kind: str = "int8", scale: Any = 0.05, zero: int = 3, seed: int = 0, **k: Any
) -> T:
    info = np.iinfo(kind)
    # -128 is no int8 weight: converters keep to [-127, 127], and kernels may rely on it.
    low = info.min + (kind == "int8" and bool(k.get("const")))
    data = rng(seed).integers(low, info.max + 1, shape).astype(kind)
    return T(data, scale=scale, zero=zero, **k)


def c(values: Any, kind: str = "int32") -> T:
    return T(np.asarray(values, kind), const=True)


def y(kind: str = "float32", scale: Any = None, zero: int = 0) -> T:
    return T(dtype=kind, scale=scale, zero=zero)


def b(*shape: int, seed: int = 0) -> T:
    return T(rng(seed).integers(0, 2, shape).astype(bool))


def i(*shape: int, lo: int = -9, hi: int = 10, kind: str = "int32", seed: int = 0) -> T:
    return T(rng(seed).integers(lo, hi, shape).astype(kind))


ACT = s.ActivationFunctionType
VALID, SAME = s.Padding.VALID, s.Padding.SAME
CASES: list[Op] = []


def case(
    name: str, inputs: list[T | None], outputs: list[T], table: str = "", **options: Any
) -> None:
    extra = {k: options.pop(k) for k in ("steps", "tolerance", "what") if k in options}
    CASES.append(Op(name, inputs, outputs, options, table, **extra))


# -- arithmetic -----------------------------------------------------------------------------------
for name, table in (("ADD", "AddOptions"), ("SUB", "SubOptions"), ("MUL", "MulOptions")):
    case(name, [f(2, 3, 4), f(4, seed=1)], [y()], table, fusedActivationFunction=ACT.RELU6)
    case(name, [i(2, 3), i(2, 3, seed=1)], [y("int32")], table)
    case(name, [q(2, 3, 40), q(3, 40, scale=0.031, zero=-9, seed=1)], [y("int8", 0.07, 5)], table)
    case(
        name,
        [q(2, 99, kind="uint8", zero=100), q(2, 99, kind="uint8", scale=0.031, zero=7, seed=1)],
        [y("uint8", 0.07, 50)],
        table,
        fusedActivationFunction=ACT.RELU,
    )
case("DIV", [f(2, 3), f(2, 3, lo=1, seed=1)], [y()], "DivOptions")
case("SQUARED_DIFFERENCE", [f(2, 3), f(3, seed=1)], [y()])
case(
    "SQUARED_DIFFERENCE", [q(2, 300), q(300, scale=0.031, zero=-9, seed=1)], [y("int8", 0.5, -100)]
)
for name in ("MINIMUM", "MAXIMUM"):
    case(name, [f(2, 3), f(3, seed=1)], [y()], "MaximumMinimumOptions")
    case(name, [q(2, 30), q(30, seed=1)], [y("int8", 0.05, 3)], "MaximumMinimumOptions")
case("POW", [f(2, 9, lo=0.1), f(9, seed=1)], [y()], "PowOptions")
case(
    "FLOOR_DIV",
    [i(40), T(np.array([3] * 20 + [-4] * 20, np.int32))],
    [y("int32")],
    "FloorDivOptions",
)
case("FLOOR_DIV", [f(40), f(40, lo=1, seed=1)], [y()], "FloorDivOptions")
case(
    "FLOOR_MOD",
    [i(40), T(np.array([3] * 20 + [-4] * 20, np.int32))],
    [y("int32")],
    "FloorModOptions",
)
case("FLOOR_MOD", [f(40), f(40, lo=1, seed=1)], [y()], "FloorModOptions")
case("ADD_N", [f(3, 4), f(3, 4, seed=1), f(3, 4, seed=2)], [y()], "AddNOptions")
case("RIGHT_SHIFT", [i(20, lo=-999, hi=999), i(20, lo=0, hi=31)], [y("int32")])
case("BITWISE_XOR", [i(20), i(20, seed=1)], [y("int32")])
for name in ("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"):
    case(name, [i(2, 9, hi=-3), i(9, hi=-3, seed=1)], [y("bool")])
    case(name, [f(2, 9), f(2, 9)], [y("bool")])
    case(name, [q(400), q(400, scale=0.031, zero=-9, seed=1)], [y("bool")])
case("LOGICAL_AND", [b(2, 9), b(2, 9, seed=1)], [y("bool")])
case("LOGICAL_OR", [b(2, 9), b(9, seed=1)], [y("bool")])
case("LOGICAL_NOT", [b(2, 9)], [y("bool")])
case("SELECT", [b(3), f(3, 4), f(3, 4, seed=1)], [y()])
case("SELECT_V2", [b(3, 1), f(3, 4), f(4, seed=1)], [y()])

# -- functions of one element ---------------------------------------------------------------------
for name in ("LOGISTIC", "TANH", "EXP", "ABS", "NEG", "FLOOR", "CEIL", "ROUND", "SIN", "COS",
             "SIGN", "RELU", "RELU6", "RELU_N1_TO_1", "ELU", "HARD_SWISH", "SQUARE"):  # fmt: skip
    case(name, [f(3, 40, lo=-7, hi=7)], [y()])
for name in ("LOG", "SQRT", "RSQRT"):
    case(name, [f(3, 40, lo=0.01, hi=7)], [y()])
case("LEAKY_RELU", [f(3, 40)], [y()], "LeakyReluOptions", alpha=0.3)
case("GELU", [f(3, 40)], [y()], "GeluOptions", tolerance=1e-4)
case("GELU", [f(3, 40)], [y()], "GeluOptions", approximate=True, tolerance=1e-4)
case("PRELU", [f(2, 3, 4), f(4, seed=1)], [y()])
ALL8 = np.arange(-128, 128, dtype=np.int8)
case("LOGISTIC", [T(ALL8, scale=0.06, zero=4)], [y("int8", 1 / 256, -128)])
case("LOGISTIC", [T(np.arange(256, dtype=np.uint8), scale=0.06, zero=99)], [y("uint8", 1 / 256, 0)])
case("TANH", [T(ALL8, scale=0.06, zero=4)], [y("int8", 1 / 128, 0)])
case("ELU", [T(ALL8, scale=0.03, zero=4)], [y("int8", 0.02, -70)])
case("GELU", [T(ALL8, scale=0.03, zero=4)], [y("int8", 0.02, -70)], "GeluOptions")
case("EXP", [T(ALL8, scale=0.02, zero=4)], [y("int8", 0.05, -128)])
case(
    "LEAKY_RELU",
    [T(ALL8, scale=0.03, zero=4)],
    [y("int8", 0.025, -7)],
    "LeakyReluOptions",
    alpha=0.3,
)
case("HARD_SWISH", [T(ALL8, scale=0.06, zero=4)], [y("int8", 0.03, -100)])
case(
    "HARD_SWISH", [T(np.arange(256, dtype=np.uint8), scale=0.03, zero=128)], [y("uint8", 0.02, 20)]
)
case("ABS", [T(ALL8, scale=0.03, zero=4)], [y("int8", 0.02, -100)])
case("RSQRT", [T(ALL8, scale=0.03, zero=-128)], [y("int8", 0.05, -128)])
for name in ("RELU", "RELU6", "RELU_N1_TO_1"):
    case(name, [T(ALL8, scale=0.06, zero=4)], [y("int8", 0.05, -7)])
    case(name, [T(np.arange(256, dtype=np.uint8), scale=0.06, zero=128)], [y("uint8", 0.05, 20)])

# -- from and to integers -------------------------------------------------------------------------
case("QUANTIZE", [f(3, 400)], [y("int8", 0.013, 5)])
case("QUANTIZE", [f(3, 400)], [y("uint8", 0.013, 100)])
case("QUANTIZE", [f(3, 400)], [y("int16", 0.001)])
case("QUANTIZE", [T(ALL8, scale=0.05, zero=3)], [y("int8", 0.07, -9)])
case("QUANTIZE", [T(ALL8, scale=0.05, zero=3)], [y("uint8", 0.05, 131)])
case("QUANTIZE", [T(np.arange(256, dtype=np.uint8), scale=0.05, zero=3)], [y("int8", 0.02, -9)])
case("DEQUANTIZE", [T(ALL8, scale=0.05, zero=3)], [y()])
case("DEQUANTIZE", [T(np.arange(256, dtype=np.uint8), scale=0.05, zero=3)], [y()])
case("DEQUANTIZE", [T(np.float16([1.5, -2, 3e-5, 6e4]))], [y()])
for kind in ("int32", "int64", "int8", "uint8", "bool", "int16"):
    case("CAST", [f(20, lo=0, hi=99)], [y(kind)], "CastOptions", what=f"-to-{kind}")
    case("CAST", [i(20)], [y(kind)], "CastOptions", what=f"-to-{kind}")
case("CAST", [i(20)], [y()], "CastOptions", what="-to-float")
case("FAKE_QUANT", [f(3, 400)], [y()], "FakeQuantOptions", min=-2.0, max=2.5, numBits=8)

# -- layers ---------------------------------------------------------------------------------------
CONV = {"strideH": 2, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
W8 = T(
    rng(5).integers(-127, 128, (6, 3, 2, 4)).astype(np.int8),
    scale=np.linspace(0.01, 0.03, 6),
    const=True,
)
B8 = T(
    rng(6).integers(-900, 900, 6).astype(np.int32),
    scale=np.linspace(0.01, 0.03, 6) * 0.05,
    const=True,
)
for pad in (VALID, SAME):
    case(
        "CONV_2D",
        [f(2, 8, 7, 4), f(6, 3, 2, 4, seed=1, const=True), f(6, seed=2, const=True)],
        [y()],
        "Conv2DOptions",
        padding=pad,
        fusedActivationFunction=ACT.RELU,
        **CONV,
    )
    case(
        "CONV_2D",
        [q(2, 8, 7, 4), W8, B8],
        [y("int8", 0.3, 7)],
        "Conv2DOptions",
        padding=pad,
        **CONV,
    )
    case(
        "CONV_2D",
        [
            q(1, 8, 7, 4, kind="uint8", zero=120),
            q(6, 3, 2, 4, kind="uint8", scale=0.02, zero=131, const=True, seed=1),
            T(B8.data, scale=0.001, const=True),
        ],
        [y("uint8", 0.4, 90)],
        "Conv2DOptions",
        padding=pad,
        fusedActivationFunction=ACT.RELU6,
        **CONV,
    )
    case(
        "DEPTHWISE_CONV_2D",
        [f(2, 8, 7, 3), f(1, 3, 2, 6, seed=1, const=True), f(6, seed=2, const=True)],
        [y()],
        "DepthwiseConv2DOptions",
        padding=pad,
        depthMultiplier=2,
        **(CONV | {"strideW": 2}),
    )
    case(
        "DEPTHWISE_CONV_2D",
        [
            q(2, 8, 7, 6),
            T(W8.data.reshape(1, 3, 8, 6)[:, :, :2], scale=W8.scale, axis=3, const=True),
            B8,
        ],
        [y("int8", 0.1, 7)],
        "DepthwiseConv2DOptions",
        padding=pad,
        depthMultiplier=1,
        **(CONV | {"strideW": 2}),
    )
    for name in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        pool = {"padding": pad, "strideH": 2, "strideW": 1, "filterHeight": 3, "filterWidth": 2}
        case(name, [f(2, 8, 7, 3)], [y()], "Pool2DOptions", **pool)
        case(name, [q(2, 8, 7, 3)], [y("int8", 0.05, 3)], "Pool2DOptions", **pool)
        case(
            name,
            [q(2, 8, 7, 3, kind="uint8")],
            [y("uint8", 0.05, 3)],
            "Pool2DOptions",
            fusedActivationFunction=ACT.RELU6,
            **pool,
        )
    case(
        "L2_POOL_2D",
        [f(2, 8, 7, 3)],
        [y()],
        "Pool2DOptions",
        padding=pad,
        strideH=2,
        strideW=1,
        filterHeight=3,
        filterWidth=2,
    )
    case(
        "CONV_3D",
        [f(1, 5, 6, 7, 2), f(2, 3, 2, 2, 4, seed=1, const=True), f(4, seed=2, const=True)],
        [y()],
        "Conv3DOptions",
        padding=pad,
        strideD=1,
        strideH=2,
        strideW=1,
        dilationDFactor=1,
        dilationHFactor=1,
        dilationWFactor=1,
    )
case(
    "TRANSPOSE_CONV",
    [c([1, 9, 8, 5]), f(5, 3, 2, 3, seed=1, const=True), f(1, 4, 7, 3)],
    [y()],
    "TransposeConvOptions",
    padding=VALID,
    strideH=2,
    strideW=1,
)
case(
    "TRANSPOSE_CONV",
    [c([1, 8, 7, 5]), f(5, 3, 2, 3, seed=1, const=True), f(1, 4, 7, 3)],
    [y()],
    "TransposeConvOptions",
    padding=SAME,
    strideH=2,
    strideW=1,
)
case(
    "FULLY_CONNECTED",
    [f(3, 2, 5), f(4, 10, seed=1, const=True), f(4, seed=2, const=True)],
    [y()],
    "FullyConnectedOptions",
    fusedActivationFunction=ACT.RELU,
)
case(
    "FULLY_CONNECTED",
    [f(3, 2, 10), f(4, 10, seed=1, const=True), None],
    [y()],
    "FullyConnectedOptions",
    keepNumDims=True,
)
for kind, zero in (("int8", 0), ("uint8", 120)):
    case(
        "FULLY_CONNECTED",
        [
            q(30, 64, kind=kind),
            q(50, 64, kind=kind, scale=0.02, zero=zero, const=True, seed=1),
            T(rng(2).integers(-900, 900, 50).astype(np.int32), scale=0.001, const=True),
        ],
        [y(kind, 0.6, 7)],
        "FullyConnectedOptions",
    )
    case(
        "FULLY_CONNECTED",
        [
            q(30, 5, kind=kind, scale=0.5),
            q(50, 5, kind=kind, scale=0.5, zero=zero, const=True, seed=1),
            T(rng(2).integers(-900, 900, 50).astype(np.int32), scale=0.25, const=True),
        ],
        [y(kind, 64.0, 7)],
        "FullyConnectedOptions",
        what="-ties",
    )
case(
    "FULLY_CONNECTED",
    [
        q(30, 64),
        T(
            rng(1).integers(-127, 128, (50, 64)).astype(np.int8),
            const=True,
            scale=np.linspace(0.01, 0.03, 50),
        ),
        T(
            rng(2).integers(-900, 900, 50).astype(np.int32),
            const=True,
            scale=np.linspace(0.01, 0.03, 50) * 0.05,
        ),
    ],
    [y("int8", 0.6, 7)],
    "FullyConnectedOptions",
    what="-per-channel",
)
for kw in ({}, {"asymmetricQuantizeInputs": True}):
    case(
        "FULLY_CONNECTED",
        [f(3, 64), q(50, 64, scale=0.02, zero=0, const=True, seed=1), f(50, const=True)],
        [y()],
        "FullyConnectedOptions",
        what=f"-hybrid{len(kw)}",
        **kw,
    )
case("BATCH_MATMUL", [f(2, 3, 4), f(2, 4, 5, seed=1)], [y()], "BatchMatMulOptions")
case(
    "BATCH_MATMUL",
    [f(2, 4, 3), f(1, 5, 4, seed=1)],
    [y()],
    "BatchMatMulOptions",
    adjX=True,
    adjY=True,
)
case("SOFTMAX", [f(3, 40)], [y()], "SoftmaxOptions", beta=1.5)
case("SOFTMAX", [q(3, 40)], [y("int8", 1 / 256, -128)], "SoftmaxOptions", beta=1.0)
case("SOFTMAX", [q(3, 40, kind="uint8")], [y("uint8", 1 / 256, 0)], "SoftmaxOptions", beta=1.0)
case("LOG_SOFTMAX", [f(3, 40)], [y()], "LogSoftmaxOptions")
case("L2_NORMALIZATION", [f(3, 40)], [y()], "L2NormOptions")
case(
    "LOCAL_RESPONSE_NORMALIZATION",
    [f(1, 3, 3, 9)],
    [y()],
    "LocalResponseNormalizationOptions",
    radius=2,
    bias=1.0,
    alpha=0.3,
    beta=0.7,
)
for corners, half in ((False, False), (True, False), (False, True)):
    for x in (f(1, 5, 4, 2), q(1, 5, 4, 2), q(1, 5, 4, 2, kind="uint8")):
        flags = {"alignCorners": corners, "halfPixelCenters": half}
        out = y(x.dtype, x.scale, x.zero)
        case(
            "RESIZE_BILINEAR",
            [x, c([9, 7])],
            [out],
            "ResizeBilinearOptions",
            what=f"{corners}{half}",
            **flags,
        )
        case(
            "RESIZE_NEAREST_NEIGHBOR",
            [x, c([9, 7])],
            [out],
            "ResizeNearestNeighborOptions",
            what=f"{corners}{half}",
            **flags,
        )

# -- movement -------------------------------------------------------------------------------------
case("RESHAPE", [f(2, 3, 4), c([4, -1])], [y()], "ReshapeOptions", newShape=[4, -1])
case("SQUEEZE", [f(1, 3, 1, 4)], [y()], "SqueezeOptions", squeezeDims=[0, 2])
case("EXPAND_DIMS", [f(3, 4), c([-1])], [y()], "ExpandDimsOptions")
case("SHAPE", [f(3, 4)], [y("int32")], "ShapeOptions", outType=2)
case("RANK", [f(3, 4)], [y("int32")], "RankOptions")
case("TRANSPOSE", [f(2, 3, 4), c([2, 0, 1])], [y()], "TransposeOptions")
case("CONCATENATION", [f(2, 3), f(2, 1, seed=1)], [y()], "ConcatenationOptions", axis=-1)
case(
    "CONCATENATION",
    [q(2, 30, kind="uint8"), q(2, 9, kind="uint8", scale=0.03, zero=9, seed=1)],
    [y("uint8", 0.06, 40)],
    "ConcatenationOptions",
    axis=1,
)
case(
    "CONCATENATION",
    [q(2, 30), q(2, 9, seed=1)],
    [y("int8", 0.05, 3)],
    "ConcatenationOptions",
    axis=1,
)
case("PACK", [f(2, 3), f(2, 3, seed=1)], [y()], "PackOptions", valuesCount=2, axis=1)
case("UNPACK", [f(2, 3)], [y(), y(), y()], "UnpackOptions", num=3, axis=-1)
case("SPLIT", [c(1), f(2, 6)], [y(), y(), y()], "SplitOptions", numSplits=3)
case("SPLIT_V", [f(2, 6), c([1, -1, 2]), c(1)], [y(), y(), y()], "SplitVOptions", numSplits=3)
case("SLICE", [f(4, 6), c([1, 2]), c([2, -1])], [y()], "SliceOptions")
case(
    "STRIDED_SLICE",
    [f(4, 6, 5), c([1, 5, 0]), c([4, 0, 1]), c([2, -2, 1])],
    [y()],
    "StridedSliceOptions",
    shrinkAxisMask=4,
    what="-shrink",
)
case(
    "STRIDED_SLICE",
    [f(4, 6), c([0, 1]), c([0, 9]), c([1, 2])],
    [y()],
    "StridedSliceOptions",
    beginMask=1,
    endMask=1,
)
case(
    "STRIDED_SLICE",
    [f(4, 6), c([0, -3]), c([0, -1]), c([1, 1])],
    [y()],
    "StridedSliceOptions",
    ellipsisMask=1,
    what="-ellipsis",
)
case(
    "STRIDED_SLICE",
    [f(4, 6), c([0, 1]), c([0, 3]), c([1, 1])],
    [y()],
    "StridedSliceOptions",
    newAxisMask=1,
    what="-new",
)
case("PAD", [f(2, 3), c([[1, 0], [2, 3]])], [y()], "PadOptions")
case("PAD", [q(2, 3), c([[1, 0], [2, 3]])], [y("int8", 0.05, 3)], "PadOptions")
case("PADV2", [f(2, 3), c([[1, 0], [2, 3]]), c(7.5, "float32")], [y()], "PadV2Options")
case("MIRROR_PAD", [f(4, 5), c([[1, 0], [2, 3]])], [y()], "MirrorPadOptions", mode=0)
case(
    "MIRROR_PAD",
    [f(4, 5), c([[1, 0], [2, 3]])],
    [y()],
    "MirrorPadOptions",
    mode=1,
    what="-symmetric",
)
case("TILE", [f(2, 3), c([2, 3])], [y()], "TileOptions")
case("BROADCAST_TO", [f(3, 1), c([2, 3, 4])], [y()], "BroadcastToOptions")
case("FILL", [c([2, 3]), T(np.float32(2.5))], [y()], "FillOptions")
case("ZEROS_LIKE", [f(2, 3)], [y()], "ZerosLikeOptions")
case("REVERSE_V2", [f(2, 3, 4), c([1])], [y()], "ReverseV2Options")
case("SPACE_TO_DEPTH", [f(1, 4, 6, 2)], [y()], "SpaceToDepthOptions", blockSize=2)
case("DEPTH_TO_SPACE", [f(1, 2, 3, 8)], [y()], "DepthToSpaceOptions", blockSize=2)
case(
    "SPACE_TO_BATCH_ND",
    [f(1, 4, 5, 2), c([2, 3]), c([[0, 2], [1, 0]])],
    [y()],
    "SpaceToBatchNDOptions",
)
case(
    "BATCH_TO_SPACE_ND",
    [f(6, 3, 2, 2), c([2, 3]), c([[0, 2], [1, 0]])],
    [y()],
    "BatchToSpaceNDOptions",
)
case("GATHER", [f(4, 5), T(np.array([3, 0, 3], np.int32))], [y()], "GatherOptions", axis=1)
case(
    "GATHER",
    [f(2, 4, 5), T(np.array([[3, 0, 3], [1, 1, 2]], np.int32))],
    [y()],
    "GatherOptions",
    axis=1,
    batchDims=1,
    what="-batch",
)
case(
    "GATHER",
    [f(2, 3, 4), T(np.array([[3, 0], [1, 2]], np.int32))],
    [y()],
    "GatherOptions",
    axis=2,
    batchDims=1,
    what="-batch2",
)
case("GATHER_ND", [f(4, 5, 2), T(np.array([[3, 0], [1, 4]], np.int32))], [y()], "GatherNdOptions")
case("EMBEDDING_LOOKUP", [T(np.array([3, 0, 1], np.int32)), f(5, 4, const=True)], [y()])
case(
    "ONE_HOT",
    [T(np.array([3, 0, 1], np.int32)), c(4), c(5.0, "float32"), c(-1.0, "float32")],
    [y()],
    "OneHotOptions",
    axis=-1,
)
case("TOPK_V2", [f(3, 9), c(4)], [y(), y("int32")], "TopKV2Options")
case("CUMSUM", [f(3, 9), c(1)], [y()], "CumsumOptions", exclusive=True)
case("CUMSUM", [f(3, 9), c(0)], [y()], "CumsumOptions", reverse=True, what="-reverse")
case(
    "REVERSE_SEQUENCE",
    [f(3, 5, 2), T(np.array([5, 1, 3], np.int32))],
    [y()],
    "ReverseSequenceOptions",
    seqDim=1,
    batchDim=0,
)
case("RANGE", [c(3), c(17), c(4)], [y("int32")], "RangeOptions")
case(
    "SCATTER_ND",
    [T(np.array([[1], [3], [1]], np.int32)), f(3, 2), c([5, 2])],
    [y()],
    "ScatterNdOptions",
)
case("WHERE", [b(3, 5)], [y("int64")], "WhereOptions")
case(
    "UNIQUE",
    [T(np.array([5, 2, 5, 7, 2], np.float32))],
    [y(), y("int32")],
    "UniqueOptions",
    idxOutType=2,
)
case("MATRIX_DIAG", [f(2, 4)], [y()], "MatrixDiagOptions")
case("MATRIX_SET_DIAG", [f(2, 3, 4), f(2, 3, seed=1)], [y()], "MatrixSetDiagOptions")
case("SEGMENT_SUM", [f(4, 3), c([0, 0, 2, 2])], [y()], "SegmentSumOptions")
case(
    "DYNAMIC_UPDATE_SLICE",
    [f(4, 5), f(2, 3, seed=1), T(np.array([3, 1], np.int32))],
    [y()],
    "DynamicUpdateSliceOptions",
)
case("BUCKETIZE", [f(3, 9)], [y("int32")], "BucketizeOptions", boundaries=[-1.0, 0.0, 2.0])
case("BITCAST", [f(3, 4)], [y("int32")], "BitcastOptions")

# -- reductions -----------------------------------------------------------------------------------
for name in ("SUM", "MEAN", "REDUCE_PROD", "REDUCE_MAX", "REDUCE_MIN"):
    case(name, [f(3, 4, 5), c([1, -1])], [y()], "ReducerOptions")
    case(name, [f(3, 4, 5), c([1])], [y()], "ReducerOptions", keepDims=True, what="-keep")
# LiteRT 2.3 reads the int8 input of SUM as uint8 and gives nonsense, so that one is not compared.
for name, kind, zero in (("SUM", "uint8", 110), ("MEAN", "int8", 3), ("MEAN", "uint8", 110)):
    case(
        name, [q(2, 7, 9, 4, kind=kind, zero=zero), c([1, 2])], [y(kind, 0.04, 9)], "ReducerOptions"
    )
    case(
        name,
        [q(2, 7, 9, 4, kind=kind, zero=zero), c([1, 2])],
        [y(kind, 0.04, 9)],
        "ReducerOptions",
        keepDims=True,
        what="-keep",
    )
case("REDUCE_MAX", [q(3, 4, 5), c([1])], [y("int8", 0.05, 3)], "ReducerOptions")
case("REDUCE_ANY", [b(3, 4), c([1])], [y("bool")], "ReducerOptions")
case("REDUCE_ALL", [b(3, 4), c([1])], [y("bool")], "ReducerOptions")
case("ARG_MAX", [f(3, 9), c(1)], [y("int64")], "ArgMaxOptions", outputType=4)
case("ARG_MIN", [q(3, 9), c(0)], [y("int32")], "ArgMinOptions", outputType=2)
case("RFFT2D", [f(2, 3, 16), c([4, 16])], [y("complex64")], "Rfft2dOptions")
case("COMPLEX_ABS", [T(np.complex64([3 + 4j, -1j]))], [y()])


def options_of(op: Op) -> Any:
    if not op.table:
        return None
    made = getattr(s, op.table + "T")()
    for key, value in op.options.items():
        assert hasattr(made, key), key
        setattr(made, key, value)
    return made


@pytest.mark.parametrize("op", CASES, ids=str)
def test_against_the_reference_kernels(op: Op) -> None:
    model = build(op.name, op.inputs, op.outputs, options_of(op))
    feeds = [t.data for t in op.inputs if t is not None and not t.const]
    try:
        want = reference(model, feeds)
    except (RuntimeError, ValueError) as e:
        pytest.skip(f"LiteRT refuses it: {str(e)[:90]}")
    got = ours(model, feeds)
    assert len(want) == len(got)
    for w, g in zip(want, got, strict=True):
        assert w.shape == g.shape and w.dtype == g.dtype, (w.shape, g.shape, w.dtype, g.dtype)
        if w.dtype.kind in "iub":
            far = np.abs(w.astype(np.int64) - g.astype(np.int64)).max(initial=0)
            assert far <= op.steps, f"{far} steps apart"
        else:
            room = op.tolerance * max(float(np.abs(w).max(initial=0)), 1e-3)
            np.testing.assert_allclose(g, w, rtol=0, atol=room)
