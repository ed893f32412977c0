// Vectors of floats as wide as the target's registers, and the pragmas of kernels that keep sums in registers.
#pragma once
#include "of_program.h"

#if defined(__AVX512F__)
#define OF_LANES 16
#elif defined(__AVX2__)
#define OF_LANES 8
#else
#define OF_LANES 4
#endif

typedef float of_vf __attribute__((vector_size(OF_LANES * 4), may_alias));
typedef float of_vfu __attribute__((vector_size(OF_LANES * 4), aligned(4), may_alias));  // at any float

// The largest tile. Sums live in arrays of this fixed size, of which the unused part vanishes: an array whose size
// constants fold is formally of variable length, and makes the compiler spill.
enum { OF_MAX_B = 8, OF_MAX_T = 16 };

// Loops over a tile are unrolled to the end. The loop that sums is unrolled a little: without it the compiler spills
// tiles that fill all registers, and unrolled to the end it spills every tile.
#define OF_UNROLL _Pragma("clang loop unroll(full)")
#define OF_UNROLL4 _Pragma("clang loop unroll_count(4)")
#define OF_ROLLED _Pragma("clang loop unroll(disable)")
