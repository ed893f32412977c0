"""The page about sizes says what follows from its figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import sizes


def row(network: str, library: int, memory: int, ms: float) -> dict[str, Any]:
    """Measured figures: for size half the library, and what is given."""
    return {
        "network": network, "precision": "f32", "source": 1_000_000,
        "goals": {
            "latency": {"library": 2 * library, "weights": 10**6, "memory": memory, "ms": 1.0},
            "size": {"library": library, "weights": 10**6, "memory": memory, "ms": ms},
        },
    }  # fmt: skip


def results(path: Path, network: str, taken: dict[str, int], threads: int = 1) -> None:
    engines = {name: {"run_peak_bytes": n} for name, n in taken.items()}
    path.write_text(json.dumps({
        "precision": "f32", "threads": threads, "options": {},
        "networks": {network: {"engines": engines}},
    }))  # fmt: skip


def test_page(tmp_path: Path) -> None:
    results(tmp_path / "a.json", "small", {"onefold": 1, "p": 9_000_000, "q": 7_000_000})
    results(tmp_path / "b.json", "small", {"p": 6_000_000})
    results(tmp_path / "c.json", "large", {"q": 90_000_000})
    results(tmp_path / "d.json", "large", {"q": 1}, threads=2)
    others = sizes.peers_memory([tmp_path])
    assert others == {("small", "f32"): {"p": 6_000_000, "q": 7_000_000},
                      ("large", "f32"): {"q": 90_000_000}}  # fmt: skip
    rows = [row("small", 100_000, 6_500_000, 1.1), row("large", 400_000, 80_000_000, 1.21),
            row("a.onnx", 100_000, 10, 2.0)]  # fmt: skip
    text = sizes.page(rows, others)
    assert "Over the limit for latency: none; for size: large." in text
    assert "For size calls of 2 networks of the zoo take 1.154 times" in text
    assert "calls of 1 trained models take 2.000 times" in text
    assert text.count("on 1 of the 2 networks that others were measured on. "
                      "The others: small (6.5, p 6.0).") == 2  # fmt: skip
    line = next(t for t in text.splitlines() if t.startswith("| large"))
    assert line == ("| large | 1.00 | 1.00 | 0.80 | 1.00 | 80.0 | 1.00 | 0.40 | 1.06 | 80.0 | 1.21 "
                    "| 90.0 q |")  # fmt: skip
    assert next(t for t in text.splitlines() if t.startswith("| a.onnx")).endswith("| - |")


def test_the_limit_of_size() -> None:
    assert sizes.room(row("n", 320_000, 0, 1.0), "size") == pytest.approx(1.0)
