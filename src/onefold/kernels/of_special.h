// Error function, gamma function, and the activations of neural networks.
#pragma once
#include "of_base.h"
#include "of_math.h"
#include "of_poly.h"
#include "of_round.h"
#include "of_trig.h"

// ---- error function: x (1 + P(x^2)) near 0, else 1 - exp(log erfc |x|) with a polynomial for the logarithm ----
OF_INLINE float of_erf_f32(float x) {
  const float a = of_abs_f32(x), z = a * a;
  const float near = x + x * of_poly_erf_f32(z);
  const float far = 1.0f - of_exp_f32(of_poly_erfc_log_f32(of_clamp_f32(a, 0.92f, 4.0f)));
  return a < 0.92f ? near : of_copysign_f32(far, x);
}
// erfc(x) = exp(-x^2) R(t) / (1 + 2 x), t = (x - 4) / (x + 4), with x^2 in two parts
OF_INLINE double of_erfc_tail(double a) {
  a = of_clamp_f64(a, 0.0, 28.0);
  const of_dd h = of_dd_product(a, a);
  const double r = of_poly_erfcx_f64((a - 4.0) / (a + 4.0)) / (1.0 + 2.0 * a);
  return of_exp_dd(-h.hi, -h.lo) * r;
}
OF_INLINE double of_erf_f64(double x) {
  const double a = of_abs_f64(x);
  const double near = x + x * of_poly_erf_f64(a * a);
  return a < 1.0 ? near : of_copysign_f64(1.0 - of_erfc_tail(a), x);
}
OF_INLINE double of_erfc_f64(double x) {
  const double a = of_abs_f64(x), tail = of_erfc_tail(a);
  const double near = 1.0 - (x + x * of_poly_erf_f64(a * a));
  return a < 0.5 ? near : x < 0 ? 2.0 - tail : tail;
}
OF_INLINE float of_erfc_f32(float x) { return (float)of_erfc_f64((double)x); }

// ---- activations ----
// 1 / d of a normal d from 1 to 2^126: a guess from its bits and three steps of Newton's, which run beside other work
// where a division does not
OF_INLINE float of_inverse_f32(float d) {
  float r = of_from_bits_f32(0x7ef311c7u - of_bits_f32(d));
  r = r * (2.0f - d * r);
  r = r * (2.0f - d * r);
  return r + r * (1.0f - d * r);
}
// 1 / (1 + e^-x), with e^-x of normal size: below -86 it stays what it is there, 4.5e-38
OF_INLINE float of_sigmoid_f32(float x) {
  x = of_clamp_f32(x, -86.0f, 86.0f);
  const float t = OF_SHIFT_F32 - x * 1.44269504f, n = t - OF_SHIFT_F32;
  const float r = (-x - n * OF_LN2_HI_F32) - n * OF_LN2_LO_F32;
  const float p = 1.0f + (r + r * r * of_poly_exp_f32(r));
  return of_inverse_f32(1.0f + p * of_from_bits_f32((of_bits_f32(t) << 23) + 0x3f800000u));
}
// e^-|x| never overflows, and its quotient keeps the relative accuracy of small results
OF_INLINE double of_sigmoid_f64(double x) {
  const double e = of_exp_f64(-of_abs_f64(x));
  return (x < 0 ? e : 1.0) / (1.0 + e);
}
// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)
OF_INLINE float of_softplus_f32(float x) {
  return (x < 0 ? 0.0f : x) + of_log1p_f32(of_exp_f32(-of_abs_f32(x)));
}
OF_INLINE double of_softplus_f64(double x) {
  return (x < 0 ? 0.0 : x) + of_log1p_f64(of_exp_f64(-of_abs_f64(x)));
}
OF_INLINE float of_silu_f32(float x) { return x * of_sigmoid_f32(x); }
OF_INLINE double of_silu_f64(double x) { return x * of_sigmoid_f64(x); }
// x tanh(log(1 + e)) = x (e^2 + 2 e) / (e^2 + 2 e + 2) with e = e^x; the quotient is 1 beyond the clamp
OF_INLINE float of_mish_f32(float x) {
  const float e = of_exp_f32(of_clamp_f32(x, -104.0f, 20.0f)), n = e * (e + 2.0f);
  return x * (n / (n + 2.0f));
}
OF_INLINE double of_mish_f64(double x) {
  const double e = of_exp_f64(of_clamp_f64(x, -746.0, 40.0)), n = e * (e + 2.0);
  return x * (n / (n + 2.0));
}
// erf as a quotient of polynomials, within 6 ulp where -3.93 <= x: half the time of of_erf_f32, enough behind 1 + erf
OF_INLINE float of_erf_quotient_f32(float x) {
  x = of_atmost_f32(x, 3.925f);
  const float t = x * x;
  float p = t * -1.2799833466e-08f + 4.6092376961e-06f;
  p = p * t + 3.7675935131e-04f;
  p = p * t + 3.8386337967e-03f;
  p = p * t + 5.4244022746e-02f;
  p = p * t + 1.8513554815e-01f;
  p = p * t + 1.1283791691f;
  float q = t * 6.2399215164e-05f + 1.3015277075e-03f;
  q = q * t + 1.5430071686e-02f;
  q = q * t + 1.1387387174e-01f;
  q = q * t + 4.9740551388e-01f;
  q = q * t + 1.0f;
  return x * p * of_inverse_f32(q);
}
OF_INLINE float of_gelu_f32(float x) {
  const float c = of_atleast_f32(x, -5.55f), h = 0.5f * c;
  return h + h * of_erf_quotient_f32(c * 0.707106781f);
}
OF_INLINE double of_gelu_f64(double x) { return 0.5 * x * of_erfc_f64(x * -0x1.6a09e667f3bcdp-1); }
// 1/2 (1 + tanh u) = sigmoid(2 u), u = sqrt(2/pi) (x + 0.044715 x^3)
OF_INLINE float of_gelu_tanh_f32(float x) {
  x = of_atleast_f32(x, -10.0f);
  return x * of_sigmoid_f32(x * (1.5957691216f + 0.0713548163f * x * x));
}
OF_INLINE double of_gelu_tanh_f64(double x) {
  return x * of_sigmoid_f64(x * (1.5957691216057308 + 0.0713548162726002488 * x * x));
}

