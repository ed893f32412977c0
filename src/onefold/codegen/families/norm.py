"""Normalisation of the channels of every place, read from channel blocks."""

from __future__ import annotations

import numpy as np

from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.loops import padded_channels
from onefold.codegen.sums import pack_bias
from onefold.codegen.text import braced, loop, loop_over
from onefold.codegen.tiles import (
    Group,
    Machine,
    f32_machine,
    groups_of,
    lane_check,
    padded,
    runs_of,
)
from onefold.codegen.tiling import Held, stored
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Array, Node
from onefold.ir.scalar import counter, index_of
from onefold.ops.normalize import ChannelNormalization
from onefold.options import Options
from onefold.target import Target

PLACES = 8  # at a time


class Norm(Family):
    """Mean and variance of some places in registers, one vector each (of_norm.h)."""

    name = "norm"
    ops = ("ChannelNormalization",)
    blocks = True

    def match(self, node: Node, target: Target, options: Options) -> Choice | str:
        m = f32_machine(target)
        if isinstance(m, str):
            return m
        why = refused(node)
        if why:
            return why
        if node.arg(0).tensor.layout != m.lanes:
            return "its input is not in channel blocks"
        return _Norm(node, m).choice()


def refused(node: Node) -> str:
    """Why the kernel does not take a node, wherever its input lies; empty where it does."""
    x = node.arg(0)
    if x.dtype is not dtypes.f32:
        return f"it computes in {x.dtype}, not f32"
    if not dims.is_static(x.shape[1:]) or 0 in x.shape:
        return "its input has open sizes or is empty"
    if any(v is not None and v.data is None for v in node.inputs[1:]):
        return "its scale and shift are not constant"
    return ""


class _Norm:
    def __init__(self, node: Node, m: Machine) -> None:
        op, x = node.op, node.arg(0)
        assert isinstance(op, ChannelNormalization)
        self.node, self.lanes, self.epsilon = node, m.lanes, op.epsilon
        self.batches, channels, *self.places = x.shape
        assert isinstance(channels, int)
        self.channels = channels
        self.size = dims.upper(dims.product(self.places))

    def choice(self) -> Choice:
        blocks = -(-self.channels // self.lanes)
        cost = float(dims.upper(self.batches) * self.size * (3 * blocks + 12))
        return Choice(
            "norm", self.node, (self.node.arg(0),), self.packed, self.render, lambda s: True,
            ("of_norm.h",), cost=cost, narrow=True,
        )  # fmt: skip

    def packed(self) -> tuple[Array, ...]:
        scale = self.node.const(1)
        scale = np.ones(self.channels, np.float32) if scale is None else scale
        used = np.arange(padded(self.channels, self.lanes)) < self.channels
        return (
            pack_bias(scale, self.channels, self.lanes),
            pack_bias(self.node.const(2), self.channels, self.lanes),
            used[-self.lanes :].astype(np.float32),
        )

    def render(self, r: Rendering) -> str:
        x, *_, used = r.pointers
        lanes, size = self.lanes, self.size
        blocks = -(-self.channels // lanes)
        kind = self.node.arg(0).tensor.memory
        n = counter(self.batches, "i")
        whole = dims.mul(index_of(n), dims.mul(padded_channels(self.node.arg(0).tensor), size))
        shares = r.team.parts > 1
        lines: list[str] = []
        for run in runs_of(size, PLACES):
            t = counter(run.count, "i")
            column = dims.add(dims.mul(index_of(t), run.width), run.first)
            source = f"{x} + {r.dim(dims.add(whole, dims.mul(column, lanes)))}"
            body = [
                f"float mean[{run.width}], inv[{run.width}];",
                f"of_norm_moments_{kind}(k, {run.width}, {source}, {used}, mean, inv);",
            ]
            for g in groups_of(self.channels, lanes, 1):
                body += self._group(r, g, source, (index_of(n), column), run.width)
            if shares:
                ends = [
                    f"of_tiles({e}, {run.first}, {run.width}, {run.count})" for e in ("from", "to")
                ]
                lines += loop(t.name, ends[1], body, ends[0])
            else:
                lines += braced(loop_over(t, r.dim, body))
        lines = loop_over(n, r.dim, lines)
        numbers = f"{float(self.channels)!r}f, {float(self.epsilon).hex()}f"
        return "\n".join([
            lane_check(lanes),
            f"const struct of_norm k = {{{blocks}, {size * lanes}, {numbers}}};",
            *([r.team.bounds(str(size))] if shares else []), *lines,
        ])  # fmt: skip

    def _group(
        self, r: Rendering, g: Group, source: str, at: tuple[Dim, Dim], width: int
    ) -> list[str]:
        """The blocks of a group, for some places; at: batch and first place."""
        _, scale, shift, _ = r.pointers
        kind, lanes = self.node.arg(0).tensor.memory, self.lanes
        b = counter(g.count, "i")
        block = dims.add(index_of(b), g.first)
        channel = r.dim(dims.mul(block, lanes))
        body = [
            f"float acc[{width * lanes}] __attribute__((aligned(64)));",
            f"of_norm_tile_{kind}({width}, {source} + {r.dim(block)} * k.next, mean, inv, "
            f"{scale} + {channel}, {shift} + {channel}, acc);",
            *stored(r, lanes, self.index, g, (at[0], block, 0, at[1]), Held("acc", width, width)),
        ]
        return braced(loop_over(b, r.dim, body))

    def index(self, n: Dim, c: Dim, y: Dim, x: Dim) -> tuple[Dim, ...]:
        return (n, c, *dims.unravel(x, tuple(self.places)))
