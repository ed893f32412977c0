"""From scalar expressions and sizes to C text."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim, Expr
from onefold.ir.dtypes import DType
from onefold.ir.graph import Value
from onefold.ir.scalar import (
    Acc,
    Call,
    Cast,
    Const,
    Index,
    Inside,
    Load,
    Reduce,
    Scalar,
    Select,
)
from onefold.ir.types import TensorType

Ends = tuple[str, str]
"""C texts: the first of a range, and behind its last."""

C_KEYWORDS = frozenset(
    """auto break case char const continue default do double else enum extern float for goto if
    inline int long register restrict return short signed sizeof static struct switch typedef union
    unsigned void volatile while bool true false nullptr main alignas alignof asm typeof""".split()
)


def c_name(text: str, limit: int = 40) -> str:
    """A C identifier that reminds of any text; not unique by itself."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", text[: limit * 4]).strip("_")[:limit].rstrip("_") or "v"
    if name[0].isdigit() or name in C_KEYWORDS or name.startswith("of_"):
        name = "v" + name
    return name


def is_c_name(text: str) -> bool:
    """Whether a text can name what is ours in C as it is."""
    plain = text.isascii() and text.isidentifier()
    return plain and text not in C_KEYWORDS and not text.startswith("of_")


def c_comment(text: str, limit: int = 100) -> str:
    """Any text made harmless inside a C comment: one line, ASCII, no */, no trigraph, no splice."""
    flat = "".join(ch if 32 <= ord(ch) < 127 else "." for ch in text[: limit * 2])
    flat = flat.replace("*/", "*.").replace("/*", "/.").replace("??", "?.").replace("\\", "/")
    return flat[:limit]


def dim_text(d: Dim, names: dict[str, str] | None = None) -> str:
    """C text of a size or index; `names` renames loaded indices."""
    if isinstance(d, int):
        return str(d) if -(1 << 31) < d < (1 << 31) else f"INT64_C({d})"
    out = ""
    for mono, c in d.terms:
        factors = [_atom_text(a, names) for a in mono]
        if abs(c) != 1 or not factors:
            factors.append(dim_text(abs(c)))
        text = " * ".join(factors)
        out += (" - " if c < 0 else " + ") + text if out else ("-" if c < 0 else "") + text
    return out if len(d.terms) == 1 and d.terms[0][1] > 0 else f"({out})"


def _atom_text(a: dims.Atom, names: dict[str, str] | None) -> str:
    if isinstance(a, dims.Pair):
        p, q = dim_text(a.a, names), dim_text(a.b, names)
        if isinstance(a.b, Expr) and _factors(a.b) > 1:
            q = f"({q})"
        if a.op in ("min", "max"):
            return f"of_{a.op}_ix({p}, {q})"
        if dims.bounds(a.a)[0] >= 0:
            return f"({p} {'/' if a.op == '//' else '%'} {q})"
        return f"of_{'floor_div' if a.op == '//' else 'floor_mod'}_ix({p}, {q})"
    return names.get(a.name, a.name) if names else a.name


def _factors(d: Expr) -> int:
    """Factors of a product, the number among them; 0 for a sum, which is in parentheses."""
    ((mono, c), *more) = d.terms
    return 0 if more else len(mono) + (abs(c) != 1)


_FROM = {
    "f16": "of_f16_to_f32({})", "bf16": "of_bf16_to_f32({})", "f8e4m3fn": "of_f8e4m3fn_to_f32({})",
    "f8e4m3fnuz": "of_f8e4m3fnuz_to_f32({})", "f8e5m2": "of_f8e5m2_to_f32({})",
    "f8e5m2fnuz": "of_f8e5m2fnuz_to_f32({})", "f8e8m0": "of_f8e8m0_to_f32({})",
    "f4e2m1": "of_f4e2m1_to_f32({})",
    # whoever fills an input may leave anything in the upper bits
    "i4": "of_wrap_i4({})", "u4": "of_wrap_u4({})", "i2": "of_wrap_i2({})", "u2": "of_wrap_u2({})",
}  # fmt: skip
_SATURATING = {"f8e4m3fn", "f8e4m3fnuz", "f8e5m2", "f8e5m2fnuz"}


def from_storage(text: str, kind: DType) -> str:
    """A stored element as its compute type."""
    return _FROM.get(kind.name, "{}").format(text)


