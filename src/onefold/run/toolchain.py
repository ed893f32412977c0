"""C sources in, machine code out, by the clang and lld of the `ziglang` wheel.

Decisions and their reasons:

* The `zig` binary is called directly; starting Python for `python -m ziglang` costs more than
  compiling a small unit.
* CPU flags go to compiling only.  Every link of one architecture uses the same line, since zig
  builds a libc for each new combination of flags that a link names (20-60 s each).
* A shared object for the host is linked by `ld.lld` alone: it needs no libc, only the `mem*`
  functions, which the process that loads it has.  Any other undefined symbol is refused.
* Objects are made from relative paths, without debug information and with the folder mapped
  away, so the same sources give the same bytes in every folder.
* What zig builds once (libc, compiler-rt) lives in a lasting folder of ours; its cache of
  objects lives in the work folder and vanishes with it, since our own cache stands above it.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from onefold import events, knobs
from onefold.errors import DiskError, TargetError, ToolchainError
from onefold.target import Target

if TYPE_CHECKING:  # a warm start only asks for the version
    from onefold.run.process import Finished

COMPILE_FLAGS = ("-std=gnu11", "-g0", "-fno-math-errno", "-fno-trapping-math",
                 "-ffp-contract=on", "-fwrapv", "-fno-sanitize=all", "-fno-stack-protector",
                 "-fomit-frame-pointer", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables",
                 "-ffunction-sections", "-fdata-sections", "-fvisibility=hidden")
"""Never -ffinite-math-only: NaN and infinity keep their meaning."""

PROCESS_SYMBOLS = frozenset({"memcpy", "memmove", "memset", "memcmp"})
"""What a shared object may leave to the process that loads it."""

Source = Path | tuple[str, str]
"""A file, or (relative name, text)."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """The compiler found: path of the binary, version of the wheel."""

    zig: Path
    version: str


@cache
def find() -> Toolchain:
    """Finds the `ziglang` wheel without importing it or starting anything.

    Raises `ToolchainError` when it is not installed.
    """
    import importlib.util
    spec = importlib.util.find_spec("ziglang")
    if spec is None or not spec.submodule_search_locations:
        raise ToolchainError("the C toolchain is not installed",
                             why="the package 'ziglang' cannot be imported",
                             kind=ToolchainError.MISSING)
    folder = Path(spec.submodule_search_locations[0])
    zig = folder / "zig"
    if not os.access(zig, os.X_OK):
        raise ToolchainError("the C toolchain has no usable compiler", where=str(zig),
                             why="the file is missing or not executable",
                             kind=ToolchainError.MISSING)
    return Toolchain(zig, _version(folder, zig))


def _version(folder: Path, zig: Path) -> str:
    """The wheel's version by the name of its metadata folder; asking zig costs a process."""
    found = [name for name in os.listdir(folder.parent)
             if name.startswith("ziglang-") and name.endswith(".dist-info")]
    if len(found) == 1:
        return found[0].removeprefix("ziglang-").removesuffix(".dist-info")
    from onefold.run import process
    done = process.run([str(zig), "version"], cwd=folder, timeout=60)
    return done.stdout.decode("utf-8", "replace").strip()


def version() -> str:
    """Version of the toolchain, part of every cache key."""
    return find().version


def compile_units(sources: Sequence[Source], target: Target, workdir: Path, *,
                  include_dirs: Sequence[Path] = (), flags: Sequence[str] = (),
                  optimize: str = "-O3", shared: bool = False, assembly: bool = False,
                  jobs: int = 0) -> list[Path]:
    """Compiles each source to an object in `workdir`, several at once; objects in the same order.

    Text sources are written to `workdir` first, under their names.  `flags` are added last.
    `shared` makes position-independent code for `link_shared`; `assembly` gives the text of the
    instructions instead of objects.  Without an operating system the
    compiler takes `memcpy` and `sqrtf` for unknown functions: write `__builtin_memcpy`.
    Raises `ToolchainError` with the compiler's first lines, or `DiskError` when the disk is full.
    """
    work = workdir.resolve()
    units = [_materialize(source, work) for source in sources]
    common = [*COMPILE_FLAGS, optimize, "-target", target.triple, *target.cpu_flags,
              "-fPIC" if shared else "-fno-pic", *_include_flags(include_dirs),
              *_prefix_maps(work, units), *flags]
    form, suffix = ("-S", "s") if assembly else ("-c", "o")
    objects = [work / f"{Path(unit).stem[:40]}_{i}.{suffix}" for i, unit in enumerate(units)]
    commands = [["cc", *common, form, unit, "-o", obj.name]
                for unit, obj in zip(units, objects, strict=True)]
    with events.Progress("compile", len(commands)) as progress, _scratch(work) as scratch:
        _run_all(commands, work, scratch, jobs or knobs.jobs(), progress)
    return objects


