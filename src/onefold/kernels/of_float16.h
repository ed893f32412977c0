// The narrow float types, as raw bits, and the conversions between float and integer.
//
// Narrowing rounds once, to nearest even, also from double. Conversions of half floats use the instruction where the
// target has one inline; everything else is bit arithmetic without branches.
#pragma once
#include "of_base.h"
#include "of_round.h"

typedef uint16_t of_f16;
typedef uint16_t of_bf16;
typedef uint8_t of_f8e4m3fn, of_f8e4m3fnuz, of_f8e5m2, of_f8e5m2fnuz, of_f8e8m0fnu, of_f4e2m1;

#if defined(OF_PORTABLE)
#elif defined(__F16C__) || defined(__aarch64__)
typedef _Float16 of_native_f16;
#define OF_HAS_F16 1
#elif defined(__arm__) && defined(__ARM_FP) && (__ARM_FP & 2)
typedef __fp16 of_native_f16;
#define OF_HAS_F16 1
#endif

// The double as a float whose last bit is set when anything was lost ("round to odd"): rounding that to a format with
// at least two bits less equals rounding the double.
OF_INLINE float of_f64_to_f32_odd(double x) {
  const double a = of_abs_f64(x), back = (double)(float)a;
  const uint32_t b = of_bits_f32((float)a);
  const uint32_t cut = back > a ? b - 1 : b;
  const uint32_t odd = back != a && a == a ? cut | 1u : cut;
  return of_from_bits_f32(odd | (uint32_t)(of_bits_f64(x) >> 63) << 31);
}

OF_INLINE float of_f16_to_f32(of_f16 h) {
#ifdef OF_HAS_F16
  return (float)(union { of_f16 u; of_native_f16 f; }){.u = h}.f;
#else
  const uint32_t b = (uint32_t)(h & 0x7fffu) << 13;
  const uint32_t finite = of_bits_f32(of_from_bits_f32(b) * 0x1p112f);
  return of_from_bits_f32(((h & 0x7c00u) == 0x7c00u ? b | 0x7f800000u : finite) | (uint32_t)(h & 0x8000u) << 16);
#endif
}
OF_INLINE of_f16 of_f32_to_f16(float x) {
#ifdef OF_HAS_F16
  return (union { of_native_f16 f; of_f16 u; }){.f = (of_native_f16)x}.u;
#else
  const uint32_t b = of_bits_f32(x), a = b & 0x7fffffffu;
  const uint32_t normal = (a + 0xfffu + ((a >> 13) & 1u) - 0x38000000u) >> 13;
  const uint32_t small = of_bits_f32(of_from_bits_f32(a) + 0.5f) - 0x3f000000u;
  const uint32_t r = a < 0x38800000u ? small : a >= 0x47800000u ? 0x7c00u : normal;
  return (of_f16)((a > 0x7f800000u ? 0x7e00u | ((a >> 13) & 0x3ffu) : r) | ((b >> 16) & 0x8000u));
#endif
}
OF_INLINE double of_f16_to_f64(of_f16 h) { return (double)of_f16_to_f32(h); }
OF_INLINE of_f16 of_f64_to_f16(double x) { return of_f32_to_f16(of_f64_to_f32_odd(x)); }

