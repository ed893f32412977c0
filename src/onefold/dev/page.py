"""One self-contained page about a model: tables, the graph drawn, the arena over time.

Every text that comes from the model is escaped; the page loads nothing and runs no script.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onefold.dev import layered
from onefold.dev.survey import layer_facts
from onefold.errors import printable

if TYPE_CHECKING:
    from onefold.dev.survey import Survey
    from onefold.ir.graph import Graph, Node, Value

LETTER = 6.6  # pixels of a letter in the boxes
MOST_NODES = 4000  # boxes; a larger graph is shown by its table alone

_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1200px; padding: 0 1em;
       color: #1c2330; background: #fff; }
h1 { font-size: 1.5em; margin-bottom: 0 } h2 { font-size: 1.15em; margin-top: 2em }
table { border-collapse: collapse; font-size: 13px } th { text-align: left; font-weight: 600 }
th, td { padding: 2px 14px 2px 0; border-bottom: 1px solid #e3e6ec; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums } .quiet { color: #667 }
.no { color: #b00020 } .scroll { overflow: auto; max-height: 80vh; border: 1px solid #d8dce4 }
svg text { font: 11px ui-monospace, monospace } svg .sub { fill: #556; font-size: 9.5px }
svg g:hover rect { stroke: #000; stroke-width: 2 }
path { fill: none; stroke: #9aa3b2 } details { margin: .5em 0 }
"""

_COLOURS = (
    (("Conv", "MatMul", "Gemm", "FullyConnected", "Einsum", "Attention"), "#cfe3ff"),
    (("Pool", "Reduce", "Softmax", "Norm", "Arg"), "#ffe3c4"),
    (("Reshape", "Transpose", "Concat", "Slice", "Gather", "Pad", "Split", "Resize"), "#e4e4e4"),
    (("LSTM", "GRU", "RNN", "If", "Loop", "Scan"), "#f0d3f7"),
    (("Quantize", "Cast"), "#fff6b8"),
)
_OTHER, _PORT, _REFUSED = "#d9f2d9", "#ffffff", "#ffc9c9"


def page(facts: Mapping[str, Any], seen: Survey) -> str:
    """The page. facts: as `onefold inspect --json` prints them."""
    name = _text(facts["model"])
    t = facts["totals"]
    parts = [
        f"<h1>{name}</h1>",
        f"<p class=quiet>{_text(facts['format'])}, after {_text(facts['after'])}, "
        f"{t['layers']} layers, {t['macs']:,} multiply-adds, {t['parameters']:,} parameters "
        f"in {t['weight_bytes']:,} bytes</p>",
        *(f"<p>{_text(n)}</p>" for n in facts["notes"]),
        _ports(facts), _operators(facts), _refusals(facts), _plan(facts),
        "<h2>Graph</h2>", _drawing(seen), _memory(seen), _layers(facts),
    ]  # fmt: skip
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; "
        "style-src 'unsafe-inline'\">"
        f"<title>{name}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(p for p in parts if p) + "\n</body></html>\n"
    )  # fmt: skip


def _text(x: object, limit: int = 200) -> str:
    return html.escape(printable(x, limit))


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    cells = "".join(f"<th>{_text(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>\n" for row in rows)
    return f"<table><tr>{cells}</tr>\n{body}</table>"


def _cell(x: Any) -> str:
    return f"<td class=n>{x:,}</td>" if isinstance(x, int) else f"<td>{_text(x)}</td>"


def _ports(facts: Mapping[str, Any]) -> str:
    rows = [(k, p["name"], p["type"]) for k in ("input", "output", "state") for p in facts[k + "s"]]
    return _table(("", "name", "type"), rows)


def _operators(facts: Mapping[str, Any]) -> str:
    rows = [
        (r["operator"], r["count"], r["macs"], r["weight_bytes"], r["output_bytes"], r["native"])
        for r in facts["operators"]
    ]
    head = (
        "operator",
        "layers",
        "multiply-adds",
        "bytes of weights",
        "bytes of results",
        "compiled",
    )
    return "<h2>Operators</h2>" + _table(head, rows)


def _refusals(facts: Mapping[str, Any]) -> str:
    if not facts["not_native"]:
        return ""
    rows = [(r["layer"], r["operator"], r["reason"]) for r in facts["not_native"]]
    return "<h2 class=no>Without a compiled form</h2>" + _table(("layer", "operator", "why"), rows)


def _plan(facts: Mapping[str, Any]) -> str:
    plan = facts["plan"]
    if plan is None:
        return ""
    keys = ("steps", "arena_bytes", "arena_lower_bound", "weights_bytes", "state_bytes")
    rows = [(k.replace("_", " "), plan[k]) for k in keys]
    return f"<h2>Plan for {_text(facts['target'])}</h2>" + _table(("", ""), rows)


def _layers(facts: Mapping[str, Any]) -> str:
    rows = [
        (r["layer"], r["operator"], ", ".join(o["type"] for o in r["outputs"]), r["macs"],
         r["weight_bytes"])
        for r in facts["layers"]
    ]  # fmt: skip
    head = ("layer", "operator", "makes", "multiply-adds", "bytes of weights")
    return f"<details><summary>All {len(rows)} layers</summary>{_table(head, rows)}</details>"


