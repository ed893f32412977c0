// Functions of one byte by a table of 256, which vector units with byte permutes hold in registers.
#pragma once
#include "of_vec.h"
#if defined(__AVX512VBMI__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

// y[i] = table[x[i] ^ flip]: flip is 128 for signed bytes, whose table begins at the smallest
AI void of_lookup(const uint8_t *x, const uint8_t *table, const uint8_t flip, ix from, ix to, uint8_t *y) {
  ix i = from;
#if defined(__AVX512VBMI__)
  const __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64);
  const __m512i t2 = _mm512_loadu_si512(table + 128), t3 = _mm512_loadu_si512(table + 192);
  const __m512i turn = _mm512_set1_epi8((char)flip);
  for (; i + 64 <= to; i += 64) {
    const __m512i v = _mm512_xor_si512(_mm512_loadu_si512(x + i), turn);
    const __m512i low = _mm512_permutex2var_epi8(t0, v, t1), high = _mm512_permutex2var_epi8(t2, v, t3);
    _mm512_storeu_si512(y + i, _mm512_mask_blend_epi8(_mm512_movepi8_mask(v), low, high));
  }
#elif defined(__aarch64__)
  const uint8x16x4_t t0 = vld1q_u8_x4(table), t1 = vld1q_u8_x4(table + 64);
  const uint8x16x4_t t2 = vld1q_u8_x4(table + 128), t3 = vld1q_u8_x4(table + 192);
  const uint8x16_t turn = vdupq_n_u8(flip), step = vdupq_n_u8(64);
  for (; i + 16 <= to; i += 16) {
    uint8x16_t v = veorq_u8(vld1q_u8(x + i), turn);
    uint8x16_t r = vqtbl4q_u8(t0, v);
    r = vqtbx4q_u8(r, t1, v = vsubq_u8(v, step));
    r = vqtbx4q_u8(r, t2, v = vsubq_u8(v, step));
    vst1q_u8(y + i, vqtbx4q_u8(r, t3, vsubq_u8(v, step)));
  }
#endif
  for (; i < to; i++) y[i] = table[x[i] ^ flip];
}
