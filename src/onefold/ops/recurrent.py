"""RNN, GRU and LSTM.

Our operators take the weights the other way round than ONNX: w [D, input, G * H] and
r [D, H, G * H] for D directions and G gates, so that a step of the cell runs along the hidden
dimension. Everything else is ONNX's: x [T, N, input], b [D, 2 * G * H], sequence_lens [N],
initial_h [D, N, H], -> y [T, D, N, H], y_h [D, N, H]; with layout 1 the batch comes first.
Padding behind a sequence gives zeros in y.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onefold.codegen.text import from_storage, literal, to_storage
from onefold.ir import dims, dtypes
from onefold.ir.dims import Dim
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Code, Lowering, Op, Refusal, agree, operator
from onefold.ops.formats import OnnxNode

Dims = tuple[Dim, ...]
Function = tuple[str, float, float]  # name in lower case, alpha, beta
Act = Callable[..., str]  # C text: activation number i of a text, clipped before unless told

# C text and NumPy of each activation of x; a = alpha, b = beta
ACTIVATIONS: dict[str, tuple[str, Callable[[Any, float, float], Any]]] = {
    "relu": ("(({x}) > 0 ? ({x}) : 0)", lambda x, a, b: np.maximum(x, 0)),
    "tanh": ("of_tanh_{t}({x})", lambda x, a, b: np.tanh(x)),
    "sigmoid": ("of_sigmoid_{t}({x})", lambda x, a, b: 1 / (1 + np.exp(-x))),
    "affine": ("({a} * ({x}) + {b})", lambda x, a, b: a * x + b),
    "leakyrelu": ("(({x}) < 0 ? {a} * ({x}) : ({x}))", lambda x, a, b: np.where(x < 0, a * x, x)),
    "thresholdedrelu": ("(({x}) > {a} ? ({x}) : 0)", lambda x, a, b: np.where(x > a, x, 0)),
    "scaledtanh": ("({a} * of_tanh_{t}({b} * ({x})))", lambda x, a, b: a * np.tanh(b * x)),
    "hardsigmoid": (
        "of_clamp_{t}({a} * ({x}) + {b}, 0, 1)", lambda x, a, b: np.clip(a * x + b, 0, 1),
    ),
    "elu": (
        "(({x}) < 0 ? {a} * of_expm1_{t}({x}) : ({x}))",
        lambda x, a, b: np.where(x < 0, a * np.expm1(x), x),
    ),
    "softsign": ("(({x}) / (1 + of_abs_{t}({x})))", lambda x, a, b: x / (1 + np.abs(x))),
    "softplus": ("of_softplus_{t}({x})", lambda x, a, b: np.logaddexp(x, 0)),
}  # fmt: skip
DEFAULTS = {
    "affine": (1.0, 0.0), "leakyrelu": (0.01, 0.0), "thresholdedrelu": (1.0, 0.0),
    "scaledtanh": (1.0, 1.0), "hardsigmoid": (0.2, 0.5), "elu": (1.0, 0.0),
}  # fmt: skip
USES_ALPHA = frozenset(DEFAULTS)
USES_BETA = frozenset({"affine", "scaledtanh", "hardsigmoid"})


def functions(
    names: Sequence[str], alpha: Sequence[float], beta: Sequence[float]
) -> tuple[Function, ...]:
    """Activations with their parameters; the lists are used up by those that take one."""
    alphas, betas = list(alpha), list(beta)
    out: list[Function] = []
    for name in names:
        key = name.lower()
        if key not in ACTIVATIONS:
            raise Refusal(f"activation {name!r} is not known")
        a, b = DEFAULTS.get(key, (0.0, 0.0))
        if key in USES_ALPHA and alphas:
            a = float(alphas.pop(0))
        if key in USES_BETA and betas:
            b = float(betas.pop(0))
        out.append((key, a, b))
    return tuple(out)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of one recurrent node: steps, batch, inputs, hidden units, directions."""

    t: Dim
    n: Dim
    i: Dim
    h: int
    d: int


