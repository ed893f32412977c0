// Inner products and activations of recurrent cells.
//
// Weights are stored [inputs, gates * hidden], so that the inner loop runs along the hidden dimension and vectorises
// without reassociating any sum.
#pragma once
#include "of_program.h"

#define OF_PLAIN_LOAD(x) (x)

// S: storage type's name, T: storage type, C: compute type
#define OF_RECURRENT(S, T, C, LOAD)                                                                    \
  /* acc[j] += sum over i of x[i] w[i][from + j], 0 <= j < n; rows of w are `stride` apart */          \
  AI void of_add_product_##S(C *restrict acc, const T *restrict w, const C *restrict x, ix m, ix n,    \
                             ix stride) {                                                              \
    for (ix i = 0; i < m; i++) {                                                                       \
      const C v = x[i];                                                                                \
      for (ix j = 0; j < n; j++) acc[j] += v * LOAD(w[i * stride + j]);                                \
    }                                                                                                  \
  }                                                                                                    \
  AI void of_widen_##S(C *restrict to, const T *restrict from, ix n) {                                 \
    for (ix i = 0; i < n; i++) to[i] = LOAD(from[i]);                                                  \
  }

OF_RECURRENT(f32, float, float, OF_PLAIN_LOAD)
OF_RECURRENT(f64, double, double, OF_PLAIN_LOAD)
OF_RECURRENT(f16, of_f16, float, of_f16_to_f32)
OF_RECURRENT(bf16, of_bf16, float, of_bf16_to_f32)
#undef OF_RECURRENT
#undef OF_PLAIN_LOAD
