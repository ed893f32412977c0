"""MNN, through its session interface."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.job import Job, Skip
from bench.peers import Loaded, last_line, only

# Not by its command mnnconvert, which installs a package with pip and sends what it converts home.
CONVERT = "import sys, _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"


class Mnn:
    name = "mnn"
    runs: Sequence[str] = ("MNN",)
    distributions: Sequence[str] = ("mnn",)

    def converts(self, job: Job) -> Sequence[str]:
        return ("MNN",)

    def refuses(self, job: Job) -> str:
        return only(job, ("onnx",), ("f32",))

    def convert(self, job: Job) -> list[Path]:
        path = job.at / "model.mnn"
        command: list[str | Path] = [
            sys.executable, "-c", CONVERT, "-f", "ONNX", "--modelFile", job.model,
            "--MNNModel", path, "--bizCode", "bench", "--useOriginRNNImpl",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=job.at, capture_output=True, text=True, check=False)
        if done.returncode or not path.exists():
            raise Skip("its converter: " + last_line(done.stdout + done.stderr))
        return [path]

    def load(self, job: Job, feeds: dict[str, Any]) -> Loaded:
        import MNN

        interpreter = MNN.Interpreter(str(job.at / "model.mnn"))
        config = {"backend": "CPU", "numThread": job.threads, "precision": "high"}
        session = interpreter.createSession(config)
        kinds = {"float32": MNN.Halide_Type_Float, "int32": MNN.Halide_Type_Int}
        for name, tensor in interpreter.getSessionInputAll(session).items():
            a = feeds[name].astype(np.int32) if feeds[name].dtype == np.int64 else feeds[name]
            interpreter.resizeTensor(tensor, a.shape)
            interpreter.resizeSession(session)
            plain = MNN.Tensor(a.shape, kinds[a.dtype.name], a, MNN.Tensor_DimensionType_Caffe)
            tensor.copyFrom(plain)

        def outputs() -> list[Any]:
            found = interpreter.getSessionOutputAll(session)
            out = []
            for name in job.outputs:
                shape = found[name].getShape()
                host = MNN.Tensor(shape, MNN.Halide_Type_Float, np.zeros(shape, np.float32),
                                  MNN.Tensor_DimensionType_Caffe)  # fmt: skip
                found[name].copyToHostTensor(host)
                out.append(np.array(host.getNumpyData()).reshape(shape))
            return out

        return lambda: interpreter.runSession(session), outputs


ENGINE = Mnn