def to_storage(text: str, kind: DType, saturate: bool = False) -> str:
    """A compute-type value as it is stored, rounded where the type is narrower.

    Whether an eight-bit float saturates is decided by the cast; what is stored stays what it is.
    """
    if kind.name in _SATURATING:
        return f"of_f32_to_{kind.name}({text}, {int(saturate)})"
    return f"of_f32_to_{kind.name}({text})" if kind.compute is not kind else text


def rounded(text: str, t: TensorType) -> str:
    """A compute-type value as an element of this type lies in memory."""
    if t.rounded is not None:
        return f"of_round_{t.rounded.name}({text})"
    return to_storage(text, t.dtype)


def simd(t: TensorType) -> str:
    """The pragma before a loop over lanes of this type that become vector operations."""
    return "OF_SIMD16" if t.rounded is not None else "OF_SIMD"


def literal(value: float, kind: DType) -> str:
    """A C literal with exactly this value."""
    if kind is dtypes.b1:
        return "true" if value else "false"
    if kind.is_float:
        suffix = "" if kind is dtypes.f64 else "f"
        v = float(value)
        if suffix and not math.isinf(v) and not math.isnan(v):
            try:
                v = struct.unpack("f", struct.pack("f", v))[0]
            except OverflowError:
                v = math.copysign(math.inf, v)
        if math.isnan(v):
            return f'__builtin_nan{suffix}("")'
        if math.isinf(v):
            return f"{'-' if v < 0 else ''}__builtin_inf{suffix}()"
        if v == int(v) and abs(v) < 1e6:
            return f"{v:.1f}{suffix}" if math.copysign(1, v) > 0 else f"(-{abs(v):.1f}{suffix})"
        return f"{v.hex()}{suffix}" if v > 0 else f"({v.hex()}{suffix})"
    v = int(value)
    if kind.kind == "uint":
        return f"UINT64_C({v})" if kind.bits == 64 else f"{v}u"
    if kind.bits == 64:
        return f"INT64_C({v})" if v > -(1 << 63) else "INT64_MIN"
    return str(v) if v > -(1 << 31) else "INT32_MIN"


MARKED = re.compile("\ue000(.*?)\ue001(.*?)\ue002")
"""A number in a text: its C type, and its own text (see plan/numbers.py)."""


def number(text: str, ctype: str) -> str:
    """Marked C text of a number that is data, and may become a parameter of this type."""
    return f"\ue000{ctype}\ue001{text}\ue002"


_INIT: dict[str, Callable[[DType], str]] = {
    "sum": lambda t: literal(0, t),
    "prod": lambda t: literal(1, t),
    "max": lambda t: literal(-math.inf if t.is_float else t.lo, t),
    "min": lambda t: literal(math.inf if t.is_float else t.hi, t),
    "and": lambda t: "true",
    "or": lambda t: "false",
}
_OPERATORS = {"+", "-", "*", "/", "&", "|", "^", "<", "<=", ">", ">=", "==", "!="}
_BOUND = {"max": "atleast", "min": "atmost"}  # what they become where the other one is a number
_NARROW = {"i8", "u8", "i16", "u16", "i4", "u4", "i2", "u2"}


def _wrap(text: str, kind: DType) -> str:
    """The result of C arithmetic (done in int) brought back to a narrow integer type."""
    if kind.name not in _NARROW:
        return text
    if kind.bits < 8:
        return f"of_wrap_{kind.name}({text})"
    return f"({kind.ctype})({text})"


def operation(fn: str, args: Sequence[str], kind: DType, result: DType) -> str:
    """C text of one operation on operands of type `kind`."""
    if fn in _OPERATORS:
        return _wrap(f"({args[0]} {fn} {args[1]})", result)
    if fn == "neg":
        return _wrap(f"(-{args[0]})", result)
    if fn == "not":
        return f"(!{args[0]})" if kind is dtypes.b1 else _wrap(f"(~{args[0]})", result)
    if fn in ("index_wrap", "index_check"):
        return f"of_{fn}({', '.join(args)}, err)"
    return f"of_{fn}_{kind.name}({', '.join(args)})"


