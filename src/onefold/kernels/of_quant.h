// The two integer arithmetics of quantized models, bit for bit: TFLite's (gemmlowp's fixed point, rounding twice) and
// ONNX's (requantize in float). onefold/ops/fixedpoint.py says the same in NumPy.
//
// A fixed-point value with m integer bits in a type of B bits stands for raw / 2^(B - 1 - m).
#pragma once
#include "of_base.h"
#include "of_int.h"
#include "of_poly.h"
#include "of_round.h"

// a b / 2^31 rounded to nearest, halves upward; MIN * MIN saturates
OF_INLINE int32_t of_sat_rounding_doubling_high_mul(int32_t a, int32_t b) {
  const int64_t p = (int64_t)a * b;
  return ((a == b) & (a == INT32_MIN)) ? INT32_MAX : (int32_t)((p + (1 << 30)) >> 31);
}
OF_INLINE int16_t of_sat_rounding_doubling_high_mul_i16(int16_t a, int16_t b) {
  const int32_t p = (int32_t)a * b;
  return ((a == b) & (a == INT16_MIN)) ? INT16_MAX : (int16_t)((p + (1 << 14)) >> 15);
}
// the same product cut toward zero
OF_INLINE int16_t of_sat_doubling_high_mul_i16(int16_t a, int16_t b) {
  return ((a == b) & (a == INT16_MIN)) ? INT16_MAX : (int16_t)((int32_t)a * b / (1 << 15));
}
// x / 2^e rounded to nearest, halves away from zero; 0 <= e <= 31
OF_INLINE int32_t of_rounding_divide_by_pot(int32_t x, int e) {
  const int32_t mask = (int32_t)(((uint32_t)1 << e) - 1u);
  const int32_t threshold = (mask >> 1) + (x < 0);
  return (x >> e) + ((x & mask) > threshold);
}
// x 2^e: saturating for e > 0 (e <= 30), rounding for e < 0
OF_INLINE int32_t of_saturating_rounding_multiply_by_pot(int32_t x, int e) {
  if (e <= 0) return of_rounding_divide_by_pot(x, -e);
  const int32_t threshold = (1 << (31 - e)) - 1;
  return x > threshold ? INT32_MAX : x < -threshold ? INT32_MIN : (int32_t)((uint32_t)x << e);
}
OF_INLINE int16_t of_saturating_rounding_multiply_by_pot_i16(int16_t x, int e) {
  if (e <= 0) return (int16_t)of_rounding_divide_by_pot(x, -e);
  const int32_t threshold = (1 << (15 - e)) - 1;
  return x > threshold ? INT16_MAX : x < -threshold ? INT16_MIN : (int16_t)((uint32_t)x << e);
}
OF_INLINE int16_t of_saturating_left_shift_i16(int16_t x, int n) {
  const int64_t r = (int64_t)x * (1 << n);
  return r > INT16_MAX ? INT16_MAX : r < INT16_MIN ? INT16_MIN : (int16_t)r;
}

// ---- x * multiplier 2^(shift - 31), multiplier in [2^30, 2^31) ----
OF_INLINE int32_t of_multiply_by_quantized_multiplier(int32_t x, int32_t multiplier, int shift) {
  const int left = shift > 0 ? shift : 0, right = shift > 0 ? 0 : -shift;
  const int32_t scaled = (int32_t)((uint32_t)x << left);
  return of_rounding_divide_by_pot(of_sat_rounding_doubling_high_mul(scaled, multiplier), right);
}
OF_INLINE int32_t of_multiply_by_quantized_multiplier_smaller_than_one(int32_t x, int32_t multiplier, int shift) {
  return of_rounding_divide_by_pot(of_sat_rounding_doubling_high_mul(x, multiplier), -shift);
}
OF_INLINE int32_t of_multiply_by_quantized_multiplier_greater_than_one(int32_t x, int32_t multiplier, int shift) {
  return of_sat_rounding_doubling_high_mul((int32_t)((uint32_t)x << shift), multiplier);
}
// one rounding, halves upward: builds of TFLite with TFLITE_SINGLE_ROUNDING
OF_INLINE int32_t of_multiply_by_quantized_multiplier_single(int32_t x, int32_t multiplier, int shift) {
  const int total = 31 - shift;
  return (int32_t)(((int64_t)x * multiplier + ((int64_t)1 << (total - 1))) >> total);
}
// for the 64-bit sums of int16 activations: |x| < 2^47, -31 <= shift <= 7; the multiplier is cut to 15 bits
OF_INLINE int32_t of_multiply_by_quantized_multiplier_i64(int64_t x, int32_t multiplier, int shift) {
  const int32_t reduced = multiplier < 0x7fff0000 ? (multiplier + (1 << 15)) >> 16 : 0x7fff;
  const int total = 15 - shift;
  return (int32_t)((x * reduced + ((int64_t)1 << (total - 1))) >> total);
}

