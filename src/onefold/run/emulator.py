"""Runs a program made for another machine: Linux executables in QEMU's user mode, bare-metal
images in its system mode with semihosting (files of the work folder, arguments, exit status)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from onefold import events, knobs
from onefold.errors import EmulatorError, TargetError
from onefold.run import process
from onefold.target import Target, runs_here

FAULT_STATUS = 99
"""Exit status by which a bare-metal image tells that its CPU faulted (see startup.c)."""


def run(program: Path, target: Target, arguments: Sequence[str] = (), *, cwd: Path | None = None,
        timeout: float | None = None, check: bool = True) -> process.Finished:
    """Runs `program` in folder `cwd` (default: its own) and returns what it left.

    The program opens files by names relative to that folder.  A Linux program whose machine is
    this one runs directly.  `timeout` is in seconds (default: ONEFOLD_EMULATOR_TIMEOUT).
    Raises `EmulatorError` when the emulator is missing, the time is up, the CPU faults or,
    with `check`, the exit status is not 0; `TargetError` when the target has no emulator.
    """
    folder = (cwd or program.parent).resolve()
    limit = timeout if timeout is not None else float(knobs.EMULATOR_TIMEOUT.get())
    command = _command(program.resolve(), target, arguments)
    try:
        done = process.run(command, cwd=folder, timeout=limit)
    except OSError as error:
        raise EmulatorError(f"the program for '{target.name}' cannot be started",
                            where=program.name, why=str(error)) from error
    events.emit("emulator.run", target=target.name, seconds=done.seconds, status=done.status)
    _check(done, program, target, limit, check)
    return done


def available(target: Target) -> bool:
    """Whether programs for the target can be run on this machine."""
    return runs_here(target) or (
        target.emulator is not None and _which(target.emulator.command[0]) is not None)


def _check(done: process.Finished, program: Path, target: Target, limit: float,
           check: bool) -> None:
    if done.timed_out:
        raise EmulatorError(f"the program for '{target.name}' did not end within {limit:g} seconds",
                            where=program.name, detail=done.lines(), kind=EmulatorError.TIMEOUT)
    fault = target.os == "none" and done.status == FAULT_STATUS
    if done.status < 0 or fault or (check and done.status):
        why = (f"it was ended by signal {-done.status}" if done.status < 0 else
               "the CPU faulted" if fault else f"its exit status is {done.status}")
        raise EmulatorError(f"the program for '{target.name}' failed", where=program.name, why=why,
                            detail=done.lines())


def _command(program: Path, target: Target, arguments: Sequence[str]) -> list[str]:
    if runs_here(target):
        return [str(program), *arguments]
    emulator = target.emulator
    if emulator is None:
        raise TargetError(f"programs for '{target.name}' cannot be run on this machine",
                          why="no emulator is described for it", kind=TargetError.CANNOT)
    tool = _which(emulator.command[0])
    if tool is None:
        raise EmulatorError(f"'{emulator.command[0]}' is needed to run programs for "
                            f"'{target.name}' and is not installed",
                            remedy=f"apt-get install {emulator.package}",
                            kind=EmulatorError.MISSING)
    # QEMU splits at commas; a doubled one stands for itself.
    words = "".join(",arg=" + word.replace(",", ",,") for word in (program.name, *arguments))
    command = [tool]
    for word in emulator.command[1:]:
        if word == "{arguments}":
            command += arguments
        else:
            command.append(word.replace("{program}", str(program))
                           .replace("{semihosting}", words))
    return command


@cache
def _which(name: str) -> str | None:
    """The emulator's path; Debian's static build has a name of its own."""
    return shutil.which(name) or shutil.which(f"{name}-static")
