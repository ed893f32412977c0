// Largest elements and means over windows of channel blocks x[h][w][lanes]: T output columns of one row for one block.
// Rows outside of the input are skipped at run time, columns outside where EDGE is set, at compile time if `ox` is a
// constant.
#pragma once
#include "of_vec.h"
#include "of_window.h"

// The larger one of every lane; not a number once one is.
AI of_vf of_larger(const of_vf a, const of_vf b) {
  const of_vu take = (of_vu)(b > a) | (of_vu)(b != b);
  return (of_vf)(((of_vu)b & take) | ((of_vu)a & ~take));
}

// Elements of a window from `first` on that lie in [0, size).
AI int of_pool_inside(ix first, const int elements, const int step, ix size) {
  int n = 0;
  OF_UNROLL for (int i = 0; i < elements; i++) n += first + i * step >= 0 && first + i * step < size;
  return n;
}

// COUNTED: the elements of a window by which its sum is divided, or 0: those inside of the input
#define OF_POOL(KIND, TYPE)                                                                                           \
  AI void of_pool_tile_##KIND(const struct of_window k, const bool LARGEST, const int COUNTED, const int T,           \
                              const int EDGE, ix oy, ix ox, const TYPE *x, float *out) {                              \
    of_vf acc[OF_MAX_T];                                                                                              \
    OF_UNROLL for (int t = 0; t < T; t++) acc[t] = (of_vf){0} + (LARGEST ? -OF_INF_F32 : 0.0f);                       \
    const ix y0 = oy * k.sh - k.pt, x0 = ox * k.sw - k.pl;                                                            \
    for (int ky = 0; ky < k.kh; ky++) {                                                                               \
      const ix y = y0 + ky * k.dh;                                                                                    \
      if (y < 0 || y >= k.h) continue;                                                                                \
      const TYPE *xr = x + y * k.w * OF_LANES;                                                                        \
      OF_UNROLL for (int kx = 0; kx < k.kw; kx++)                                                                     \
        OF_UNROLL for (int t = 0; t < T; t++) {                                                                       \
          const ix at = x0 + t * k.sw + kx * k.dw;                                                                    \
          if (EDGE && (at < 0 || at >= k.w)) continue;                                                                \
          const of_vf v = of_vector_##KIND(xr + at * OF_LANES);                                                       \
          if (LARGEST) acc[t] = of_larger(acc[t], v);                                                                 \
          else acc[t] += v;                                                                                           \
        }                                                                                                             \
    }                                                                                                                 \
    const int rows = LARGEST || COUNTED ? 1 : of_pool_inside(y0, k.kh, k.dh, k.h);                                    \
    OF_UNROLL for (int t = 0; t < T; t++) {                                                                           \
      if (!LARGEST) {                                                                                                 \
        const int columns = !EDGE ? k.kw : of_pool_inside(x0 + t * k.sw, k.kw, k.dw, k.w);                            \
        acc[t] /= (float)(COUNTED ? COUNTED : rows * columns);                                                        \
      }                                                                                                               \
      *(of_vf *)(out + t * OF_LANES) = acc[t];                                                                        \
    }                                                                                                                 \
  }
OF_POOL(f32, float)
OF_POOL(bf16, of_bf16)
