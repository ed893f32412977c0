// The discrete Fourier transform of signals that lie interleaved: [re, im][points][lanes]. Stockham's order: each stage
// reads one buffer and writes the other, and its innermost loop runs over neighbours that share their factor: first the
// lanes, then more at each stage. By fours while the length has them, then by its smallest factors.
#pragma once
#include "of_program.h"

// T: type. table[k] = exp(-2 pi i k / n) as (re, im) pairs, an eighth of which is computed; sign -1 conjugates it.
// A stage makes of `m` times `r` points, `s` neighbours each, as many; `step` times `r m` is the size of the table, and
// `im` lies so many elements behind `re`.
#define OF_DFT(S, T)                                                                                   \
  OF_COLD void of_dft_table_##S(T *restrict table, ix n) {                                             \
    const ix computed = n % 8 == 0 ? n / 8 + 1 : n % 4 == 0 ? n / 4 : n;                               \
    for (ix k = 0; k < computed; k++) {                                                                \
      const double a = 6.283185307179586476925 * (double)k / (double)n;                                \
      table[2 * k] = (T)of_cos_f64(a);                                                                 \
      table[2 * k + 1] = (T)-of_sin_f64(a);                                                            \
    }                                                                                                  \
    for (ix k = n % 8 == 0 ? computed : n / 4; k < n / 4; k++) {                                       \
      table[2 * k] = -table[2 * (n / 4 - k) + 1];                                                      \
      table[2 * k + 1] = -table[2 * (n / 4 - k)];                                                      \
    }                                                                                                  \
    for (ix k = n % 4 == 0 ? n / 4 : n; k < n; k++) {                                                  \
      table[2 * k] = table[2 * (k - n / 4) + 1];                                                       \
      table[2 * k + 1] = -table[2 * (k - n / 4)];                                                      \
    }                                                                                                  \
  }                                                                                                    \
  OF_COLD void of_dft_by_4_##S(const T *restrict x, T *restrict y, const T *restrict table, ix m, ix s, \
                               ix step, ix im, T sign) {                                               \
    for (ix p = 0; p < m; p++) {                                                                       \
      const T *const w = table, *const a = x + p * s;                                                  \
      const T c1 = w[2 * p * step], s1 = sign * w[2 * p * step + 1];                                   \
      const T c2 = w[4 * p * step], s2 = sign * w[4 * p * step + 1];                                   \
      const T c3 = w[6 * p * step], s3 = sign * w[6 * p * step + 1];                                   \
      T *const to = y + 4 * p * s;                                                                     \
      const ix d = m * s;                                                                              \
      OF_SIMD for (ix q = 0; q < s; q++) {                                                             \
        const T sr = a[q] + a[q + 2 * d], si = a[q + im] + a[q + 2 * d + im];                          \
        const T dr = a[q] - a[q + 2 * d], di = a[q + im] - a[q + 2 * d + im];                          \
        const T tr = a[q + d] + a[q + 3 * d], ti = a[q + d + im] + a[q + 3 * d + im];                  \
        const T ur = sign * (a[q + d + im] - a[q + 3 * d + im]), ui = sign * (a[q + 3 * d] - a[q + d]); \
        const T fr = dr + ur, fi = di + ui, gr = sr - tr, gi = si - ti, hr = dr - ur, hi = di - ui;    \
        to[q] = sr + tr;                                                                               \
        to[q + im] = si + ti;                                                                          \
        to[q + s] = c1 * fr - s1 * fi;                                                                 \
        to[q + s + im] = c1 * fi + s1 * fr;                                                            \
        to[q + 2 * s] = c2 * gr - s2 * gi;                                                             \
        to[q + 2 * s + im] = c2 * gi + s2 * gr;                                                        \
        to[q + 3 * s] = c3 * hr - s3 * hi;                                                             \
        to[q + 3 * s + im] = c3 * hi + s3 * hr;                                                        \
      }                                                                                                \
    }                                                                                                  \
  }                                                                                                    \
  OF_COLD void of_dft_by_##S(const T *restrict x, T *restrict y, const T *restrict table, ix r, ix m, ix s, \
                             ix step, ix im, T sign) {                                                 \
    const ix size = r * m * step;                                                                      \
    for (ix p = 0; p < m; p++)                                                                         \
      for (ix k = 0; k < r; k++) {                                                                     \
        T *const to = y + (p * r + k) * s;                                                             \
        ix at = p * k * step;                                                                          \
        for (ix j = 0; j < r; j++) {                                                                   \
          const T *const a = x + (j * m + p) * s;                                                      \
          const T c = table[2 * at], d = sign * table[2 * at + 1];                                     \
          if (j == 0)                                                                                  \
            OF_SIMD for (ix q = 0; q < s; q++) {                                                       \
              to[q] = c * a[q] - d * a[q + im];                                                        \
              to[q + im] = c * a[q + im] + d * a[q];                                                   \
            }                                                                                          \
          else                                                                                         \
            OF_SIMD for (ix q = 0; q < s; q++) {                                                       \
              to[q] += c * a[q] - d * a[q + im];                                                       \
              to[q + im] += c * a[q + im] + d * a[q];                                                  \
            }                                                                                          \
          at += k * m * step;                                                                          \
          at -= at >= size ? size : 0;                                                                 \
        }                                                                                              \
      }                                                                                                \
  }                                                                                                    \
  /* n points of `lanes` signals; the table has `size`, a multiple; which of the buffers has the spectrum */ \
  OF_COLD T *of_dft_##S(T *x, T *y, const T *table, ix n, ix lanes, ix size, T sign) {                 \
    const ix im = n * lanes;                                                                           \
    for (ix left = n, s = lanes, r; left > 1; left /= r, s *= r) {                                     \
      r = left % 4 == 0 ? 4 : 2;                                                                       \
      while (left % r != 0) r = r * r > left ? left : r + 1;                                           \
      if (r == 4) of_dft_by_4_##S(x, y, table, left / r, s, size / left, im, sign);                    \
      else of_dft_by_##S(x, y, table, r, left / r, s, size / left, im, sign);                          \
      T *const last = x;                                                                               \
      x = y, y = last;                                                                                 \
    }                                                                                                  \
    return x;                                                                                          \
  }                                                                                                    \
  /* The first half of the spectrum, n / 2 + 1 points, of n reals of which the even ones were `re`, the odd ones `im` \
     of x, which is n / 2 points of their spectrum. */                                                 \
  OF_COLD T *of_dft_real_##S(const T *restrict x, T *restrict y, const T *restrict table, ix n, ix lanes) { \
    const ix h = n / 2, im = h * lanes, to_im = (h + 1) * lanes;                                       \
    for (ix k = 0; k <= h; k++) {                                                                      \
      const T *const a = x + k % h * lanes, *const b = x + (h - k) % h * lanes;                        \
      const T c = table[2 * k], d = table[2 * k + 1];                                                  \
      T *const to = y + k * lanes;                                                                     \
      OF_SIMD for (ix l = 0; l < lanes; l++) {                                                         \
        const T sr = a[l] + b[l], si = a[l + im] - b[l + im];                                          \
        const T dr = a[l] - b[l], di = a[l + im] + b[l + im];                                          \
        to[l] = (T)0.5 * (sr + (c * di + d * dr));                                                     \
        to[l + to_im] = (T)0.5 * (si - (c * dr - d * di));                                             \
      }                                                                                                \
    }                                                                                                  \
    return y;                                                                                          \
  }

OF_DFT(f32, float)
OF_DFT(f64, double)
#undef OF_DFT
