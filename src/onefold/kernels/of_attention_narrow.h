// softmax(scale q k^T + mask) v by the matrix unit of x86 (AMX) in bf16, for up to 32 queries at a time. Sums, scores and
// their exponentials are f32; queries, keys, values and the exponentials as they meet the values are rounded.
#pragma once
#include "of_narrow_tiles.h"
#if defined(__AMX_BF16__)

// to[T filled up to whole tiles][e filled up to 32]: rows of x, `step` elements apart, times scale
AI void of_rows_bf16(const int T, const int e, const float *x, ix step, const float scale, uint16_t *to) {
  const int width = (e + 31) / 32 * 32;
  const __m512 by = _mm512_set1_ps(scale);
  for (int t = 0; t < (T + 15) / 16 * 16; t++)
    for (int d = 0; d < width; d += 32) {
      const int n = t < T ? e - d : 0;
      const __mmask32 m = n >= 32 ? ~0u : (1u << n) - 1;
      const __m512 lo = _mm512_maskz_loadu_ps((__mmask16)m, x + t * step + d);
      const __m512 hi = _mm512_maskz_loadu_ps((__mmask16)(m >> 16), x + t * step + d + 16);
      _mm512_store_si512(to + t * width + d, (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(hi, by), _mm512_mul_ps(lo, by)));
    }
}

// r[i] and lane j of it change places with r[j] and lane i.
AI void of_transpose_16(__m512i r[16]) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  OF_UNROLL for (int s = 8; s > 0; s /= 2) {
    const __m512i by = _mm512_set1_epi32(s);
    const __mmask16 odd = _mm512_test_epi32_mask(lane, by);
    // lanes of a where the bit is clear, of b `s` lanes lower elsewhere; and the rest
    const __m512i low = _mm512_mask_add_epi32(lane, odd, lane, _mm512_set1_epi32(16 - s));
    const __m512i high = _mm512_mask_add_epi32(_mm512_add_epi32(lane, by), odd, lane, _mm512_set1_epi32(16));
    OF_UNROLL for (int i = 0; i < 16; i++) {
      if (i & s) continue;
      const __m512i a = r[i], b = r[i | s];
      r[i] = _mm512_permutex2var_epi32(a, low, b);
      r[i | s] = _mm512_permutex2var_epi32(a, high, b);
    }
  }
}

