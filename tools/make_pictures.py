"""Makes the pictures of the docs: real commands, run now, their terminal drawn as SVG.

    python -m tools.make_pictures [NAME...]
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tools.doc_blocks import DEMO, ROOT

PICTURES = ROOT / "docs" / "pictures"
WIDTH = 106
SCENES: dict[str, tuple[tuple[str, str], ...]] = {
    "demo": (("make demo", f"{sys.executable} {ROOT / 'demo' / 'demo.py'}"),),
    "run": (
        ("onefold run digits.onnx --input three.png --top 3", ""),
        ("onefold check digits.onnx", ""),
    ),
    "build": (("onefold build digits.onnx --target cortex-m4f --out firmware", ""),),
    "memory": (("onefold inspect digits.onnx --memory | tail -n 18", ""),),
}
"""By name of the picture: the commands shown, and what is run instead where that differs."""


def main() -> int:
    PICTURES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or SCENES:
        _draw(name)
        print(PICTURES / f"{name}.svg")
    return 0


def _draw(name: str) -> None:
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    with tempfile.TemporaryDirectory(prefix="onefold-docs-") as folder:
        for file in DEMO:
            (Path(folder) / file).write_bytes((ROOT / "demo" / file).read_bytes())
        for shown, instead in SCENES[name]:
            console.print(Text.assemble(("$ ", "bold green"), (shown, "bold")))
            console.print(Text.from_ansi(_run(instead or shown, folder)))
    # A picture in a page loads nothing from elsewhere, so the web font goes.
    plain = re.sub(r"@font-face \{\{.*?\n    \}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    svg = console.export_svg(title=f"onefold: {name}", theme=MONOKAI, code_format=plain,
                             unique_id=f"onefold-{name}")  # fmt: skip
    rows = (row.rstrip() for row in svg.splitlines())
    (PICTURES / f"{name}.svg").write_text("\n".join(rows) + "\n", "utf-8")


def _run(command: str, folder: str) -> str:
    environment = {
        **os.environ, "FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "TTY_INTERACTIVE": "0",
        "ONEFOLD_CACHE_DIR": f"{folder}/cache",  # nothing compiled beforehand
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=folder, text=True,
                          env=environment, stdout=subprocess.PIPE, timeout=600, check=True)
    return done.stdout.replace(f"{folder}/", "").rstrip("\n")


if __name__ == "__main__":
    sys.exit(main())