def convert(text: str, source: DType, to: DType, saturate: bool = True) -> str:
    """C text of a conversion; `source` is a compute type."""
    if source is to:
        return text
    if to is dtypes.b1:
        return f"({text} != 0)"
    if to.is_float:
        wide = to.compute
        v = text
        if source is dtypes.f64 and wide is not to:
            v = f"of_f64_to_f32_odd({text})"  # the narrow type rounds it once and for all
        elif source is not wide:
            v = f"({wide.ctype}){text}" if source is not dtypes.b1 else f"({wide.ctype})({text})"
        return from_storage(to_storage(v, to, saturate), to) if to.compute is not to else v
    if source.is_float and to.bits >= 8:
        return f"of_{source.name}_to_{to.name}({text})"
    if source.is_float:
        text = f"of_{source.name}_to_i32({text})"
    if to.bits < 8:
        return f"of_wrap_{to.name}({text})"
    return f"(({to.ctype}){text})"


@dataclass
class Scope:
    """A C block: its statements, and the expressions that have a name in it."""

    parent: Scope | None = None
    lines: list[str] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    indices: dict[str, str] = field(default_factory=dict)

    def find(self, s: Scalar) -> str | None:
        here: Scope | None = self
        while here is not None:
            if id(s) in here.names:
                return here.names[id(s)]
            here = here.parent
        return None

    def index_names(self) -> dict[str, str]:
        out = dict(self.parent.index_names()) if self.parent else {}
        out.update(self.indices)
        return out


class Writer:
    """Prints scalar expressions as C statements.

    place(value, index) gives the C name of the value's memory and the position of an element in
    it; acc is the text that stands for the result of the kernel whose epilogue is printed.
    """

    def __init__(
        self, place: Callable[[Value, Sequence[Dim]], tuple[str, Dim]], acc: str = "acc"
    ) -> None:
        self.place = place
        self.acc = acc
        self.count = 0
        self.symbols: dict[str, dims.Sym] = {}
        self.checked = False
        self._uses: dict[int, int] = {}
        self._keep: list[Scalar] = []

    def fresh(self, hint: str = "t") -> str:
        self.count += 1
        return f"{hint}{self.count}"

    def count_uses(self, root: Scalar) -> None:
        """Note which nodes are read more than once, so that they get a name."""
        self._keep.append(root)
        stack = [root]
        seen: set[int] = set()
        while stack:
            s = stack.pop()
            self._uses[id(s)] = self._uses.get(id(s), 0) + 1
            if id(s) in seen:
                continue
            seen.add(id(s))
            stack.extend(s.parts())
            for d in s.indices():
                for a in dims.atoms(d):
                    if isinstance(a, dims.Loaded):
                        stack.append(a.scalar)

    def index(self, d: Dim, scope: Scope) -> str:
        """C text of an index; values loaded for it become names first."""
        for a in dims.atoms(d):
            if isinstance(a, dims.Loaded):
                if a.name not in scope.index_names():
                    scope.indices[a.name] = self._named(a.scalar, scope, "ix")
            elif isinstance(a, dims.Sym):
                self.symbols[a.name] = a
        return dim_text(d, scope.index_names())

    def _named(self, s: Scalar, scope: Scope, ctype: str = "") -> str:
        text = self.value(s, scope)
        name = self.fresh()
        scope.lines.append(f"const {ctype or s.dtype.ctype} {name} = {text};")
        return name

    def value(self, s: Scalar, scope: Scope) -> str:
        """C text of the value of s, after the statements added to the scope."""
        known = scope.find(s)
        if known is not None:
            return known
        text = self._text(s, scope)
        if self._uses.get(id(s), 0) > 1 and not isinstance(s, (Const, Acc, Index)):
            if not re.fullmatch(r"\w+", text):
                name = self.fresh()
                scope.lines.append(f"const {s.dtype.ctype} {name} = {text};")
                text = name
            scope.names[id(s)] = text
        return text

    def _text(self, s: Scalar, scope: Scope) -> str:
        if isinstance(s, Const):
            text = literal(s.value, s.dtype)
            return text if s.dtype is dtypes.b1 else number(text, s.dtype.ctype)
        if isinstance(s, Load):
            for d in s.index:
                self.index(d, scope)
            name, at = self.place(s.value, s.index)
            return from_storage(f"{name}[{self.index(at, scope)}]", s.value.tensor.memory)
        if isinstance(s, Index):
            return f"((int64_t){self.index(s.expr, scope)})"
        if isinstance(s, Acc):
            return self.acc
        if isinstance(s, Inside):
            return self._inside(s, scope)
        if isinstance(s, Cast):
            return convert(self.value(s.a, scope), s.a.dtype, s.to, s.saturate)
        if isinstance(s, Call):
            if s.fn.startswith("index_"):
                self.checked = True
            args = [self.value(a, scope) for a in s.args]
            last = s.args[-1]
            bound = last.dtype.is_float and isinstance(last, Const) and last.value == last.value
            fn = _BOUND.get(s.fn, s.fn) if bound else s.fn
            return operation(fn, args, s.args[0].dtype, s.dtype)
        if isinstance(s, Select):
            return self._select(s, scope)
        if isinstance(s, Reduce):
            return self._reduce(s, scope)
        raise TypeError(type(s).__name__)

    def _inside(self, s: Inside, scope: Scope) -> str:
        lo, hi = dims.bounds(s.expr - s.lo if s.lo != 0 else s.expr), dims.bounds(s.expr - s.hi)
        tests = []
        at = self.index(s.expr, scope)
        if lo[0] < 0:
            tests.append(f"{at} >= {self.index(s.lo, scope)}")
        if hi[1] >= 0:
            tests.append(f"{at} < {self.index(s.hi, scope)}")
        return "(" + " && ".join(tests) + ")" if tests else "true"

    def _select(self, s: Select, scope: Scope) -> str:
        cond = self.value(s.cond, scope)
        if cond == "true":
            return self.value(s.a, scope)
        a, b = Scope(scope), Scope(scope)
        x, y = self.value(s.a, a), self.value(s.b, b)
        if not a.lines and not b.lines:
            return f"({cond} ? {x} : {y})"
        name = self.fresh()
        scope.lines.append(f"{s.dtype.ctype} {name};")
        scope.lines.append(f"if ({cond}) {{")
        scope.lines += ["  " + t for t in [*a.lines, f"{name} = {x};"]]
        scope.lines.append("} else {")
        scope.lines += ["  " + t for t in [*b.lines, f"{name} = {y};"]]
        scope.lines.append("}")
        scope.names[id(s)] = name
        self._keep.append(s)
        return name

    def _reduce(self, s: Reduce, scope: Scope) -> str:
        name = self.fresh("a")
        scope.lines.append(f"{s.dtype.ctype} {name} = {initial(s)};")
        inner = Scope(scope)
        text = self.value(s.body, inner)
        body = [*inner.lines, update(s, name, text)]
        for c in reversed(s.counters):
            body = loop(c.name, self.index(c.extent if c.extent is not None else 1, scope), body)
        scope.lines += body
        scope.names[id(s)] = name
        self._keep.append(s)
        return name


