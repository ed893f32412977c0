"""Random tensors by a counter: an element is a function of seed, stream and position.

The generator is Philox 4x32-10 (see kernels/of_random.h). The stream is a counter that lives in
the program's state and advances with every call, so calls differ and a reset repeats them; inside
the bodies of control flow, where there is no state, it stays 0. A node's seed is its attribute's
bits, or a number of its own where it has none.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.dtypes import DType
from onefold.ir.graph import Array, Builder, Node, State, Value
from onefold.ir.scalar import Scalar, TensorExpr
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Code, Lowering, Op, Refusal, operator
from onefold.ops.elementwise import Add, tensor
from onefold.ops.formats import OnnxNode
from onefold.ops.logic import GreaterOrEqual

MASK = np.uint64(0xFFFFFFFF)


def philox(position: Array, stream: int, seed: int) -> list[Array]:
    """Four 32-bit words (as uint64) for every position."""
    p = position.astype(np.uint64)
    a, b = p & MASK, p >> np.uint64(32)
    c, d = (np.full(p.shape, (stream >> s) & 0xFFFFFFFF, np.uint64) for s in (0, 32))
    k, q = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(10):
        left, right = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, b = (right >> np.uint64(32)) ^ b ^ np.uint64(k), right & MASK
        c, d = (left >> np.uint64(32)) ^ d ^ np.uint64(q), left & MASK
        k, q = (k + 0x9E3779B9) & 0xFFFFFFFF, (q + 0xBB67AE85) & 0xFFFFFFFF
    return [a, b, c, d]


def _unit(high: Array, low: Array) -> Array:
    bits = (high << np.uint64(21)) ^ (low >> np.uint64(11))
    out: Array = bits.astype(np.float64) * 2.0**-53
    return out


def uniform(position: Array, stream: int, seed: int) -> Array:
    """Float64 numbers in [0, 1)."""
    r = philox(position, stream, seed)
    return _unit(r[0], r[1])


def normal(position: Array, stream: int, seed: int) -> Array:
    """Float64 numbers of mean 0 and variance 1 (Box and Muller)."""
    r = philox(position, stream, seed)
    u, v = 1 - _unit(r[0], r[1]), _unit(r[2], r[3])
    out: Array = np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v)
    return out


def seed_of(n: OnnxNode) -> int:
    """The node's seed as 64 bits."""
    given = n.attr("seed")
    if given is None:
        return zlib.crc32("/".join(n.output_names).encode()) | 1 << 32
    return int(struct.unpack("<Q", struct.pack("<d", float(given)))[0]) >> 1


def stream_of(n: OnnxNode, b: Builder) -> Value:
    """A counter that advances with every call; a constant inside bodies."""
    if n.importer is None or b.graph is not n.importer.graph:
        return b.const(np.zeros((), np.int64), name="stream")
    v = Value(b.name("stream"), TensorType((), dtypes.i64))
    after = b.op(Add(), v, b.const(np.ones((), np.int64)))
    b.graph.states.append(State(v.name, v, after))
    return v


