"""Compiles generated C with address and undefined-behaviour sanitizers and runs it.

    python -m onefold.dev.sanitize [--operator NAME]      the operators' own cases

The C compiler of the machine (gcc or clang with its sanitizer libraries) is used, since the
`ziglang` wheel has no address sanitizer.  Every block of memory has exactly the size that the
program asks for, so that a single byte beyond it is seen.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from onefold.codegen.model import emit
from onefold.dev import drive
from onefold.dev.cases import compare, expected, graph_of
from onefold.dev.reference import evaluate
from onefold.errors import OnefoldError
from onefold.frontend import read_model
from onefold.ir import dims
from onefold.ir.graph import Array, Graph
from onefold.ops.base import Case, Op
from onefold.passes import pipeline
from onefold.plan import plan
from onefold.plan.program import Program
from onefold.run.artifact import KERNELS
from onefold.run.building import write_weights
from onefold.target import find

FLAGS = ("-std=gnu11", "-O1", "-g", "-march=native", "-fwrapv", "-fno-math-errno",
         "-fno-trapping-math", "-w", "-fno-omit-frame-pointer",
         "-fsanitize=address,undefined", "-fno-sanitize-recover=all")  # fmt: skip
TIME_LIMIT_S = 60
JUDGE_LIMIT_S = 240
LARGEST = 64 * 2**20  # bytes of an arena that is still run

MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "@PREFIX@.h"

static void *block(const char *name, size_t bytes, int aligned) {
  void *p = 0;
  const size_t n = bytes ? bytes : 1;
  if (aligned ? posix_memalign(&p, 64, n) : !(p = malloc(n))) exit(98);
  memset(p, 0x55, bytes);
  if (!name) return p;
  FILE *f = fopen(name, "rb");
  if (!f || fread(p, 1, bytes, f) != bytes) exit(97);
  fclose(f);
  return p;
}

static void put(const char *name, const void *p, size_t bytes) {
  FILE *f = fopen(name, "wb");
  if (!f || fwrite(p, 1, bytes, f) != bytes) exit(96);
  fclose(f);
}

int main(void) {
  void *arena = block(0, @ARENA@, 1), *weights = block("weights.bin", @WEIGHTS@, 1);
  void *state = block(0, @STATE@, 1);
  @PREFIX@_state_init(state);
@BLOCKS@
  int64_t *dims = block("dims.bin", @DIMS@, 0);
  const int32_t error = @PREFIX@_run(arena, weights, state, ins, outs, dims);
  put("error.bin", &error, sizeof error);
  put("dims_out.bin", dims, @DIMS@);
@WRITES@
  return 0;
}
"""


class Report(Exception):
    """A sanitizer's report, or a crash."""


@cache
def compiler() -> str:
    """The C compiler to use; "" where there is none with the sanitizers' libraries."""
    for name in ("gcc", "clang"):
        path = shutil.which(name)
        if path is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "t.c"
            source.write_text("int main(void) { return 0; }")
            command = [path, "-fsanitize=address,undefined", "t.c", "-o", "t"]
            made = subprocess.run(command, cwd=folder, capture_output=True)
            if made.returncode == 0 and subprocess.run([f"{folder}/t"]).returncode == 0:
                return path
    return ""


def main_text(program: Program, prefix: str) -> str:
    """A program that reads its inputs from files, every block of its own exact size."""
    blocks = []
    for what, ports in (("in", program.inputs), ("out", program.outputs)):
        files = [f'"input{k}.bin"' if what == "in" else "0" for k in range(len(ports))]
        made = [f"block({f}, {p.buffer.bytes}, 0)" for f, p in zip(files, ports, strict=True)]
        const = "const void *const" if what == "in" else "void *const"
        blocks.append(f"  {const} {what}s[] = {{{', '.join(made) or '0'}}};")
    writes = [f'  put("output{k}.bin", outs[{k}], {p.buffer.bytes});'
              for k, p in enumerate(program.outputs)]  # fmt: skip
    text = MAIN.replace("@BLOCKS@", "\n".join(blocks)).replace("@WRITES@", "\n".join(writes))
    sizes = {
        "PREFIX": prefix, "ARENA": program.arena_bytes, "WEIGHTS": program.weights_bytes,
        "STATE": program.state_bytes, "DIMS": 8 * len([*program.dims, *program.found]),
    }  # fmt: skip
    for key, value in sizes.items():
        text = text.replace(f"@{key}@", str(value))
    return text


