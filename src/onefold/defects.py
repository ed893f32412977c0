"""The last line of defence: exceptions that nobody meant to raise.

A file that finds a hole in an operator's own checks must still end in an error that names the
layer.  Such an error says that it is a defect of ours, and the event `defect` tells those who
listen (the fuzzers count it as a finding).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from onefold import events
from onefold.errors import MemoryLimitError, OnefoldError, PlanError


def told(error: Exception, layer: str, operator: str = "") -> str:
    """The reason to give for an exception that should not have happened; OnefoldErrors, which
    were meant, are raised again."""
    if isinstance(error, OnefoldError):
        raise error
    events.emit("defect", error=error, layer=layer, operator=operator)
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"it is not understood ({type(error).__name__}: {error}); this is a defect of Onefold"


@contextmanager
def defects(what: str) -> Iterator[None]:
    """Within: an exception that is no OnefoldError becomes one, which says what failed."""
    try:
        yield
    except OnefoldError:
        raise
    except MemoryError as e:
        raise MemoryLimitError(f"{what} needs more memory than there is") from e
    except Exception as e:
        events.emit("defect", error=e, layer=what, operator="")
        raise PlanError(f"{what} failed", why=f"{type(e).__name__}: {e}",
                        remedy="This is a defect of Onefold: report it with the model.",
                        kind=PlanError.DEFECT) from e  # fmt: skip
