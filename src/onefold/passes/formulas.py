"""Activations that exporters spell out, found by what they compute rather than how it is written.

A node is read as coefficient times factors; what stands inside a function is read as a polynomial
of x. So x * 0.5 * (1 + erf(x / sqrt(2))) is a GELU whatever the order of its products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from onefold.ir.graph import Node, Value
from onefold.ops.activation import (
    Erf,
    Gelu,
    HardSigmoid,
    HardSwish,
    Mish,
    Relu,
    Sigmoid,
    Softplus,
    Swish,
)
from onefold.ops.base import Op
from onefold.ops.elementwise import Add, Clip, Div, Max, Min, Mul, Pow, Sub
from onefold.ops.unary import Exp, Log, Neg, Reciprocal, Tanh
from onefold.passes.match import is_float, near, number, producer
from onefold.passes.rewrite import Patch, Scope, rewrite

DEPTH = 8  # nodes that a formula may be deep


@dataclass
class Product:
    """coefficient * product of factors; nodes are those that were read, the root first."""

    coefficient: float = 1.0
    factors: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)


def product(v: Value, see: Scope, depth: int = DEPTH, root: bool = True) -> Product:
    """Reads products and quotients by numbers, through values that nobody else reads."""
    n = v.producer
    out = Product()
    c = number(v) if v.is_const else None
    if c is not None and v.tensor.size == 1:
        out.coefficient = c
        return out
    if n is None or not depth or not (root or see.sole(v)) or not is_float(v):
        out.factors.append(v)
        return out
    if isinstance(n.op, Mul):
        parts = [product(u, see, depth - 1, False) for u in n.present()]
        for p in parts:
            out.coefficient *= p.coefficient
            out.factors += p.factors
        out.nodes = [n, *(m for p in parts for m in p.nodes)]
        return out
    by = number(n.input(1)) if isinstance(n.op, Div) else -1.0 if isinstance(n.op, Neg) else None
    if not by or (isinstance(n.op, Div) and n.arg(1).tensor.size != 1):
        out.factors.append(v)
        return out
    inner = product(n.arg(0), see, depth - 1, False)
    return Product(inner.coefficient / by, inner.factors, [n, *inner.nodes])


Polynomial = dict[int, float]  # power -> coefficient


def polynomial(v: Value, x: Value, depth: int = DEPTH) -> tuple[Polynomial, list[Node]] | None:
    """v as a polynomial of x of degree 4 at most, and the nodes read; None where it is none."""
    if v is x:
        return {1: 1.0}, []
    c = number(v) if v.is_const and v.tensor.size == 1 else None
    if c is not None:
        return {0: c}, []
    n = v.producer
    if n is None or not depth or not isinstance(n.op, (Add, Sub, Mul, Div, Neg, Pow)):
        return None
    parts = [polynomial(u, x, depth - 1) for u in n.present()]
    if any(p is None for p in parts):
        return None
    terms = [p[0] for p in parts if p is not None]
    nodes = [n, *(m for p in parts if p is not None for m in p[1])]
    made = _combined(n.op, terms)
    return None if made is None or max(made, default=0) > 4 else (made, nodes)


def _combined(op: Op, terms: list[Polynomial]) -> Polynomial | None:
    a = terms[0]
    if isinstance(op, Neg):
        return {k: -c for k, c in a.items()}
    b = terms[1]
    if isinstance(op, (Add, Sub)):
        sign = 1 if isinstance(op, Add) else -1
        return {k: a.get(k, 0.0) + sign * b.get(k, 0.0) for k in {*a, *b}}
    if isinstance(op, Mul):
        out: Polynomial = {}
        for i, p in a.items():
            for j, q in b.items():
                out[i + j] = out.get(i + j, 0.0) + p * q
        return out
    if set(b) != {0} or not b[0]:
        return None
    if isinstance(op, Div):
        return {k: c / b[0] for k, c in a.items()}
    if len(a) != 1 or b[0] not in (1, 2, 3, 4):
        return None
    ((k, c),) = a.items()
    return {k * int(b[0]): c ** int(b[0])}


def same_polynomial(found: Polynomial, wanted: Polynomial) -> bool:
    powers = {k for k, c in found.items() if c}
    return powers == set(wanted) and all(near(found[k], c, 2e-5) for k, c in wanted.items())


def straight(found: Polynomial) -> tuple[float, float] | None:
    """(a, b) of a x + b."""
    if any(c for k, c in found.items() if k > 1) or not found.get(1):
        return None
    return found[1], found.get(0, 0.0)


def function_of(v: Value, *kinds: type[Op]) -> tuple[float, float, Node, list[Node]] | None:
    """(a, b, f, nodes) where v = a * f + b and f is the node of such an operator."""
    nodes: list[Node] = []
    a, b = 1.0, 0.0
    for _ in range(DEPTH):
        n = v.producer
        if n is None:
            return None
        nodes.append(n)
        if type(n.op) in kinds:
            return a, b, n, nodes
        if not isinstance(n.op, (Add, Sub, Mul, Div)):
            return None
        i = 1 if n.arg(0).is_const and not isinstance(n.op, Div) else 0
        c = number(n.arg(1 - i)) if n.arg(1 - i).tensor.size == 1 else None
        if c is None:
            return None
        if isinstance(n.op, Add):
            b += a * c
        elif isinstance(n.op, Sub):
            b, a = (b - a * c, a) if i == 0 else (b + a * c, -a)
        elif isinstance(n.op, Mul):
            a *= c
        elif c:
            a /= c
        else:
            return None
        v = n.arg(i)
    return None


Found = tuple[Op, list[Node]]
Read = Callable[[float, Value, Value], Found | None]


def one(covers: Sequence[Node], op: Op, x: Value) -> Patch:
    """A patch of one operator on one value."""
    return Patch(tuple(dict.fromkeys(covers)), lambda b: [b.op(op, x)])


def times_x(n: Node, see: Scope, read: Read) -> Patch | None:
    """A product c * x * f(x), where `read(c, f, x)` knows what it is."""
    p = product(n.outputs[0], see)
    if len(p.factors) != 2 or not is_float(n.outputs[0]):
        return None
    for x, f in (p.factors, p.factors[::-1]):
        if x.tensor != n.outputs[0].tensor and x.tensor.shape != n.outputs[0].shape:
            continue
        found = read(p.coefficient, f, x) if x.dtype is n.outputs[0].dtype else None
        if found is not None:
            return one((*p.nodes, *found[1]), found[0], x)
    return None


def _gelu(c: float, f: Value, x: Value) -> Found | None:
    found = function_of(f, Erf, Tanh)
    if found is None or not near(c * found[0], 0.5, 1e-6) or not near(c * found[1], 0.5, 1e-6):
        return None
    node, nodes = found[2], found[3]
    inside = polynomial(node.arg(0), x)
    if inside is None:
        return None
    k = math.sqrt(2 / math.pi)
    wanted = {1: math.sqrt(0.5)} if isinstance(node.op, Erf) else {1: k, 3: k * 0.044715}
    if not same_polynomial(inside[0], wanted):
        return None
    kind = "none" if isinstance(node.op, Erf) else "tanh"
    return Gelu(kind), [*nodes, *inside[1]]


@rewrite("gelu", Mul, Div)
def gelu(n: Node, see: Scope) -> Patch | None:
    return times_x(n, see, _gelu)


def _swish(c: float, f: Value, x: Value) -> Found | None:
    node = producer(f, Sigmoid)
    if node is None or not near(c, 1, 1e-6):
        return None
    inside = polynomial(node.arg(0), x)
    if inside is None or set(inside[0]) != {1}:
        return None
    return Swish(inside[0][1]), [node, *inside[1]]


@rewrite("swish", Mul)
def swish(n: Node, see: Scope) -> Patch | None:
    return times_x(n, see, _swish)


def _mish(c: float, f: Value, x: Value) -> Found | None:
    node = producer(f, Tanh)
    if node is None or not near(c, 1, 1e-6):
        return None
    soft = producer(node.arg(0), Softplus)
    if soft is not None:
        return (Mish(), [node, soft]) if soft.arg(0) is x else None
    log = producer(node.arg(0), Log)
    found = None if log is None else function_of(log.arg(0), Exp)
    if log is None or found is None or found[:2] != (1.0, 1.0) or found[2].arg(0) is not x:
        return None
    return Mish(), [node, log, *found[3]]


@rewrite("mish", Mul)
def mish(n: Node, see: Scope) -> Patch | None:
    """Also with log(1 + exp(x)) in place of softplus, whose overflow tanh hides."""
    return times_x(n, see, _mish)


def clamp_of(v: Value) -> tuple[float, float, Value, list[Node]] | None:
    """(low, high, inner, nodes) of nested limits by numbers."""
    low, high = -math.inf, math.inf
    nodes: list[Node] = []
    for _ in range(4):
        n = v.producer
        found = None if n is None else _limit(n)
        if n is None or found is None:
            break
        a, b, inner = found
        # Limits further out apply last: clamp the inner interval's ends by the outer one.
        low, high = min(max(a, low), high), min(max(b, low), high)
        nodes.append(n)
        v = inner
    return (low, high, v, nodes) if nodes else None


def _limit(n: Node) -> tuple[float, float, Value] | None:
    if isinstance(n.op, Relu):
        return 0.0, math.inf, n.arg(0)
    if isinstance(n.op, Clip):
        low = -math.inf if n.input(1) is None else number(n.input(1))
        high = math.inf if n.input(2) is None else number(n.input(2))
        return None if low is None or high is None or not low <= high else (low, high, n.arg(0))
    if isinstance(n.op, (Min, Max)) and len(n.inputs) == 2:
        i = 1 if n.arg(0).is_const else 0
        c = number(n.arg(1 - i)) if n.arg(1 - i).tensor.size == 1 else None
        if c is None or math.isnan(c):
            return None
        return (-math.inf, c, n.arg(i)) if isinstance(n.op, Min) else (c, math.inf, n.arg(i))
    return None


def ramp(c: float, v: Value, x: Value | None) -> tuple[float, float, Value, list[Node]] | None:
    """(alpha, beta, x, nodes) where c * v is min(max(alpha x + beta, 0), 1); x None: find it."""
    hard = producer(v, HardSigmoid)
    if hard is not None and isinstance(hard.op, HardSigmoid):
        if not near(c, 1, 1e-6):
            return None
        low, high, alpha, beta = 0.0, 1.0, hard.op.alpha, hard.op.beta
        inner, nodes = hard.arg(0), [hard]
    else:
        found = clamp_of(v)
        if found is None or c <= 0:
            return None
        low, high, inner, nodes = c * found[0], c * found[1], found[2], found[3]
        alpha, beta = c, 0.0
    if low != 0 or not near(high, 1, 1e-6):
        return None
    leaf = _leaf(inner) if x is None else x
    inside = polynomial(inner, leaf)
    line = None if inside is None else straight(inside[0])
    if inside is None or line is None:
        return None
    return alpha * line[0], alpha * line[1] + beta, leaf, [*nodes, *inside[1]]


def _leaf(v: Value) -> Value:
    """What a chain of sums and products with numbers begins with."""
    for _ in range(DEPTH):
        n = v.producer
        if n is None or not isinstance(n.op, (Add, Sub, Mul, Div)):
            return v
        i = 1 if n.arg(0).is_const else 0
        if not n.arg(1 - i).is_const or n.arg(1 - i).tensor.size != 1:
            return v
        v = n.arg(i)
    return v


def _hard_swish(c: float, f: Value, x: Value) -> Found | None:
    found = ramp(c, f, x)
    if found is None or not near(found[0], 1 / 6, 1e-5) or not near(found[1], 0.5, 1e-6):
        return None
    return HardSwish(), found[3]


@rewrite("hard-swish", Mul, Div)
def hard_swish(n: Node, see: Scope) -> Patch | None:
    """x * clip(x + 3, 0, 6) / 6 and x * hardsigmoid(x) with slope 1/6."""
    return times_x(n, see, _hard_swish)


@rewrite("hard-sigmoid", Mul, Div, Clip, Min, Max)
def hard_sigmoid(n: Node, see: Scope) -> Patch | None:
    """c * clip(a x + b, low, high) where the result lies between 0 and 1."""
    out = n.outputs[0]
    if not is_float(out):
        return None
    if isinstance(n.op, (Mul, Div)):
        p = product(out, see)
        if len(p.factors) != 1 or p.factors[0].is_const or not see.sole(p.factors[0]):
            return None
        found = ramp(p.coefficient, p.factors[0], None)
        nodes = p.nodes
    else:
        found, nodes = ramp(1.0, out, None), []
    if found is None or found[2].shape != out.shape or found[:2] == (1.0, 0.0):
        return None
    alpha, beta, x, inner = found
    if not all(see.sole(m.outputs[0]) for m in inner if m is not n):
        return None  # the ramp may be part of something better
    return one((n, *nodes, *inner), HardSigmoid(alpha, beta), x)


@rewrite("sigmoid", Div, Reciprocal)
def sigmoid(n: Node, see: Scope) -> Patch | None:
    """1 / (1 + exp(-x)); where exp overflows both are 0."""
    i = 1 if isinstance(n.op, Div) else 0
    if isinstance(n.op, Div) and number(n.arg(0)) != 1:
        return None
    found = function_of(n.arg(i), Exp)
    if found is None or found[:2] != (1.0, 1.0) or not is_float(n.outputs[0]):
        return None
    neg = producer(found[2].arg(0), Neg)
    if neg is None or neg.arg(0).shape != n.outputs[0].shape:
        return None
    return one((n, *found[3], neg), Sigmoid(), neg.arg(0))


RULES = (gelu, swish, mish, hard_swish, sigmoid, hard_sigmoid)
