"""Normalisation by the mean and variance of contiguous rows.

Mean and variance are taken in two passes, in the compute type (f32 for narrower floats), each in
independent lanes (see ops/softmax.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.dtypes import DType
from onefold.ir.graph import Node
from onefold.ir.scalar import Inside, Scalar, TensorExpr
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Code, Lowering, Op, Refusal, axis_of, operator, turns
from onefold.ops.elementwise import tensor
from onefold.ops.scan import rows
from onefold.ops.softmax import lane_fold


def float_input(n: Node) -> TensorType:
    """The type of input 0, a float type. Raises Refusal."""
    t = tensor(n, 0)
    if not (t.dtype.is_float and t.dtype.bits >= 16):
        raise Refusal(f"{n.op.name} of {t.dtype.long} elements is not defined")
    return t


def moments(k: Lowering, epsilon: float, centred: bool = True) -> str:
    """C text: mean and inv (1 / standard deviation) of the row of `row` elements at `o * row`."""
    kind = k.y().dtype.compute
    x = k.load(0, "o * row + {i}")
    text = f"\n  const {kind.ctype} mean = 0;"
    if centred:
        text = lane_fold(kind, "total", "row", "0", f"{{a}} + {x}", "{a} + {b}")
        text += f"\n  const {kind.ctype} mean = total / ({kind.ctype})row;"
    text += lane_fold(kind, "square", "row", "0", f"{{a}} + ({x} - mean) * ({x} - mean)",
                      "{a} + {b}")  # fmt: skip
    eps = f"({kind.ctype}){float(epsilon)!r}"
    text += f"\n  const {kind.ctype} variance = square / ({kind.ctype})row;"
    return text + f"\n  const {kind.ctype} inv = 1 / of_sqrt_{kind.name}(variance + {eps});"


@dataclass(frozen=True)
class RowNorm(Op):
    """Base: (x - mean) / sqrt(variance + epsilon) over the axes from `axis` on, times input 1 plus
    input 2 (of the shape of those axes), either of which may be left out.

    stats: also return mean and 1 / standard deviation, of type `stats_type`.
    """

    axis: int = -1
    epsilon: float = 1e-5
    stats: bool = False
    stats_type: DType = dtypes.f32
    centred: ClassVar[bool] = True

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = float_input(n)
        a = axis_of(self.axis, len(t.shape))
        for i in range(1, len(n.inputs)):
            if n.inputs[i] is not None and tensor(n, i).shape != t.shape[a:]:
                raise Refusal(f"input {i} is {tensor(n, i)}, not of the shape of axes {a}.. of {t}")
        out = [TensorType(t.shape, t.dtype)]
        if self.stats:
            small = TensorType((*t.shape[:a], *(1 for _ in t.shape[a:])), self.stats_type)
            out += [small] * (2 if self.centred else 1)
        return out

    def ref(self, n: Node, x: Any, scale: Any = None, bias: Any = None) -> Any:
        axes = tuple(range(axis_of(self.axis, x.ndim), x.ndim))
        wide = x.astype(np.float64)
        with np.errstate(all="ignore"):
            mean = wide.mean(axes, keepdims=True) if self.centred else np.zeros(())
            inv = 1 / np.sqrt(((wide - mean) ** 2).mean(axes, keepdims=True) + self.epsilon)
        y = (wide - mean) * inv
        y = y if scale is None else y * scale.astype(np.float64)
        y = y if bias is None else y + bias.astype(np.float64)
        out = [y.astype(x.dtype)]
        if self.stats:
            both = [mean, inv] if self.centred else [inv]
            out += [np.asarray(s).astype(self.stats_type.numpy) for s in both]
        return out

    def lower(self, k: Lowering) -> Code:
        t = k.y()
        outer, row, _ = rows(t.shape, axis_of(self.axis, len(t.shape)), len(t.shape))
        c = t.dtype.compute.ctype
        last = f"({k.load(0, 'o * row + j')} - mean) * inv" if self.centred else (
            f"{k.load(0, 'o * row + j')} * inv")  # fmt: skip
        for i, op in ((1, "*"), (2, "+")):
            if k.has(i):
                last += f" {op} ({c}){k.load(i, 'j')}"
        stats = ""
        if self.stats:
            both = ["mean", "inv"] if self.centred else ["inv"]
            stats = "\n  ".join(k.store(i + 1, "o", v) for i, v in enumerate(both))
        text = f"""
