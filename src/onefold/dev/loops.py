"""The innermost loops of kernels, as compiled: spills, instructions, and an analyser's estimate.

    python -m onefold.dev.loops [MODEL] [--cpu NAME]... [--json FILE] [--markdown FILE]

Layers of well-known networks, or those of a model, are compiled for each CPU. Of each its
main loop is read: whether registers are spilled to the stack in it, what multiplies,
and how many cycles llvm-mca of LLVM thinks one round takes, beside those that its multiply-adds
take alone. Nothing is run, so that any machine may look at the code for any other one.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onefold.codegen.model import Names, emit
from onefold.dev.assembly import ISAS, Loop, functions, in_registers, innermost, name_of
from onefold.dev.layers import LAYERS, Layer, draw
from onefold.errors import OptionError
from onefold.options import Options
from onefold.plan import plan
from onefold.run import toolchain
from onefold.run.artifact import KERNELS
from onefold.target import Target, find

if TYPE_CHECKING:
    from onefold.ir.graph import Graph

ROUNDS = 50  # of a loop, simulated
LOAD = 4  # cycles until a load's result is there, on cores that execute in order
OLDEST = 21  # release of LLVM whose analyser takes latencies
ENOUGH = 0.8  # of the limit, for the loops of main layers


@dataclass(frozen=True)
class Core:
    """A CPU to judge code for. target: Onefold's; model: the analyser's name for it, or for the
    one nearest to it that it has a model of."""

    name: str
    target: str
    model: str
    in_order: bool = False


CORES = {
    "cortex-a53": Core("Cortex-A53", "arm64", "cortex-a53", in_order=True),
    "cortex-a72": Core("Cortex-A72", "arm64", "cortex-a72"),
    "cortex-a76": Core("Cortex-A76", "arm64+dotprod", "neoverse-n1"),
    "cortex-a710": Core("Cortex-A710", "arm64+dotprod+i8mm", "cortex-a710"),
    "haswell": Core("Haswell", "x86-64-v3", "haswell"),
    "skylake": Core("Skylake", "x86-64-v3", "skylake"),
    "zen3": Core("Zen 3", "x86-64-v3", "znver3"),
    "alderlake": Core("Alder Lake", "x86-64-v3+avxvnni", "alderlake"),
    "icelake": Core("Ice Lake (server)", "x86-64-v4+avx512vnni", "icelake-server"),
}

EXPECTED = {
    ("aarch64", "f32 by element"): ("fmla by element",),
    ("aarch64", "f32"): ("fmla",),
    ("x86_64", "f32"): ("vfmadd213ps", "vfmadd231ps"),
    ("avx512vnni", "int8"): ("vpdpbusd",),
    ("avxvnni", "int8"): ("vpdpbusd",),
    ("i8mm", "int8"): ("smmla",),
    ("dotprod", "int8"): ("sdot by element", "sdot"),
    ("x86_64", "int8"): ("vpmaddwd",),
    ("aarch64", "int8"): ("smlal", "smlal by element", "smlal2", "smlal2 by element"),
}
"""What is to multiply: (feature or architecture, kind of layer) -> names of instructions; where
several fit, the first."""


def expected(target: Target, kind: str) -> tuple[str, ...]:
    """The instructions that are to multiply in a layer of this kind; empty where none is said."""
    for (word, multiplied), names in EXPECTED.items():
        if multiplied == kind and word in (*target.features, target.arch):
            return names
    return expected(target, kind.rsplit(" ", 2)[0]) if kind.endswith(" by element") else ()


@dataclass
class Row:
    """The main loop of a layer's kernel. spills: instructions in it that access the stack; others:
    the most that another loop with multiply-adds in the function has; cycles: of one round, by
    core; limit: of its multiply-adds alone."""

    layer: str
    kernel: str
    target: str
    instructions: int
    products: int
    kinds: tuple[str, ...]
    spills: int
    others: int
    main: bool
    asked: str = ""
    cycles: dict[str, float] = field(default_factory=dict)
    limit: dict[str, float] = field(default_factory=dict)

    def share(self, core: str) -> float:
        return self.limit[core] / self.cycles[core]

    def problems(self) -> list[str]:
        """What is not as it should be."""
        said = []
        if self.main and self.spills:
            said.append(f"{self.spills} of its instructions access the stack")
        wanted = expected(find(self.target), self.asked)
        if wanted and not set(self.kinds) <= set(wanted):
            said.append(f"it multiplies by {', '.join(self.kinds)}, not {' or '.join(wanted)}")
        said += [f"{self.share(c):.0%} of the limit on {c}" for c in self.cycles
                 if self.main and round(self.share(c), 2) < ENOUGH]  # fmt: skip
        return said


def compiled(graph: Graph, target: Target, options: Options) -> Iterator[tuple[str, str, Any]]:
    """Layer, kernel and innermost loops of every step of a program."""
    program = plan(graph, target, options)
    sources = emit(program, "net")
    steps = list(program.flat())
    names = Names("net", steps).names
    with tempfile.TemporaryDirectory(prefix="onefold-loops-") as folder:
        for name, text in sources.files.items():
            Path(folder, name).write_text(text, "utf-8")
        made = toolchain.compile_units(
            [Path(folder, u) for u in sources.units], target, Path(folder),
            include_dirs=[KERNELS], shared=True, assembly=True, optimize=options.level(target),
            flags=("-fno-inline-functions",),  # so that each step is found under its name
        )  # fmt: skip
        code = {n: lines for path in made for n, lines in functions(path.read_text("utf-8"))}
    isa = ISAS[target.arch]
    for step in steps:
        name = names[step.kernel]
        yield str(step.origin), step.algorithm, innermost(isa, name, code[name])


def main_loop(loops: Sequence[Loop]) -> Loop | None:
    """Of the loops with about as many multiply-adds as the one with the most, that with the largest
    share of them: not the edges, where instructions decide what is left out."""
    most = max((len(x.products) for x in loops), default=0)
    having = [x for x in loops if x.products and 2 * len(x.products) >= most]
    return max(having, key=lambda x: len(x.products) / len(x.lines), default=None)


def rows_for(target: str, layers: Sequence[Layer]) -> Iterator[tuple[Row, Loop]]:
    """A row for each layer, without the analyser's part."""
    t = find(target)
    for exact in (False, True):
        some = {x.name: x for x in layers if x.exact == exact}
        if not some:
            continue
        for name, kernel, loops in compiled(draw(list(some.values())), t, Options(exact=exact)):
            if name in some:
                found = _row(name, kernel, target, loops, some[name])
                if found:
                    yield found


