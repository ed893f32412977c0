// Sums of products of 16-bit floats in f32: convolutions, and matrix products as convolutions of one row.
//
// The input is prepared first: rounded to bf16 or f16 and copied into scratch memory with its border filled in, as
// [blocks of channels][rows][columns][channels of a block]. No step then has to look for edges, and sixteen columns are
// sixteen rows of a tile. Weights are packed [block][kh][kw][pairs][B][lanes][2], a pair being two elements that meet
// in one step. Who has few channels takes the row of a window as one run of elements (kw = 1).
#pragma once
#include "of_vec.h"
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

struct of_narrow {
  int blocks, kh, kw, pairs;            // pairs of elements in one position of the window
  int sh, sw, dh, dw;                   // steps of the window
  ptrdiff_t block, row, col;            // bytes of the prepared input from a block, row and column to the next
};

struct of_narrow_image {
  int h, w, c, cb;                      // input; cb channels lie next to each other
  ptrdiff_t sc, sy, sx;                 // elements of the input from a block of channels, row and column to the next
  int left, rows, cols, col;            // prepared: with the border; col: elements of a column of a block
};

// One element as it is summed: bf16 or f16 of what lies in memory.
AI uint16_t of_narrow_bf16_f32(float x) { return of_f32_to_bf16(x); }
AI uint16_t of_narrow_bf16_bf16(of_bf16 x) { return x; }
AI uint16_t of_narrow_f16_f32(float x) { return of_f32_to_f16(x); }

// 32 elements: n of a and m of b (sixteen each, or fewer), zeros behind them. And up to four planes, `step` elements
// apart, of sixteen columns (used of them): [16][4], zeros for planes that are not.
#define OF_NARROW(KIND, FROM)                                                                                     \
  AI void of_narrow_32_##KIND(const FROM *a, const int n, const FROM *b, const int m, uint16_t *to) {             \
    for (int j = 0; j < 16; j++) to[j] = j < n ? of_narrow_##KIND(a[j]) : 0;                                      \
    for (int j = 0; j < 16; j++) to[16 + j] = j < m ? of_narrow_##KIND(b[j]) : 0;                                 \
  }                                                                                                               \
  AI void of_narrow_planes_##KIND(const FROM *x, ptrdiff_t step, const int c, const int used, uint16_t *to) {     \
    for (int i = 0; i < used; i++)                                                                                \
      for (int j = 0; j < 4; j++) to[i * 4 + j] = j < c ? of_narrow_##KIND(x[j * step + i]) : 0;                  \
  }
OF_NARROW(bf16_bf16, of_bf16)
OF_NARROW(f16_f32, float)
#if defined(__AVX512BF16__)
AI void of_narrow_32_bf16_f32(const float *a, const int n, const float *b, const int m, uint16_t *to) {
  const __m512 lo = n == 16 ? _mm512_loadu_ps(a) : _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), a);
  const __m512 hi = m == 16 ? _mm512_loadu_ps(b) : _mm512_maskz_loadu_ps((__mmask16)((1u << m) - 1), b);
  _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(hi, lo));
}
AI void of_narrow_planes_bf16_f32(const float *x, ptrdiff_t step, const int c, const int used, uint16_t *to) {
  const __mmask16 m = (__mmask16)((1u << used) - 1);
  __m512 v[4];
  OF_UNROLL for (int j = 0; j < 4; j++) v[j] = j < c ? _mm512_maskz_loadu_ps(m, x + j * step) : _mm512_setzero_ps();
  // sixteen of one plane, then sixteen of another, become pairs; pairs of pairs become columns
  const __m512i pairs = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512i lo = _mm512_permutexvar_epi16(pairs, (__m512i)_mm512_cvtne2ps_pbh(v[1], v[0]));
  const __m512i hi = _mm512_permutexvar_epi16(pairs, (__m512i)_mm512_cvtne2ps_pbh(v[3], v[2]));
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  _mm512_mask_storeu_epi64(to, (__mmask8)(used >= 8 ? 255 : (1u << used) - 1), _mm512_permutex2var_epi32(lo, low, hi));
  if (used > 8)
    _mm512_mask_storeu_epi64(to + 32, (__mmask8)((1u << (used - 8)) - 1), _mm512_permutex2var_epi32(lo, high, hi));
}
#else
OF_NARROW(bf16_f32, float)
#endif

