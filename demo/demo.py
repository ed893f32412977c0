"""Compiles the demo network with Onefold, classifies real digits and compares with ONNX Runtime.

    make demo            or, with Onefold installed:   python demo/demo.py

Exit code 1 if the accuracy is below 98 % or an output differs from ONNX Runtime's by over 1e-4.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

import onefold

HERE = Path(__file__).parent
MODEL = HERE / "digits.onnx"
ROUNDS = 4
SHADES = " .:-=+*#%@"

F32 = NDArray[np.float32]
Run = Callable[[F32], F32]
"""One image [1, 1, 8, 8] in, probabilities [1, 10] out."""


def main() -> int:
    console = Console()
    with np.load(HERE / "test_digits.npz") as data:
        images, labels = data["images"], data["labels"].astype(int)
    inputs = (images / np.float32(16)).astype(np.float32)[:, None, None]
    console.print(f"[bold]{MODEL.name}[/bold]: {MODEL.stat().st_size:,} bytes, trained by "
                  f"demo/train.py; {len(images)} test images that it has never seen")

    begun = time.perf_counter()
    with console.status("compiling with Onefold (the first run also builds what it links with)"):
        program = onefold.load(MODEL).compile()
    took = time.perf_counter() - begun
    begun = time.perf_counter()
    onefold.load(MODEL).compile()
    console.print(f"compiled in {took:.2f} s; again, from the cache, in "
                  f"{time.perf_counter() - begun:.3f} s")

    runs: dict[str, Run] = {"Onefold": lambda x: program(x)["probabilities"]}
    peer = onnx_runtime()
    if peer is None:
        console.print("[yellow]ONNX Runtime is not installed, so there is nothing to compare with. "
                      "Get it with: pip install onnxruntime[/yellow]")
    else:
        runs["ONNX Runtime"] = peer
    outputs, times = measure(runs, inputs)
    accuracy = {name: float((out.argmax(1) == labels).mean()) for name, out in outputs.items()}
    console.print(results(accuracy, times, program.report))
    console.print("one thread, timed around the call from Python", style="dim")
    console.print(gallery(images, labels, outputs["Onefold"]))
    return verdict(console, accuracy["Onefold"], outputs)


def onnx_runtime() -> Run | None:
    """The same network in ONNX Runtime on one thread, or nothing where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        MODEL, sess_options=options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def measure(runs: dict[str, Run], inputs: F32) -> tuple[dict[str, F32], dict[str, list[float]]]:
    """Outputs [n, 10] and microseconds per call; the runtimes take turns, image by image."""
    for run in runs.values():
        for x in inputs[:50]:
            run(x)
    outputs: dict[str, list[F32]] = {name: [] for name in runs}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(ROUNDS):
        order = list(runs.items())[::1 if turn % 2 else -1]
        for x in inputs:
            for name, run in order:
                begun = time.perf_counter_ns()
                out = run(x)
                times[name].append((time.perf_counter_ns() - begun) / 1000)
                if turn == 0:
                    outputs[name].append(np.array(out))
    return {name: np.concatenate(out) for name, out in outputs.items()}, times


def results(accuracy: dict[str, float], times: dict[str, list[float]],
            report: dict[str, Any]) -> Table:
    table = Table()
    table.add_column("one image at a time")
    for name in accuracy:
        table.add_column(name, justify="right")
    table.add_row("accuracy", *(f"{a:.2%}" for a in accuracy.values()))
    table.add_row("median latency", *(f"{median(t):.1f} µs" for t in times.values()))
    table.add_row("fastest call", *(f"{min(t):.1f} µs" for t in times.values()))
    if len(accuracy) == 2:
        ours, theirs = (median(times[name]) for name in accuracy)
        table.add_row("speed", f"{theirs / ours:.2f} x", "1")
    blank = [""] * (len(accuracy) - 1)
    table.add_section()
    table.add_row("multiply-adds", f"{report['macs']:,}", *blank)
    for key in ("code_bytes", "weights_bytes", "arena_bytes", "arena_lower_bound"):
        if key in report:
            label = key.removesuffix("_bytes").replace("_", " ")
            table.add_row(label, f"{report[key]:,} bytes", *blank)
    return table


def gallery(images: NDArray[np.uint8], labels: NDArray[np.int64], outputs: F32) -> Columns:
    """A few digits as text with what the network takes them for, and one that it gets wrong."""
    guesses = outputs.argmax(1)
    right, wrong = np.flatnonzero(guesses == labels), np.flatnonzero(guesses != labels)
    picked = [int(right[labels[right] == digit][0]) for digit in (2, 3, 5, 8)]
    picked += [int(k) for k in wrong[:1]]
    panels = []
    for k in picked:
        rows = "\n".join("".join(SHADES[int(p) * 9 // 16] * 2 for p in row) for row in images[k])
        hit = guesses[k] == labels[k]
        title = f"{guesses[k]} ({outputs[k].max():.0%})" + ("" if hit else f", is {labels[k]}")
        style = "green" if hit else "red"
        panels.append(Panel(rows, title=title, expand=False, border_style=style))
    return Columns(panels)


def verdict(console: Console, accuracy: float, outputs: dict[str, F32]) -> int:
    """Prints how far the two runtimes differ; 1 if anything is not as it should be."""
    good = accuracy >= 0.98
    if len(outputs) == 2:
        ours, theirs = outputs.values()
        difference = float(np.abs(ours - theirs).max())
        same = int((ours.argmax(1) == theirs.argmax(1)).sum())
        console.print(f"largest difference of any output: {difference:.1e}; same class for {same} "
                      f"of {len(ours)} images")
        good = good and difference <= 1e-4
    if not good:
        console.print("[red]not as it should be: see the figures above[/red]")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
