"""Integer expressions for sizes and indices.

A size is an int or an `Expr`: a polynomial over atoms, kept in one canonical form, so that equal
expressions compare equal. Atoms are symbols (a dimension known only at run time, or a loop
counter), floor divisions, remainders, minima, maxima, and values loaded from a tensor. Planners
need bounds, not algebra: every expression knows the interval it lies in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

INF = 1 << 62


@dataclass(frozen=True, slots=True)
class Sym:
    """A named integer with bounds, both inclusive. Loop counters carry their extent."""

    name: str
    lo: int = 0
    hi: int = INF
    extent: Dim | None = None

    def __repr__(self) -> str:
        return self.name

    @property
    def key(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Pair:
    """An atom of two expressions: op is one of // % min max."""

    op: str
    a: Dim
    b: Dim

    def __repr__(self) -> str:
        if self.op in ("min", "max"):
            return f"{self.op}({self.a}, {self.b})"
        return f"({self.a} {self.op} {self.b})"

    @property
    def key(self) -> str:
        return repr(self)


@dataclass(frozen=True, slots=True)
class Loaded:
    """An index read from a tensor at run time; `scalar` is an `onefold.ir.scalar.Scalar`."""

    name: str
    scalar: Any
    lo: int
    hi: int

    def __repr__(self) -> str:
        return self.name

    @property
    def key(self) -> str:
        return self.name


Atom = Sym | Pair | Loaded
Monomial = tuple[Atom, ...]


