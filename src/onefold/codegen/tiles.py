"""Tiles of sums: what a target gives them, how wide they are, and how they share out columns and
blocks of channels. Nothing here makes loops: those are in tiling.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.dtypes import DType
from onefold.target import Target


@dataclass(frozen=True, slots=True)
class Machine:
    """What a tile may use of a target: lanes of f32, sums worth having, vector registers (less
    those that the compiler wants beside sums, weights and columns)."""

    lanes: int
    sums: int
    registers: int
    latency: int = 8  # sums in flight that hide the latency of a multiply-add
    slowest: int = 8  # the same for all cores of the target, where there is a choice
    taken: int = 1  # elements of a column in a register; 1: none, products read them from memory
    paired: bool = False  # one product for two columns with half a vector of channels

    @staticmethod
    def of(target: Target) -> Machine | None:
        """None where there are no vectors of f32."""
        if target.vector_bytes < 16 or target.arch not in ("x86_64", "aarch64"):
            return None
        if "avx512f" in target.features:
            return Machine(16, 16, 30)
        if "avx2" in target.features:
            return Machine(8, 12, 14, slowest=10)  # Haswell; later ones take four cycles, not five
        if target.arch == "aarch64":
            return Machine(4, 18, 28, taken=4)
        return Machine(4, 12, 14)

    def widest(self, vectors: int) -> int:
        """Columns of a tile of so many vectors that fit into the registers."""
        room = self.registers - vectors
        if self.paired:
            both = min(self.sums // vectors, self.registers // (vectors + 1))
            return max(both // 2 * 2, 1)
        fit = room // vectors if self.taken == 1 else room // (vectors + 1)
        return max(min(self.sums // vectors, fit), 1)

    def step(self, columns: int, vectors: int) -> float:
        """Cycles of a step that multiplies vectors with an element of each of the columns: two
        multiply-adds and two loads a cycle, at least `latency` sums in flight."""
        n, v = columns, vectors
        if self.paired:  # columns are brought together by pairs, where the products are made
            pairs = -(-n // 2)
            return max(pairs * (2 * v + 1), self.latency) / 2 + (n / 2 + 2 * v) / 4
        loads = n / self.taken + v
        step = max(n * v, loads, self.latency) / 2
        # where a step is few products for each load, they wait for these
        return step + (loads / 4 if self.taken > 1 else 0)


PAIRED = Machine(4, 24, 28, taken=2, paired=True)
"""What tiles may use of Arm's matrix products of bytes."""


def f32_machine(target: Target, *inputs: DType) -> Machine | str:
    """What sums of f32 may use of the target, or why it computes none, or none of such inputs."""
    m = Machine.of(target)
    if m is None:
        return f"'{target.name}' has no vectors of f32"
    other = next((d for d in inputs if d is not dtypes.f32), None)
    return m if other is None else f"it computes in {other}, not f32"


@dataclass(frozen=True, slots=True)
class Tile:
    """columns: the widest tile; vectors: blocks of output channels at once."""

    columns: int
    vectors: int


MOST_EDGES = 1 << 20  # tiles that are asked whether they leave the input


@dataclass(frozen=True)
class Run:
    """Tiles of one kind, one after another: `count` of `width` columns from column `first` on."""

    first: int
    width: int
    count: Dim
    edge: bool = False


@dataclass(frozen=True)
class Group:
    """Blocks of channels that one tile computes: `count` groups of `vectors` blocks from block
    `first` on; the last of the blocks has `tail` lanes in use."""

    first: int
    vectors: int
    count: int
    tail: int


