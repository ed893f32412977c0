"""Times cold compiles and warm starts of two networks, each in a process of its own with a cache
of its own.

    python -m bench.compile_time [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.zoo import NETWORKS

NAMES = ("mobilenet_v2", "resnet50")

COLD = """
import sys, time, onefold
start = time.perf_counter()
program = onefold.load(sys.argv[1]).compile(fallback=False)
print(time.perf_counter() - start)
"""

WARM = """
import resource, sys
import numpy as np
def used():
    r = resource.getrusage(resource.RUSAGE_SELF)
    return r.ru_utime + r.ru_stime
x = np.zeros((1, 3, 224, 224), np.float32)
before = used()
import onefold
program = onefold.load(sys.argv[1]).compile(fallback=False)
loaded = used()
program(x)
assert "onnx" not in sys.modules
print(loaded - before, used() - before)
"""

IMPORT = """
import time
start = time.perf_counter()
import onefold
print(time.perf_counter() - start)
"""


def python(code: str, *args: str, cache: str) -> list[float]:
    env = {**os.environ, "ONEFOLD_CACHE_DIR": cache}
    done = subprocess.run([sys.executable, "-c", code, *args], env=env, check=True,
                          capture_output=True, text=True)  # fmt: skip
    return [float(x) for x in done.stdout.split()]


def measure(name: str, folder: Path) -> dict[str, Any]:
    path = str(NETWORKS[name]().save(folder))
    cache = str(folder / f"cache-{name}")
    (cold,) = python(COLD, path, cache=cache)
    warm = [python(WARM, path, cache=cache) for _ in range(5)]
    return {"network": name, "cold_compile_s": round(cold, 2),
            "warm_load_cpu_s": round(min(w[0] for w in warm), 3),
            "warm_load_and_run_cpu_s": round(min(w[1] for w in warm), 3)}  # fmt: skip


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--json", type=Path)
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(n, Path(folder)) for n in NAMES]
        imports = min(python(IMPORT, cache=folder)[0] for _ in range(5))
    facts = {"cores": os.cpu_count(), "import_s": round(imports, 3), "networks": rows}
    print(json.dumps(facts, indent=1))
    if args.json:
        args.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
