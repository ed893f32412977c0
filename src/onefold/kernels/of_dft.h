// The discrete Fourier transform of one signal: by halves while the length is even, the definition for what is left.
#pragma once
#include "of_program.h"

// T: type. table[k] = exp(-2 pi i k / n) as (re, im) pairs; sign -1 conjugates it.
#define OF_DFT(S, T)                                                                                   \
  AI void of_dft_table_##S(T *restrict table, ix n) {                                                  \
    for (ix k = 0; k < n; k++) {                                                                       \
      const double a = 6.283185307179586476925 * (double)k / (double)n;                                \
      table[2 * k] = (T)of_cos_f64(a);                                                                 \
      table[2 * k + 1] = (T)-of_sin_f64(a);                                                            \
    }                                                                                                  \
  }                                                                                                    \
  /* y[0..m) of the m elements x[0], x[step], ...; the table has m * step = n entries */               \
  OF_COLD void of_dft_part_##S(T *restrict y, const T *restrict x, T *restrict work, const T *table,   \
                               ix m, ix step, ix n, T sign) {                                          \
    if (m > 1 && m % 2 == 0) {                                                                         \
      const ix h = m / 2;                                                                              \
      of_dft_part_##S(work, x, y, table, h, 2 * step, n, sign);                                        \
      of_dft_part_##S(work + m, x + 2 * step, y, table, h, 2 * step, n, sign);                         \
      for (ix k = 0; k < h; k++) {                                                                     \
        const T c = table[2 * k * step], s = sign * table[2 * k * step + 1];                           \
        const T re = work[m + 2 * k], im = work[m + 2 * k + 1];                                        \
        const T a = c * re - s * im, b = c * im + s * re;                                              \
        y[2 * k] = work[2 * k] + a;                                                                    \
        y[2 * k + 1] = work[2 * k + 1] + b;                                                            \
        y[2 * (k + h)] = work[2 * k] - a;                                                              \
        y[2 * (k + h) + 1] = work[2 * k + 1] - b;                                                      \
      }                                                                                                \
      return;                                                                                          \
    }                                                                                                  \
    for (ix k = 0; k < m; k++) {                                                                       \
      T re = 0, im = 0;                                                                                \
      for (ix j = 0; j < m; j++) {                                                                     \
        const ix at = 2 * (k * j % m * step);                                                          \
        const T c = table[at], s = sign * table[at + 1];                                               \
        const T u = x[2 * j * step], v = x[2 * j * step + 1];                                          \
        re += c * u - s * v;                                                                           \
        im += c * v + s * u;                                                                           \
      }                                                                                                \
      y[2 * k] = re;                                                                                   \
      y[2 * k + 1] = im;                                                                               \
    }                                                                                                  \
  }

OF_DFT(f32, float)
OF_DFT(f64, double)
#undef OF_DFT