// ---- fixed-point functions; T: type, W: type twice as wide, B: bits ----
#define OF_FIXED(S, T, W, B, MAX, MUL, POT, SUM)                                                       \
  /* a constant given in 32 bits */                                                                    \
  OF_INLINE T of_fixed_constant_##S(int32_t c) { return (T)of_rounding_divide_by_pot(c, 32 - B); }     \
  /* e^a for a in [-1/4, 0), 0 integer bits: Taylor around -1/8 */                                     \
  OF_INLINE T of_exp_quarter_##S(T a) {                                                                \
    const T c = of_fixed_constant_##S(1895147668), third = of_fixed_constant_##S(715827883);           \
    const T x = (T)(a + (1 << (B - 4))), x2 = MUL(x, x), x3 = MUL(x2, x), x4 = MUL(x2, x2);            \
    const T cubic = MUL((T)(POT(x4, -2) + x3), third);                                                 \
    return SUM(c, MUL(c, (T)(x + POT((T)(cubic + x2), -1))));                                          \
  }                                                                                                    \
  /* e^a for a <= 0 with m integer bits, as 0 integer bits */                                          \
  OF_INLINE T of_exp_on_negative_values_##S(T a, int m) {                                              \
    static const int32_t factor[7] = {1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242}; \
    const int fraction = B - 1 - m;                                                                    \
    const T quarter = (T)((T)1 << (fraction - 2));                                                     \
    const T part = (T)((a & (quarter - 1)) - quarter);                                                 \
    const T rest = (T)(part - a);                                                                      \
    T r = of_exp_quarter_##S(POT(part, m));                                                            \
    for (int i = 0; i < 7; i++) {                                                                      \
      const int bit = fraction + i - 2;                                                                \
      if (m > i - 2 && (rest & ((T)1 << bit))) r = MUL(r, of_fixed_constant_##S(factor[i]));           \
    }                                                                                                  \
    if (m > 5 && a < of_fixed_constant_##S(-(1 << (m > 5 ? 36 - m : 0)))) r = 0;                       \
    return a == 0 ? (T)(MAX) : r;                                                                      \
  }                                                                                                    \
  /* 2 / (1 + a) by three steps of Newton's, 2 integer bits; a in [0, 1) with 0 integer bits */        \
  OF_INLINE T of_two_over_one_plus_##S(T a) {                                                          \
    const W sum = (W)a + (MAX);                                                                        \
    const T half = (T)((sum + (sum >= 0 ? 1 : -1)) / 2), one = (T)((T)1 << (B - 3));                   \
    T x = (T)(of_fixed_constant_##S(1515870810) + MUL(half, of_fixed_constant_##S(-1010580540)));      \
    for (int i = 0; i < 3; i++) x = (T)(x + POT(MUL(x, (T)(one - MUL(half, x))), 2));                  \
    return x;                                                                                          \
  }                                                                                                    \
  OF_INLINE T of_one_over_one_plus_x_##S(T a) { return POT(of_two_over_one_plus_##S(a), 1); }          \
  OF_INLINE T of_one_minus_x_over_one_plus_x_##S(T a) {                                                \
    return POT((T)(of_two_over_one_plus_##S(a) - ((T)1 << (B - 3))), 2);                               \
  }                                                                                                    \
  /* m integer bits in, 0 out */                                                                       \
  OF_INLINE T of_fixed_logistic_##S(T a, int m) {                                                      \
    const T negative = (T)(a > 0 ? -a : a);                                                            \
    const T r = of_one_over_one_plus_x_##S(of_exp_on_negative_values_##S(negative, m));                \
    return a == 0 ? of_fixed_constant_##S(1 << 30) : a > 0 ? r : (T)((MAX) - r);                       \
  }                                                                                                    \
  OF_INLINE T of_fixed_tanh_##S(T a, int m) {                                                          \
    const T negative = (T)(a < 0 ? a : -a);                                                            \
    const T t = of_one_minus_x_over_one_plus_x_##S(of_exp_on_negative_values_##S(negative, m + 1));    \
    return a == 0 ? (T)0 : (T)(a < 0 ? -t : t);                                                        \
  }

