"""Runs ONNX's own backend test suite and says which tests pass, and which ran compiled.

    python -m onefold.dev.conformance [--jobs N] [--only TEXT] [--json FILE] [--markdown FILE]

Every test counts: a skip is a failure. A test is compiled when every node of its model ran in
emitted C; inputs that decide shapes (a Reshape's shape, a TopK's k) are compiled in by value and
listed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import unittest
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True)
class Outcome:
    """One test: status is pass, fail or skip; by_value names the inputs compiled in."""

    name: str
    status: str
    compiled: bool
    reason: str = ""
    by_value: tuple[str, ...] = ()
    host: tuple[str, ...] = ()


def _recorder() -> Any:
    from onefold.onnx_backend import OnefoldBackend

    class Recording(OnefoldBackend):
        made: ClassVar[list[Any]] = []

        @classmethod
        def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> Any:
            kwargs = {k: v for k, v in kwargs.items() if k != "test_data"}
            rep = super().prepare(model, device)
            cls.made.append(rep.program)
            return rep

    return Recording


def _tests(backend: Any) -> dict[str, unittest.TestCase]:
    import onnx.backend.test

    suite = onnx.backend.test.BackendTest(backend, __name__)
    out: dict[str, unittest.TestCase] = {}

    def walk(s: Any) -> None:
        for t in s:
            if isinstance(t, unittest.TestSuite):
                walk(t)
            elif t.id().endswith("_cpu"):
                out[t.id().rsplit(".", 1)[1].removesuffix("_cpu")] = t

    walk(suite.test_suite)
    return out


def names() -> list[str]:
    """All tests of the suite."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sorted(_tests(_recorder()))


def run_some(wanted: Sequence[str]) -> None:
    """Run the named tests in this process; one line of JSON each."""
    warnings.simplefilter("ignore")
    for outcome in run_here(lambda _: wanted):
        print(json.dumps(asdict(outcome)), flush=True)


def run_here(choose: Callable[[Sequence[str]], Sequence[str]]) -> Iterator[Outcome]:
    """Run, in this process, the tests that `choose` picks from the sorted names of all."""
    backend = _recorder()
    tests = _tests(backend)
    for n in choose(sorted(tests)):
        yield _run(n, tests[n], backend)


def _run(name: str, test: unittest.TestCase, backend: Any) -> Outcome:
    backend.made.clear()
    result = unittest.TestResult()
    test.run(result)
    bad = [*result.errors, *result.failures]
    if result.skipped:
        return Outcome(name, "skip", False, result.skipped[0][1][:300])
    if bad:
        return Outcome(name, "fail", False, _last(bad[0][1]))
    by_value: set[str] = set()
    host: list[str] = []
    for program in backend.made:
        by_value |= program.by_value
        for form in program._all():
            host += [f"{op}: {why}" for _, op, _, why in form.facts["refusals"]]
    ran = any(p._all() for p in backend.made)
    return Outcome(name, "pass", ran and not host, "", tuple(sorted(by_value)), tuple(host))


def _last(trace: str) -> str:
    lines = [line for line in trace.strip().splitlines() if line and not line.startswith(" ")]
    return " ".join(trace.strip().splitlines()[-4:])[-300:] if not lines else lines[-1][:300]


