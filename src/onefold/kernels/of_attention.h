// Rows of scaled dot-product attention.
#pragma once
#include "of_program.h"

#define OF_PLAIN(x) (x)

// S: storage type's name, T: storage type, C: compute type
#define OF_ATTENTION(S, T, C, LOAD)                                                                    \
  /* sum of a[i] b[i]; eight partial sums, so that the loop vectorises */                              \
  AI C of_dot_##S(const C *restrict a, const T *restrict b, ix n) {                                    \
    C part[8] = {0};                                                                                   \
    ix i = 0;                                                                                          \
    for (; i + 8 <= n; i += 8)                                                                         \
      for (ix l = 0; l < 8; l++) part[l] += a[i + l] * LOAD(b[i + l]);                                 \
    C sum = ((part[0] + part[4]) + (part[1] + part[5])) + ((part[2] + part[6]) + (part[3] + part[7])); \
    for (; i < n; i++) sum += a[i] * LOAD(b[i]);                                                       \
    return sum;                                                                                        \
  }                                                                                                    \
  /* acc[i] += w x[i] */                                                                               \
  AI void of_add_scaled_##S(C *restrict acc, C w, const T *restrict x, ix n) {                         \
    for (ix i = 0; i < n; i++) acc[i] += w * LOAD(x[i]);                                               \
  }

OF_ATTENTION(f32, float, float, OF_PLAIN)
OF_ATTENTION(f64, double, double, OF_PLAIN)
OF_ATTENTION(f16, of_f16, float, of_f16_to_f32)
OF_ATTENTION(bf16, of_bf16, float, of_bf16_to_f32)
#undef OF_ATTENTION
#undef OF_PLAIN
