// Exponential, logarithm, power, root and the activations built on them.
//
// Every function here is branch-free, so a loop over it vectorises. NaN, infinities, signed zeros and denormals behave
// as in C99 (no -ffast-math); polynomials come from tools/fit_math.py. exp, log, tanh, sigmoid, erf and the activations
// of float are float throughout; the other functions of float compute in double.
//
// Largest error in ulp (units in the last place of the exact result) of the functions of float and of double, this
// header's and those of of_trig.h and of_special.h. tests/kernel/test_num.py reads this table and measures against it,
// on the range given or, without one, over all bit patterns.
//
//   exp         1.25  1.25
//   exp2        1.25  1.25
//   expm1       2     2.5
//   log         1     1
//   log2        0.51  0.75
//   log10       0.51  0.75
//   log1p       1     1
//   sqrt        0.5   0.5
//   rsqrt       1.5   1.5
//   cbrt        0.51  0.75
//   sin         0.51  1
//   cos         0.51  1
//   tan         0.51  2.5
//   asin        0.51  2.5
//   acos        0.51  1.5
//   atan        0.51  2
//   sinh        0.51  3
//   cosh        0.51  3
//   tanh        2.5   2.5
//   asinh       0.51  2
//   acosh       0.51  2.5
//   atanh       0.51  2
//   erf         1.5   1.5
//   erfc        0.51  4.5
//   sigmoid     3     2.5   [-80, 80]
//   softplus    2     2
//   silu        3.5   3.5   [-80, 80]
//   mish        4     4     [-80, 80]
//   gelu        5     4     [-1, 10]
//   gelu_tanh   4     4     [-1, 10]
//   tgamma      0.51  8     [-30, 170]
//   lgamma      0.51  8     [3, 1e6]
//   pow         0.51  1.25
//   atan2       0.51  2.5
//
// Far on the negative side gelu of float (1 + erf) and both gelu_tanh keep an absolute, not a relative accuracy, 9e-7
// and 1e-15, like every implementation by these formulas; sigmoid of float, and what has it as a factor, is 4.5e-38 at
// most off there. lgamma has an absolute error of 2e-14 near its zeros.
#pragma once
#include "of_base.h"
#include "of_poly.h"
#include "of_round.h"

// Adding 1.5 * 2^23 (2^52) leaves round(x) in the low bits of the sum: a rounding and a conversion to an integer at
// once, on every target, with any garbage confined to the lane of a NaN.
#define OF_SHIFT_F32 12582912.0f
#define OF_SHIFT_F64 6755399441055744.0
// log(2) in two parts; products of the first with an exponent are exact.
#define OF_LN2_HI_F32 0.693145752f
#define OF_LN2_LO_F32 1.42860677e-6f
#define OF_LN2_HI_F64 0x1.62e42feep-1
#define OF_LN2_LO_F64 0x1.a39ef35793c76p-33

OF_INLINE float of_exp2i_f32(int32_t k) { return of_from_bits_f32((uint32_t)(k + 127) << 23); }
OF_INLINE double of_exp2i_f64(int64_t k) { return of_from_bits_f64((uint64_t)(k + 1023) << 52); }

// p 2^k in two steps, so that overflow and denormals come out right and are rounded once
OF_INLINE float of_scale_f32(float p, int32_t k) {
#if defined(__AVX512F__) && !defined(OF_PORTABLE)
  return __builtin_ldexpf(p, k);  // one instruction
#else
  const int32_t h = k >> 1;
  return p * of_exp2i_f32(h) * of_exp2i_f32(k - h);
#endif
}
OF_INLINE double of_scale_f64(double p, int64_t k) {
  const int64_t h = (int64_t)((uint64_t)(k + 8192) >> 1) - 4096;  // a shift that AVX2 has for 64 bits
  return p * of_exp2i_f64(h) * of_exp2i_f64(k - h);
}