// `to` gets rows [from, end) of all blocks, counted through; row 0 is `top` rows above the input's first.
#define OF_NARROW_IMAGE(KIND, FROM)                                                                                  \
  AI void of_narrow_row_##KIND(const struct of_narrow_image k, const int c, const FROM *x, uint16_t *to) {     \
    if (k.col == 32 && k.cb == 16)                                                                             \
      for (ix i = 0; i < k.w; i++)                                                                             \
        of_narrow_32_##KIND(x + i * k.sx, 16, c > 16 ? x + k.sc + i * k.sx : x, c > 16 ? 16 : 0, to + i * 32); \
    else if (k.col == 32 && k.cb >= k.c)                                                                       \
      for (ix i = 0; i < k.w; i++)                                                                             \
        of_narrow_32_##KIND(x + i * k.sx, c < 16 ? c : 16, x + i * k.sx + 16, c < 16 ? 0 : c - 16, to + i * 32); \
    else if (k.cb == 1 && k.col == 4 && k.sx == 1)                                                             \
      for (ix i = 0; i < k.w; i += 16)                                                                         \
        of_narrow_planes_##KIND(x + i, k.sc, c, k.w - i < 16 ? (int)(k.w - i) : 16, to + i * 4);               \
    else if (k.cb == 1)                                                                                        \
      for (int j = 0; j < k.col; j += 2)                                                                       \
        for (ix i = 0; i < k.w; i++) {                                                                         \
          const uint32_t lo = j < c ? of_narrow_##KIND(x[j * k.sc + i * k.sx]) : 0;                            \
          const uint32_t hi = j + 1 < c ? of_narrow_##KIND(x[(j + 1) * k.sc + i * k.sx]) : 0;                  \
          *(uint32_t *)(to + i * k.col + j) = lo | hi << 16;                                                   \
        }                                                                                                      \
    else                                                                                                       \
      for (ix i = 0; i < k.w; i++)                                                                             \
        for (int j = 0; j < k.col; j++)                                                                        \
          to[i * k.col + j] = j < c ? of_narrow_##KIND(x[j / k.cb * k.sc + j % k.cb + i * k.sx]) : 0;          \
  }                                                                                                            \
  AI void of_narrow_image_##KIND(const struct of_narrow_image k, ix top, ix from, ix end, const FROM *x,       \
                                 uint16_t *to) {                                                               \
    const ix row = (ix)k.cols * k.col;                                                                         \
    for (ix u = from; u < end; u++) {                                                                          \
      const ix b = u / k.rows, y = u % k.rows - top;                                                           \
      uint16_t *const at = to + u * row;                                                                       \
      const bool out = y < 0 || y >= k.h;                                                                      \
      const ix first = out ? row : (ix)k.left * k.col, last = out ? row : first + (ix)k.w * k.col;             \
      for (ix i = 0; i < first; i++) at[i] = 0;                                                                \
      for (ix i = last; i < row; i++) at[i] = 0;                                                               \
      if (out) continue;                                                                                       \
      const FROM *xr = x + y * k.sy + (k.cb >= k.c ? b * k.col : b * k.col / k.cb * k.sc);                    \
      if (k.c - b * k.col >= k.col) of_narrow_row_##KIND(k, k.col, xr, at + first);                            \
      else of_narrow_row_##KIND(k, k.c % k.col, xr, at + first);                                               \
    }                                                                                                          \
  }
OF_NARROW_IMAGE(bf16_f32, float)
OF_NARROW_IMAGE(bf16_bf16, of_bf16)
OF_NARROW_IMAGE(f16_f32, float)

