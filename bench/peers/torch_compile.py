"""PyTorch's own compiler, with the weights as constants."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.job import Job
from bench.peers import Loaded, only


class TorchCompile:
    name = "torch_compile"
    runs: Sequence[str] = ("torch", "onnx")
    distributions: Sequence[str] = ("torch",)

    def converts(self, job: Job) -> Sequence[str]:
        return ("torch", "onnx")

    def refuses(self, job: Job) -> str:
        return only(job, ("onnx",), ("f32",))

    def convert(self, job: Job) -> list[Path]:
        """Fills its cache."""
        self.load(job, job.feeds())[0]()
        return [Path(job.model)]

    def load(self, job: Job, feeds: dict[str, Any]) -> Loaded:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(job.at / "cache")
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        import torch

        from bench.bridge import as_torch

        torch.set_num_threads(job.threads)
        torch.set_grad_enabled(False)
        torch._inductor.config.freezing = True
        module, ins = as_torch(job)
        compiled = torch.compile(module)
        last: list[Any] = [None]

        def call() -> None:
            last[0] = compiled(*ins)

        def outputs() -> list[Any]:
            outs = last[0] if isinstance(last[0], tuple) else (last[0],)
            return [x.numpy() for x in outs]

        return call, outputs


ENGINE = TorchCompile
