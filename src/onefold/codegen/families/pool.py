"""Largest elements and means over windows of channel blocks as wide as a vector."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from onefold.codegen.families.conv import planar, size
from onefold.codegen.families.depthwise import Windows, widths
from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.tiles import Machine, Run, Tile, end_cycles, f32_machine, lane_check, runs_of
from onefold.ir import dims
from onefold.ir.dims import Dim
from onefold.ir.graph import Node
from onefold.ops.pool import AveragePool, MaxPool
from onefold.ops.window import Axis
from onefold.options import Options
from onefold.target import Target

WIDEST = 15  # columns of a window that are unrolled
FEWEST = 4  # columns of a result whose sums hide the latency of each other's
TAP = {"MaxPool": 2.0, "AveragePool": 0.5}  # cycles of an element of a window


class Pooling(Family):
    """One vector of channels times T columns (of_pool.h)."""

    name = "pool"
    ops = ("MaxPool", "AveragePool")
    blocks = True

    def match(self, node: Node, target: Target, options: Options) -> list[Choice] | str:
        op, x = node.op, node.arg(0)
        m = f32_machine(target, x.dtype)
        if isinstance(m, str):
            return m
        if x.tensor.layout != m.lanes:
            return "its input is not in channel blocks"
        if len(x.shape) not in (3, 4):
            return f"it has {len(x.shape) - 2} spatial axes"
        assert isinstance(op, (MaxPool, AveragePool))
        if isinstance(op, MaxPool) and op.indices:
            return "it gives the places of the largest elements"
        axes = op.axes(x.shape)
        if not all(isinstance(d, int) for a in axes for d in (a.size, a.kernel, a.begin, a.out)):
            return "its sizes are open"
        if isinstance(op, AveragePool) and op.count_include_pad and op.ceil_mode:
            return "windows that reach beyond the padding count less of it"
        if size(planar(axes)[1].kernel) > WIDEST:
            return "its window is too wide to be unrolled"
        if size(planar(axes)[1].out) < FEWEST:
            return "its result has too few columns for a tile"
        return _Pool(node, m, axes).choices()


class _Pool(Windows):
    def __init__(self, node: Node, m: Machine, axes: Sequence[Axis]) -> None:
        super().__init__(node, m, axes)
        op = node.op
        self.largest = isinstance(op, MaxPool)
        all_count = isinstance(op, AveragePool) and (
            op.count_include_pad or not any(a.guarded for a in axes)
        )
        self.counted = self.sums.per_output if all_count else 0

    def choices(self) -> list[Choice]:
        most = self.m.registers * 2 // 3
        return [self._choice(w) for w in widths(self.columns, most)]

    def _choice(self, width: int) -> Choice:
        return Choice(
            f"pool_{width}", self.node, (self.node.arg(0),), lambda: (),
            partial(self.render, Tile(width, 1)), lambda s: True, ("of_pool.h",),
            cost=self._cost(width), narrow=True,
        )  # fmt: skip

    def _cost(self, width: int) -> float:
        total = 0.0
        for r in runs_of(self.columns, width):
            taps = max(r.width * TAP[self.node.op.name], 2) * self.sums.per_output
            total += dims.upper(r.count) * (taps + end_cycles(r.width))
        blocks = -(-self.channels // self.m.lanes)
        return total * self.rows * blocks * dims.upper(self.node.arg(0).shape[0])

    def render(self, tile: Tile, r: Rendering) -> str:
        kind = self.node.arg(0).tensor.memory
        largest = "true" if self.largest else "false"

        def call(vectors: int, run: Run, n: Dim, block: Dim, row: Dim, column: Dim) -> str:
            return (
                f"of_pool_tile_{kind}(k, {largest}, {self.counted}, {run.width}, {int(run.edge)}, "
                f"{r.dim(row)}, {r.dim(column)}, {self.source(r, n, block)}, acc);"
            )

        fields = ", ".join(r.dim(p) for p in self.fields)
        head = [lane_check(self.m.lanes), f"const struct of_window k = {{{fields}}};"]
        return self.body(tile, r, call, head)
