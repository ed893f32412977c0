"""ncnn; pnnx converts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.job import Job, Skip
from bench.peers import Loaded, only

SHORT = {"float32": "f32", "int64": "i64", "int32": "i32"}


class Ncnn:
    name = "ncnn"
    converts: Sequence[str] = ("pnnx",)
    runs: Sequence[str] = ("ncnn",)
    distributions: Sequence[str] = ("ncnn", "pnnx")

    def refuses(self, job: Job) -> str:
        return only(job, ("onnx",), ("f32", "bf16"))

    def convert(self, job: Job) -> list[Path]:
        model = job.at / "model.onnx"
        model.unlink(missing_ok=True)
        model.symlink_to(job.model)
        shapes = ",".join(
            "[" + ",".join(map(str, a.shape)) + "]" + SHORT[a.dtype.name]
            for a in job.feeds().values()
        )
        tool = Path(sys.executable).with_name("pnnx")
        command: list[str | Path] = [tool, model, "fp16=0", f"inputshape={shapes}"]
        done = subprocess.run(command, cwd=job.at, capture_output=True, text=True, check=False)
        files = [job.at / "model.ncnn.param", job.at / "model.ncnn.bin"]
        if done.returncode or not all(f.exists() for f in files):
            raise Skip("pnnx: " + (done.stdout + done.stderr).strip()[-200:])
        missing = [w for w in files[0].read_text().split() if w.startswith("pnnx.")]
        if missing:
            raise Skip("no layer for " + ", ".join(sorted(set(missing))))
        return files

    def load(self, job: Job, feeds: dict[str, Any]) -> Loaded:
        import ncnn

        net = ncnn.Net()
        net.opt.num_threads = job.threads
        net.opt.use_vulkan_compute = False
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_storage = job.precision == "bf16"
        if net.load_param(str(job.at / "model.ncnn.param")):
            raise Skip("it does not load the converted network")
        net.load_model(str(job.at / "model.ncnn.bin"))
        ins = [(f"in{k}", ncnn.Mat(_unbatched(a))) for k, a in enumerate(feeds.values())]
        count = len(job.outputs)
        last: list[Any] = [None] * count

        def call() -> None:
            run = net.create_extractor()
            for name, mat in ins:
                run.input(name, mat)
            for k in range(count):
                status, last[k] = run.extract(f"out{k}")
                if status:
                    raise Skip(f"it fails in the converted network with {status}")

        return call, lambda: [np.array(x) for x in last]


def _unbatched(a: Any) -> Any:
    """ncnn knows no batch, and no 64-bit integers."""
    a = a[0] if a.ndim > 1 and a.shape[0] == 1 else a
    return np.ascontiguousarray(a.astype(np.int32) if a.dtype == np.int64 else a)


ENGINE = Ncnn
