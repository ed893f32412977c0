"""Every error Onefold raises, in one tree.

An error says *what* went wrong, *where* (the layer or file as its author named it), *why*, and
what to do next (*remedy*).  Each class declares the kinds of failure it stands for as `Kind`
values; a kind carries the code printed in the message and the longer text of
`onefold explain CODE`.  The first kind of a class is the one used when none is given.

Text that comes from a model or a tool passes through `printable` before it is shown, so that a
name with terminal escapes, newlines or 100 KB of letters cannot disturb the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

MAX_FIELD = 600
"""Longest text of one field of a message, in characters; longer ones are cut in the middle."""

MAX_DETAIL = 20
"""Most detail lines shown by `str()`; `to_json()` has all of them."""


def printable(text: object, limit: int = MAX_FIELD) -> str:
    """One line that is safe to show on a terminal: no control characters, at most `limit` long."""
    source = str(text)
    if len(source) > limit:
        head, tail = limit * 2 // 3, limit // 6
        source = f"{source[:head]}...[{len(source) - head - tail} more]...{source[-tail:]}"
    if source.isprintable():
        return source
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in source)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question naming the known words nearest to `word`, or an empty text."""
    import difflib  # only on the way to an error
    spelt = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word[:200].lower(), spelt, n=3, cutoff=0.5)
    if not near:
        return ""
    return "Did you mean " + " or ".join(f"'{spelt[name]}'" for name in near) + "?"


