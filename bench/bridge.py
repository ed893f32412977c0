"""ONNX models as PyTorch modules, for the engines that read nothing else."""

from __future__ import annotations

from typing import Any

from bench.job import Job, Skip


def as_torch(job: Job) -> tuple[Any, tuple[Any, ...]]:
    """The model as a module, and its inputs. Raises Skip where an operator has no counterpart."""
    import onnx2torch
    import torch

    try:
        module = onnx2torch.convert(job.model)
    except NotImplementedError as e:
        raise Skip(f"onnx2torch: {e}") from None
    feeds = job.feeds()
    return module.eval(), tuple(torch.from_numpy(a) for a in feeds.values())