OF_INLINE int32_t of_plain_sum_i32(int32_t a, int32_t b) { return (int32_t)((uint32_t)a + (uint32_t)b); }
OF_INLINE int16_t of_saturating_sum_i16(int16_t a, int16_t b) {
  const int32_t s = (int32_t)a + b;
  return s > INT16_MAX ? INT16_MAX : s < INT16_MIN ? INT16_MIN : (int16_t)s;
}
OF_FIXED(i32, int32_t, int64_t, 32, INT32_MAX, of_sat_rounding_doubling_high_mul,
         of_saturating_rounding_multiply_by_pot, of_plain_sum_i32)
OF_FIXED(i16, int16_t, int32_t, 16, INT16_MAX, of_sat_rounding_doubling_high_mul_i16,
         of_saturating_rounding_multiply_by_pot_i16, of_saturating_sum_i16)
#undef OF_FIXED

// 1 / x as a 0-integer-bit scale in (1/2, 1] and the power of two it lacks, for x > 0 with `digits` integer bits
OF_INLINE int32_t of_get_reciprocal(int32_t x, int digits, int *bits_over_unit) {
  const int lead = x ? __builtin_clz((uint32_t)x) : 32;
  *bits_over_unit = digits - lead;
  return of_one_over_one_plus_x_i32((int32_t)(((uint32_t)x << lead) - 0x80000000u));
}
// 1 / sqrt(x) as multiplier and shift (times `reverse`, -1 for a left shift); 0 counts as 1
OF_INLINE void of_get_inv_sqrt_multiplier(int32_t x, int reverse, int32_t *multiplier, int *shift) {
  if (x <= 1) {
    *multiplier = INT32_MAX;
    *shift = 0;
    return;
  }
  int right = 11;
  for (; x >= (1 << 29); right++) x /= 4;
  const int pairs = (__builtin_clz((uint32_t)x) - 1) / 2 - 1;
  right -= pairs;
  x = (int32_t)((uint32_t)x << (2 * pairs));
  const int32_t half = of_rounding_divide_by_pot(x >> 1, 1), three_halves = (1 << 28) + (1 << 27);
  int32_t y = 1 << 28;
  for (int i = 0; i < 5; i++) {
    const int32_t square = of_sat_rounding_doubling_high_mul(y, y);
    const int32_t cube =
        of_saturating_rounding_multiply_by_pot(of_sat_rounding_doubling_high_mul(square, y), 6);
    y = of_saturating_rounding_multiply_by_pot(
        of_sat_rounding_doubling_high_mul(three_halves, y) - of_sat_rounding_doubling_high_mul(half, cube), 3);
  }
  y = of_sat_rounding_doubling_high_mul(y, 1518500250);
  *multiplier = right < 0 ? (int32_t)((uint32_t)y << -right) : y;
  *shift = (right < 0 ? 0 : right) * reverse;
}

// ---- int16 sigmoid and tanh by TFLite's table of sigmoid(i / 24); multiplier 0 stands for 3 << shift ----
OF_INLINE int32_t of_table_input(int16_t x, int32_t multiplier, int shift) {
  const int32_t m = multiplier ? multiplier : (int32_t)(3u << shift), s = multiplier ? shift : 0;
  return (x * m + (s > 0 ? 1 << (s - 1) : 0)) >> s;
}
OF_INLINE int16_t of_table_sigmoid_i16(int16_t x, int32_t multiplier, int shift) {
  const int32_t v = of_table_input(x, multiplier, shift);
  const uint32_t a = v < 0 ? 0u - (uint32_t)v : (uint32_t)v, h = a >> 9, i = h < 255 ? h : 254, f = a & 0x1ff;
  const uint32_t u = of_sigmoid_table[i], inner = (u << 9) + f * (of_sigmoid_table[i + 1] - u);
  const uint32_t r = h >= 255 ? 0x7fffu << 10 : inner;
  return (int16_t)((v >= 0 ? r + (1u << 9) : (1u << 25) - r + (1u << 9) - 1u) >> 10);
}
OF_INLINE int16_t of_table_tanh_i16(int16_t x, int32_t multiplier, int shift) {
  const int32_t v = of_table_input(x, multiplier, shift);
  const uint32_t a = v < 0 ? 0u - (uint32_t)v : (uint32_t)v, h = a >> 8, i = h < 255 ? h : 254, f = a & 0xff;
  const uint32_t u = of_sigmoid_table[i], inner = (u << 8) + f * (of_sigmoid_table[i + 1] - u);
  const int32_t r = (int32_t)(h >= 255 ? 0xffffu << 8 : inner);
  return (int16_t)((v >= 0 ? r - (1 << 23) + (1 << 7) : -r + (1 << 23) + (1 << 7) - 1) >> 8);
}
// a table of 513 values over the int16 range with linear interpolation
OF_INLINE int16_t of_lut_i16(int16_t x, const int16_t *lut) {
  const int i = 256 + (x >> 7), f = x & 0x7f;
  const int16_t base = lut[i], slope = (int16_t)(lut[i + 1] - base);
  return (int16_t)(base + ((slope * f + 64) >> 7));
}

