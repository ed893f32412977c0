"""LiteRT with XNNPACK. ONNX models come to it through PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.job import Job
from bench.peers import Loaded, only


class LiteRt:
    name = "litert"
    runs: Sequence[str] = ("ai_edge_litert",)
    distributions: Sequence[str] = ("ai-edge-litert",)

    def converts(self, job: Job) -> Sequence[str]:
        return ("litert_torch", "onnx") if job.format == "onnx" else self.runs

    def refuses(self, job: Job) -> str:
        if job.format == "onnx" and job.precision == "int8":
            return "its converter does not read QDQ models"
        return only(job, ("onnx", "tflite"), ("f32", "int8"))

    def convert(self, job: Job) -> list[Path]:
        if job.format == "tflite":
            return [Path(job.model)]
        import litert_torch

        from bench.bridge import as_torch

        module, example = as_torch(job)
        path = job.at / "model.tflite"
        litert_torch.convert(module, example).export(str(path))
        return [path]

    def load(self, job: Job, feeds: dict[str, Any]) -> Loaded:
        from ai_edge_litert.interpreter import Interpreter

        path = job.model if job.format == "tflite" else str(job.at / "model.tflite")
        it = Interpreter(model_path=path, num_threads=job.threads)
        it.allocate_tensors()
        ports = it.get_input_details()
        if job.format == "onnx":  # args_0, args_1, ... in the model's order
            ports = sorted(ports, key=lambda t: int(t["name"].split("args_")[1].split(":")[0]))
        for port, array in zip(ports, feeds.values(), strict=True):
            it.set_tensor(port["index"], array.reshape(port["shape"]).astype(port["dtype"]))
        outs = [t["index"] for t in it.get_output_details()]
        return it.invoke, lambda: [np.array(it.get_tensor(k)) for k in outs]


ENGINE = LiteRt
