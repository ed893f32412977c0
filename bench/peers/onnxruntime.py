"""ONNX Runtime, with inputs and outputs bound once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.job import Job
from bench.peers import Loaded, only


class OnnxRuntime:
    name = "onnxruntime"
    runs: Sequence[str] = ("onnxruntime",)
    distributions: Sequence[str] = ("onnxruntime",)

    def converts(self, job: Job) -> Sequence[str]:
        return ("onnxruntime",)

    def refuses(self, job: Job) -> str:
        return only(job, ("onnx",), ("f32", "int8", "w8", "w4"))

    def convert(self, job: Job) -> list[Path]:
        return [Path(job.model)]

    def load(self, job: Job, feeds: dict[str, Any]) -> Loaded:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = ort.InferenceSession(job.model, options, ["CPUExecutionProvider"])
        binding = session.io_binding()
        held = []
        for name, array in feeds.items():
            held.append(ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)))
            binding.bind_ortvalue_input(name, held[-1])
        for out in session.get_outputs():
            binding.bind_output(out.name)
        session.run_with_iobinding(binding)
        for out, value in zip(session.get_outputs(), binding.get_outputs(), strict=True):
            binding.bind_ortvalue_output(out.name, value)  # from now on into the same memory
        run = session.run_with_iobinding
        return lambda: run(binding), lambda: [v.numpy() for v in binding.get_outputs()]


ENGINE = OnnxRuntime