@dataclass(frozen=True, slots=True)
class Places:
    """C texts: where a step of a cell finds what belongs to the hidden unit at hand."""

    new: str  # hidden state, to be written
    cell: str = ""  # read and written
    peepholes: Sequence[str] = ()  # of i, o, f


class Recurrent(Op):
    """What the cells share. activations: those of each direction in turn."""

    direction: str = "forward"
    activations: tuple[Function, ...] = ()
    clip: float = 0.0
    layout: int = 0
    gates: ClassVar[int] = 1
    default: ClassVar[tuple[str, ...]] = ("tanh",)

    def acts(self, d: int) -> tuple[Function, ...]:
        """The activations of direction d."""
        each = len(self.default)
        if not self.activations:
            return functions(self.default, (), ())
        return self.activations[d * each : (d + 1) * each]

    def sizes(self, n: Node) -> Sizes:
        """Raises Refusal where shapes, types or attributes do not fit together."""
        x, w, r = n.arg(0), n.arg(1), n.arg(2)
        if self.direction not in ("forward", "reverse", "bidirectional"):
            raise Refusal(f"{self.name} has direction {self.direction!r}")
        d = 2 if self.direction == "bidirectional" else 1
        if len(x.shape) != 3 or len(w.shape) != 3 or len(r.shape) != 3:
            raise Refusal(f"{self.name} needs inputs of rank 3")
        h = r.shape[1]
        if not isinstance(h, int) or h < 1:
            raise Refusal(f"{self.name} has a hidden size of {h}; it must be known")
        want = (d, x.shape[2], self.gates * h)
        if w.shape != want or r.shape != (d, h, self.gates * h):
            raise Refusal(f"{self.name} of {x.type} has weights {w.type} and {r.type}")
        if x.dtype not in (dtypes.f32, dtypes.f64, dtypes.f16, dtypes.bf16):
            raise Refusal(f"{self.name} of {x.dtype}")
        if self.activations and len(self.activations) != d * len(self.default):
            raise Refusal(f"{self.name} has {len(self.activations)} activations in {d} directions")
        t, batch = (x.shape[1], x.shape[0]) if self.layout else (x.shape[0], x.shape[1])
        s = Sizes(t, batch, x.shape[2], h, d)
        self._check(n, 3, (d, 2 * self.gates * h))
        self._check(n, 4, (batch,), dtypes.i32)
        self._check(n, 5, self.state_shape(s))
        return s

    def _check(self, n: Node, i: int, shape: Dims, kind: dtypes.DType | None = None) -> None:
        v = n.input(i)
        if v is None:
            return
        if v.dtype is not (kind or n.arg(0).dtype) or len(v.shape) != len(shape) or any(
            not agree(a, b)
            for a, b in zip(v.shape, shape, strict=True)
        ):
            raise Refusal(f"{self.name} has input {i} of {v.type}, not {list(shape)}")

    def state_shape(self, s: Sizes) -> Dims:
        return (s.n, s.d, s.h) if self.layout else (s.d, s.n, s.h)

    def infer(self, n: Node) -> Sequence[TensorType]:
        s = self.sizes(n)
        kind = n.arg(0).dtype
        y = (s.n, s.t, s.d, s.h) if self.layout else (s.t, s.d, s.n, s.h)
        return [TensorType(y, kind), TensorType(self.state_shape(s), kind)]

    def macs(self, n: Node) -> int:
        s = self.sizes(n)
        per = dims.mul(dims.add(s.i, s.h), self.gates * s.h * s.d)
        return dims.upper(dims.product((s.t, s.n, per)))

    # -- reference -------------------------------------------------------------------------------

    def cell(
        self, pre: Callable[[int, Any], Any], h: Any, c: Any, p: Any, acts: Any
    ) -> tuple[Any, Any]:
        """One step in NumPy: pre(g, h) is gate g before its activation, without peepholes."""
        raise NotImplementedError(self.name)

    def ref(self, n: Node, *inputs: Any) -> Any:
        given: list[Any] = [*inputs, *[None] * 8]
        x, w, r, b, lens, h0, c0, p = given[:8]
        s = self.sizes(n)
        kind = x.dtype
        xs = x.astype(np.float64)
        xs = xs if self.layout == 0 else xs.transpose(1, 0, 2)
        steps, batch = xs.shape[:2]
        y = np.zeros((steps, s.d, batch, s.h))
        last = [np.zeros((s.d, batch, s.h)), np.zeros((s.d, batch, s.h))]
        for v, store in ((h0, last[0]), (c0, last[1])):
            if v is not None:
                store[...] = v if self.layout == 0 else v.transpose(1, 0, 2)
        for d in range(s.d):
            for k in range(batch):
                count = steps if lens is None else int(lens[k])
                back = self.direction == "reverse" or d == 1
                for t in range(count - 1, -1, -1) if back else range(count):
                    state = last[0][d, k], last[1][d, k]
                    out = self._step(xs[t, k], w[d], r[d], None if b is None else b[d],
                                     None if p is None else p[d], state, d)  # fmt: skip
                    last[0][d, k], last[1][d, k] = out
                    y[t, d, k] = out[0]
        if self.layout:
            y = y.transpose(2, 0, 1, 3)
            last = [v.transpose(1, 0, 2) for v in last]
        states = last[: len(n.outputs) - 1]
        return tuple(v.astype(kind) for v in (y, *states))

    def _step(self, x: Any, w: Any, r: Any, b: Any, p: Any, state: Any, d: int) -> Any:
        size = w.shape[1]
        h = size // self.gates
        wb, rb = (np.zeros(size), np.zeros(size)) if b is None else (b[:size], b[size:])
        limit = self.clip if self.clip > 0 else np.inf

        def activation_of(f: Function) -> Callable[..., Any]:
            def act(v: Any, bound: bool = True) -> Any:
                v = np.clip(v, -limit, limit) if bound else v
                return ACTIVATIONS[f[0]][1](v, f[1], f[2])

            return act

        acts = [activation_of(f) for f in self.acts(d)]

        def parts(g: int, state: Any) -> tuple[Any, Any]:
            cut = slice(g * h, (g + 1) * h)
            wide = np.float64
            return (x @ w[:, cut].astype(wide) + wb[cut],
                    state @ r[:, cut].astype(wide) + rb[cut])  # fmt: skip

        with np.errstate(over="ignore"):
            return self.cell(parts, state[0], state[1], p, acts)

    # -- compiled --------------------------------------------------------------------------------

    def body(self, k: Lowering, s: Sizes, act: Act) -> list[str]:
        """C statements of one step: from `in` (input row) and h (and c) to the new h (and c).
        w, r, wb, rb, p point at this direction's weights; g is scratch for the gates."""
        raise NotImplementedError(self.name)

    def update(self, pre: Callable[[int], str], at: Places, act: Act) -> list[str]:
        """C statements of one hidden unit behind its sums: pre(g) is gate g before its activation,
        without peepholes. Cells that mix the gates with the hidden state have none."""
        raise NotImplementedError(self.name)

    scratch_rows: ClassVar[int] = 0  # rows of H that a step needs beside gates and states
    states: ClassVar[int] = 1

    def lower(self, k: Lowering) -> Code:
        s = self.sizes(k.node)
        kind = k.x(0).dtype
        c = kind.compute.ctype
        size = self.gates * s.h
        rows = self.gates + self.states + self.scratch_rows
        lines = [f"{c} *const g = ({c} *)s, *const h = g + {size};"]
        if self.states == 2:
            lines.append(f"{c} *const c = h + {s.h};")
        if self.scratch_rows:
            lines.append(f"{c} *const tmp = h + {self.states * s.h};")
        lines.append(f"{c} *const in = g + {rows * s.h};")
        for d in range(s.d):
            lines += ["{", *self._direction(k, s, d), "}"]
        scratch = dims.mul(dims.add(s.i, rows * s.h), kind.compute.bytes)
        return Code("\n".join(lines), ("of_recurrent.h",), scratch, stops=k.has(4))

    def _direction(self, k: Lowering, s: Sizes, d: int) -> list[str]:
        kind = k.x(0).dtype
        t, n, i = k.dim(s.t), k.dim(s.n), k.dim(s.i)
        size = self.gates * s.h
        store = kind.ctype
        back = self.direction == "reverse" or d == 1
        at = f"({'(b * ' + t + ' + t)' if self.layout else '(t * ' + n + ' + b)'})"
        place = f"((t * {s.d} + {d}) * {n} + b)"
        if self.layout:
            place = f"((b * {t} + t) * {s.d} + {d})"
        state = f"(b * {s.d} + {d}) * {s.h}" if self.layout else f"({d} * {n} + b) * {s.h}"

        def act(which: int, text: str, bound: bool = True) -> str:
            clip = self.clip if bound else 0.0
            return activation(self.acts(d)[which], text, kind.compute, clip)

        lines = [
            f"const {store} *const w = x1 + {d} * {i} * {size}, *const r = x2 + {d * s.h * size};",
        ]
        if k.has(3):
            lines.append(f"const {store} *const wb = x3 + {2 * d * size}, *const rb = wb + {size};")
        if k.has(7):
            lines.append(f"const {store} *const p = x7 + {3 * d * s.h};")
        lines.append(f"for (ix b = 0; b < {n}; b++) {{")
        for name, source in zip("hc", (5, 6), strict=True):
            if source == 6 and self.states == 1:
                continue
            if k.has(source):
                lines.append(f"  of_widen_{kind.name}({name}, x{source} + {state}, {s.h});")
            else:
                lines.append(f"  for (ix j = 0; j < {s.h}; j++) {name}[j] = 0;")
        count = t
        if k.has(4):
            count = "count"
            lines.append("  const ix count = x4[b];")
            lines.append(f"  if (count < 0 || count > {t}) OF_STOP(OF_BAD_VALUE);")
        turn = "t = count - 1; t >= 0; t--" if back else "t = 0; t < count; t++"
        lines.append(f"  for (ix {turn.replace('count', count)}) {{")
        lines.append(f"    of_widen_{kind.name}(in, x0 + {at} * {i}, {i});")
        lines += ["    " + line for line in self.body(k, s, act)]
        lines.append(f"    for (ix j = 0; j < {s.h}; j++) "
                     f"{k.store(0, f'{place} * {s.h} + j', 'h[j]')}")  # fmt: skip
        lines.append("  }")
        if k.has(4):
            lines.append(f"  for (ix t = count; t < {t}; t++)")
            zero = to_storage(literal(0, kind.compute), kind)
            lines.append(f"    for (ix j = 0; j < {s.h}; j++) y0[{place} * {s.h} + j] = {zero};")
        for out, name in enumerate("hc"[: self.states], start=1):
            lines.append(f"  for (ix j = 0; j < {s.h}; j++) "
                         f"{k.store(out, f'{state} + j', f'{name}[j]')}")  # fmt: skip
        return [*lines, "}"]

    def start(self, k: Lowering, to: str, first: int, count: int, which: str) -> str:
        """C statement: gates [first, first + count) begin with their biases (wb, rb or both)."""
        if not k.has(3):
            return f"for (ix j = 0; j < {count}; j++) {to}[j] = 0;"
        terms = {
            "w": k_load(k, "wb", first), "r": k_load(k, "rb", first),
            "wr": f"{k_load(k, 'wb', first)} + {k_load(k, 'rb', first)}",
        }  # fmt: skip
        return f"for (ix j = 0; j < {count}; j++) {to}[j] = {terms[which]};"

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        names = n.attr("activations")
        d = 2 if n.attr("direction", "forward") == "bidirectional" else 1
        texts = [t.decode() if isinstance(t, bytes) else str(t) for t in names or ()]
        acts = functions(
            texts or cls.default * d,
            n.attr("activation_alpha") or (), n.attr("activation_beta") or (),
        )  # fmt: skip
        fields = n.fields(cls) | {"activations": acts}
        ins = list(n.inputs)
        for i in (1, 2):
            ins[i] = _turned(n.arg(i), b)
        hidden = n.attr("hidden_size")
        r = ins[2]
        if hidden is not None and r is not None and r.shape[1] != hidden:
            raise Refusal(f"hidden_size {hidden} is not that of the weights, {r.shape[1]}")
        return b.ops(cls(**fields), *ins, name=n.output_names)


