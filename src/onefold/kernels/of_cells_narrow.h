// Recurrent cells whose hidden state meets its weights in bf16 or f16; the sums are f32. A step reads half of the bytes
// that it reads in f32 (see of_cells.h).
#pragma once
#include "of_conv_narrow.h"

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
