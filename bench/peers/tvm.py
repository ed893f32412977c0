"""TVM, not tuned."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.job import Job
from bench.peers import Loaded, only


class Tvm:
    name = "tvm"
    runs: Sequence[str] = ("tvm",)
    distributions: Sequence[str] = ("apache-tvm",)

    def converts(self, job: Job) -> Sequence[str]:
        return ("tvm", "onnx")

    def refuses(self, job: Job) -> str:
        return only(job, ("onnx",), ("f32",))

    def convert(self, job: Job) -> list[Path]:
        import onnx
        import tvm
        from tvm.relax.frontend.onnx import from_onnx
        from tvm.target.codegen import llvm_get_system_cpu

        module = from_onnx(onnx.load(job.model), keep_params_in_input=False)
        target = {"kind": "llvm", "mcpu": llvm_get_system_cpu()}
        path = job.at / "model.so"
        tvm.compile(module, target=tvm.target.Target(target)).export_library(str(path))
        return [path]

    def load(self, job: Job, feeds: dict[str, Any]) -> Loaded:
        os.environ["TVM_NUM_THREADS"] = str(job.threads)
        import tvm
        from tvm import relax

        library = tvm.runtime.load_module(str(job.at / "model.so"))
        run = relax.VirtualMachine(library, tvm.cpu())["main"]
        ins = [tvm.runtime.tensor(a) for a in feeds.values()]
        last: list[Any] = [None]

        def call() -> None:
            last[0] = run(*ins)

        def outputs() -> list[Any]:
            outs = [last[0]] if hasattr(last[0], "numpy") else list(last[0])
            return [x.numpy() for x in outs]

        return call, outputs


ENGINE = Tvm
