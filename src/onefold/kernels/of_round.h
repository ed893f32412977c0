// Rounding, comparison, sign and remainder of floats; all exact.
//
// Without a rounding instruction, |x| + 2^23 (2^52) - 2^23 rounds to even in two additions that vectorise everywhere
// and need no conversion to an integer; floor, ceil and trunc correct it by one. The compiler keeps the two additions
// because the product never builds with -ffast-math.
#pragma once
#include "of_base.h"

// AArch64 has one instruction for the first two, x86 for the others.
#if defined(__aarch64__) && defined(__clang__)
#define OF_MIN(a, b) __builtin_elementwise_minimum(a, b)
#define OF_MAX(a, b) __builtin_elementwise_maximum(a, b)
#define OF_ATMOST(a, b) OF_MIN(a, b)
#define OF_ATLEAST(a, b) OF_MAX(a, b)
#else
#define OF_MIN(a, b) (((a < b) | (a != a)) ? a : b)
#define OF_MAX(a, b) (((a > b) | (a != a)) ? a : b)
#define OF_ATMOST(a, b) (b < a ? b : a)
#define OF_ATLEAST(a, b) (b > a ? b : a)
#endif

#define OF_COMPARE(S, T)                                                                               \
  OF_INLINE bool of_isnan_##S(T x) { return x != x; }                                                  \
  OF_INLINE T of_abs_##S(T x) { return OF_ABS_##S(x); }                                                \
  OF_INLINE T of_copysign_##S(T x, T s) { return OF_COPYSIGN_##S(x, s); }                              \
  OF_INLINE bool of_isinf_##S(T x) { return OF_ABS_##S(x) == OF_INF_##S; }                             \
  OF_INLINE T of_sign_##S(T x) { return x > 0 ? (T)1 : x < 0 ? (T)-1 : x == 0 ? (T)0 : x; }            \
  /* as NumPy's minimum and maximum: a NaN in either place is the result */                            \
  OF_INLINE T of_min_##S(T a, T b) { return OF_MIN(a, b); }                                            \
  OF_INLINE T of_max_##S(T a, T b) { return OF_MAX(a, b); }                                            \
  /* the same where b is no NaN */                                                                     \
  OF_INLINE T of_atmost_##S(T a, T b) { return OF_ATMOST(a, b); }                                      \
  OF_INLINE T of_atleast_##S(T a, T b) { return OF_ATLEAST(a, b); }                                    \
  /* as C's fmin and fmax: a NaN is ignored if the other is a number */                                \
  OF_INLINE T of_fmin_##S(T a, T b) { return ((a < b) | (b != b)) ? a : b; }                           \
  OF_INLINE T of_fmax_##S(T a, T b) { return ((a > b) | (b != b)) ? a : b; }                           \
  /* NaN stays NaN; lo <= hi */                                                                        \
  OF_INLINE T of_clamp_##S(T x, T lo, T hi) { return of_atmost_##S(of_atleast_##S(x, lo), hi); }

#define OF_ROUND_BUILTIN(S, T, X)                                                                      \
  OF_INLINE T of_round_even_##S(T x) { return __builtin_roundeven##X(x); }                             \
  OF_INLINE T of_floor_##S(T x) { return __builtin_floor##X(x); }                                      \
  OF_INLINE T of_ceil_##S(T x) { return __builtin_ceil##X(x); }                                        \
  OF_INLINE T of_trunc_##S(T x) { return __builtin_trunc##X(x); }

#define OF_ROUND_GENERIC(S, T, BIG)                                                                    \
  OF_INLINE T of_round_even_##S(T x) {                                                                 \
    const T a = OF_ABS_##S(x), r = (a + BIG) - BIG;                                                    \
    return OF_COPYSIGN_##S(a < BIG ? r : a, x);                                                        \
  }                                                                                                    \
  OF_INLINE T of_floor_##S(T x) {                                                                      \
    const T r = of_round_even_##S(x);                                                                  \
    return OF_COPYSIGN_##S(r > x ? r - 1 : r, x);                                                      \
  }                                                                                                    \
  OF_INLINE T of_ceil_##S(T x) {                                                                       \
    const T r = of_round_even_##S(x);                                                                  \
    return OF_COPYSIGN_##S(r < x ? r + 1 : r, x);                                                      \
  }                                                                                                    \
  OF_INLINE T of_trunc_##S(T x) {                                                                      \
    const T a = OF_ABS_##S(x), r = of_round_even_##S(a);                                               \
    return OF_COPYSIGN_##S(r > a ? r - 1 : r, x);                                                      \
  }

