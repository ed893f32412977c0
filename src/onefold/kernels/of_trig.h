// Trigonometric functions and their inverses. sin, cos and tan reduce their argument exactly for every finite value: by
// subtracting multiples of pi/2 in parts where the products are exact, and beyond by the bits of 2/pi (Payne, Hanek).
#pragma once
#include "of_base.h"
#include "of_math.h"
#include "of_poly.h"
#include "of_round.h"

#define OF_PI_HI 0x1.921fb54442d18p+1
#define OF_PI_LO 0x1.1a62633145c07p-53

// x = quadrant pi/2 + hi + lo
typedef struct {
  double hi, lo;
  uint32_t quadrant;
} of_angle;

OF_INLINE of_dd of_dd_sum(double a, double b) {
  const double s = a + b, v = s - a;
  return (of_dd){s, (a - (s - v)) + (b - v)};
}

OF_INLINE uint64_t of_mul_high_u64(uint64_t a, uint64_t b) {
  const uint64_t al = (uint32_t)a, ah = a >> 32, bl = (uint32_t)b, bh = b >> 32;
  const uint64_t mid = ah * bl + ((al * bl) >> 32), cross = al * bh + (uint32_t)mid;
  return ah * bh + (mid >> 32) + (cross >> 32);
}

// |x| >= 2^20. The significand times 192 bits of 2/pi, those whose product decides x / (pi/2) modulo 4.
OF_COLD of_angle of_reduce_huge(double x) {
  const uint64_t b = of_bits_f64(x) & 0x7fffffffffffffffu;
  if (b >= 0x7ff0000000000000u) return (of_angle){OF_NAN_F64, 0.0, 0};
  const uint64_t m = (b & 0xfffffffffffffu) | 0x10000000000000u;
  const uint32_t at = (uint32_t)((int)(b >> 52) - 1075 - 2 + 64), word = at >> 6, shift = at & 63;
  uint64_t w[3];
  for (uint32_t i = 0; i < 3; i++) {
    const uint64_t head = of_two_over_pi[word + i], tail = of_two_over_pi[word + i + 1];
    w[i] = shift ? head << shift | tail >> (64 - shift) : head;
  }
  const uint64_t p0 = m * w[2], carry = of_mul_high_u64(m, w[2]), q = m * w[1], p1 = q + carry;
  const uint64_t p2 = m * w[0] + of_mul_high_u64(m, w[1]) + (p1 < q);
  const uint64_t high = p2 << 2 | p1 >> 62, low = p1 << 2 | p0 >> 62;
  const uint32_t quadrant = (uint32_t)(p2 >> 62) + (uint32_t)(high >> 63);
  const of_dd a = of_dd_fast_sum((double)(int32_t)(high >> 32) * 0x1p-32, (double)(uint32_t)high * 0x1p-64);
  const double rest = (double)(uint32_t)(low >> 32) * 0x1p-96 + (double)(uint32_t)low * 0x1p-128;
  const of_dd turn = of_dd_fast_sum(a.hi, a.lo + rest);
  const of_dd r = of_dd_mul(turn, (of_dd){OF_PI_HI * 0.5, OF_PI_LO * 0.5});
  return x < 0 ? (of_angle){-r.hi, -r.lo, 0u - quadrant} : (of_angle){r.hi, r.lo, quadrant};
}

// pi/2 in 33 + 33 + 53 bits: products with a count of 20 bits are exact
OF_INLINE of_angle of_reduce_f64(double x) {
  if (!(of_abs_f64(x) < 0x1p20)) return of_reduce_huge(x);
  const double t = x * 0x1.45f306dc9c883p-1 + OF_SHIFT_F64, n = t - OF_SHIFT_F64;
  const of_dd a = of_dd_sum(x - n * OF_PIO2_A, -(n * OF_PIO2_B));
  const of_dd c = of_dd_product(n, OF_PIO2_C);
  const of_dd d = of_dd_sum(a.hi, -c.hi);
  const of_dd r = of_dd_fast_sum(d.hi, d.lo + (a.lo - c.lo));
  return (of_angle){r.hi, r.lo, (uint32_t)of_bits_f64(t)};
}
// pi/2 in 23 + 23 + 23 + 53 bits: every step is exact for a float below 2^30
OF_INLINE of_angle of_reduce_f32(float x) {
  if (!(of_abs_f32(x) < 0x1p30f)) return of_reduce_huge((double)x);
  const double t = (double)x * 0x1.45f306dc9c883p-1 + OF_SHIFT_F64, n = t - OF_SHIFT_F64;
  const double r = (((double)x - n * OF_PIO2_P) - n * OF_PIO2_Q) - n * OF_PIO2_R;
  return (of_angle){r - n * OF_PIO2_S, 0.0, (uint32_t)of_bits_f64(t)};
}

OF_INLINE double of_sin_core(of_angle a) {
  const double z = a.hi * a.hi;
  return a.hi + (a.hi * z * of_poly_sin_f64(z) + a.lo * (1.0 - 0.5 * z));
}
OF_INLINE double of_cos_core(of_angle a) {
  const double z = a.hi * a.hi, h = 0.5 * z, w = 1.0 - h;
  return w + (((1.0 - w) - h) + (z * z * of_poly_cos_f64(z) - a.hi * a.lo));
}
OF_INLINE double of_sin_core_f32(of_angle a) {
  const double z = a.hi * a.hi;
  return a.hi + a.hi * z * of_poly_sin_f32(z);
}
OF_INLINE double of_cos_core_f32(of_angle a) {
  const double z = a.hi * a.hi;
  return 1.0 - 0.5 * z + z * z * of_poly_cos_f32(z);
}

