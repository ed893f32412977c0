"""Borders of a Pad that the operator behind it can make itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onefold.ir.graph import Builder, Node, Value
from onefold.ops.activation import HardSigmoid, Relu, Sigmoid
from onefold.ops.conv import Conv
from onefold.ops.elementwise import Clip
from onefold.ops.movement import Transpose
from onefold.ops.pad import Pad
from onefold.ops.pool import AveragePool, MaxPool
from onefold.ops.quant_conv import QuantConv2D, QuantDepthwiseConv2D
from onefold.passes.algebra import limits
from onefold.passes.match import number, op_of, producer
from onefold.passes.rewrite import Patch, Scope, rewrite

Border = tuple[tuple[int, ...], tuple[int, ...]]  # before and after each spatial axis


@dataclass(frozen=True)
class Margin:
    """A Pad in front of a node, perhaps behind a transpose: `add` elements of `value` before and
    after each spatial axis of the node's input."""

    nodes: tuple[Node, ...]
    perm: tuple[int, ...]
    add: Border
    value: float

    @property
    def pad(self) -> Node:
        return self.nodes[0]

    def inside(self, b: Builder) -> Value:
        """The node's input without the margin."""
        x = self.pad.arg(0)
        return b.op(Transpose(self.perm), x) if len(self.nodes) > 1 else x


def margin(n: Node, first: int, last: int) -> Margin | None:
    """The margin of input 0, where it lies on the axes first..last only."""
    turn = producer(n.arg(0), Transpose)
    pad = producer(n.arg(0) if turn is None else turn.arg(0), Pad)
    if pad is None:
        return None
    op, value = op_of(pad, Pad), number(pad.input(1))
    if op.mode != "constant" or value is None:
        return None
    perm = tuple(range(len(op.before))) if turn is None else op_of(turn, Transpose).perm
    before, after = [], []
    for k, a in enumerate(perm):
        p, q = op.before[a], op.after[a]
        if not isinstance(p, int) or not isinstance(q, int) or p < 0 or q < 0:
            return None
        if first <= k < last:
            before.append(p)
            after.append(q)
        elif p or q:
            return None
    return Margin((pad,) if turn is None else (pad, turn), perm, (tuple(before), tuple(after)),
                  value)  # fmt: skip


def widened(pads: tuple[object, ...], add: Border) -> tuple[int, ...] | None:
    """The operator's own pads (begins, ends; empty for none) and the border together."""
    rank = len(add[0])
    own = pads or (0,) * (2 * rank)
    if len(own) != 2 * rank:
        return None
    out = []
    for p, q in zip(own, (*add[0], *add[1]), strict=True):
        if not isinstance(p, int):
            return None
        out.append(p + q)
    return tuple(out)


@rewrite("pad-into-conv", Conv)
def pad_into_conv(n: Node, see: Scope) -> Patch | None:
    """A border of zeros is what a convolution's own padding is."""
    m, op = margin(n, 2, len(n.arg(0).shape)), op_of(n, Conv)
    pads = None if m is None else widened(op.pads, m.add)
    if m is None or pads is None or m.value != 0:
        return None
    new = replace(op, pads=pads)
    return Patch((n, *m.nodes), lambda b: [b.op(new, m.inside(b), *n.inputs[1:])])


@rewrite("pad-into-integer-conv", QuantConv2D, QuantDepthwiseConv2D)
def pad_into_integer_conv(n: Node, see: Scope) -> Patch | None:
    """The same for channels-last integers, where the border is the zero point."""
    assert isinstance(n.op, (QuantConv2D, QuantDepthwiseConv2D))
    m, op = margin(n, 1, 3), n.op
    pads = None if m is None else widened(op.pads, m.add)
    if m is None or pads is None or m.value != op.zero_x:
        return None
    top, left, bottom, right = pads
    new = replace(op, pads=(top, left, bottom, right))
    kinds = [n.outputs[0].type]
    return Patch((n, *m.nodes), lambda b: [
        b.op(new, m.inside(b), *n.inputs[1:], types=kinds)
    ])  # fmt: skip


@rewrite("pad-into-average", AveragePool)
def pad_into_average(n: Node, see: Scope) -> Patch | None:
    """Zeros that count in the mean: padding that is included in the count."""
    m, op = margin(n, 2, len(n.arg(0).shape)), op_of(n, AveragePool)
    pads = None if m is None else widened(op.pads, m.add)
    if m is None or pads is None or m.value != 0 or op.ceil_mode:
        return None
    if any(p != 0 for p in op.pads) and not op.count_include_pad:
        return None
    new = replace(op, pads=pads, count_include_pad=True)
    return Patch((n, *m.nodes), lambda b: [b.op(new, m.inside(b))])


@rewrite("pad-into-max", MaxPool)
def pad_into_max(n: Node, see: Scope) -> Patch | None:
    """A border that can never be larger than what every window sees besides it."""
    m, op = margin(n, 2, len(n.arg(0).shape)), op_of(n, MaxPool)
    pads = None if m is None else widened(op.pads, m.add)
    if m is None or pads is None or op.indices or op.ceil_mode:
        return None
    if any(d != 1 for d in op.dilations) or not _reached(op.kernel_shape, pads):
        return None
    if m.value != -np.inf and not (m.value == 0 and _not_negative(m.pad)):
        return None
    new = replace(op, pads=pads)
    return Patch((n, *m.nodes), lambda b: [b.op(new, m.inside(b))])


def _reached(kernel: tuple[object, ...], pads: tuple[int, ...]) -> bool:
    """Whether every window that begins or ends in the padding also covers an element."""
    return all(
        isinstance(k, int) and p < k for k, p in zip((*kernel, *kernel), pads, strict=True)
    )


def _not_negative(pad: Node) -> bool:
    source = producer(pad.arg(0), Relu, Clip, Sigmoid, HardSigmoid)
    if source is None:
        return False
    if isinstance(source.op, (Sigmoid, HardSigmoid)):
        return True
    found = limits(source)
    return found is not None and found[0] >= 0


RULES = (pad_into_conv, pad_into_integer_conv, pad_into_average, pad_into_max)