#define OF_ROUND_DERIVED(S, T)                                                                         \
  /* halves away from zero, as C's round */                                                            \
  OF_INLINE T of_round_away_##S(T x) {                                                                 \
    const T a = OF_ABS_##S(x), t = of_trunc_##S(a);                                                    \
    return OF_COPYSIGN_##S(a - t >= (T)0.5 ? t + 1 : t, x);                                            \
  }                                                                                                    \
  /* sign of the divisor, as Python and ONNX Mod with fmod = 0 */                                      \
  OF_INLINE T of_mod_##S(T x, T y) {                                                                   \
    const T r = of_fmod_##S(x, y);                                                                     \
    return r == 0 ? OF_COPYSIGN_##S((T)0, y) : (r < 0) != (y < 0) ? r + y : r;                         \
  }                                                                                                    \
  /* the quotient that belongs to of_mod, with NumPy's care for rounding of (x - mod) / y */           \
  OF_INLINE T of_floor_div_##S(T x, T y) {                                                             \
    const T r = of_fmod_##S(x, y);                                                                     \
    const T q = (x - r) / y - (((r != 0) & ((r < 0) != (y < 0))) ? (T)1 : (T)0);                       \
    const T f = of_floor_##S(q);                                                                       \
    const T whole = q - f > (T)0.5 ? f + 1 : f;                                                        \
    return y == 0 ? x / y : q == 0 ? OF_COPYSIGN_##S((T)0, x / y) : whole;                             \
  }

// Exact remainder with the sign of the dividend: the integer significands are reduced STEP bits of exponent at a time.
#define OF_FMOD(S, T, U, MANT, STEP)                                                                   \
  OF_COLD T of_fmod_##S(T x, T y) {                                                                    \
    const T ax = OF_ABS_##S(x), ay = OF_ABS_##S(y);                                                    \
    if ((x != x) | (y != y)) return x + y;                                                             \
    if ((ax == OF_INF_##S) | (ay == 0)) return OF_NAN_##S;                                             \
    if (ax < ay) return x;                                                                             \
    const U one = (U)1 << MANT, bx = of_bits_##S(ax), by = of_bits_##S(ay);                            \
    int ex = (int)(bx >> MANT);                                                                        \
    int ey = (int)(by >> MANT);                                                                        \
    uint64_t mx = (bx & (one - 1)) | (ex ? one : 0), my = (by & (one - 1)) | (ey ? one : 0);           \
    ex = ex ? ex : 1;                                                                                  \
    ey = ey ? ey : 1;                                                                                  \
    mx %= my;                                                                                          \
    for (int d = ex - ey; d > 0 && mx; d -= STEP) mx = (mx << (d < STEP ? d : STEP)) % my;             \
    if (!mx) return OF_COPYSIGN_##S((T)0, x);                                                          \
    while (mx < one && ey > 1) {                                                                       \
      mx <<= 1;                                                                                        \
      ey--;                                                                                            \
    }                                                                                                  \
    const U bits = mx < one ? (U)mx : (U)(mx & (one - 1)) | (U)ey << MANT;                             \
    return OF_COPYSIGN_##S(of_from_bits_##S(bits), x);                                                 \
  }

#define OF_ABS_f32 __builtin_fabsf
#define OF_ABS_f64 __builtin_fabs
#define OF_COPYSIGN_f32 __builtin_copysignf
#define OF_COPYSIGN_f64 __builtin_copysign
#define OF_INF_f32 OF_INF_F32
#define OF_INF_f64 OF_INF_F64
#define OF_NAN_f32 OF_NAN_F32
#define OF_NAN_f64 OF_NAN_F64

OF_COMPARE(f32, float)
OF_COMPARE(f64, double)
#if OF_HAS_ROUND_F32
OF_ROUND_BUILTIN(f32, float, f)
#else
OF_ROUND_GENERIC(f32, float, 8388608.0f)
#endif
#if OF_HAS_ROUND_F64
OF_ROUND_BUILTIN(f64, double, )
#else
OF_ROUND_GENERIC(f64, double, 4503599627370496.0)
#endif
OF_FMOD(f32, float, uint32_t, 23, 40)
OF_FMOD(f64, double, uint64_t, 52, 11)
OF_ROUND_DERIVED(f32, float)
OF_ROUND_DERIVED(f64, double)
#undef OF_COMPARE
#undef OF_ROUND_BUILTIN
#undef OF_ROUND_GENERIC
#undef OF_ROUND_DERIVED
#undef OF_FMOD
