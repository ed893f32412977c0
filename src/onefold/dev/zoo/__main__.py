"""The command line of the package, see there."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from onefold import knobs
from onefold.dev.zoo.judge import Row, judge
from onefold.dev.zoo.page import page
from onefold.errors import OptionError


def model_files(root: Path) -> list[Path]:
    """Every ONNX and TFLite model of the test data, by name."""
    return sorted([*root.glob("models/onnx/*.onnx"), *root.glob("models/tflite/*.tflite")])


def rows_of(files: Sequence[Path], root: Path, take: int, timing: bool) -> Iterator[Row]:
    for path in files:
        for row in judge(path, root / "data", take, timing):
            verdict = "refused, as it should be" if row.refused else "ok" if row.ok else "FAILS"
            print(f"{row.format}/{row.name}: {verdict}", file=sys.stderr)
            for problem in row.problems:
                print(f"    {problem}", file=sys.stderr)
            sys.stderr.flush()
            yield row


def main(argv: Sequence[str] | None = None) -> int:
    ap = argparse.ArgumentParser(description="Every real model against its own runtime")
    ap.add_argument("--only", default="", help="only models whose path has this text")
    ap.add_argument("--take", type=int, default=0, help="at most so many samples of a data set")
    ap.add_argument("--no-times", action="store_true", help="do not measure how long a run takes")
    ap.add_argument("--json", type=Path)
    ap.add_argument("--markdown", type=Path)
    args = ap.parse_args(argv)
    root = knobs.TESTDATA.get()
    if root is None:
        raise OptionError("there are no models", remedy="Set ONEFOLD_TESTDATA to their folder.")
    files = [p for p in model_files(root) if args.only in f"{p.parent.name}/{p.name}"]
    with tempfile.TemporaryDirectory(prefix="onefold-zoo-") as folder:
        os.environ["ONEFOLD_CACHE_DIR"] = folder  # so that every compilation is a cold one
        rows = list(rows_of(files, root, args.take, not args.no_times))
    if args.json:
        args.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n", "utf-8")
    if args.markdown:
        args.markdown.parent.mkdir(parents=True, exist_ok=True)
        args.markdown.write_text(page(rows), "utf-8")
    failing = sum(not r.ok for r in rows)
    print(f"{len(rows)} rows, {failing} failing")
    return 1 if failing else 0


if __name__ == "__main__":
    raise SystemExit(main())
