// Depthwise convolution of channel blocks x[h][w][lanes]: T output columns of one row for one block. Rows outside of
// the input are skipped at run time, columns outside where EDGE is set, at compile time if `ox` is a constant.
#pragma once
#include "of_vec.h"
#include "of_window.h"

// Weights are [kh][kw][lanes]; out[T][lanes] is the sum and bias[lanes], which comes last: it may be large.
#define OF_DEPTHWISE(KIND, TYPE)                                                                                      \
  AI void of_depthwise_tile_##KIND(const struct of_window k, const int T, const int EDGE, ix oy, ix ox,               \
                                   const TYPE *x, const float *w, const float *bias, float *out) {                    \
    of_vf acc[OF_MAX_T];                                                                                              \
    OF_UNROLL for (int t = 0; t < T; t++) acc[t] = (of_vf){0};                                                        \
    const ix y0 = oy * k.sh - k.pt, x0 = ox * k.sw - k.pl;                                                            \
    for (int ky = 0; ky < k.kh; ky++) {                                                                               \
      const ix y = y0 + ky * k.dh;                                                                                    \
      if (y < 0 || y >= k.h) continue;                                                                                \
      const TYPE *xr = x + y * k.w * OF_LANES;                                                                        \
      const float *wr = w + ky * k.kw * OF_LANES;                                                                     \
      OF_UNROLL for (int kx = 0; kx < k.kw; kx++) {                                                                   \
        const of_vf wv = *(const of_vf *)(wr + kx * OF_LANES);                                                        \
        OF_UNROLL for (int t = 0; t < T; t++) {                                                                       \
          const ix at = x0 + t * k.sw + kx * k.dw;                                                                    \
          if (!EDGE || (at >= 0 && at < k.w)) acc[t] += wv * of_vector_##KIND(xr + at * OF_LANES);                    \
        }                                                                                                             \
      }                                                                                                               \
    }                                                                                                                 \
    OF_UNROLL for (int t = 0; t < T; t++) *(of_vf *)(out + t * OF_LANES) = acc[t] + *(const of_vf *)bias;             \
  }
OF_DEPTHWISE(f32, float)
OF_DEPTHWISE(bf16, of_bf16)
