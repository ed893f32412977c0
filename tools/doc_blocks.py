"""The code blocks of the documentation: found, run, and their shown output renewed.

The first word behind the fence is the language, further words say what becomes of the block:

    ```python                   is executed
    ```sh run                   is executed by bash, stopping at the first failure
    ```console run              its lines behind `$ ` are executed, the others are their output
    ```console run=1            the same, and the exit code must be 1
    ```console run some         the output shown is a part of it, and is not renewed
    ```console run exact=PROG   the output must be what is shown, where PROG is installed
    ```sh run needs=PROGRAM     the test of the page is skipped where there is no such program
    ```c file=app.c             is written to a file

Everything else is shown only. The blocks of one page run in order, in one folder that begins with
the files of the demo.

    python -m tools.doc_blocks --renew [PAGE...]      run pages and rewrite the output they show
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ("digits.onnx", "three.png", "five.png", "test_digits.npz")
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WIDTH = 100


@dataclass(frozen=True)
class Block:
    """A fenced block: language, the words behind it, its text, and where the text lies."""

    language: str
    words: tuple[str, ...]
    text: str
    span: tuple[int, int]
    line: int

    @property
    def file(self) -> str:
        """The file that it is written to, or nothing."""
        return next((w[5:] for w in self.words if w.startswith("file=")), "")

    @property
    def exact(self) -> str:
        """The program without which its output may differ from what is shown; or nothing."""
        return next((w[6:] for w in self.words if w.startswith("exact=")), "")

    @property
    def exit_code(self) -> int | None:
        """How it must end; None for a block that is not run."""
        if self.language == "python" and not self.file:
            return 0
        for word in self.words:
            if word.split("=")[0] == "run":
                return int(word.partition("=")[2] or 0)
        return None


class BlockError(Exception):
    """A block did not end as it says."""


def pages() -> list[Path]:
    """README and all pages of the docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    for m in FENCE.finditer(text):
        language, *words = m[1].split() or [""]
        line = text.count("\n", 0, m.start()) + 1
        found.append(Block(language, tuple(words), m[2], m.span(2), line))
    return found


def run_page(path: Path, folder: Path) -> Iterator[tuple[Block, str]]:
    """Runs the blocks of a page in the folder; yields what each console block shows now.

    Raises BlockError for a block that ends in another way than it says.
    """
    for name in DEMO:
        shutil.copyfile(ROOT / "demo" / name, folder / name)
    for block in blocks(path.read_text("utf-8")):
        if block.file:
            (folder / block.file).write_text(block.text, "utf-8")
        elif block.exit_code is not None:
            yield block, _run(block, f"{path.name}:{block.line}", folder)


def _run(block: Block, where: str, folder: Path) -> str:
    if block.language == "console":
        commands = [row[2:] for row in block.text.splitlines() if row.startswith("$ ")]
        done = [_bash(c, folder, block.exit_code or 0, where) for c in commands]
        return "".join(f"$ {c}\n{out}" for c, out in zip(commands, done, strict=True))
    if block.language == "python":
        return _call([sys.executable, "-c", block.text], folder, 0, where)
    return _bash(block.text, folder, block.exit_code or 0, where)


def _bash(text: str, folder: Path, wanted: int, where: str) -> str:
    return _call(["bash", "-euo", "pipefail", "-c", text], folder, wanted, where)


def _call(command: list[str], folder: Path, wanted: int, where: str) -> str:
    environment = {**os.environ, "COLUMNS": str(WIDTH), "NO_COLOR": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["ONEFOLD_TUNED_DIR"] = str(folder / ".tuned")  # not the reader's own
    done = subprocess.run(command, cwd=folder, env=environment, text=True, timeout=600,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    if done.returncode != wanted:
        raise BlockError(f"{where}: exit code {done.returncode}, not {wanted}\n{command[-1]}\n"
                         f"{done.stdout}")  # fmt: skip
    # Where the folder lies is no business of the reader.
    rows = done.stdout.replace(f"{folder}/", "").splitlines()
    return "".join(row.rstrip() + "\n" for row in rows)


def renew(path: Path) -> bool:
    """Runs a page and rewrites the output that it shows; whether that changed anything."""
    text = path.read_text("utf-8")
    new = text
    with tempfile.TemporaryDirectory(prefix="onefold-docs-") as folder:
        shown = list(run_page(path, Path(folder)))
    for block, output in reversed(shown):
        if block.language == "console" and "some" not in block.words:
            new = new[: block.span[0]] + output + new[block.span[1] :]
    if new != text:
        path.write_text(new, "utf-8")
    return new != text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--renew", nargs="*", metavar="PAGE", required=True)
    names = parser.parse_args().renew
    for path in [Path(n).resolve() for n in names] or pages():
        print(f"{path.name}: {'changed' if renew(path) else 'as it was'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
