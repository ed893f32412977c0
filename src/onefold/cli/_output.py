"""What a verb says: facts as JSON, or the same facts as text and tables."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onefold.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

CELL = 60
"""Most characters of one cell; a name from a model may have 100,000."""

WIDE = 240
"""Columns where the output is no terminal: enough that no table is folded."""


@dataclass(frozen=True)
class Column:
    """A column of a table. right: numbers are aligned at their last digit."""

    title: str
    right: bool = False
    limit: int = CELL


Columns = Sequence["Column | str"]


class Out:
    """Text for people on standard output; names from models cannot disturb the terminal."""

    def __init__(self) -> None:
        self.console = console()

    def line(self, text: str = "", style: str = "") -> None:
        from rich.text import Text

        self.console.print(Text(printable(text, 2000), style=style), soft_wrap=True)

    def block(self, text: str) -> None:
        """Several lines as they are, made safe one by one."""
        for row in text.rstrip("\n").split("\n"):
            self.console.print(printable(row, 4000), soft_wrap=True)

    def title(self, text: str) -> None:
        self.line()
        self.line(text, style="bold")

    def table(self, columns: Columns, rows: Iterable[Sequence[Any]]) -> None:
        """A table; a cell is text, a number, or (text, style)."""
        from rich import box
        from rich.table import Table

        cols = [c if isinstance(c, Column) else Column(c) for c in columns]
        cells = [[_cell(x, c.limit) for x, c in zip(row, cols, strict=True)] for row in rows]
        widths = _widths(cols, cells, self.console.width)
        if widths is None:
            self._records(cols, cells)
            return
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold",
                     show_header=any(c.title for c in cols))  # fmt: skip
        for c, width in zip(cols, widths, strict=True):
            made.add_column(c.title, justify="right" if c.right else "left", overflow="fold",
                            no_wrap=c.right, width=width)  # fmt: skip
        for row in cells:
            made.add_row(*row)
        if self.console.is_terminal:
            self.console.print(made)
            return
        with self.console.capture() as text:
            self.console.print(made)
        for line in text.get().splitlines():  # a file needs no blanks up to the last column
            self.console.print(line.rstrip(), soft_wrap=True)

    def _records(self, cols: Sequence[Column], cells: Sequence[Sequence[Text]]) -> None:
        """A table that is wider than the terminal: a line for each cell."""
        from rich.text import Text

        indent = max((len(c.title) for c in cols[1:]), default=0) + 3
        for row in cells:
            self.console.print(row[0], soft_wrap=True)
            for c, cell in zip(cols[1:], row[1:], strict=True):
                if cell.plain:
                    self.console.print(Text(f"  {c.title}".ljust(indent)) + cell, soft_wrap=True)


GAP = 3  # columns between two columns of a table
WORD = 24  # letters; longer words may be cut where room is scarce


def _widths(
    cols: Sequence[Column], cells: Sequence[Sequence[Text]], room: int
) -> list[int] | None:
    """Widths of columns in which no word is cut; None where there is no room for them."""
    from rich.cells import cell_len

    columns = [[c.title, *(row[k].plain for row in cells)] for k, c in enumerate(cols)]
    full = [max(cell_len(t) for t in texts) for texts in columns]
    least = [
        width if c.right
        else max((min(cell_len(w), WORD) for t in texts for w in t.split()), default=0)
        for c, width, texts in zip(cols, full, columns, strict=True)
    ]  # fmt: skip
    room -= GAP * (len(cols) - 1)
    if sum(least) > room:
        return None
    widths = least
    while widths != full and sum(widths) < room:
        k = min((k for k in range(len(full)) if widths[k] < full[k]), key=lambda k: widths[k])
        widths[k] += 1
    return widths


def _cell(content: Any, limit: int) -> Any:
    from rich.text import Text

    text, style = content if isinstance(content, tuple) else (content, "")
    return Text(printable("" if text is None else text, limit), style=style)


def console() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)


def finish(
    facts: dict[str, Any], as_json: bool, show: Callable[[dict[str, Any], Out], None]
) -> None:
    """Prints the facts of a verb: as JSON, or through its function for people."""
    if as_json:
        print(json.dumps(plain(facts), indent=1))
    else:
        show(facts, Out())


def plain(x: Any) -> Any:
    """Facts as JSON has them; numbers that are not finite become text ("nan", "inf")."""
    if isinstance(x, dict):
        return {str(k): plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [plain(v) for v in x]
    if isinstance(x, float) and not math.isfinite(x):
        return str(x)
    if hasattr(x, "item") and not isinstance(x, (str, bytes)):
        return plain(x.item())
    return x


def layer(name: str) -> str:
    """A layer's name for a table: of the many that a converter joined by `;`, the first."""
    first, *rest = name.split(";")
    return f"{first} (+{len(rest)})" if rest else name


def tuned(n: int) -> str:
    """How many layers run by kernels that were chosen by what was measured."""
    layers = "1 layer uses a kernel" if n == 1 else f"{n} layers use kernels"
    return f"{layers} that `onefold tune` has measured"


def count(n: int | float) -> str:
    """12,345"""
    return f"{n:,.0f}"


def size(n: int | float) -> str:
    """Bytes: `980 B`, `23.5 KB`, `1.27 MB` (1 KB = 1,000 bytes)."""
    if n < 1000:
        return f"{n:.0f} B"
    for unit in ("KB", "MB", "GB", "TB"):
        n /= 1000
        if n < 999.5 or unit == "TB":
            break
    return f"{n:.3g} {unit}"


def memory(n: int) -> str:
    """Size of a memory, which comes in powers of two: `64 KiB`, `1 MiB`."""
    return f"{n / 2**20:.3g} MiB" if n >= 2**20 else f"{n / 2**10:.3g} KiB"


def macs(n: int | float) -> str:
    """Multiply-adds: `980`, `1.23 M`, `4.1 G`."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= factor:
            return f"{n / factor:.3g} {unit}"
    return f"{n:.0f}"


def seconds(s: float) -> str:
    """`1.23 us`, `4.56 ms`, `7.8 s`."""
    if s < 1e-3:
        return f"{s * 1e6:.3g} us"
    return f"{s * 1e3:.4g} ms" if s < 1 else f"{s:.3g} s"


def number(x: Any) -> str:
    """A value of a tensor, six significant digits."""
    return f"{x:.6g}" if isinstance(x, float) else str(x)
