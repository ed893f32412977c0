// Fixed-point audio front end: 16-bit transform, roots, logarithms. Bit for bit what tflite-micro's signal library and
// kissfft's 16-bit build compute; onefold/ops/signal_front.py says the same in NumPy.
#pragma once
#include "of_program.h"

// number of significant bits; 32 for 0
AI int of_msb_u32(uint32_t x) { return x ? 32 - __builtin_clz(x) : 32; }

AI int16_t of_round15(int32_t x) { return (int16_t)((x + (1 << 14)) >> 15); }
typedef struct { int16_t r, i; } of_c16;
AI of_c16 of_c16_load(const int16_t *p) { return (of_c16){p[0], p[1]}; }
AI void of_c16_store(int16_t *p, int r, int i) { p[0] = (int16_t)r, p[1] = (int16_t)i; }
AI of_c16 of_c16_over(const int16_t *p, int by) {
  return (of_c16){of_round15(p[0] * (32767 / by)), of_round15(p[1] * (32767 / by))};
}
AI of_c16 of_c16_mul(of_c16 a, const int16_t *w) {
  return (of_c16){of_round15((int32_t)((uint32_t)(a.r * w[0]) - (uint32_t)(a.i * w[1]))),
                  of_round15((int32_t)((uint32_t)(a.r * w[1]) + (uint32_t)(a.i * w[0])))};
}
AI of_c16 of_c16_add(of_c16 a, of_c16 b) { return (of_c16){(int16_t)(a.r + b.r), (int16_t)(a.i + b.i)}; }
AI of_c16 of_c16_sub(of_c16 a, of_c16 b) { return (of_c16){(int16_t)(a.r - b.r), (int16_t)(a.i - b.i)}; }

// Butterflies of one stage over all n points: blocks of 2 m (4 m) points, twiddles every `stride`.
AI void of_fft_radix2_i16(int16_t *z, const int16_t *w, ix n, ix m, ix stride) {
  for (ix b = 0; b < n; b += 2 * m)
    for (ix k = 0; k < m; k++) {
      int16_t *p = z + 2 * (b + k), *q = p + 2 * m;
      const of_c16 a = of_c16_over(p, 2), t = of_c16_mul(of_c16_over(q, 2), w + 2 * k * stride);
      of_c16_store(q, a.r - t.r, a.i - t.i);
      of_c16_store(p, a.r + t.r, a.i + t.i);
    }
}
AI void of_fft_radix4_i16(int16_t *z, const int16_t *w, ix n, ix m, ix stride) {
  for (ix b = 0; b < n; b += 4 * m)
    for (ix k = 0; k < m; k++) {
      int16_t *p = z + 2 * (b + k);
      const of_c16 a = of_c16_over(p, 4);
      const of_c16 t1 = of_c16_mul(of_c16_over(p + 2 * m, 4), w + 2 * k * stride);
      const of_c16 t2 = of_c16_mul(of_c16_over(p + 4 * m, 4), w + 4 * k * stride);
      const of_c16 t3 = of_c16_mul(of_c16_over(p + 6 * m, 4), w + 6 * k * stride);
      const of_c16 even = of_c16_add(a, t2), odd = of_c16_sub(a, t2);
      const of_c16 sum = of_c16_add(t1, t3), dif = of_c16_sub(t1, t3);
      of_c16_store(p, even.r + sum.r, even.i + sum.i);
      of_c16_store(p + 4 * m, even.r - sum.r, even.i - sum.i);
      of_c16_store(p + 2 * m, odd.r + dif.i, odd.i - dif.r);
      of_c16_store(p + 6 * m, odd.r - dif.i, odd.i + dif.r);
    }
}
// From the transform of n pairs of samples to the n + 1 bins of 2 n real samples.
AI void of_fft_real_i16(const int16_t *z, const int16_t *w, ix n, int16_t *y) {
  const of_c16 dc = of_c16_over(z, 2);
  of_c16_store(y, dc.r + dc.i, 0);
  of_c16_store(y + 2 * n, dc.r - dc.i, 0);
  for (ix k = 1; k <= n / 2; k++) {
    const int16_t mirrored[2] = {z[2 * (n - k)], (int16_t)-z[2 * (n - k) + 1]};
    const of_c16 a = of_c16_over(z + 2 * k, 2), b = of_c16_over(mirrored, 2);
    const of_c16 f = of_c16_add(a, b), t = of_c16_mul(of_c16_sub(a, b), w + 2 * (k - 1));
    of_c16_store(y + 2 * k, (f.r + t.r) >> 1, (f.i + t.i) >> 1);
    of_c16_store(y + 2 * (n - k), (f.r - t.r) >> 1, (t.i - f.i) >> 1);
  }
}

// A parabola for each power of two of x, from a table of four entries each.
AI int16_t of_wide_dynamic(uint32_t x, const int16_t *lut) {
  if (x <= 2) return lut[x];
  const int bits = of_msb_u32(x);
  const int16_t *t = lut + (4 * bits - 6);
  const int32_t f = (int32_t)((bits < 11 ? x << (11 - bits) : x >> (bits - 11)) & 0x3ff);
  int32_t v = (t[2] * f) >> 5;
  v += (int32_t)((uint32_t)(int32_t)t[1] << 5);
  v = (int32_t)((uint32_t)v * (uint32_t)f);
  v = (v + (1 << 14)) >> 15;
  return (int16_t)(v + t[0]);
}

// scale * ln(x), saturating; lut holds 65536 (log2(1 + i / 128) - i / 128)
AI int16_t of_scaled_log(uint32_t x, uint32_t scale, const uint16_t *lut) {
  if (x <= 1) return 0;
  const uint32_t whole = (uint32_t)of_msb_u32(x) - 1, rest = x - ((uint32_t)1 << whole);
  const int32_t f = (int32_t)(whole < 16 ? rest << (16 - whole) : rest >> (whole - 16));
  const int32_t at = f >> 9, a = lut[at], b = lut[at + 1];
  const uint32_t log2 = (whole << 16) + (uint32_t)(f + a + (((b - a) * (f - (at << 9))) >> 16));
  const uint32_t natural = (uint32_t)((45426 * (uint64_t)log2 + 32768) >> 16);
  const uint32_t y = (scale * natural + 32768) >> 16;
  return y < 32767 ? (int16_t)y : 32767;
}