OF_INLINE float of_exp_f32(float x) {
  x = of_clamp_f32(x, -104.0f, 89.0f);
  const float t = x * 1.44269504f + OF_SHIFT_F32, n = t - OF_SHIFT_F32;
  const float r = (x - n * OF_LN2_HI_F32) - n * OF_LN2_LO_F32;
  const float p = 1.0f + (r + r * r * of_poly_exp_f32(r));
  return of_scale_f32(p, (int32_t)(of_bits_f32(t) - of_bits_f32(OF_SHIFT_F32)));
}
// exp(hi + lo) for |lo| well below |hi|
OF_INLINE double of_exp_dd(double x, double lo) {
  x = of_clamp_f64(x, -746.0, 710.0);
  const double t = x * 0x1.71547652b82fep0 + OF_SHIFT_F64, n = t - OF_SHIFT_F64;
  const double r = (x - n * OF_LN2_HI_F64) - (n * OF_LN2_LO_F64 - lo);
  const double p = 1.0 + (r + r * r * of_poly_exp_f64(r));
  return of_scale_f64(p, (int64_t)(of_bits_f64(t) - of_bits_f64(OF_SHIFT_F64)));
}
OF_INLINE double of_exp_f64(double x) { return of_exp_dd(x, 0.0); }

OF_INLINE float of_exp2_f32(float x) {
  x = of_clamp_f32(x, -151.0f, 129.0f);
  const float t = x + OF_SHIFT_F32;
  const float r = (x - (t - OF_SHIFT_F32)) * 0.693147181f;
  const float p = 1.0f + (r + r * r * of_poly_exp_f32(r));
  return of_scale_f32(p, (int32_t)(of_bits_f32(t) - of_bits_f32(OF_SHIFT_F32)));
}
OF_INLINE double of_exp2_f64(double x) {
  x = of_clamp_f64(x, -1076.0, 1025.0);
  const double t = x + OF_SHIFT_F64;
  const double r = (x - (t - OF_SHIFT_F64)) * 0x1.62e42fefa39efp-1;
  const double p = 1.0 + (r + r * r * of_poly_exp_f64(r));
  return of_scale_f64(p, (int64_t)(of_bits_f64(t) - of_bits_f64(OF_SHIFT_F64)));
}

// 2^n e^r - 1 = 2 (2^(n-1) (e^r - 1) + (2^(n-1) - 1/2)): no cancellation, and no overflow before the last doubling
OF_INLINE float of_expm1_f32(float x) {
  const float c = of_clamp_f32(x, -20.0f, 89.0f);
  const float t = c * 1.44269504f + OF_SHIFT_F32, n = t - OF_SHIFT_F32;
  const float r = (c - n * OF_LN2_HI_F32) - n * OF_LN2_LO_F32;
  const float q = r + r * r * of_poly_exp_f32(r);
  const int32_t k = (int32_t)(of_bits_f32(t) - of_bits_f32(OF_SHIFT_F32));
  const float s = of_exp2i_f32(k - 1);
  const float y = 2.0f * (s * q + (s - 0.5f));
  return x == 0.0f ? x : n == 0.0f ? q : y;
}
OF_INLINE double of_expm1_f64(double x) {
  const double c = of_clamp_f64(x, -40.0, 710.0);
  const double t = c * 0x1.71547652b82fep0 + OF_SHIFT_F64, n = t - OF_SHIFT_F64;
  const double r = (c - n * OF_LN2_HI_F64) - n * OF_LN2_LO_F64;
  const double q = r + r * r * of_poly_exp_f64(r);
  const int64_t k = (int64_t)(of_bits_f64(t) - of_bits_f64(OF_SHIFT_F64));
  const double s = of_exp2i_f64(k - 1);
  const double y = 2.0 * (s * q + (s - 0.5));
  return x == 0.0 ? x : n == 0.0 ? q : y;
}

