// The fixed-point functions of of_quant.h under the names that scalar expressions print: of_<function>_<type>.
#pragma once
#include "of_quant.h"

OF_INLINE int32_t of_multiply_by_quantized_multiplier_i32(int32_t x, int32_t m, int32_t s) {
  return of_multiply_by_quantized_multiplier(x, m, s);
}
// one rounding, halves away from zero; saturated
OF_INLINE int32_t of_multiply_by_quantized_multiplier_away_i32(int32_t x, int32_t m, int32_t s) {
  const int64_t p = (int64_t)x * m, half = (int64_t)1 << (30 - s);
  const int64_t r = p >= 0 ? (p + half) >> (31 - s) : -((half - p) >> (31 - s));
  return r < INT32_MIN ? INT32_MIN : r > INT32_MAX ? INT32_MAX : (int32_t)r;
}
OF_INLINE int32_t of_sat_rounding_doubling_high_mul_i32(int32_t a, int32_t b) {
  return of_sat_rounding_doubling_high_mul(a, b);
}
OF_INLINE int32_t of_rounding_divide_by_pot_i32(int32_t x, int32_t e) { return of_rounding_divide_by_pot(x, e); }
OF_INLINE int32_t of_affine_quantize_to_f32(float x, float scale, int32_t zero, int32_t lo, int32_t hi) {
  return of_affine_quantize_f32(x, scale, zero, lo, hi);
}
// a mean of `count` integers: halves away from zero
OF_INLINE int32_t of_rounded_quotient_i32(int32_t sum, int32_t count) {
  return sum > 0 ? (sum + count / 2) / count : (sum - count / 2) / count;
}
// scale (and its inverse, 0 where all is 0) for int8 in [-127, 127]; the zero point is 0
OF_INLINE int32_t of_symmetric_range(float lo, float hi, float *scale, float *inverse) {
  const float a = lo < 0 ? -lo : lo, b = hi < 0 ? -hi : hi, top = a > b ? a : b;
  *scale = top == 0.0f ? 1.0f : top / 127.0f;
  *inverse = top == 0.0f ? 0.0f : 127.0f / top;
  return 0;
}
// the same for [-128, 127] with a zero point, which is returned
OF_INLINE int32_t of_asymmetric_range(float lo, float hi, float *scale, float *inverse) {
  const double a = lo < 0 ? lo : 0, b = hi > 0 ? hi : 0;
  *scale = 1.0f;
  *inverse = 0.0f;
  if (a == b) return 0;
  if (b - a == __builtin_inf()) return *scale = __builtin_inff(), 0;
  const double s = (b - a) / 255.0, la = -a / s, lb = b / s;
  const double zero = 128.0 + la < 127.0 + lb ? -128.0 + la : 127.0 - lb;
  *scale = (float)s;
  *inverse = 1.0f / *scale;
  return zero <= -128.0 ? -128 : zero >= 127.0 ? 127 : (int32_t)(zero < 0 ? zero - 0.5 : zero + 0.5);
}
OF_INLINE int32_t of_quantize_clamped_i32(float x, int32_t lo) {
  const float r = of_round_away_f32(x);
  return r > (float)lo ? (r < 127.0f ? (int32_t)r : 127) : lo;
}
// the least and the greatest of n numbers and 0; NaN does not count
OF_INLINE void of_range_f32(const float *x, ptrdiff_t n, float *lo, float *hi) {
  enum { LANES = 16 };
  float least[LANES], most[LANES];
  for (int l = 0; l < LANES; l++) least[l] = most[l] = 0.0f;
  for (ptrdiff_t i = 0; i + LANES <= n; i += LANES)
    for (int l = 0; l < LANES; l++) {
      const float v = x[i + l];
      least[l] = v < least[l] ? v : least[l], most[l] = v > most[l] ? v : most[l];
    }
  for (ptrdiff_t i = n - n % LANES; i < n; i++) {
    least[0] = x[i] < least[0] ? x[i] : least[0];
    most[0] = x[i] > most[0] ? x[i] : most[0];
  }
  *lo = least[0], *hi = most[0];
  for (int l = 1; l < LANES; l++) {
    *lo = least[l] < *lo ? least[l] : *lo;
    *hi = most[l] > *hi ? most[l] : *hi;
  }
}
// the root to nearest; of a number below 2^32 it has 16 bits
OF_INLINE uint32_t of_rounded_root_u64(uint64_t x) {
  uint64_t r = 0, rest = x;
  for (uint64_t bit = (uint64_t)1 << 62; bit; bit >>= 2) {
    const bool take = rest >= r + bit;
    rest -= take ? r + bit : 0;
    r = (r >> 1) + (take ? bit : 0);
  }
  const uint64_t most = x >> 32 ? 0xffffffffu : 0xffffu;
  return (uint32_t)(r + (rest > r && r != most));
}
