"""Attention of f32 whose products are taken in bf16 by the matrix unit."""

from __future__ import annotations

from onefold.codegen.families.attention import Tiled, machine_for
from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.narrow import HIGH, MATRIX, refused
from onefold.codegen.tiles import Run, padded
from onefold.ir.graph import Node
from onefold.options import Options
from onefold.target import Target

STEP = 32  # elements that one step of a tile takes
GAP = 16  # elements between rows of scores, whose beginnings would else meet in the cache
SCORE = 0.8  # cycles in which a score becomes a share
SCORES = 512 << 10  # bytes of scores up to which two tiles of queries go together


class NarrowAttention(Family):
    """Scores and sums of values by tiles of bf16 (of_attention_narrow.h)."""

    name = "attention_narrow"
    ops = ("Attention",)

    def match(self, node: Node, target: Target, options: Options) -> list[Choice] | str:
        why = refused(options, target) or machine_for(node, target)
        if isinstance(why, str):
            return why
        if options.precision != "bf16" or not target.features >= MATRIX:
            return f"'{target.name}' has no matrix unit of {options.precision}"
        return [_Narrow(node, options.threads, tile).choice() for tile in (2 * HIGH, HIGH)]


class _Narrow(Tiled):
    kind = "attention_bf16"
    headers = ("of_attention_narrow.h",)

    def __init__(self, node: Node, threads: int, tile: int) -> None:
        super().__init__(node, threads, tile, (STEP, HIGH))

    @property
    def across(self) -> int:
        """Elements of a query."""
        return padded(self.e, STEP)

    @property
    def cost(self) -> float:
        """Cycles: a product of tiles takes as many as it has rows, loads as many if they are not
        shared."""
        heads = self.op.macs(self.node) / (self.queries * self.keys * (self.e + self.f))
        rows = padded(self.queries, HIGH)
        tiles = padded(self.keys, STEP) * (self.across + self.width) / (STEP * HIGH)
        load = 0.5 if self.tile > HIGH and 4 * self.tile * self.pitch <= SCORES else 1.0
        moved = 0.3 * self.keys * (self.e + self.f) * self.groups / self.heads
        return heads * (rows * tiles * (1 + load) + SCORE * rows * self.padded + moved)

    @property
    def pitch(self) -> int:
        return self.padded + GAP

    @property
    def parts(self) -> tuple[tuple[str, str, int], ...]:
        return (
            ("uint16_t", "kt", padded(self.keys, HIGH) * self.across),
            ("uint16_t", "pv", self.padded * self.width),
            ("uint16_t", "q", self.tile * self.across),
            ("float", "s", self.tile * self.pitch),
        )

    def runs(self) -> list[Run]:
        """Full tiles, and what is left over."""
        whole, rest = divmod(self.queries, self.tile)
        runs = [Run(0, self.tile, whole), Run(whole * self.tile, rest, 1)]
        return [r for r in runs if r.width and r.count]

    def room(self, width: int) -> int:
        return padded(width, HIGH)

    def render(self, r: Rendering) -> str:
        return "\n".join([f"of_tiles_begin({HIGH}, 64);", super().render(r), "of_tiles_end();"])

    def pack(self, keys: str, values: str) -> list[str]:
        return [
            f"of_keys_bf16({self.keys}, {self.e}, {keys}, {self.apart(1)}, kt);",
            f"of_values_bf16({self.keys}, {self.f}, {values}, {self.apart(2)}, pv);",
        ]

    def scores(self, width: int, rows: str) -> list[str]:
        steps = self.across // STEP
        return [
            f"of_rows_bf16({width}, {self.e}, {rows}, {self.apart(0)}, "
            f"{float(self.op.scale).hex()}, q);",
            self._product(width, "seen", str(steps), steps, f"q, {self.across}, kt, s", self.pitch),
        ]

    def sums(self, width: int) -> list[str]:
        left = f"(const uint16_t *)s, {2 * self.pitch}, pv, acc"
        steps = f"(seen + {STEP - 1}) / {STEP}"
        return [
            f"of_softmax_bf16({width}, seen, {self.pitch}, s, inv);",
            self._product(width, str(self.width), steps, self.padded // STEP, left, self.width),
            f"of_scale_rows({width}, {self.width}, inv, acc);",
        ]

    def _product(
        self, width: int, columns: str, steps: str, pitch: int, arrays: str, out: int
    ) -> str:
        high = "true" if width > HIGH else "false"
        return f"of_bf16_products({high}, {columns}, {steps}, {pitch}, {arrays}, {out});"
