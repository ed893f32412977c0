// Positions of extremes among bytes.
#pragma once
#include "of_program.h"

// The place of the largest of n bytes, 16 <= n <= 256, the first of equals or the last. `flip` is what a byte is
// xored with first: 0x80 orders signed bytes, and 0xff more finds the smallest.
#if defined(__AVX2__) || defined(__ARM_NEON)
typedef uint16_t of_keys __attribute__((vector_size(32)));
typedef uint8_t of_some_bytes __attribute__((vector_size(16), aligned(1), may_alias));

AI ix of_arg_byte(const uint8_t *x, ix n, uint8_t flip, bool last) {
  static const of_keys places = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  of_keys best = {0};  // a byte above its place, or above what is left behind it: the largest is the answer
  for (ix r = 0; r < n; r += 16) {
    const ix at = of_min_ix(r, n - 16);  // the last piece overlaps the one before
    const of_keys far = places + (uint16_t)at;
    const of_keys byte = __builtin_convertvector(*(const of_some_bytes *)(x + at) ^ flip, of_keys) << 8;
    const of_keys key = byte | (last ? far : (uint16_t)(n - 1) - far);
    const of_keys more = (of_keys)(key > best);
    best = (key & more) | (best & ~more);
  }
#ifdef __clang__
  const ix top = __builtin_reduce_max(best) & 255;
#else
  ix top = 0;
  for (int i = 0; i < 16; i++) top = of_max_ix(top, best[i]);
  top &= 255;
#endif
  return last ? top : n - 1 - top;
}
#else
AI ix of_arg_byte(const uint8_t *x, ix n, uint8_t flip, bool last) {
  ix top = 0;
  for (ix r = 1; r < n; r++) {
    const int a = x[r] ^ flip, b = x[top] ^ flip;
    if (a > b || (last && a == b)) top = r;
  }
  return top;
}
#endif
