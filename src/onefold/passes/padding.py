"""Borders of a Pad that the operator behind it can make itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onefold.ir.graph import Node
from onefold.ops.activation import HardSigmoid, Relu, Sigmoid
from onefold.ops.conv import Conv
from onefold.ops.elementwise import Clip
from onefold.ops.pad import Pad
from onefold.ops.pool import AveragePool, MaxPool
from onefold.ops.quant_conv import QuantConv2D, QuantDepthwiseConv2D
from onefold.passes.algebra import limits
from onefold.passes.match import number, op_of, producer
from onefold.passes.rewrite import Patch, Scope, rewrite

Border = tuple[tuple[int, ...], tuple[int, ...]]  # before and after each spatial axis


def border(n: Node, first: int, last: int) -> tuple[Node, Border, float] | None:
    """The Pad in front of a node, its border on axes first..last only, and its value."""
    pad = producer(n.arg(0), Pad)
    if pad is None:
        return None
    op, value = op_of(pad, Pad), number(pad.input(1))
    if op.mode != "constant" or value is None:
        return None
    before, after = [], []
    for k, (p, q) in enumerate(zip(op.before, op.after, strict=True)):
        if not isinstance(p, int) or not isinstance(q, int) or p < 0 or q < 0:
            return None
        if first <= k < last:
            before.append(p)
            after.append(q)
        elif p or q:
            return None
    return pad, (tuple(before), tuple(after)), value


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
    found = border(n, 2, len(n.arg(0).shape))
    op = op_of(n, Conv)
    pads = None if found is None else widened(op.pads, found[1])
    if found is None or pads is None or found[2] != 0:
        return None
    pad = found[0]
    return Patch(
        (n, pad), lambda b: [b.op(replace(op, pads=pads), pad.arg(0), *n.inputs[1:])]
    )


@rewrite("pad-into-integer-conv", QuantConv2D, QuantDepthwiseConv2D)
def pad_into_integer_conv(n: Node, see: Scope) -> Patch | None:
    """The same for channels-last integers, where the border is the zero point."""
    assert isinstance(n.op, (QuantConv2D, QuantDepthwiseConv2D))
    op = n.op
    found = border(n, 1, 3)
    pads = None if found is None else widened(op.pads, found[1])
    if found is None or pads is None or found[2] != op.zero_x:
        return None
    pad = found[0]
    top, left, bottom, right = pads
    new = replace(op, pads=(top, left, bottom, right))
    return Patch((n, pad), lambda b: [
        b.op(new, pad.arg(0), *n.inputs[1:], types=[n.outputs[0].type])
    ])  # fmt: skip


@rewrite("pad-into-average", AveragePool)
def pad_into_average(n: Node, see: Scope) -> Patch | None:
    """Zeros that count in the mean: padding that is included in the count."""
    op = op_of(n, AveragePool)
    found = border(n, 2, len(n.arg(0).shape))
    pads = None if found is None else widened(op.pads, found[1])
    if found is None or pads is None or found[2] != 0 or op.ceil_mode:
        return None
    if any(p != 0 for p in op.pads) and not op.count_include_pad:
        return None
    pad = found[0]
    new = replace(op, pads=pads, count_include_pad=True)
    return Patch((n, pad), lambda b: [b.op(new, pad.arg(0))])


@rewrite("pad-into-max", MaxPool)
def pad_into_max(n: Node, see: Scope) -> Patch | None:
    """A border that can never be larger than what every window sees besides it."""
    op = op_of(n, MaxPool)
    found = border(n, 2, len(n.arg(0).shape))
    pads = None if found is None else widened(op.pads, found[1])
    if found is None or pads is None or op.indices or op.ceil_mode:
        return None
    pad, _, value = found
    if any(d != 1 for d in op.dilations) or not _reached(op.kernel_shape, pads):
        return None
    if value != -np.inf and not (value == 0 and _not_negative(pad)):
        return None
    return Patch((n, pad), lambda b: [b.op(replace(op, pads=pads), pad.arg(0))])


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