// log(u) + c for a positive finite u: u = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2))
OF_INLINE float of_log_core_f32(float u, float c) {
  const bool small = u < FLT_MIN;
  const uint32_t b = of_bits_f32(small ? u * 8388608.0f : u) - 0x3f3504f3u;
  const float k = (float)(((int32_t)b >> 23) - (small ? 23 : 0));
  const float f = of_from_bits_f32((b & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
  const float h = 0.5f * f * f;
  return k * OF_LN2_HI_F32 + (f - (h - (f * f * f * of_poly_log_f32(f) + (k * OF_LN2_LO_F32 + c))));
}
OF_INLINE double of_log_core_f64(double u, double c) {
  const bool small = u < DBL_MIN;
  const uint64_t b = of_bits_f64(small ? u * 0x1p54 : u) - 0x3fe6a09e667f3bcdu;
  const double k = (double)((int32_t)(b >> 32) >> 20) - (small ? 54.0 : 0.0);
  const double f = of_from_bits_f64((b & 0xfffffffffffffu) + 0x3fe6a09e667f3bcdu) - 1.0;
  const double s = f / (2.0 + f), z = s * s, h = 0.5 * f * f;
  return k * OF_LN2_HI_F64 + (f - (h - (s * (h + z * of_poly_log_f64(z)) + (k * OF_LN2_LO_F64 + c))));
}

// the cases that the core does not know, for log(x) with result y
#define OF_LOG_EDGES(x, y, S) \
  ((x) == 0 ? -OF_INF_##S : (x) < 0 ? OF_NAN_##S : (x) == OF_INF_##S ? (x) : (x) != (x) ? (x) : (y))

OF_INLINE float of_log_f32(float x) {
  const float y = of_log_core_f32(x, 0.0f);
  return OF_LOG_EDGES(x, y, F32);
}
OF_INLINE double of_log_f64(double x) {
  const double y = of_log_core_f64(x, 0.0);
  return OF_LOG_EDGES(x, y, F64);
}

// c is what the rounding of 1 + x lost
OF_INLINE float of_log1p_f32(float x) {
  const float u = 1.0f + x;
  const float c = (x >= 1.0f ? 1.0f - (u - x) : x - (u - 1.0f)) / u;
  const float y = of_log_core_f32(u, c), edged = OF_LOG_EDGES(u, y, F32);
  return x == 0.0f ? x : edged;
}
OF_INLINE double of_log1p_f64(double x) {
  const double u = 1.0 + x;
  const double c = (x >= 1.0 ? 1.0 - (u - x) : x - (u - 1.0)) / u;
  const double y = of_log_core_f64(u, c), edged = OF_LOG_EDGES(u, y, F64);
  return x == 0.0 ? x : edged;
}

// ---- double-double: a value as an unevaluated sum of two doubles, about 100 bits ----
typedef struct {
  double hi, lo;
} of_dd;

OF_INLINE of_dd of_dd_fast_sum(double a, double b) {  // |a| >= |b| or a == 0
  const double s = a + b;
  return (of_dd){s, b - (s - a)};
}
OF_INLINE of_dd of_dd_product(double a, double b) {
  const double p = a * b;
#if OF_HAS_FMA_F64
  return (of_dd){p, __builtin_fma(a, b, -p)};
#else  // 26-bit halves, whose products are exact; this target cannot fuse them with the sums
  const double ah = of_from_bits_f64(of_bits_f64(a) & ~(uint64_t)0x7ffffff), al = a - ah;
  const double bh = of_from_bits_f64(of_bits_f64(b) & ~(uint64_t)0x7ffffff), bl = b - bh;
  return (of_dd){p, ((ah * bh - p) + ah * bl + al * bh) + al * bl};
#endif
}
OF_INLINE of_dd of_dd_mul(of_dd a, of_dd b) {
  const of_dd p = of_dd_product(a.hi, b.hi);
  return of_dd_fast_sum(p.hi, p.lo + (a.hi * b.lo + a.lo * b.hi));
}

// log(x) = k log 2 + 2 s (1 + z (1/3 + z Q(z))), s = f / (2 + f), z = s^2, to about 2^-66, for positive finite x
typedef struct {
  double k;
  of_dd m;  // log of the significand
} of_log_parts;

OF_INLINE of_log_parts of_log_dd(double x) {
  const bool small = x < DBL_MIN;
  const uint64_t b = of_bits_f64(small ? x * 0x1p54 : x) - 0x3fe6a09e667f3bcdu;
  const double k = (double)((int32_t)(b >> 32) >> 20) - (small ? 54.0 : 0.0);
  const double f = of_from_bits_f64((b & 0xfffffffffffffu) + 0x3fe6a09e667f3bcdu) - 1.0;
  const of_dd d = of_dd_fast_sum(2.0, f);
  const double q = f / d.hi;
  const of_dd qd = of_dd_product(q, d.hi);
  const of_dd s = {q, (((f - qd.hi) - qd.lo) - q * d.lo) / d.hi};
  const of_dd z = of_dd_mul(s, s);
  const of_dd third = of_dd_fast_sum(0x1.5555555555555p-2, 0x1.5555555555555p-56 + z.hi * of_poly_atanh_f64(z.hi));
  const of_dd t = of_dd_mul(s, of_dd_mul(z, third));
  const of_dd sum = of_dd_fast_sum(s.hi, t.hi);
  const of_dd m = of_dd_fast_sum(sum.hi, sum.lo + (s.lo + t.lo));
  return (of_log_parts){k, {2.0 * m.hi, 2.0 * m.lo}};
}
OF_INLINE double of_log2_f64(double x) {
  const of_log_parts l = of_log_dd(x);
  const of_dd m = of_dd_mul(l.m, (of_dd){0x1.71547652b82fep0, 0x1.777d0ffda0d24p-56});
  const of_dd s = of_dd_fast_sum(l.k, m.hi);
  const double y = s.hi + (s.lo + m.lo);
  return OF_LOG_EDGES(x, y, F64);
}
OF_INLINE double of_log10_f64(double x) {
  const of_log_parts l = of_log_dd(x);
  const of_dd m = of_dd_mul(l.m, (of_dd){0x1.bcb7b1526e50ep-2, 0x1.95355baaafad3p-57});
  const of_dd n = of_dd_mul((of_dd){l.k, 0.0}, (of_dd){0x1.34413509f79ffp-2, -0x1.9dc1da994fd21p-59});
  const of_dd s = of_dd_fast_sum(n.hi, m.hi);
  const double y = s.hi + (s.lo + (m.lo + n.lo));
  return OF_LOG_EDGES(x, y, F64);
}
OF_INLINE float of_log2_f32(float x) { return (float)of_log2_f64((double)x); }
OF_INLINE float of_log10_f32(float x) { return (float)of_log10_f64((double)x); }

// C99's special cases of pow(x, y), given pow(|x|, y) for ordinary values
#define OF_POW_EDGES(S, N, T)                                                                          \
  OF_INLINE T of_pow_edges_##S(T x, T y, T r) {                                                        \
    const T a = of_abs_##S(x), half = y * (T)0.5;                                                      \
    const bool whole = of_trunc_##S(y) == y, odd = whole & (of_trunc_##S(half) != half);               \
    const bool negative = of_copysign_##S((T)1, x) < 0;                                                \
    r = of_abs_##S(y) == OF_INF_##N ? ((a > 1) == (y > 0) ? OF_INF_##N : (T)0) : r;                    \
    r = ((a == 0) | (a == OF_INF_##N)) ? ((a == 0) == (y < 0) ? OF_INF_##N : (T)0) : r;                \
    r = (negative & !whole & (a != OF_INF_##N) & (a != 0)) ? OF_NAN_##N : r;                           \
    r = (negative & odd) ? -r : r;                                                                     \
    r = ((x != x) | (y != y)) ? x + y : r;                                                             \
    return ((x == 1) | (y == 0) | ((a == 1) & (of_abs_##S(y) == OF_INF_##N))) ? (T)1 : r;              \
  }
OF_POW_EDGES(f32, F32, float)
OF_POW_EDGES(f64, F64, double)
#undef OF_POW_EDGES

OF_INLINE double of_pow_f64(double x, double y) {
  const of_log_parts l = of_log_dd(of_abs_f64(x));
  const of_dd n = of_dd_fast_sum(l.k * OF_LN2_HI_F64, l.m.hi);
  const of_dd log = of_dd_fast_sum(n.hi, n.lo + (l.k * OF_LN2_LO_F64 + l.m.lo));
  const double bound = of_clamp_f64(y, -0x1p64, 0x1p64);  // beyond, every power but 1 over- or underflows
  const of_dd p = of_dd_product(bound, log.hi);
  const double low = of_abs_f64(p.hi) < 1000.0 ? p.lo + bound * log.lo : 0.0;
  return of_pow_edges_f64(x, y, of_exp_dd(p.hi, low));
}
OF_INLINE float of_pow_f32(float x, float y) {
  const double log = of_log_core_f64((double)of_abs_f32(x), 0.0);
  return of_pow_edges_f32(x, y, (float)of_exp_f64((double)y * log));
}

#if OF_HAS_SQRT_F32
OF_INLINE float of_sqrt_f32(float x) { return __builtin_sqrtf(x); }
#else  // digit by digit, one bit of the root at a time; rounded to nearest even
OF_COLD float of_sqrt_f32(float x) {
  if (!(x > 0) || x == OF_INF_F32) return x < 0 ? OF_NAN_F32 : x;
  const bool small = x < FLT_MIN;
  const uint32_t b = of_bits_f32(small ? x * 16777216.0f : x);
  const int e = (int)(b >> 23) - 127 - (small ? 24 : 0);
  uint32_t rest = ((b & 0x7fffff) | 0x800000) << (e & 1), root = 0;
  rest <<= 1;
  for (uint32_t bit = 1u << 24, sum = 0; bit; bit >>= 1) {
    if (sum + bit <= rest) {
      sum += bit;
      rest -= sum;
      sum += bit;
      root += bit;
    }
    rest <<= 1;
  }
  root = (root >> 1) + (root & 1);  // the last bit is the rounding bit, and a tie cannot occur
  return of_from_bits_f32((uint32_t)((e >> 1) + 126) * 0x800000u + root);
}
#endif
#if OF_HAS_SQRT_F64
OF_INLINE double of_sqrt_f64(double x) { return __builtin_sqrt(x); }
#else
OF_COLD double of_sqrt_f64(double x) {
  if (!(x > 0) || x == OF_INF_F64) return x < 0 ? OF_NAN_F64 : x;
  const bool small = x < DBL_MIN;
  const uint64_t b = of_bits_f64(small ? x * 0x1p54 : x);
  const int e = (int)(b >> 52) - 1023 - (small ? 54 : 0);
  uint64_t rest = ((b & 0xfffffffffffffu) | 0x10000000000000u) << (e & 1), root = 0;
  rest <<= 1;
  for (uint64_t bit = (uint64_t)1 << 53, sum = 0; bit; bit >>= 1) {
    if (sum + bit <= rest) {
      sum += bit;
      rest -= sum;
      sum += bit;
      root += bit;
    }
    rest <<= 1;
  }
  root = (root >> 1) + (root & 1);
  return of_from_bits_f64((uint64_t)((e >> 1) + 1022) * 0x10000000000000u + root);
}
#endif
OF_INLINE float of_rsqrt_f32(float x) { return 1.0f / of_sqrt_f32(x); }
OF_INLINE double of_rsqrt_f64(double x) { return 1.0 / of_sqrt_f64(x); }

// A third of the exponent as a first guess, two of Halley's steps (3 times the digits each), one of Newton's
OF_INLINE double of_cbrt_f64(double x) {
  const double a = of_abs_f64(x);
  const bool small = a < 0x1p-900, big = a > 0x1p900;  // room for the cubes below
  const double v = small ? a * 0x1p180 : big ? a * 0x1p-180 : a;
  const uint64_t high = of_bits_f64(v) >> 32;
  double t = of_from_bits_f64((uint64_t)((uint32_t)high / 3u + 715094163u) << 32);
  for (int i = 0; i < 2; i++) {
    const double c = t * t * t;
    t = t * ((c + 2.0 * v) / (2.0 * c + v));
  }
  t = of_from_bits_f64(of_bits_f64(t) & ~(uint64_t)0x3fffffff);  // so that t * t is exact below
  t = t + t * ((v / (t * t) - t) / (2.0 * t + v / (t * t)));
  const double y = of_copysign_f64(small ? t * 0x1p-60 : big ? t * 0x1p60 : t, x);
  return ((a == 0) | (a == OF_INF_F64) | (x != x)) ? x : y;
}
OF_INLINE float of_cbrt_f32(float x) { return (float)of_cbrt_f64((double)x); }

// ---- hyperbolic functions ----
OF_INLINE float of_tanh_f32(float x) {
  const float t = of_expm1_f32(2.0f * of_clamp_f32(of_abs_f32(x), 0.0f, 10.0f));
  return of_copysign_f32(t / (t + 2.0f), x);
}
OF_INLINE double of_tanh_f64(double x) {
  const double t = of_expm1_f64(2.0 * of_clamp_f64(of_abs_f64(x), 0.0, 22.0));
  return of_copysign_f64(t / (t + 2.0), x);
}
OF_INLINE double of_sinh_f64(double x) {
  const double a = of_abs_f64(x), t = of_expm1_f64(a), e = of_exp_f64(0.5 * a);
  return of_copysign_f64(a > 700.0 ? 0.5 * e * e : 0.5 * (t + t / (t + 1.0)), x);
}
OF_INLINE double of_cosh_f64(double x) {
  const double a = of_abs_f64(x), e = of_exp_f64(0.5 * a), f = of_exp_f64(a);
  return a > 700.0 ? 0.5 * e * e : 0.5 * f + 0.5 / f;
}
OF_INLINE double of_asinh_f64(double x) {
  const double a = of_abs_f64(x), s = a * a;
  const double mid = of_log1p_f64(a + s / (1.0 + of_sqrt_f64(s + 1.0)));
  const double big = of_log_f64(a) + 0x1.62e42fefa39efp-1;
  return of_copysign_f64(a > 0x1p28 ? big : mid, x);
}
OF_INLINE double of_acosh_f64(double x) {
  const double t = x - 1.0;
  const double mid = of_log1p_f64(t + of_sqrt_f64(2.0 * t + t * t));
  const double big = of_log_f64(x) + 0x1.62e42fefa39efp-1;
  return x > 0x1p28 ? big : x < 1.0 ? OF_NAN_F64 : mid;
}
OF_INLINE double of_atanh_f64(double x) {
  const double a = of_abs_f64(x);
  return of_copysign_f64(0.5 * of_log1p_f64(2.0 * a / (1.0 - a)), x);
}
OF_INLINE float of_sinh_f32(float x) { return (float)of_sinh_f64((double)x); }
OF_INLINE float of_cosh_f32(float x) { return (float)of_cosh_f64((double)x); }
OF_INLINE float of_asinh_f32(float x) { return (float)of_asinh_f64((double)x); }
OF_INLINE float of_acosh_f32(float x) { return (float)of_acosh_f64((double)x); }
OF_INLINE float of_atanh_f32(float x) { return (float)of_atanh_f64((double)x); }
