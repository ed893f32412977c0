"""Pooling over windows of x [N, C, *spatial] -> [N, C, *out]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes, scalar
from onefold.ir.dims import Dim
from onefold.ir.dtypes import DType
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.scalar import Index, Scalar
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Code, Lowered, Lowering, Op, Refusal, need_dims, operator
from onefold.ops.conv import wide
from onefold.ops.formats import OnnxNode
from onefold.ops.window import Axis, all_of, check_axes, patches, spatial, window_of

Dims = tuple[Dim, ...]


class Pool(Op):
    """Windows kernel_shape; strides and dilations empty means 1, pads (begins, ends) empty 0."""

    kernel_shape: Dims = ()
    strides: tuple[int, ...] = ()
    pads: Dims = ()
    dilations: tuple[int, ...] = ()
    ceil_mode: bool = False

    def axes(self, x: Dims) -> list[Axis]:
        rank = len(x) - 2
        kernel = spatial(self.kernel_shape, rank, 1, "kernel_shape")
        strides = spatial(self.strides, rank, 1, "strides")
        dilations = spatial(self.dilations, rank, 1, "dilations")
        pads = self.pads or (0,) * (2 * rank)
        if len(pads) != 2 * rank:
            raise Refusal(f"pads has {len(pads)} entries for {rank} spatial axes")
        return [
            Axis(x[2 + k], kernel[k], strides[k], dilations[k], pads[k], pads[rank + k],
                 self.ceil_mode)
            for k in range(rank)
        ]  # fmt: skip

    def shape_of(self, n: Node) -> Dims:
        x = n.arg(0).shape
        if len(x) < 3:
            raise Refusal(f"{self.name} of rank {len(x)}; at least 3 is needed")
        axes = self.axes(x)
        check_axes(axes, self.name)
        return (x[0], x[1], *(a.out for a in axes))

    def infer(self, n: Node) -> Sequence[TensorType]:
        if n.arg(0).dtype.kind in ("complex", "string", "bool"):
            raise Refusal(f"{self.name} of {n.arg(0).dtype}")
        return [TensorType(self.shape_of(n), n.arg(0).dtype, n.arg(0).quant)]

    def work(self, n: Node) -> int:
        axes = self.axes(n.arg(0).shape)
        return dims.upper(dims.product([*self.shape_of(n), *(a.kernel for a in axes)])) * 16

    def over(
        self, k: Lowering, index: Sequence[Dim], kind: str, body: Callable[[Scalar], Scalar],
        outside: float | int,
    ) -> Scalar:  # fmt: skip
        """The reduction of body(element) over the window at an index of the result."""
        x = k.x(0)
        axes = self.axes(x.shape)

        def term(*r: Dim) -> Scalar:
            at = [a.at(o, i) for a, o, i in zip(axes, index[2:], r, strict=True)]
            inside = all_of([a.inside(p) for a, p in zip(axes, at, strict=True)])
            value = body(x(index[0], index[1], *at))
            return value if inside is None else scalar.where(inside, value, outside)

        return scalar.reduce(kind, [a.kernel for a in axes], term)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        x = n.arg(0)
        if len(x.shape) < 3:
            raise Refusal(f"{n.op_type} of rank {len(x.shape)}; at least 3 is needed")
        w = window_of(n, x.shape[2:], ())
        fields = n.fields(cls) | {
            "kernel_shape": w.kernel, "strides": w.strides, "pads": w.pads,
            "dilations": w.dilations,
        }  # fmt: skip
        if n.attr("auto_pad", "NOTSET") not in ("NOTSET", ""):
            fields["ceil_mode"] = False
        return b.ops(cls(**fields), x, name=n.output_names)


def lowest(kind: DType) -> float | int:
    return -np.inf if kind.is_float else kind.lo


@operator
class MaxPool(Pool):
    """The largest element of each window; padding never wins. With `indices` a second result [i64]:
    its place in the flattened x, spatial axes counted row by row (storage_order 0) or the first
    one fastest (1)."""

    kernel_shape: Dims = ()
    strides: tuple[int, ...] = ()
    pads: Dims = ()
    dilations: tuple[int, ...] = ()
    ceil_mode: bool = False
    storage_order: int = 0
    indices: bool = False
    onnx: ClassVar = ("MaxPool",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((1, 3, 7, 6), "f32"),), {"kernel_shape": (3, 2), "strides": (2, 2)}),
        Case((((2, 2, 9), "f32"),), {"kernel_shape": (3,), "pads": (1, 1), "dilations": (2,)}),
        Case((((1, 2, 6, 5), "i8"),), {"kernel_shape": (2, 2), "pads": (1, 1, 1, 1)}),
        Case((((1, 2, 7, 7), "f32"),),
             {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": True, "indices": True}),
        Case((((2, 2, 5, 4), "f32"),),
             {"kernel_shape": (2, 3), "pads": (0, 1, 1, 1), "indices": True, "storage_order": 1}),
        Case((((1, 1, 4, 4, 4), "f16"),), {"kernel_shape": (2, 2, 2), "strides": (2, 2, 2)}),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        (y,) = super().infer(n)
        if self.storage_order not in (0, 1):
            raise Refusal(f"MaxPool has storage_order {self.storage_order}")
        return [y, TensorType(y.shape, dtypes.i64)] if self.indices else [y]

    def ref(self, n: Node, x: Any) -> Any:
        axes = self.axes(x.shape)
        rank = len(axes)
        low = lowest(dtypes.of(x.dtype))
        p = patches(x, axes, np.array(low).astype(x.dtype))
        flat = p.reshape(*p.shape[: 2 + rank], -1)
        best = np.argmax(flat, axis=-1)
        y = np.take_along_axis(flat, best[..., None], -1)[..., 0]
        if not self.indices:
            return y
        place = np.arange(int(np.prod(x.shape[2:], initial=1)))
        place = place.reshape(x.shape[2:], order="F" if self.storage_order else "C")
        q = patches(np.broadcast_to(place, x.shape), axes, 0).reshape(flat.shape)
        plane = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * rank) * place.size
        return y, (np.take_along_axis(q, best[..., None], -1)[..., 0] + plane).astype(np.int64)

    def lower(self, k: Lowering) -> Lowered:
        if self.indices:
            return self._code(k)
        low = lowest(k.x(0).dtype)
        return k.map(lambda *i: self.over(k, i, "max", lambda v: v, low))

    def _code(self, k: Lowering) -> Code:
        """Loops over the windows of each plane; the first of equal elements wins."""
        x, y = k.x(0), k.y(0)
        axes = self.axes(x.shape)
        kind = x.dtype.compute
        plane = k.dim(dims.product(x.shape[2:]))
        lines = [f"for (ix p = 0; p < {k.dim(dims.mul(x.shape[0], x.shape[1]))}; p++) {{"]
        for j, o in enumerate(y.shape[2:]):
            lines.append(f"for (ix o{j} = 0; o{j} < {k.dim(o)}; o{j}++) {{")
        lines.append(f"{kind.ctype} best = 0; ix where = -1;")
        for j, a in enumerate(axes):
            lines.append(f"for (ix r{j} = 0; r{j} < {k.dim(a.kernel)}; r{j}++) {{")
            at = f"o{j} * {a.stride} + r{j} * {a.dilation} - {k.dim(a.begin)}"
            lines.append(f"const ix i{j} = {at};")
            if a.guarded:
                lines.append(f"if (i{j} < 0 || i{j} >= {k.dim(a.size)}) continue;")
        inner = _linear([f"i{j}" for j in range(len(axes))], [k.dim(a.size) for a in axes])
        lines.append(f"const {kind.ctype} v = {k.load(0, f'p * {plane} + {inner}')};")
        number = inner
        if self.storage_order:
            order = list(reversed(range(len(axes))))
            number = _linear([f"i{j}" for j in order], [k.dim(axes[j].size) for j in order])
        lines.append(f"if (where < 0 || v > best) {{ best = v; where = {number}; }}")
        lines += ["}" for _ in axes]
        place = _linear([f"o{j}" for j in range(len(axes))], [k.dim(o) for o in y.shape[2:]])
        out = f"p * {k.dim(dims.product(y.shape[2:]))} + {place}"
        lines += [k.store(0, out, "best"), f"y1[{out}] = where + p * {plane};"]
        lines += ["}" for _ in range(len(axes) + 1)]
        return Code("\n".join(lines))

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        if not n.wants(1):
            return super().from_onnx(n, b)
        attrs = {**n.attrs, "indices": True}
        more = OnnxNode(n.op_type, n.domain, n.opset, n.name, attrs, n.inputs, n.output_names)
        return super().from_onnx(more, b)


def _linear(at: Sequence[str], sizes: Sequence[str]) -> str:
    out = at[0]
    for a, s in zip(at[1:], sizes[1:], strict=True):
        out = f"({out}) * {s} + {a}"
    return f"({out})"


@operator
class AveragePool(Pool):
    """The mean of each window; elements in the padding count in the divisor on demand."""

    kernel_shape: Dims = ()
    strides: tuple[int, ...] = ()
    pads: Dims = ()
    dilations: tuple[int, ...] = ()
    ceil_mode: bool = False
    count_include_pad: bool = False
    onnx: ClassVar = ("AveragePool",)
    cases: ClassVar = (
        Case((((1, 3, 7, 6), "f32"),), {"kernel_shape": (3, 2), "strides": (2, 2)}),
        Case((((2, 2, 9), "f32"),), {"kernel_shape": (3,), "pads": (1, 2), "dilations": (2,)}),
        Case((((1, 2, 6, 5), "f32"),),
             {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "count_include_pad": True,
              "strides": (2, 2), "ceil_mode": True}),
        Case((((1, 2, 7, 7), "f32"),),
             {"kernel_shape": (3, 3), "strides": (3, 2), "ceil_mode": True}),
        Case((((1, 2, 5, 5), "f16"),), {"kernel_shape": (5, 5)}),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        if not n.arg(0).dtype.is_float:
            raise Refusal(f"AveragePool of {n.arg(0).dtype}")
        return super().infer(n)

    def ref(self, n: Node, x: Any) -> Any:
        axes = self.axes(x.shape)
        rank = len(axes)
        over = tuple(range(2 + rank, 2 + 2 * rank))
        total = patches(wide(x), axes, 0.0).sum(over)
        ones = np.ones((1, 1, *x.shape[2:]))
        counted = axes
        if self.count_include_pad:
            widths = [(0, 0), (0, 0)] + [(int(str(a.begin)), int(str(a.end))) for a in axes]
            ones = np.pad(ones, widths, constant_values=1.0)
            counted = [
                Axis(s, a.kernel, a.stride, a.dilation, 0, 0, True)
                for s, a in zip(ones.shape[2:], axes, strict=True)
            ]
        count = patches(ones, counted, 0.0, outs=total.shape[2:]).sum(over)
        with np.errstate(all="ignore"):
            return (total / count).astype(x.dtype)

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        axes = self.axes(k.x(0).shape)
        kind = k.x(0).dtype.compute

        def element(*i: Dim) -> Scalar:
            total = self.over(k, i, "sum", lambda v: v, 0)
            count: Dim = 1
            for a, o in zip(axes, i[2:], strict=True):
                count = dims.mul(count, self._count(a, o))
            if isinstance(count, int):
                return total / count if count != 1 else total
            return total / scalar.cast(Index(count), kind)

        return k.map(element)

    def _count(self, a: Axis, o: Dim) -> Dim:
        if not a.guarded or (self.count_include_pad and not (a.ceil and a.stride > 1)):
            return a.kernel
        if self.count_include_pad:
            return a.count(o, dims.mul(a.begin, -1), dims.add(a.size, a.end))
        return a.count(o, 0, a.size)


@operator
class LpPool(Pool):
    """(sum |x|^p)^(1/p) of each window; padding counts as zero."""

    kernel_shape: Dims = ()
    strides: tuple[int, ...] = ()
    pads: Dims = ()
    dilations: tuple[int, ...] = ()
    ceil_mode: bool = False
    p: float = 2.0
    onnx: ClassVar = ("LpPool",)
    cases: ClassVar = (
        Case((((1, 3, 7, 6), "f32"),), {"kernel_shape": (3, 2), "strides": (2, 2)}),
        Case((((2, 2, 9), "f32"),), {"kernel_shape": (3,), "pads": (1, 2), "p": 1.0}),
        Case((((1, 2, 5, 5), "f32"),), {"kernel_shape": (2, 2), "p": 3.0, "dilations": (2, 1)}),
    )

    def infer(self, n: Node) -> Sequence[TensorType]:
        if not n.arg(0).dtype.is_float or not self.p > 0:
            raise Refusal(f"LpPool of {n.arg(0).dtype} with p = {self.p}")
        return super().infer(n)

    def ref(self, n: Node, x: Any) -> Any:
        axes = self.axes(x.shape)
        over = tuple(range(2 + len(axes), 2 + 2 * len(axes)))
        with np.errstate(all="ignore"):
            total = (np.abs(patches(wide(x), axes, 0.0)) ** self.p).sum(over)
            return (total ** (1 / self.p)).astype(x.dtype)

    def lower(self, k: Lowering) -> scalar.TensorExpr:
        def power(v: Scalar) -> Scalar:
            if self.p == 2:
                return v * v
            v = scalar.call("abs", v)
            return v if self.p == 1 else scalar.call("pow", v, self.p)

        def element(*i: Dim) -> Scalar:
            total = self.over(k, i, "sum", power, 0)
            if self.p == 1:
                return total
            if self.p == 2:
                return scalar.call("sqrt", total)
            return scalar.call("pow", total, 1 / self.p)

        return k.map(element)


def whole_window(x: Value, what: str) -> Dims:
    """The kernel of a global pool."""
    if len(x.shape) < 3:
        raise Refusal(f"{what} of rank {len(x.shape)}; at least 3 is needed")
    if any(d == 0 for d in x.shape[2:]):
        raise Refusal(f"{what} of an empty window: {list(x.shape)}")
    return x.shape[2:]


@operator
class MaxUnpool(Op):
    """Puts x back at the places that MaxPool's Indices tell, in a tensor of zeros; an output shape
    other than the natural one is a third input (its places are counted in the natural one)."""

    kernel_shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    onnx: ClassVar = ("MaxUnpool",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((((1, 1, 2, 2), "f32"), np.array([[[[5, 7], [13, 15]]]], np.int64)),
             {"kernel_shape": (2, 2), "strides": (2, 2)}),
        Case((((1, 2, 2), "f32"), np.array([[[0, 3], [4, 7]]], np.int64)),
             {"kernel_shape": (2,), "strides": (2,)}),
        Case((((0, 1, 2), "f32"), np.zeros((0, 1, 2), np.int64)),
             {"kernel_shape": (2,), "strides": (2,)}),
    )  # fmt: skip

    def _natural(self, n: Node) -> Dims:
        x = n.arg(0).shape
        rank = len(x) - 2
        kernel = spatial(self.kernel_shape, rank, 1, "kernel_shape")
        strides = spatial(self.strides, rank, 1, "strides")
        pads = self.pads or (0,) * (2 * rank)
        if len(pads) != 2 * rank or min((*kernel, *strides), default=1) < 1:
            raise Refusal("MaxUnpool has bad kernel_shape, strides or pads")
        return (x[0], x[1], *(
            dims.add(dims.mul(dims.add(x[2 + k], -1), strides[k]),
                     kernel[k] - pads[k] - pads[rank + k])
            for k in range(rank)
        ))  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, at = n.arg(0), n.arg(1)
        if len(x.shape) < 3 or at.shape != x.shape or at.dtype is not dtypes.i64:
            raise Refusal(f"MaxUnpool of {x.type} with indices {at.type}")
        shape = self._natural(n)
        if n.input(2) is not None:
            shape = need_dims(n, 2, "output shape")
            if len(shape) != len(x.shape):
                raise Refusal(f"MaxUnpool to a shape of rank {len(shape)} from rank {len(x.shape)}")
        if any(dims.upper(d) < 0 for d in shape):
            raise Refusal(f"MaxUnpool to a shape {list(shape)}")
        return [TensorType(shape, x.dtype)]

    def ref(self, n: Node, x: Any, at: Any, shape: Any = None) -> Any:
        y = np.zeros(n.outputs[0].tensor.ints, x.dtype)
        natural = tuple(int(str(d)) for d in self._natural(n))
        if at.size and (at.min() < 0 or at.max() >= int(np.prod(natural))):
            raise ValueError("an index of MaxUnpool is outside of the result")
        for v, p in zip(x.reshape(-1), at.reshape(-1), strict=True):
            y[np.unravel_index(int(p), natural)] = v
        return y

    def lower(self, k: Lowering) -> Code:
        y, natural = k.y(0), self._natural(k.node)
        text = [
            f"for (ix i = 0; i < {k.dim(y.size)}; i++) y0[i] = 0;",
            f"for (ix i = 0; i < {k.dim(k.x(0).type.size)}; i++) {{",
            "  int64_t p = x1[i];",
            f"  if (p < 0 || p >= {k.dim(dims.product(natural))}) OF_STOP(OF_BAD_INDEX);",
        ]
        if tuple(natural) != tuple(y.shape):
            text.append("  int64_t q = 0, step = 1;")
            for own, out in zip(reversed(natural), reversed(y.shape), strict=True):
                text.append(f"  if (p % {k.dim(own)} >= {k.dim(out)}) OF_STOP(OF_BAD_INDEX);")
                text.append(f"  q += p % {k.dim(own)} * step;")
                text.append(f"  p /= {k.dim(own)}; step *= {k.dim(out)};")
            text.append("  p = q;")
        text += ["  y0[p] = x0[i];", "}"]
        return Code("\n".join(text), stops=True)