def rows_of_model(path: str, target: str) -> Iterator[tuple[Row, Loop]]:
    """A row for each step of a model that multiplies."""
    import onefold
    from onefold.ship.bundle import graph_for

    t = find(target)
    graph = graph_for(onefold.load(path), t, None, None, None, None)
    for name, kernel, loops in compiled(graph, t, Options()):
        found = _row(name, kernel, target, loops, None)
        if found:
            yield found


def _row(
    name: str, kernel: str, target: str, loops: Sequence[Loop], layer: Layer | None
) -> tuple[Row, Loop] | None:
    loop = main_loop(loops)
    if loop is None:
        return None
    others = [x.stack for x in loops if x.products and x is not loop]
    row = Row(
        name, kernel, target, len(loop.lines), len(loop.products), loop.kinds, loop.stack,
        max(others, default=0), layer is not None and layer.main, layer.kind if layer else "",
    )  # fmt: skip
    return row, loop


@cache
def analyser() -> str:
    """The newest llvm-mca that is installed."""
    known = [(n, shutil.which(f"llvm-mca-{n}")) for n in range(60, OLDEST - 1, -1)]
    found = next((p for _, p in known if p), None) or shutil.which("llvm-mca")
    version = found and subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    number = re.search(r"LLVM version (\d+)", version or "")
    if not found or not number or int(number[1]) < OLDEST:
        raise OptionError(
            f"the analyser llvm-mca of LLVM {OLDEST} or newer is not installed",
            remedy="On Debian: apt-get install llvm-22. Without it, leave the estimates out: "
                   "--no-estimates.")  # fmt: skip
    return found


