"""The verbs are found by being there, explain themselves, and start quickly."""

from __future__ import annotations

import subprocess
import sys

import pytest

from onefold.cli import Verbs, onefold

VERBS = tuple("bench build cache check doctor explain inspect run targets why".split())


def test_all_verbs_of_the_manual_are_there(cli) -> None:
    assert isinstance(onefold, Verbs)
    done = cli("--help")
    assert done.code == 0
    for verb in VERBS:
        assert f"\n  {verb} " in done.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(cli, verb: str) -> None:
    words = [verb, "list"] if verb == "cache" else [verb]
    done = cli(*words, "--help")
    assert done.code == 0
    assert "--json" in done.out


def test_version(cli) -> None:
    from onefold import __version__

    assert cli("--version").out == f"onefold {__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, onefold.cli\n"
        "code = onefold.cli.run(['--help'])\n"
        "heavy = {'numpy', 'onnx', 'rich', 'onnxruntime', 'PIL'} & set(sys.modules)\n"
        "sys.exit(code or len(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
