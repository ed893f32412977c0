"""`onefold inspect`: what a model consists of and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onefold.cli._options import Wishes, bind_options
from onefold.cli._output import Column, Out, count, finish, layer, macs, size

if TYPE_CHECKING:
    from onefold.api import Model
    from onefold.dev.survey import Survey

SHOWN = 30  # rows of the layers' table without --layers


@click.command(short_help="What a model consists of, and what becomes of it.")
@click.argument("model")
@click.option(
    "--after",
    default="",
    metavar="PASS",
    help="The graph after this pass (`import`: before all) instead of the plan.",
)
@click.option("--node", default="", metavar="NAME", help="One layer in full.")
@click.option("--layers", is_flag=True, help="All layers, not the first only.")
@click.option("--memory", is_flag=True, help="Draw the arena over time.")
@click.option("--text", is_flag=True, help="The graph in its text form.")
@click.option("--html", metavar="FILE", help="Write a page with the graph drawn.")
@bind_options  # fmt: skip
def command(
    wishes: Wishes, model: str, after: str, node: str, layers: bool, memory: bool, text: bool,
    html: str | None,
) -> None:  # fmt: skip
    """Shows operators, shapes, multiply-adds and bytes of MODEL, which layers have no compiled
    form and why, and how its memory is laid out."""
    from onefold.dev.survey import survey
    from onefold.target import find

    loaded = wishes.load(model)
    seen = survey(loaded, wishes.binding(), find(wishes.target), after)
    if node:
        finish(_node(seen, node), wishes.json, _show_nodes)
        return
    facts = _facts(loaded, seen, after)
    if text:
        facts["text"] = str(seen.graph)
    if memory:
        from onefold.dev import arena_view

        facts["memory"] = [arena_view.text(p.program) for p in seen.planned]
    if html:
        _page(html, facts, seen)
    facts["html"] = html
    finish(facts, wishes.json, lambda f, out: _show(f, out, layers))


def _facts(model: Model, seen: Survey, after: str) -> dict[str, Any]:
    from onefold.dev.survey import bytes_of, layer_facts, operator_facts

    rows = [layer_facts(n, seen.target) for n in seen.graph.nodes]
    constants = seen.graph.constants()
    return {
        "model": model.name, "format": model.read.format, "source": dict(model.read.facts),
        "file_bytes": model.source.stat().st_size if isinstance(model.source, Path) else None,
        "target": seen.target.name, "after": after or "all passes", "notes": seen.notes,
        "passes": [{"name": a.name, "changes": a.changes} for a in seen.applied],
        "inputs": [{"name": v.name, "type": repr(v.type)} for v in seen.graph.inputs],
        "outputs": [{"name": v.name, "type": repr(v.type)} for v in seen.graph.outputs],
        "operators": operator_facts(rows), "layers": rows,
        "totals": {
            "layers": len(rows), "macs": sum(r["macs"] for r in rows),
            "parameters": sum(int(v.data.size) for v in constants if v.data is not None),
            "weight_bytes": bytes_of(constants),
            "activation_bytes": sum(r["output_bytes"] for r in rows),
        },
        "states": [{"name": s.name, "type": repr(s.value.type)} for s in seen.graph.states],
        "not_native": [
            {"layer": r["layer"], "operator": r["operator"], "reason": r["not_native"]}
            for r in rows if r["not_native"]
        ],
        "plan": _plan(seen) if seen.planned else None,
    }  # fmt: skip


def _plan(seen: Survey) -> dict[str, Any]:
    programs = [p.program for p in seen.planned]
    return {
        "parts": [{"backend": p.backend.name, "layers": len(p.graph.nodes)} for p in seen.parts],
        "steps": sum(len(list(p.flat())) for p in programs),
        "arena_bytes": sum(p.arena_bytes for p in programs),
        "arena_lower_bound": sum(p.arena_lower_bound for p in programs),
        "weights_bytes": sum(p.weights_bytes for p in programs),
        "state_bytes": sum(p.state_bytes for p in programs),
    }  # fmt: skip


def _page(path: str, facts: dict[str, Any], seen: Survey) -> None:
    from onefold.dev.page import page
    from onefold.run import store

    with store.writing(Path(path)):
        Path(path).write_text(page(facts, seen), "utf-8", errors="backslashreplace")


def _show(facts: dict[str, Any], out: Out, every: bool) -> None:
    if "text" in facts:
        out.block(facts["text"])
        return
    source = "; ".join(
        f"{k.replace('_', ' ')} {_plain(v)}" for k, v in facts["source"].items() if v
    )
    length = "" if facts["file_bytes"] is None else f", {size(facts['file_bytes'])}"
    out.line(f"{facts['model']}: {facts['format']}{length}", style="bold")
    if source:
        out.line(source)
    for note in facts["notes"]:
        out.line(note)
    ports = [("input", p["name"], p["type"]) for p in facts["inputs"]]
    ports += [("output", p["name"], p["type"]) for p in facts["outputs"]]
    ports += [("state", p["name"], p["type"]) for p in facts["states"]]
    out.table(["", "name", "type"], ports)
    _show_operators(facts, out)
    _show_layers(facts, out, every)
    _show_refusals(facts, out)
    _show_plan(facts, out)
    for drawing in facts.get("memory", ()):
        out.title("the arena over time: steps downwards, bytes to the right")
        out.block(drawing)
    if facts["html"]:
        out.line(f"the page is {facts['html']}")


def _plain(fact: Any) -> str:
    """A fact of the file; of several parts each with its name (ONNX's own domain has none)."""
    if not isinstance(fact, dict):
        return str(fact)
    return ", ".join(f"{k or 'ai.onnx'} {v}" for k, v in fact.items())


def _show_operators(facts: dict[str, Any], out: Out) -> None:
    out.title(f"operators after {facts['after']}")
    rows = [
        (r["operator"], r["count"], macs(r["macs"]), size(r["weight_bytes"]),
         size(r["output_bytes"]), _native(r["native"], r["count"]))
        for r in facts["operators"]
    ]  # fmt: skip
    t = facts["totals"]
    sums = (t["layers"], macs(t["macs"]), size(t["weight_bytes"]), size(t["activation_bytes"]))
    native = _native(t["layers"] - len(facts["not_native"]), t["layers"])
    total = (*((x, "bold") for x in ("all", *sums)), native)
    numbers = (Column(c, right=True) for c in ("layers", "macs", "weights", "results"))
    out.table(["operator", *numbers, "compiled"], [*rows, total])
    out.line(f"{count(t['parameters'])} parameters, {size(t['weight_bytes'])}")


def _native(native: int, total: int) -> tuple[str, str]:
    return ("yes", "green") if native == total else (f"{native} of {total}", "red")


def _show_layers(facts: dict[str, Any], out: Out, every: bool) -> None:
    layers = facts["layers"] if every else facts["layers"][:SHOWN]
    out.title("layers")
    rows = [
        (layer(r["layer"]), r["operator"], ", ".join(o["type"].split(" ")[0] for o in r["outputs"]),
         macs(r["macs"]), size(r["weight_bytes"]))
        for r in layers
    ]  # fmt: skip
    out.table([Column("layer", limit=48), "operator", Column("makes", limit=44),
               Column("macs", right=True), Column("weights", right=True)], rows)  # fmt: skip
    if len(layers) < len(facts["layers"]):
        out.line(f"and {len(facts['layers']) - len(layers)} more (--layers)")


def _show_refusals(facts: dict[str, Any], out: Out) -> None:
    if not facts["not_native"]:
        return
    out.title(f"{len(facts['not_native'])} layers have no compiled form and would run in NumPy")
    out.table(
        [Column("layer", limit=44), "operator", Column("why", limit=100)],
        [(layer(r["layer"]), r["operator"], r["reason"]) for r in facts["not_native"]],
    )


def _show_plan(facts: dict[str, Any], out: Out) -> None:
    plan = facts["plan"]
    if plan is None:
        return
    out.title(f"plan for {facts['target']}")
    parts = ", ".join(f"{p['layers']} layers on {p['backend']}" for p in plan["parts"])
    over = plan["arena_bytes"] / plan["arena_lower_bound"] - 1 if plan["arena_lower_bound"] else 0
    rows = [
        ("parts", parts), ("steps", str(plan["steps"])),
        ("arena", f"{count(plan['arena_bytes'])} bytes, {over:.1%} above the lower bound of "
                  f"{count(plan['arena_lower_bound'])}"),
        ("weights", f"{count(plan['weights_bytes'])} bytes"),
        ("states", f"{count(plan['state_bytes'])} bytes"),
    ]  # fmt: skip
    out.table(["", ""], rows)


def _node(seen: Survey, name: str) -> dict[str, Any]:
    from onefold.dev.survey import find_nodes, layer_facts

    out = []
    for n in find_nodes(seen.graph, name):
        ins = [
            None if v is None else
            {"name": v.name, "type": repr(v.type), "constant": v.is_const,
             "from": str(v.producer.origin) if v.producer is not None else ""}
            for v in n.inputs
        ]  # fmt: skip
        users = {v.name: [str(u.origin) or u.op.name for u in v.uses] for v in n.outputs}
        out.append({**layer_facts(n, seen.target), "attributes": repr(n.op), "reads": ins,
                    "read_by": users, "passes": list(n.origin.path), "text": repr(n)})  # fmt: skip
    return {"nodes": out, "notes": seen.notes}


def _show_nodes(facts: dict[str, Any], out: Out) -> None:
    for n in facts["nodes"]:
        out.title(n["layer"])
        rows = [("operator", n["attributes"])]
        rows += [
            (f"input {k}", "left out" if v is None else
             f"{v['name']}: {v['type']}" + (" constant" if v["constant"] else "")
             + (f" from {v['from']}" if v["from"] else ""))
            for k, v in enumerate(n["reads"])
        ]  # fmt: skip
        for k, v in enumerate(n["outputs"]):
            users = ", ".join(n["read_by"][v["name"]]) or "nobody"
            rows.append((f"output {k}", f"{v['name']}: {v['type']} read by {users}"))
        rows += [("macs", count(n["macs"])), ("weights", f"{count(n['weight_bytes'])} bytes"),
                 ("made by", ", ".join(n["passes"]) or "the importer"),
                 ("compiled", (n["not_native"] and f"no: {n['not_native']}") or "yes")]  # fmt: skip
        out.table(["", Column("", limit=600)], rows)