def _materialize(source: Source, work: Path) -> str:
    """The source's name relative to the work folder (or absolute, if it lies elsewhere)."""
    if isinstance(source, Path):
        full = source.resolve()
        return str(full.relative_to(work)) if full.is_relative_to(work) else str(full)
    name, text = source
    inner = PurePosixPath(name)
    if inner.is_absolute() or ".." in inner.parts or not name or name.startswith("-"):
        raise ToolchainError(f"the source name '{name}' is not allowed",
                             why="it must be relative and stay inside the work folder")
    path = work / inner
    from onefold.run import store
    with store.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", errors="backslashreplace")
    return str(inner)


def _include_flags(include_dirs: Sequence[Path]) -> list[str]:
    flags: list[str] = []
    for i, folder in enumerate(include_dirs):
        flags += ["-I", str(folder), f"-ffile-prefix-map={folder}=include{i}"]
    return flags


def _prefix_maps(work: Path, units: Sequence[str]) -> list[str]:
    folders = sorted({str(Path(unit).parent) for unit in units if Path(unit).is_absolute()})
    return [f"-ffile-prefix-map={work}=.",
            *(f"-ffile-prefix-map={folder}=source{i}" for i, folder in enumerate(folders))]


@contextmanager
def _scratch(work: Path) -> Iterator[Path]:
    """A folder for zig's own cache of objects, for the time of one operation."""
    import shutil
    import tempfile

    from onefold.run import store
    with store.writing(work):
        folder = Path(tempfile.mkdtemp(prefix=".zig-", dir=work))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_all(commands: list[list[str]], work: Path, scratch: Path, jobs: int,
             progress: events.Progress) -> None:
    if len(commands) == 1 or jobs == 1:
        for command in commands:
            _zig(command, work, scratch)
            progress.step(command[-1])
        return
    from concurrent.futures import ThreadPoolExecutor, as_completed
    with ThreadPoolExecutor(min(jobs, len(commands))) as pool:
        running = {pool.submit(_zig, command, work, scratch): command[-1] for command in commands}
        try:
            for future in as_completed(running):
                future.result()
                progress.step(running[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def link_shared(objects: Sequence[Path], out: Path, target: Target, *,
                allow: frozenset[str] = frozenset()) -> None:
    """Links a shared object that depends on no library at all.

    `PROCESS_SYMBOLS` and the symbols in `allow` may stay undefined; the process that loads the
    object resolves them.  Helper calls that the compiler emits (half floats, 128-bit integers)
    are linked in from compiler-rt.  Only the symbols that the sources declare with default
    visibility are exported.  Raises `ToolchainError`, naming every other undefined symbol.
    """
    if target.os != "linux":
        raise TargetError(f"a shared object cannot be made for '{target.name}'",
                          why="the target has no operating system that could load it",
                          kind=TargetError.CANNOT)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    # 64 KB pages exist on arm64 boards; x86-64 has 4 KB pages only.
    page = 4096 if target.arch == "x86_64" else 65536
    command = ["ld.lld", "-shared", "-o", temporary.name, "--gc-sections", "-s", "-Bsymbolic",
               "--build-id=none", "--hash-style=gnu", "-z", "noexecstack", "-z", "now",
               "-z", "norelro", "-z", f"max-page-size={page}", "-z", "defs",
               "--warn-unresolved-symbols", *_names(objects, out.parent)]
    try:
        missing = _undefined(_zig(command, out.parent)) - PROCESS_SYMBOLS - allow
        if missing and all(name.startswith("__") for name in missing):
            helpers = compiler_rt(target, out.parent)
            missing = _undefined(_zig([*command, str(helpers)], out.parent))
            missing -= PROCESS_SYMBOLS | allow
        if missing:
            raise ToolchainError(
                "the generated code calls functions that it may not use",
                why="undefined: " + ", ".join(sorted(missing)), where=out.name)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _undefined(done: Finished) -> set[str]:
    marker = "undefined symbol: "
    return {line.partition(marker)[2].strip() for line in done.lines() if marker in line}


def archive(objects: Sequence[Path], out: Path) -> None:
    """Puts objects into a static library, replacing one that is there."""
    out.unlink(missing_ok=True)
    _zig(["ar", "rcsD", out.name, *_names(objects, out.parent)], out.parent)


def link_executable(objects: Sequence[Path], out: Path, target: Target,
                    flags: Sequence[str] = ()) -> None:
    """Links a static executable for a Linux target.  The first one per target builds its libc."""
    if target.os != "linux":
        raise TargetError(f"a Linux executable cannot be made for '{target.name}'",
                          why="the target has no operating system", kind=TargetError.CANNOT)
    _link(["-target", target.triple, "-O2", "-static", "-s", "-Wl,--gc-sections",
           *_names(objects, out.parent), *flags], out, target)


def link_firmware(objects: Sequence[Path], out: Path, target: Target, *,
                  stack_bytes: int = 8192, script: str | None = None) -> None:
    """Links a bare-metal image: vector table, start-up code, the objects, compiler-rt.

    The linker script follows from the target's memories (`bare.linker_script`) unless `script`
    gives another one.  Raises `ToolchainError` when a memory overflows (the message of the
    linker says by how much).
    """
    from onefold.run import bare
    work = out.parent.resolve()
    start = compile_units(bare.start_sources(target), target, work, optimize="-Os",
                          include_dirs=[bare.INCLUDE])
    layout = work / f"{out.name}.ld"
    layout.write_text(script or bare.linker_script(target, stack_bytes), "utf-8")
    # No -s: the symbols are what code size and stack are read from, and are not flashed.
    _link(["-target", target.triple, f"-mcpu={target.cpu}", "-Os", "-T", layout.name,
           *_names([*start, *objects], work), "-Wl,--gc-sections,-e,reset",
           "-Wl,-z,max-page-size=4"], out, target)


def _link(arguments: list[str], out: Path, target: Target) -> None:
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        command = ["cc", "-g0", *arguments, "-o", temporary.name]
        with _scratch(out.parent) as scratch:
            if is_prepared(target):
                _zig(command, out.parent, scratch)
            else:
                with events.Progress(f"C run-time parts for {target.name}, built once"):
                    _zig(command, out.parent, scratch)
                _marker(target).touch()
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def is_prepared(target: Target) -> bool:
    """Whether the target's libc or compiler-rt has been built, so that linking is quick."""
    return _marker(target).exists()


def _marker(target: Target) -> Path:
    from onefold.run import store
    parts = target.triple if target.os == "linux" else f"{target.triple}-{target.cpu}"
    return store.toolchain_folder() / f"ready-{version()}-{parts}"


def _names(objects: Sequence[Path], work: Path) -> list[str]:
    work = work.resolve()
    full = [path.resolve() for path in objects]
    return [str(p.relative_to(work)) if p.is_relative_to(work) else str(p) for p in full]


def compiler_rt(target: Target, workdir: Path) -> Path:
    """The archive of compiler helper functions for a Linux target, built on first use (3 s).

    It also has `mem*` functions, so an object that needs it no longer uses the process's.
    """
    from onefold.run import store
    archive = store.toolchain_folder() / f"compiler_rt-{version()}-{target.triple}.a"
    if not archive.exists():
        made = workdir / f".compiler_rt.{os.getpid()}.a"
        try:
            with (events.Progress(f"helper functions for {target.arch}, built once"),
                  _scratch(workdir) as scratch):
                _zig(["build-lib", "-static", str(find().zig.parent / "lib" / "compiler_rt.zig"),
                      "-target", target.triple, "-O", "ReleaseFast", "-fPIC", "-fstrip",
                      "-ffunction-sections", "-fdata-sections", f"-femit-bin={made.name}"], workdir,
                     scratch)
            made.replace(archive)
        finally:
            made.unlink(missing_ok=True)
    return archive


def prepare(target: Target, workdir: Path) -> float:
    """Builds what is built once for a target (libc, compiler-rt); returns the seconds it took.

    The first time takes up to a minute, later ones a tenth of a second.
    """
    from onefold.target import require_buildable
    begin = time.perf_counter()
    source = ("prepare.c", "int main(void) { return 0; }\n")
    if target.os == "linux":
        objects = compile_units([source], target, workdir)
        link_executable(objects, workdir / "prepare", target)
    else:
        require_buildable(target)
        link_firmware(compile_units([source], target, workdir), workdir / "prepare.elf", target)
    return time.perf_counter() - begin


def _zig(arguments: Sequence[str], work: Path, scratch: Path | None = None) -> Finished:
    """Runs zig in the work folder; `scratch` takes its cache of objects (lld has none).

    Raises `ToolchainError` or `DiskError` when it fails.
    """
    from onefold.run import process, store
    tool = find()
    env = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(store.toolchain_folder()),
           "ZIG_LOCAL_CACHE_DIR": str(scratch or work), "LC_ALL": "C"}
    limit = knobs.COMPILE_TIMEOUT.get()
    try:
        done = process.run([str(tool.zig), *arguments], cwd=work, timeout=limit, env=env)
    except OSError as error:
        raise ToolchainError("the C compiler cannot be started", where=str(tool.zig),
                             why=str(error), kind=ToolchainError.MISSING) from error
    shown = shlex.join(["zig", *arguments])
    events.emit("toolchain.run", command=shown, seconds=done.seconds, status=done.status)
    if done.timed_out:
        raise ToolchainError(f"the compiler did not end within {limit} seconds", where=shown,
                             kind=ToolchainError.TIMEOUT)
    if done.status:
        _refuse(done, shown, work)
    return done


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


_LEAST_SPACE = 1 << 20  # bytes with which the compiler may still get along


def _refuse(done: Finished, command: str, work: Path) -> None:
    lines = done.lines()
    text = "\n".join(lines).lower()
    full = "no space left" in text or "nospaceleft" in text or "disk quota" in text
    if full or (done.status < 0 and _free(work) < _LEAST_SPACE):  # zig aborts on a full disk
        raise DiskError("no space left: the compiler ran out of disk space", where=command,
                        detail=lines[:5])  # fmt: skip
    reason = f"signal {-done.status}" if done.status < 0 else f"exit status {done.status}"
    raise ToolchainError("the C compiler or linker failed", where=command, why=reason,
                         detail=lines)
