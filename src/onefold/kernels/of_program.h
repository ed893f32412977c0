// What every generated file begins with: the arithmetic, sizes, and how a step reports an error.
#pragma once
#include "num.h"

typedef ptrdiff_t ix;  // sizes and indices

// Inlined into a caller that passes shapes as constants, and so becomes a loop nest for them.
#define AI static inline __attribute__((always_inline, unused))
#define OF_HIDDEN __attribute__((visibility("hidden")))
#ifndef OF_PUBLIC  // hidden where several programs are parts of one
#define OF_PUBLIC __attribute__((visibility("default")))
#endif

// Reasons that a step gives for stopping the program; the runtime knows them by these numbers.
enum {
  OF_BAD_INDEX = 1,   // an index read from a tensor lies outside
  OF_BAD_SIZE = 2,    // a size is outside its bounds
  OF_BAD_SHAPE = 4,   // sizes found at run time do not fit each other
  OF_LOOP_LIMIT = 5,  // a loop runs longer than its results have room for
  OF_BAD_VALUE = 7,   // an input value that the operator does not take
};
#define OF_STOP(reason) do { *err = (reason); return; } while (0)

AI ix of_min_ix(ix a, ix b) { return a < b ? a : b; }
AI ix of_max_ix(ix a, ix b) { return a > b ? a : b; }
AI ix of_floor_div_ix(ix a, ix b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
AI ix of_floor_mod_ix(ix a, ix b) { return a - of_floor_div_ix(a, b) * b; }

// An index into n elements; a bad one is reported and read as 0.
AI int64_t of_index_check(int64_t i, int64_t n, int32_t *err) {
  if (i >= 0 && i < n) return i;
  *err = OF_BAD_INDEX;
  return 0;
}
AI int64_t of_index_wrap(int64_t i, int64_t n, int32_t *err) {
  return of_index_check(i < 0 ? i + n : i, n, err);
}

AI int8_t of_wrap_i4(int32_t x) { return (int8_t)((int32_t)((uint32_t)x << 28) >> 28); }
AI int8_t of_wrap_i2(int32_t x) { return (int8_t)((int32_t)((uint32_t)x << 30) >> 30); }
AI uint8_t of_wrap_u4(int32_t x) { return (uint8_t)(x & 15); }
AI uint8_t of_wrap_u2(int32_t x) { return (uint8_t)(x & 3); }

// A loop over lanes that lie next to each other: vector operations, as wide as the machine has them.
#define OF_SIMD _Pragma("clang loop unroll(disable) vectorize(enable) interleave(disable)")
// The same for so few lanes that those beyond whole vectors matter: masks leave them out, where the machine has them.
#ifdef __AVX512BW__
#define OF_SHORT _Pragma("clang loop vectorize_predicate(enable)")
#else
#define OF_SHORT
#endif
// The same in vectors of sixteen, also where the compiler expects less of them.
#define OF_SIMD16 _Pragma("clang loop unroll(disable) vectorize(enable) interleave(disable) vectorize_width(16)")
// A loop that reads and writes each element at its own place, and so may work in place.
#define OF_EACH _Pragma("clang loop vectorize(assume_safety)")
