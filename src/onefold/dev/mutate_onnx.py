"""Mutations of ONNX models that keep the file well-formed: what a graph says is changed.

`mutate(rng, model, others)` changes a parsed `onnx.ModelProto` in place; `others` are models that
nodes may be borrowed from.  Only models of our own corpus are parsed with `onnx` here; what comes
out is bytes for the importer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto as A

NAMES = (
    "int", "while", "main", "of_relu", "a*/b", "/*", "??/", "x\ny", "\\", 'q"q', "<script>",
    "\x1b[31m", "\0", "é", "�", " ", "a b", "a.b", "a-b", "a/b", "a_b", "%s%n", "{x}",
    "../../etc", "n_0", "x0", "y0", "err", "i", "dims", "inputs", "_run", "name.1", "N" * 100_000,
)  # fmt: skip
"""Names that harm whoever prints them, or that are taken in generated text."""

INTS = (0, 1, 2, 3, -1, -2, -3, 4, 5, 7, 8, 16, 17, 64, 127, 128, 255, 1000, 4096, 65536, 1 << 20,
        1 << 24, 1 << 31, (1 << 31) - 1, -(1 << 31), 1 << 32, 1 << 40, 1 << 62, (1 << 63) - 1,
        -(1 << 63))  # fmt: skip
SMALL = (0, 1, 1, 2, 2, 3, 4, 5, -1, -2, -3, 8)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-30, 1e30, 3e38, float("inf"), float("-inf"),
          float("nan"), 1e-45, 100.0)  # fmt: skip
DIMS = (0, 1, 1, 2, 3, 4, 5, 7, 8, 16, 17, 100, 1024, 65536, 1 << 20, 1 << 31, (1 << 31) - 1,
        1 << 40, (1 << 63) - 1, -1)  # fmt: skip
TYPES = tuple(range(27))


def mutate(rng: random.Random, model: Any, others: Sequence[Any]) -> list[str]:
    """Changes the model a few times; the names of the changes."""
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 6))):
        change = rng.choice(CHANGES)
        graph = _graph(rng, model)
        if change in (borrow, opset):
            change(rng, graph, model, others)
        else:
            change(rng, graph)
        done.append(change.__name__)
    return done


def number(rng: random.Random) -> int:
    return rng.choice(INTS) if rng.random() < 0.4 else rng.choice(SMALL)


def _graph(rng: random.Random, model: Any) -> Any:
    """The main graph, a body in it, or a function."""
    g: Any = model.graph
    if model.functions and rng.random() < 0.5:
        return rng.choice(model.functions)
    while True:
        bodies = [a.g for n in g.node for a in n.attribute if a.type == A.GRAPH]
        if not bodies or rng.random() < 0.5:
            return g
        g = rng.choice(bodies)


def _node(rng: random.Random, g: Any) -> Any:
    return rng.choice(g.node) if g.node else None


def _names(g: Any) -> list[str]:
    """All names of values in a graph."""
    found = [i if isinstance(i, str) else i.name for i in g.input]
    found += [t.name for t in getattr(g, "initializer", ())]
    found += [o for n in g.node for o in n.output if o]
    return found


def _infos(g: Any) -> list[Any]:
    return [v for v in (*g.input, *g.output) if not isinstance(v, str)]


# --- attributes ---


def attribute(rng: random.Random, g: Any) -> None:
    """Another value for an attribute."""
    n = _node(rng, g)
    if n is not None and n.attribute:
        value(rng, rng.choice(n.attribute))


def value(rng: random.Random, a: Any) -> None:
    if a.type == A.INT:
        a.i = number(rng)
    elif a.type == A.FLOAT:
        a.f = rng.choice(FLOATS)
    elif a.type == A.STRING:
        a.s = rng.choice((b"", b"SAME_UPPER", b"VALID", b"NOTSET", b"linear", b"x" * 99, b"\xff"))
    elif a.type == A.INTS:
        _numbers(rng, a.ints, number)
    elif a.type == A.FLOATS:
        _numbers(rng, a.floats, lambda r: r.choice(FLOATS))
    elif a.type == A.TENSOR:
        tensor(rng, a.t)


def _numbers(rng: random.Random, values: Any, make: Callable[[random.Random], Any]) -> None:
    how = rng.random()
    if values and how < 0.6:
        values[rng.randrange(len(values))] = make(rng)
    elif values and how < 0.7:
        del values[rng.randrange(len(values))]
    elif values and how < 0.8:
        values.append(rng.choice(values))
    elif how < 0.97:
        values.append(make(rng))
    else:
        values.extend([make(rng)] * 3000)


KNOWN = ("axis", "axes", "perm", "pads", "strides", "dilations", "group", "kernel_shape", "k",
         "keepdims", "to", "alpha", "beta", "epsilon", "mode", "auto_pad", "ceil_mode", "blocksize",
         "hidden_size", "shape", "value", "num_outputs", "batch_dims", "num_heads", "p",
         "broadcast", "value_ints", "direction", "activations", "layout", "stash_type",
         "block_size", "output_shape", "output_padding", "allowzero", "equation", "size",
         "noop_with_empty_axes")  # fmt: skip


def add_attribute(rng: random.Random, g: Any) -> None:
    """An attribute that the node lacked, or of a type that it should not have."""
    n = _node(rng, g)
    if n is None:
        return
    name = rng.choice(KNOWN)
    for k, a in reversed(list(enumerate(n.attribute))):
        if a.name == name:
            del n.attribute[k]
    a = n.attribute.add()
    a.name, a.type = name, rng.choice((A.INT, A.INT, A.FLOAT, A.INTS, A.INTS, A.FLOATS, A.STRING))
    for _ in range(rng.randrange(5)):
        value(rng, a)


def drop_attribute(rng: random.Random, g: Any) -> None:
    n = _node(rng, g)
    if n is not None and n.attribute:
        del n.attribute[rng.randrange(len(n.attribute))]


# --- tensors and types ---


def tensor(rng: random.Random, t: Any) -> None:
    """A constant with other contents, another shape or another element type."""
    how = rng.random()
    if how < 0.15:
        t.data_type = rng.choice(TYPES)
    elif how < 0.3 and t.dims:
        t.dims[rng.randrange(len(t.dims))] = rng.choice(DIMS)
    elif how < 0.4:
        _reshape(rng, t)
    elif how < 0.7:
        _contents(rng, t)
    else:
        _replace(rng, t)


def _reshape(rng: random.Random, t: Any) -> None:
    """Another shape of the same number of elements."""
    size = int(np.prod([max(d, 0) for d in t.dims], dtype=np.int64))
    made = rng.choice(([size], [1, size], [size, 1], [1, 1, 1, size], [size, 1, 1, 1, 1, 1, 1, 1]))
    if size % 2 == 0:
        made = rng.choice((made, [2, size // 2], [size // 2, 2]))
    del t.dims[:]
    t.dims.extend(made)


_NUMPY = {1: np.float32, 2: np.uint8, 3: np.int8, 5: np.int16, 6: np.int32, 7: np.int64,
          9: np.bool_, 10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64}  # fmt: skip


def _contents(rng: random.Random, t: Any) -> None:
    if t.raw_data:
        raw = bytearray(t.raw_data)
        width = np.dtype(_NUMPY.get(t.data_type, np.uint8)).itemsize
        at = rng.randrange(len(raw)) // width * width
        made = _array(rng, t.data_type, 1).tobytes()
        raw[at : at + width] = made[: len(raw) - at]
        t.raw_data = bytes(raw)
        return
    for field, make in (("int64_data", number), ("float_data", lambda r: r.choice(FLOATS))):
        values = getattr(t, field)
        if values:
            values[rng.randrange(len(values))] = make(rng)


def _array(rng: random.Random, kind: int, size: int) -> np.ndarray[Any, Any]:
    dtype = np.dtype(_NUMPY.get(kind, np.float32))
    pool = FLOATS if dtype.kind == "f" else INTS if rng.random() < 0.3 else SMALL
    drawn = [rng.choice(pool) for _ in range(size)]
    if dtype.kind in "iub":
        bits = 8 * dtype.itemsize
        drawn = [int(v) % (1 << bits) for v in drawn]
        return np.array(drawn, np.uint64).astype(f"u{dtype.itemsize}").view(
            dtype if dtype.kind != "b" else "u1")  # fmt: skip
    with np.errstate(all="ignore"):
        return np.array(drawn, np.float64).astype(dtype)


def _replace(rng: random.Random, t: Any) -> None:
    """A new array of the same name, mostly of the same type and rank."""
    kind = t.data_type if rng.random() < 0.7 and t.data_type in _NUMPY else rng.choice(list(_NUMPY))
    rank = len(t.dims) if rng.random() < 0.6 else rng.randrange(5)
    shape = [rng.choice((0, 1, 1, 2, 3, 4)) for _ in range(min(rank, 8))]
    array = _array(rng, kind, int(np.prod(shape, dtype=np.int64)))
    name = t.name
    t.Clear()
    t.name, t.data_type, t.raw_data = name, kind, array.tobytes()
    t.dims.extend(shape)


def constant(rng: random.Random, g: Any) -> None:
    """A constant of the graph changed."""
    found = list(getattr(g, "initializer", ()))
    found += [a.t for n in g.node for a in n.attribute if a.type == A.TENSOR]
    if found:
        tensor(rng, rng.choice(found))


def to_constant(rng: random.Random, g: Any) -> None:
    """An input becomes a constant with random contents."""
    inputs = [v for v in g.input if not isinstance(v, str)]
    if not inputs:
        return
    k = rng.randrange(len(inputs))
    t = inputs[k].type.tensor_type
    shape = [d.dim_value for d in t.shape.dim]
    size = int(np.prod([float(d) for d in shape]))
    if t.elem_type not in _NUMPY or not 0 <= size <= 4096:
        return
    made = g.initializer.add()
    made.name, made.data_type = inputs[k].name, t.elem_type
    made.raw_data = _array(rng, t.elem_type, size).tobytes()
    made.dims.extend(shape)
    del g.input[k]


def to_input(rng: random.Random, g: Any) -> None:
    """A constant becomes an input."""
    found = getattr(g, "initializer", ())
    if not found:
        return
    k = rng.randrange(len(found))
    t = found[k]
    v = g.input.add()
    v.name, v.type.tensor_type.elem_type = t.name, t.data_type
    for d in t.dims:
        v.type.tensor_type.shape.dim.add().dim_value = d
    del g.initializer[k]


def dim(rng: random.Random, g: Any) -> None:
    """Another extent of an input or output."""
    infos = _infos(g)
    if not infos:
        return
    shape = rng.choice(infos).type.tensor_type.shape
    how = rng.random()
    if shape.dim and how < 0.5:
        rng.choice(shape.dim).dim_value = rng.choice(DIMS)
    elif shape.dim and how < 0.75:
        rng.choice(shape.dim).dim_param = rng.choice(("N", "batch", *NAMES))
    elif shape.dim and how < 0.85:
        del shape.dim[rng.randrange(len(shape.dim))]
    elif how < 0.97:
        shape.dim.add().dim_value = rng.choice(DIMS)
    else:
        for _ in range(40):
            shape.dim.add().dim_value = rng.choice((1, 2))


def dtype(rng: random.Random, g: Any) -> None:
    """Another element type of an input or output."""
    infos = _infos(g)
    if not infos:
        return
    t = rng.choice(infos).type
    if rng.random() < 0.9:
        t.tensor_type.elem_type = rng.choice(TYPES)
    else:
        t.sequence_type.elem_type.tensor_type.elem_type = rng.choice((1, 7))


def all_dtypes(rng: random.Random, g: Any) -> None:
    """Every tensor of one type gets another one: operators meet types that agree."""
    infos = _infos(g)
    if not infos:
        return
    old, new = rng.choice(infos).type.tensor_type.elem_type, rng.choice(TYPES)
    for v in infos:
        if v.type.tensor_type.elem_type == old:
            v.type.tensor_type.elem_type = new
    for t in getattr(g, "initializer", ()):
        if t.data_type == old and t.raw_data and new in _NUMPY and old in _NUMPY:
            array: np.ndarray[Any, Any] = np.frombuffer(t.raw_data, _NUMPY[old])
            with np.errstate(all="ignore"):
                t.data_type, t.raw_data = new, array.astype(_NUMPY[new]).tobytes()


# --- nodes ---


def rewire(rng: random.Random, g: Any) -> None:
    """An input that reads another value, none, or one that is not there."""
    n = _node(rng, g)
    if n is None or not n.input:
        return
    names = _names(g) or ["x"]
    known = rng.choice(names), rng.choice(names)
    n.input[rng.randrange(len(n.input))] = rng.choice((*known, "", "?"))


def swap(rng: random.Random, g: Any) -> None:
    n = _node(rng, g)
    if n is not None and len(n.input) > 1:
        i, j = rng.sample(range(len(n.input)), 2)
        n.input[i], n.input[j] = n.input[j], n.input[i]


def more_inputs(rng: random.Random, g: Any) -> None:
    n = _node(rng, g)
    if n is None:
        return
    how = rng.random()
    if how < 0.4 and n.input:
        del n.input[rng.randrange(len(n.input))]
    elif how < 0.8:
        n.input.append(rng.choice(_names(g) or ["x"]))
    elif how < 0.9 and n.output:
        del n.output[-1]
    else:
        n.output.append(f"more{rng.randrange(1000)}")


def drop_node(rng: random.Random, g: Any) -> None:
    if g.node:
        del g.node[rng.randrange(len(g.node))]


def double_node(rng: random.Random, g: Any) -> None:
    n = _node(rng, g)
    if n is None:
        return
    copy = g.node.add()
    copy.CopyFrom(n)
    if rng.random() < 0.8:
        for k, o in enumerate(copy.output):
            copy.output[k] = o + "_2" if o else ""
        _output(g, copy.output[0] if copy.output else "")


def _output(g: Any, name: str) -> None:
    if not name:
        return
    if hasattr(g, "initializer"):
        g.output.add().name = name
    else:
        g.output.append(name)


def operator(rng: random.Random, g: Any) -> None:
    """A node that becomes another operator."""
    n = _node(rng, g)
    if n is None:
        return
    from onefold.frontend.onnx.rules import rules
    from onefold.ops import registry

    domain, _, name = rng.choice([*registry.onnx, *rules]).rpartition(":")
    n.op_type, n.domain = name, domain


def rename(rng: random.Random, g: Any) -> None:
    """A value with a hostile name, everywhere it is used."""
    names = _names(g)
    if not names:
        return
    old, new = rng.choice(names), rng.choice(NAMES) + rng.choice(("", "", "1"))
    for v in _infos(g):
        if v.name == old:
            v.name = new
    for t in getattr(g, "initializer", ()):
        if t.name == old:
            t.name = new
    for n in g.node:
        for field in (n.input, n.output):
            for k, o in enumerate(field):
                if o == old:
                    field[k] = new


def rename_node(rng: random.Random, g: Any) -> None:
    n = _node(rng, g)
    if n is not None and rng.random() < 0.8:
        n.name = rng.choice(NAMES)
    else:
        g.name = rng.choice(NAMES)


def shuffle(rng: random.Random, g: Any) -> None:
    if len(g.node) > 1:
        nodes = [type(n).FromString(n.SerializeToString()) for n in g.node]
        rng.shuffle(nodes)
        del g.node[:]
        g.node.extend(nodes)


def output(rng: random.Random, g: Any) -> None:
    """An output more, fewer, or one that an input or constant is."""
    if g.output and rng.random() < 0.3:
        del g.output[rng.randrange(len(g.output))]
    elif _names(g):
        _output(g, rng.choice(_names(g)))


def opset(rng: random.Random, g: Any, model: Any, others: Sequence[Any]) -> None:
    """Another version of an operator set."""
    if model.opset_import:
        rng.choice(model.opset_import).version = rng.choice((*range(1, 26), 0, 99, -1, 1 << 40))


def borrow(rng: random.Random, g: Any, model: Any, others: Sequence[Any]) -> None:
    """A few nodes of another model, reading values of this one where they can."""
    other = rng.choice(others)
    have = _names(g)
    if not have or len(other.graph.node) > 12 or not hasattr(g, "initializer"):
        return
    mark = f"b{len(g.node)}_"
    consts = {t.name for t in other.graph.initializer}
    made = {o for n in other.graph.node for o in n.output}
    given: dict[str, str] = {"": ""}
    for t in other.graph.initializer:
        copy = g.initializer.add()
        copy.CopyFrom(t)
        copy.name = mark + t.name
    for v in other.graph.input:
        if rng.random() < 0.3:
            copy = g.input.add()
            copy.CopyFrom(v)
            copy.name = given[v.name] = mark + v.name
        else:
            given[v.name] = rng.choice(have)
    for n in other.graph.node:
        copy = g.node.add()
        copy.CopyFrom(n)
        for k, i in enumerate(copy.input):
            copy.input[k] = mark + i if i in consts | made else given.get(i, i)
        for k, o in enumerate(copy.output):
            copy.output[k] = mark + o if o else ""
    for o in other.graph.output[:2]:
        _output(g, mark + o.name)
    known = {o.domain for o in model.opset_import}
    model.opset_import.extend(o for o in other.opset_import if o.domain not in known)
    model.functions.extend(f for f in other.functions if len(model.functions) < 20)


CHANGES: tuple[Callable[..., None], ...] = (
    attribute, attribute, attribute, attribute, add_attribute, add_attribute, drop_attribute,
    constant, constant, constant, to_constant, to_constant, to_input, dim, dim, dim, dtype,
    all_dtypes, all_dtypes, rewire, rewire, swap, more_inputs, drop_node, double_node, operator,
    operator, rename, rename_node, shuffle, output, opset, borrow, borrow, borrow,
)  # fmt: skip
