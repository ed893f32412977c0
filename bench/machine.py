"""What this machine could do: the rates of its multiply-add instructions and its caches.

Follows the contract of an engine's process (see child.py), so that it takes part in the rounds.
"""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SOURCE = r"""
#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <arm_neon.h>
#endif
#define API __attribute__((visibility("default")))
#define CHAINS 12
#define LOOP(TYPE, START, NEXT)                                                     \
  TYPE a[CHAINS];                                                                   \
  for (int i = 0; i < CHAINS; i++) a[i] = START;                                    \
  for (long n = 0; n < turns; n++) {                                                \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < CHAINS; i++) a[i] = NEXT; \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < CHAINS; i++)             \
        __asm__ volatile("" : REGISTER(a[i]));                                      \
  }                                                                                 \
  for (int i = 1; i < CHAINS; i++) a[0] += a[i];                                    \
  __asm__ volatile("" : REGISTER(a[0]));

#if defined(__AVX512F__)
#define REGISTER "+v"
#define BYTES 64
#elif defined(__x86_64__)
#define REGISTER "+x"
#define BYTES 32
#else
#define REGISTER "+w"
#define BYTES 16
#endif
typedef float vf __attribute__((vector_size(BYTES)));
typedef int vi __attribute__((vector_size(BYTES)));

/* Each returns operations of one turn, two per multiply-add; 0 where there is no instruction. */

API long rate_f32(long turns) {
  vf b = (vf){} + 0.999f, c = (vf){} + 0.001f;
  LOOP(vf, (vf){} + 1.0f, a[i] * b + c)
  return 2 * (BYTES / 4) * CHAINS;
}

API long rate_int8(long turns) {
  vi b = (vi){} + 0x01020304, c = (vi){} + 0x04030201;
#if defined(__AVX512VNNI__)
  LOOP(vi, (vi){}, (vi)_mm512_dpbusd_epi32((__m512i)a[i], (__m512i)b, (__m512i)c))
  return 2 * BYTES * CHAINS;
#elif defined(__AVXVNNI__)
  LOOP(vi, (vi){}, (vi)_mm256_dpbusd_avx_epi32((__m256i)a[i], (__m256i)b, (__m256i)c))
  return 2 * BYTES * CHAINS;
#elif defined(__AVX2__)
  __m256i one = _mm256_set1_epi16(1);
  LOOP(vi, b, (vi)_mm256_add_epi32((__m256i)a[i], _mm256_madd_epi16(one,
       _mm256_maddubs_epi16((__m256i)a[i], (__m256i)c))))
  return 2 * BYTES * CHAINS;
#elif defined(__ARM_FEATURE_MATMUL_INT8)
  LOOP(vi, (vi){}, (vi)vmmlaq_s32((int32x4_t)a[i], (int8x16_t)b, (int8x16_t)c))
  return 4 * BYTES * CHAINS;
#elif defined(__ARM_FEATURE_DOTPROD)
  LOOP(vi, (vi){}, (vi)vdotq_s32((int32x4_t)a[i], (int8x16_t)b, (int8x16_t)c))
  return 2 * BYTES * CHAINS;
#else
  return 0;
#endif
}

API long rate_bf16(long turns) {
#if defined(__AVX512BF16__)
  vf b = (vf){} + 0.5f;
  LOOP(vf, (vf){}, (vf)_mm512_dpbf16_ps((__m512)a[i], (__m512bh)b, (__m512bh)b))
  return 2 * (BYTES / 2) * CHAINS;
#elif defined(__ARM_FEATURE_BF16)
  vf b = (vf){} + 0.5f;
  LOOP(vf, (vf){}, (vf)vbfmmlaq_f32((float32x4_t)a[i], (bfloat16x8_t)b, (bfloat16x8_t)b))
  return 4 * (BYTES / 2) * CHAINS;
#else
  return 0;
#endif
}

#if defined(__AMX_TILE__)
static void tiles(void) {
  unsigned char shape[64] __attribute__((aligned(64))) = {1};
  for (int i = 0; i < 8; i++) {
    shape[16 + 2 * i] = 64;
    shape[48 + i] = 16;
  }
  _tile_loadconfig(shape);
  _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
  _tile_zero(4); _tile_zero(5); _tile_zero(6); _tile_zero(7);
}
#endif

API long rate_amx_int8(long turns) {
#if defined(__AMX_INT8__)
  tiles();
  for (long n = 0; n < turns; n++) {
    _tile_dpbusd(0, 4, 6); _tile_dpbusd(1, 4, 7); _tile_dpbusd(2, 5, 6); _tile_dpbusd(3, 5, 7);
  }
  _tile_release();
  return 4 * 2 * 16 * 16 * 64;
#else
  return 0;
#endif
}

API long rate_amx_bf16(long turns) {
#if defined(__AMX_BF16__)
  tiles();
  for (long n = 0; n < turns; n++) {
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return 4 * 2 * 16 * 16 * 32;
#else
  return 0;
#endif
}

/* Bytes of one turn: reads a buffer whose size is a multiple of 512 from end to end. */
API long rate_read(long turns, const char *from, long bytes) {
  for (long n = 0; n < turns; n++) {
    vi a[8] = {};
    for (long k = 0; k < bytes; k += 8 * BYTES) {
      _Pragma("clang loop unroll(full)") for (int i = 0; i < 8; i++)
        a[i] ^= *(const vi *)(from + k + i * BYTES);
    }
    for (int i = 0; i < 8; i++) __asm__ volatile("" : REGISTER(a[i]));
  }
  return bytes;
}
"""

