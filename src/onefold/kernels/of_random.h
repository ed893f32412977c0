// Random numbers without state: every element is a function of (seed, stream, position).
//
// Philox 4x32 with 10 rounds (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011). The
// 128-bit counter is (position, stream), the 64-bit key is the seed; constants are those of the paper.
#pragma once
#include "of_base.h"
#include "of_math.h"
#include "of_trig.h"

typedef struct {
  uint32_t w[4];
} of_philox_block;

OF_INLINE of_philox_block of_philox(uint64_t position, uint64_t stream, uint64_t seed) {
  uint32_t a = (uint32_t)position, b = (uint32_t)(position >> 32), c = (uint32_t)stream, d = (uint32_t)(stream >> 32);
  uint32_t k = (uint32_t)seed, l = (uint32_t)(seed >> 32);
  for (int round = 0; round < 10; round++) {
    const uint64_t p = (uint64_t)0xD2511F53u * a, q = (uint64_t)0xCD9E8D57u * c;
    const uint32_t e = (uint32_t)(q >> 32) ^ b ^ k, f = (uint32_t)(p >> 32) ^ d ^ l;
    b = (uint32_t)q;
    d = (uint32_t)p;
    a = e;
    c = f;
    k += 0x9E3779B9u;
    l += 0xBB67AE85u;
  }
  return (of_philox_block){{a, b, c, d}};
}

// [0, 1) in steps of 2^-53
OF_INLINE double of_random_unit(uint32_t high, uint32_t low) {
  return (double)(((uint64_t)high << 21) ^ (low >> 11)) * 0x1p-53;
}
OF_INLINE double of_random_uniform_i64(int64_t position, int64_t stream, int64_t seed) {
  const of_philox_block r = of_philox((uint64_t)position, (uint64_t)stream, (uint64_t)seed);
  return of_random_unit(r.w[0], r.w[1]);
}
// mean 0, variance 1, by Box and Muller
OF_INLINE double of_random_normal_i64(int64_t position, int64_t stream, int64_t seed) {
  const of_philox_block r = of_philox((uint64_t)position, (uint64_t)stream, (uint64_t)seed);
  const double u = 1.0 - of_random_unit(r.w[0], r.w[1]), v = of_random_unit(r.w[2], r.w[3]);
  return of_sqrt_f64(-2.0 * of_log_f64(u)) * of_cos_f64(0x1.921fb54442d18p+2 * v);
}
