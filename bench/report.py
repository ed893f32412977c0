"""What runs found, as tables and pictures.

    python -m bench.report [RESULTS]

writes docs/speed.md and its pictures from the results of bench.run.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

OURS = "onefold"


# --- figures --------------------------------------------------------------------------------------


def medians(row: dict[str, Any]) -> list[float]:
    """Seconds of a call, round by round."""
    return [r["median"] for r in row["rounds"]]


def median(row: dict[str, Any]) -> float:
    return statistics.median(medians(row))


def spread(row: dict[str, Any]) -> float:
    """Distance of the quartiles as a share of the median."""
    low, _, high = statistics.quantiles(medians(row), n=4)
    return (high - low) / median(row)


def times_ours(net: dict[str, Any], name: str) -> float:
    """An engine's time over Onefold's: the median of the quotients within rounds."""
    ours, theirs = medians(net["engines"][OURS]), medians(net["engines"][name])
    return statistics.median(t / o for t, o in zip(theirs, ours, strict=True))


def best_peer(net: dict[str, Any]) -> str:
    """The fastest of the others whose answers agree; empty where there is none."""
    others = {n: median(r) for n, r in net["engines"].items() if n != OURS and r["agrees"]}
    return min(others, key=lambda n: others[n], default="")


def peak(rates: dict[str, float], precision: str) -> float:
    """Operations per second of one core by the fastest instruction for the precision; a precision
    that it has no instruction for is computed in f32."""
    found = [r for kind, r in rates.items() if kind in (precision, f"amx_{precision}")]
    return max(found, default=rates["f32"])


def share_of_peak(net: dict[str, Any], name: str) -> float:
    """By the operations of the direct method, of what the cores used can do."""
    work = 2.0 * net["macs"] / net["threads"]
    pairs = zip(medians(net["engines"][name]), net["machine"], strict=True)
    return statistics.median([work / (t * peak(m, net["precision"])) for t, m in pairs])


def roofline(net: dict[str, Any]) -> float:
    """Seconds that one core needs at least: for the arithmetic by the direct method, or to read
    the weights from the cache that they fit in."""
    macs, weights = float(net["macs"]), float(net["weights"])
    return statistics.median([
        max(2 * macs / peak(m, net["precision"]), weights / m["read"]) for m in net["machine"]
    ])  # fmt: skip


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values))) if values else math.nan


# --- a table --------------------------------------------------------------------------------------


def table(results: dict[str, Any]) -> str:
    """Markdown: the machine, times, and what else was measured."""
    nets: list[dict[str, Any]] = list(results["networks"].values())
    order = engines(nets)
    parts = [_head(results, nets), _times(nets, order), _resources(nets, order), _skips(nets)]
    return "\n\n".join(p for p in parts if p) + "\n"


def engines(nets: Sequence[dict[str, Any]]) -> list[str]:
    """Onefold first, then the others, those that run most networks first."""
    count: dict[str, int] = {}
    for net in nets:
        for name in net["engines"]:
            count[name] = count.get(name, 0) + 1
    return sorted(count, key=lambda n: (n != OURS, -count[n], n))


def _head(results: dict[str, Any], nets: Sequence[dict[str, Any]]) -> str:
    m = results["machine"]
    rates = [r for net in nets for r in net["machine"]]
    kinds = [k for k in rates[0] if k != "read"]
    peak = ", ".join(f"{k} {statistics.median(r[k] for r in rates) / 1e9:.0f}" for k in kinds)
    low, mid, high = (
        q / 1e9 for q in statistics.quantiles([r["read"] for r in rates], n=4, method="inclusive")
    )
    read = f"Reading memory: {mid:.0f} GB/s (quartiles {low:.0f} and {high:.0f})."
    versions: dict[str, str] = {}
    for net in nets:
        for row in net["engines"].values():
            versions |= row["versions"]
    told = ", ".join(f"{n} {v}" for n, v in sorted(versions.items()))
    threads = results["threads"]
    return (
        f"{m['cpu']}, {m['system']}, {results['precision']}, {threads} "
        f"thread{'s' if threads > 1 else ''}, batch 1. GOP/s of one core: {peak}. {read} {told}."
    )


def _times(nets: Sequence[dict[str, Any]], order: Sequence[str]) -> str:
    peers = [n for n in order if n != OURS]
    head = ["network", "M MAC", *(f"{n} ms" for n in order), "% of peak", "roofline ms",
            "best peer", "times faster"]  # fmt: skip
    rows, ratios = [], []
    for net in nets:
        cells = [_ms(net, n) for n in order]
        ours = OURS in net["engines"]
        best = best_peer(net)
        ratio = times_ours(net, best) if ours and best else math.nan
        if not math.isnan(ratio):
            ratios.append(ratio)
        share = f"{100 * share_of_peak(net, OURS):.0f}" if ours else "-"
        rows.append([net["network"], f"{net['macs'] / 1e6:,.1f}", *cells, share,
                     f"{1e3 * roofline(net):.3g}", best or "-", _number(ratio)])  # fmt: skip
    mean = f"Geometric mean: {geometric_mean(ratios):.3f} times faster than the best peer, " \
           f"{min(ratios):.2f} to {max(ratios):.2f}." if ratios else ""  # fmt: skip
    each = {
        p: [times_ours(n, p) for n in nets if p in n["engines"] and OURS in n["engines"]]
        for p in peers
    }
    against = ", ".join(f"{p} {geometric_mean(r):.2f} ({len(r)})" for p, r in each.items() if r)
    tail = f"Of each peer, on the networks that it runs: {against}." if against else ""
    return "\n\n".join(p for p in (_markdown(head, rows), mean, tail) if p)


def _ms(net: dict[str, Any], name: str) -> str:
    """Milliseconds; ! where the answers differ from the referee's, ~ where rounds differ."""
    row = net["engines"].get(name)
    if row is None:
        return "-"
    marks = ("" if row["agrees"] else " !") + (" ~" if spread(row) > 0.1 else "")
    return f"{1e3 * median(row):.3g}{marks}"