def pip_words(package: str, extra: str) -> str:
    """How a package is installed: with an extra of Onefold, or by itself where it is in none."""
    return f"pip install 'onefold[{extra}]'" if extra else f"pip install {package}"


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to fail: the code in the message and the text behind `onefold explain CODE`."""

    code: str
    title: str
    meaning: str
    causes: tuple[str, ...]
    remedy: str

    def text(self) -> str:
        """The explanation as plain text."""
        causes = "\n".join(f"  - {c}" for c in self.causes)
        return (f"{self.code}: {self.title}\n\n{self.meaning}\n\nUsual causes:\n{causes}\n\n"
                f"What to do: {self.remedy}\n")


class Miss(NamedTuple):
    """One thing an importer, a backend or a target cannot take."""

    layer: str
    operator: str
    reason: str


_KINDS: dict[str, tuple[Kind, type[OnefoldError]]] = {}


class OnefoldError(Exception):
    """Base of the tree.  Fields: `code`, `what`, `where`, `why`, `remedy`, `detail`."""

    kinds: ClassVar[tuple[Kind, ...]] = (
        Kind("OF001", "general error", "An error without a class of its own.",
             ("a defect in Onefold",), "Report it with the model and the command line."),
    )

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        _register(cls)

    def __init__(self, what: str, *, where: str | None = None, why: str = "",
                 remedy: str = "", detail: Sequence[str] = (), kind: Kind | None = None) -> None:
        self.kind = kind or self.kinds[0]
        self.what = what
        self.where = where
        self.why = why
        self.remedy = remedy or self.kind.remedy
        self.detail = tuple(detail)
        super().__init__(what)

    @property
    def code(self) -> str:
        return self.kind.code

    def at(self, where: str) -> OnefoldError:
        """Adds the place if it is not known yet (an inner place is more exact); returns self."""
        if self.where is None:
            self.where = where
        return self

    def lines(self) -> tuple[str, ...]:
        """The detail lines below the message: compiler output, a list of misses."""
        return self.detail

    def __str__(self) -> str:
        rows = [f"{self.code}: {printable(self.what)}"]
        if self.where:
            rows.append(f"  where: {printable(self.where)}")
        if self.why:
            rows.append(f"  why:   {printable(self.why)}")
        lines = self.lines()
        rows += [f"    | {printable(line, 300)}" for line in lines[:MAX_DETAIL]]
        if len(lines) > MAX_DETAIL:
            rows.append(f"    | ... and {len(lines) - MAX_DETAIL} more")
        rows.append(f"  next:  {printable(self.remedy)}")
        return "\n".join(rows)

    def to_json(self) -> dict[str, Any]:
        """All fields, uncut, for `--json`."""
        return {"error": type(self).__name__, "code": self.code, "title": self.kind.title,
                "what": self.what, "where": self.where, "why": self.why, "remedy": self.remedy,
                "detail": list(self.lines())}

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments defeat the default pickling, and errors cross process borders.
        return _rebuild, (type(self), dict(self.__dict__))


def _register(cls: type[OnefoldError]) -> None:
    for kind in cls.__dict__.get("kinds", ()):
        if kind.code in _KINDS:
            raise AssertionError(f"error code {kind.code} is used twice")
        _KINDS[kind.code] = (kind, cls)


_register(OnefoldError)


def _rebuild(cls: type[OnefoldError], fields: dict[str, Any]) -> OnefoldError:
    error = cls.__new__(cls)
    error.__dict__.update(fields)
    error.args = (fields.get("what", ""),)
    return error


def all_kinds() -> dict[str, tuple[Kind, type[OnefoldError]]]:
    """Every code with its kind and the class that raises it, in order of the code."""
    return dict(sorted(_KINDS.items()))


def explain(code: str) -> Kind:
    """The kind behind a code such as `OF301` (case does not matter).

    Raises `OptionError` with the nearest codes when there is no such code.
    """
    found = _KINDS.get(code.strip().upper())
    if found is None:
        raise OptionError(f"there is no error code '{printable(code, 40)}'",
                          why=did_you_mean(code, _KINDS),
                          remedy="`onefold explain` without a code lists them all.")
    return found[0]


# --- reading a model -----------------------------------------------------------------------------


class ModelFormatError(OnefoldError):
    """The bytes are not a well-formed model of any known format."""

    MALFORMED = Kind(
        "OF101", "malformed model file",
        "The file was recognised as one of the known formats, but its contents break that "
        "format's own rules, so that nothing reliable can be read from it.",
        ("the download or the copy was cut off", "the file was written by a faulty exporter",
         "an offset or a size inside the file points outside of it"),
        "Fetch or export the file again; compare its size and checksum with the source.")
    UNKNOWN = Kind(
        "OF102", "unknown file format",
        "No importer recognised the file by its contents (the name's ending plays no part).",
        ("the file is not a model, for instance an HTML error page or a Git LFS pointer",
         "the format has no importer yet"),
        "Look at the first bytes of the file; `onefold doctor` lists the formats known here.")
    EXTERNAL = Kind(
        "OF103", "external data missing or out of bounds",
        "The model keeps weights in other files, and one of them is missing, too short, or "
        "named by a path that leaves the model's own folder, which is refused for safety.",
        ("only the .onnx file was copied and not the data beside it",
         "the file was renamed after export", "the model was made to read foreign files"),
        "Copy the data files next to the model under the names it expects.")
    MISSING = Kind(
        "OF104", "model file cannot be read",
        "The operating system refused to open the file, or it changed while it was in use.",
        ("the path is misspelt", "the file belongs to somebody else",
         "another program writes to the model, or to the weights beside it"),
        "Check the path and the permissions; load a model again when it has been written.")
    kinds = (MALFORMED, UNKNOWN, EXTERNAL, MISSING)


class UnsupportedModelError(OnefoldError):
    """The model is well-formed but uses something that cannot be taken; all misses at once."""

    UNSUPPORTED = Kind(
        "OF110", "model uses what Onefold cannot take",
        "Every layer that cannot be imported or compiled is listed with its operator and the "
        "reason, so that one export can remove all of them.",
        ("a custom operator of the training framework", "an operator newer than this release",
         "an operator variant, data type or rank without an implementation"),
        "Export without the listed operators, or add them with `--ops FILE.py`.")
    kinds = (UNSUPPORTED,)

    def __init__(self, what: str, *, misses: Sequence[Miss | tuple[str, str, str]] = (),
                 where: str | None = None, why: str = "", remedy: str = "",
                 detail: Sequence[str] = (), kind: Kind | None = None) -> None:
        super().__init__(what, where=where, why=why, remedy=remedy, detail=detail, kind=kind)
        self.misses = tuple(Miss(*m) for m in misses)

    def lines(self) -> tuple[str, ...]:
        shown = (f"layer '{printable(m.layer, 80)}' ({printable(m.operator, 60)}): {m.reason}"
                 for m in self.misses)
        return (*shown, *self.detail)

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"misses": [m._asdict() for m in self.misses]}


class AcceleratorModelError(OnefoldError):
    """The file holds a program already compiled for one accelerator."""

    COMPILED = Kind(
        "OF111", "model already compiled for one accelerator",
        "The layers were replaced by the binary commands of one chip; the original operators "
        "and weights are no longer in the file.",
        ("an Edge TPU model (operator edgetpu-custom-op)", "a Vela model (operator ethos-u)"),
        "Use the file from before the accelerator's compiler ran.")
    kinds = (COMPILED,)


# --- the graph -----------------------------------------------------------------------------------


class ShapeError(OnefoldError):
    """Shapes do not fit together, or are not known where they must be."""

    MISMATCH = Kind(
        "OF201", "shapes do not fit",
        "An operator received shapes that its definition does not allow.",
        ("a wrong `--shape` for an input", "a faulty export"),
        "Compare the shapes in the message with the model's definition.")
    UNKNOWN = Kind(
        "OF202", "dimension not known",
        "The target has no heap, or the operator plans its buffers ahead, so every dimension "
        "must be a number or have an upper bound.",
        ("a symbolic dimension such as 'batch' or 'seq' was left open",),
        "Fix it with `--dim NAME=VALUE`, or bound it with `--dim NAME=LO..HI`.")
    OVERFLOW = Kind(
        "OF203", "tensor too large",
        "The number of elements or bytes of a tensor exceeds what can be addressed.",
        ("a damaged or hostile file", "a symbolic dimension with a huge upper bound"),
        "Give smaller dimensions with `--shape` or `--dim`.")
    kinds = (MISMATCH, UNKNOWN, OVERFLOW)


class DTypeError(OnefoldError):
    """Element types do not fit together, or an operator does not take one."""

    DTYPE = Kind(
        "OF205", "element types do not fit",
        "An operator received an element type that its definition does not allow, or two "
        "operands whose types must be equal differ.",
        ("a faulty export", "a mixed precision conversion that missed a layer"),
        "Insert a Cast in the source model, or export in one precision.")
    kinds = (DTYPE,)


class GraphError(OnefoldError):
    """The verifier found a graph that breaks the rules of the IR."""

    INVALID = Kind(
        "OF210", "graph is not valid",
        "The graph breaks one of its rules: every value has one producer, producers come "
        "before consumers, names are unique, declared types equal inferred ones.",
        ("the model has cycles, duplicate names or undefined inputs",
         "a pass made an error (then its name is in the message)"),
        "If the message names a pass, report it; else repair the model's export.")
    TEXT = Kind(
        "OF211", "graph text cannot be parsed",
        "The text form of a graph has a syntax error at the line given.",
        ("the text was edited by hand", "it was written by another version"),
        "Correct the line, or print the graph again.")
    kinds = (INVALID, TEXT)


# --- plan ----------------------------------------------------------------------------------------


class PlanError(OnefoldError):
    """No valid program can be planned for this target."""

    PLAN = Kind(
        "OF301", "plan is not valid",
        "The plan's own verifier refused it: two live buffers overlap, a step reads a buffer "
        "before it is written, or an offset is not aligned.",
        ("a defect in a planner or a backend",),
        "Report it with the model; another target may avoid it meanwhile.")
    FIT = Kind(
        "OF302", "program does not fit the device",
        "The arena, the state or the weights need more bytes than the target's memories have.",
        ("the model is too large for the device", "the input resolution or batch is too large"),
        "Use a smaller input, a quantized model, or a target with more memory.")
    DEFECT = Kind(
        "OF303", "the compiler failed",
        "A pass or the planner met something that it was not written for.",
        ("a defect in Onefold", "a defect in an operator of your own"),
        "Report it with the model.")
    kinds = (PLAN, FIT, DEFECT)


class FallbackError(OnefoldError):
    """An operator has no compiled form and falling back is not allowed here."""

    FALLBACK = Kind(
        "OF310", "operator has no compiled form",
        "The operator can only run in its NumPy reference, which exists in a host session but "
        "not in a compiled artifact, and which `--no-fallback` forbids.",
        ("an operator or a variant that has no kernel yet",),
        "Run in a host session without `--no-fallback`, or give the operator a C form.")
    kinds = (FALLBACK,)


# --- target, toolchain, cache --------------------------------------------------------------------


class TargetError(OnefoldError):
    """The target is unknown, or this machine is not it."""

    UNKNOWN = Kind(
        "OF401", "unknown target",
        "No device of that name is described, or a feature suffix is not one of its ISA.",
        ("a misspelt name", "a feature of another architecture"),
        "`onefold targets` lists the devices and their features.")
    FEATURE = Kind(
        "OF402", "CPU feature missing on this machine",
        "The artifact was compiled for CPU features that this machine does not have; running "
        "it would end in an illegal instruction.",
        ("an artifact copied from a newer machine", "a virtual machine that hides features"),
        "Compile again on this machine, or for a lower target such as x86-64-v2.")
    DEVICE = Kind(
        "OF403", "device description is not valid",
        "A device's TOML file lacks a field or has one of the wrong type.",
        ("an error in a hand-written device file",),
        "Correct the field named in the message.")
    CANNOT = Kind(
        "OF404", "target cannot do this",
        "The operation needs something that the target does not have, for instance an "
        "operating system, a heap or an emulator.",
        ("running a bare-metal image as a shared library",),
        "Choose another output form or another target.")
    kinds = (UNKNOWN, FEATURE, DEVICE, CANNOT)


class ToolchainError(OnefoldError):
    """The C compiler or linker is missing, failed or did not end."""

    MISSING = Kind(
        "OF411", "C toolchain missing",
        "The compiler comes with the `ziglang` wheel, which is not importable here or has no "
        "binary for this machine.",
        ("the package was installed without its dependencies",),
        "`pip install ziglang`, then `onefold doctor`.")
    FAILED = Kind(
        "OF412", "compiler or linker failed",
        "The tool ended with an error on generated code; its first lines are shown.",
        ("a defect in the generated code", "a custom operator whose C expression is wrong",
         "memory or disk ran out"),
        "If a custom operator is named, correct its C; else report it with the model.")
    TIMEOUT = Kind(
        "OF413", "compiler or linker took too long",
        "The tool did not end within its time limit and was stopped.",
        ("the first use of a target builds its libc, which takes up to a minute",
         "the machine is overloaded"),
        "`onefold doctor --prepare TARGET` builds what is built once; then try again.")
    kinds = (FAILED, MISSING, TIMEOUT)


class CacheError(OnefoldError):
    """The cache folder or an entry cannot be used."""

    UNSAFE = Kind(
        "OF421", "cache folder is not private",
        "Compiled code is loaded from the cache, so its folder must belong to you and nobody "
        "else may write to it.",
        ("the folder was made by another user", "its permissions were widened"),
        "Remove the folder or `chmod 700` it, or set ONEFOLD_CACHE_DIR to another one.")
    DAMAGED = Kind(
        "OF422", "cache entry damaged",
        "A file of the entry does not have the checksum it was stored with.  Damaged entries "
        "are removed and built again; this error appears only if that is not possible.",
        ("the disk is failing", "the file was changed by hand"),
        "`onefold cache clear`, then try again.")
    BUSY = Kind(
        "OF423", "waiting for another process took too long",
        "Another process is building the same entry and did not end within the limit.",
        ("the other process is stopped or very slow",),
        "End the other process, or set ONEFOLD_CACHE_DIR to another folder.")
    BUILD = Kind(
        "OF424", "cache folder cannot be used",
        "The folder cannot be created, locked or written.",
        ("a read-only file system", "no permission"),
        "Set ONEFOLD_CACHE_DIR to a folder you can write to.")
    kinds = (BUILD, UNSAFE, DAMAGED, BUSY)


class DiskError(OnefoldError):
    """No space is left, or a file cannot be written."""

    FULL = Kind(
        "OF425", "no space left on the device",
        "Writing ended early because the disk, the quota or the size limit of the file system "
        "is used up.  Half-written files were removed.",
        ("the cache or the output folder is on a full disk",),
        "Free some space (`onefold cache clear`), or set ONEFOLD_CACHE_DIR to another disk.")
    WRITE = Kind(
        "OF426", "file cannot be written",
        "The operating system refused to write the file.",
        ("the folder does not exist or is read-only", "the disk reported an error"),
        "Choose another output folder.")
    kinds = (FULL, WRITE)


# --- running -------------------------------------------------------------------------------------


class InputError(OnefoldError):
    """An input given at run time does not fit the program."""

    INPUT = Kind(
        "OF501", "input does not fit the program",
        "An input is missing, not known, or has another shape or element type than the program "
        "was compiled for.",
        ("a missing batch dimension", "float64 instead of float32",
         "channels last instead of channels first"),
        "`onefold inspect MODEL` shows the names, shapes and types that are expected.")
    FULL = Kind(
        "OF502", "state is full",
        "A state that grows with each call has reached the bound that it was compiled for.",
        ("more calls than the bound has room for",),
        "Call reset(), or compile with a wider range: `--dim NAME=LO..HI`.")
    kinds = (INPUT, FULL)


class RunError(OnefoldError):
    """The compiled program reported an error at run time."""

    STEP = Kind(
        "OF510", "compiled program reported an error",
        "A step found at run time what could not be excluded when it was compiled.",
        ("an index outside of its tensor", "a data-dependent size above its bound"),
        "Check the input values that reach the layer named in the message.")
    LOAD = Kind(
        "OF511", "compiled program cannot be loaded",
        "The shared object is not loadable or lacks the expected entry.",
        ("it was built for another machine", "the file system forbids execution (noexec)"),
        "Compile again; if the cache is on a noexec file system, set ONEFOLD_CACHE_DIR.")
    SIZES = Kind(
        "OF512", "sizes do not fit each other",
        "Dimensions that are open when a program is compiled are taken to be equal where an "
        "operator needs it, and this call has other sizes.",
        ("two inputs whose sizes do not go together",
         "a dimension that is 1 in this call and would have to be repeated, in a prepared call or "
         "beside states"),
        "Give inputs that fit; where a size of 1 is to be repeated, compile for that size: "
        "--dim NAME=1.")
    BUSY = Kind(
        "OF513", "prepared call is running already",
        "A prepared call has one set of arrays, and so serves one thread at a time.",
        ("two threads that share a prepared call",),
        "Prepare one for each thread: program.prepare(...).")
    kinds = (STEP, LOAD, SIZES, BUSY)


class EmulatorError(OnefoldError):
    """An emulator is missing, failed or did not end."""

    MISSING = Kind(
        "OF521", "emulator not installed",
        "Programs for other machines run under QEMU here, and its binary was not found.",
        ("the package is not installed",),
        "Install the package named in the message; `onefold doctor` shows what is there.")
    FAILED = Kind(
        "OF522", "program failed under the emulator",
        "The program ended with an error, a fault or a signal.",
        ("a kernel used an instruction that the emulated CPU does not have",
         "the stack or a memory of the device is too small"),
        "Look at the lines shown; try the same model on the host target.")
    TIMEOUT = Kind(
        "OF523", "program did not end under the emulator",
        "The time limit was reached and the emulator was stopped.",
        ("the model is large: emulation is 10 to 100 times slower than the device",),
        "Raise the time limit, or use a smaller input.")
    kinds = (FAILED, MISSING, TIMEOUT)


# --- resources, options --------------------------------------------------------------------------


class MemoryLimitError(OnefoldError):
    """The operation would need more memory than is allowed."""

    LIMIT = Kind(
        "OF601", "memory limit exceeded",
        "A size taken from the file or computed from it asks for more memory than the limit, so "
        "it was refused before it was allocated.",
        ("a damaged or hostile file", "a model too large for this machine"),
        "Check the shapes; raise ONEFOLD_MEMORY_LIMIT if the model is trusted.")
    kinds = (LIMIT,)


class OptionError(OnefoldError):
    """A command line option, an argument of the API or a knob is wrong."""

    OPTION = Kind(
        "OF610", "wrong option",
        "An option has an unknown name, a value outside its range, or contradicts another one.",
        ("a misspelt name", "a value of the wrong type"),
        "`onefold VERB --help` lists the options and their values.")
    kinds = (OPTION,)


class MissingExtraError(OnefoldError):
    """An optional package is needed and not installed."""

    EXTRA = Kind(
        "OF611", "optional package not installed",
        "The operation needs a package that is an extra of Onefold and not installed here.",
        ("Onefold was installed without that extra",),
        "Install the extra named in the message; `onefold doctor` lists all of them.")
    kinds = (EXTRA,)

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"the package '{package}' is not installed",
                         why=f"{purpose} needs it, and it is not installed by default",
                         remedy=pip_words(package, extra))
        self.package, self.extra = package, extra
