"""The documentation is run: blocks, generated pages, links."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.doc_blocks import ROOT, blocks, pages, run_page

MADE_ELSEWHERE = {"models.md", "onnx-backend-tests.md"}
GENERATED = ("errors", "operators", "command-line")
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
TITLE = re.compile(r"^#+ (.+)$", re.MULTILINE)
TELLTALE = re.compile(r"/(?:home|root|tmp|work|usr/local|opt)/|\.pyenv|site-packages")


def with_blocks() -> list[Path]:
    return [p for p in pages() if any(b.exit_code is not None for b in blocks(p.read_text()))]


def names(page: Path) -> str:
    return page.stem


@pytest.mark.toolchain
@pytest.mark.slow
@pytest.mark.parametrize("page", with_blocks(), ids=names)
def test_every_block_runs(page: Path, tmp_path: Path) -> None:
    needed = {w[6:] for b in blocks(page.read_text()) for w in b.words if w.startswith("needs=")}
    missing = sorted(n for n in needed if shutil.which(n) is None)
    if missing:
        pytest.skip(f"{page.name} needs {', '.join(missing)}: apt-get install qemu-system-arm")
    shown = list(run_page(page, tmp_path))
    assert shown
    for block, output in shown:
        if block.exact and shutil.which(block.exact):
            assert output == block.text, "run: python -m tools.doc_blocks --renew PAGE"


@pytest.mark.parametrize("name", GENERATED)
def test_generated_pages_are_what_the_code_says(name: str) -> None:
    # In a process of its own, since other tests add operators to this one.
    made = subprocess.run([sys.executable, "-m", "tools.make_pages", name], cwd=ROOT, text=True,
                          check=True, stdout=subprocess.PIPE).stdout  # fmt: skip
    page = ROOT / "docs" / f"{name}.md"
    assert page.read_text("utf-8") == made, "run: python -m tools.make_pages"


def test_the_table_of_functions_is_that_of_the_header() -> None:
    from tools.make_pages import math_table

    table = math_table()
    assert table.count("\n") > 30
    assert f"<!-- math -->\n{table}\n<!-- /math -->" in (ROOT / "docs" / "numerics.md").read_text()


@pytest.mark.parametrize("page", pages(), ids=names)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for target, anchor in LINK.findall(text):
        if target.startswith("http") or Path(target).name in MADE_ELSEWHERE:
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor and path.suffix == ".md":
            assert anchor[1:] in anchors(path), f"{page.name} links to {target}{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors that a page's titles get: letters, digits and hyphens for spaces."""
    titles = TITLE.findall(page.read_text("utf-8"))
    return {re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles}


def test_every_page_can_be_reached() -> None:
    linked = {Path(t).name for t, _ in LINK.findall((ROOT / "README.md").read_text("utf-8"))}
    assert {p.name for p in (ROOT / "docs").glob("*.md")} <= linked


def test_decisions_keep_to_their_columns() -> None:
    """The page that everybody adds to."""
    rows = (ROOT / "docs" / "decisions.md").read_text("utf-8").splitlines()
    assert not {k: len(row) for k, row in enumerate(rows, 1) if len(row) > 100}


@pytest.mark.parametrize("page", [*pages(), *sorted((ROOT / "docs" / "pictures").glob("*.svg"))],
                         ids=names)  # fmt: skip
def test_nothing_of_the_machine_it_was_written_on(page: Path) -> None:
    found = TELLTALE.search(page.read_text("utf-8"))
    assert found is None, f"{page.name} says {found[0]}" if found else ""