const ix row = {k.dim(row)};
{turns("0", k.dim(outer))} {{{moments(k, self.epsilon, self.centred)}
  OF_EACH for (ix j = 0; j < row; j++) {k.store(0, "o * row + j", last)}
  {stats}
}}"""
        return Code(text, inplace=((0, 0),), turns=k.dim(outer))


NORM_CASES: tuple[Case, ...] = (
    Case((((3, 37), "f32"), ((37,), "f32"), ((37,), "f32"))),
    Case((((2, 3, 5), "f32"), ((3, 5), "f32")), {"axis": 1}),
    Case((((2, 3, 5), "f16"), ((5,), "f16")), {"axis": -1, "stats": True}),
    Case((((4, 16), "f64"),), {"epsilon": 0.1, "stats": True}),
    Case((((0, 16), "f32"), None, ((16,), "f32"))),
)


@operator
class LayerNormalization(RowNorm):
    """Rows of mean 0 and variance 1, scaled and shifted."""

    cases: ClassVar = NORM_CASES


@operator
class RMSNormalization(RowNorm):
    """Rows of mean square 1, scaled; statistics are 1 / root mean square only."""

    centred: ClassVar = False
    cases: ClassVar = NORM_CASES


@operator
class GroupNormalization(Op):
    """Each group of channels of each image normalised, then every channel scaled and shifted.

    groups 0: every channel is a group (instance normalisation). per_group: scale and bias are
    given for groups instead of channels.
    """

    groups: int = 0
    epsilon: float = 1e-5
    per_group: bool = False
    cases: ClassVar = (
        Case((((2, 4, 3, 5), "f32"), ((4,), "f32"), ((4,), "f32")), {"groups": 2}),
        Case((((2, 4, 3, 5), "f32"), ((4,), "f32"), ((4,), "f32"))),
        Case((((1, 6, 7), "f16"), ((3,), "f16"), ((3,), "f16")), {"groups": 3, "per_group": True}),
        Case((((2, 4), "f64"), ((4,), "f64"), ((4,), "f64")), {"groups": 1, "epsilon": 0.01}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = float_input(n)
        if len(t.shape) < 2:
            raise Refusal(f"{t} has no axis of channels")
        channels = t.shape[1]
        if self.groups < 0 or (self.groups and dims.mod(channels, self.groups) != 0):
            raise Refusal(f"{channels} channels do not make {self.groups} groups")
        want = self._groups(t) if self.per_group else channels
        for i in (1, 2):
            if tensor(n, i).shape != (want,):
                raise Refusal(f"input {i} is {tensor(n, i)}, not {want} numbers")
        return [TensorType(t.shape, t.dtype)]

    def _groups(self, t: TensorType) -> Dim:
        return self.groups or t.shape[1]

    def ref(self, n: Node, x: Any, scale: Any, bias: Any) -> Any:
        g = self.groups or x.shape[1]
        each = x.shape[1] // g
        wide = x.astype(np.float64).reshape(x.shape[0], g, -1)
        inv = 1 / np.sqrt(wide.var(2, keepdims=True) + self.epsilon)
        y = ((wide - wide.mean(2, keepdims=True)) * inv).reshape(x.shape)
        s, b = (p.astype(np.float64) for p in (scale, bias))
        if self.per_group:
            s, b = np.repeat(s, each), np.repeat(b, each)
        shape = (-1, *(1 for _ in x.shape[2:]))
        return (y * s.reshape(shape) + b.reshape(shape)).astype(x.dtype)

    def lower(self, k: Lowering) -> Code:
        t = k.y()
        c, groups = t.dtype.compute.ctype, k.dim(self._groups(t))
        each = dims.floordiv(t.shape[1], self._groups(t))
        size = dims.product(t.shape[2:])
        at = "g" if self.per_group else "g * each + n"
        x = k.load(0, "o * row + n * size + j")
        outer = f"{k.dim(t.shape[0])} * {groups}"
        text = f"""
