"""Onefold: a compiled library and its weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.job import Job, Skip
from bench.peers import Loaded, only


class Onefold:
    name = "onefold"
    runs: Sequence[str] = ("onefold",)
    distributions: Sequence[str] = ("onefold",)

    def converts(self, job: Job) -> Sequence[str]:
        return ("onefold",)

    def refuses(self, job: Job) -> str:
        return only(job, ("onnx", "tflite"), ("f32", "bf16", "int8", "w8", "w4"))

    def convert(self, job: Job) -> list[Path]:
        self.load(job, job.feeds())  # contents of inputs may decide what is compiled
        return [p for p in job.at.rglob("*") if p.name in ("model.so", "weights.bin")]

    def load(self, job: Job, feeds: dict[str, Any]) -> Loaded:
        program = self._program(job)
        call = program.prepare(feeds)
        return call, lambda: [call.outputs[name] for name in job.outputs]

    def _program(self, job: Job) -> Any:
        os.environ["ONEFOLD_CACHE_DIR"] = job.folder
        import onefold

        precision = "bf16" if job.precision == "bf16" else "f32"
        try:
            return onefold.load(job.model).compile(
                precision=precision, threads=job.threads, fallback=False, **job.options
            )
        except onefold.OnefoldError as e:
            raise Skip(f"{e.code} {e.what}") from None


ENGINE = Onefold