def k_load(k: Lowering, name: str, first: int) -> str:
    """C text: element first + j of the bias `name` in its compute type."""
    return from_storage(f"{name}[{first} + j]" if first else f"{name}[j]", k.x(0).dtype)


def activation(f: Function, x: str, kind: dtypes.DType, clip: float) -> str:
    """C text of an activation of x, which is clipped first."""
    a, b = literal(f[1], kind), literal(f[2], kind)
    return ACTIVATIONS[f[0]][0].format(x=clipped(x, kind, clip), t=kind.name, a=a, b=b)


def clipped(x: str, kind: dtypes.DType, clip: float) -> str:
    """C text of x within [-clip, clip]; of x where clip is 0."""
    if not clip > 0:
        return x
    return f"of_clamp_{kind.name}({x}, {literal(-clip, kind)}, {literal(clip, kind)})"


def _turned(w: Value, b: Builder) -> Value:
    """ONNX's weights [D, G * H, input] as ours [D, input, G * H]."""
    from onefold.ops.movement import Transpose

    if len(w.shape) != 3:
        raise Refusal(f"weights of shape {list(w.shape)}; rank 3 is needed")
    return b.op(Transpose((0, 2, 1)), w)


def _cases(gates: int, extra: Sequence[Any] = ()) -> tuple[Case, ...]:
    def inputs(d: int, t: int, n: int, i: int, h: int, kind: str = "f32") -> tuple[Any, ...]:
        g = gates * h
        return (((t, n, i), kind), ((d, i, g), kind), ((d, h, g), kind), ((d, 2 * g), kind))

    lens = np.array([2, 4, 0], np.int32)
    state = ((2, 3, 5), "f32")
    return (
        Case(inputs(1, 3, 2, 4, 5), low=-1, high=1),
        Case((*inputs(2, 4, 3, 2, 5), lens, state, *[state] * len(extra)),
             {"direction": "bidirectional", "clip": 0.7}, low=-1, high=1),
        Case(inputs(1, 2, 1, 3, 3)[:3], {"direction": "reverse"}, low=-1, high=1),
        Case(inputs(1, 2, 4, 3, 3), {"layout": 1}, low=-1, high=1),
        Case(inputs(1, 2, 2, 3, 3, "f64"), low=-1, high=1),
    )  # fmt: skip