OF_INLINE float of_bf16_to_f32(of_bf16 h) { return of_from_bits_f32((uint32_t)h << 16); }
OF_INLINE of_bf16 of_f32_to_bf16(float x) {
  const uint32_t b = of_bits_f32(x), r = (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;
  return (of_bf16)(x != x ? 0x7fc0u | ((b >> 16) & 0x8000u) : r);
}
// What is rounded on its way to memory: by the instruction where there is one, which takes denormals as zero.
OF_INLINE of_bf16 of_round_bf16(float x) {
#if defined(__clang__) && defined(__AVX512BF16__) && defined(__AVX512VL__)
  return (union { __bf16 f; of_bf16 u; }){.f = (__bf16)x}.u;
#else
  return of_f32_to_bf16(x);
#endif
}
OF_INLINE double of_bf16_to_f64(of_bf16 h) { return (double)of_bf16_to_f32(h); }
OF_INLINE of_bf16 of_f64_to_bf16(double x) { return of_f32_to_bf16(of_f64_to_f32_odd(x)); }

// |x| rounded to a format of `mant` fraction bits and exponent bias `bias`, as its code without limit at the top
OF_INLINE uint32_t of_round_code(float x, int mant, int bias) {
  const uint32_t a = of_bits_f32(x) & 0x7fffffffu;
  const uint32_t drop = (uint32_t)(23 - mant), rebias = (uint32_t)(127 - bias) << 23;
  const uint32_t normal = (a - rebias + ((1u << (drop - 1)) - 1u) + ((a >> drop) & 1u)) >> drop;
  const uint32_t unit = (uint32_t)(127 + 1 - bias - mant + 23) << 23;  // a float whose last place is the format's step
  const uint32_t small = of_bits_f32(of_from_bits_f32(a) + of_from_bits_f32(unit)) - unit;
  return a < rebias + 0x800000u ? small : normal;
}
// the value of an unsigned code; 2^(127 - bias) by one exact multiplication, denormals included
OF_INLINE float of_code_value(uint32_t code, int mant, int bias) {
  return of_from_bits_f32(code << (23 - mant)) * of_from_bits_f32((uint32_t)(254 - bias) << 23);
}

// FN: code of the largest value, code beyond it when not saturating, code of NaN (sign added); sign of zero kept.
#define OF_F8_SIGNED(NAME, MANT, BIAS, MAX, OVER, NANCODE, ISNAN, ISINF)                               \
  OF_INLINE of_##NAME of_f32_to_##NAME(float x, bool saturate) {                                       \
    const uint32_t sign = (of_bits_f32(x) >> 24) & 0x80u, r = of_round_code(x, MANT, BIAS);            \
    const uint32_t top = saturate ? (MAX) : (OVER);                                                    \
    return (of_##NAME)((x != x ? (NANCODE) : r > (MAX) ? top : r) | sign);                             \
  }                                                                                                    \
  OF_INLINE float of_##NAME##_to_f32(of_##NAME v) {                                                    \
    const uint32_t a = v & 0x7fu;                                                                      \
    const float f = of_code_value(a, MANT, BIAS);                                                      \
    const float edged = (ISNAN) ? OF_NAN_F32 : (ISINF) ? OF_INF_F32 : f;                               \
    return (v & 0x80u) ? -edged : edged;                                                               \
  }                                                                                                    \
  OF_F8_F64(NAME)
// FNUZ: one zero, one NaN (0x80), no infinity.
#define OF_F8_UNSIGNED_ZERO(NAME, MANT, BIAS)                                                          \
  OF_INLINE of_##NAME of_f32_to_##NAME(float x, bool saturate) {                                       \
    const uint32_t sign = (of_bits_f32(x) >> 24) & 0x80u, r = of_round_code(x, MANT, BIAS);            \
    const bool nan = (x != x) | ((r > 0x7fu) & !saturate);                                             \
    const uint32_t finite = r > 0x7fu ? 0x7fu : r;                                                     \
    return (of_##NAME)(nan ? 0x80u : finite ? finite | sign : 0u);                                     \
  }                                                                                                    \
  OF_INLINE float of_##NAME##_to_f32(of_##NAME v) {                                                    \
    const float f = of_code_value(v & 0x7fu, MANT, BIAS);                                              \
    return v == 0x80u ? OF_NAN_F32 : (v & 0x80u) ? -f : f;                                             \
  }                                                                                                    \
  OF_F8_F64(NAME)
#define OF_F8_F64(NAME)                                                                                \
  OF_INLINE of_##NAME of_f64_to_##NAME(double x, bool saturate) {                                      \
    return of_f32_to_##NAME(of_f64_to_f32_odd(x), saturate);                                           \
  }                                                                                                    \
  OF_INLINE double of_##NAME##_to_f64(of_##NAME v) { return (double)of_##NAME##_to_f32(v); }

OF_F8_SIGNED(f8e4m3fn, 3, 7, 0x7eu, 0x7fu, 0x7fu, a == 0x7fu, false)
OF_F8_SIGNED(f8e5m2, 2, 15, 0x7bu, 0x7cu, 0x7eu, a > 0x7cu, a == 0x7cu)
OF_F8_UNSIGNED_ZERO(f8e4m3fnuz, 3, 8)
OF_F8_UNSIGNED_ZERO(f8e5m2fnuz, 2, 16)
#undef OF_F8_SIGNED
#undef OF_F8_UNSIGNED_ZERO
#undef OF_F8_F64

// Four bits: no infinity and no NaN (a NaN becomes zero with the sign set); in the low half of a byte.
OF_INLINE of_f4e2m1 of_f32_to_f4e2m1(float x) {
  const uint32_t sign = (of_bits_f32(x) >> 28) & 8u, r = of_round_code(x, 1, 1);
  return (of_f4e2m1)(x != x ? 8u : (r > 7u ? 7u : r) | sign);
}
OF_INLINE float of_f4e2m1_to_f32(of_f4e2m1 v) {
  const float f = of_code_value(v & 7u, 1, 1);
  return (v & 8u) ? -f : f;
}

