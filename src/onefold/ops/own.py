"""A user's own operators: a Python file with classes, as `--ops FILE.py` gives it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from onefold.errors import OptionError
from onefold.ops.base import Op, registry

_loaded: dict[Path, str] = {}


def load_file(path: Path) -> list[type[Op]]:
    """Run the file and register the operators that it defines with `@operator`.

    The file is a program of the user's and runs with the user's rights.
    Raises OptionError when it is missing, fails, or defines no operator.
    """
    path = path.resolve()
    if not path.is_file():
        raise OptionError(f"there is no file '{path.name}' with operators", where=str(path))
    before = dict(registry.by_name)
    if str(path) in {str(p) for p in _loaded}:
        return []
    name = f"onefold_own_{len(_loaded)}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        raise OptionError(f"the file '{path.name}' with operators fails", where=str(path),
                          why=f"{type(e).__name__}: {e}",
                          remedy="Mend the file; it is run as a Python module.") from e  # fmt: skip
    made = [c for n, c in registry.by_name.items() if before.get(n) is not c]
    if not made:
        raise OptionError(
            f"the file '{path.name}' defines no operator", where=str(path),
            remedy="Put @operator from onefold.ops.base before a subclass of Op.")  # fmt: skip
    _loaded[path] = name
    return made