@operator
class RNN(Recurrent):
    """h' = f(x W + h R + Wb + Rb)."""

    direction: str = "forward"
    activations: tuple[Function, ...] = ()
    clip: float = 0.0
    layout: int = 0
    onnx: ClassVar = ("RNN",)
    cases: ClassVar = (
        *_cases(1),
        Case((((3, 2, 4), "f32"), ((1, 4, 5), "f32"), ((1, 5, 5), "f32")),
             {"activations": (("scaledtanh", 0.5, 2.0),)}, low=-1, high=1),
    )  # fmt: skip

    def cell(self, pre: Any, h: Any, c: Any, p: Any, acts: Any) -> tuple[Any, Any]:
        a, b = pre(0, h)
        return acts[0](a + b), c

    def body(self, k: Lowering, s: Sizes, act: Act) -> list[str]:
        kind = k.x(0).dtype.name
        return [
            self.start(k, "g", 0, s.h, "wr"),
            f"of_add_product_{kind}(g, w, in, {k.dim(s.i)}, {s.h}, {s.h});",
            f"of_add_product_{kind}(g, r, h, {s.h}, {s.h}, {s.h});",
            f"for (ix j = 0; j < {s.h}; j++) {{",
            *("  " + line for line in self.update(lambda g: "g[j]", Places("h[j]"), act)),
            "}",
        ]

    def update(self, pre: Callable[[int], str], at: Places, act: Act) -> list[str]:
        return [f"{at.new} = {act(0, pre(0))};"]


