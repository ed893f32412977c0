"""`onefold inspect` and `onefold why`."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest


def test_facts(cli, models) -> None:
    facts = cli("inspect", models / "net.onnx", "--json").json
    assert facts["format"] == "onnx"
    assert facts["inputs"] == [{"name": "x", "type": "f32[1,3,8,8]"}]
    rows = {r["layer"]: r for r in facts["layers"]}
    assert rows["conv"]["macs"] == 5 * 8 * 8 * 27
    assert rows["conv"]["weight_bytes"] == 5 * 27 * 4
    assert rows["dense"]["macs"] == 20
    assert facts["totals"]["macs"] == 5 * 8 * 8 * 27 + 20
    assert facts["totals"]["parameters"] == 5 * 27 + 20
    assert facts["not_native"] == []
    plan = facts["plan"]
    assert plan["arena_lower_bound"] <= plan["arena_bytes"]
    assert sum(p["layers"] for p in plan["parts"]) == facts["totals"]["layers"]


def test_text_and_stages(cli, models) -> None:
    done = cli("inspect", models / "net.onnx", "--text", "--after", "import")
    assert done.code == 0
    assert "Conv(" in done.out and "%x" in done.out
    bad = cli("inspect", models / "net.onnx", "--after", "fus")
    assert bad.code == 2
    assert "there is no pass 'fus'" in bad.err and "The passes are import, " in bad.err


def test_tables(cli, models) -> None:
    done = cli("inspect", models / "net.onnx", "--memory")
    for text in ("operators after all passes", "Conv", "8.64 k", "plan for host",
                 "the arena over time", "lower bound"):  # fmt: skip
        assert text in done.out


def test_one_node(cli, models) -> None:
    done = cli("inspect", models / "net.onnx", "--node", "conv", "--json").json
    (node,) = done["nodes"]
    assert node["operator"] == "Conv"
    assert node["reads"][0]["name"] == "x" and node["reads"][1]["constant"]
    assert "read by mean" in cli("inspect", models / "net.onnx", "--node", "relu").out
    lost = cli("inspect", models / "net.onnx", "--node", "dens7")
    assert lost.code == 2
    assert "there is no layer 'dens7'" in lost.err and "Did you mean 'dense'?" in lost.err


def test_open_dimensions_are_told(cli, models) -> None:
    facts = cli("inspect", models / "open.onnx", "--json").json
    assert facts["notes"] == ["the open dimension batch is taken as 1 (--dim batch=SIZE)"]
    ranged = cli("inspect", models / "open.onnx", "--dim", "batch=0..9", "--json").json
    assert ranged["notes"] == []
    assert ranged["layers"][0]["output_bytes"] == 9 * 3 * 4


class Reader(HTMLParser):
    """Collects the elements of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]


@pytest.mark.parametrize("name", ["net.onnx", "nasty.onnx"])
def test_page(cli, models, name: str) -> None:
    done = cli("inspect", models / name, "--html", "page.html")
    assert done.code == 0
    text = Path("page.html").read_text("utf-8")
    reader = Reader()
    reader.feed(text)
    assert reader.tags.count("svg") == 2  # the graph and the arena
    assert "script" not in reader.tags
    assert not [a for a in reader.attributes if a.startswith("on")]
    assert "\x1b" not in text
    assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text
    if name == "nasty.onnx":
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_a_page_that_cannot_be_written(cli, models) -> None:
    done = cli("inspect", models / "net.onnx", "--html", "no/such/folder/p.html")
    assert done.code == 1
    assert "OF426" in done.err


def test_hostile_names_in_tables(cli, models) -> None:
    for words in (["--layers"], ["--memory"], ["--text"]):
        done = cli("inspect", models / "nasty.onnx", *words)
        assert done.code == 0
        assert "\x1b" not in done.out


def test_why_a_fused_layer(cli, models) -> None:
    facts = cli("why", models / "net.onnx", "relu", "--json").json
    assert facts["layers"] == ["relu"]
    assert "Relu" in facts["imported"][0]
    assert facts["placed"][0]["backend"] == "cpu"
    (step,) = facts["steps"]
    assert {"conv", "relu"} <= set(step["layers"])
    assert step["macs"] == 5 * 8 * 8 * 27


def test_why_a_layer_without_a_step(cli, models) -> None:
    done = cli("why", models / "net.onnx", "flat")
    assert done.code == 0
    assert "the same bytes" in done.out or "computes" in done.out


def test_why_needs_a_layer_that_exists(cli, models) -> None:
    done = cli("why", models / "net.onnx", "conf")
    assert done.code == 2
    assert "Did you mean 'conv'?" in done.err
