"""ExecuTorch with XNNPACK. Its Python runtime brings PyTorch along, which its memory shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.job import Job
from bench.peers import Loaded, only


class ExecuTorch:
    name = "executorch"
    runs: Sequence[str] = ("executorch",)
    distributions: Sequence[str] = ("executorch",)

    def converts(self, job: Job) -> Sequence[str]:
        return ("executorch", "onnx")

    def refuses(self, job: Job) -> str:
        return only(job, ("onnx",), ("f32",))

    def convert(self, job: Job) -> list[Path]:
        import torch
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        from bench.bridge import as_torch

        module, example = as_torch(job)
        exported = torch.export.export(module, example)
        edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        path = job.at / "model.pte"
        path.write_bytes(edge.to_executorch().buffer)
        return [path]

    def load(self, job: Job, feeds: dict[str, Any]) -> Loaded:
        import torch
        from executorch.extension.pybindings import portable_lib

        portable_lib._unsafe_reset_threadpool(job.threads)
        module = portable_lib._load_for_executorch(str(job.at / "model.pte"))
        ins = [torch.from_numpy(a) for a in feeds.values()]
        last: list[Any] = []

        def call() -> None:
            last[:] = module.forward(ins)

        return call, lambda: [x.numpy() for x in last]


ENGINE = ExecuTorch
