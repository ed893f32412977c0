"""Integer contractions as the kernels see them, whichever format they came from: one input image,
weights less their zero point, and what makes a stored element of a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onefold.codegen.text import number
from onefold.codegen.tiling import Finish, Index
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.dtypes import DType
from onefold.ir.graph import Array, Node, Value
from onefold.ops.conv import ConvInteger
from onefold.ops.hybrid import DynamicQuantize, Hybrid, HybridDepthwiseConv2D, HybridWindow
from onefold.ops.matmul import MatMulInteger
from onefold.ops.quant_conv import QuantContraction, QuantDepthwiseConv2D, QuantWindow
from onefold.ops.quantized import BIAS, MULTIPLIER, W_ZERO, X_ZERO, Y_ZERO, QConv, QMatMul

Pair = tuple[int, int]

FAR = 2.0**30  # sums and scaled sums beyond it do not fit the conversions


@dataclass(frozen=True)
class FixedPoint:
    """TFLite's multipliers and shifts, one for each channel, with one rounding or two."""

    multiplier: Array
    shift: Array
    once: bool

    @property
    def refused(self) -> str:
        m, s = self.multiplier, self.shift
        if m.min() < 0 or s.min() < -31 or s.max() > 30:
            return "its multipliers are out of the range of the vector form"
        return ""

    def arrays(self) -> tuple[Array, ...]:
        return _once_where_equal(self.multiplier.astype(np.int32), self.shift.astype(np.int8))

    def call(self, arrays: Sequence[str], more: Sequence[str], layer: Layer, seen: str) -> str:
        far = bool(np.any(layer.most * 2.0 ** np.maximum(self.shift, 0) >= FAR))
        relu = int(layer.lo >= layer.zero_y)
        ends = f"{layer.apart}, {int(self.once)}, {int(far)}, {relu}, {layer.bounds}"
        return f"of_end_fixed({{}}, {seen}, {', '.join(arrays)}, {ends}, (uint8_t *)q);"


@dataclass(frozen=True)
class FloatScale:
    """ONNX Runtime's factor in f32, one for each channel, and rounding to even."""

    factor: Array

    @property
    def refused(self) -> str:
        if not np.all(np.isfinite(self.factor)):
            return "its factors are not finite"
        return ""

    def arrays(self) -> tuple[Array, ...]:
        return _once_where_equal(self.factor.astype(np.float32))

    def call(self, arrays: Sequence[str], more: Sequence[str], layer: Layer, seen: str) -> str:
        far = bool(np.any(layer.most * np.abs(self.factor) > FAR))
        ends = f"{layer.apart}, {int(far)}, {layer.bounds}"
        return f"of_end_scale({{}}, {seen}, {', '.join(arrays)}, {ends}, (uint8_t *)q);"


@dataclass(frozen=True)
class DynamicScale:
    """Factors of TFLite's hybrid layers: one for each channel, and one for each batch, which is
    found out at run time, as the zero point may be. total: of the weights of each channel."""

    factor: Array
    bias: Array | None
    total: Array

    refused = ""

    def arrays(self) -> tuple[Array, ...]:
        none = np.full(self.factor.shape, -0.0, np.float32)  # adds to any number, -0 too
        bias = none if self.bias is None else self.bias.astype(np.float32)
        return self.factor.astype(np.float32), bias, self.total.astype(np.int32)

    def call(self, arrays: Sequence[str], more: Sequence[str], layer: Layer, seen: str) -> str:
        ends = f"{', '.join(arrays)}, {more[0]}, {more[-1] if layer.moving else 0}"
        return f"of_end_dynamic({{}}, {seen}, {ends}, q);"


@dataclass(frozen=True)
class PlainSum:
    """ONNX's products of integers: sums as they are, less the share of a zero point of the input
    that is found out at run time. total: of the weights of each channel, where that is so."""

    total: Array | None = None

    refused = ""

    def arrays(self) -> tuple[Array, ...]:
        return () if self.total is None else (self.total.astype(np.int32),)

    def call(self, arrays: Sequence[str], more: Sequence[str], layer: Layer, seen: str) -> str:
        ends = f"{arrays[0]}, {more[-1]}" if layer.moving else "0, 0"
        return f"of_end_sum({{}}, {seen}, {ends}, q);"