@dataclass(frozen=True, slots=True)
class Expr:
    """A sum of terms coefficient x monomial, sorted; never a plain constant (that is an int)."""

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Dim) -> Dim:
        return add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return add(self, mul(other, -1))

    def __rsub__(self, other: Dim) -> Dim:
        return add(other, mul(self, -1))

    def __neg__(self) -> Dim:
        return mul(self, -1)

    def __mul__(self, other: Dim) -> Dim:
        return mul(self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return mod(self, other)

    def __rmod__(self, other: Dim) -> Dim:
        return mod(other, self)

    def __repr__(self) -> str:
        out = ""
        for mono, c in self.terms:
            body = "*".join(repr(a) for a in mono)
            if not mono:
                text = str(abs(c))
            else:
                text = body if abs(c) == 1 else f"{abs(c)}*{body}"
            out += (" - " if c < 0 else " + ") + text if out else ("-" if c < 0 else "") + text
        return out


Dim = int | Expr
Shape = tuple[Dim, ...]


def sum_terms(x: Dim) -> dict[Monomial, int]:
    """The coefficients of a sum by what they multiply; of a number, what multiplies nothing."""
    return ({(): x} if x else {}) if isinstance(x, int) else dict(x.terms)


def _make(terms: Mapping[Monomial, int]) -> Dim:
    kept = {m: c for m, c in terms.items() if c}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return kept[()]
    order = sorted(kept.items(), key=lambda t: (-len(t[0]), [a.key for a in t[0]]))
    return Expr(tuple(order))


def sym(name: str, lo: int = 0, hi: int = INF, extent: Dim | None = None) -> Dim:
    """A new symbol; one that can have a single value is that value."""
    return lo if lo == hi else Expr((((Sym(name, lo, hi, extent),), 1),))


_count = threading.local()


def restart_names() -> None:
    """Let `fresh_name` count from 0 again in this thread: an import begins. Names differ within
    one graph, and equal models get equal names."""
    _count.next = 0


def fresh_name(hint: str) -> str:
    """A name that this import has not given before."""
    n: int = getattr(_count, "next", 0)
    _count.next = n + 1
    return f"{hint}{n}"


def atom(a: Atom) -> Dim:
    return Expr((((a,), 1),))


def add(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    out = sum_terms(a)
    for m, c in sum_terms(b).items():
        out[m] = out.get(m, 0) + c
    return _make(out)


def mul(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    out: dict[Monomial, int] = {}
    for m, c in sum_terms(a).items():
        for n, d in sum_terms(b).items():
            k = tuple(sorted(m + n, key=lambda x: x.key))
            out[k] = out.get(k, 0) + c * d
    return _make(out)


def product(dims: Iterable[Dim]) -> Dim:
    out: Dim = 1
    for d in dims:
        out = mul(out, d)
    return out


def bounds(x: Dim) -> tuple[int, int]:
    """The interval, both ends inclusive, clamped to +-INF."""
    if isinstance(x, int):
        return x, x
    return _bounds(x)


@lru_cache(maxsize=100_000)
def _bounds(x: Expr) -> tuple[int, int]:
    lo = hi = 0
    for mono, c in x.terms:
        a, b = 1, 1
        for at in mono:
            p, q = _atom_bounds(at)
            ends = (a * p, a * q, b * p, b * q)
            a, b = min(ends), max(ends)
        a, b = (a * c, b * c) if c > 0 else (b * c, a * c)
        lo, hi = lo + a, hi + b
    return max(lo, -INF), min(hi, INF)


def _atom_bounds(a: Atom) -> tuple[int, int]:
    if not isinstance(a, Pair):
        return a.lo, a.hi
    (p, q), (r, s) = bounds(a.a), bounds(a.b)
    if a.op == "min":
        return min(p, r), min(q, s)
    if a.op == "max":
        return max(p, r), max(q, s)
    if a.op == "%":
        return 0, max(s - 1, 0) if p < 0 or q >= s else min(q, max(s - 1, 0))
    r, s = max(r, 1), max(s, 1)
    ends = (p // r, p // s, q // r, q // s)
    return min(ends), max(ends)


def below(x: Dim, n: Dim) -> bool:
    """True where 0 <= x < n is proved."""
    lo, hi = bounds(x)
    if lo < 0:
        return False
    if hi < bounds(n)[0]:
        return True
    if isinstance(n, int) or isinstance(x, int):
        return False
    room = n - substitute_extents(x)
    return bounds(room)[0] >= 1


def substitute_extents(x: Dim) -> Dim:
    """x with every loop counter at its largest value, where its extent is known."""
    env: dict[Sym, Dim] = {}
    for s in symbols(x):
        if s.extent is not None:
            env[s] = s.extent - 1
    return substitute(x, env) if env else x


def floordiv(a: Dim, b: Dim) -> Dim:
    """a // b for b > 0, rounding down."""
    if isinstance(b, int):
        if isinstance(a, int):
            return a // b if b else 0
        if b == 1:
            return a
    if a == 0 or b == 0:
        return 0
    if a == b:
        return 1
    whole, rest = _split(a, b)
    if rest == 0:
        return whole
    if below(rest, b):
        return whole
    if whole != 0:
        return add(whole, floordiv(rest, b))
    if isinstance(b, int) and isinstance(a, Expr):
        single = _sole_pair(a)
        if single is not None and single.op == "//" and isinstance(single.b, int):
            return floordiv(single.a, single.b * b)
    return atom(Pair("//", a, b))


def mod(a: Dim, b: Dim) -> Dim:
    """a % b for b > 0, never negative."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b if b else 0
    if b in (0, 1) or a == b:
        return 0
    _, rest = _split(a, b)
    if rest == 0 or below(rest, b):
        return rest
    if isinstance(b, int) and isinstance(rest, Expr):
        single = _sole_pair(rest)
        if single is not None and single.op == "%" and isinstance(single.b, int):
            if single.b % b == 0:
                return mod(single.a, b)
    return atom(Pair("%", rest, b))


def _sole_pair(x: Expr) -> Pair | None:
    if len(x.terms) == 1:
        (mono, c) = x.terms[0]
        if c == 1 and len(mono) == 1 and isinstance(mono[0], Pair):
            return mono[0]
    return None


def _split(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """(q, r) with a = q*b + r, taking out of a all terms that b divides."""
    whole: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    divisor = sum_terms(b)
    if len(divisor) != 1:
        # Division by a sum: only exact multiples a = k*b are recognised.
        return _multiple(a, b)
    (dm, dc), = divisor.items()
    for m, c in sum_terms(a).items():
        left = _without(m, dm)
        if left is None:
            rest[m] = c
        elif c % dc == 0:
            whole[left] = c // dc
        else:
            whole[left] = c // dc
            rest[m] = c % dc
    return _make(whole), _make(rest)


def _multiple(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    bt, at = sum_terms(b), sum_terms(a)
    lead = max(bt, key=lambda m: (len(m), [x.key for x in m]))
    for m, c in at.items():
        left = _without(m, lead)
        if left is None or c % bt[lead]:
            continue
        q = _make({left: c // bt[lead]})
        r = add(a, mul(mul(q, b), -1))
        if len(sum_terms(r)) < len(at):
            q2, r2 = _multiple(r, b) if not isinstance(r, int) else (0, r)
            return add(q, q2), r2
    return 0, a


def _without(m: Monomial, part: Monomial) -> Monomial | None:
    left = list(m)
    for a in part:
        if a not in left:
            return None
        left.remove(a)
    return tuple(left)


def ceildiv(a: Dim, b: Dim) -> Dim:
    return floordiv(add(a, b - 1), b)


def minimum(a: Dim, b: Dim) -> Dim:
    (p, q), (r, s) = bounds(a), bounds(b)
    if q <= r or a == b:
        return a
    if s <= p:
        return b
    return atom(Pair("min", *sorted((a, b), key=repr)))


def maximum(a: Dim, b: Dim) -> Dim:
    (p, q), (r, s) = bounds(a), bounds(b)
    if p >= s or a == b:
        return a
    if r >= q:
        return b
    return atom(Pair("max", *sorted((a, b), key=repr)))


def apply(op: str, a: Dim, b: Dim) -> Dim:
    return _APPLY[op](a, b)


_APPLY: dict[str, Callable[[Dim, Dim], Dim]] = {
    "//": floordiv, "%": mod, "min": minimum, "max": maximum,
}  # fmt: skip


def substitute(x: Dim, env: Mapping[Sym, Dim]) -> Dim:
    """x with symbols replaced."""
    if isinstance(x, int):
        return x
    out: Dim = 0
    for mono, c in x.terms:
        term: Dim = c
        for a in mono:
            term = mul(term, _substitute_atom(a, env))
        out = add(out, term)
    return out


def _substitute_atom(a: Atom, env: Mapping[Sym, Dim]) -> Dim:
    if isinstance(a, Sym):
        return env.get(a, atom(a))
    if isinstance(a, Pair):
        return apply(a.op, substitute(a.a, env), substitute(a.b, env))
    return atom(a)


def atoms(x: Dim) -> list[Atom]:
    """Every atom in x, those inside pairs too, each once, in order of appearance."""
    seen: dict[Atom, None] = {}

    def walk(d: Dim) -> None:
        if isinstance(d, int):
            return
        for mono, _ in d.terms:
            for a in mono:
                if isinstance(a, Pair):
                    walk(a.a)
                    walk(a.b)
                seen.setdefault(a)

    walk(x)
    return list(seen)


def symbols(x: Dim) -> list[Sym]:
    return [a for a in atoms(x) if isinstance(a, Sym)]


def evaluate(x: Dim, env: Mapping[str, int]) -> int:
    """The value of x given the symbols' values by name. Raises KeyError for a missing one."""
    if isinstance(x, int):
        return x
    total = 0
    for mono, c in x.terms:
        term = c
        for a in mono:
            if isinstance(a, Pair):
                p, q = evaluate(a.a, env), evaluate(a.b, env)
                term *= _EVAL[a.op](p, q)
            else:
                term *= env[a.name]
        total += term
    return total


_EVAL: dict[str, Callable[[int, int], int]] = {
    "//": lambda a, b: a // b, "%": lambda a, b: a % b, "min": min, "max": max,
}  # fmt: skip


def upper(x: Dim) -> int:
    return bounds(x)[1]


def is_static(shape: Sequence[Dim]) -> bool:
    return all(isinstance(d, int) for d in shape)


def linear(index: Sequence[Dim], shape: Sequence[Dim]) -> Dim:
    """The row-major position of an index."""
    out: Dim = 0
    for i, n in zip(index, shape, strict=True):
        out = add(mul(out, n), i)
    return rejoin(out)


def rejoin(x: Dim) -> Dim:
    """x with k*(a % b) + k*b*(a // b) written as k*a, wherever it holds such a sum."""
    if isinstance(x, int):
        return x
    terms = dict(x.terms)
    again = True
    while again:
        again = False
        for mono, k in terms.items():
            pair = next((a for a in mono if isinstance(a, Pair) and a.op == "%"), None)
            if pair is None:
                continue
            rest = list(mono)
            rest.remove(pair)
            scale = _make({tuple(rest): k})
            over = sum_terms(floordiv(pair.a, pair.b))
            high = sum_terms(mul(mul(scale, pair.b), _make(over)))
            if len(over) == 1 and () not in over and high.items() <= terms.items():
                for m in (mono, *high):
                    del terms[m]
                for m, c in sum_terms(mul(scale, pair.a)).items():
                    terms[m] = terms.get(m, 0) + c
                again = True
                break
    return _make(terms)


def unravel(position: Dim, shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """The index at a row-major position; the position is known to lie inside the shape."""
    out: list[Dim] = []
    for k in range(len(shape) - 1, -1, -1):
        if k == 0:
            out.append(position)
        else:
            out.append(mod(position, shape[k]))
            position = floordiv(position, shape[k])
    return tuple(reversed(out))


def reindex(index: Sequence[Dim], shape: Sequence[Dim], old: Sequence[Dim]) -> tuple[Dim, ...]:
    """The index in a tensor of shape `old` of the element at `index` of its reshape."""
    if tuple(shape) == tuple(old):
        return tuple(index)
    return unravel(linear(index, shape), old)


def coefficient(x: Dim, s: Sym) -> Dim | None:
    """c where x = c*s + rest and neither c nor rest mentions s; None where it is not linear."""
    if isinstance(x, int):
        return 0
    c: Dim = 0
    for mono, k in x.terms:
        if s in mono:
            left = _without(mono, (s,))
            if left is None or s in left:
                return None
            c = add(c, _make({left: k}))
        elif any(isinstance(a, Pair) and s in symbols(atom(a)) for a in mono):
            return None
        elif any(isinstance(a, Loaded) for a in mono) and _loaded_uses(mono, s):
            return None
    return c


def _loaded_uses(mono: Monomial, s: Sym) -> bool:
    return any(isinstance(a, Loaded) and s in a.scalar.index_symbols() for a in mono)


def to_data(d: Dim) -> Any:
    """A size as plain data for a file: an int, a name, or [operator, operands...]."""
    if isinstance(d, int):
        return d
    terms: list[Any] = ["+"]
    for mono, c in d.terms:
        factors: list[Any] = ["*", c]
        for a in mono:
            factors.append([a.op, to_data(a.a), to_data(a.b)] if isinstance(a, Pair) else a.name)
        terms.append(factors)
    return terms


def value_of(data: Any, env: Mapping[str, int]) -> int:
    """The value of a size written by `to_data`."""
    if isinstance(data, int):
        return data
    if isinstance(data, str):
        return env[data]
    op, *args = data
    values = [value_of(a, env) for a in args]
    if op == "+":
        return sum(values)
    if op == "*":
        out = 1
        for v in values:
            out *= v
        return out
    return _EVAL[op](values[0], values[1])