OF_INLINE double of_sin_f64(double x) {
  const of_angle a = of_reduce_f64(x);
  const double s = of_sin_core(a), c = of_cos_core(a), y = (a.quadrant & 1) ? c : s;
  return x == 0 ? x : (a.quadrant & 2) ? -y : y;
}
OF_INLINE double of_cos_f64(double x) {
  const of_angle a = of_reduce_f64(x);
  const double s = of_sin_core(a), c = of_cos_core(a), y = (a.quadrant & 1) ? s : c;
  return ((a.quadrant + 1) & 2) ? -y : y;
}
OF_INLINE double of_tan_f64(double x) {
  const of_angle a = of_reduce_f64(x);
  const double s = of_sin_core(a), c = of_cos_core(a);
  const double y = ((a.quadrant & 1) ? -c : s) / ((a.quadrant & 1) ? s : c);
  return x == 0 ? x : y;
}
OF_INLINE float of_sin_f32(float x) {
  const of_angle a = of_reduce_f32(x);
  const double s = of_sin_core_f32(a), c = of_cos_core_f32(a), y = (a.quadrant & 1) ? c : s;
  return x == 0 ? x : (float)((a.quadrant & 2) ? -y : y);
}
OF_INLINE float of_cos_f32(float x) {
  const of_angle a = of_reduce_f32(x);
  const double s = of_sin_core_f32(a), c = of_cos_core_f32(a), y = (a.quadrant & 1) ? s : c;
  return (float)(((a.quadrant + 1) & 2) ? -y : y);
}
OF_INLINE float of_tan_f32(float x) {
  const of_angle a = of_reduce_f32(x);
  const double s = of_sin_core_f32(a), c = of_cos_core_f32(a);
  const double y = ((a.quadrant & 1) ? -c : s) / ((a.quadrant & 1) ? s : c);
  return x == 0 ? x : (float)y;
}

// For |x| > tan(3 pi/8) around pi/2, for |x| > tan(pi/8) around pi/4, else around 0
OF_INLINE double of_atan_f64(double x) {
  const double a = of_abs_f64(x);
  const bool big = a > 2.414213562373095, mid = a > 0.41421356237309503;
  const double t = (big ? -1.0 : mid ? a - 1.0 : a) / (big ? a : mid ? a + 1.0 : 1.0), z = t * t;
  const double base = big ? OF_PI_HI * 0.5 : mid ? OF_PI_HI * 0.25 : 0.0;
  const double low = big ? OF_PI_LO * 0.5 : mid ? OF_PI_LO * 0.25 : 0.0;
  const double y = base + (t + (t * z * of_poly_atan_f64(z) + low));
  return of_copysign_f64(a == OF_INF_F64 ? OF_PI_HI * 0.5 : y, x);
}
OF_INLINE double of_atan2_f64(double y, double x) {
  const double ay = of_abs_f64(y), ax = of_abs_f64(x);
  const double r = of_atan_f64(ay / ax);
  const double q = ay == 0 ? 0.0 : ((ay == OF_INF_F64) & (ax == OF_INF_F64)) ? OF_PI_HI * 0.25 : r;
  const double full = of_copysign_f64(1.0, x) < 0 ? OF_PI_HI - (q - OF_PI_LO) : q;
  return ((x != x) | (y != y)) ? x + y : of_copysign_f64(full, y);
}

// asin(s) where s = |x| up to 1/2, and the half-angle root sqrt((1 - |x|) / 2) beyond
OF_INLINE double of_asin_core(double a) {
  const bool big = a > 0.5;
  const double z = big ? (1.0 - a) * 0.5 : a * a, s = big ? of_sqrt_f64(z) : a;
  return s + s * z * of_poly_asin_f64(z);
}
OF_INLINE double of_asin_f64(double x) {
  const double a = of_abs_f64(x), p = of_asin_core(a);
  return of_copysign_f64(a > 0.5 ? OF_PI_HI * 0.5 - (2.0 * p - OF_PI_LO * 0.5) : p, x);
}
OF_INLINE double of_acos_f64(double x) {
  const double a = of_abs_f64(x), p = of_asin_core(a);
  const double mid = OF_PI_HI * 0.5 - (of_copysign_f64(p, x) - OF_PI_LO * 0.5);
  const double big = x < 0 ? OF_PI_HI - (2.0 * p - OF_PI_LO) : 2.0 * p;
  return a > 0.5 ? big : mid;
}
OF_INLINE float of_atan_f32(float x) { return (float)of_atan_f64((double)x); }
OF_INLINE float of_atan2_f32(float y, float x) { return (float)of_atan2_f64((double)y, (double)x); }
OF_INLINE float of_asin_f32(float x) { return (float)of_asin_f64((double)x); }
OF_INLINE float of_acos_f32(float x) { return (float)of_acos_f64((double)x); }