@operator
class GRU(Recurrent):
    """Gates z, r and the candidate n: h' = (1 - z) n + z h; the reset gate applies to h, or with
    linear_before_reset to h R + Rb."""

    direction: str = "forward"
    activations: tuple[Function, ...] = ()
    clip: float = 0.0
    layout: int = 0
    linear_before_reset: bool = False
    onnx: ClassVar = ("GRU",)
    gates: ClassVar = 3
    scratch_rows: ClassVar = 1
    default: ClassVar = ("sigmoid", "tanh")
    cases: ClassVar = (
        *_cases(3),
        Case((((3, 2, 4), "f32"), ((1, 4, 15), "f32"), ((1, 5, 15), "f32"), ((1, 30), "f32")),
             {"linear_before_reset": True}, low=-1, high=1),
    )  # fmt: skip

    def cell(self, pre: Any, h: Any, c: Any, p: Any, acts: Any) -> tuple[Any, Any]:
        z, r = acts[0](sum(pre(0, h))), acts[0](sum(pre(1, h)))
        if self.linear_before_reset:
            a, b = pre(2, h)
            candidate = acts[1](a + r * b)
        else:
            candidate = acts[1](sum(pre(2, r * h)))
        return (1 - z) * candidate + z * h, c

    def body(self, k: Lowering, s: Sizes, act: Act) -> list[str]:
        kind, h, i = k.x(0).dtype.name, s.h, k.dim(s.i)
        lines = [
            self.start(k, "g", 0, 2 * h, "wr"),
            self.start(k, f"(g + {2 * h})", 2 * h, h, "w" if self.linear_before_reset else "wr"),
            f"of_add_product_{kind}(g, w, in, {i}, {3 * h}, {3 * h});",
            f"of_add_product_{kind}(g, r, h, {h}, {2 * h}, {3 * h});",
            f"for (ix j = 0; j < {2 * h}; j++) g[j] = {act(0, 'g[j]')};",
        ]
        if self.linear_before_reset:
            lines += [
                self.start(k, "tmp", 2 * h, h, "r"),
                f"of_add_product_{kind}(tmp, r + {2 * h}, h, {h}, {h}, {3 * h});",
                f"for (ix j = 0; j < {h}; j++) g[{2 * h} + j] += g[{h} + j] * tmp[j];",
            ]
        else:
            lines += [
                f"for (ix j = 0; j < {h}; j++) tmp[j] = g[{h} + j] * h[j];",
                f"of_add_product_{kind}(g + {2 * h}, r + {2 * h}, tmp, {h}, {h}, {3 * h});",
            ]
        new = act(1, f"g[{2 * h} + j]")
        lines.append(f"for (ix j = 0; j < {h}; j++) h[j] = (1 - g[j]) * {new} + g[j] * h[j];")
        return lines


