// A clock that costs little to read; its unit is the machine's own.
#pragma once
#include <stdint.h>

static inline uint64_t of_tick(void) {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t t;
  __asm__ volatile("isb; mrs %0, cntvct_el0" : "=r"(t));
  return t;
#elif defined(__riscv)
  uint64_t t;
  __asm__ volatile("rdtime %0" : "=r"(t));
  return t;
#else
  return 0;
#endif
}
