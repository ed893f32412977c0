// The fixed-point functions of of_quant.h under the names that scalar expressions print: of_<function>_<type>.
#pragma once
#include "of_quant.h"

OF_INLINE int32_t of_multiply_by_quantized_multiplier_i32(int32_t x, int32_t m, int32_t s) {
  return of_multiply_by_quantized_multiplier(x, m, s);
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
