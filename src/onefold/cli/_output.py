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
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold",
                     show_header=any(c.title for c in cols))  # fmt: skip
        for c in cols:
            made.add_column(c.title, justify="right" if c.right else "left", overflow="fold",
                            no_wrap=c.right)  # fmt: skip
        for row in rows:
            made.add_row(*(_cell(x, c.limit) for x, c in zip(row, cols, strict=True)))
        self.console.print(made)


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
