"""Tables of 256 bytes, looked up many at a time (of_lookup.h)."""

from __future__ import annotations

from onefold.codegen.family import Choice, Family, Rendering
from onefold.codegen.loops import address, padded_channels
from onefold.codegen.text import loop
from onefold.ir import dims, dtypes
from onefold.ir.graph import Array, Node
from onefold.ir.scalar import Acc, counter, index_of
from onefold.options import Options
from onefold.target import Target

BYTES = (dtypes.i8, dtypes.u8)
ALIGN = 64  # elements: where the threads' shares may begin


class Lookup(Family):
    """Where elements of the result lie where they lie in the input."""

    name = "lookup"
    ops = ("QuantTable",)
    blocks = True

    def match(self, node: Node, target: Target, options: Options) -> Choice | str:
        x, table, y = node.arg(0), node.arg(1), node.outputs[0]
        if not ({"avx512vbmi", "neon"} & target.features):
            return f"'{target.name}' has no permutation of bytes by bytes"
        if table.data is None or y.dtype not in BYTES:
            return "its table is not one of constant bytes"
        if not x.tensor.static or x.tensor.layout != y.tensor.layout:
            return "its input and its result do not lie in the same order"
        if x.tensor.layout and padded_channels(x.tensor) != x.shape[1]:
            return "its channel blocks are not full"
        n = dims.upper(x.tensor.size)

        def packed() -> tuple[Array, ...]:
            assert table.data is not None
            return (table.data,)

        def render(r: Rendering) -> str:
            counters = [counter(d, "i") for d in y.shape]
            index = [index_of(c) for c in counters]
            source, entries = r.pointers
            flip = 128 if x.dtype is dtypes.i8 else 0
            at = address(x.tensor, index)
            if r.place(index) != at:  # a part of something larger
                lines = r.store(index, f"{entries}[(uint8_t){source}[{r.dim(at)}] ^ {flip}]")
                for c in reversed(counters):
                    lines = lines if c.extent == 1 else loop(c.name, r.dim(c.extent or 1), lines)
                return "\n".join(lines)
            bounds, ends = [], f"0, {n}"
            if r.team.parts > 1:
                bounds, ends = [r.team.bounds(str(n), ALIGN)], "from, to"
            call = (
                f"of_lookup((const uint8_t *){source}, (const uint8_t *){entries}, {flip}, {ends}, "
                f"(uint8_t *){r.out});"
            )
            return "\n".join([*bounds, call])

        return Choice(
            self.name, node, (x,), packed, render, lambda s: isinstance(s, Acc),
            ("of_lookup.h",), cost=n / 16, blocks=True,
        )  # fmt: skip