// to[keys / 16][e / 32][16 pairs of elements][16 keys][2], filled up with zeros
AI void of_keys_bf16(const ix keys, const int e, const float *x, ix step, uint16_t *to) {
  for (ix i = 0; i < keys; i += 16)
    for (int d = 0; d < e; d += 32, to += 512) {
      const __mmask32 m = e - d >= 32 ? ~0u : (1u << (e - d)) - 1;
      __m512i r[16];
      OF_UNROLL for (int j = 0; j < 16; j++) {
        const bool in = i + j < keys;
        const float *const at = x + (i + j) * step + d;
        const __m512 lo = _mm512_maskz_loadu_ps(in ? (__mmask16)m : 0, at);
        const __m512 hi = _mm512_maskz_loadu_ps(in ? (__mmask16)(m >> 16) : 0, at + 16);
        r[j] = (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
      }
      of_transpose_16(r);
      OF_UNROLL for (int j = 0; j < 16; j++) _mm512_store_si512(to + j * 32, r[j]);
    }
}

// to[f / 16][keys / 32][16 pairs of keys][16 elements][2], filled up with zeros
AI void of_values_bf16(const ix keys, const int f, const float *x, ix step, uint16_t *to) {
  const __m512i pairs = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const ix rows = (keys + 31) / 32 * 32;
  for (int d = 0; d < f; d += 16) {
    const __mmask16 m = (__mmask16)(f - d >= 16 ? ~0u : (1u << (f - d)) - 1);
    for (ix i = 0; i < rows; i += 2, to += 32) {
      const __m512 lo = _mm512_maskz_loadu_ps(i < keys ? m : 0, x + i * step + d);
      const __m512 hi = _mm512_maskz_loadu_ps(i + 1 < keys ? m : 0, x + (i + 1) * step + d);
      _mm512_store_si512(to, _mm512_permutexvar_epi16(pairs, (__m512i)_mm512_cvtne2ps_pbh(hi, lo)));
    }
  }
}

// y[16 rows, or 32][16 columns, or 32] = x w: `steps` of 32 elements, of `pitch` that each tile of columns of w has
AI void of_bf16_product(const bool high, const bool wide, ix steps, ix pitch, const uint16_t *x, ix xs, const uint16_t *w,
                        float *y, ix ys) {
  _tile_zero(0);
  if (high) _tile_zero(1);
  if (wide) _tile_zero(2);
  if (high && wide) _tile_zero(3);
  for (ix k = 0; k < steps; k++, x += 32, w += 512) {
    _tile_loadd(4, x, xs * 2);
    _tile_loadd(6, w, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (high) _tile_loadd(5, x + 16 * xs, xs * 2);
    if (high) _tile_dpbf16ps(1, 5, 6);
    if (wide) _tile_loadd(7, w + pitch * 512, 64);
    if (wide) _tile_dpbf16ps(2, 4, 7);
    if (high && wide) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, y, ys * 4);
  if (high) _tile_stored(1, y + 16 * ys, ys * 4);
  if (wide) _tile_stored(2, y + 16, ys * 4);
  if (high && wide) _tile_stored(3, y + 16 * ys + 16, ys * 4);
}
AI void of_bf16_products(const bool high, ix columns, ix steps, ix pitch, const uint16_t *x, ix xs, const uint16_t *w,
                         float *y, ix ys) {
  ix c = 0;
  for (; c + 16 < columns; c += 32)
    of_bf16_product(high, true, steps, pitch, x, xs, w + c / 16 * pitch * 512, y + c, ys);
  if (c < columns) of_bf16_product(high, false, steps, pitch, x, xs, w + c / 16 * pitch * 512, y + c, ys);
}

// 2^x for x <= 0 with an error of 1e-4 of it, less than what is rounded afterwards
AI __m512 of_exp2_rough(__m512 x) {
  const __m512 r = _mm512_reduce_ps(x, 9);  // beyond the whole number below
  __m512 p = _mm512_fmadd_ps(r, _mm512_set1_ps(0.0780245215f), _mm512_set1_ps(0.2260671705f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.6958335042f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.9999251962f));
  return _mm512_scalef_ps(p, x);
}

// Rows of scores become 2^(log2(e) (s - max)) in bf16, in place and filled up to 32, and inv the inverse of their sums: 0
// where no key is seen, not a number where a score is not one or infinite.
AI void of_softmax_bf16(const int T, ix keys, ix step, float *s, float *inv) {
  const __m512 low = _mm512_set1_ps(-__builtin_inff()), e = _mm512_set1_ps(1.44269504f);
  for (int t = 0; t < T; t++) {
    float *const row = s + t * step;
    const ix width = (keys + 31) / 32 * 32;
    for (ix i = keys / 16 * 16; i < width; i += 16) {
      const __mmask16 in = (__mmask16)(keys > i ? (1u << (keys - i)) - 1 : 0);
      _mm512_store_ps(row + i, _mm512_mask_load_ps(low, in, row + i));
    }
    __m512 a = low, b = low, sum = _mm512_setzero_ps(), more = sum;
    for (ix i = 0; i < width; i += 32) {
      a = _mm512_max_ps(a, _mm512_load_ps(row + i));
      b = _mm512_max_ps(b, _mm512_load_ps(row + i + 16));
    }
    const float top = _mm512_reduce_max_ps(_mm512_max_ps(a, b));
    // differences first: times log2(e) the least float, which masks are made of, is infinite
    const __m512 most = _mm512_set1_ps(top == -__builtin_inff() ? 0.0f : top);
    for (ix i = 0; i < width; i += 32) {
      const __m512 lo = of_exp2_rough(_mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(row + i), most), e));
      const __m512 hi = of_exp2_rough(_mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(row + i + 16), most), e));
      sum = _mm512_add_ps(sum, lo);
      more = _mm512_add_ps(more, hi);
      _mm512_store_si512((uint16_t *)row + i, (__m512i)_mm512_cvtne2ps_pbh(hi, lo));
    }
    const float total = _mm512_reduce_add_ps(_mm512_add_ps(sum, more));
    // a matrix unit without work for a thousand cycles takes hundreds to wake: this product means nothing
    if (t * keys % 2048 < keys) _tile_dpbf16ps(0, 4, 6);
    inv[t] = total == 0.0f ? 0.0f : 1.0f / total;
  }
}

// y[T][width] times scale[t]
AI void of_scale_rows(const int T, const ix width, const float *scale, float *y) {
  for (int t = 0; t < T; t++)
    for (ix d = 0; d < width; d += 16)
      _mm512_store_ps(y + t * width + d, _mm512_mul_ps(_mm512_load_ps(y + t * width + d), _mm512_set1_ps(scale[t])));
}
#endif
