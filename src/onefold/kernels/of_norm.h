// Normalisation of the channels of T places of channel blocks x[block][size][lanes].
#pragma once
#include "of_vec.h"

// blocks of channels, elements from one to the next, channels in use, and what is added to the variance
struct of_norm { ix blocks, next; float channels, epsilon; };

AI float of_vsum(const of_vf v) {
  float s[OF_LANES];
  *(of_vfu *)s = v;
  OF_UNROLL for (int h = OF_LANES / 2; h > 0; h /= 2)
    OF_UNROLL for (int i = 0; i < h; i++) s[i] += s[i + h];
  return s[0];
}

// mean[T] and inv[T], 1 / standard deviation; used[lanes]: 1 for the channels of the last block, which is filled up
// with zeros, else 0.
#define OF_NORM(KIND, TYPE)                                                                                           \
  AI void of_norm_moments_##KIND(const struct of_norm k, const int T, const TYPE *x, const float *used, float *mean, \
                                 float *inv) {                                                                        \
    of_vf sum[OF_MAX_T], square[OF_MAX_T];                                                                            \
    OF_UNROLL for (int t = 0; t < T; t++) sum[t] = square[t] = (of_vf){0};                                            \
    for (ix b = 0; b < k.blocks; b++)                                                                                 \
      OF_UNROLL for (int t = 0; t < T; t++) sum[t] += of_vector_##KIND(x + b * k.next + t * OF_LANES);                \
    OF_UNROLL for (int t = 0; t < T; t++) mean[t] = of_vsum(sum[t]) / k.channels;                                     \
    for (ix b = 0; b < k.blocks; b++) {                                                                               \
      of_vf one = (of_vf){0} + 1;                                                                                     \
      if (b + 1 == k.blocks) one = *(const of_vf *)used;                                                              \
      OF_UNROLL for (int t = 0; t < T; t++) {                                                                         \
        const of_vf d = (of_vector_##KIND(x + b * k.next + t * OF_LANES) - mean[t]) * one;                            \
        square[t] += d * d;                                                                                           \
      }                                                                                                               \
    }                                                                                                                 \
    OF_UNROLL for (int t = 0; t < T; t++)                                                                             \
      inv[t] = 1 / of_sqrt_f32(of_vsum(square[t]) / k.channels + k.epsilon);                                          \
  }                                                                                                                   \
  /* out[T][lanes] of one block */                                                                                    \
  AI void of_norm_tile_##KIND(const int T, const TYPE *x, const float *mean, const float *inv, const float *scale,    \
                              const float *shift, float *out) {                                                       \
    const of_vf s = *(const of_vf *)scale, a = *(const of_vf *)shift;                                                 \
    OF_UNROLL for (int t = 0; t < T; t++)                                                                             \
      *(of_vf *)(out + t * OF_LANES) = (of_vector_##KIND(x + t * OF_LANES) - mean[t]) * inv[t] * s + a;               \
  }
OF_NORM(f32, float)
OF_NORM(bf16, of_bf16)
