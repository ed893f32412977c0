// What the running CPU and its system offer, for programs that have kernels for several of them. Compiled for the
// least CPU of the architecture.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#if defined(__x86_64__)

enum { OF_EAX, OF_EBX, OF_ECX, OF_EDX };

static inline uint32_t of_cpuid(uint32_t leaf, uint32_t sub, int reg) {
  uint32_t r[4];
  __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
  return r[reg];
}

static inline bool of_cpu_has(uint32_t leaf, uint32_t sub, int reg, int bit) {
  if (of_cpuid(leaf & 0x80000000u, 0, OF_EAX) < leaf) return false;
  if (sub && of_cpuid(leaf, 0, OF_EAX) < sub) return false;
  return of_cpuid(leaf, sub, reg) >> bit & 1;
}

// Whether the system keeps these parts of the state of a thread (Intel's manual, volume 1, section 13.1): 0x6 for
// vectors of 32 bytes, 0xe6 for 64.
static inline bool of_cpu_keeps(uint32_t parts) {
  if (!of_cpu_has(1, 0, OF_ECX, 27)) return false;
  uint32_t low, high;
  __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));  // xgetbv
  return (low & parts) == parts;
}

// Whether this process may use the matrix unit: Linux grants it once it is asked.
static inline bool of_cpu_tiles(void) {
  if (!of_cpu_keeps(0x60000)) return false;
  long done;
  __asm__ volatile("syscall"
                   : "=a"(done)
                   : "a"(158L), "D"(0x1023L), "S"(18L)  // arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
                   : "rcx", "r11", "memory");
  return done == 0;
}

// The levels of the psABI.
static inline bool of_cpu_x86_64_v2(void) {
  const uint32_t need = 1u << 0 | 1u << 9 | 1u << 13 | 1u << 19 | 1u << 20 | 1u << 23;
  return (of_cpuid(1, 0, OF_ECX) & need) == need && of_cpu_has(0x80000001u, 0, OF_ECX, 0);
}
static inline bool of_cpu_x86_64_v3(void) {
  const uint32_t need = 1u << 12 | 1u << 22 | 1u << 26 | 1u << 28 | 1u << 29;
  return of_cpu_x86_64_v2() && (of_cpuid(1, 0, OF_ECX) & need) == need && of_cpu_has(0x80000001u, 0, OF_ECX, 5) &&
         of_cpu_has(7, 0, OF_EBX, 3) && of_cpu_has(7, 0, OF_EBX, 5) && of_cpu_has(7, 0, OF_EBX, 8) &&
         of_cpu_keeps(0x6);
}
static inline bool of_cpu_x86_64_v4(void) {
  const uint32_t need = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;
  return of_cpu_x86_64_v3() && (of_cpuid(7, 0, OF_EBX) & need) == need && of_cpu_keeps(0xe6);
}

#elif defined(__aarch64__)

unsigned long getauxval(unsigned long);
enum { OF_HWCAP = 16, OF_HWCAP2 = 26 };

static inline bool of_cpu_has(int word, int bit) { return getauxval((unsigned long)word) >> bit & 1; }

#endif

char *getenv(const char *);

static inline bool of_same(const char *a, const char *b) {
  while (*a && *a == *b) a++, b++;
  return *a == *b;
}
