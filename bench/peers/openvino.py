"""OpenVINO: the model in its own format, and its CPU plug-in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.job import Job
from bench.peers import Loaded, only


class OpenVino:
    name = "openvino"
    runs: Sequence[str] = ("openvino",)
    distributions: Sequence[str] = ("openvino",)

    def converts(self, job: Job) -> Sequence[str]:
        return ("openvino",)

    def refuses(self, job: Job) -> str:
        return only(job, ("onnx", "tflite"), ("f32", "bf16", "int8"))

    def convert(self, job: Job) -> list[Path]:
        import openvino as ov

        path = job.at / "model.xml"
        ov.save_model(ov.Core().read_model(job.model), path, compress_to_fp16=False)
        return [path, path.with_suffix(".bin")]

    def load(self, job: Job, feeds: dict[str, Any]) -> Loaded:
        import openvino as ov

        config = {
            # Without the hint it computes f32 networks in bf16 where the machine can.
            "INFERENCE_PRECISION_HINT": "bf16" if job.precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": job.threads,
            "NUM_STREAMS": 1,
        }
        compiled = ov.Core().compile_model(job.at / "model.xml", "CPU", config)
        request = compiled.create_infer_request()
        held = {}
        for port in compiled.inputs:
            (name,) = [n for n in feeds if n in port.names]
            held[name] = ov.Tensor(np.ascontiguousarray(feeds[name]), shared_memory=True)
            request.set_tensor(port, held[name])
        start, wait = request.start_async, request.wait

        def call() -> None:
            start(share_inputs=True)
            wait()

        def outputs() -> list[Any]:
            assert held  # the request reads from these arrays
            return [np.array(request.get_tensor(port).data) for port in compiled.outputs]

        return call, outputs


ENGINE = OpenVino
