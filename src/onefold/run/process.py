"""Runs one outside program with a time limit, and leaves nothing of it behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MAX_OUTPUT = 1 << 20
"""Bytes kept of each output stream; the rest is dropped."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program left: exit status (negative: the signal), outputs, seconds."""

    status: int
    stdout: bytes
    stderr: bytes
    seconds: float
    timed_out: bool = False

    def lines(self) -> list[str]:
        """stderr, then stdout, as text without empty lines."""
        text = (self.stderr + b"\n" + self.stdout).decode("utf-8", "replace")
        return [line.rstrip() for line in text.splitlines() if line.strip()]


def run(command: Sequence[str], *, cwd: Path, timeout: float,
        env: Mapping[str, str] | None = None) -> Finished:
    """Runs `command` in folder `cwd` for at most `timeout` seconds.

    Outputs go to unnamed files, so a program that writes without end cannot fill memory.  The
    program gets a process group of its own, which is ended on a timeout or an interrupt.
    Raises `FileNotFoundError` or `PermissionError` when the program cannot be started.
    """
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out,
                                   stderr=err, env=None if env is None else dict(env),
                                   start_new_session=True)
        try:
            timed_out = not _ended(process, timeout)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return Finished(process.returncode, _head(out), _head(err), time.perf_counter() - begin,
                        timed_out)


def _ended(process: subprocess.Popen[bytes], timeout: float) -> bool:
    """Waits for the end; `Popen.wait` with a limit sleeps up to 50 ms too long."""
    try:
        handle = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # not Linux, or a kernel before 5.3
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True
    try:
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        if not poller.poll(timeout * 1000):
            return False
    finally:
        os.close(handle)
    process.wait()
    return True


def _head(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(MAX_OUTPUT)
