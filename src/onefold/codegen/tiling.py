"""Loop nests around tiles of sums: which tiles come when, and who stores what.

A tile kernel sums up T columns times B vectors of output channels in registers and leaves them in
a small array; the epilogue then finishes that array element by element, in loops over lanes that
the compiler turns into vector operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onefold.codegen.family import Rendering
from onefold.codegen.team import is_even
from onefold.codegen.text import Ends, braced, loop, loop_over
from onefold.codegen.tiles import Group, Run, Tile, groups_of, runs_of, tiles_of
from onefold.ir import dims
from onefold.ir.dims import Dim, Sym
from onefold.ir.scalar import counter, index_of

STRIP = 8  # tiles, at most, that take one part of their sums after the other
STRIP_BYTES = 8 << 10  # of their sums
CONSTANT_EDGES = 4  # edge tiles up to this number are written out, each for its own column


Index = Callable[[Dim, Dim, Dim, Dim], Sequence[Dim]]
"""The index of an element of a result: (batch, channel, row, column)."""


@dataclass(frozen=True)
class Plane:
    """What is computed: batches x channels x rows x columns."""

    lanes: int
    batches: Dim
    channels: int
    rows: Dim
    columns: Dim
    index: Index


Call = Callable[[int, Run, Dim, Dim, Dim, Dim], str]
"""Text of the kernel call that fills `acc`: (vectors, run, batch, block, row, column)."""


Finish = Callable[[int, int, tuple[Dim, Dim, Dim], str, int], tuple[list[str], str, int]]
"""What stands between the sums of a tile and its results: (vectors, columns, (block, row, column),
C text of the first sum, columns from one vector's sums to the next's) -> statements that make an
array [vectors][columns][lanes] of results, its name, and columns that it has room for."""


@dataclass(frozen=True)
class Older:
    """How a tile finishes the sums of the one before it while its own are made: `lines`, `count`
    times, `at` counting them; more: C text of whether there are sums to be made."""

    more: str
    at: str
    count: str
    lines: Sequence[str]


Overlapped = Callable[[int, Run, Dim, Dim, Dim, Dim, str, Older], list[str]]
"""Statements of a kernel that makes sums beside older ones' end: as `Call`, the C text of the place
for the sums, and the end."""


@dataclass(frozen=True)
class Parts:
    """How sums of `count` parts are put together: begin(vectors, width, block, where) gives the
    text that fills the tile at `where`, add(part, where, vectors, run, batch, block, row, column)
    the one that adds a part to it."""

    count: int
    begin: Callable[[int, int, Dim, str], str]
    add: Callable[[str, str, int, Run, Dim, Dim, Dim, Dim], str]


@dataclass(frozen=True)
class _Place:
    """A group of channels of a batch."""

    group: Group
    batch: Dim
    block: Dim


Body = Callable[[Run, Dim, Dim, str], list[str]]
"""What is done with a tile: (run, row, column, name of the array of its sums) -> statements."""


@dataclass(frozen=True)
class Tiling:
    """Writes the loop nest of a tile kernel."""

    plane: Plane
    tile: Tile
    render: Rendering
    call: Call
    is_edge: Callable[[int, int], bool]
    ctype: str = "float"
    finish: Finish | None = None
    before: Callable[[Dim], list[str]] | None = None
    """Statements that come before the tiles of a batch; threads that do not share the batches
    wait for each other behind them."""
    parts: Parts | None = None
    """Long sums: a strip of tiles takes one part of its sums after the other."""
    overlapped: Overlapped | None = None
    unit: int = 1
    """Tiles have so many columns, or a multiple of that."""
    by_rows: bool = False
    """Threads rather share the rows, or columns where there is one row, than the channels: each
    then reads its share of the input and all weights instead of the other way round."""
    reads: Callable[[Dim], Sequence[tuple[str, Dim]]] | None = None
    """Pointers of the input, and the places that they are read at for a row, if that is known."""

    @property
    def shared(self) -> str:
        """See `shared_units`."""
        parts = self.render.team.parts
        return shared_units(self.plane, self.tile, parts, self.by_rows, self.before is not None)

    def body(self, head: Sequence[str]) -> str:
        p, shared, team, dim = self.plane, self.shared, self.render.team, self.render.dim
        batch, row = counter(p.batches, "i"), counter(p.rows, "i")
        lines = self.before(index_of(batch)) if self.before else []
        apart = bool(lines) and shared in ("rows", "blocks")
        lines += team.wait() if apart else []
        units = p.columns if p.rows == 1 else p.rows
        for g in groups_of(p.channels, p.lanes, self.tile.vectors):
            group = counter(g.count, "i")
            block = dims.add(dims.mul(index_of(group), g.vectors), g.first)
            ends: Ends | None = ("from", "to") if shared == "rows" else None
            inner: list[str] = []
            some: list[str] = []
            if shared == "blocks":
                ends = ("first", "end")
                each = f"{dim(dims.mul(block, units))}, {g.vectors}, {dim(units)}"
                some = [f"const ix first = of_tiles(from, {each}), end = of_tiles(to, {each});"]
            place = _Place(g, index_of(batch), block)
            runs = self._runs()
            if self.parts and p.rows != 1 and tiles_of(runs) <= STRIP:
                inner = self._strips_of_rows(self.parts, runs, place, row, ends)
            else:
                across = ends if p.rows == 1 else None
                for r in runs:
                    inner += (
                        self._strips(self.parts, r, place, index_of(row), across) if self.parts
                        else self._overlapping(r, place, index_of(row), across)
                        if self.overlapped and r.count != 1
                        else self._run(r, index_of(row), place, self._whole(place), "", across)
                    )  # fmt: skip
                inner = loop_over(row, dim, inner, None if p.rows == 1 else ends)
            if some and g.count == 1:
                inner = braced([*some, *inner])
            lines += loop_over(group, dim, inner if g.count == 1 else [*some, *inner])
        lines += team.wait() if apart and batch.extent != 1 else []
        lines = loop_over(batch, dim, lines, ("from", "to") if shared == "batches" else None)
        if shared:
            total = {"batches": p.batches, "rows": units}.get(shared)
            blocks = -(-p.channels // p.lanes)
            n = dims.mul(blocks, units) if total is None else total
            unit = (row, p.rows) if shared == "rows" and p.rows != 1 else (None, 0)
            lines = [team.bounds(dim(n), unit=unit), *lines]
            for pointer, at in self.reads(index_of(row)) if self.reads else ():
                team.note(pointer, at)
        return "\n".join([*head, *lines])

    def _runs(self) -> list[Run]:
        columns, unit = self.plane.columns, self.unit
        if unit == 1:
            return runs_of(columns, self.tile.columns, self.is_edge)
        assert isinstance(columns, int)
        runs = runs_of(columns // unit, self.tile.columns // unit)
        return [Run(r.first * unit, r.width * unit, r.count) for r in runs]

    def _whole(self, at: _Place) -> Body:
        """A tile from its first product to its results."""
        v = at.group.vectors

        def body(r: Run, row: Dim, column: Dim, _: str) -> list[str]:
            lines = [
                f"{self.ctype} acc[{self._size(r, at)}] __attribute__((aligned(64)));",
                self.call(v, r, at.batch, at.block, row, column),
            ]
            acc, pitch = "acc", r.width
            if self.finish:
                more, acc, pitch = self.finish(v, r.width, (at.block, row, column), acc, r.width)
                lines += more
            return [*lines, *self._results(r, at, (acc, pitch), row, column)]

        return body

    def _results(
        self, r: Run, at: _Place, acc: tuple[str, int], row: Dim, column: Dim
    ) -> list[str]:
        """Stores a tile; acc: the array of sums or results, and columns that it has room for."""
        place = (at.batch, at.block, row, column)
        held = Held(*acc, r.width)
        return stored(self.render, self.plane.lanes, self.plane.index, at.group, place, held)

    def _overlapping(self, r: Run, at: _Place, row: Dim, ends: Ends | None) -> list[str]:
        """Tiles of a run one after the other, each finishing the sums of the one before."""
        assert self.overlapped is not None and self.finish is not None
        v, lanes = at.group.vectors, self.plane.lanes
        width = next(w for w in (4, 2, 1) if r.width % w == 0)
        tile, part = counter(r.count, "i"), counter(r.width // width, "i")
        before = counter(r.count, "i")
        column = self._column(r, index_of(before))
        column = dims.add(column, dims.mul(index_of(part), width))
        old = f"(old + {part.name} * {width * lanes})"
        lines, acc, pitch = self.finish(v, width, (at.block, row, column), old, r.width)
        lines = [*lines, *self._results(Run(0, width, 1), at, (acc, pitch), row, column)]
        low, high = self._tiles_between(r, ends) if ends else ("0", self.render.dim(r.count))
        older = Older("more", part.name, f"{tile.name} > start ? {part.extent} : 0", lines)
        here = self._column(r, index_of(tile))
        body = [
            f"const ix {before.name} = {tile.name} - 1;",
            f"const bool more = {tile.name} < stop;",
            f"{self.ctype} *const acc = sums[{tile.name} & 1], "
            f"*const old = sums[~{tile.name} & 1];",
            *self.overlapped(v, r, at.batch, at.block, row, here, "acc", older),
        ]
        return braced([
            f"{self.ctype} sums[2][{self._size(r, at)}] __attribute__((aligned(64)));",
            f"const ix start = {low}, stop = {high};",
            *loop(tile.name, "stop + (start < stop)", body, "start"),
        ])  # fmt: skip

    def _in_parts(self, parts: Parts, at: _Place) -> tuple[Body, Body, Body]:
        """What fills a tile with the bias, adds a part to it, and makes results of it."""
        v = at.group.vectors

        def begin(r: Run, row: Dim, column: Dim, where: str) -> list[str]:
            return [parts.begin(v, r.width, at.block, where)]

        def add(r: Run, row: Dim, column: Dim, where: str) -> list[str]:
            return [parts.add("part", where, v, r, at.batch, at.block, row, column)]

        def finish(r: Run, row: Dim, column: Dim, where: str) -> list[str]:
            return self._results(r, at, (f"({where})", r.width), row, column)

        return begin, add, finish

    def _strips(
        self, parts: Parts, r: Run, at: _Place, row: Dim, ends: Ends | None
    ) -> list[str]:  # fmt: skip
        """The tiles of a run, some at a time."""
        begin, add, finish = self._in_parts(parts, at)
        size = self._size(r, at)
        if r.count == 1 or self._is_apart(r):

            def alone(r: Run, row: Dim, column: Dim, _: str) -> list[str]:
                return [
                    f"float sums[{size}] __attribute__((aligned(64)));",
                    *begin(r, row, column, "sums"),
                    *loop("part", str(parts.count), add(r, row, column, "sums")),
                    *finish(r, row, column, "sums"),
                ]

            return self._run(r, row, at, alone, "", ends)
        t = counter(r.count, "i")
        low, high = self._tiles_between(r, ends) if ends else ("0", self.render.dim(r.count))
        column = self._column(r, index_of(t))

        def each(body: Body) -> list[str]:
            lines = body(r, row, column, f"sums + ({t.name} - strip) * {size}")
            return loop(t.name, "until", lines, "strip")

        tiles = _strip(r.count, STRIP_BYTES // (4 * size))
        return self._strip((low, high), tiles, tiles * size, parts, each, (begin, add, finish))

    def _strips_of_rows(
        self, parts: Parts, runs: Sequence[Run], at: _Place, row: Sym, ends: Ends | None
    ) -> list[str]:
        """The tiles of some rows at a time."""
        sizes = [self._size(r, at) * dims.upper(r.count) for r in runs]

        def each(body: Body) -> list[str]:
            lines: list[str] = []
            for k, r in enumerate(runs):
                where = f"sums + ({row.name} - strip) * {sum(sizes)} + {sum(sizes[:k])}"
                lines += self._run(r, index_of(row), at, body, where)
            return loop(row.name, "until", lines, "strip")

        most = min(STRIP // tiles_of(runs), STRIP_BYTES // (4 * sum(sizes)))
        rows = _strip(self.plane.rows, most)
        ends = ends or ("0", self.render.dim(self.plane.rows))
        return self._strip(ends, rows, rows * sum(sizes), parts, each, self._in_parts(parts, at))

    def _strip(
        self, ends: Ends, step: int, size: int, parts: Parts, each: Callable[[Body], list[str]],
        bodies: tuple[Body, Body, Body],
    ) -> list[str]:  # fmt: skip
        begin, add, finish = bodies
        lines = [
            f"float sums[{size}] __attribute__((aligned(64)));",
            f"const ix until = of_min_ix(strip + {step}, {ends[1]});",
            *each(begin), *loop("part", str(parts.count), each(add)), *each(finish),
        ]  # fmt: skip
        head = f"for (ix strip = {ends[0]}; strip < {ends[1]}; strip += {step})"
        return braced(lines, head)

    def _is_apart(self, r: Run) -> bool:
        """Whether every tile of a run is written out, with its column as a constant."""
        return r.edge and isinstance(r.count, int) and r.count <= CONSTANT_EDGES

    def _run(
        self, r: Run, row: Dim, at: _Place, body: Body, where: str, ends: Ends | None = None
    ) -> list[str]:
        """The tiles of a run; where: the sums of its first one, if they do not each have their
        own; ends: the columns in which the tiles begin, all of them if there are none."""
        size = self._size(r, at)
        if isinstance(r.count, int) and (
            self._is_apart(r) or (ends is not None and r.count == 1)
        ):  # fmt: skip
            out: list[str] = []
            for k in range(r.count):
                here = r.first + k * r.width
                lines = body(r, row, here, f"{where} + {k * size}" if where else "")
                head = f"if ({ends[0]} <= {here} && {here} < {ends[1]})" if ends else ""
                out += braced(lines, head)
            return out
        t = counter(r.count, "i")
        if ends is not None:
            ends = self._tiles_between(r, ends)
        if where and r.count != 1:
            where = f"{where} + {t.name} * {size}"
        lines = body(r, row, self._column(r, index_of(t)), where)
        return loop_over(t, self.render.dim, braced(lines), ends)

    def _size(self, r: Run, at: _Place) -> int:
        """Sums in a tile."""
        return at.group.vectors * r.width * self.plane.lanes

    def _column(self, r: Run, at: Dim) -> Dim:
        """The first column of a tile of a run."""
        first: Dim = r.first
        if r.first < 0:  # single columns after the full tiles of an unknown number
            first = dims.mul(dims.floordiv(self.plane.columns, -r.first), -r.first)
        return dims.add(first, dims.mul(at, r.width))

    def _tiles_between(self, r: Run, ends: Ends) -> Ends:
        """The tiles of a run that begin in a range of columns."""
        dim = self.render.dim
        some = f"{dim(self._column(r, 0))}, {r.width}, {dim(r.count)}"
        return f"of_tiles({ends[0]}, {some})", f"of_tiles({ends[1]}, {some})"


@dataclass(frozen=True)
class Held:
    """An array [vectors][room][lanes] of the sums or results of a tile: `rows` rows of `columns`
    columns, `pitch` columns from one row to the next."""

    name: str
    room: int
    columns: int
    rows: int = 1
    pitch: int = 0


def stored(
    r: Rendering, lanes: int, index: Index, g: Group, at: tuple[Dim, Dim, Dim, Dim], held: Held
) -> list[str]:
    """Statements that store a tile of a group of channels; at: batch, block, row and column of its
    first element."""
    n, block, row, column = at
    full = g.vectors if g.tail == lanes else g.vectors - 1
    out: list[str] = []
    for first, count, used in ((0, full, lanes), (full, g.vectors - full, g.tail)):
        if not count:
            continue
        b, y = counter(count, "i"), counter(held.rows, "i")
        t, lane = counter(held.columns, "i"), counter(used, "i")
        vector = dims.add(first, index_of(b))
        channel = dims.mul(dims.add(block, vector), lanes)
        place = dims.add(row, index_of(y)), dims.add(column, index_of(t))
        source = dims.add(dims.mul(index_of(y), held.pitch), index_of(t))
        source = dims.mul(dims.add(dims.mul(vector, held.room), source), lanes)
        text = f"{held.name}[{r.dim(dims.add(source, index_of(lane)))}]"
        body = r.store(index(n, dims.add(channel, index_of(lane)), *place), text)
        for k, c in enumerate((lane, t, y, b)):
            if c.extent != 1:
                body = [(r.simd if k == 0 else "OF_UNROLL_FAST"), *loop_over(c, r.dim, body)]
        out += body
        if r.blocked and used < lanes:
            pad = counter(lanes - used, "i")
            unused = dims.add(channel, dims.add(index_of(pad), used))
            clear = [f"{r.out}[{r.dim(r.place(index(n, unused, *place)))}] = 0;"]
            for c in (pad, t, y, b):
                clear = loop_over(c, r.dim, clear)
            out += clear
    return out


def _strip(units: Dim, most: int) -> int:
    """How many units make a strip, so that all strips are about as long."""
    most = max(1, min(most, STRIP))
    return most if not isinstance(units, int) else -(-units // -(-units // most))


def shared_units(plane: Plane, tile: Tile, parts: int, by_rows: bool, by_batches: bool) -> str:
    """What so many threads share: "batches", "rows", or "blocks" of channels and in each of these
    rows; empty for one thread. by_rows: as of `Tiling`; by_batches: batches rather than blocks."""
    if parts == 1:
        return ""
    if (by_rows or by_batches) and shares_batches(plane.batches, parts):
        return "batches"
    rows = dims.ceildiv(plane.columns, tile.columns) if plane.rows == 1 else plane.rows
    return "rows" if by_rows and is_even(rows, parts) else "blocks"


def shares_batches(batches: Dim, parts: int) -> bool:
    """Whether threads share the batches rather than what is in one of them."""
    return isinstance(batches, int) and batches >= parts and is_even(batches, parts)
