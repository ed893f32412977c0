"""ONEFOLD_DUMP: every stage of a compilation as numbered files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from onefold import events

if TYPE_CHECKING:
    from onefold.plan.program import Program


class Dump:
    """Writes the graph as imported and after each pass that changed it, the plan, the arena over
    time, and the C sources; several compilations follow one another in one numbering."""

    numbers: ClassVar[dict[Path, int]] = {}  # the next one, for each folder of this process

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, event: events.Event) -> None:
        facts = event.facts
        if event.kind == "import":
            self._write("import.txt", f"{facts['graph']}\n")
        elif event.kind == "pass" and facts["changes"]:
            self._write(f"{_file_name(facts['name'])}.txt", f"{facts['graph']}\n")
        elif event.kind == "plan":
            self._write("plan.json", json.dumps(plan_facts(facts["program"]), indent=1))
            from onefold.dev.arena_view import text

            self._write("memory.txt", text(facts["program"]))
        elif event.kind == "sources":
            for name, source in facts["files"].items():
                self._write(_file_name(name), source)

    def _write(self, name: str, text: str) -> None:
        from onefold.run import store

        number = self.numbers.get(self.folder, 0)
        self.numbers[self.folder] = number + 1
        path = self.folder / f"{number:02d}-{name}"
        with store.writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8", errors="backslashreplace")


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[:80] or "_"


def plan_facts(program: Program) -> dict[str, Any]:
    """The plan as plain data: steps with their buffers, buffers with their places."""
    number = {id(b): k for k, b in enumerate(program.buffers)}
    return {
        "name": program.name, "arena_bytes": program.arena_bytes,
        "arena_lower_bound": program.arena_lower_bound, "algorithm": program.arena_algorithm,
        "weights_bytes": program.weights_bytes, "state_bytes": program.state_bytes,
        "steps": [
            {"op": s.op, "layers": list(s.origin.layers), "algorithm": s.algorithm, "macs": s.macs,
             "reads": [number[id(b)] for b in s.reads], "writes": [number[id(b)] for b in s.writes]}
            for s in program.flat()
        ],
        "buffers": [
            {"name": b.name, "kind": b.kind, "type": repr(b.type), "bytes": b.bytes,
             "offset": b.root.offset + b.start, "inside": None if b.parent is None else
             number[id(b.parent)]}
            for b in program.buffers
        ],
    }  # fmt: skip
