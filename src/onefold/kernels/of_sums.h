// The innermost loops of all kernels of f32: sums of products of T columns and B vectors of weights, in registers.
#pragma once
#include "of_stream.h"

// Elements of a column that one load takes. Arm multiplies by any element of a register; x86 fills a register with an
// element on its way from memory.
#ifdef __aarch64__
enum { OF_TAKEN = 4 };
#else
enum { OF_TAKEN = 1 };
#endif

// Keeps the compiler from loading elements of a vector one by one.
#ifdef __aarch64__
#define OF_KEEP(vector) __asm__("" : "+w"(vector))
// Has `vector` loaded before `sum` is added to again: the compiler otherwise loads where it needs it, for the sake of
// fewer registers.
#define OF_BEFORE(vector, sum) __asm__("" : "+w"(vector), "+w"(sum))
#else
#define OF_KEEP(vector)
#define OF_BEFORE(vector, sum)
#endif

// Column t is number first + t * step of those that lie `size` elements apart. Where EDGE is set, those outside of
// [0, end) are left out.
struct of_columns { ix first; int step; ix end; ptrdiff_t size; };

// Whether column t is there.
AI bool of_sums_has(const struct of_columns k, const int EDGE, int t) {
  const ix at = k.first + t * k.step;
  return !EDGE || (at >= 0 && at < k.end);
}

// One element of each column times a row of weights, whose vectors lie `each` elements apart.
AI void of_sums_one(const int T, const int B, const int EDGE, const struct of_columns k, const float *x, const float *w,
                    const ix each, of_vf acc[OF_MAX_B][OF_MAX_T]) {
  of_vf wv[OF_MAX_B];
  OF_UNROLL for (int b = 0; b < B; b++) wv[b] = *(const of_vf *)(w + b * each);
  OF_UNROLL for (int t = 0; t < T; t++) {
    if (!of_sums_has(k, EDGE, t)) continue;
    OF_UNROLL for (int b = 0; b < B; b++) acc[b][t] += x[(k.first + t * k.step) * k.size] * wv[b];
  }
}

// The first OF_TAKEN elements of each column, and the first row of weights.
AI void of_sums_load(const int T, const int B, const int EDGE, const struct of_columns k, const float *x,
                     const float *w, const ix each, of_vf xv[OF_MAX_T], of_vf wv[OF_MAX_B]) {
  OF_UNROLL for (int b = 0; b < B; b++) wv[b] = *(const of_vf *)(w + b * each);
  OF_UNROLL for (int t = 0; t < T; t++)
    if (of_sums_has(k, EDGE, t)) xv[t] = *(const of_vfu *)(x + (k.first + t * k.step) * k.size);
}

// OF_TAKEN elements of each column in xv, times as many rows of weights, `row` elements apart, the first one in wv.
// For cores that execute in order everything is loaded a row before it is needed: weights, and the `next` elements of
// each column, if there are some, behind the last use of these; without, there are registers left to insist on it.
AI void of_sums_taken(const int T, const int B, const int EDGE, const struct of_columns k, const float *next,
                      const float *w, const ix row, const ix each, of_vf xv[OF_MAX_T],
                      of_vf wv[OF_MAX_B], of_vf acc[OF_MAX_B][OF_MAX_T]) {
  of_vf more[OF_MAX_B];
  OF_UNROLL for (int j = 0; j < OF_TAKEN; j++) {
    const bool last = !next && j + 1 == OF_TAKEN;
    OF_UNROLL for (int b = 0; b < B && !last; b++) more[b] = *(const of_vf *)(w + (j + 1) * row + b * each);
    OF_UNROLL for (int t = 0; t < T; t++) {
      if (!of_sums_has(k, EDGE, t)) continue;
      if (!next && t) OF_UNROLL for (int b = 0; b < B && !last; b++) OF_BEFORE(more[b], acc[b][t]);
      OF_UNROLL for (int b = 0; b < B; b++) acc[b][t] += xv[t][j] * wv[b];
      if (next && j + 1 == OF_TAKEN) xv[t] = *(const of_vfu *)(next + (k.first + t * k.step) * k.size);
    }
    OF_UNROLL for (int b = 0; b < B && !last; b++) wv[b] = more[b];
  }
}

