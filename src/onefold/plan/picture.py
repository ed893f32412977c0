"""Drawings of an arena over time: as text for a terminal and as SVG for a page.

Time runs downwards, one row per step (or per group of steps), bytes run from left to right.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from onefold.errors import printable
from onefold.plan.arena import ArenaPlan, Block

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
FREE = "."


def picture(blocks: Sequence[Block], plan: ArenaPlan, width: int = 72, height: int = 40,
            labels: Mapping[int, str] | None = None) -> str:
    """The arena as text: `width` columns of bytes, at most `height` rows of steps.

    A cell shows the block that covers most of it, by a letter of its own (letters come round again
    after 62 blocks); `.` is free.  The largest blocks are listed below with their `labels`.
    """
    if not plan.size:
        return "empty arena\n"
    rows = _rows(blocks, height)
    letter = {b.id: LETTERS[k % len(LETTERS)] for k, b in enumerate(_by_time(blocks))}
    unit = plan.size / width
    lines = [_scale(plan, width)]
    for steps in rows:
        cells = _cells([b for b in blocks if b.size and b.first < steps.stop
                        and b.last >= steps.start], plan, width, unit)
        text = "".join(FREE if owner is None else letter[owner] for owner in cells)
        lines.append(f"{steps.start:>6} |{text}|")
    lines += _legend(blocks, plan, letter, labels or {})
    return "\n".join(lines) + "\n"


def svg(blocks: Sequence[Block], plan: ArenaPlan, width: int = 900, height: int = 600,
        labels: Mapping[int, str] | None = None) -> str:
    """The same drawing as a stand-alone SVG of `width` x `height` pixels; each block has a tip."""
    begin, end = _span(blocks)
    across = width / max(1, plan.size)
    down = height / (end - begin + 1)
    names = labels or {}
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
             f'width="{width}" height="{height}" font-family="sans-serif" font-size="10">',
             f'<rect width="{width}" height="{height}" fill="#f4f4f4"/>']
    for k, b in enumerate(_by_time(blocks)):
        x, y = plan.offsets[b.id] * across, (b.first - begin) * down
        w, h = b.size * across, (b.last - b.first + 1) * down
        tip = html.escape(f"{printable(names.get(b.id, f'block {b.id}'), 120)}: {b.size:,} bytes "
                          f"at {plan.offsets[b.id]:,}, steps {b.first} to {b.last}")
        parts.append(f'<rect x="{x:.2f}" y="{y:.2f}" width="{w:.2f}" height="{h:.2f}" '
                     f'fill="hsl({k * 137 % 360},55%,68%)" stroke="#444" stroke-width="0.5">'
                     f"<title>{tip}</title></rect>")
    limit = plan.lower_bound * across
    parts.append(f'<line x1="{limit:.2f}" y1="0" x2="{limit:.2f}" y2="{height}" stroke="#b00" '
                 f'stroke-dasharray="4 3"><title>lower bound {plan.lower_bound:,} bytes</title>'
                 "</line></svg>")
    return "\n".join(parts) + "\n"


def _span(blocks: Sequence[Block]) -> tuple[int, int]:
    return min((b.first for b in blocks), default=0), max((b.last for b in blocks), default=0)


def _rows(blocks: Sequence[Block], height: int) -> list[range]:
    """The steps of each row: equal groups, as few per row as fit."""
    begin, end = _span(blocks)
    group = -(-(end - begin + 1) // max(1, height))
    return [range(t, min(t + group, end + 1)) for t in range(begin, end + 1, group)]


def _by_time(blocks: Sequence[Block]) -> list[Block]:
    return sorted((b for b in blocks if b.size), key=lambda b: (b.first, b.id))


def _cells(alive: Sequence[Block], plan: ArenaPlan, width: int, unit: float) -> list[int | None]:
    """For each column the id of the block that covers most of its bytes."""
    owner: list[int | None] = [None] * width
    covered = [0.0] * width
    for b in alive:
        start = plan.offsets[b.id]
        for column in range(int(start / unit), min(width, int((start + b.size) / unit) + 1)):
            share = min(start + b.size, (column + 1) * unit) - max(start, column * unit)
            if share > covered[column]:
                owner[column], covered[column] = b.id, share
    return owner


def _scale(plan: ArenaPlan, width: int) -> str:
    right = f"{plan.size:,} bytes (lower bound {plan.lower_bound:,})"
    return f"{'step':>6}  0{right:>{max(1, width - 1)}}"


def _legend(blocks: Sequence[Block], plan: ArenaPlan, letter: Mapping[int, str],
            labels: Mapping[int, str], most: int = 12) -> list[str]:
    largest = sorted((b for b in blocks if b.size), key=lambda b: (-b.size, b.first, b.id))
    lines = [f"  {letter[b.id]}  {b.size:>12,} bytes at {plan.offsets[b.id]:>12,}, steps "
             f"{b.first}-{b.last}  {printable(labels.get(b.id, f'block {b.id}'), 60)}"
             for b in largest[:most]]
    if len(largest) > most:
        lines.append(f"     and {len(largest) - most} smaller blocks")
    return lines
