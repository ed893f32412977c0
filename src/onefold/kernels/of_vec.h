// Vectors of floats as wide as the target's registers, and the pragmas of kernels that keep sums in registers.
#pragma once
#include "of_program.h"

#if defined(__AVX512F__)
#define OF_LANES 16
#elif defined(__AVX2__)
#define OF_LANES 8
#else
#define OF_LANES 4
#endif

typedef float of_vf __attribute__((vector_size(OF_LANES * 4), may_alias));
typedef float of_vfu __attribute__((vector_size(OF_LANES * 4), aligned(4), may_alias));  // at any float

// A vector of what lies in memory.
typedef uint32_t of_vu __attribute__((vector_size(OF_LANES * 4), may_alias));
typedef uint16_t of_vs __attribute__((vector_size(OF_LANES * 2), aligned(2), may_alias));
AI of_vf of_vector_f32(const float *x) { return *(const of_vf *)x; }
AI of_vf of_vector_bf16(const of_bf16 *x) {
  return (of_vf)(__builtin_convertvector(*(const of_vs *)x, of_vu) << 16);
}

// The largest tile. Sums live in arrays of this fixed size, of which the unused part vanishes: an array whose size
// constants fold is formally of variable length, and makes the compiler spill.
enum { OF_MAX_B = 8, OF_MAX_T = 16 };

// Loops over a tile are unrolled to the end. The loop that sums is unrolled a little: without it the compiler spills
// tiles that fill all registers, and unrolled to the end it spills every tile. OF_SMALL: bytes of code count.
#define OF_UNROLL _Pragma("clang loop unroll(full)")
#define OF_UNROLL2 _Pragma("clang loop unroll_count(2)")
#ifdef OF_SMALL
#define OF_UNROLL4 OF_UNROLL2
#define OF_UNROLL_FAST OF_ROLLED
#else
#define OF_UNROLL4 _Pragma("clang loop unroll_count(4)")
#define OF_UNROLL_FAST OF_UNROLL
#endif
#define OF_ROLLED _Pragma("clang loop unroll(disable)")

// fmax, fmin and rounding to even of every lane. GCC has no such builtins; its rounding here holds below 2^22.
#ifdef __clang__
AI of_vf of_vmax(of_vf a, of_vf b) { return __builtin_elementwise_max(a, b); }
AI of_vf of_vmin(of_vf a, of_vf b) { return __builtin_elementwise_min(a, b); }
AI of_vf of_vround(of_vf a) { return __builtin_elementwise_roundeven(a); }
#else
AI of_vf of_vmax(of_vf a, of_vf b) {
  for (int i = 0; i < OF_LANES; i++) a[i] = a[i] > b[i] || b[i] != b[i] ? a[i] : b[i];
  return a;
}
AI of_vf of_vmin(of_vf a, of_vf b) {
  for (int i = 0; i < OF_LANES; i++) a[i] = a[i] < b[i] || b[i] != b[i] ? a[i] : b[i];
  return a;
}
AI of_vf of_vround(of_vf a) { return a + 0x1.8p23f - 0x1.8p23f; }
#endif
