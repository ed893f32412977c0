"""Measures the tables of the README and the docs, and writes them between their markers.

    python -m tools.make_tables bench     times, beside other runtimes (the machine must be quiet)
    python -m tools.make_tables sizes     bytes on a microcontroller
    python -m tools.make_tables tuning    estimates beside measured kernels (quiet, and minutes)
    python -m tools.make_tables calls     what a call costs beyond its kernels (quiet)

Real models are taken from the folder that ONEFOLD_TESTDATA names (default: `../shared`), where
there is one; the demo's network is always there. A table `NAME` stands between
`<!-- table:NAME -->` and `<!-- /table:NAME -->`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from onefold import knobs
from tools.doc_blocks import ROOT, pages

DATA = knobs.TESTDATA.get() or ROOT.parent / "shared"
RACES = (
    "onnx/mnist.onnx", "onnx/version-RFB-320.onnx", "onnx/yolox_nano.onnx",
    "onnx/gtcrn_simple.onnx", "onnx/ch_PP-OCRv3_det_infer.onnx",
    "tflite/kws_ref_model.tflite", "tflite/vww_96_int8.tflite", "tflite/vww_96_float.tflite",
    "tflite/mobilenet_v1_0.25_224_1_default_1.tflite", "tflite/mobilenet_v2_1.0_224_quant.tflite",
    "tflite/pretrainedResnet.tflite", "tflite/yamnet_audio_classifier_with_metadata.tflite",
)
FITTED = (
    "tflite/hello_world_int8.tflite", "tflite/kws_ref_model.tflite",
    "tflite/micro_speech_quantized.tflite", "tflite/ad01_int8.tflite",
    "tflite/person_detect.tflite", "tflite/vww_96_int8.tflite",
)
TUNED = ("mobilenet_v2", "resnet50", "minilm6", "ds_cnn")
PEERS = {"onnxruntime": "ONNX Runtime", "litert": "LiteRT"}
SIZES = (("code_bytes", "code"), ("weights_bytes", "weights"), ("arena_bytes", "arena"),
         ("arena_lower_bound", "lower bound"), ("stack_bytes", "stack"))  # fmt: skip


def bench() -> str:
    """Median times of a call and how many times longer the others take."""
    lines = [
        f"One thread of {_machine()}. Median time of a call from Python on random inputs; behind a",
        "runtime's name is its time divided by Onefold's, so that above 1 Onefold is faster.", "",
        "| model | multiply-adds | Onefold | share of f32 peak | "
        + " | ".join(PEERS.values()) + " |",
        "|---|--:|--:|--:|" + "--:|" * len(PEERS),
    ]  # fmt: skip
    lines += [_race(path) for path in _models(RACES)]
    return "\n".join(lines)


def _race(path: Path) -> str:
    facts = _onefold("bench", str(path), "--against", _against(path), "--rounds", "51")
    (m,) = facts["models"]
    by_name = {r["runtime"]: r for r in m["results"]}
    ours = by_name["onefold"]
    busy = any("busy" in note for note in m["notes"])
    peers = [f"{by_name[p]['times_onefold']:.2f}" if p in by_name else "" for p in PEERS]
    cells = [f"`{path.name}`", f"{m['macs'] / 1e6:,.2f} M", _time(ours["median_s"])
             + (" (busy)" if busy else ""), f"{ours['of_peak']:.0%}", *peers]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _against(path: Path) -> str:
    return "onnxruntime" if path.suffix == ".onnx" else "litert"


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


def _machine() -> str:
    """The CPU's model and the number of its cores."""
    rows = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    names = [r.partition(":")[2].strip() for r in rows if r.startswith("model name")]
    return f"an {names[0] if names else 'unnamed CPU'} ({os.cpu_count()} cores)"


def sizes() -> str:
    """What models take on a Cortex-M4 with an FPU, read from the images and measured in QEMU."""
    lines = ["Bytes on a Cortex-M4F, read from the built image; the stack is measured in QEMU.", "",
             "| model | " + " | ".join(title for _, title in SIZES) + " |",
             "|---|" + "--:|" * len(SIZES)]  # fmt: skip
    for path in _models(FITTED):
        with tempfile.TemporaryDirectory(prefix="onefold-docs-") as folder:
            facts = _onefold("build", str(path), "--target", "cortex-m4f", "--out", folder)
        report = facts["report"]
        cells = [f"`{path.name}`", *(f"{report[key]:,}" for key, _ in SIZES)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _models(names: Sequence[str]) -> Iterator[Path]:
    yield ROOT / "demo" / "digits.onnx"
    for name in names:
        if (DATA / "models" / name).exists():
            yield DATA / "models" / name
        else:
            print(f"not there: {name}", file=sys.stderr)


def _onefold(*words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "onefold", *words, "--json"], check=True,
                          stdout=subprocess.PIPE, text=True)  # fmt: skip
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def calls() -> str:
    """What a call costs beyond the kernels."""
    done = subprocess.run([sys.executable, "-m", "bench.calls"], check=True, cwd=ROOT,
                          stdout=subprocess.PIPE, text=True)  # fmt: skip
    return f"One thread of {_machine()}, f32. {done.stdout.strip()}"


def tuning() -> str:
    """How far the kernels that estimates choose are from the fastest."""
    from bench import zoo

    lines = [
        f"One thread of {_machine()}, f32. *Loss*: time of the kernel that the estimate takes",
        "over that of the fastest measured, geometric mean over the layers with a choice; *worst*:",
        "the largest; *of all*: times of all these layers in sum, with the estimate's kernels and",
        "with the fastest.", "",
        "| network | layers | kernels measured | loss | worst | of all, estimated | fastest |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="onefold-docs-") as folder:
        for name in TUNED:
            path = zoo.NETWORKS[name]().save(Path(folder))
            facts = _onefold("tune", str(path), "--budget", "600", "--no-whole")
            layers = facts["layers"]
            cells = [
                f"`{name}`", str(sum(y["count"] for y in layers)),
                str(sum(len(y["times"]) for y in layers)), f"{facts['loss'] - 1:.1%}",
                f"{max(y['gain'] for y in layers) - 1:.1%}", _time(facts["picked_s"]),
                _time(facts["fastest_s"]),
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "bench": bench, "sizes": sizes, "tuning": tuning, "calls": calls,
}  # fmt: skip


def main() -> int:
    for name in sys.argv[1:] or TABLES:
        put(f"table:{name}", TABLES[name]())
    return 0


def put(marker: str, text: str) -> None:
    """Writes a text between the markers of that name, wherever they stand."""
    between = re.compile(f"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)", re.DOTALL)
    for page in pages():
        old = page.read_text("utf-8")
        new = between.sub(lambda m: f"{m[1]}{text}\n{m[2]}", old)
        if new != old:
            page.write_text(new, "utf-8")
            print(f"{page.name}: {marker}")


if __name__ == "__main__":
    sys.exit(main())
