// Integer arithmetic that never traps: x / 0 = 0, x % 0 = 0, MIN / -1 = MIN; shifts by the width or more give 0 (an
// arithmetic right shift of a negative value gives -1). Sums and products wrap (the product is built with -fwrapv).
#pragma once
#include "of_base.h"

// S: suffix, T: type, U: unsigned type of the same width, MIN: smallest value
#define OF_INT_COMMON(S, T, U)                                                                         \
  OF_INLINE T of_min_##S(T a, T b) { return a < b ? a : b; }                                           \
  OF_INLINE T of_max_##S(T a, T b) { return a > b ? a : b; }                                           \
  OF_INLINE T of_clamp_##S(T x, T lo, T hi) { return x < lo ? lo : x > hi ? hi : x; }                  \
  OF_INLINE T of_shl_##S(T x, U n) { return n < sizeof(T) * 8 ? (T)(U)((U)x << n) : (T)0; }            \
  /* square and multiply; wraps */                                                                     \
  OF_INLINE U of_power_##S(U base, U e) {                                                              \
    U r = 1;                                                                                           \
    for (; e; e = (U)(e >> 1)) {                                                                       \
      if (e & 1) r = (U)((uint64_t)r * base);                                                          \
      base = (U)((uint64_t)base * base);                                                               \
    }                                                                                                  \
    return r;                                                                                          \
  }

#define OF_INT_SIGNED(S, T, U, MIN)                                                                    \
  OF_INT_COMMON(S, T, U)                                                                               \
  OF_INLINE T of_abs_##S(T x) { return x < 0 ? (T)(U)(0 - (U)x) : x; }                                 \
  OF_INLINE T of_sign_##S(T x) { return (T)((x > 0) - (x < 0)); }                                      \
  OF_INLINE T of_shr_##S(T x, U n) { return (T)(x >> (n < sizeof(T) * 8 ? n : sizeof(T) * 8 - 1)); }   \
  /* toward zero */                                                                                    \
  OF_INLINE T of_div_##S(T a, T b) {                                                                   \
    const bool safe = (b != 0) & !((a == MIN) & (b == -1));                                            \
    const T q = (T)(a / (safe ? b : (T)1));                                                            \
    return b == 0 ? (T)0 : q;                                                                          \
  }                                                                                                    \
  /* sign of the dividend, as C's % */                                                                 \
  OF_INLINE T of_fmod_##S(T a, T b) {                                                                  \
    const bool safe = (b != 0) & (b != -1);                                                            \
    const T r = (T)(a % (safe ? b : (T)1));                                                            \
    return safe ? r : (T)0;                                                                            \
  }                                                                                                    \
  /* sign of the divisor, as Python's % */                                                             \
  OF_INLINE T of_mod_##S(T a, T b) {                                                                   \
    const T r = of_fmod_##S(a, b);                                                                     \
    return ((r != 0) & ((r < 0) != (b < 0))) ? (T)(r + b) : r;                                         \
  }                                                                                                    \
  /* toward minus infinity, as Python's // */                                                          \
  OF_INLINE T of_floor_div_##S(T a, T b) {                                                             \
    const T q = of_div_##S(a, b), r = of_fmod_##S(a, b);                                               \
    return ((r != 0) & ((r < 0) != (b < 0))) ? (T)(q - 1) : q;                                         \
  }                                                                                                    \
  /* a negative exponent gives the truncated reciprocal: 1 for 1, +-1 for -1, else 0 */                \
  OF_INLINE T of_pow_##S(T x, T e) {                                                                   \
    const T inverse = x == 1 ? (T)1 : x == -1 ? (T)((e & 1) ? -1 : 1) : (T)0;                          \
    return e < 0 ? inverse : (T)of_power_##S((U)x, (U)e);                                              \
  }

#define OF_INT_UNSIGNED(S, T)                                                                          \
  OF_INT_COMMON(S, T, T)                                                                               \
  OF_INLINE T of_abs_##S(T x) { return x; }                                                            \
  OF_INLINE T of_sign_##S(T x) { return (T)(x > 0); }                                                  \
  OF_INLINE T of_shr_##S(T x, T n) { return n < sizeof(T) * 8 ? (T)(x >> n) : (T)0; }                  \
  OF_INLINE T of_div_##S(T a, T b) { return b ? (T)(a / (b ? b : (T)1)) : (T)0; }                      \
  OF_INLINE T of_fmod_##S(T a, T b) { return b ? (T)(a % (b ? b : (T)1)) : (T)0; }                     \
  OF_INLINE T of_mod_##S(T a, T b) { return of_fmod_##S(a, b); }                                       \
  OF_INLINE T of_floor_div_##S(T a, T b) { return of_div_##S(a, b); }                                  \
  OF_INLINE T of_pow_##S(T x, T e) { return of_power_##S(x, e); }

OF_INT_SIGNED(i8, int8_t, uint8_t, INT8_MIN)
OF_INT_SIGNED(i16, int16_t, uint16_t, INT16_MIN)
OF_INT_SIGNED(i32, int32_t, uint32_t, INT32_MIN)
OF_INT_SIGNED(i64, int64_t, uint64_t, INT64_MIN)
OF_INT_UNSIGNED(u8, uint8_t)
OF_INT_UNSIGNED(u16, uint16_t)
OF_INT_UNSIGNED(u32, uint32_t)
OF_INT_UNSIGNED(u64, uint64_t)
#undef OF_INT_COMMON
#undef OF_INT_SIGNED
#undef OF_INT_UNSIGNED