def runs_of(
    columns: Dim, widest: int, is_edge: Callable[[int, int], bool] | None = None
) -> list[Run]:
    """The columns shared out in tiles of two neighbouring widths; unknown numbers of columns in
    full tiles and single columns. is_edge(first, width) tells which leave the input: some of the
    first and some of the last ones."""
    if not isinstance(columns, int):
        whole = dims.floordiv(columns, widest)
        return [Run(0, widest, whole), Run(-widest, 1, dims.mod(columns, widest))]
    tiles = -(-columns // widest)
    width = -(-columns // tiles)
    big = columns - tiles * (width - 1)

    def tile(k: int) -> tuple[int, int]:
        return (k * width, width) if k < big else (big + k * (width - 1), width - 1)

    left, right = _inner(tiles, lambda k: is_edge is not None and is_edge(*tile(k)))
    ends = sorted({0, min(left, tiles), max(right, 0), min(big, tiles), tiles})
    return [Run(*tile(k), end - k, not left <= k < right) for k, end in pairwise(ends)]


def tiles_of(runs: Sequence[Run]) -> int:
    """How many tiles there are, at most."""
    return sum(dims.upper(r.count) for r in runs)


def _inner(tiles: int, edge: Callable[[int], bool]) -> tuple[int, int]:
    """The tiles from the first one to the last one (exclusive) that stay inside the input."""
    left = next((k for k in range(min(tiles, MOST_EDGES)) if not edge(k)), tiles)
    right = next((k + 1 for k in range(tiles - 1, left, -1) if not edge(k)), left + 1)
    return (left, right) if left < tiles else (tiles, tiles)


def groups_of(channels: int, lanes: int, vectors: int) -> list[Group]:
    """The blocks of channels in groups of `vectors`, what is left over, and the last block."""
    blocks = -(-channels // lanes)
    tail = channels - (blocks - 1) * lanes
    whole, rest = divmod(blocks, vectors)
    out: list[Group] = []
    if rest == 0 and tail < lanes:
        whole, rest = whole - 1, vectors
    if whole:
        out.append(Group(0, vectors, whole, lanes))
    if rest:
        out.append(Group(whole * vectors, rest, 1, tail))
    return out


def copies_of(channels: int, lanes: int, tile: Tile, columns: Dim) -> int:
    """Sizes of tiles that a layer takes, each of which is code of its own."""
    return len(groups_of(channels, lanes, tile.vectors)) * len(runs_of(columns, tile.columns))


MOST_TILES = 8  # offered of one kernel


def tiles_for(m: Machine, channels: int, columns: Dim, steps: int) -> list[tuple[Tile, float]]:
    """Tiles with the lowest estimates of cycles for one row of columns, and those estimates, the
    lowest first."""
    blocks = -(-channels // m.lanes)
    known = columns if isinstance(columns, int) else max(min(dims.upper(columns), 64), 1)
    found: dict[tuple[int, int], tuple[Tile, float]] = {}
    for b in range(1, min(blocks, 8) + 1):
        for t in range(1, min(16, known, m.widest(b)) + 1):
            effect = (b, t if known is not columns else -(-known // t))
            if effect in found:  # as many tiles, and so the same ones
                continue
            cost = 0.0
            for g in groups_of(channels, m.lanes, b):
                for r in runs_of(known, t):
                    n, v = r.width, g.vectors
                    count = r.count if isinstance(r.count, int) else 1
                    # wide groups read more weights a step, which come from beyond the first cache
                    step = m.step(n, v) * (1 + 0.015 * v)
                    cost += g.count * count * (step * steps + end_cycles(n * v))
            found[effect] = Tile(t, b), cost
    return sorted(found.values(), key=lambda f: f[1])[:MOST_TILES]


def end_cycles(vectors: int) -> float:
    """What it takes to finish and store so many vectors of sums."""
    return 6 + 1.5 * vectors


def choose_tile(m: Machine, channels: int, columns: Dim, steps: int) -> tuple[Tile, float]:
    """The first of `tiles_for`."""
    return tiles_for(m, channels, columns, steps)[0]


def padded(channels: int, lanes: int) -> int:
    """Channels in whole vectors."""
    return -(-channels // lanes) * lanes


def lane_check(lanes: int) -> str:
    """C text that stops a compiler whose vectors are not those that weights were packed for."""
    return f'_Static_assert(OF_LANES == {lanes}, "made for other vectors");'