def estimate(core: Core, arch: str, lines: Sequence[str], features: Sequence[str] = ()) -> float:
    """Cycles of one round of a loop.

    The analyser's model of cores that execute in order has every instruction wait until those
    before it have completed, as these cores do not: a load need not wait for a multiply-add. There
    every result takes as long as a load's, so that nothing completes out of turn.
    """
    first = f"// LLVM-MCA-LATENCY {LOAD}\n" if core.in_order else ""
    text = "\n".join(re.sub(r"\.LBB\w+", "round", x) for x in lines)
    summary = _analysed(core, arch, f"{first}round:\n{text}", features)["SummaryView"]
    return float(summary["TotalCycles"]) / ROUNDS


def limit(core: Core, arch: str, loop: Loop, features: Sequence[str] = ()) -> float:
    """Cycles that its multiply-adds keep the units at work for that can do them, operands being in
    registers and all units having the same share."""
    lines = [in_registers(x) for x in loop.arithmetic]
    found = _analysed(core, arch, "\n".join(lines), features)["ResourcePressureView"]
    units: dict[str, set[int]] = {}
    work: dict[str, float] = {}
    for x in found["ResourcePressureInfo"]:
        if x["InstructionIndex"] < len(lines):  # behind them stand the sums of all
            kind = name_of(lines[x["InstructionIndex"]])
            units.setdefault(kind, set()).add(x["ResourceIndex"])
            work[kind] = work.get(kind, 0) + x["ResourceUsage"]
    most = 0.0
    for n in range(1, len(units) + 1):
        for kinds in combinations(units, n):
            some = set.union(*(units[k] for k in kinds))
            most = max(most, sum(work[k] for k in units if units[k] <= some) / len(some))
    return most


def _analysed(core: Core, arch: str, text: str, features: Sequence[str]) -> dict[str, Any]:
    """What the analyser says of some instructions."""
    words = [analyser(), f"-mtriple={arch}", f"-mcpu={core.model}", f"-iterations={ROUNDS}",
             "--json", "-mattr=" + ",".join(f"+{f}" for f in features)]  # fmt: skip
    done = subprocess.run(words, input=text, capture_output=True, text=True)
    if done.returncode:
        raise OptionError("the analyser does not know the code", why=done.stderr[:300])
    found: dict[str, Any] = json.loads(done.stdout)["CodeRegions"][0]
    return found


def survey(cores: Sequence[Core], model: str = "", estimates: bool = True) -> list[Row]:
    """Rows of all layers for all targets of these cores."""
    rows = []
    for target in dict.fromkeys(c.target for c in cores):
        t = find(target)
        isa = [w for f in sorted(t.features) for w in _FEATURE_WORDS.get(f, ())]
        for row, loop in rows_of_model(model, target) if model else rows_for(target, LAYERS):
            for core in cores:
                if estimates and core.target == target:
                    row.cycles[core.name] = estimate(core, t.arch, loop.lines, isa)
                    row.limit[core.name] = limit(core, t.arch, loop, isa)
            rows.append(row)
    return rows


_FEATURE_WORDS = {"dotprod": ("dotprod",), "i8mm": ("i8mm",), "bf16": ("bf16",)}
"""The analyser's words for features beyond those of the core whose model it takes."""