def _memory(seen: Survey) -> str:
    from onefold.dev import arena_view

    drawn = [arena_view.drawing(p.program) for p in seen.planned if p.program.arena_bytes]
    if not drawn:
        return ""
    head = "<h2>Arena over time</h2><p class=quiet>Steps downwards, bytes to the right.</p>"
    return head + "".join(f"<div class=scroll>{d}</div>" for d in drawn)


# --- the graph ------------------------------------------------------------------------------------


def _drawing(seen: Survey) -> str:
    g = seen.graph
    if len(g.nodes) > MOST_NODES:
        return f"<p>The graph has {len(g.nodes):,} nodes, too many to draw.</p>"
    boxes = [_port_box(v, "input") for v in g.inputs]
    boxes += [_port_box(s.value, "state") for s in g.states]
    maker = {id(v): k for k, v in enumerate((*g.inputs, *(s.value for s in g.states)))}
    edges: list[tuple[int, int, Value]] = []
    for n in g.nodes:
        number = len(boxes)
        boxes.append(_node_box(n, seen))
        for v in dict.fromkeys((*n.present(), *n.captures())):
            if id(v) in maker:
                edges.append((maker[id(v)], number, v))
        maker.update({id(v): number for v in n.outputs})
    edges += _outputs(g, maker, boxes)
    drawn = layered.layout([w for w, _ in boxes], [(a, b) for a, b, _ in edges])
    lines = [_edge(points, v) for points, (_, _, v) in zip(drawn.routes, edges, strict=True)]
    shapes = [_place(w, text, at) for (w, text), at in zip(boxes, drawn.places, strict=True)]
    size = f'width="{drawn.width:.0f}" height="{drawn.height:.0f}"'
    return (f'<div class=scroll><svg xmlns="http://www.w3.org/2000/svg" {size}>'
            + "\n".join(lines + shapes) + "</svg></div>")  # fmt: skip


def _outputs(
    g: Graph, maker: Mapping[int, int], boxes: list[tuple[float, str]]
) -> list[tuple[int, int, Value]]:
    edges = []
    for v in g.outputs:
        if id(v) in maker:
            edges.append((maker[id(v)], len(boxes), v))
            boxes.append(_port_box(v, "output"))
    return edges


def _port_box(v: Value, kind: str) -> tuple[float, str]:
    return _box(f"{kind} {v.name}", _short_type(v), _PORT, f"{kind} {v.name}: {v.type!r}")


def _node_box(n: Node, seen: Survey) -> tuple[float, str]:
    f = layer_facts(n, seen.target)
    tip = [f["layer"], repr(n.op), *(f"reads {v!r}" for v in n.present()),
           *(f"makes {v!r}" for v in n.outputs), f"{f['macs']:,} multiply-adds",
           f"{f['weight_bytes']:,} bytes of weights"]  # fmt: skip
    if f["not_native"]:
        tip.append(f"not compiled: {f['not_native']}")
    colour = _REFUSED if f["not_native"] else _colour(n.op.name)
    makes = _short_type(n.outputs[0]) if n.outputs else ""
    return _box(n.op.name, makes, colour, "\n".join(printable(t, 300) for t in tip))


def _short_type(v: Value) -> str:
    return repr(v.type).split(" ", 1)[0]


def _colour(name: str) -> str:
    return next((c for words, c in _COLOURS if any(w in name for w in words)), _OTHER)


def _box(title: str, sub: str, colour: str, tip: str) -> tuple[float, str]:
    """Width and SVG of a box around the origin."""
    title, sub = printable(title, 28), printable(sub, 30)
    width = max(len(title) * LETTER, len(sub) * LETTER * 0.88) + 16
    escaped = "\n".join(html.escape(printable(line, 400)) for line in tip.split("\n"))
    return width, (
        f"<title>{escaped}</title>"
        f'<rect x="{-width / 2:.1f}" y="-17" width="{width:.1f}" height="34" rx="5" '
        f'fill="{colour}" stroke="#8892a6"/>'
        f'<text text-anchor="middle" y="-2">{html.escape(title)}</text>'
        f'<text class="sub" text-anchor="middle" y="11">{html.escape(sub)}</text>'
    )


def _place(width: float, text: str, at: tuple[float, float]) -> str:
    return f'<g transform="translate({at[0]:.1f},{at[1]:.1f})">{text}</g>'


def _edge(points: Sequence[tuple[float, float]], v: Value) -> str:
    """A smooth line from the lower edge of one box to the upper edge of another."""
    (x0, y0), *rest = points
    y0 += 17
    path = f"M{x0:.1f},{y0:.1f}"
    for k, (x, y) in enumerate(rest):
        end = y - 17 if k == len(rest) - 1 else y
        half = (y0 + end) / 2
        path += f"C{x0:.1f},{half:.1f} {x:.1f},{half:.1f} {x:.1f},{end:.1f}"
        x0, y0 = x, end
    return f'<path d="{path}"><title>{_text(repr(v), 300)}</title></path>'
