"""Programs for other machines, run in QEMU."""

from __future__ import annotations

from pathlib import Path

import pytest

from onefold.errors import EmulatorError, TargetError
from onefold.run import bare, emulator, toolchain
from onefold.target import find
from tests.work import must_end

pytestmark = [pytest.mark.toolchain, pytest.mark.emulator]

LINUX = """\
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
  FILE *in = fopen("in.bin", "rb"), *out = fopen("out.bin", "wb");
  int byte, sum = 0;
  if (!in || !out) return 2;
  while ((byte = fgetc(in)) != EOF) { fputc(byte * 2, out); sum += byte; }
  fclose(out);
  for (int i = 1; i < argc; i++) printf("[%s]", argv[i]);
  if (argc > 1 && argv[1][0] == 'l') for (;;) {}
  if (argc > 1 && argv[1][0] == 'a') abort();
  return sum;
}
"""
BARE = """\
#include "onefold_semihost.h"
static uint8_t buffer[64];
int main(void) {
  char line[64];
  if (onefold_arguments(line, sizeof line)) return 1;
  onefold_print(line);
  int file = onefold_open("in.bin", 0);
  if (file < 0) return 2;
  if (onefold_length(file) != 4) return 3;
  size_t n = onefold_read(file, buffer, sizeof buffer);
  onefold_close(file);
  int sum = 0;
  for (size_t i = 0; i < n; i++) { sum += buffer[i]; buffer[i] *= 2; }
  file = onefold_open("out.bin", 1);
  if (onefold_write(file, buffer, n) != n) return 4;
  onefold_close(file);
  volatile float third = (float)sum / 3.0f;
  volatile char deep[600];
  for (int i = 0; i < 600; i++) deep[i] = (char)i;
  size_t used = onefold_stack_used();
  if (used < 600 || used > 2000) return 5;
  for (const char *p = line; *p; p++) {
    if (*p == 'L') for (;;) {}
    if (*p == 'F') __asm__ volatile("udf #1");
  }
  return (int)(third * 3.0f + 0.5f);
}
"""


def needs(target: str) -> None:
    machine = find(target)
    if not emulator.available(machine):
        assert machine.emulator
        pytest.skip(f"needs the package {machine.emulator.package}")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {}


def image(images: dict[str, Path], factory: pytest.TempPathFactory, target: str) -> Path:
    """The test program for a target, built once; beside it the input file."""
    needs(target)
    if target not in images:
        folder, machine = factory.mktemp(target.replace("+", "_")), find(target)
        (folder / "in.bin").write_bytes(bytes([1, 2, 3, 4]))
        images[target] = folder / "program"
        if machine.os == "linux":
            objects = toolchain.compile_units([("main.c", LINUX)], machine, folder)
            toolchain.link_executable(objects, images[target], machine)
        else:
            objects = toolchain.compile_units([("main.c", BARE)], machine, folder,
                                              optimize="-Os", include_dirs=[bare.INCLUDE])
            toolchain.link_firmware(objects, images[target], machine)
    return images[target]


ALL = ["arm64", "cortex-m0", "cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m4f", "cortex-m7",
       "cortex-m33", "cortex-m55"]


@pytest.mark.parametrize("target", ALL)
def test_files_arguments_and_exit_status(
        images: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, target: str) -> None:
    program = image(images, tmp_path_factory, target)
    done = emulator.run(program, find(target), ["one", "two,three"], check=False)
    assert done.status == 10, done.lines()
    assert (program.parent / "out.bin").read_bytes() == bytes([2, 4, 6, 8])
    told = " ".join(done.lines())
    assert "[one][two,three]" in told or "one two,three" in told


@pytest.mark.parametrize("target", ["arm64", "cortex-m4f"])
def test_an_exit_status_is_an_error_where_it_is_checked(
        images: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, target: str) -> None:
    program = image(images, tmp_path_factory, target)
    with pytest.raises(EmulatorError, match="its exit status is 10") as caught:
        emulator.run(program, find(target))
    assert caught.value.code == "OF522" and caught.value.where == "program"


@pytest.mark.parametrize(("target", "word"), [("arm64", "loop"), ("cortex-m4f", "L")])
def test_a_program_that_does_not_end_is_stopped(
        images: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, target: str,
        word: str) -> None:
    program = image(images, tmp_path_factory, target)
    ended = pytest.raises(EmulatorError, match="did not end within 1 seconds")
    with must_end(), ended as caught:
        emulator.run(program, find(target), [word], timeout=1)
    assert caught.value.code == "OF523"


@pytest.mark.parametrize(("target", "word", "why"), [
    ("arm64", "abort", "ended by signal 6"), ("cortex-m4f", "F", "the CPU faulted"),
    ("cortex-m0", "F", "the CPU faulted")])
def test_a_crash_is_told(
        images: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, target: str, word: str,
        why: str) -> None:
    program = image(images, tmp_path_factory, target)
    with pytest.raises(EmulatorError, match=why):
        emulator.run(program, find(target), [word], check=False)


def test_a_missing_emulator_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulator, "_which", lambda name: None)
    with pytest.raises(EmulatorError) as caught:
        emulator.run(Path("program"), find("cortex-m4f"))
    assert caught.value.code == "OF521"
    assert "'qemu-system-arm' is needed to run programs for 'cortex-m4f'" in str(caught.value)
    assert "apt-get install qemu-system-arm" in str(caught.value)


def test_a_target_without_emulator() -> None:
    with pytest.raises(TargetError, match="no emulator is described"):
        emulator.run(Path("program"), find("wasm32"))


def test_the_host_runs_its_own_programs(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("#!/bin/sh\necho \"$1\"\nexit 4\n", "utf-8")
    (tmp_path / "run.sh").chmod(0o755)
    done = emulator.run(tmp_path / "run.sh", find("host"), ["word"], check=False)
    assert done.stdout == b"word\n" and done.status == 4
    (tmp_path / "run.sh").chmod(0o644)
    with pytest.raises(EmulatorError, match="cannot be started"):
        emulator.run(tmp_path / "run.sh", find("host"))
