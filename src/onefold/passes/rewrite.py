"""Rules that replace nodes by better ones, and the one driver that applies them.

A rule looks at a node and returns a patch or nothing; it changes nothing itself:

    @rewrite("double-negation", Neg)
    def double_negation(n: Node, see: Scope) -> Patch | None:
        inner = producer(n.arg(0), Neg)
        return inner and Patch((n, inner), lambda b: [inner.arg(0)])

The driver makes the new nodes (through a Builder, so that they are typed and constants fold),
lets every reader of the old results read the new ones, takes out what nobody reads any more, and
keeps the names of the user's layers. A patch whose results would not have the very types of the
old ones is dropped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from onefold import events
from onefold.ir.graph import Builder, Graph, Node, Origin, Value, detach
from onefold.ir.types import TensorType
from onefold.ops.base import NeedsValue, Op, Refusal

ROUNDS = 24  # sweeps over a graph before a pass stops, fixed point or not
PER_NODE = 16  # patches for each node that a graph had, at most


@dataclass(frozen=True)
class Patch:
    """What to put in place of a node.

    covers: the node that is replaced, then the others that the pattern is made of, which must
    all lie in the same graph; build: makes the new nodes and returns a value for each output of
    covers[0]; layers: those of covers whose layers the new nodes belong to (none: all of them).
    """

    covers: tuple[Node, ...]
    build: Callable[[Builder], Sequence[Value]]
    layers: tuple[Node, ...] = ()


class Scope:
    """What a rule may know beyond the node: which values others hold on to."""

    def __init__(self, whole: Graph) -> None:
        self.pinned = whole.pinned()

    def sole(self, v: Value) -> bool:
        """Whether one node alone reads the value and it is no output."""
        return len(v.uses) == 1 and id(v) not in self.pinned


Match = Callable[[Node, Scope], Patch | None]


@dataclass(frozen=True)
class Rule:
    """A named match on the operators of some classes."""

    name: str
    ops: tuple[str, ...]
    match: Match


def rewrite(name: str, *ops: type[Op]) -> Callable[[Match], Rule]:
    """Turns a match function into a rule for nodes whose operator is of one of these classes."""
    return lambda match: Rule(name, tuple(op.__name__ for op in ops), match)


@dataclass
class Driver:
    """Applies rules to a graph and to the bodies inside it."""

    whole: Graph
    rules: Sequence[Rule]
    left: int = 0
    applied: int = 0
    gone: dict[int, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.by_op: Mapping[str, list[Rule]] = defaultdict(list)
        for r in self.rules:
            for op in r.ops:
                self.by_op[op].append(r)
        self.left = PER_NODE * max(64, sum(1 for _ in self.whole.walk()))

    def run(self) -> int:
        """Sweeps until nothing changes; returns the number of patches."""
        for _ in range(ROUNDS):
            before = self.applied
            self.see = Scope(self.whole)
            self.gone.clear()
            for g in list(self.whole.regions_and_self()):
                self._sweep(g)
            for g in list(self.whole.regions_and_self()):
                g.nodes = [n for n in g.nodes if id(n) not in self.gone]
            if self.applied == before or self.left <= 0:
                break
        return self.applied

    def _sweep(self, g: Graph) -> None:
        self.here = {id(n) for n in g.nodes}
        done: list[Node] = []
        todo = g.nodes[::-1]
        while todo:
            n = todo.pop()
            if id(n) in self.gone:
                continue
            made = self._first(g, n) if self.left > 0 else None
            if made is None:
                done.append(n)
            else:
                todo.extend(reversed(made))
        g.nodes = done

    def _first(self, g: Graph, n: Node) -> list[Node] | None:
        for rule in self.by_op.get(n.op.name, ()):
            patch = rule.match(n, self.see)
            if patch is not None and all(id(m) in self.here for m in patch.covers):
                made = self._apply(g, rule, patch)
                if made is not None:
                    return made
        return None

    def _apply(self, g: Graph, rule: Rule, patch: Patch) -> list[Node] | None:
        """The nodes made, or None where the patch does not hold and all is as before."""
        root = patch.covers[0]
        origin = Origin()
        for m in patch.layers or patch.covers:
            origin = origin | m.origin
        b = Builder(Graph(g.name), origin.via(rule.name))
        try:
            new = list(patch.build(b))
        except (Refusal, NeedsValue) as e:
            self._drop(b.nodes, rule, root, str(e))
            return None
        why = self._misfit(root, new, b)
        if why:
            self._drop(b.nodes, rule, root, why)
            return None
        for old, v in zip(root.outputs, new, strict=True):
            self._stand_in(g, old, v, b)
        self.here.update(id(m) for m in b.nodes)
        self._bury(root)
        self.left -= 1
        self.applied += 1
        events.emit("rewrite", rule=rule.name, origin=origin, nodes=len(b.nodes))
        return list(b.nodes)

    def _misfit(self, root: Node, new: Sequence[Value], b: Builder) -> str:
        made = {id(v) for n in b.nodes for v in n.outputs}
        for old, v in zip(root.outputs, new, strict=True):
            s, t = old.type, v.type
            if not isinstance(s, TensorType) or not isinstance(t, TensorType):
                return "a result is no tensor"
            fresh = id(v) in made or v.is_const
            if s.shape != t.shape or s.dtype is not t.dtype or (s.quant != t.quant and not fresh):
                return f"{t} in place of {s}"
            if id(old) in self.see.pinned and not self._may_leave(v, made):
                return "an output must keep a node of its own"
        return ""

    def _may_leave(self, v: Value, made: set[int]) -> bool:
        """Whether a value can be an output: made in this graph, and not yet one."""
        if id(v) in made or v.is_const:
            return True
        p = v.producer
        return p is not None and id(p) in self.here and id(v) not in self.see.pinned

    def _stand_in(self, g: Graph, old: Value, new: Value, b: Builder) -> None:
        if isinstance(old.type, TensorType) and new.tensor.quant != old.type.quant:
            new.type = replace(new.tensor, quant=old.type.quant)
        if new.content is None:
            new.content = old.content
        if id(old) in self.see.pinned:
            g.replace(old, new)
            new.name = old.name
            self.see.pinned.add(id(new))
        else:
            if new.producer is not None and new.producer in b.nodes:
                new.name = old.name
            for n in list(dict.fromkeys(old.uses)):
                n.replace_input(old, new)

    def _bury(self, root: Node) -> None:
        """Take out a node and then whatever nobody reads any more."""
        todo = [root]
        while todo:
            n = todo.pop()
            self.gone[id(n)] = n
            detach(n)
            for v in dict.fromkeys((*n.present(), *n.captures())):
                p = v.producer
                if p is not None and id(p) not in self.gone and p.op.pure and not any(
                    u.uses or id(u) in self.see.pinned for u in p.outputs
                ):  # fmt: skip
                    todo.append(p)

    def _drop(self, nodes: Sequence[Node], rule: Rule, root: Node, why: str) -> None:
        for n in nodes:
            detach(n)
        events.emit("rewrite.dropped", rule=rule.name, origin=root.origin, why=why)


def apply_rules(graph: Graph, rules: Sequence[Rule]) -> int:
    """Rewrite to a fixed point (or for ROUNDS sweeps); returns the number of patches applied."""
    return Driver(graph, rules).run()