@operator
class LSTM(Recurrent):
    """Gates i, o, f and the candidate c: c' = f c + i n, h' = o act(c'); peepholes p [D, 3 * H] for
    i, o, f; input_forget ties f to 1 - i; cell_clip > 0 keeps c' in [-cell_clip, cell_clip], as
    TFLite does.
    A third result y_c."""

    direction: str = "forward"
    activations: tuple[Function, ...] = ()
    clip: float = 0.0
    layout: int = 0
    input_forget: bool = False
    cell_clip: float = 0.0
    onnx: ClassVar = ("LSTM",)
    gates: ClassVar = 4
    states: ClassVar = 2
    default: ClassVar = ("sigmoid", "tanh", "tanh")
    cases: ClassVar = (
        *_cases(4, (6,)),
        Case((((3, 2, 4), "f32"), ((1, 4, 20), "f32"), ((1, 5, 20), "f32"), None, None, None, None,
              ((1, 15), "f32")), {"input_forget": True, "cell_clip": 0.3}, low=-1, high=1),
        Case((((3, 2, 4), "f16"), ((1, 4, 8), "f16"), ((1, 2, 8), "f16"), None, None, None, None,
              ((1, 6), "f16")), low=-1, high=1),
    )  # fmt: skip

    def sizes(self, n: Node) -> Sizes:
        s = super().sizes(n)
        self._check(n, 6, self.state_shape(s))
        self._check(n, 7, (s.d, 3 * s.h))
        return s

    def infer(self, n: Node) -> Sequence[TensorType]:
        y, h = super().infer(n)
        return [y, h, h]

    def cell(self, pre: Any, h: Any, c: Any, p: Any, acts: Any) -> tuple[Any, Any]:
        p = np.zeros(3 * len(h)) if p is None else p
        pi, po, pf = np.split(p, 3)
        i = acts[0](sum(pre(0, h)) + pi * c)
        f = 1 - i if self.input_forget else acts[0](sum(pre(2, h)) + pf * c)
        new = f * c + i * acts[1](sum(pre(3, h)))
        if self.cell_clip:
            new = np.clip(new, -self.cell_clip, self.cell_clip)
        o = acts[0](sum(pre(1, h)) + po * new)
        return o * acts[2](new, False), new

    def body(self, k: Lowering, s: Sizes, act: Act) -> list[str]:
        kind, h = k.x(0).dtype.name, s.h
        size = 4 * h
        peepholes = [from_storage(f"p[{g * h} + j]", k.x(0).dtype) for g in range(3)]
        at = Places("h[j]", "c[j]", peepholes if k.has(7) else ())
        return [
            self.start(k, "g", 0, size, "wr"),
            f"of_add_product_{kind}(g, w, in, {k.dim(s.i)}, {size}, {size});",
            f"of_add_product_{kind}(g, r, h, {h}, {size}, {size});",
            f"for (ix j = 0; j < {h}; j++) {{",
            *("  " + line for line in self.update(
                lambda g: f"g[{g * h} + j]", at, act, k.x(0).dtype.compute)),
            "}",
        ]  # fmt: skip

    def update(
        self, pre: Callable[[int], str], at: Places, act: Act, t: dtypes.DType = dtypes.f32
    ) -> list[str]:
        peep = [f" + {p} * {c}" for p, c in zip(at.peepholes, (at.cell, "m", at.cell), strict=True)
                ] if at.peepholes else ["", "", ""]  # fmt: skip
        forget = "1 - i" if self.input_forget else act(0, pre(2) + peep[2])
        new = act(1, pre(3))
        return [
            f"const {t.ctype} i = {act(0, pre(0) + peep[0])};",
            f"const {t.ctype} f = {forget};",
            f"const {t.ctype} m = {self._clipped(t, f'f * {at.cell} + i * {new}')};",
            f"const {t.ctype} o = {act(0, pre(1) + peep[1])};",
            f"{at.cell} = m;",
            f"{at.new} = o * {act(2, 'm', False)};",
        ]

    def _clipped(self, t: dtypes.DType, cell: str) -> str:
        """C text: the new cell within its bounds."""
        if not self.cell_clip:
            return cell
        lo, hi = literal(-self.cell_clip, t), literal(self.cell_clip, t)
        return f"of_clamp_{t.name}({cell}, {lo}, {hi})"