def run(program: Program, arrays: Sequence[Array], env: Mapping[str, int], cc: str) -> list[Array]:
    """Outputs of one run. Raises Report, OnefoldError where the program stops with an error."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = emit(program, "m")
        for file, text in sources.files.items():
            (folder / file).write_text(text, "utf-8")
        (folder / "main.c").write_text(main_text(program, "m"), "utf-8")
        write_weights([program], folder / "weights.bin")
        table = [env.get(s.name, 0) for s in (*program.dims, *program.found)]
        (folder / "dims.bin").write_bytes(np.array(table, np.int64).tobytes())
        for k, (a, port) in enumerate(zip(arrays, program.inputs, strict=True)):
            raw = np.ascontiguousarray(a, port.type.dtype.numpy).tobytes()
            (folder / f"input{k}.bin").write_bytes(raw.ljust(port.buffer.bytes, b"\x55"))
        files = [*sources.units, "main.c"]
        command = [cc, *FLAGS, "-I", str(KERNELS), "-I.", *files, "-o", "m", "-lm"]
        made = subprocess.run(command, cwd=folder, capture_output=True, timeout=TIME_LIMIT_S * 3)
        if made.returncode:
            raise Report("it does not compile\n" + made.stderr.decode("utf-8", "replace")[:2000])
        return _execute(folder, program, sources.labels, env)


def _execute(
    folder: Path, program: Program, labels: Sequence[str], env: Mapping[str, int]
) -> list[Array]:
    from onefold.run.library import REASONS

    strict = "detect_leaks=0:hard_rss_limit_mb=1500:detect_stack_use_after_return=1"
    options = {"ASAN_OPTIONS": strict,
               "UBSAN_OPTIONS": "print_stacktrace=1"}  # fmt: skip
    ran = subprocess.run([str(folder / "m")], cwd=folder, capture_output=True, timeout=TIME_LIMIT_S,
                         env={**os.environ, **options})  # fmt: skip
    if ran.returncode:
        said = ran.stderr.decode("utf-8", "replace")
        raise Report(f"ended with {ran.returncode}\n{said[:3000]}")
    code = int(np.fromfile(folder / "error.bin", np.int32)[0])
    if code:
        step, reason = divmod(code - 1, 16)
        layer = labels[step] if step < len(labels) else "?"
        raise Stopped(f"stopped in {layer}: {REASONS[reason]}")
    found = np.fromfile(folder / "dims_out.bin", np.int64).tolist()
    names = [s.name for s in (*program.dims, *program.found)]
    sizes = {**env, **dict(zip(names, found, strict=True))}
    outs = []
    for k, p in enumerate(program.outputs):
        shape = tuple(dims.evaluate(d, sizes) for d in p.type.shape)
        raw = (folder / f"output{k}.bin").read_bytes()
        size = int(np.prod(shape, dtype=np.int64))
        outs.append(np.frombuffer(raw, p.type.dtype.numpy, size).reshape(shape))
    return outs


class Stopped(Exception):
    """The program ended with an error of its own: a bad index, a size above its bound."""


# --- the operators' cases ---


def check_cases(only: str = "", every: int = 1) -> list[str]:
    """The operators' cases, those of one operator as one program; what was wrong.

    every: take each so-manieth operator only.
    """
    from onefold.dev.cases import all_cases

    groups: dict[str, list[tuple[Op, Case]]] = {}
    for op, case in all_cases():
        groups.setdefault(op.name, []).append((op, case))
    wrong = []
    for name in sorted(groups)[::every]:
        if only and name != only:
            continue
        try:
            check_operator(groups[name])
        except (Report, Stopped, AssertionError, OnefoldError) as e:
            wrong.append(f"{name}: {e}")
            print(f"FAILED {wrong[-1][:3000]}", flush=True)
    return wrong


def check_operator(cases: Sequence[tuple[Op, Case]]) -> None:
    """Cases as one program, under the sanitizers, against the reference.

    Raises Report, Stopped, AssertionError.
    """
    whole = Graph("cases")
    inputs: list[Array] = []
    wanted: list[tuple[str, Array, float]] = []
    for j, (op, case) in enumerate(cases):
        arrays = case.arrays()
        g = graph_of(op, arrays, case.const)
        if g.nodes[0].op.compiled(g.nodes[0]):
            continue
        for v in (*g.inputs, *g.outputs):
            v.name = f"c{j}_{v.name}"
        whole.inputs += g.inputs
        whole.nodes += g.nodes
        whole.outputs += g.outputs
        inputs += [a for k, a in enumerate(arrays) if a is not None and k not in case.const]
        tolerance = 0 if op.exact else 1e-4
        wanted += [(case.id(op.name), w, tolerance) for w in expected(g, arrays)]
    if not whole.nodes:
        return
    got = run(plan(whole, find("host")), inputs, {}, compiler())
    for (what, w, near), y in zip(wanted, got, strict=True):
        compare(w, y, what, near)


# --- one model ---


def judge(format: str, data: bytes, seed: int) -> tuple[str, str]:
    """In a process of its own: (`equal` | `stopped` | `skipped` | `failed`, what happened)."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            signal.alarm(JUDGE_LIMIT_S)
            warnings.simplefilter("ignore")
            outcome = _judge(format, data, seed)
        except OnefoldError as e:
            outcome = ("skipped", str(e))
        except Exception as e:
            outcome = ("failed", f"{type(e).__name__}: {e}\n" + traceback.format_exc()[-3000:])
        with os.fdopen(write, "wb") as f:
            f.write(pickle.dumps(outcome))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as f:
        raw = f.read()
    status = os.waitpid(pid, 0)[1]
    return pickle.loads(raw) if raw else ("failed", f"the process ended with status {status}")


