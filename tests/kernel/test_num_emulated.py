"""The numeric headers on other machines, in QEMU.

A core without floating point computes with compiler-rt's IEEE 754 arithmetic, so it must give the
bits of the x86-64 build without FMA; a core with FMA must stay within a few ulp of it.
"""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kernel.numeric import (
    BUILDS,
    FLAGS,
    KERNELS,
    SIGNATURES,
    SPECIAL,
    UNARY,
    build,
    call,
    every_pattern,
    source,
    zig,
)

pytestmark = [pytest.mark.toolchain, pytest.mark.emulator]
Array = np.ndarray[Any, Any]

NAMES = [f"{f}_{t}" for t in ("f32", "f64") for f in UNARY]
COUNT = 300
PROGRAM = """
%s
%s
static long write_all(long n, const void *p) {
#if defined(__aarch64__)
  register long x8 __asm__("x8") = 64, x0 __asm__("x0") = 1, x2 __asm__("x2") = n;
  register const void *x1 __asm__("x1") = p;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  return x0;
#else
  register long r7 __asm__("r7") = 4, r0 __asm__("r0") = 1, r2 __asm__("r2") = n;
  register const void *r1 __asm__("r1") = p;
  __asm__ volatile("svc 0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2) : "memory");
  return r0;
#endif
}
static void leave(void) {
#if defined(__aarch64__)
  __asm__ volatile("mov x8, #93\\n mov x0, #0\\n svc 0");
#else
  __asm__ volatile("movs r7, #1\\n movs r0, #0\\n svc 0" ::: "r7", "r0");
#endif
}
static float y_f32[%d];
static double y_f64[%d];
void _start(void) {
%s
  leave();
}
"""
MACHINES = {
    "m0": ("qemu-arm", ["-target", "thumb-freestanding-eabi", "-mcpu=cortex_m0"], 0),
    "m4f": ("qemu-arm", ["-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp"], 6),
    "aarch64": ("qemu-aarch64", ["-target", "aarch64-freestanding"], 6),
}


def inputs() -> dict[str, Array]:
    rng = np.random.default_rng(30)
    near = np.concatenate([rng.uniform(-20, 20, COUNT), rng.uniform(-1, 1, COUNT), SPECIAL])
    return {
        t: np.concatenate([near.astype(kind), every_pattern(t, COUNT, rng)])
        for t, kind in (("f32", np.float32), ("f64", np.float64))
    }


def program(x: dict[str, Array]) -> str:
    """C text that writes the results of every function over ``x`` to the standard output."""
    arrays = ""
    for t, c, u in (("f32", "float", "uint32_t"), ("f64", "double", "uint64_t")):
        bits = ", ".join(f"{b:#x}" for b in x[t].view(np.uint32 if t == "f32" else np.uint64))
        arrays += f"static const {u} b_{t}[] = {{{bits}}};\n"
        arrays += f"#define X_{t} ((const {c} *)(const void *)b_{t})\n"
    n = len(x["f32"])
    lines = []
    for name in NAMES:
        t = name[-3:]
        lines.append(f"  array_of_{name}({n}, y_{t}, X_{t});\n  write_all(sizeof y_{t}, y_{t});")
    names = [f"of_{n}" for n in NAMES]
    assert set(names) <= set(SIGNATURES)
    return PROGRAM % (source(names), arrays, n, n, "\n".join(lines))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the reference is x86-64 without FMA")
@pytest.mark.parametrize("machine", MACHINES)
def test_same_results(machine: str, tmp_path: Path) -> None:
    emulator, flags, ulps = MACHINES[machine]
    if not (path := shutil.which(emulator) or shutil.which(emulator + "-static")):
        pytest.skip(f"{emulator} is not installed")
    x = inputs()
    text, made = tmp_path / "num.c", tmp_path / "num.elf"
    text.write_text(program(x))
    zig(
        *FLAGS,
        "-fno-strict-aliasing",
        "-fomit-frame-pointer",
        *flags,
        "-I",
        KERNELS,
        text,
        "-o",
        made,
        "-Wl,-e,_start",
    )
    done = subprocess.run([path, str(made)], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    host: ctypes.CDLL = build(tmp_path, "host", BUILDS["baseline"])
    at = 0
    for name in NAMES:
        t = name[-3:]
        kind = np.float32 if t == "f32" else np.float64
        got = np.frombuffer(done.stdout, kind, len(x[t]), at)
        at += got.nbytes
        want = call(host, name, x[t])
        if ulps == 0:
            np.testing.assert_array_equal(got, want, err_msg=name)
        else:
            eps, tiny = np.finfo(kind).eps, np.finfo(kind).smallest_subnormal
            limit = 1e-6 if "gelu" in name else 3e-14 if "lgamma" in name else tiny * 64
            np.testing.assert_allclose(got, want, rtol=eps * ulps, atol=limit, err_msg=name)
    assert at == len(done.stdout)
