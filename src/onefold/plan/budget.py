"""What the constants of a program may take beyond those of its model, and who may have it.

A convolution by Winograd's method stores its weights up to four times as large. Where not all that
are faster by it fit into what the program may take, those get it that gain most by each byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from onefold.codegen.family import Choice, KernelChoice
from onefold.ir.graph import Graph, Node, Value, constant_bytes
from onefold.options import Options

SHARE = {"latency": 1.5, "size": 1.02}  # times the model's weights that a program may take,
ROOM = 300_000  # and so many bytes more
CODE = {"latency": 6_500, "size": 3_500}  # bytes of a kernel's code, estimated on the high side


@dataclass(frozen=True)
class _Upgrade:
    """From one kernel of a node to another that is faster and stores more."""

    node: Node
    choice: Choice
    bytes: int
    worth: float  # cycles saved by each byte

    @staticmethod
    def of(node: Node, a: Choice, b: Choice) -> _Upgrade:
        more = _bytes(node, b) - _bytes(node, a)
        return _Upgrade(node, b, more, (a.cost - b.cost) / max(more, 1))


def spend(graph: Graph, kernels: KernelChoice) -> None:
    """Settle which kernel each node gets that has kernels with constants of different sizes."""
    offers = [(n, found) for n in graph.walk() if (found := kernels.offers(n))]
    least = [(n, min(found, key=lambda c: (_bytes(n, c), c.cost))) for n, found in offers]
    code = CODE[kernels.options.goal] * len(offers)
    left = _allowed(graph, kernels.options) - _stored(graph, least) - code
    taken = {id(n): (n, c) for n, c in least}
    waiting = [u for (n, found), (_, c) in zip(offers, least, strict=True)
               for u in _upgrades(n, c, found)]  # fmt: skip
    skipped: set[int] = set()
    for u in sorted(waiting, key=lambda u: -u.worth):
        if id(u.node) in skipped or u.bytes > left:
            skipped.add(id(u.node))  # the next one of a node is reckoned from the one before
        else:
            left -= u.bytes
            taken[id(u.node)] = u.node, u.choice
    for n, c in taken.values():
        kernels.settle(n, c)


def _allowed(graph: Graph, options: Options) -> int:
    return int(SHARE[options.goal] * (graph.source_bytes or constant_bytes(graph))) + ROOM


def _stored(graph: Graph, chosen: list[tuple[Node, Choice]]) -> int:
    """Bytes of all constants with these kernels."""
    packed = {id(v): v for n, c in chosen if c.stored for v in n.present()}
    return constant_bytes(graph) - _sum(packed.values()) + sum(c.stored for _, c in chosen)


def _bytes(node: Node, choice: Choice) -> int:
    return choice.stored or _sum(node.present())


def _sum(values: Iterable[Value]) -> int:
    return sum(v.data.nbytes for v in values if v.data is not None)


def _upgrades(node: Node, first: Choice, found: tuple[Choice, ...]) -> list[_Upgrade]:
    """What more memory buys a node, the most for each byte first: the corners of the convex hull
    of its kernels' bytes and cycles."""
    hull = [first]
    for c in sorted(found, key=lambda c: (_bytes(node, c), c.cost)):
        if c.cost >= hull[-1].cost:
            continue
        while len(hull) > 1:
            more, before = _Upgrade.of(node, hull[-2], c), _Upgrade.of(node, hull[-2], hull[-1])
            if more.worth < before.worth:
                break
            hull.pop()
        hull.append(c)
    return [_Upgrade.of(node, a, b) for a, b in pairwise(hull)]