def _judge(format: str, data: bytes, seed: int) -> tuple[str, str]:
    model = read_model(data, format)
    first = drive.bound(model, random.Random(seed))
    graph = drive.bound(model, random.Random(seed))
    pipeline.run(graph)
    if any(n.op.compiled(n) for n in graph.walk()) or _random(first):
        return "skipped", "not all of it is compiled and certain"
    arrays, env = drive.feeds(first, np.random.default_rng(seed))
    if len(arrays) != len(graph.inputs):
        return "skipped", "its inputs cannot be made up"
    program = plan(graph, find("host"))
    if program.arena_bytes + program.weights_bytes > LARGEST:
        return "skipped", "it is large"
    try:
        want = [np.asarray(w) for w in evaluate(first, arrays)]
    except OnefoldError as e:
        want, refusal = None, str(e)
    try:
        got = run(program, arrays, env, compiler())
    except Stopped as e:
        if want is None:
            return "stopped", str(e)
        return "failed", f"it stops, the reference does not\n{e}"
    if want is None:
        return "skipped", f"the reference cannot compute it: {refusal}"
    for k, (w, y) in enumerate(zip(want, got, strict=True)):
        compare(w, y, f"output {k}", 1e-4)
    return "equal", ""


def _random(graph: Graph) -> bool:
    return any(not n.op.pure for n in graph.walk())


def main(argv: Sequence[str] | None = None) -> int:
    ap = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    ap.add_argument("--operator", default="", help="only this one")
    ap.add_argument("--every", type=int, default=1, help="each so-manieth operator only")
    args = ap.parse_args(argv)
    if not compiler():
        print("there is no C compiler with sanitizers: apt-get install gcc", file=sys.stderr)
        return 2
    wrong = check_cases(args.operator, args.every)
    print(f"{len(wrong)} failed")
    return 1 if wrong else 0


__all__: list[Any] = ["Report", "Stopped", "check_cases", "compiler", "judge", "run"]


if __name__ == "__main__":
    sys.exit(main())