def initial(s: Reduce) -> str:
    """What a reduction begins with."""
    return _INIT[s.kind](s.dtype)


def update(s: Reduce, name: str, text: str) -> str:
    """The statement that takes one more element into a reduction."""
    if s.kind in ("sum", "prod"):
        op = "+" if s.kind == "sum" else "*"
        return f"{name} = {_wrap(f'{name} {op} {text}', s.dtype)};"
    if s.kind in ("max", "min"):
        return f"{name} = of_{s.kind}_{s.dtype.name}({name}, {text});"
    return f"{name} = {name} {'&&' if s.kind == 'and' else '||'} {text};"


def loop_over(
    c: dims.Sym, dim: Callable[[Dim], str], body: Sequence[str], ends: Ends | None = None
) -> list[str]:
    """A loop over a counter, or over those of its values that lie between `ends`; the body alone
    where it takes one value only."""
    assert c.extent is not None
    if ends is not None:
        return loop(c.name, ends[1], body, ends[0])
    return list(body) if c.extent == 1 else loop(c.name, dim(c.extent), body)


def loop(name: str, extent: str, body: Sequence[str], first: str = "0") -> list[str]:
    return braced(body, f"for (ix {name} = {first}; {name} < {extent}; {name}++)")


def braced(body: Sequence[str], head: str = "") -> list[str]:
    """Statements between braces, behind a head if there is one."""
    return [f"{head} {{" if head else "{", *("  " + line for line in body), "}"]