// A power of two, 2^(v - 127), 0xff is NaN; the sign of x is ignored.
enum of_e8m0_mode { OF_E8M0_NEAREST, OF_E8M0_UP, OF_E8M0_DOWN };
OF_INLINE of_f8e8m0fnu of_f32_to_f8e8m0fnu(float x, bool saturate, enum of_e8m0_mode mode) {
  const uint32_t a = of_bits_f32(x) & 0x7fffffffu, e = a >> 23, m = a & 0x7fffffu;
  const bool nearest = (m > 0x400000u) | ((m == 0x400000u) & (e > 0));
  const uint32_t up = mode == OF_E8M0_UP ? m != 0 : mode == OF_E8M0_NEAREST ? nearest : 0u;
  const uint32_t r = e + up;
  const uint32_t finite = (saturate & (r > 0xfeu)) ? 0xfeu : (!saturate & (a == 0)) ? 0xffu : r;
  return (of_f8e8m0fnu)(a > 0x7f800000u ? 0xffu : a == 0x7f800000u ? (saturate ? 0xfeu : 0xffu) : finite);
}
OF_INLINE float of_f8e8m0fnu_to_f32(of_f8e8m0fnu v) {
  const float f = of_from_bits_f32(v ? (uint32_t)v << 23 : 0x400000u);
  return v == 0xffu ? OF_NAN_F32 : f;
}

// ---- float to integer, toward zero ----
// Saturating, NaN to 0. LIMIT is the first power of two above the type, LOW the first below it that truncates out.
#define OF_TO_INT(F, FT, S, T, LIMIT, INSIDE, MIN, MAX)                                                \
  OF_INLINE T of_##F##_to_##S(FT x) {                                                                  \
    const bool high = x >= (FT)(LIMIT), inside = (INSIDE) & !high;                                     \
    const T r = (T)(inside ? x : (FT)0);                                                               \
    return high ? (T)(MAX) : (inside | (x != x)) ? r : (T)(MIN);                                       \
  }
#define OF_TO_INTS(F, FT)                                                                              \
  OF_TO_INT(F, FT, i8, int8_t, 128, x > (FT)-129, INT8_MIN, INT8_MAX)                                  \
  OF_TO_INT(F, FT, u8, uint8_t, 256, x > (FT)-1, 0, UINT8_MAX)                                         \
  OF_TO_INT(F, FT, i16, int16_t, 32768, x > (FT)-32769, INT16_MIN, INT16_MAX)                          \
  OF_TO_INT(F, FT, u16, uint16_t, 65536, x > (FT)-1, 0, UINT16_MAX)                                    \
  OF_TO_INT(F, FT, i32, int32_t, 2147483648.0, x >= (FT)-2147483648.0, INT32_MIN, INT32_MAX)           \
  OF_TO_INT(F, FT, u32, uint32_t, 4294967296.0, x > (FT)-1, 0, UINT32_MAX)                             \
  OF_TO_INT(F, FT, i64, int64_t, 0x1p63, x >= (FT)-0x1p63, INT64_MIN, INT64_MAX)                       \
  OF_TO_INT(F, FT, u64, uint64_t, 0x1p64, x > (FT)-1, 0, UINT64_MAX)                                   \
  /* as NumPy's astype on x86: out of range (and NaN) is the smallest value of the wide type, then cut */ \
  OF_INLINE int32_t of_##F##_to_i32_wrap(FT x) {                                                       \
    const bool inside = (x >= (FT)-2147483648.0) & (x < (FT)2147483648.0);                             \
    return inside ? (int32_t)(inside ? x : (FT)0) : INT32_MIN;                                         \
  }                                                                                                    \
  OF_INLINE int64_t of_##F##_to_i64_wrap(FT x) {                                                       \
    const bool inside = (x >= (FT)-0x1p63) & (x < (FT)0x1p63);                                         \
    return inside ? (int64_t)(inside ? x : (FT)0) : INT64_MIN;                                         \
  }                                                                                                    \
  OF_INLINE uint32_t of_##F##_to_u32_wrap(FT x) { return (uint32_t)of_##F##_to_i64_wrap(x); }          \
  OF_INLINE int8_t of_##F##_to_i8_wrap(FT x) { return (int8_t)of_##F##_to_i32_wrap(x); }               \
  OF_INLINE uint8_t of_##F##_to_u8_wrap(FT x) { return (uint8_t)of_##F##_to_i32_wrap(x); }             \
  OF_INLINE int16_t of_##F##_to_i16_wrap(FT x) { return (int16_t)of_##F##_to_i32_wrap(x); }            \
  OF_INLINE uint16_t of_##F##_to_u16_wrap(FT x) { return (uint16_t)of_##F##_to_i32_wrap(x); }
OF_TO_INTS(f32, float)
OF_TO_INTS(f64, double)
#undef OF_TO_INT
#undef OF_TO_INTS
