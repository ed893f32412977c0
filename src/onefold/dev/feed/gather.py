"""All inputs of a model: from files where they are given, made up where not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onefold.dev import feed
from onefold.dev.feed import Fed, Port, Style
from onefold.dev.feed.arrays import fitted, read_npz
from onefold.dev.feed.ports import ports_of, random, settle
from onefold.errors import InputError, OnefoldError

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.forms import Wanted


@dataclass(frozen=True)
class Given:
    """Inputs of one call, where each came from, what was assumed."""

    arrays: dict[str, Any]
    sources: dict[str, str]  # file name, or "random"
    notes: dict[str, tuple[str, ...]]
    assumed: tuple[str, ...]
    made_up: bool  # whether the seed played a part


@contextmanager
def assuming(notes: Sequence[str]) -> Iterator[None]:
    """Errors inside tell what had been assumed, which may be their cause."""
    try:
        yield
    except OnefoldError as e:
        e.detail = (*e.detail, *notes)
        raise


def gather(
    model: Model, wanted: Wanted, files: Mapping[str, Path], style: Style, seed: int
) -> Given:
    """Inputs by name; files: input name -> file. Equal seeds give equal inputs."""
    ports = ports_of(model, wanted)
    fed: dict[str, Fed] = {}
    for name, path in files.items():
        fed[name] = feed.read(path, ports[name], style)
    rest, assumed = settle(_with_sizes(ports, fed, model), model)
    rng = np.random.Generator(np.random.PCG64(seed))
    for name in ports:  # in the model's order, so that a seed means the same inputs
        if name not in fed:
            fed[name] = random(rest[name], rng)
    return Given(
        {n: fed[n].array for n in ports},
        {n: files[n].name if n in files else "random" for n in ports},
        {n: fed[n].notes for n in ports}, tuple(assumed), len(files) < len(ports),
    )  # fmt: skip


def from_archive(model: Model, wanted: Wanted, path: Path) -> list[dict[str, Any]]:
    """The samples of a .npz file: arrays by input name, each of the input's own shape (one
    sample) or with one dimension more in front (several)."""
    ports, arrays = ports_of(model, wanted), read_npz(path)
    missing = [n for n in ports if n not in arrays]
    if len(ports) == 1 and missing and len(arrays) == 1:
        arrays = {missing[0]: next(iter(arrays.values()))}
    elif missing:
        raise InputError(f"'{path.name}' has no array '{missing[0]}'",
                         why="it has " + (", ".join(sorted(arrays)) or "none"))  # fmt: skip
    several = {n: _samples(arrays[n], p) for n, p in ports.items()}
    counts = {len(s) for s in several.values()}
    if len(counts) != 1:
        raise InputError("the arrays hold different numbers of samples",
                         why=", ".join(f"{n}: {len(s)}" for n, s in several.items()))  # fmt: skip
    return [{n: fitted(s[k], ports[n]).array for n, s in several.items()} for k in range(*counts)]


def _samples(array: Any, port: Port) -> Sequence[Any]:
    rank = array.ndim if port.shape is None else len(port.shape)
    if array.ndim == rank + 1:
        return list(array)
    first = None if port.shape is None or not port.shape else port.shape[0]
    if array.ndim == rank and first == 1 and array.shape[0] > 1:  # a stack of batches of one
        return [array[k : k + 1] for k in range(array.shape[0])]
    return [array]


def _with_sizes(ports: Mapping[str, Port], fed: Mapping[str, Fed], model: Model) -> dict[str, Port]:
    """The ports that are still empty, with the open dimensions that the given arrays fix."""
    known: dict[str, int] = {}
    declared = {d.name: d for d in model.inputs}
    for name, f in fed.items():
        for k, size in enumerate(f.array.shape if declared[name].shape is not None else ()):
            known[declared[name].dim_name(k)] = size
    out = {}
    for name, p in ports.items():
        if name in fed:
            continue
        shape = None if p.shape is None else tuple(
            known.get(declared[name].dim_name(k)) if d is None else d for k, d in enumerate(p.shape)
        )  # fmt: skip
        out[name] = Port(p.name, p.dtype, shape, p.scale, p.zero_point, p.channels_last)
    return out