// -- one pair at a time ----------------------------------------------------------------------------------------------

// acc[lane] += x[0] w[lane][0] + x[1] w[lane][1]
AI of_vf of_pair_bf16(of_vf acc, const uint16_t *x, const uint16_t *w) {
#if defined(__AVX512BF16__)
  int32_t q;
  __builtin_memcpy(&q, x, 4);
  return (of_vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_set1_epi32(q), (__m512bh)_mm512_load_si512(w));
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
  uint32_t q;
  __builtin_memcpy(&q, x, 4);
  return (of_vf)vbfdotq_f32((float32x4_t)acc, vreinterpretq_bf16_u16(vld1q_u16(w)),
                            vreinterpretq_bf16_u32(vdupq_n_u32(q)));
#else  // never chosen; the same in plain C
  for (int l = 0; l < OF_LANES; l++)
    for (int j = 0; j < 2; j++) acc[l] += of_bf16_to_f32(x[j]) * of_bf16_to_f32(w[l * 2 + j]);
  return acc;
#endif
}

// the same, weights [2][lanes]
AI of_vf of_pair_f16(of_vf acc, const uint16_t *x, const uint16_t *w) {
#if defined(__ARM_FEATURE_FP16_FML)
  const float16x8_t wv = vreinterpretq_f16_u16(vld1q_u16(w));
  uint32_t q;
  __builtin_memcpy(&q, x, 4);
  const float16x4_t xv = vreinterpret_f16_u32(vdup_n_u32(q));
  return (of_vf)vfmlalq_lane_high_f16(vfmlalq_lane_low_f16((float32x4_t)acc, wv, xv, 0), wv, xv, 1);
#else
  for (int j = 0; j < 2; j++) {
    of_vf wv;
    for (int l = 0; l < OF_LANES; l++) wv[l] = of_f16_to_f32(w[j * OF_LANES + l]);
    acc += of_f16_to_f32(x[j]) * wv;
  }
  return acc;
#endif
}

// out[B][T][lanes]: the sums of T columns from ox on of row oy, on top of bias[B][lanes]; x is the prepared image
#define OF_NARROW_TILE(KIND)                                                                                      \
  AI void of_narrow_tile_##KIND(const struct of_narrow k, const int T, const int B, ix oy, ix ox, const void *x,  \
                                const uint16_t *w, const float *bias, float *out) {                               \
    of_vf acc[OF_MAX_B][OF_MAX_T];                                                                                \
    OF_UNROLL for (int b = 0; b < B; b++)                                                                         \
      OF_UNROLL for (int t = 0; t < T; t++) acc[b][t] = *(const of_vf *)(bias + b * OF_LANES);                    \
    const char *const at = (const char *)x + oy * k.sh * k.row + ox * k.sw * k.col;                               \
    for (int i = 0; i < k.blocks; i++)                                                                            \
      for (int ky = 0; ky < k.kh; ky++)                                                                           \
        for (int kx = 0; kx < k.kw; kx++) {                                                                       \
          const char *xr = at + i * k.block + ky * k.dh * k.row + kx * k.dw * k.col;                              \
          OF_UNROLL4 for (int j = 0; j < k.pairs; j++, xr += 4, w += B * OF_LANES * 2)                            \
            OF_UNROLL for (int t = 0; t < T; t++)                                                                 \
              OF_UNROLL for (int b = 0; b < B; b++)                                                               \
                acc[b][t] = of_pair_##KIND(acc[b][t], (const uint16_t *)(xr + t * k.sw * k.col),                   \
                                          w + b * OF_LANES * 2);                                                  \
        }                                                                                                         \
    OF_UNROLL for (int b = 0; b < B; b++)                                                                         \
      OF_UNROLL for (int t = 0; t < T; t++) *(of_vf *)(out + (b * T + t) * OF_LANES) = acc[b][t];                 \
  }
OF_NARROW_TILE(bf16)
OF_NARROW_TILE(f16)
