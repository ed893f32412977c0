"""Whether a node is called as its operator's definition says: inputs, outputs, attributes.

The tables come from ONNX itself (`_gen/onnx_operators.py`), so that no operator has to check by
itself that its inputs are there and that an axis is a number.  Contributed operators have no
tables and are passed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from onefold.frontend._gen.onnx_operators import OPERATORS
from onefold.frontend.onnx import records as r
from onefold.frontend.onnx.tensors import SparseTensor, Tensor
from onefold.ops.base import Refusal

Signature = tuple[int, str, int, int, dict[str, str], tuple[str, ...]]


def signature(n: r.Node, opset: int) -> Signature | None:
    """The definition that holds in a version of the operator set; the oldest for older ones."""
    versions = OPERATORS.get(f"{n.domain}:{n.op_type}" if n.domain else n.op_type)
    if versions is None:
        return None
    found = versions[0]
    for one in versions:
        if one[0] <= opset:
            found = one
    return found


def check(n: r.Node, opset: int) -> str:
    """The letters of the inputs. Raises Refusal where the node breaks the definition."""
    if not any(n.outputs):
        raise Refusal("it has no result")
    found = signature(n, opset)
    if found is None:
        _check_by_name(n)
        return ""
    _, letters, least, most_outputs, kinds, needed = found
    _check_inputs(n, letters, least)
    if len(_given(n.outputs)) > most_outputs:
        raise Refusal(f"it has {len(n.outputs)} outputs, {n.op_type} makes {most_outputs}")
    for name in needed:
        if name not in n.attributes:
            raise Refusal(f"the attribute '{name}' is missing")
    for name, value in n.attributes.items():
        kind = kinds.get(name) or _kind_in_others(n, name)
        if kind is not None and not isinstance(value, r.AttributeRef) and not _is(kind, value):
            raise Refusal(f"the attribute '{name}' is not of the type {kind}")
    return letters


def _kind_in_others(n: r.Node, name: str) -> str | None:
    """The type of an attribute that only other versions of the operator have."""
    versions = OPERATORS[f"{n.domain}:{n.op_type}" if n.domain else n.op_type]
    return next((v[4][name] for v in versions if name in v[4]), None)


@cache
def _attributes(name: str) -> frozenset[str] | None:
    """Attributes of an operator in any version; None where it has no table."""
    versions = OPERATORS.get(name)
    return None if versions is None else frozenset(k for v in versions for k in v[4])


@cache
def _kinds_of_names() -> dict[str, frozenset[str]]:
    """The types that an attribute of a name has in any of ONNX's own operators."""
    kinds: dict[str, set[str]] = {}
    for versions in OPERATORS.values():
        for one in versions:
            for name, kind in one[4].items():
                kinds.setdefault(name, set()).add(kind)
    return {name: frozenset(k) for name, k in kinds.items()}


# Where a contributed operator gives one of ONNX's names a type of its own.
_OWN_KINDS = {
    ("FusedGemm", "activation_alpha"): frozenset({"FLOAT"}),
    ("FusedGemm", "activation_beta"): frozenset({"FLOAT"}),
}


def _check_by_name(n: r.Node) -> None:
    """Contributed operators use the names of ONNX's own for the same things."""
    for name, value in n.attributes.items():
        kinds = _OWN_KINDS.get((n.op_type, name)) or _kinds_of_names().get(name)
        if not kinds or isinstance(value, r.AttributeRef):
            continue
        if not any(_is(k, value) for k in kinds):
            raise Refusal(f"the attribute '{name}' is not of the type {' or '.join(sorted(kinds))}")


def known(n: r.Node, name: str) -> bool:
    """Whether the attribute means something to the operator; others are passed over."""
    found = _attributes(f"{n.domain}:{n.op_type}" if n.domain else n.op_type)
    return found is None or name in found


def _given(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names without those left out at the end."""
    k = len(names)
    while k and not names[k - 1]:
        k -= 1
    return names[:k]


def _check_inputs(n: r.Node, letters: str, least: int) -> None:
    given = _given(n.inputs)
    if len(given) < least:
        raise Refusal(f"it has {len(given)} inputs, {n.op_type} needs {least}")
    if len(given) > len(letters) and letters[-1:] not in ("v", "V"):
        raise Refusal(f"it has {len(given)} inputs, {n.op_type} takes {len(letters)}")
    for k, (name, letter) in enumerate(zip(n.inputs, letters, strict=False)):
        if not name and letter in "sS":
            raise Refusal(f"input {k} is left out, but {n.op_type} needs it")


def takes_tensor_only(letters: str, i: int) -> bool:
    """Whether input i may be nothing but a tensor."""
    letter = letters[i : i + 1] or (letters[-1:] if letters[-1:] in ("v", "V") else "")
    return letter.isupper()


def _all(kind: type | tuple[type, ...]) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, tuple) and all(isinstance(x, kind) for x in v)


_TESTS: dict[str, Callable[[Any], bool]] = {
    "INT": lambda v: isinstance(v, int),
    "FLOAT": lambda v: isinstance(v, (float, int)),
    "STRING": lambda v: isinstance(v, (str, bytes)),
    "TENSOR": lambda v: isinstance(v, Tensor),
    "GRAPH": lambda v: isinstance(v, r.Graph),
    "SPARSE_TENSOR": lambda v: isinstance(v, SparseTensor),
    "INTS": _all(int), "FLOATS": _all((float, int)), "STRINGS": _all((str, bytes)),
    "TENSORS": _all(Tensor), "GRAPHS": _all(r.Graph),
}  # fmt: skip


def _is(kind: str, value: Any) -> bool:
    test = _TESTS.get(kind)
    return test is None or test(value)


class Attributes(dict[str, Any]):
    """A node's attributes; asking for one that is not there is a Refusal."""

    def __missing__(self, name: str) -> Any:
        raise Refusal(f"the attribute '{name}' is missing")
