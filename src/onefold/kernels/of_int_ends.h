// What makes results of the sums of integer layers: scaled by each channel's factor, rounded as the format has it, and
// stored as bytes.
#pragma once
#include "of_vec.h"
#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

typedef int32_t of_vi __attribute__((vector_size(OF_LANES * 4), may_alias));
typedef int64_t of_vw __attribute__((vector_size(OF_LANES * 4), may_alias));

// Four vectors of integers to bytes: zero added, saturated twice on the way.
#if defined(__SSE2__)
#define OF_PACKS(BITS, SHAPE)                                                                           \
  const SHAPE z = _mm##BITS##_set1_epi16((short)zero);                                                  \
  const SHAPE u = _mm##BITS##_adds_epi16(_mm##BITS##_packs_epi32((SHAPE)r[0], (SHAPE)r[1]), z);         \
  const SHAPE v = _mm##BITS##_adds_epi16(_mm##BITS##_packs_epi32((SHAPE)r[2], (SHAPE)r[3]), z);         \
  const SHAPE y = sign ? _mm##BITS##_packs_epi16(u, v) : _mm##BITS##_packus_epi16(u, v);
#endif
#if defined(__AVX512BW__)
AI void of_pack(const of_vi *r, const int zero, const bool sign, uint8_t *q) {
  OF_PACKS(512, __m512i)
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_store_si512(q, _mm512_permutexvar_epi32(order, y));
}
#elif defined(__AVX2__)
AI void of_pack(const of_vi *r, const int zero, const bool sign, uint8_t *q) {
  OF_PACKS(256, __m256i)
  _mm256_store_si256((__m256i *)q, _mm256_permutevar8x32_epi32(y, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
}
#elif defined(__SSE2__)
AI void of_pack(const of_vi *r, const int zero, const bool sign, uint8_t *q) {
  OF_PACKS(, __m128i)
  _mm_store_si128((__m128i *)q, y);
}
#elif defined(__ARM_NEON)
AI void of_pack(const of_vi *r, const int zero, const bool sign, uint8_t *q) {
  const int16x8_t z = vdupq_n_s16((int16_t)zero);
  const int16x8_t u = vqaddq_s16(vcombine_s16(vqmovn_s32((int32x4_t)r[0]), vqmovn_s32((int32x4_t)r[1])), z);
  const int16x8_t v = vqaddq_s16(vcombine_s16(vqmovn_s32((int32x4_t)r[2]), vqmovn_s32((int32x4_t)r[3])), z);
  if (sign) vst1q_s8((int8_t *)q, vcombine_s8(vqmovn_s16(u), vqmovn_s16(v)));
  else vst1q_u8(q, vcombine_u8(vqmovun_s16(u), vqmovun_s16(v)));
}
#endif

// A vector of the sums of column t, with what the column adds to them.
AI of_vi of_column(const int32_t *acc, const int32_t *seen, const int t) {
  of_vi v = *(const of_vi *)acc;
  if (seen) v += seen[t];
  return v;
}

// Bytes of either sign between lo and hi.
AI void of_clamp(const int n, const bool sign, const int lo, const int hi, uint8_t *q) {
  if (sign ? lo > -128 || hi < 127 : lo > 0 || hi < 255)
    OF_SIMD for (int i = 0; i < n; i++) {
      const int v = sign ? (int8_t)q[i] : q[i];
      q[i] = (uint8_t)(v < lo ? lo : v > hi ? hi : v);
    }
}

// x * m 2^(s - 31) with TFLite's two roundings, the same numbers as of_multiply_by_quantized_multiplier for m >= 0, in
// operations that every vector unit has: (p + 2^30) >> 31 is what the first rounding does to either sign.
AI int32_t of_requantize_i32(int32_t x, int32_t m, int32_t s) {
  const int32_t left = s > 0 ? s : 0, right = s > 0 ? 0 : -s;
  const int64_t p = (int64_t)(int32_t)((uint32_t)x << left) * m;
  const int32_t h = (int32_t)((uint64_t)(p + (1 << 30)) >> 31);
  const int32_t mask = (int32_t)((1u << right) - 1), rest = h & mask;
  return (h >> right) + (rest > (mask >> 1) + (h < 0));
}

typedef int8_t of_vb __attribute__((vector_size(OF_LANES), aligned(1), may_alias));
AI of_vi of_shifts(const int8_t *s) { return __builtin_convertvector(*(const of_vb *)s, of_vi); }

// The same for a vector of sums x, of which |x| 2^s stays below 2^30; m and s of its channels as a vector reads them.
// once: one rounding, halves away from zero; relu: results below zero do not count.
#if defined(__AVX2__)
#if defined(__AVX512F__)
#define OF_M(OP) _mm512_##OP
typedef __m512i of_m;
AI of_m of_high_halves(of_m even, of_m odd) { return _mm512_mask_shuffle_epi32(odd, 0x5555, even, 0xf5); }
#else
#define OF_M(OP) _mm256_##OP
typedef __m256i of_m;
AI of_m of_high_halves(of_m even, of_m odd) { return _mm256_blend_epi32(odd, _mm256_shuffle_epi32(even, 0xf5), 0x55); }
#endif
struct of_fixed { of_vi left, right, below; of_vw m[2], more[2]; };  // of lanes of even and odd numbers

AI struct of_fixed of_fixed_of(const int32_t *m, const int8_t *s, const bool once) {
  const of_m sv = (of_m)of_shifts(s), none = (of_m){0};
  const of_vi right = (of_vi)OF_M(sub_epi32)(none, OF_M(min_epi32)(sv, none));
  struct of_fixed f = {.left = (of_vi)OF_M(max_epi32)(sv, none) + 1, .right = right, .below = 32 + (right != 0)};
  for (int odd = 0; odd < 2; odd++) {
    const of_vw r = (of_vw)OF_M(srli_epi64)(OF_M(slli_epi64)((of_m)right, odd ? 0 : 32), 32);
    const of_vw half = (of_vw)OF_M(sllv_epi64)((of_m)((of_vw){0} + ((int64_t)1 << 31)), (of_m)r);
    f.m[odd] = (of_vw)OF_M(srli_epi64)(*(const of_m *)m, odd ? 32 : 0);
    f.more[odd] = half;
    if (!once) f.more[odd] = (half & (r != 0)) + ((int64_t)1 << 31);
  }
  return f;
}

// Twice the product has its high half where it is wanted. With two roundings both are one sum before the shifts, but
// that the second one takes one less of a negative number, where there is a second one.
AI of_vi of_fixed_scaled(const struct of_fixed f, const of_vi x, const bool once, const bool relu) {
  const of_m v = OF_M(sllv_epi32)((of_m)x, (of_m)f.left);
  of_vw p[2];
  OF_UNROLL for (int odd = 0; odd < 2; odd++) {
    p[odd] = (of_vw)OF_M(mul_epi32)(odd ? OF_M(srli_epi64)(v, 32) : v, (of_m)f.m[odd]);
    const of_vw below = p[odd] >> 63;
    p[odd] += f.more[odd];
    if (once && !relu) p[odd] += below;
  }
  of_vi h = (of_vi)of_high_halves((of_m)p[0], (of_m)p[1]);
  if (!once && !relu) h -= (of_vi)OF_M(srlv_epi32)((of_m)x, (of_m)f.below);
  return (of_vi)OF_M(srav_epi32)((of_m)h, (of_m)f.right);
}
#define OF_HAS_FIXED(ONCE) true
#elif defined(__ARM_NEON)
struct of_fixed { int32x4_t left, m, right; };

AI struct of_fixed of_fixed_of(const int32_t *m, const int8_t *s, const bool once) {
  (void)once;
  const int32x4_t sv = (int32x4_t)of_shifts(s), none = vdupq_n_s32(0);
  return (struct of_fixed){vmaxq_s32(sv, none), vld1q_s32(m), vminq_s32(sv, none)};
}

AI of_vi of_fixed_scaled(const struct of_fixed f, const of_vi x, const bool once, const bool relu) {
  (void)once;
  int32x4_t h = vqrdmulhq_s32(vshlq_s32((int32x4_t)x, f.left), f.m);
  if (!relu) h = vqaddq_s32(h, vshrq_n_s32(vandq_s32(h, f.right), 31));
  return (of_vi)vrshlq_s32(h, f.right);
}
#define OF_HAS_FIXED(ONCE) (!(ONCE))
#else
struct of_fixed { int none; };
AI struct of_fixed of_fixed_of(const int32_t *m, const int8_t *s, const bool once) {
  (void)m, (void)s, (void)once;
  return (struct of_fixed){0};
}
AI of_vi of_fixed_scaled(const struct of_fixed f, const of_vi x, const bool once, const bool relu) {
  (void)f, (void)once, (void)relu;
  return x;
}
#define OF_HAS_FIXED(ONCE) false
#endif

// The end of a tile of TFLite's layers: q[B][T up to 4s][lanes] from T columns of acc[B][pitch][lanes] and what each
// column adds to all of its sums (seen, or none), in bytes of the type that `sign` tells. apart: each channel has factors
// of its own, else there is one vector of them. far: sums may lie beyond what whole vectors take. relu: lo >= zero.
AI void of_end_fixed(const int T, const int B, const int32_t *acc, const int pitch, const int32_t *seen,
                     const int32_t *m, const int8_t *s, const bool apart, const bool once, const bool far,
                     const bool relu, const bool sign, const int lo, const int hi, const int zero, uint8_t *q) {
  const int room = (T + 3) / 4 * 4, size = room * OF_LANES, next = apart ? OF_LANES : 0;
  if (OF_HAS_FIXED(once) && !far) {
    OF_UNROLL_FAST for (int b = 0; b < B; b++) {
      const struct of_fixed f = of_fixed_of(m + b * next, s + b * next, once);
      OF_UNROLL for (int t = 0; t < T; t += 4) {
        of_vi r[4];
        OF_UNROLL for (int j = 0; j < 4; j++)
          r[j] = t + j >= T ? (of_vi){0} : of_fixed_scaled(
              f, of_column(acc + (b * pitch + t + j) * OF_LANES, seen, t + j), once, relu);
        of_pack(r, zero, sign, q + b * size + t * OF_LANES);
      }
    }
    of_clamp(B * size, sign, lo, hi, q);
    return;
  }
  OF_UNROLL_FAST for (int b = 0; b < B; b++)
    OF_UNROLL for (int t = 0; t < T; t++) OF_SIMD for (int l = 0; l < OF_LANES; l++) {
      const int32_t x = acc[(b * pitch + t) * OF_LANES + l] + (seen ? seen[t] : 0);
      const int32_t mc = m[b * next + l], sc = s[b * next + l];
      const int32_t y = once ? of_multiply_by_quantized_multiplier_away_i32(x, mc, sc) : of_requantize_i32(x, mc, sc);
      q[(b * room + t) * OF_LANES + l] = (uint8_t)(of_min_i32(of_max_i32(y, lo - zero), hi - zero) + zero);
    }
}

// The same of TFLite's hybrid layers: less the input's zero point times the sum of each channel's weights, by factors m
// and the input's.
AI void of_end_dynamic(const int T, const int B, const int32_t *acc, const int pitch, const int32_t *seen,
                       const float *m, const float *bias, const int32_t *total, const float scale, const int32_t zero,
                       float *q) {
  const int room = (T + 3) / 4 * 4;
  OF_UNROLL_FAST for (int b = 0; b < B; b++)
    OF_UNROLL for (int t = 0; t < T; t++) OF_SIMD for (int l = 0; l < OF_LANES; l++) {
      const int at = b * OF_LANES + l;
      const int32_t x = acc[(b * pitch + t) * OF_LANES + l] + (seen ? seen[t] : 0) - zero * total[at];
      q[(b * room + t) * OF_LANES + l] = (float)x * m[at] * scale + bias[at];
    }
}

// The same of sums that stay as they are.
AI void of_end_sum(const int T, const int B, const int32_t *acc, const int pitch, const int32_t *seen,
                   const int32_t *total, const int32_t zero, int32_t *q) {
  const int room = (T + 3) / 4 * 4;
  OF_UNROLL_FAST for (int b = 0; b < B; b++)
    OF_UNROLL for (int t = 0; t < T; t++) OF_SIMD for (int l = 0; l < OF_LANES; l++)
      q[(b * room + t) * OF_LANES + l] = acc[(b * pitch + t) * OF_LANES + l] + (seen ? seen[t] : 0) -
                                         (total ? zero * total[b * OF_LANES + l] : 0);
}

// To the nearest integer, halves to even.
AI of_vi of_rounded(of_vf x) {
#if defined(__AVX512F__)
  return (of_vi)_mm512_cvtps_epi32((__m512)x);
#elif defined(__AVX2__)
  return (of_vi)_mm256_cvtps_epi32((__m256)x);
#elif defined(__SSE2__)
  return (of_vi)_mm_cvtps_epi32((__m128)x);
#else
  return (of_vi)vcvtnq_s32_f32((float32x4_t)x);
#endif
}

// The end of a tile of ONNX's layers, as that of TFLite's but by factors m. far: what is scaled may lie beyond i32.
AI void of_end_scale(const int T, const int B, const int32_t *acc, const int pitch, const int32_t *seen, const float *m,
                     const bool apart, const bool far, const bool sign, const int lo, const int hi, const int zero,
                     uint8_t *q) {
  const int room = (T + 3) / 4 * 4, size = room * OF_LANES;
  OF_UNROLL_FAST for (int b = 0; b < B; b++) {
    const of_vf mv = *(const of_vf *)(m + (apart ? b * OF_LANES : 0));
    OF_UNROLL for (int t = 0; t < T; t += 4) {
      of_vi r[4];
      OF_UNROLL for (int j = 0; j < 4; j++) {
        of_vf v = {0};
        if (t + j < T) {
          const of_vi sums = of_column(acc + (b * pitch + t + j) * OF_LANES, seen, t + j);
          v = __builtin_convertvector(sums, of_vf) * mv;
        }
        if (far) v = of_vmin(of_vmax(v, (of_vf){0} - 1000.0f), (of_vf){0} + 1000.0f);
        r[j] = of_rounded(v);
      }
      of_pack(r, zero, sign, q + b * size + t * OF_LANES);
    }
  }
  of_clamp(B * size, sign, lo, hi, q);
}