def _resources(nets: Sequence[dict[str, Any]], order: Sequence[str]) -> str:
    head = ["network", *(f"{n}: {what}" for n in order for what in ("RSS", "load s", "MB"))]
    rows = []
    for net in nets:
        cells = []
        for name in order:
            row = net["engines"].get(name)
            cells += ["-"] * 3 if row is None else [
                f"{row['run_peak_bytes'] / 1e6:.0f}", f"{row['load_s']:.2f}",
                f"{row['bytes'] / 1e6:.1f}",
            ]  # fmt: skip
        rows.append([net["network"], *cells])
    compiled = [n["engines"][OURS]["convert_s"] for n in nets if OURS in n["engines"]]
    cold = f" Onefold compiled them in {min(compiled):.1f} to {max(compiled):.1f} s before that." \
        if compiled else ""  # fmt: skip
    text = ("Peak resident MB of the running network beyond the interpreter's, seconds to import "
            "and load what was converted before, MB on disk of what is loaded." + cold)  # fmt: skip
    return f"{text}\n\n{_markdown(head, rows)}"


def _skips(nets: Sequence[dict[str, Any]]) -> str:
    reasons: dict[tuple[str, str], list[str]] = {}
    for net in nets:
        for name, why in net["skipped"].items():
            reasons.setdefault((name, why.replace("\n", " ")), []).append(net["network"])
    every = len(nets)
    lines = [
        f"- {name}, {'all' if len(who) == every else ', '.join(who)}: {why}"
        for (name, why), who in sorted(reasons.items())
    ]
    return "Left out:\n\n" + "\n".join(lines) if lines else ""


def _number(x: float) -> str:
    return "-" if math.isnan(x) else f"{x:.2f}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in rows])


# --- a picture ------------------------------------------------------------------------------------

COLOURS = ["#222222", "#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#bcbd22",
           "#17becf", "#d62728"]  # fmt: skip
LEFT, WIDTH, ROW = 170, 560, 22