// ---- ONNX: saturate(round_half_even(.) + zero) ----
// The sum is formed after clamping to [lo - zero, hi - zero], so nothing overflows; a NaN gives lo.
OF_INLINE int32_t of_saturate_rounded(float r, int32_t zero, int32_t lo, int32_t hi) {
  const float a = (float)(lo - zero), b = (float)(hi - zero);
  const float c = r > a ? (r < b ? r : b) : a;
  return (int32_t)c + zero;
}
OF_INLINE int32_t of_requant_f32(float x, float scale, int32_t zero, int32_t lo, int32_t hi) {
  return of_saturate_rounded(of_round_even_f32(x * scale), zero, lo, hi);
}
OF_INLINE int32_t of_quantize_linear_f32(float x, float scale, int32_t zero, int32_t lo, int32_t hi) {
  return of_saturate_rounded(of_round_even_f32(x / scale), zero, lo, hi);
}
// The same by the scale's reciprocal: what the product misses of the quotient, times the reciprocal, corrects it to the
// last bit (Markstein). Infinities miss NaN, and stay. Scales must be far from the ends of the exponents, their
// significands not all ones. Without a fused multiply-add it is no gain.
OF_INLINE int32_t of_quantize_by_f32(float x, float scale, float inverse, int32_t zero, int32_t lo, int32_t hi) {
#if defined(__FMA__) || defined(__aarch64__)
  const float q = x * inverse, y = __builtin_fmaf(__builtin_fmaf(-q, scale, x), inverse, q);
  return of_saturate_rounded(of_round_even_f32(y == y ? y : q), zero, lo, hi);
#else
  (void)inverse;
  return of_quantize_linear_f32(x, scale, zero, lo, hi);
#endif
}
// TFLite's QUANTIZE rounds halves away from zero
OF_INLINE int32_t of_affine_quantize_f32(float x, float scale, int32_t zero, int32_t lo, int32_t hi) {
  return of_saturate_rounded(of_round_away_f32(x / scale), zero, lo, hi);
}
// The sum of two bytes of different scales, rounded to even: its ends lie so near to zero that a large number added to
// it leaves the integer in the low bits. Who asks for it has seen that either way to the sum gives the same integers.
OF_INLINE int32_t of_rounded_sum_i32(int32_t x, int32_t y, float a, float b, float c, float lo, float hi) {
#if defined(__FMA__) || defined(__aarch64__)
  const float s = __builtin_fmaf((float)x, a, __builtin_fmaf((float)y, b, c));
#else
  const float p = (float)x * a, q = (float)y * b;
  const float s = p + (q + c);
#endif
  const float above = s > lo ? s : lo, r = above < hi ? above : hi;
  return (int32_t)(of_bits_f32(r + 0x1.8p23f) - 0x4b400000u);
}
OF_INLINE float of_dequantize_linear_f32(int32_t q, float scale, int32_t zero) { return (float)(q - zero) * scale; }

#define OF_QUANTIZE(S, T, MIN, MAX)                                                                    \
  OF_INLINE T of_requant_f32_##S(float x, float scale, int32_t zero, int32_t lo, int32_t hi) {         \
    return (T)of_requant_f32(x, scale, zero, lo, hi);                                                  \
  }                                                                                                    \
  OF_INLINE T of_quantize_linear_##S(float x, float scale, int32_t zero) {                             \
    return (T)of_quantize_linear_f32(x, scale, zero, MIN, MAX);                                        \
  }                                                                                                    \
  OF_INLINE T of_affine_quantize_##S(float x, float scale, int32_t zero) {                             \
    return (T)of_affine_quantize_f32(x, scale, zero, MIN, MAX);                                        \
  }
OF_QUANTIZE(i8, int8_t, -128, 127)
OF_QUANTIZE(u8, uint8_t, 0, 255)
OF_QUANTIZE(i16, int16_t, -32768, 32767)
OF_QUANTIZE(u16, uint16_t, 0, 65535)
OF_QUANTIZE(i4, int8_t, -8, 7)
OF_QUANTIZE(u4, uint8_t, 0, 15)
OF_QUANTIZE(i2, int8_t, -2, 1)
OF_QUANTIZE(u2, uint8_t, 0, 3)
#undef OF_QUANTIZE
