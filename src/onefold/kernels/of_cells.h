// Recurrent cells in vectors: what a step adds to the products of its input.
#pragma once
#include "of_vec.h"

// sum[B] += h[from .. end) w, row by row, upwards or downwards
AI void of_cell_rows(const ix from, const ix end, const bool back, const int B, const float *restrict h,
                     const float *restrict w, of_vf sum[OF_MAX_B]) {
  OF_UNROLL4 for (ix k = from; k < end; k++) {
    const ix i = back ? from + end - 1 - k : k;
    OF_UNROLL for (int b = 0; b < B; b++) sum[b] += h[i] * *(const of_vf *)(w + (i * B + b) * OF_LANES);
  }
}

// acc[B][lanes] = h[0 .. n) w, for weights packed [n][B][lanes]. Every step reads all weights again, from the second
// cache: B sums at once hide the latency of the multiply-adds, and a step that goes the other way than the one before
// finds the last weights of that one in the first cache. Rows begin in the middle: the hidden units that the step
// before computed last lie at one of the ends.
AI void of_cell_sums(const ix n, const int B, bool back, const float *restrict h, const float *restrict w,
                     float *restrict acc) {
  of_vf sum[OF_MAX_B];
  OF_UNROLL for (int b = 0; b < B; b++) sum[b] = (of_vf){0};
  if (back) {
    of_cell_rows(0, n / 2, true, B, h, w, sum);
    of_cell_rows(n / 2, n, true, B, h, w, sum);
  } else {
    of_cell_rows(n / 2, n, false, B, h, w, sum);
    of_cell_rows(0, n / 2, false, B, h, w, sum);
  }
  OF_UNROLL for (int b = 0; b < B; b++) *(of_vf *)(acc + b * OF_LANES) = sum[b];
}