def plot(results: dict[str, Any]) -> str:
    """SVG: one line per network, speeds relative to the best peer, on a logarithmic axis."""
    nets = [n for n in results["networks"].values() if best_peer(n)]
    order = engines(nets)
    speeds = [
        {n: median(net["engines"][best_peer(net)]) / median(row) for n, row in
         net["engines"].items() if row["agrees"]}
        for net in nets
    ]  # fmt: skip
    every = [s for line in speeds for s in line.values()] or [1.0]
    low, high = max(0.1, min(every) / 1.1), max(2.0, max(every) * 1.1)

    def x(speed: float) -> float:
        return LEFT + WIDTH * math.log(max(speed, low) / low) / math.log(high / low)

    out = []
    height = 60 + ROW * len(nets)
    for tick in (t for t in (0.1, 0.2, 0.5, 1, 1.5, 2, 3, 5, 10) if low <= t <= high):
        colour = "#888888" if tick == 1 else "#dddddd"
        out.append(f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="34" y2="{height - 20}" '
                   f'stroke="{colour}"/>')  # fmt: skip
        out.append(_text(x(tick), height - 6, f"{tick:g}x", "middle"))
    for k, (net, line) in enumerate(zip(nets, speeds, strict=True)):
        y = 44 + ROW * k
        out.append(_text(LEFT - 8, y + 4, net["network"], "end"))
        if OURS in line:
            start, end = sorted((x(1), x(line[OURS])))
            out.append(f'<rect x="{start:.1f}" y="{y - 5}" width="{end - start:.1f}" height="10" '
                       f'fill="{COLOURS[0]}"/>')  # fmt: skip
        for name in reversed(order[1:]):
            if name in line:
                colour = COLOURS[1 + order[1:].index(name) % (len(COLOURS) - 1)]
                out.append(f'<circle cx="{x(line[name]):.1f}" cy="{y}" r="4" fill="{colour}"/>')
    for k, name in enumerate(order):
        colour = COLOURS[0] if k == 0 else COLOURS[1 + (k - 1) % (len(COLOURS) - 1)]
        out.append(f'<rect x="{LEFT + 92 * k}" y="8" width="10" height="10" fill="{colour}"/>')
        out.append(_text(LEFT + 92 * k + 14, 17, name, "start"))
    body = "\n".join(out)
    width = max(LEFT + WIDTH + 30, LEFT + 92 * len(order))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" '
            f'fill="white"/>\n{body}\n</svg>\n')  # fmt: skip


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


# --- a page ---------------------------------------------------------------------------------------

HEAD = """# Speed

Medians of calls on one machine, every engine in a process of its own, pinned, in turns, with loops
that measure the machine's peak in the same rounds. Networks are standard architectures with random
weights (`bench/zoo`), quantized by ONNX Runtime where they are int8, and trained models where the
name ends in `.onnx` or `.tflite`. Shares of the peak and the roofline count the operations of the
direct method, so that Winograd convolutions may exceed them. `!` marks answers that differ from the
referee's, `~` rounds whose quartiles are more than a tenth apart.
"""


def page(found: Mapping[str, dict[str, Any]], pictures: str) -> str:
    """Markdown of several results, by the names of their files."""
    parts = [HEAD]
    for name, results in found.items():
        parts.append(f"## {_title(results)}\n\n    {_command(results)}\n\n"
                     f"![speed, {_title(results)}]({pictures}/speed-{name}.svg)\n\n"
                     f"{table(results)}")  # fmt: skip
    return "\n".join(parts)


def _title(results: dict[str, Any]) -> str:
    threads, options = results["threads"], results["options"]
    told = "".join(f", {k} {v}" for k, v in options.items())
    return f"{results['precision']}, {threads} thread{'s' if threads > 1 else ''}{told}"


def _command(results: dict[str, Any]) -> str:
    words = [f"--precision {results['precision']}", f"--threads {results['threads']}"]
    if results["options"]:
        words.append("--option " + " ".join(f"{k}={v}" for k, v in results["options"].items()))
    return "python -m bench.run --networks all " + " ".join(words)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "bench" / "results"
    found = {p.stem: json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))}
    docs = ROOT / "docs"
    for name, results in found.items():
        (docs / "pictures" / f"speed-{name}.svg").write_text(plot(results))
    (docs / "speed.md").write_text(page(found, "pictures"))


if __name__ == "__main__":
    main()
