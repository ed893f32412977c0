// What every numeric header stands on: the inlining attribute, bit casts and what the target can do in one instruction.
//
// Nothing here or in the headers built on it refers to libc or libm: every function is inline C over compiler builtins
// that become instructions. Where a target lacks the instruction the builtin would become a library call (floorf, sqrt,
// __extendhfsf2), so each such builtin stands behind one of the OF_HAS_* facts below, with plain C as the other way.
// OF_PORTABLE chooses plain C everywhere, so that a host can test it.
#pragma once
#include <float.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OF_INLINE static inline __attribute__((always_inline, unused))
// Slow paths and long functions that gain nothing from inlining into a loop.
#define OF_COLD static __attribute__((noinline, unused))

#if defined(OF_PORTABLE)
#define OF_HAS_ROUND_F32 0
#define OF_HAS_ROUND_F64 0
#elif defined(__aarch64__) || defined(__wasm__) || defined(__SSE4_1__)
#define OF_HAS_ROUND_F32 1
#define OF_HAS_ROUND_F64 1
#elif defined(__arm__) && defined(__ARM_FEATURE_DIRECTED_ROUNDING) && defined(__ARM_FP)
#define OF_HAS_ROUND_F32 ((__ARM_FP & 4) != 0)
#define OF_HAS_ROUND_F64 ((__ARM_FP & 8) != 0)
#else
#define OF_HAS_ROUND_F32 0
#define OF_HAS_ROUND_F64 0
#endif

#if defined(OF_PORTABLE)
#define OF_HAS_SQRT_F32 0
#define OF_HAS_SQRT_F64 0
#elif defined(__aarch64__) || defined(__wasm__) || defined(__SSE2__)
#define OF_HAS_SQRT_F32 1
#define OF_HAS_SQRT_F64 1
#elif defined(__arm__) && defined(__ARM_FP)
#define OF_HAS_SQRT_F32 ((__ARM_FP & 4) != 0)
#define OF_HAS_SQRT_F64 ((__ARM_FP & 8) != 0)
#elif defined(__riscv_flen)
#define OF_HAS_SQRT_F32 1
#define OF_HAS_SQRT_F64 (__riscv_flen >= 64)
#else
#define OF_HAS_SQRT_F32 0
#define OF_HAS_SQRT_F64 0
#endif

// A fused multiply-add of doubles, needed for exact products: without it they are split by hand.
#if defined(__FMA__) || defined(__aarch64__) || (defined(__riscv_flen) && __riscv_flen >= 64)
#define OF_HAS_FMA_F64 1
#elif defined(__arm__) && defined(__ARM_FEATURE_FMA) && defined(__ARM_FP)
#define OF_HAS_FMA_F64 ((__ARM_FP & 8) != 0)
#else
#define OF_HAS_FMA_F64 0
#endif

#define OF_INF_F32 __builtin_inff()
#define OF_INF_F64 __builtin_inf()
#define OF_NAN_F32 __builtin_nanf("")
#define OF_NAN_F64 __builtin_nan("")

OF_INLINE uint32_t of_bits_f32(float x) {
  return (union { float f; uint32_t u; }){.f = x}.u;
}
OF_INLINE float of_from_bits_f32(uint32_t u) {
  return (union { uint32_t u; float f; }){.u = u}.f;
}
OF_INLINE uint64_t of_bits_f64(double x) {
  return (union { double f; uint64_t u; }){.f = x}.u;
}
OF_INLINE double of_from_bits_f64(uint64_t u) {
  return (union { uint64_t u; double f; }){.u = u}.f;
}