AMX = ("amx_int8", "amx_bf16")
SAMPLES = 8
KINDS = ("f32", "bf16", "int8", *AMX)
ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA, ARCH_PRCTL = 0x1023, 18, 158


class Machine:
    """Measures rates on the core it runs on. weights: bytes of the buffer whose reading is
    measured."""

    def __init__(self, weights: int) -> None:
        from onefold.run import toolchain
        from onefold.target import find

        host = find("host")
        self.folder = tempfile.TemporaryDirectory(prefix="onefold-machine-")
        work = Path(self.folder.name)
        objects = toolchain.compile_units([("machine.c", SOURCE)], host, work, shared=True)
        toolchain.link_shared(objects, work / "machine.so", host)
        self.library = ctypes.CDLL(str(work / "machine.so"))
        size = max(weights, 4096) // 512 * 512
        raw = np.ones(size + 64, np.uint8)
        self.buffer = raw[-raw.ctypes.data % 64 :][:size]
        kinds = KINDS if _may_use_tiles() else [k for k in KINDS if k not in AMX]
        self.loops = {k: loop for k in kinds if (loop := self._loop(k)) is not None}
        self.loops["read"] = self._read

    def _loop(self, kind: str) -> Callable[[int], int] | None:
        call = getattr(self.library, f"rate_{kind}")
        call.argtypes, call.restype = [ctypes.c_long], ctypes.c_long
        return call if call(1) else None

    def _read(self, turns: int) -> int:
        call = self.library.rate_read
        call.argtypes = [ctypes.c_long, ctypes.c_void_p, ctypes.c_long]
        call.restype = ctypes.c_long
        return int(call(turns, self.buffer.ctypes.data, self.buffer.size))

    def rates(self, seconds: float) -> dict[str, float]:
        """Operations or bytes per second of each kind, the time divided among them."""
        return {k: _rate(loop, seconds / len(self.loops)) for k, loop in self.loops.items()}


def _rate(loop: Callable[[int], int], seconds: float) -> float:
    """The best of several samples: what else the machine does only makes them worse."""
    turns, best = 1, 0.0
    end = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        work = loop(turns) * turns
        now = time.perf_counter()
        if now - start < seconds / SAMPLES:
            turns = max(2 * turns, int(turns * seconds / SAMPLES / max(now - start, 1e-7)))
            continue
        best = max(best, work / (now - start))
        if now >= end:
            return best


def _may_use_tiles() -> bool:
    """Asks the kernel for the tile registers of AMX."""
    syscall = ctypes.CDLL(None).syscall
    return bool(syscall(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0)
