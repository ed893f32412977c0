// Products of rows of f32 with weights of 4 or 8 bits, which are widened in registers: memory is read at 4 or 8 bits.
//
// Weights are signed. A lane's weights of 4 bits lie in words of eight, the first one in the lowest bits, packed
// [word][B][lanes]; those of 8 bits lie [k][B][lanes]. Blocks of `block` products have a scale each, [block][B][lanes].
#pragma once
#include "of_sums.h"
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

typedef int32_t of_vwords __attribute__((vector_size(OF_LANES * 4), may_alias));
typedef int8_t of_vbytes __attribute__((vector_size(OF_LANES), may_alias));

struct of_bits {
  int bits;
  ix k, block;
};

// Weight j of every word.
AI of_vf of_widen_four(of_vwords w, int j) {
#if defined(__AVX512F__)
  const of_vf each = {0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1};
  return (of_vf)_mm512_permutexvar_ps((__m512i)(w >> 4 * j), (__m512)each);
#else
  return __builtin_convertvector((w << (28 - 4 * j)) >> 28, of_vf);
#endif
}

// acc[B][T] += the eight products of words.
AI void of_bits_words(const int T, const int B, const float *x, ix xs, const int32_t *w,
                      of_vf acc[OF_MAX_B][OF_MAX_T]) {
  of_vwords wv[OF_MAX_B];
  OF_UNROLL for (int b = 0; b < B; b++) wv[b] = *(const of_vwords *)(w + b * OF_LANES);
  OF_UNROLL for (int j = 0; j < 8; j++) {
    OF_UNROLL for (int b = 0; b < B; b++) {
      const of_vf wide = of_widen_four(wv[b], j);
      OF_UNROLL for (int t = 0; t < T; t++) acc[b][t] += x[t * xs + j] * wide;
    }
  }
}

// acc[B][T] += one product of bytes.
AI void of_bits_bytes(const int T, const int B, const float *x, ix xs, const int8_t *w,
                      of_vf acc[OF_MAX_B][OF_MAX_T]) {
  OF_UNROLL for (int b = 0; b < B; b++) {
    const of_vf wide = __builtin_convertvector(*(const of_vbytes *)(w + b * OF_LANES), of_vf);
    OF_UNROLL for (int t = 0; t < T; t++) acc[b][t] += x[t * xs] * wide;
  }
}

// sums[rows][blocks] of the elements of every block of x; for weights whose zero is not zero.
AI void of_bits_sums(const struct of_bits k, ix rows, const float *x, float *sums) {
  for (ix r = 0; r < rows; r++, x += k.k)
    for (ix from = 0; from < k.k; from += k.block) {
      const ix end = of_min_ix(from + k.block, k.k);
      float part[8] = {0}, sum = 0.0f;
      ix i = from;
      for (; i + 8 <= end; i += 8)
        for (int l = 0; l < 8; l++) part[l] += x[i + l];
      for (; i < end; i++) sum += x[i];
      for (int l = 0; l < 8; l++) sum += part[l];
      *sums++ = sum;
    }
}

// out[B][T][lanes]: the products of T rows of k.k elements, on top of bias[B][lanes]; zero[block][B][lanes] times the
// sums of the rows' blocks is taken off, where there is one.
AI void of_bits_tile(const struct of_bits k, const int T, const int B, const float *x, const void *w,
                     const float *scale, const float *zero, const float *sums, const float *bias, float *out) {
  const int32_t *words = w;
  const int8_t *bytes = w;
  const ix blocks = (k.k + k.block - 1) / k.block;
  of_sums_bias(T, B, bias, out);
  for (ix n = 0; n < blocks; n++, scale += B * OF_LANES) {
    of_vf acc[OF_MAX_B][OF_MAX_T];
    of_sums_begin(T, B, acc);
    const ix end = of_min_ix((n + 1) * k.block, k.k);
    ix i = n * k.block;
    if (k.bits == 4) {
      OF_ROLLED for (; i + 8 <= end; i += 8, words += B * OF_LANES) of_bits_words(T, B, x + i, k.k, words, acc);
      if (i < end) {
        for (int j = 0; i + j < end; j++)
          OF_UNROLL for (int b = 0; b < B; b++) {
            const of_vf wide = of_widen_four(*(const of_vwords *)(words + b * OF_LANES), j);
            OF_UNROLL for (int t = 0; t < T; t++) acc[b][t] += x[t * k.k + i + j] * wide;
          }
        words += B * OF_LANES;
      }
    } else {
      OF_UNROLL4 for (; i < end; i++, bytes += B * OF_LANES) of_bits_bytes(T, B, x + i, k.k, bytes, acc);
    }
    OF_UNROLL for (int b = 0; b < B; b++) {
      const of_vf by = *(const of_vf *)(scale + b * OF_LANES);
      OF_UNROLL for (int t = 0; t < T; t++) {
        of_vf *to = (of_vf *)(out + (b * T + t) * OF_LANES);
        *to += acc[b][t] * by;
        if (zero) *to -= sums[t * blocks + n] * *(const of_vf *)(zero + b * OF_LANES);
      }
    }
    if (zero) zero += B * OF_LANES;
  }
}