def run_all(wanted: Sequence[str], jobs: int, limit: float = 120) -> list[Outcome]:
    """Run tests in several processes of their own, so that a crash or a test that takes longer
    than `limit` seconds costs one test only."""
    waiting = deque(list(wanted[i : i + 50]) for i in range(0, len(wanted), 50))
    done: dict[str, Outcome] = {}

    def work() -> None:
        while waiting:
            try:
                batch = waiting.popleft()
            except IndexError:
                return
            left = _worker(batch, done, limit)
            if left:
                done[left[0]] = Outcome(left[0], "fail", False, "crashed or took too long")
                waiting.appendleft(left[1:])
            print(f"\r{len(done)}/{len(wanted)}", end="", file=sys.stderr, flush=True)

    threads = [threading.Thread(target=work) for _ in range(jobs)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    print(file=sys.stderr)
    return [done[n] for n in wanted if n in done]


def _worker(batch: list[str], done: dict[str, Outcome], limit: float) -> list[str]:
    """One process for a batch; returns the tests that it did not get to."""
    if not batch:
        return []
    command = [sys.executable, "-m", "onefold.dev.conformance", "--worker", *batch]
    out, err = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdout=out, stderr=err, text=True) as p:
        assert p.stdout is not None
        left = list(batch)
        timer = threading.Timer(limit, p.kill)
        timer.start()
        for line in p.stdout:
            if line.startswith("{"):
                facts = json.loads(line)
                facts["by_value"], facts["host"] = tuple(facts["by_value"]), tuple(facts["host"])
                done[facts["name"]] = Outcome(**facts)
                left.remove(facts["name"])
                timer.cancel()
                timer = threading.Timer(limit, p.kill)
                timer.start()
        timer.cancel()
    return left


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    n = len(outcomes)
    passed = sum(o.status == "pass" for o in outcomes)
    compiled = sum(o.compiled for o in outcomes)
    return {"tests": n, "passed": passed, "compiled": compiled,
            "passed_percent": round(100 * passed / max(n, 1), 2),
            "compiled_percent": round(100 * compiled / max(n, 1), 2)}  # fmt: skip


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The page for the docs."""
    import onnx

    s = summary(outcomes)
    lines = [
        "# ONNX backend tests", "",
        "Generated by `python -m onefold.dev.conformance --markdown docs/onnx-backend-tests.md`.",
        "", f"onnx {onnx.__version__}: {s['tests']} tests, {s['passed']} pass "
        f"({s['passed_percent']} %), {s['compiled']} of them ran compiled, every node in emitted C "
        f"({s['compiled_percent']} % of all). A skip counts as a failure.", "",
        "## Not passed", "", "| test | why |", "|---|---|",
    ]  # fmt: skip
    lines += [f"| `{o.name}` | {_cell(o.reason)} |" for o in outcomes if o.status != "pass"]
    lines += ["", "## Passed, but not compiled", "",
              "| test | what ran on the host, and why |", "|---|---|"]  # fmt: skip
    lines += [
        f"| `{o.name}` | {_cell('; '.join(dict.fromkeys(o.host)))} |"
        for o in outcomes if o.status == "pass" and not o.compiled
    ]  # fmt: skip
    lines += ["", "## Inputs compiled in by value", "",
              "Shape-, axis-, k- and pad-like inputs that a test feeds at run time.", "",
              "| inputs | tests |", "|---|---|"]  # fmt: skip
    count = Counter(", ".join(o.by_value) for o in outcomes if o.by_value)
    lines += [f"| `{names}` | {k} |" for names, k in sorted(count.items())]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")[:200]


def main(argv: Sequence[str] | None = None) -> int:
    ap = argparse.ArgumentParser(description="ONNX's backend test suite")
    ap.add_argument("--jobs", type=int, default=2)
    ap.add_argument("--only", default="", help="only tests whose name has this text")
    ap.add_argument("--json", type=Path)
    ap.add_argument("--markdown", type=Path)
    ap.add_argument("--worker", nargs="*", help=argparse.SUPPRESS)
    args = ap.parse_args(argv)
    if args.worker is not None:
        run_some(args.worker)
        return 0
    wanted = [n for n in names() if args.only in n]
    outcomes = run_all(wanted, args.jobs)
    if args.json:
        args.json.write_text(json.dumps([asdict(o) for o in outcomes], indent=0))
    if args.markdown:
        args.markdown.write_text(markdown(outcomes))
    print(json.dumps(summary(outcomes)))
    reasons = Counter(o.reason[:110] for o in outcomes if o.status != "pass")
    for reason, k in reasons.most_common(40):
        print(f"{k:5d}  {reason}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