@operator
class RandomUniform(Op):
    """Numbers in [low, high) in the shape of input 0 or the shape given; input 1 is the stream.

    With `gauss`, of mean `low` and standard deviation `high`.
    """

    shape: tuple[int, ...] | None = None
    to: DType = dtypes.f32
    low: float = 0.0
    high: float = 1.0
    gauss: bool = False
    seed: int = 0
    pure: ClassVar = False
    cases: ClassVar = (
        Case((None, np.array(0)), {"shape": (3, 4), "seed": 7}),
        Case((((5, 3), "f32"), np.array(1)), {"low": -1.0, "high": 2.0, "to": dtypes.f64}),
        Case((None, np.array(3)), {"shape": (2, 9), "gauss": True, "high": 2.0, "seed": 1 << 40}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        if not (self.to.is_float and self.to.bits >= 16):
            raise Refusal(f"random numbers of type {self.to.long} are not defined")
        if self.shape is not None and any(d < 0 for d in self.shape):
            raise Refusal(f"the shape {self.shape} has a negative size")
        shape = tensor(n, 0).shape if self.shape is None else self.shape
        return [TensorType(tuple(shape), self.to)]

    def ref(self, n: Node, x: Any, stream: Any) -> Any:
        shape = x.shape if self.shape is None else self.shape
        at = np.arange(int(np.prod(shape)), dtype=np.uint64).reshape(shape)
        draw = normal if self.gauss else uniform
        r = draw(at, int(stream), self.seed)
        scale = self.high if self.gauss else self.high - self.low
        return (r * scale + self.low).astype(self.to.numpy)

    def lower(self, k: Lowering) -> TensorExpr:
        shape = k.y().shape
        scale = self.high if self.gauss else self.high - self.low
        fn = "random_normal" if self.gauss else "random_uniform"

        def element(*i: Dim) -> Scalar:
            at = scalar.Index(dims.linear(i, shape))
            r = scalar.call(fn, at, k.x(1)(), self.seed, dtype=dtypes.f64)
            return scalar.cast(r * scale + self.low, self.to.compute)

        return k.map(element)


def dropout_mask(n: OnnxNode, b: Builder, x: Value, ratio: float) -> Value:
    """True with the probability 1 - ratio, in the shape of x."""
    draw = RandomUniform(None, dtypes.f32, seed=seed_of(n))
    r = b.op(draw, x, stream_of(n, b))
    return b.op(GreaterOrEqual(), r, b.const(ratio, dtypes.f32))


@operator
class Multinomial(Op):
    """Indices of classes, drawn `sample_size` times from rows of unnormalised log-probabilities.

    Input 1 is the stream. A draw is the first class whose cumulative probability exceeds it.
    """

    sample_size: int = 1
    to: DType = dtypes.i32
    seed: int = 0
    pure: ClassVar = False
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((3, 4), "f32"), np.array(0)), {"sample_size": 20}),
        Case((((1, 7), "f64"), np.array(5)), {"sample_size": 3, "to": dtypes.i64, "seed": 9}),
        Case((((2, 1), "f16"), np.array(5))),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = tensor(n, 0)
        if len(t.shape) != 2 or not t.dtype.is_float or self.to not in (dtypes.i32, dtypes.i64):
            raise Refusal(f"Multinomial of {t} to {self.to.long} is not defined")
        if self.sample_size < 1 or t.shape[1] == 0:
            raise Refusal("Multinomial needs a class and a draw at least")
        return [TensorType((t.shape[0], self.sample_size), self.to)]

    def ref(self, n: Node, x: Any, stream: Any) -> Any:
        wide = x.astype(np.float64)
        with np.errstate(all="ignore"):
            p = np.cumsum(np.exp(wide - wide.max(axis=1, keepdims=True)), axis=1)
        at = np.arange(x.shape[0] * self.sample_size, dtype=np.uint64)
        r = uniform(at, int(stream), self.seed).reshape(x.shape[0], self.sample_size)
        below = (p[:, None, :] <= (r * p[:, -1:])[:, :, None]).sum(axis=2)
        return np.minimum(below, x.shape[1] - 1).astype(self.to.numpy)

    def lower(self, k: Lowering) -> Code:
        rows, classes = (k.dim(d) for d in k.x(0).shape)
        x = k.load(0, f"r * {classes} + c")
        return Code(f"""
for (ix r = 0; r < {rows}; r++) {{
  double top = -OF_INF_F64, sum = 0;
  for (ix c = 0; c < {classes}; c++) top = of_max_f64(top, {x});
  for (ix c = 0; c < {classes}; c++) sum += of_exp_f64((double){x} - top);
  for (ix j = 0; j < {self.sample_size}; j++) {{
    const ix at = r * {self.sample_size} + j;
    const double u = of_random_uniform_i64(at, x1[0], INT64_C({self.seed})) * sum;
    double below = 0;
    ix c = 0;
    for (; c < {classes} - 1; c++) {{
      below += of_exp_f64((double){x} - top);
      if (u < below) break;
    }}
    y0[at] = c;
  }}
}}""")