End = FixedPoint | FloatScale | DynamicScale | PlainSum


def _once_where_equal(*arrays: Array) -> tuple[Array, ...]:
    """What each channel has of each, or one element of each where all channels have the same."""
    same = all(bool(np.all(a == a[0])) for a in arrays)
    return tuple(a[:1] for a in arrays) if same else arrays


@dataclass(frozen=True)
class Layer:
    """size: rows, columns and channels of the input; steps: elements of it from a batch, row,
    column and channel to the next; weights: [channels, kh, kw, inputs of a group] less their zero
    point; index: (batch, channel, row, column) to the index of an element of the result; more: what
    the end of a sum reads beside constants, an element for each batch or for all: of a hybrid layer
    the factor of its input; and last the zero point, where it is moving, found out at run time."""

    node: Node
    batches: int
    size: tuple[int, int, int]
    steps: tuple[int, int, int, int]
    result: tuple[int, int, int]  # rows, columns, channels
    weights: Array
    bias: Array | None
    zero_x: int
    zero_y: int
    lo: int
    hi: int
    dtype: DType
    end: End
    index: Index
    strides: Pair = (1, 1)
    dilations: Pair = (1, 1)
    pads: Pair = (0, 0)  # top, left
    groups: int = 1
    zero_w: int = 0  # where the weights are computed
    more: tuple[Value, ...] = ()
    moving: bool = False

    @property
    def x(self) -> Value:
        return self.node.arg(0)

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.x, *self.more)

    @property
    def kernel(self) -> Pair:
        return (self.weights.shape[1], self.weights.shape[2])

    @property
    def depthwise(self) -> bool:
        return self.groups == self.size[2] == self.result[2]

    @property
    def bounds(self) -> str:
        """C texts: whether the result is signed, its least and its largest value, and its zero."""
        ends = [str(self.lo), str(self.hi)]
        if (self.lo, self.hi) != (self.dtype.lo, self.dtype.hi):
            ends = [number(e, "int32_t") for e in ends]
        zero = number(str(self.zero_y), "int32_t")
        return ", ".join([str(int(self.dtype is dtypes.i8)), *ends, zero])

    @property
    def apart(self) -> int:
        """Elements of the end's arrays from one channel's to the next: 0 where all have one."""
        return int(any(a.size > 1 for a in self.end.arrays()))

    @property
    def most(self) -> Array:
        """Of each channel, what no sum of it is larger than."""
        total = np.abs(self.weights.astype(np.int64)).reshape(len(self.weights), -1).sum(axis=1)
        bias = 0 if self.bias is None else np.abs(self.bias.astype(np.float64))
        return np.asarray(total * 255.0 + bias)

    def in_one_row(self) -> Layer:
        """The same layer with all columns in one row, where its input may be read like that."""
        (h, w, c), (rows, columns, channels) = self.size, self.result
        last = self.steps[1:] == (w * c, c, 1)
        if not last or self.kernel != (1, 1) or self.strides != (1, 1) or (h, w) != (rows, columns):
            return self
        return replace(
            self, size=(1, h * w, c), steps=(self.steps[0], h * w * c, c, 1),
            result=(1, rows * columns, channels),
            index=lambda n, c, y, x: self.index(n, c, *dims.unravel(x, (rows, columns))),
        )  # fmt: skip

    def reach(self, outputs: int, axis: int) -> int:
        """Rows or columns of the input that neighbouring outputs read."""
        span = (self.kernel[axis] - 1) * self.dilations[axis]
        return (outputs - 1) * self.strides[axis] + span + 1

    def finish(
        self, lanes: int, arrays: Sequence[str], more: Sequence[str], dim: Callable[[Dim], str],
        seen: str,
    ) -> Finish:  # fmt: skip
        """arrays: names of those of the end, filled up to whole vectors; more: C texts of the
        elements of `more` for the batch; seen: the name of what each place of the result adds to
        its sums, empty where that is nothing."""
        kind = self.dtype.ctype

        def text(
            vectors: int, columns: int, at: tuple[Dim, Dim, Dim], acc: str, pitch: int
        ) -> tuple[list[str], str, int]:
            block, row, column = at
            first = dim(dims.mul(block, lanes))
            place = dim(dims.add(dims.mul(row, self.result[1]), column))
            adds = f"{seen} + {place}" if seen else "0"
            ends = [f"{a} + {first}" for a in arrays] if self.apart else arrays
            call = self.end.call(ends, more, self, adds)
            room = -(-columns // 4) * 4
            lines = [
                f"{kind} q[{vectors * room * lanes}] __attribute__((aligned(64)));",
                call.format(f"{columns}, {vectors}, {acc}, {pitch}"),
            ]
            return lines, "q", room

        return text


def layer_of(node: Node) -> Layer | str:
    """The layer, or why the kernels do not take it."""
    x, w = node.arg(0), node.arg(1)
    if x.dtype not in (dtypes.i8, dtypes.u8):
        return f"its input is of {x.dtype}"
    if w.data is None:
        return "its weights are not constant"
    op = node.op
    ends: Sequence[Value | None] = node.inputs[2:]
    if isinstance(op, Hybrid):
        ends = (node.input(2), node.input(5))
    elif isinstance(op, (MatMulInteger, ConvInteger)):
        ends = (node.input(3),)
    if any(v is not None and v.data is None for v in ends):
        return "its scales, zero points or bias are not constant"
    if not x.tensor.static or 0 in x.shape or 0 in node.outputs[0].shape or 0 in w.shape:
        return "its input has open sizes or is empty"
    if isinstance(op, Hybrid):
        return _hybrid(node, op)
    if isinstance(op, (MatMulInteger, ConvInteger)):
        return _plain(node, op)
    if isinstance(op, QConv):
        found: Layer | str = _qconv(node, op)
    elif isinstance(op, QMatMul):
        found = _qmatmul(node, op)
    else:
        assert isinstance(op, QuantContraction)
        found = _tflite(node, op)
    return found if isinstance(found, str) else found.end.refused or found


def _tflite(node: Node, op: QuantContraction) -> Layer | str:
    if op.wide:
        return "its sums are of 64 bits"
    m, s, w = node.const(3), node.const(4), node.const(1)
    assert m is not None and s is not None and w is not None
    ints, out = node.arg(0).tensor.ints, node.outputs[0].tensor.ints
    weights = w.astype(np.int32) - op.zero_w
    end = FixedPoint(m, s, op.once)
    bias, kind = node.const(2), op.dtype
    common = (bias, op.zero_x, op.zero_y, op.lo, op.hi, kind, end)
    if not isinstance(op, QuantWindow):
        rows, k = ints
        weights = weights.reshape(out[1], 1, 1, k)
        return Layer(node, 1, (1, rows, k), (0, 0, k, 1), (1, rows, out[1]), weights, *common,
                     lambda n, c, y, x: (x, c))  # fmt: skip
    return _windows(node, op, weights, common)


Common = tuple[Array | None, int, int, int, int, DType, End]
"""What layers have beside their shapes: `Layer.bias` to `Layer.end`."""


def _windows(
    node: Node, op: QuantWindow | HybridWindow, weights: Array, common: Common
) -> Layer:  # fmt: skip
    (n, h, width, c), out = node.arg(0).tensor.ints, node.outputs[0].tensor.ints
    depthwise = isinstance(op, (QuantDepthwiseConv2D, HybridDepthwiseConv2D))
    groups = c if depthwise else c // weights.shape[3]
    if depthwise:
        weights = weights.transpose(3, 1, 2, 0)
    return Layer(
        node, n, (h, width, c), (h * width * c, width * c, c, 1), (out[1], out[2], out[3]), weights,
        *common, lambda n, c, y, x: (n, y, x, c), op.strides, op.dilations,
        (op.pads[0], op.pads[1]), groups,
    )  # fmt: skip


def _hybrid(node: Node, op: Hybrid) -> Layer:
    w, factor = node.const(1), node.const(5)
    assert w is not None and factor is not None
    weights = w.astype(np.int32)
    channels = node.outputs[0].tensor.ints[-1]
    axis = 3 if isinstance(op, HybridDepthwiseConv2D) else 0
    total = np.moveaxis(weights, axis, 0).reshape(channels, -1).sum(axis=1)
    end = DynamicScale(np.broadcast_to(factor, (channels,)), node.const(2), total)
    common: Common = (None, 0, 0, 0, 0, dtypes.f32, end)
    if isinstance(op, HybridWindow):
        layer = _windows(node, op, weights, common)
    else:
        n, k = node.arg(0).tensor.ints
        layer = Layer(node, n, (1, 1, k), (k, k, k, 1), (1, 1, channels),
                      weights.reshape(channels, 1, 1, k), *common,
                      lambda n, c, y, x: (n, c))  # fmt: skip
    made = node.arg(4).producer
    fixed = made is not None and isinstance(made.op, DynamicQuantize) and not made.op.asymmetric
    more = (node.arg(3),) if fixed else (node.arg(3), node.arg(4))
    return replace(layer, more=more, moving=not fixed)


def _plain(node: Node, op: MatMulInteger | ConvInteger) -> Layer | str:
    zero = node.input(2)
    moving = zero is not None and zero.data is None
    fixed = 0 if moving else _scalar(node, 2)
    if fixed is None or (zero is not None and moving and zero.tensor.size != 1):
        return "its zero points differ between rows"
    common: Common = (None, fixed, 0, 0, 0, dtypes.i32, PlainSum())
    if isinstance(op, ConvInteger):
        layer = _convolution(node, op, node.const(3), common)
    else:
        layer = _product(node, node.const(3), common)
    if isinstance(layer, str) or not moving or zero is None:
        return layer
    total = layer.weights.reshape(len(layer.weights), -1).sum(axis=1)
    return replace(layer, end=PlainSum(total), more=(zero,), moving=True)


def _scalar(node: Node, i: int) -> int | None:
    """The one value of a zero point; 0 where there is none, None where there are several."""
    a = node.const(i)
    if a is None:
        return 0
    return int(a.reshape(-1)[0]) if a.size == 1 or bool(np.all(a == a.reshape(-1)[0])) else None


def _per_channel(a: Array | None, channels: int) -> Array | None:
    """A parameter of the channels, spread over them; None where it depends on more."""
    if a is None or a.size not in (1, channels) or (a.ndim and a.size != a.shape[-1]):
        return None
    return np.broadcast_to(a.reshape(-1), (channels,))


def _qconv(node: Node, op: QConv) -> Layer | str:
    out = node.outputs[0].tensor
    zero = _scalar(node, X_ZERO)
    factor = _per_channel(node.const(MULTIPLIER), out.ints[1])
    if zero is None or factor is None:
        return "its scales differ within a channel"
    ends = (_scalar(node, Y_ZERO) or 0, *op.range(out.dtype), out.dtype, FloatScale(factor))
    return _convolution(node, op, node.const(W_ZERO), (node.const(BIAS), zero, *ends))


def _convolution(
    node: Node, op: QConv | ConvInteger, wz: Array | None, common: Common
) -> Layer | str:
    x, w = node.arg(0).tensor, node.const(1)
    assert w is not None
    axes = op.axes(node)
    if len(axes) > 2:
        return f"it has {len(axes)} spatial axes"
    if not all(isinstance(p, int) and p >= 0 for p in op.pads):
        return "its padding is open or negative"
    n, c, *space = x.ints
    h, width = (1, *space)[-2:]
    if not x.layout and h * width > 1:
        steps = (c * h * width, width, 1, h * width)
    elif x.layout in (0, c):
        steps = (c * h * width, width * c, c, 1)
    else:
        return f"its input lies in blocks of {x.layout} channels"
    out = node.outputs[0].tensor.ints
    rows, columns = (1, *out[2:])[-2:]
    full = w.reshape(*w.shape[:2], *(1, *w.shape[2:])[-2:]).transpose(0, 2, 3, 1).astype(np.int32)
    if wz is not None:
        full = full - wz.astype(np.int32).reshape(-1, 1, 1, 1)
    flat = len(axes) == 1
    pairs = [((1, a[0]) if flat else (a[0], a[1])) for a in (
        [a.stride for a in axes], [a.dilation for a in axes])]  # fmt: skip
    begin = [int(a.begin) for a in axes]  # type: ignore[arg-type]
    return Layer(
        node, n, (h, width, c), steps, (rows, columns, out[1]), full, *common,
        (lambda n, c, y, x: (n, c, x)) if flat else (lambda n, c, y, x: (n, c, y, x)),
        pairs[0], pairs[1], (0, begin[0]) if flat else (begin[0], begin[1]), op.group,
    )  # fmt: skip


def _qmatmul(node: Node, op: QMatMul) -> Layer | str:
    out = node.outputs[0].tensor
    channels = node.arg(1).tensor.ints[-1]
    zero = _scalar(node, X_ZERO)
    factor = _per_channel(node.const(MULTIPLIER), channels)
    bias = node.const(BIAS)
    spread = None if bias is None else _per_channel(bias, channels)
    if zero is None or factor is None or (bias is not None and spread is None):
        return "its scales, zero points or bias differ between rows"
    ends = (_scalar(node, Y_ZERO) or 0, *op.range(out.dtype), out.dtype, FloatScale(factor))
    return _product(node, node.const(W_ZERO), (spread, zero, *ends))


def _product(node: Node, wz: Array | None, common: Common) -> Layer | str:
    w = node.const(1)
    assert w is not None
    if node.arg(0).tensor.layout:
        return "its input lies in channel blocks"
    if w.ndim != 2:
        return f"its right side has shape {list(w.shape)}"
    if wz is not None and wz.ndim > 1:
        return "its weights have zero points of several axes"
    k, channels = w.shape
    lead = node.arg(0).tensor.ints[:-1]
    rows = int(np.prod(lead))
    full = w.astype(np.int32) - (0 if wz is None else wz.astype(np.int32))
    return Layer(
        node, 1, (1, rows, k), (0, 0, k, 1), (1, rows, channels),
        full.T.reshape(channels, 1, 1, k), *common,
        lambda n, c, y, x: (*dims.unravel(x, lead), c) if lead else (c,),
    )  # fmt: skip


def product_of(node: Node) -> Layer | str:
    """A product of two computed matrices, or why no kernel takes it. Its weights are as large as
    they may become."""
    op, x, w = node.op, node.arg(0), node.arg(1)
    assert isinstance(op, QMatMul)
    if w.data is not None:
        return "its right side is constant"
    if x.dtype not in (dtypes.i8, dtypes.u8) or w.dtype not in (dtypes.i8, dtypes.u8):
        return f"it is of {x.dtype} and {w.dtype}"
    if any(v is not None and v.data is None for v in node.inputs[2:]):
        return "its scales, zero points or bias are not constant"
    out = node.outputs[0].tensor
    if not x.tensor.static or not w.tensor.static or 0 in (*x.shape, *w.shape):
        return "its sizes are open, or it is empty"
    if len(x.shape) < 2 or len(w.shape) < 2 or x.shape[:-2] != w.shape[:-2]:
        return f"its sides have shapes {list(x.shape)} and {list(w.shape)}"
    *lead, m, k = x.tensor.ints
    n = w.tensor.ints[-1]
    zeros = _scalar(node, X_ZERO), _scalar(node, W_ZERO)
    factor, bias = _per_channel(node.const(MULTIPLIER), n), node.const(BIAS)
    spread = None if bias is None else _per_channel(bias, n)
    if zeros[0] is None or zeros[1] is None or factor is None:
        return "its scales or zero points differ between elements"
    if bias is not None and spread is None:
        return "its bias differs between rows"
    lo, hi = op.range(out.dtype)
    end = FloatScale(factor)
    return end.refused or Layer(
        node, int(np.prod(lead)), (1, m, k), (m * k, 0, k, 1), (1, m, n),
        np.broadcast_to(np.int16(255), (n, 1, 1, k)), spread, zeros[0],
        _scalar(node, Y_ZERO) or 0, lo, hi, out.dtype, end,
        lambda b, c, y, x: (*dims.unravel(b, lead), x, c), zero_w=zeros[1],
    )  # fmt: skip