// ---- gamma ----
// log Gamma(x) in two parts for x >= 12, by Stirling's series
OF_INLINE of_dd of_stirling(double x) {
  const of_log_parts l = of_log_dd(x);
  const of_dd n = of_dd_fast_sum(l.k * OF_LN2_HI_F64, l.m.hi);
  const of_dd p = of_dd_mul((of_dd){x - 0.5, 0.0}, (of_dd){n.hi, n.lo + (l.k * OF_LN2_LO_F64 + l.m.lo)});
  const double r = 1.0 / x, z = r * r;
  double s = 1.0 / 156.0;
  s = s * z - 691.0 / 360360.0;
  s = s * z + 1.0 / 1188.0;
  s = s * z - 1.0 / 1680.0;
  s = s * z + 1.0 / 1260.0;
  s = s * z - 1.0 / 360.0;
  s = s * z + 1.0 / 12.0;
  const of_dd a = of_dd_sum(p.hi, -x), b = of_dd_sum(a.hi, 0x1.d67f1c864beb5p-1);  // log(2 pi) / 2
  return of_dd_sum(b.hi, b.lo + (a.lo + (p.lo + (s * r - 0x1.65b5a1b7ff5dfp-55))));
}
// sin(pi a) for a >= 0
OF_INLINE double of_sin_pi(double a) {
  const double r = a - 2.0 * of_trunc_f64(0.5 * a), f = r > 1.0 ? r - 1.0 : r;
  const double s = of_sin_f64(OF_PI_HI * (f > 0.5 ? 1.0 - f : f));
  return r > 1.0 ? -s : s;
}
// log Gamma on [1, 2]
OF_INLINE double of_lgamma_core(double x) { return (x - 1.0) * (x - 2.0) * of_poly_lgamma_f64(x - 1.5); }
OF_INLINE double of_gamma_positive(double x) {
  if (x > 172.0) return OF_INF_F64;
  if (x >= 24.0) {
    const of_dd l = of_stirling(x);
    return of_exp_dd(l.hi, l.lo);
  }
  double y = x < 1.0 ? x + 1.0 : x, product = 1.0;
  while (y > 2.0) {
    y -= 1.0;
    product *= y;
  }
  const double g = of_exp_f64(of_lgamma_core(y));
  return x < 1.0 ? g / x : g * product;  // exact for whole numbers: g is 1
}
OF_COLD double of_tgamma_f64(double x) {
  const double a = of_abs_f64(x);
  if (a < 0x1p-60) return 1.0 / x;
  if (x != x) return x;
  if (x > 0) return of_gamma_positive(x);
  if (a == of_trunc_f64(a)) return OF_NAN_F64;
  return -OF_PI_HI / of_sin_pi(a) / (a * of_gamma_positive(a));
}
OF_INLINE double of_lgamma_positive(double x) {
  if (x >= 12.0) {
    if (x > 0x1p1000) return x * (of_log_f64(x) - 1.0);
    const of_dd l = of_stirling(x);
    return l.hi;
  }
  double y = x < 1.0 ? x + 1.0 : x, product = 1.0;
  while (y > 2.0) {
    y -= 1.0;
    product *= y;
  }
  const double core = of_lgamma_core(y);
  return x < 1.0 ? core - of_log_f64(x) : core + of_log_f64(product);
}
OF_COLD double of_lgamma_f64(double x) {
  const double a = of_abs_f64(x);
  if (x != x) return x;
  if (a < 0x1p-60) return -of_log_f64(a);
  if (a == OF_INF_F64) return OF_INF_F64;
  if (x > 0) return of_lgamma_positive(x);
  if (a == of_trunc_f64(a)) return OF_INF_F64;
  return of_log_f64(OF_PI_HI / of_abs_f64(of_sin_pi(a))) - of_log_f64(a) - of_lgamma_positive(a);
}
OF_INLINE float of_tgamma_f32(float x) { return (float)of_tgamma_f64((double)x); }
OF_INLINE float of_lgamma_f32(float x) { return (float)of_lgamma_f64((double)x); }
