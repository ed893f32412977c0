"""The toolchain: what it makes, what it refuses, and in which words."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from onefold import events
from onefold.errors import DiskError, TargetError, ToolchainError
from onefold.run import bare, elf, process, toolchain
from onefold.target import find, host, load_isa, runs_here
from tests.run import programs
from tests.work import must_end

pytestmark = pytest.mark.toolchain

FUNCTION = '__attribute__((visibility("default"))) int f(int x) { return x * 3 + LOCAL; }\n'


def unit(name: str, value: int) -> tuple[str, str]:
    return name, FUNCTION.replace("LOCAL", str(value)).replace("f(", f"{name[0]}(")


def shared(work: Path, *sources: toolchain.Source, target: str = "host",
           allow: frozenset[str] = frozenset()) -> Path:
    objects = toolchain.compile_units(sources, find(target), work, shared=True)
    toolchain.link_shared(objects, work / "out.so", find(target), allow=allow)
    return work / "out.so"


def test_several_units_become_one_library_that_needs_no_other(work: Path) -> None:
    out = shared(work, unit("a.c", 1), unit("b.c", 2), unit("c.c", 3))
    loaded = ctypes.CDLL(str(out))
    assert [loaded.a(10), loaded.b(10), loaded.c(10)] == [31, 32, 33]
    assert b"libc" not in out.read_bytes()
    assert not [p for p in work.iterdir() if p.name.startswith(".")]


def test_a_tiny_model_takes_two_runs_of_the_compiler(work: Path) -> None:
    programs.build(work, "warm")  # what is built once for a target
    with events.collected() as seen:
        programs.build(work, "p")
    commands = [e.facts["command"].split()[1] for e in seen if e.kind == "toolchain.run"]
    assert commands == ["cc", "ld.lld"]


def test_only_declared_symbols_are_exported(work: Path) -> None:
    out = shared(work, ("a.c", FUNCTION.replace("LOCAL", "1") + "int hidden(void) { return 1; }\n"))
    assert ctypes.CDLL(str(out)).f(1) == 4
    with pytest.raises(AttributeError):
        _ = ctypes.CDLL(str(out)).hidden


def test_a_call_to_libc_is_refused_by_name(work: Path) -> None:
    source = 'float expf(float);\n__attribute__((visibility("default"))) float f(float x) ' \
             "{ return expf(x); }\n"
    with pytest.raises(ToolchainError, match="undefined: expf") as caught:
        shared(work, ("a.c", source))
    assert caught.value.code == "OF412"
    assert not (work / "out.so").exists()
    assert shared(work, ("a.c", source), allow=frozenset({"expf"})).exists()


@pytest.mark.skipif(not runs_here(find("x86-64-v2")), reason="needs an x86-64 machine")
def test_helpers_of_the_compiler_are_linked_in(work: Path) -> None:
    source = '__attribute__((visibility("default"))) float f(float x) ' \
             "{ volatile _Float16 h = (_Float16)x; return (float)h; }\n"
    loaded = ctypes.CDLL(str(shared(work, ("a.c", source), target="x86-64-v2")))
    loaded.f.restype, loaded.f.argtypes = ctypes.c_float, [ctypes.c_float]
    assert loaded.f(1.0 / 3) == 0.333251953125


def test_an_error_in_the_source_shows_command_and_first_lines(work: Path) -> None:
    with pytest.raises(ToolchainError) as caught:
        toolchain.compile_units([unit("a.c", 1), ("bad.c", "int f(void) { return nothing; }\n")],
                                find("host"), work)
    text = str(caught.value)
    assert "OF412: the C compiler or linker failed" in text
    assert "where: zig cc -std=gnu11" in text
    assert "bad.c:1:22: error: use of undeclared identifier 'nothing'" in text
    assert "why:   exit status 1" in text


@pytest.mark.parametrize("name", ["/abs.c", "../up.c", "a/../../up.c", "", "-o"])
def test_source_names_stay_inside_the_work_folder(work: Path, name: str) -> None:
    with pytest.raises(ToolchainError, match="is not allowed"):
        toolchain.compile_units([(name, "int x;")], find("host"), work)
    assert not (work.parent / "up.c").exists()


def test_the_same_sources_give_the_same_bytes_in_any_folder(tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "another_longer_name"):
        work = tmp_path / name
        (work / "inc").mkdir(parents=True)
        (work / "inc" / "k.h").write_text("static inline const char *place(void)"
                                          " { return __FILE__; }\n", "utf-8")
        source = '#include <k.h>\n__attribute__((visibility("default"))) ' \
                 "const char *f(void) { return place(); }\n"
        objects = toolchain.compile_units([("a.c", source)], find("host"), work, shared=True,
                                          include_dirs=[work / "inc"])
        toolchain.link_shared(objects, work / "out.so", find("host"))
        digests.add(hashlib.sha256((work / "out.so").read_bytes()).hexdigest())
        assert str(tmp_path).encode() not in (work / "out.so").read_bytes()
    assert len(digests) == 1


def test_the_same_firmware_comes_out_of_any_folder(tmp_path: Path) -> None:
    machine, images = find("cortex-m4f"), set()
    for name in ("one", "another_longer_name"):
        work = tmp_path / name
        work.mkdir()
        source = ("main.c", "volatile double x = 3;\nint main(void) { x /= 7; return 0; }\n")
        objects = toolchain.compile_units([source], machine, work, optimize="-Os")
        toolchain.link_firmware(objects, work / "out.elf", machine)
        images.add((work / "out.elf").read_bytes())
    assert len(images) == 1


def test_sources_outside_of_the_work_folder_are_taken_where_they_lie(
        tmp_path: Path, work: Path) -> None:
    path = tmp_path / "elsewhere" / "a.c"
    path.parent.mkdir()
    path.write_text(FUNCTION.replace("LOCAL", "7"), "utf-8")
    assert ctypes.CDLL(str(shared(work, path))).f(1) == 10


def test_a_compiler_that_does_not_end_is_stopped(
        work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "zig"
    fake.write_text("#!/bin/sh\nsleep 600\n", "utf-8")
    fake.chmod(0o755)
    monkeypatch.setattr(toolchain, "find", lambda: toolchain.Toolchain(fake, "0"))
    monkeypatch.setenv("ONEFOLD_COMPILE_TIMEOUT", "1")
    ended = pytest.raises(ToolchainError, match="did not end within 1 seconds")
    with must_end(), ended as caught:
        toolchain.compile_units([unit("a.c", 1)], find("host"), work)
    assert caught.value.code == "OF413"


@pytest.mark.parametrize("line", [
    "error: unable to create output file: NoSpaceLeft",
    "LLVM ERROR: IO failure on output stream: No space left on device"])
def test_a_full_disk_is_told_from_other_failures(
        work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str) -> None:
    fake = tmp_path / "zig"
    fake.write_text(f"#!/bin/sh\necho '{line}' >&2\nexit 1\n", "utf-8")
    fake.chmod(0o755)
    monkeypatch.setattr(toolchain, "find", lambda: toolchain.Toolchain(fake, "0"))
    with pytest.raises(DiskError, match="ran out of disk space"):
        toolchain.compile_units([unit("a.c", 1)], find("host"), work)


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ToolchainError, match="pip install ziglang") as caught:
        toolchain.find.__wrapped__()
    assert caught.value.code == "OF411"


def test_a_broken_wheel_is_named(monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    fake = work / "zig"
    fake.write_bytes(b"not a program")
    fake.chmod(0o755)
    monkeypatch.setattr(toolchain, "find", lambda: toolchain.Toolchain(fake, "0"))
    with pytest.raises(ToolchainError, match="cannot be started"):
        toolchain.compile_units([unit("a.c", 1)], find("host"), work)


def test_progress_counts_the_units(work: Path) -> None:
    with events.collected() as seen:
        toolchain.compile_units([unit("a.c", 1), unit("b.c", 2)], find("host"), work, jobs=2)
    steps = [e.facts["done"] for e in seen if e.kind == "progress.step"]
    assert steps == [1, 2]


@pytest.mark.parametrize("target", ["arm64+dotprod+i8mm+fp16+bf16", "riscv64+v", "wasm32+simd128",
                                    "x86-64-v2", "x86-64-v4+avx512vnni+avx512bf16"])
def test_every_architecture_compiles(work: Path, target: str) -> None:
    made, = toolchain.compile_units([unit("a.c", 1)], find(target), work)
    assert made.stat().st_size > 100


def test_the_host_of_an_arm64_board_compiles_and_links(work: Path) -> None:
    cpu, features = host.describe(load_isa("aarch64"), frozenset(
        ["asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2", "atomics"]))
    board = replace(find("arm64"), name="host", cpu=cpu, features=features)
    objects = toolchain.compile_units([("a.c", programs.SCALE.replace("PREFIX", "p"))], board, work,
                                      shared=True)
    toolchain.link_shared(objects, work / "p.so", board)
    assert (work / "p.so").read_bytes()[18] == 183  # EM_AARCH64
    assert elf.sizes(work / "p.so").code > 50


def test_wide_vectors_stay_whole(work: Path) -> None:
    source = "typedef float v __attribute__((vector_size(64)));\n" \
             "void f(v *a, const v *b) { *a += *b; }\n"
    machine = find("x86-64-v4")
    out = work / "asm.o"
    toolchain.compile_units([("a.c", source)], machine, work)
    toolchain._zig(["cc", "-g0", "-O3", "-target", machine.triple, *machine.cpu_flags, "-S",
                    "a.c", "-o", out.name], work, work)
    assert "zmm" in out.read_text("utf-8")


CORTEX = ["cortex-m0plus", "cortex-m3", "cortex-m4f", "cortex-m7", "cortex-m33", "cortex-m55"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CORTEX)
def test_firmware_fits_the_memories_of_its_device(work: Path, name: str) -> None:
    machine = find(name)
    source = ("main.c", "static char buffer[1000];\nint main(void) "
                        "{ for (int i = 0; i < 1000; i++) ((volatile char *)buffer)[i] = 1;"
                        " return 0; }\n")
    objects = toolchain.compile_units([source], machine, work, optimize="-Os")
    toolchain.link_firmware(objects, work / "out.elf", machine)
    sizes = elf.sizes(work / "out.elf")
    assert 0 < sizes.code < 4096 and 1000 <= sizes.zeroed < 1100
    flash, ram = machine.memories[0], machine.memories[1]
    for section in elf.sections(work / "out.elf"):
        if section.allocated and section.size:
            home = ram if section.writable else flash
            assert home.base <= section.address < home.base + home.size, section


def test_firmware_too_large_for_its_ram_is_refused(work: Path) -> None:
    machine = find("cortex-m4f")
    source = ("main.c", "char big[5000000];\nint main(void) { return big[4999999]; }\n")
    objects = toolchain.compile_units([source], machine, work)
    with pytest.raises(ToolchainError) as caught:
        toolchain.link_firmware(objects, work / "out.elf", machine)
    assert "ram" in str(caught.value)
    assert not (work / "out.elf").exists()


def test_a_stack_that_does_not_fit_beside_the_buffers_is_refused(work: Path) -> None:
    machine = find("cortex-m4f")
    source = ("main.c", "char big[4190000];\nint main(void) { return big[4189999]; }\n")
    objects = toolchain.compile_units([source], machine, work)
    with pytest.raises(ToolchainError, match="buffers and stack do not fit"):
        toolchain.link_firmware(objects, work / "out.elf", machine, stack_bytes=8192)


def test_the_linker_script_knows_every_memory() -> None:
    script = bare.linker_script(find("cortex-m55"), 2000)
    assert "sram (rwx) : ORIGIN = 0x21000000, LENGTH = 0x400000" in script
    assert "*(.sram .sram.*)" in script and "_stack - 2000" in script


@pytest.mark.parametrize(("make", "target"), [
    (toolchain.link_shared, "cortex-m4f"), (toolchain.link_executable, "cortex-m4f"),
    (toolchain.link_firmware, "wasm32")])
def test_forms_that_a_target_does_not_have(work: Path, make: object, target: str) -> None:
    with pytest.raises(TargetError) as caught:
        make([], work / "out", find(target))  # type: ignore[operator]
    assert caught.value.code == "OF404"


def test_the_version_needs_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")
    monkeypatch.setattr(process, "run", refuse)
    assert toolchain.find.__wrapped__().version.startswith("0.")


def test_a_file_that_is_not_elf(work: Path) -> None:
    for raw in (b"", b"\x7fELF", b"\x7fELF\x02\x01" + b"\xff" * 100, b"text" * 100):
        (work / "x").write_bytes(raw)
        with pytest.raises(ToolchainError, match="cannot be read"):
            elf.sections(work / "x")


def test_outputs_of_a_program_are_cut(work: Path) -> None:
    shell = shutil.which("sh")
    assert shell
    done = process.run([shell, "-c", "yes | head -c 5000000; exit 3"], cwd=work, timeout=30)
    assert len(done.stdout) == process.MAX_OUTPUT and done.status == 3


def test_preparing_is_done_once_and_told(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = find("cortex-m4f")
    toolchain.prepare(machine, work)
    assert toolchain.is_prepared(machine)
    with events.collected() as seen:
        assert toolchain.prepare(machine, work) < 5
    tasks = [e.facts["task"] for e in seen if e.kind == "progress.begin"]
    assert tasks and not [t for t in tasks if "built once" in t]
    monkeypatch.setattr(toolchain, "is_prepared", lambda target: False)
    with events.collected() as seen:
        toolchain.prepare(machine, work)
    tasks = [e.facts["task"] for e in seen if e.kind == "progress.begin"]
    assert "C run-time parts for cortex-m4f, built once" in tasks
