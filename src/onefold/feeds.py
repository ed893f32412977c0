"""What a user gives at run time, made into what a program takes, or refused with the reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from onefold.errors import InputError, OptionError, did_you_mean, printable

if TYPE_CHECKING:
    from onefold.frontend.model import Declared


def by_name(
    inputs: Any, named: Mapping[str, Any], wanted: Sequence[str], states: Collection[str] = ()
) -> dict[str, Any]:
    """The arrays given, by input name; states: inputs that the program fills itself.

    Raises InputError for extra and missing names.
    """
    given: dict[str, Any] = dict(named)
    if isinstance(inputs, Mapping):
        given.update(inputs)
    elif inputs is not None:
        if isinstance(inputs, (list, tuple)) and len(inputs) == len(wanted) != 1:
            given.update(zip(wanted, inputs, strict=True))
        elif len(wanted) == 1:
            given[wanted[0]] = inputs
        else:
            raise InputError(f"the model has {len(wanted)} inputs", why=", ".join(wanted),
                             remedy="Give a dict of name -> array.")  # fmt: skip
    missing = [n for n in wanted if n not in given]
    extra = [printable(n, 60) for n in given if n not in wanted]
    if missing or extra:
        why = f"missing: {', '.join(missing)}" if missing else did_you_mean(extra[0], wanted)
        if not missing and extra[0] in states:
            why = f"'{extra[0]}' is a state, which the program keeps from call to call"
        raise InputError(
            f"the inputs do not fit: {', '.join(extra) or 'some are missing'}", why=why,
            remedy=f"The model's inputs are {', '.join(wanted)}.",
        )  # fmt: skip
    return given


def as_array(name: str, x: Any, dtype: str) -> Any:
    """x as an aligned array of the wanted element type in the machine's byte order, without a
    copy where it is one already.

    Takes NumPy arrays, anything with DLPack, and plain numbers and lists, which are converted
    where that loses nothing.  Raises InputError.
    """
    kind = _kind(dtype)
    if type(x) is np.ndarray and kind is not None and x.dtype == kind and x.flags.aligned:
        return x
    if not isinstance(x, np.ndarray):
        if not hasattr(x, "__dlpack__"):
            return _converted(name, x, kind)
        try:
            x = np.from_dlpack(x)
        except Exception as e:  # what another library's export raises is not for us to know
            raise InputError(
                f"input '{name}' cannot be taken through DLPack", why=f"{type(e).__name__}: {e}",
                remedy="Pass a NumPy array in the memory of the CPU.") from None  # fmt: skip
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise InputError(f"input '{name}' has masked elements", why="a program has no such thing",
                         remedy="Give them values: array.filled(0).")  # fmt: skip
    if kind is not None and x.dtype != kind and kind != np.dtype(object):
        if x.dtype.newbyteorder("=") != kind:
            raise InputError(
                f"input '{name}' has elements of type {x.dtype.name}, not {kind.name}",
                remedy=f"Convert it: array.astype('{kind.name}').",
            )
        x = x.astype(kind)
    return x if x.flags.aligned else x.copy()


def check_lies(name: str, given: Any, array: Any) -> None:
    """Raises InputError where `as_array` had to make an array instead of taking the given one."""
    if given is array or (not isinstance(given, np.ndarray) and hasattr(given, "__dlpack__")):
        return
    raise InputError(
        f"input '{name}' cannot be used where it lies",
        why="a prepared call reads the array itself at each call, and this one has to be converted",
        remedy=f"Give an aligned array of {array.dtype.name}, such as program.prepare() makes.",
    )


@cache
def _kind(dtype: str) -> np.dtype[Any] | None:
    from onefold.ir import dtypes

    return dtypes.BY_NAME[dtype].numpy if dtype in dtypes.BY_NAME else None


def _converted(name: str, x: Any, kind: np.dtype[Any] | None) -> Any:
    """Numbers and lists of numbers as an array."""
    if x is None:
        raise InputError(f"input '{name}' is None", remedy="Give an array.")
    try:
        with np.errstate(all="ignore"):
            made = np.asarray(x, kind)
        if kind is not None and kind.kind in "iub":
            raw = np.asarray(x)
            if raw.dtype.kind not in "iub" or not np.array_equal(raw, made):
                raise ValueError(f"its numbers are not all elements of type {kind.name}")
    except (TypeError, ValueError, OverflowError) as e:
        raise InputError(f"input '{name}' is not an array", why=str(e)) from None
    return made


def bad_shape(d: Declared, shape: tuple[int, ...], why: str) -> InputError:
    return InputError(f"input '{d.name}' has shape {list(shape)}", why=why,
                      remedy=f"The model declares {d!r}.")  # fmt: skip


def fingerprint(v: Any) -> Any:
    """What tells contents apart: of an array, of a sequence of arrays, or of nothing."""
    if isinstance(v, np.ndarray):
        raw = repr(v.tolist()) if v.dtype == object else v.tobytes().hex()
        return (v.shape, str(v.dtype), raw)
    if isinstance(v, (list, tuple)):
        return tuple(fingerprint(x) for x in v)
    return repr(v)


def sizes_of(name: str, shape: Any) -> tuple[int, ...]:
    """A whole shape that the user fixes. Raises OptionError."""
    try:
        made = tuple(int(d) for d in shape)
    except (TypeError, ValueError):
        made = (-1,)
    if any(not 0 <= d < 1 << 31 for d in made):
        raise OptionError(
            f"the shape {name}={printable(shape, 60)} is not understood",
            why="it is a sequence of sizes between 0 and 2147483647",
            remedy="Write for instance shapes={'input': (1, 3, 224, 224)}.")  # fmt: skip
    return made


def check_names(what: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raises OptionError for a name that the model does not have."""
    for name in given:
        if name not in known:
            listed = ", ".join(known[:20]) or "none"
            raise OptionError(f"the model has no {what} '{printable(name, 60)}'",
                              why=did_you_mean(str(name), known) or f"it has {listed}",
                              remedy="`onefold inspect MODEL` shows its inputs.")  # fmt: skip


__all__ = ["as_array", "bad_shape", "by_name", "check_lies", "check_names", "fingerprint",
           "sizes_of"]  # fmt: skip
