"""IREE, on the calling thread or on its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.job import Job, Skip
from bench.peers import Loaded, only

# Without it convolutions of NCHW take two to five times as long.
CHANNELS_LAST = "builtin.module(util.func(iree-preprocessing-convert-conv-to-channels-last))"


class Iree:
    name = "iree"
    runs: Sequence[str] = ("iree.runtime",)
    distributions: Sequence[str] = ("iree-base-compiler", "iree-base-runtime")

    def converts(self, job: Job) -> Sequence[str]:
        return ("iree.compiler", "onnx")

    def refuses(self, job: Job) -> str:
        return only(job, ("onnx",), ("f32",))

    def convert(self, job: Job) -> list[Path]:
        mlir, path = job.at / "model.mlir", job.at / "model.vmfb"
        _run(job, sys.executable, "-m", "iree.compiler.tools.import_onnx", job.model, "-o", mlir)
        _run(job, Path(sys.executable).with_name("iree-compile"), mlir, "-o", path,
             "--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu",
             "--iree-llvmcpu-target-cpu=host", "--iree-opt-level=O3",
             f"--iree-preprocessing-pass-pipeline={CHANNELS_LAST}")  # fmt: skip
        mlir.unlink()
        return [path]

    def load(self, job: Job, feeds: dict[str, Any]) -> Loaded:
        import iree.runtime as rt

        driver = "local-sync"
        if job.threads > 1:
            driver = "local-task"
            rt.flags.parse_flags(f"--task_topology_max_group_count={job.threads}")
        module = rt.load_vm_flatbuffer_file(str(job.at / "model.vmfb"), driver=driver)
        (name,) = [n for n in module.vm_module.function_names
                   if not n.startswith("_") and "$" not in n]  # fmt: skip
        run = module[name]
        config = rt.get_device(driver)
        ins = [rt.asdevicearray(config, np.ascontiguousarray(a)) for a in feeds.values()]
        last: list[Any] = [None]

        def call() -> None:
            last[0] = run(*ins)

        def outputs() -> list[Any]:
            outs = last[0] if isinstance(last[0], tuple) else (last[0],)
            return [x.to_host() for x in outs]

        return call, outputs


def _run(job: Job, *command: str | Path) -> None:
    done = subprocess.run(command, cwd=job.at, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [ln for ln in done.stderr.splitlines() if "error" in ln] or ["it fails"]
        raise Skip(lines[0].strip()[-200:])


ENGINE = Iree
