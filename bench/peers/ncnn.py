"""ncnn; pnnx converts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.job import Job, Skip
from bench.peers import Loaded, last_line, only


class Ncnn:
    name = "ncnn"
    runs: Sequence[str] = ("ncnn",)
    distributions: Sequence[str] = ("ncnn", "pnnx")

    def converts(self, job: Job) -> Sequence[str]:
        return ("pnnx",)

    def refuses(self, job: Job) -> str:
        return only(job, ("onnx",), ("f32", "bf16"))

    def convert(self, job: Job) -> list[Path]:
        model = job.at / "model.onnx"
        model.unlink(missing_ok=True)
        model.symlink_to(job.model)
        files = []
        for k, a in enumerate(job.feeds().values()):
            files.append(f"in{k}.npy")
            np.save(job.at / files[-1], a)
        tool = Path(sys.executable).with_name("pnnx")
        command: list[str | Path] = [tool, model, "fp16=0", "input=" + ",".join(files)]
        done = subprocess.run(command, cwd=job.at, capture_output=True, text=True, check=False)
        made = [job.at / "model.ncnn.param", job.at / "model.ncnn.bin"]
        if done.returncode or not all(f.exists() for f in made):
            raise Skip("pnnx: " + last_line(done.stdout + done.stderr))
        missing = [w for w in made[0].read_text().split() if w.startswith("pnnx.")]
        if missing:
            raise Skip("no layer for " + ", ".join(sorted(set(missing))))
        return made

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
    if a.ndim > 1 and 1 in a.shape[:2]:
        a = a.squeeze(a.shape.index(1))
    return np.ascontiguousarray(a.astype(np.int32) if a.dtype == np.int64 else a)


ENGINE = Ncnn