const ix each = {k.dim(each)}, size = {k.dim(size)}, row = each * size;
{turns("0", outer)} {{
  const ix g = o % {groups};{moments(k, self.epsilon)}
  for (ix n = 0; n < each; n++) {{
    const {c} scale = {k.load(1, at)} * inv;
    const {c} shift = {k.load(2, at)};
    OF_EACH for (ix j = 0; j < size; j++) {k.store(0, "o * row + n * size + j",
                                           f"({x} - mean) * scale + shift")}
  }}
}}"""
        return Code(text, inplace=((0, 0),), turns=outer)


@operator
class ChannelNormalization(Op):
    """The channels of every place normalised: (x - mean) / sqrt(variance + epsilon) over axis 1,
    times input 1 plus input 2, both [channels], either of which may be left out."""

    epsilon: float = 1e-5
    cases: ClassVar = (
        Case((((2, 37, 3, 5), "f32"), ((37,), "f32"), ((37,), "f32"))),
        Case((((1, 3, 70), "f32"), None, ((3,), "f32")), {"epsilon": 0.1}),
        Case((((2, 5, 2, 3, 2), "f16"), ((5,), "f16"))),
        Case((((3, 4), "f64"),)),
        Case((((0, 4, 2), "f32"), ((4,), "f32"), ((4,), "f32"))),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = float_input(n)
        if len(t.shape) < 2:
            raise Refusal(f"{t} has no axis of channels")
        for i in range(1, len(n.inputs)):
            if n.inputs[i] is not None and tensor(n, i).shape != t.shape[1:2]:
                raise Refusal(f"input {i} is {tensor(n, i)}, not {t.shape[1]} numbers")
        return [TensorType(t.shape, t.dtype)]

    def ref(self, n: Node, x: Any, scale: Any = None, bias: Any = None) -> Any:
        wide = x.astype(np.float64)
        y = wide - wide.mean(1, keepdims=True)
        y = y / np.sqrt(wide.var(1, keepdims=True) + self.epsilon)
        shape = (-1, *(1 for _ in x.shape[2:]))
        y = y if scale is None else y * scale.astype(np.float64).reshape(shape)
        y = y if bias is None else y + bias.astype(np.float64).reshape(shape)
        return y.astype(x.dtype)

    def lower(self, k: Lowering) -> Code:
        t = k.y()
        kind, size, channels = t.dtype.compute, k.dim(dims.product(t.shape[2:])), k.dim(t.shape[1])
        c, x = kind.ctype, k.load(0, "p")
        last = f"({x} - mean[j - at]) * inv[j - at]"
        for i, op in ((1, "*"), (2, "+")):
            if k.has(i):
                last += f" {op} ({c}){k.load(i, 'r')}"
        each = f"""for (ix r = 0; r < {channels}; r++)
      OF_EACH for (ix j = at; j < end; j++) {{
        const ix p = (o * {channels} + r) * {size} + j;"""
        text = f"""
{turns("0", k.dim(t.shape[0]))} {{
  for (ix at = 0; at < {size}; at += 64) {{
    const ix end = of_min_ix(at + 64, {size});
    {c} mean[64], inv[64];
    for (ix j = 0; j < 64; j++) mean[j] = inv[j] = 0;
    {each}
        mean[j - at] += {x};
      }}
    for (ix j = 0; j < 64; j++) mean[j] /= ({c}){channels};
    {each}
        inv[j - at] += ({x} - mean[j - at]) * ({x} - mean[j - at]);
      }}
    for (ix j = 0; j < 64; j++)
      inv[j] = 1 / of_sqrt_{kind.name}(inv[j] / ({c}){channels} + ({c}){float(self.epsilon)!r});
    {each}
        {k.store(0, "p", last)}
      }}
  }}
}}"""
        return Code(text, inplace=((0, 0),), turns=k.dim(t.shape[0]))


@operator
class LRN(Op):
    """x / (bias + alpha / size * sum of squares over `size` channels around)^beta."""

    size: int = 1
    alpha: float = 0.0001
    beta: float = 0.75
    bias: float = 1.0
    onnx: ClassVar = ("LRN",)
    cases: ClassVar = (
        Case((((2, 7, 3, 3), "f32"),), {"size": 3}),
        Case((((2, 4, 3), "f32"),), {"size": 4, "alpha": 0.5, "beta": 0.5, "bias": 2.0}),
        Case((((1, 3), "f64"),), {"size": 9, "alpha": 1.0}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = float_input(n)
        if len(t.shape) < 2 or self.size < 1:
            raise Refusal(f"windows of {self.size} channels of {t} are not defined")
        return [TensorType(t.shape, t.dtype)]

    def _before(self) -> int:
        return (self.size - 1) // 2

    def ref(self, n: Node, x: Any) -> Any:
        wide = x.astype(np.float64)
        total = np.zeros_like(wide)
        for c in range(x.shape[1]):
            low = max(c - self._before(), 0)
            window = wide[:, low : c - self._before() + self.size]
            total[:, c] = (window**2).sum(1)
        return (wide / (self.bias + self.alpha / self.size * total) ** self.beta).astype(x.dtype)

    def lower(self, k: Lowering) -> TensorExpr:
        x = k.x(0)
        channels = x.shape[1]

        def element(*i: Dim) -> Scalar:
            def square(r: Dim) -> Scalar:
                c = i[1] + r - self._before()
                v = x(i[0], c, *i[2:])
                return scalar.where(Inside(c, 0, channels), v * v, 0)

            total = scalar.reduce("sum", [self.size], square)
            base = total * (self.alpha / self.size) + self.bias
            return x(*i) / scalar.call("pow", base, self.beta)

        return k.map(element)
