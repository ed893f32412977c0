"""Imports point one way, along the flow: every module may import what stands above it here."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import onefold

SOURCE = Path(onefold.__file__).parent

# A module belongs to the longest name here that it starts with. Those of one line may import each
# other. `docs/how-it-works.md` tells what each of them is.
FLOW = [
    ["errors", "events", "files", "hashes", "knobs", "defects", "options"],
    ["target"],
    ["ir"],
    ["codegen.text", "codegen.tiles"],  # C expressions and shapes of tiles, for operators too
    ["ops"],
    ["codegen"],  # loops, kernel families: what a plan chooses from
    ["passes"],
    ["frontend"],
    ["feeds"],
    ["plan.program"],
    ["codegen.meetings", "codegen.model"],  # a planned program as C text
    ["codegen.levels"],  # several as one
    ["plan"],
    ["run"],
    ["backends"],
    ["forms", "api", "ship"],
    ["onnx_backend"],
    ["dev"],
    ["cli"],
    ["__main__"],
]

# What goes the other way, each for a reason. Imports for types alone are free.
EXCEPTIONS = {
    # a graph's verifier and text form speak of operators; operators are made of graph types
    ("ir.graph", "ops.base"),
    ("ir.text", "ops"),
    # the numbers of ONNX's element types, in the table generated from onnx
    ("ops.formats", "frontend._gen.onnx_schema"),
    # the contract of backends is what a partition asks; the planner knows no backend
    ("plan.partition", "backends"),
    # the slow reference is a development tool and what runs where nothing is compiled
    ("backends.reference", "dev.reference"),
    ("forms", "dev.reference"),
    # progress and debug lines are installed where a program is made, only where asked for
    ("forms", "dev.listeners"),
    # precision="auto" measures errors and times as the verbs do
    ("api", "dev.precision"),
}


def _modules() -> dict[str, Path]:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _level(module: str) -> int:
    best = max(
        ((len(n), k) for k, names in enumerate(FLOW) for n in names
         if module == n or module.startswith(n + ".")), default=(0, -1))  # fmt: skip
    assert best[1] >= 0, f"onefold.{module} has no place in the flow"
    return best[1]


def _run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from _run_time(child)


def _imported(path: Path) -> Iterator[tuple[int, str]]:
    for node in _run_time(ast.parse(path.read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports are written in full"
            names = [f"{node.module}.{a.name}" for a in node.names]
            known = (n.removeprefix("onefold.") in MODULES for n in names)
            names = [n if k else str(node.module) for n, k in zip(names, known, strict=True)]
        for name in names:
            if name.startswith("onefold."):
                yield node.lineno, name.removeprefix("onefold.")


def test_imports_point_one_way() -> None:
    wrong, used = [], set()
    for module, path in MODULES.items():
        if not module:
            continue
        for line, name in _imported(path):
            if (module, name) in EXCEPTIONS:
                used.add((module, name))
            elif _level(name) > _level(module):
                wrong.append(f"{path.relative_to(SOURCE)}:{line}: {module} imports {name}")
    assert not wrong, "\n".join(wrong)
    assert used == EXCEPTIONS, f"no longer needed: {sorted(EXCEPTIONS - used)}"


def test_the_flow_names_what_is_there() -> None:
    for name in (n for names in FLOW for n in names):
        assert name in MODULES, f"onefold.{name} is gone"


def test_importing_onefold_loads_nothing_heavy() -> None:
    """Neither onnx nor NumPy, nor a part of Onefold itself: they are loaded when used."""
    code = (
        "import sys; before = set(sys.modules); import onefold\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": str(SOURCE.parent)})  # fmt: skip
    loaded = done.stdout.split()
    foreign = {m for m in loaded if m.split(".")[0] not in sys.stdlib_module_names}
    assert foreign == {"onefold"}


@pytest.mark.parametrize("module", [m for m in MODULES if "__all__" in MODULES[m].read_text()])
def test_all_names_exist(module: str) -> None:
    loaded = importlib.import_module(f"onefold.{module}".rstrip("."))
    missing = [n for n in loaded.__all__ if not hasattr(loaded, n)]
    assert not missing
    assert sorted(set(loaded.__all__)) == sorted(loaded.__all__)


def test_public_names_are_all() -> None:
    code = "import onefold; print(*vars(onefold))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": str(SOURCE.parent)})  # fmt: skip
    typing = {"annotations", "TYPE_CHECKING", "Any"}
    own = {n for n in done.stdout.split() if not n.startswith("_")} - typing
    assert own | set(onefold._HOMES) | {"__version__"} == set(onefold.__all__)
