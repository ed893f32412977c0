// Recurrent cells whose hidden state meets its weights in bf16 or f16; the sums are f32. A step reads half of the bytes
// that it reads in f32 (see of_cells.h).
#pragma once
#include "of_conv_narrow.h"

// 1 / (1 + e^x) within 2e-5, which is little beside the rounding of the sums: e^x by a polynomial, its inverse by a first
// guess and two steps of Newton's. Not a number stays that.
AI float of_below_rough(float x) {
  float t = x * 1.44269504f;
  t = t < -60.0f ? -60.0f : t;
  t = t > 60.0f ? 60.0f : t;
  const float n = t + 0x1.8p23f, r = t - (n - 0x1.8p23f);
  float p = r * 9.5701021e-03f + 5.5917863e-02f;
  p = p * r + 2.4024744e-01f;
  p = p * r + 6.9312179e-01f;
  p = p * r + 9.9999928e-01f;
  uint32_t bits, whole;
  __builtin_memcpy(&bits, &p, 4);
  __builtin_memcpy(&whole, &n, 4);
  bits += whole << 23;
  __builtin_memcpy(&p, &bits, 4);
  const float d = p + 1.0f;
  __builtin_memcpy(&bits, &d, 4);
  bits = 0x7ef31000u - bits;
  float y;
  __builtin_memcpy(&y, &bits, 4);
  y = y * (2.0f - d * y);
  return y * (2.0f - d * y);
}
AI float of_sigmoid_rough(float x) { return of_below_rough(-x); }
AI float of_tanh_rough(float x) { return 1.0f - 2.0f * of_below_rough(2.0f * x); }

#define OF_CELLS(KIND)                                                                                              \
  /* to[n filled up to 32] */                                                                                       \
  AI void of_cell_round_##KIND(const ix n, const float *h, uint16_t *to) {                                          \
    for (ix j = 0; j < n; j += 32) {                                                                                \
      const int left = (int)(n - j);                                                                                \
      of_narrow_32_##KIND##_f32(h + j, left < 16 ? left : 16, h + j + (left < 16 ? 0 : 16),                         \
                                left < 16 ? 0 : left < 32 ? left - 16 : 16, to + j);                                \
    }                                                                                                               \
  }                                                                                                                 \
  /* acc[B][lanes] = h w, for weights [n][B] of pairs; upwards or downwards, so that the last weights of the step   \
     before are met first */                                                                                        \
  AI void of_cell_sums_##KIND(const ix n, const int B, bool back, const uint16_t *h, const uint16_t *w, float *acc) { \
    of_vf sum[OF_MAX_B];                                                                                            \
    OF_UNROLL for (int b = 0; b < B; b++) sum[b] = (of_vf){0};                                                      \
    OF_UNROLL4 for (ix k = 0; k < n; k++) {                                                                         \
      const ix i = back ? n - 1 - k : k;                                                                            \
      OF_UNROLL for (int b = 0; b < B; b++)                                                                         \
        sum[b] = of_pair_##KIND(sum[b], h + i * 2, w + (i * B + b) * OF_LANES * 2);                                 \
    }                                                                                                               \
    OF_UNROLL for (int b = 0; b < B; b++) *(of_vf *)(acc + b * OF_LANES) = sum[b];                                  \
  }
OF_CELLS(bf16)
OF_CELLS(f16)
#undef OF_CELLS
