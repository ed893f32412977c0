"""What a compiler made of a kernel: the innermost loops in the assembly text of clang."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile


@dataclass(frozen=True)
class Isa:
    """How to read the text of one architecture.

    jump: a branch within a function, whose groups are its condition, if any, and its label;
    stack: an operand in the function's stack frame; products: multiply-adds, as the
    instruction's name; sums: the register that a multiply-add adds to; bare: those of them that
    leave adding to another instruction, adds: its name, vectors: registers, the result's last.
    """

    jump: re.Pattern[str]
    stack: re.Pattern[str]
    products: re.Pattern[str]
    sums: re.Pattern[str]
    bare: re.Pattern[str] = re.compile("(?!)")
    adds: re.Pattern[str] = re.compile("(?!)")
    vectors: re.Pattern[str] = re.compile("(?!)")


ISAS = {
    "aarch64": Isa(
        re.compile(r"\t(b|(?:b\.|cbn?z|tbn?z)\S*)\t.*?(\.LBB\w+)$"),
        re.compile(r"\[sp\b"),
        re.compile(r"fml[as]|fmlal2?|[us]dot|[us]?[us]mmla|bfdot|bfmmla|bfmlal[bt]|[us]?mlal2?|mla"),
        re.compile(r"\S+\s+v(\d+)\."),
    ),
    "x86_64": Isa(
        re.compile(r"\t(jmp|j\w+)\t(\.LBB\w+)$"),
        re.compile(r"\(%rsp\b"),
        re.compile(
            r"vf(?:n?m(?:add|sub))[123]+[ps]s|v?pdpb\w+|\{?v?\}?vpdp\w+|v?pmaddwd|v?pmaddubsw"
            r"|vdpbf16ps|tdp\w+|v?mulps|v?pmulld|vpdpwssd"
        ),
        re.compile(r".*%([xyzt]mm\d+)(?:\s*\{.*\})?$"),
        re.compile(r"v?pmaddwd|v?pmaddubsw|v?mulps|v?pmulld"),
        re.compile(r"v?(?:addps|paddd)"),
        re.compile(r"%[xyz]mm\d+"),
    ),
}


@dataclass(frozen=True)
class Loop:
    """An innermost loop: its instructions in order, as text without comments, and where clang says
    that a register is spilled or filled from the stack."""

    isa: Isa
    function: str
    lines: tuple[str, ...]

    @property
    def products(self) -> tuple[str, ...]:
        """The multiply-adds."""
        return tuple(x for x in self.lines if self.isa.products.fullmatch(name_of(x)))

    @property
    def arithmetic(self) -> tuple[str, ...]:
        """The multiply-adds, and what adds the products of those that only multiply."""
        found, products = [], set[str]()
        for line in self.lines:
            name, vectors = name_of(line), self.isa.vectors.findall(line)
            if self.isa.products.fullmatch(name) or (
                self.isa.adds.fullmatch(name) and products.intersection(vectors)
            ):
                found.append(line)
            products.difference_update(vectors[-1:])
            if self.isa.bare.fullmatch(name):
                products.add(vectors[-1])
        return tuple(found)

    @property
    def stack(self) -> int:
        """Instructions that read or write the stack frame."""
        return sum(bool(self.isa.stack.search(x)) for x in self.lines)

    @property
    def sums(self) -> int:
        """Registers that multiply-adds add to."""
        found = (self.isa.sums.match(x) for x in self.products)
        return len({m[1] for m in found if m})

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of its multiply-adds, "by element" where one factor is an element."""
        return tuple(sorted({kind_of(x) for x in self.products}))


def name_of(line: str) -> str:
    return line.removeprefix("{vex}").split(None, 1)[0]


def kind_of(line: str) -> str:
    return name_of(line) + (" by element" if re.search(r"\.\w+\[\d+\]$", line) else "")


def in_registers(line: str) -> str:
    """The instruction without an operand in memory: a register of the result's width for it."""
    result = re.search(r"%[xyz]mm\d+(?!.*%[xyz]mm)", line)
    return re.sub(r"[-\w.]*\(%[^)]*\)(?:\{1to\d+\})?", result[0], line) if result else line


def functions(text: str) -> Iterator[tuple[str, list[str]]]:
    """The functions of a file: name, and lines without comments, labels with their colon."""
    lines = iter(text.splitlines())
    for line in lines:
        start = re.match(r"\t\.type\t(\S+),[@%]function", line)
        if start:
            body = takewhile(lambda x: not x.startswith(".Lfunc_end"), lines)
            yield start[1], [c for c in map(_without_comment, body) if c]


def _without_comment(line: str) -> str:
    bare = re.split(r"\s*(?://|#\s|##|#$)", line, maxsplit=1)[0].rstrip()
    directive = re.match(r"\t\.(?!LBB)\w+|\t?#", bare)
    return "" if directive else bare


def innermost(isa: Isa, name: str, lines: Sequence[str]) -> list[Loop]:
    """The loops of a function that contain no other one."""
    blocks = _blocks(isa, lines)
    number = {b.label: k for k, b in enumerate(blocks) if b.label}
    follow: list[set[int]] = []
    for k, b in enumerate(blocks):
        to = {number[t] for t in b.targets if t in number}
        if b.falls and k + 1 < len(blocks):
            to.add(k + 1)
        follow.append(to)
    dominators = _dominators(follow)
    loops: dict[int, set[int]] = {}
    for k, to in enumerate(follow):
        for head in to & dominators[k]:
            loops.setdefault(head, {head}).update(_reaching(follow, k, head))
    inner = [
        sorted(body) for head, body in loops.items()
        if not any(other in body for other in loops if other != head)
    ]  # fmt: skip
    return [
        Loop(isa, name, tuple(x.strip() for k in body for x in blocks[k].lines))
        for body in sorted(inner)
    ]


@dataclass
class _Block:
    label: str
    lines: list[str]
    targets: list[str]
    falls: bool = True


def _blocks(isa: Isa, lines: Sequence[str]) -> list[_Block]:
    blocks = [_Block("", [], [])]
    for line in lines:
        if line.endswith(":"):
            blocks.append(_Block(line[:-1], [], []))
            continue
        if not blocks[-1].falls or blocks[-1].targets:
            blocks.append(_Block("", [], []))
        block = blocks[-1]
        block.lines.append(line)
        jump = isa.jump.fullmatch(line)
        if jump:
            block.targets.append(jump[2])
        block.falls = not (jump and jump[1] in ("b", "jmp")) and name_of(line) not in RETURNS
    return blocks


RETURNS = ("ret", "retq", "br")


def _dominators(follow: Sequence[set[int]]) -> list[set[int]]:
    """For each block those that every way to it goes through, itself included."""
    everything = set(range(len(follow)))
    before: list[set[int]] = [set() for _ in follow]
    for k, to in enumerate(follow):
        for t in to:
            before[t].add(k)
    found = [{0} if k == 0 else set(everything) for k in range(len(follow))]
    changed = True
    while changed:
        changed = False
        for k in range(1, len(follow)):
            common = set.intersection(*(found[p] for p in before[k])) if before[k] else set()
            new = common | {k}
            if new != found[k]:
                found[k], changed = new, True
    return found


def _reaching(follow: Sequence[set[int]], last: int, head: int) -> set[int]:
    """The blocks from which `last` is reached without passing `head`."""
    found, todo = {head, last}, [last]
    while todo:
        at = todo.pop()
        if at == head:
            continue
        for k, to in enumerate(follow):
            if at in to and k not in found:
                found.add(k)
                todo.append(k)
    return found