// One element of each column, where columns lie next to each other: several columns in one load.
AI void of_sums_row(const int T, const int B, const int step, const float *x, const float *w, const ix each,
                    of_vf acc[OF_MAX_B][OF_MAX_T]) {
  of_vf xv[OF_MAX_T], wv[OF_MAX_B];
  const int last = (T - 1) * step + 1 - OF_TAKEN;  // the last load, lest one reads beyond the last column
  OF_UNROLL for (int i = 0; i * OF_TAKEN < last + OF_TAKEN; i++) {
    xv[i] = *(const of_vfu *)(x + (i * OF_TAKEN < last ? i * OF_TAKEN : last));
    OF_KEEP(xv[i]);
  }
  OF_UNROLL for (int b = 0; b < B; b++) wv[b] = *(const of_vf *)(w + b * each);
  OF_UNROLL for (int t = 0; t < T; t++) {
    const int at = t * step, i = at / OF_TAKEN, from = i * OF_TAKEN < last ? i * OF_TAKEN : last;
    OF_UNROLL for (int b = 0; b < B; b++) acc[b][t] += xv[i][at - from] * wv[b];
  }
}

// The first n elements of each column, OF_TAKEN next to each other and `hop` elements from these to the next ones.
// A hop longer than that makes one sum of several blocks, with a step of the stream for each.
AI void of_sums_hops(const int T, const int B, const int EDGE, const ix n, const ptrdiff_t hop,
                     const struct of_columns k, const float *x, const float *w, const ix row, const ix each,
                     struct of_stream *ahead, of_vf acc[OF_MAX_B][OF_MAX_T]) {
  const ix whole = OF_TAKEN > 1 ? n / OF_TAKEN * OF_TAKEN : 0, step = hop == OF_TAKEN ? OF_STEP : OF_TAKEN;
  of_vf xv[OF_MAX_T], wv[OF_MAX_B];
  if (whole) of_sums_load(T, B, EDGE, k, x, w, each, xv, wv);
  ix i = 0;
  OF_UNROLL2 for (; i + OF_TAKEN < whole; i += OF_TAKEN) {
    if (ahead->lines && i % step == 0) of_stream_step(ahead);
    x += hop;
    of_sums_taken(T, B, EDGE, k, x, w + i * row, row, each, xv, wv, acc);
  }
  if (whole) {
    if (ahead->lines && i % step == 0) of_stream_step(ahead);
    x += hop;
    of_sums_taken(T, B, EDGE, k, 0, w + i * row, row, each, xv, wv, acc);
  }
  x -= whole;
  for (i = whole; i + OF_STEP <= n; i += OF_STEP) {
    of_stream_step(ahead);
    OF_UNROLL4 for (int j = 0; j < OF_STEP; j++) of_sums_one(T, B, EDGE, k, x + i + j, w + (i + j) * row, each, acc);
  }
  if (i < n && i % step == 0) of_stream_step(ahead);
  OF_UNROLL4 for (; i < n; i++) of_sums_one(T, B, EDGE, k, x + i, w + i * row, each, acc);
}

// The first n elements of each column.
AI void of_sums(const int T, const int B, const int EDGE, const ix n, const struct of_columns k, const float *x,
                const float *w, const ix row, const ix each, struct of_stream *ahead,
                of_vf acc[OF_MAX_B][OF_MAX_T]) {
  if (OF_TAKEN > 1 && !EDGE && n == 1 && k.size == 1 && (T - 1) * k.step >= OF_TAKEN && k.step < 4) {
    of_stream_step(ahead);
    of_sums_row(T, B, k.step, x + k.first, w, each, acc);
    return;
  }
  of_sums_hops(T, B, EDGE, n, OF_TAKEN, k, x, w, row, each, ahead, acc);
}

// All sums zero.
AI void of_sums_begin(const int T, const int B, of_vf acc[OF_MAX_B][OF_MAX_T]) {
  OF_UNROLL for (int b = 0; b < B; b++)
    OF_UNROLL for (int t = 0; t < T; t++) acc[b][t] = (of_vf){0};
}

// out[B][T][lanes]: the bias[B][lanes] of sums that are added to it.
AI void of_sums_bias(const int T, const int B, const float *bias, float *out) {
  OF_UNROLL for (int b = 0; b < B; b++)
    OF_UNROLL for (int t = 0; t < T; t++)
      *(of_vf *)(out + (b * T + t) * OF_LANES) = *(const of_vf *)(bias + b * OF_LANES);
}
