"""Steps against what the machine can do: operations a second over operations for each byte."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Sequence

import numpy as np

from onefold.dev.profile import StepTime
from onefold.errors import printable

MEMORY = 1 << 26  # bytes that are read to measure memory: more than the caches hold
LOW, HIGH = 1e-2, 1e4  # operations for each byte, the ends of the drawing


def read_bandwidth(rounds: int = 5) -> float:
    """Bytes a second that one core reads from memory."""
    data = np.zeros(MEMORY // 4, np.float32)
    best = math.inf
    for _ in range(rounds):
        start = time.perf_counter()
        data.max()
        best = min(best, time.perf_counter() - start)
    return MEMORY / best


def svg(
    steps: Sequence[StepTime], flops: float, bandwidth: float, width: int = 900, height: int = 520
) -> str:
    """The roofline of Williams, Waterman and Patterson (2009) as a stand-alone drawing: a dot for
    each step with multiply-adds, its area by its share of the time, its name as a tip."""
    top, bottom = flops * 4, flops / 3e3
    left, right, upper, lower = 70, width - 20, 20, height - 50

    def x(intensity: float) -> float:
        part = math.log(min(max(intensity, LOW), HIGH) / LOW) / math.log(HIGH / LOW)
        return left + part * (right - left)

    def y(rate: float) -> float:
        part = math.log(min(max(rate, bottom), top) / bottom) / math.log(top / bottom)
        return lower - part * (lower - upper)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for power in range(-2, 5):
        at = x(10.0**power)
        out.append(f'<line x1="{at:.1f}" y1="{upper}" x2="{at:.1f}" y2="{lower}" stroke="#eee"/>')
        out.append(
            f'<text x="{at:.1f}" y="{lower + 16}" text-anchor="middle">{10.0**power:g}</text>'
        )
    rate = 10 ** math.ceil(math.log10(bottom))
    while rate < top:
        at = y(rate)
        out.append(f'<line x1="{left}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}" stroke="#eee"/>')
        out.append(f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{rate / 1e9:g}</text>')
        rate *= 10
    ridge = flops / bandwidth
    roof = [(LOW, LOW * bandwidth), (ridge, flops), (HIGH, flops)]
    line = " ".join(f"{x(i):.1f},{y(r):.1f}" for i, r in roof)
    out.append(f'<polyline points="{line}" fill="none" stroke="#b00" stroke-width="1.5"/>')
    for s in steps:
        if not s.macs or not s.seconds or not s.bytes:
            continue
        text = f"{s.layer}: {s.kernel}, {s.seconds * 1e6:.1f} us, {s.share:.1%} of the time"
        out.append(
            f'<circle cx="{x(2 * s.macs / s.bytes):.1f}" cy="{y(2 * s.macs_per_s):.1f}" '
            f'r="{2 + 40 * math.sqrt(s.share):.1f}" fill="#2a6fdb" fill-opacity="0.35" '
            f'stroke="#2a6fdb"><title>{html.escape(printable(text, 200))}</title></circle>'
        )
    out.append(f'<text x="{(left + right) / 2:.0f}" y="{height - 14}" text-anchor="middle">'
               "operations for each byte of inputs, outputs and weights</text>")  # fmt: skip
    middle = f"{(upper + lower) / 2:.0f}"
    out.append(f'<text x="14" y="{middle}" text-anchor="middle" '
               f'transform="rotate(-90 14 {middle})">GFLOP/s</text></svg>')  # fmt: skip
    return "\n".join(out) + "\n"
