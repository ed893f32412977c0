// Winograd's minimal filtering F(n x n, 3 x 3), n = 2 or 4, of channel blocks x[h][w][lanes] with strides of one
// (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015): tiles of the input are transformed,
// multiplied channel by channel in (n + 2)^2 small matrix products, and transformed back. `p` tiles are worked on at a
// time, so that what lies between the transforms stays in the cache.
#pragma once
#include "of_sums.h"

struct of_winograd {
  int n, ic;          // width of a tile of the output; input channels
  int h, w, pt, pl;   // input, and its padding
  int across, p;      // tiles in a row of tiles; tiles at a time
  int vstep, mstep;   // elements from one point of v and m to the next
};

// Points 0, 1/sqrt(2), -1/sqrt(2), sqrt(2), -sqrt(2) and infinity: half the rounding errors of 0, 1, -1, 2, -2.
#define OF_R2 1.41421356237309504880f
#define OF_H2 0.70710678118654752440f
static const float OF_BT4[6][6] = {{1, 0, -2.5f, 0, 1, 0},       {0, -OF_R2, -2, OF_H2, 1, 0},
                                   {0, OF_R2, -2, -OF_H2, 1, 0}, {0, -OF_H2, -0.5f, OF_R2, 1, 0},
                                   {0, OF_H2, -0.5f, -OF_R2, 1, 0}, {0, 1, 0, -2.5f, 0, 1}};
static const float OF_AT4[4][6] = {{1, 1, 1, 1, 1, 0},
                                   {0, OF_H2, -OF_H2, OF_R2, -OF_R2, 0},
                                   {0, 0.5f, 0.5f, 2, 2, 0},
                                   {0, 0.5f * OF_H2, -0.5f * OF_H2, 2 * OF_R2, -2 * OF_R2, 1}};
static const float OF_BT2[4][4] = {{-1, 0, 1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, -1, 0, 1}};  // points 0, 1, -1
static const float OF_AT2[2][4] = {{1, 1, 1, 0}, {0, 1, -1, 1}};

// y[i] = sum over j of m[i][j] x[j], for a constant matrix: zeros and ones cost nothing.
AI void of_winograd_apply(const int rows, const int cols, const float *m, const of_vf *x, const int xs, of_vf *y,
                          const int ys) {
  OF_UNROLL for (int i = 0; i < rows; i++) {
    of_vf sum = {0};
    bool begun = false;
    OF_UNROLL for (int j = 0; j < cols; j++) {
      const float c = m[i * cols + j];
      if (c == 0) continue;
      sum = begun ? sum + c * x[j * xs] : c * x[j * xs];
      begun = true;
    }
    y[i * ys] = sum;
  }
}

// One tile of one block of channels into v[(n + 2)^2], `step` elements apart. The rows and columns of a tile are loops:
// unrolled, they would need three times the registers there are.
AI void of_winograd_spread_tile(const struct of_winograd k, const float *x, ix y0, ix x0, const ix step, float *v) {
  const int a = k.n + 2;
  of_vf e[36], d[6], r[6], edge[36];
  const float *from = x + (y0 * k.w + x0) * OF_LANES;
  ix row = (ix)k.w * OF_LANES;
  if (y0 < 0 || x0 < 0 || y0 + a > k.h || x0 + a > k.w) {
    for (int i = 0; i < a; i++)
      for (int j = 0; j < a; j++) {
        const bool in = y0 + i >= 0 && y0 + i < k.h && x0 + j >= 0 && x0 + j < k.w;
        edge[i * a + j] = in ? *(const of_vf *)(x + ((y0 + i) * k.w + x0 + j) * OF_LANES) : (of_vf){0};
      }
    from = (const float *)edge;
    row = (ix)a * OF_LANES;
  }
  const float *bt = k.n == 4 ? OF_BT4[0] : OF_BT2[0];
  OF_ROLLED for (int j = 0; j < a; j++) {
    OF_UNROLL for (int i = 0; i < a; i++) d[i] = *(const of_vf *)(from + i * row + j * OF_LANES);
    of_winograd_apply(a, a, bt, d, 1, r, 1);
    OF_UNROLL for (int i = 0; i < a; i++) e[i * a + j] = r[i];
  }
  OF_ROLLED for (int i = 0; i < a; i++) {
    of_winograd_apply(a, a, bt, e + i * a, 1, r, 1);
    OF_UNROLL for (int j = 0; j < a; j++) *(of_vf *)(v + (i * a + j) * step) = r[j];
  }
}

// Tiles [first, first + used) of all channels: v[(n + 2)^2][blocks][p][lanes]
AI void of_winograd_spread(const struct of_winograd k, ix first, ix used, const float *x, float *v) {
  const ix blocks = (k.ic + OF_LANES - 1) / OF_LANES;
  for (ix b = 0; b < blocks; b++)
    for (ix t = 0; t < used; t++)
      of_winograd_spread_tile(k, x + b * k.h * k.w * OF_LANES, (first + t) / k.across * k.n - k.pt,
                              (first + t) % k.across * k.n - k.pl, k.vstep, v + (b * k.p + t) * OF_LANES);
}

// m[B][p][lanes], T tiles of it: the sums over channels of v[blocks][p][lanes] and w[ic][B][lanes]
AI void of_winograd_product(const struct of_winograd k, const int T, const int B, const float *v, const float *w,
                            struct of_stream ahead, float *m) {
  of_vf acc[OF_MAX_B][OF_MAX_T];
  of_sums_begin(T, B, acc);
  const struct of_columns at = {0, 1, T, OF_LANES};
  if (OF_LANES == OF_TAKEN) {
    of_sums_hops(T, B, 0, k.ic, k.p * OF_LANES, at, v, w, B * OF_LANES, OF_LANES, &ahead, acc);
  } else {
    for (ix i = 0; i < k.ic; i += OF_LANES) {
      const ix lanes = k.ic - i < OF_LANES ? k.ic - i : OF_LANES;
      of_sums(T, B, 0, lanes, at, v, w, B * OF_LANES, OF_LANES, &ahead, acc);
      v += k.p * OF_LANES;
      w += lanes * B * OF_LANES;
    }
  }
  OF_UNROLL for (int b = 0; b < B; b++)
    OF_UNROLL for (int t = 0; t < T; t++) *(of_vf *)(m + (b * k.p + t) * OF_LANES) = acc[b][t];
}

// out[n][n][lanes]: one tile of one block of channels from m[(n + 2)^2], on top of bias[lanes]
AI void of_winograd_gather(const struct of_winograd k, const float *m, const float *bias, float *out) {
  const int a = k.n + 2;
  const float *at = k.n == 4 ? OF_AT4[0] : OF_AT2[0];
  of_vf e[24], d[6], r[4];
  OF_ROLLED for (int j = 0; j < a; j++) {
    OF_UNROLL for (int i = 0; i < a; i++) d[i] = *(const of_vf *)(m + (i * a + j) * (ix)k.mstep);
    of_winograd_apply(k.n, a, at, d, 1, r, 1);
    OF_UNROLL for (int i = 0; i < k.n; i++) e[i * a + j] = r[i];
  }
  OF_ROLLED for (int i = 0; i < k.n; i++) {
    of_winograd_apply(k.n, a, at, e + i * a, 1, r, 1);
    OF_UNROLL for (int j = 0; j < k.n; j++)
      *(of_vf *)(out + (i * k.n + j) * OF_LANES) = r[j] + *(const of_vf *)bias;
  }
}