def table(rows: Sequence[Row]) -> str:
    """Markdown, one table for each target."""
    lines: list[str] = []
    for target in dict.fromkeys(r.target for r in rows):
        some = [r for r in rows if r.target == target]
        cores = list(some[0].cycles)
        lines += [f"## {target}", "",
                  "| " + " | ".join(["layer", "kernel", "instructions", "multiply-adds", "by",
                                     "spills", *cores]) + " |",
                  "|---|---|--:|--:|---|--:|" + "--:|" * len(cores)]  # fmt: skip
        for r in some:
            cells = [f"{r.cycles[c]:.0f}, {r.share(c):.0%}" for c in cores]
            spills = str(r.spills) + (f" ({r.others})" if r.others else "")
            name = r.layer if r.main else f"*{r.layer}*"
            lines.append("| " + " | ".join([
                name, f"`{r.kernel}`", str(r.instructions), str(r.products), ", ".join(r.kinds),
                spills, *cells]) + " |")  # fmt: skip
        lines.append("")
    return "\n".join(lines)


PAGE = """\
# Inner loops

Generated by `python -m onefold.dev.loops --markdown docs/inner-loops.md`.

Most of a network's time passes in a few instructions. This page looks at them where there is no
machine to measure on: layers of well-known networks are compiled for each CPU, and of each kernel
the main one of the innermost loops is read from the compiler's assembly text.

- *Instructions* and *multiply-adds* of one round of the loop, and what multiplies. "By element":
  one factor is an element of a register, so that one load serves several multiply-adds.
- *Spills*: instructions in the loop that access the stack; in brackets the most that another loop
  with multiply-adds in the same function has: transforms and softmax work on small arrays there.
- For each CPU the *cycles* of a round as llvm-mca {version} estimates them, all data being in the
  first cache, and the share of the limit that the multiply-adds alone set by the same model. Loops
  of layers in *italics* wait for memory rather than for arithmetic, or are a small part of a
  network; the others are to have no spills and at least {enough:.0%}. Where one instruction
  multiplies and another one adds, as for integers with AVX2, both are the multiply-add.

What the models are: Cortex-A72's and Cortex-A53's have one 128-bit multiply-add of f32 a cycle.
There is none of Cortex-A76; that of Neoverse N1, the same core for servers, stands for it, and that
of Neoverse N2 for Cortex-A710. In the
analyser's model of cores that execute in order every instruction waits until those before it have
completed, as a load on Cortex-A53 does not for a multiply-add; here every result takes {load}
cycles on it, a load's time. Nor does the model know that a 128-bit load occupies Cortex-A53 for two
cycles. These are estimates: measure on the machine where you have it.

Look at your own model's loops, for one CPU or all of them:

```sh
python -m onefold.dev.loops MODEL --cpu cortex-a53
```

It says which loops of main layers have spills or too small a share, and which layers multiply by
other instructions than expected, and exits with 1 if there are any. `--no-estimates` needs no
llvm-mca.

"""


def page(rows: Sequence[Row]) -> str:
    shown = subprocess.run([analyser(), "--version"], capture_output=True, text=True).stdout
    version = re.search(r"LLVM version ([\d.]+)", shown)
    assert version is not None
    return PAGE.format(version=version[1], enough=ENOUGH, load=LOAD) + table(rows)


def main(argv: Sequence[str] | None = None) -> int:
    ap = argparse.ArgumentParser(description="The innermost loops of kernels, as compiled")
    ap.add_argument("model", nargs="?", default="", help="a model instead of well-known layers")
    ap.add_argument("--cpu", action="append", choices=sorted(CORES), help="only for this one")
    ap.add_argument("--no-estimates", action="store_true", help="do without llvm-mca")
    ap.add_argument("--json", type=Path)
    ap.add_argument("--markdown", type=Path)
    args = ap.parse_args(argv)
    cores = [CORES[n] for n in args.cpu or CORES]
    rows = survey(cores, args.model, not args.no_estimates)
    if args.json:
        args.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n", "utf-8")
    if args.markdown:
        args.markdown.write_text(page(rows), "utf-8")
    else:
        print(table(rows))
    wrong = [(r, p) for r in rows for p in r.problems()]
    for r, p in wrong:
        print(f"{r.target}: {r.layer} ({r.kernel}): {p}")
    print(f"{len(rows)} loops, {len(wrong)} problems")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
