// Integer sums of products for NHWC convolutions: T output columns times B vectors of output channels, in i32.
//
// The input is prepared first: copied into scratch memory with its border filled in, as the type that the dot product
// of the machine takes. A row of the window is then a run of elements that lie next to each other, and no step has to
// look for edges. Weights are packed [kh][kw][run / D][B][lanes][D], where D elements meet in one step:
//   of_dot4: bytes, four at a time (AVX-512 VNNI, AVX-VNNI: u8 times i8; Arm dot product: i8 times i8)
//   of_dot2: i16, two at a time (x86), or one after the other elsewhere
//   of_matrix: bytes, eight at a time of two columns and two channels (Arm matrix products)
#pragma once
#include "of_int_ends.h"

// Sixteen registers do not hold what the compiler loads ahead of four steps, nor of two where a step fills them.
#if defined(__AVXVNNI__) && !defined(__AVX512F__)
#define OF_UNROLL_STEPS OF_ROLLED
#elif defined(__x86_64__) && !defined(__AVX512F__)
#define OF_UNROLL_STEPS OF_UNROLL2
#else
#define OF_UNROLL_STEPS OF_UNROLL4
#endif

typedef int16_t of_vh __attribute__((vector_size(OF_LANES * 2), may_alias));
typedef int16_t of_vhu __attribute__((vector_size(OF_LANES * 2), aligned(2), may_alias));
typedef int32_t of_viu __attribute__((vector_size(OF_LANES * 4), aligned(1), may_alias));

AI of_vi of_all_i32(int32_t x) { return x - (of_vi){0}; }

// Sums of four products of u8 and i8 in each lane.
#if defined(__AVX512VNNI__)
#define OF_HAS_DOTS 1
AI of_vi of_dots(of_vi acc, of_vi x, of_vi w) {
  return (of_vi)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)x, (__m512i)w);
}
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
#define OF_HAS_DOTS 1
AI of_vi of_dots(of_vi acc, of_vi x, of_vi w) {
  return (of_vi)_mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)x, (__m256i)w);
}
#else
#define OF_HAS_DOTS 0
#endif

#if OF_HAS_DOTS
AI of_vi of_dot4(of_vi acc, const void *x, const void *w) {
  int32_t q;
  __builtin_memcpy(&q, x, 4);
  return of_dots(acc, of_all_i32(q), *(const of_vi *)w);
}
#elif defined(__ARM_FEATURE_DOTPROD)
AI of_vi of_dot4(of_vi acc, const void *x, const void *w) {
  int32_t q;
  __builtin_memcpy(&q, x, 4);
  return (of_vi)vdotq_s32((int32x4_t)acc, vld1q_s8(w), vreinterpretq_s8_s32(vdupq_n_s32(q)));
}
#else  // never chosen; the same in plain C
AI of_vi of_dot4(of_vi acc, const void *x, const void *w) {
  const int8_t *p = x, *q = w;
  for (int l = 0; l < OF_LANES; l++)
    for (int j = 0; j < 4; j++) acc[l] += p[j] * q[l * 4 + j];
  return acc;
}
#endif

// The same for a tile whose sums, weights and column fill all registers, so that no column can be loaded ahead: the
// last vector of weights is read from memory.
#if OF_HAS_DOTS && OF_LANES == 8
#define OF_FULL(T, B) ((T) * (B) + (B) + 1 == 16)
AI of_vi of_dot4_direct(of_vi acc, const void *x, const void *w) {
  int32_t q;
  __builtin_memcpy(&q, x, 4);
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(of_all_i32(q)), "m"(*(const of_vi *)w));
  return acc;
}
#else
#define OF_FULL(T, B) false
#define of_dot4_direct of_dot4
#endif

AI of_vi of_dot2(of_vi acc, const void *x, const void *w) {
#if defined(__SSE2__)
  int32_t q;
  __builtin_memcpy(&q, x, 4);
#if OF_LANES == 16
  return acc + (of_vi)_mm512_madd_epi16(_mm512_set1_epi32(q), _mm512_load_si512(w));
#elif OF_LANES == 8
  acc += (of_vi)_mm256_madd_epi16(_mm256_set1_epi32(q), *(const __m256i *)w);
  __asm__("" : "+x"(acc));  // the compiler would sum up products of several steps first, in registers it has not
  return acc;
#else
  return acc + (of_vi)_mm_madd_epi16(_mm_set1_epi32(q), *(const __m128i *)w);
#endif
#else  // weights [D][lanes]
  const int16_t *p = x;
  const of_vh *q = w;
  acc += __builtin_convertvector(q[0], of_vi) * of_all_i32(p[0]);
  return acc + __builtin_convertvector(q[1], of_vi) * of_all_i32(p[1]);
#endif
}

// Steps that one load of a column serves: Arm multiplies by any element of a register.
#if defined(__ARM_NEON)
enum { OF_STEPS = 4 };
typedef int8x16_t of_some;

// The first two or three steps.
AI of_some of_some_steps(const char *x, const int n) {
  const int8x16_t two = vcombine_s8(vld1_s8((const int8_t *)x), vdup_n_s8(0));
  if (n == 2) return two;
  int32_t third;
  __builtin_memcpy(&third, x + 8, 4);
  return vreinterpretq_s8_s32(vsetq_lane_s32(third, vreinterpretq_s32_s8(two), 2));
}

// Step j of those in q, of four bytes or two i16.
AI of_vi of_dot_lane(const int d, of_vi acc, const of_some q, const int j, const void *w) {
#if defined(__ARM_FEATURE_DOTPROD)
  if (d == 4) {
    const int8x16_t v = vld1q_s8(w);
    const int32x4_t a = (int32x4_t)acc;
    return (of_vi)(j == 0 ? vdotq_laneq_s32(a, v, q, 0) : j == 1 ? vdotq_laneq_s32(a, v, q, 1)
                   : j == 2 ? vdotq_laneq_s32(a, v, q, 2) : vdotq_laneq_s32(a, v, q, 3));
  }
#endif
  const int16x8_t x = vreinterpretq_s16_s8(q), v = vld1q_s16(w);
  acc = (of_vi)vmlal_n_s16((int32x4_t)acc, vget_low_s16(v), x[2 * j]);
  return (of_vi)vmlal_n_s16((int32x4_t)acc, vget_high_s16(v), x[2 * j + 1]);
}
#else
enum { OF_STEPS = 1 };
typedef int32_t of_some;
AI of_some of_some_steps(const char *x, const int n) {
  (void)x;
  return n;
}
AI of_vi of_dot_lane(const int d, of_vi acc, const of_some q, const int j, const void *w) {
  (void)j;
  return d == 4 ? of_dot4(acc, &q, w) : of_dot2(acc, &q, w);
}
#endif

struct of_conv_int {
  int run, kh, kw;               // elements of a run, rows of the window, runs in a row of it (1 unless dilated)
  int sh, sw, dh, dw, row, col;  // steps; elements of the prepared input from a row, and a column, to the next
  int d;                         // elements of a step
  int u;                         // whether the prepared input is unsigned, where a kernel takes both
};

// out[B][T][lanes], on top of bias[B][lanes]; x is the prepared image, elements of `4 / d` bytes
AI void of_conv_int_tile(const struct of_conv_int k, const int T, const int B, ix oy, ix ox, const void *x,
                         const void *w, const int32_t *bias, int32_t *out) {
  of_vi acc[OF_MAX_B][OF_MAX_T];
  OF_UNROLL for (int b = 0; b < B; b++)
    OF_UNROLL for (int t = 0; t < T; t++) acc[b][t] = *(const of_vi *)(bias + b * OF_LANES);
  const int steps = (k.run + k.d - 1) / k.d, size = 4 / k.d;
  const char *at = x, *wk = w;
  for (int ky = 0; ky < k.kh; ky++)
    for (int kx = 0; kx < k.kw; kx++) {
      const char *xr = at + ((oy * k.sh + ky * k.dh) * k.row + (ox * k.sw + kx * k.dw) * k.col) * size;
      const int whole = OF_STEPS > 1 ? steps / OF_STEPS * OF_STEPS : 0;
      OF_ROLLED for (int i = 0; i < whole; i += OF_STEPS, xr += 4 * OF_STEPS) {
        of_some q[OF_MAX_T];
        OF_UNROLL for (int t = 0; t < T; t++) __builtin_memcpy(&q[t], xr + t * k.sw * k.col * size, sizeof(of_some));
        OF_UNROLL for (int j = 0; j < OF_STEPS; j++, wk += B * OF_LANES * 4)
          OF_UNROLL for (int t = 0; t < T; t++)
            OF_UNROLL for (int b = 0; b < B; b++)
              acc[b][t] = of_dot_lane(k.d, acc[b][t], q[t], j, wk + b * OF_LANES * 4);
      }
      const int left = steps - whole;
      if (OF_STEPS > 1 && left > 1) {
        of_some q[OF_MAX_T];
        OF_UNROLL for (int t = 0; t < T; t++) q[t] = of_some_steps(xr + t * k.sw * k.col * size, left);
        OF_UNROLL for (int j = 0; j < left; j++, wk += B * OF_LANES * 4)
          OF_UNROLL for (int t = 0; t < T; t++)
            OF_UNROLL for (int b = 0; b < B; b++)
              acc[b][t] = of_dot_lane(k.d, acc[b][t], q[t], j, wk + b * OF_LANES * 4);
        continue;
      }
      OF_UNROLL_STEPS for (int i = whole; i < steps; i++, xr += 4, wk += B * OF_LANES * 4)
        OF_UNROLL for (int t = 0; t < T; t++) {
          const char *xt = xr + t * k.sw * k.col * size;
          OF_UNROLL for (int b = 0; b < B; b++) {
            const char *wb = wk + b * OF_LANES * 4;
            acc[b][t] = k.d == 2 ? of_dot2(acc[b][t], xt, wb)
                        : OF_FULL(T, B) && b == B - 1 ? of_dot4_direct(acc[b][t], xt, wb) : of_dot4(acc[b][t], xt, wb);
          }
        }
    }
  OF_UNROLL for (int b = 0; b < B; b++)
    OF_UNROLL for (int t = 0; t < T; t++) *(of_vi *)(out + (b * T + t) * OF_LANES) = acc[b][t];
}

#if defined(__ARM_FEATURE_MATMUL_INT8)
// The same by products of matrices: in an instruction eight elements of two columns meet those of two channels. An odd
// last column meets them twice.
AI int32x4_t of_matrix(const bool u, int32x4_t acc, int8x16_t x, int8x16_t w) {
  return u ? vusmmlaq_s32(acc, vreinterpretq_u8_s8(x), w) : vmmlaq_s32(acc, x, w);
}
AI int8x16_t of_low(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}
AI int8x16_t of_high(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

AI void of_conv_int_pairs(const struct of_conv_int k, const int T, const int B, ix oy, ix ox, const void *x,
                          const void *w, const int32_t *bias, int32_t *out) {
  const int P = (T + 1) / 2, steps = (k.run + 7) / 8;
  int32x4_t acc[OF_MAX_B][2][OF_MAX_T / 2];  // [columns][channels] of two
  OF_UNROLL for (int b = 0; b < B; b++)
    OF_UNROLL for (int p = 0; p < P; p++) {
      const int32x4_t v = vld1q_s32(bias + b * 4);
      acc[b][0][p] = vcombine_s32(vget_low_s32(v), vget_low_s32(v));
      acc[b][1][p] = vcombine_s32(vget_high_s32(v), vget_high_s32(v));
    }
  const int8_t *at = x, *wk = w;
  OF_ROLLED for (int ky = 0; ky < k.kh; ky++)
    OF_ROLLED for (int kx = 0; kx < k.kw; kx++) {
      const int8_t *xr = at + (oy * k.sh + ky * k.dh) * k.row + (ox * k.sw + kx * k.dw) * k.col;
      OF_ROLLED for (int i = 0; i + 1 < steps; i += 2, xr += 16) {
        int8x16_t q[2][OF_MAX_T / 2];
        OF_UNROLL for (int p = 0; p < P; p++) {
          const int8x16_t a = vld1q_s8(xr + 2 * p * k.sw * k.col);
          const int8x16_t b = 2 * p + 1 < T ? vld1q_s8(xr + (2 * p + 1) * k.sw * k.col) : a;
          q[0][p] = of_low(a, b), q[1][p] = of_high(a, b);
        }
        OF_UNROLL for (int j = 0; j < 2; j++, wk += B * 32)
          OF_UNROLL for (int b = 0; b < B; b++)
            OF_UNROLL for (int h = 0; h < 2; h++) {
              const int8x16_t v = vld1q_s8(wk + b * 32 + h * 16);
              OF_UNROLL for (int p = 0; p < P; p++) acc[b][h][p] = of_matrix(k.u, acc[b][h][p], q[j][p], v);
            }
      }
      if (steps % 2) {
        OF_UNROLL for (int p = 0; p < P; p++) {
          const int8x8_t a = vld1_s8(xr + 2 * p * k.sw * k.col);
          const int8x16_t q = vcombine_s8(a, 2 * p + 1 < T ? vld1_s8(xr + (2 * p + 1) * k.sw * k.col) : a);
          OF_UNROLL for (int b = 0; b < B; b++)
            OF_UNROLL for (int h = 0; h < 2; h++)
              acc[b][h][p] = of_matrix(k.u, acc[b][h][p], q, vld1q_s8(wk + b * 32 + h * 16));
        }
        wk += B * 32;
      }
    }
  OF_UNROLL for (int b = 0; b < B; b++)
    OF_UNROLL for (int p = 0; p < P; p++) {
      const int32x4_t l = acc[b][0][p], h = acc[b][1][p];
      int32_t *const o = out + (b * T + 2 * p) * 4;
      vst1q_s32(o, vcombine_s32(vget_low_s32(l), vget_low_s32(h)));
      if (2 * p + 1 < T) vst1q_s32(o + 4, vcombine_s32(vget_high_s32(l), vget_high_s32(h)));
    }
}
#endif

// The sum of n bytes, unsigned or not, spread over lanes, on top of acc.
AI of_vi of_sum_bytes(of_vi acc, const char *x, const int n, const bool u) {
  int i = 0;
#if OF_HAS_DOTS
  const of_vi ones = of_all_i32(0x01010101);
  for (; i + 4 * OF_LANES <= n; i += 4 * OF_LANES) acc = of_dots(acc, *(const of_viu *)(x + i), ones);
#endif
#if defined(__AVX512VNNI__)
  if (i < n) acc = of_dots(acc, (of_vi)_mm512_maskz_loadu_epi8(~0ull >> (64 - (n - i)), x + i), ones);
#else
#if defined(__ARM_FEATURE_DOTPROD)
  for (; i + 16 <= n; i += 16)
    acc = u ? (of_vi)vdotq_u32((uint32x4_t)acc, vld1q_u8((const uint8_t *)x + i), vdupq_n_u8(1))
            : (of_vi)vdotq_s32((int32x4_t)acc, vld1q_s8((const int8_t *)x + i), vdupq_n_s8(1));
#endif
  for (; i < n; i++) acc[0] += u ? (uint8_t)x[i] : (int8_t)x[i];
#endif
  return acc;
}

// Weights that stand for `more` than their bytes add that many times the sum of what a window sees: kh times kw runs of
// `run` bytes, for each of the places `from` to `to` of the result.
struct of_windows {
  int run, kh, kw, columns;             // columns of the result
  ix down, across, next_row, next_run;  // bytes from a row, and a column, of the result to the next; the same of runs
  bool u;                               // whether they are unsigned
};
__attribute__((unused, noinline)) static void of_seen(const struct of_windows *k, ix from, ix to, const void *x,
                                                      int32_t more, int32_t *seen) {
  for (ix i = from, y = from / k->columns, at = from % k->columns; i < to; i++) {
    const char *const first = (const char *)x + y * k->down + at * k->across;
    of_vi acc = {0};
    for (int ky = 0; ky < k->kh; ky++)
      for (int kx = 0; kx < k->kw; kx++)
        acc = of_sum_bytes(acc, first + ky * k->next_row + kx * k->next_run, k->run, k->u);
    int32_t sum = 0;
    OF_UNROLL for (int l = 0; l < OF_LANES; l++) sum += acc[l];
    seen[i] = more * sum;
    if (++at == k->columns) at = 0, y++;
  }
}

typedef uint8_t of_v16 __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint8_t of_v8 __attribute__((vector_size(8), aligned(1), may_alias));

struct of_image {
  int h, w, c, top, left, rows, cols, col;  // rows, cols: with the border; col: elements of a column
  ptrdiff_t sy, sx, sc;                     // elements of the input from a row, column, channel to the next
};

// The input with a border of `fill` as TO, `add` added to each element: [channels / col][rows][cols][col]. Elements of
// a column beyond the channels stay as they are: their weights are zero.
#define OF_PREPARE(NAME, FROM, TO)                                                               \
  AI void NAME##_row(const struct of_image k, const int c, const FROM *x, int add, TO *to) {     \
    if (c == k.col && k.sc == 1 && k.sx == c)                                                    \
      for (ix i = 0; i < (ix)k.w * c; i++) to[i] = (TO)(x[i] + add);                             \
    else if (c == 16 && k.sc == 1 && sizeof(TO) == 1) /* sums of bytes wrap */                   \
      for (ix i = 0; i < k.w; i++)                                                               \
        *(of_v16 *)(to + i * 16) = *(const of_v16 *)(x + i * k.sx) + (uint8_t)add;               \
    else if (c == 8 && k.sc == 1 && sizeof(TO) == 1)                                             \
      for (ix i = 0; i < k.w; i++)                                                               \
        *(of_v8 *)(to + i * k.col) = *(const of_v8 *)(x + i * k.sx) + (uint8_t)add;              \
    else if (c <= 4) /* a few planes, interleaved; what is unused is written, so that all is */  \
      for (ix i = 0; i < k.w; i++)                                                               \
        OF_UNROLL for (int j = 0; j < k.col; j++)                                                \
          to[i * k.col + j] = (TO)(x[i * k.sx + (j < c ? j : c - 1) * k.sc] + add);              \
    else                                                                                         \
      for (ix i = 0; i < k.w; i++)                                                               \
        for (ix j = 0; j < c; j++) to[i * k.col + j] = (TO)(x[i * k.sx + j * k.sc] + add);       \
  }                                                                                              \
  AI void NAME(const struct of_image k, const FROM *x, int add, int fill, TO *to) {              \
    const ix row = (ix)k.cols * k.col;                                                           \
    for (ix b = 0; b < k.c; b += k.col)                                                          \
      for (ix y = 0; y < k.rows; y++, to += row) {                                               \
        const ix at = y - k.top;                                                                 \
        const bool out = at < 0 || at >= k.h;                                                    \
        const ix from = out ? row : (ix)k.left * k.col, to_end = out ? row : from + (ix)k.w * k.col; \
        for (ix i = 0; i < from; i++) to[i] = (TO)fill;                                          \
        for (ix i = to_end; i < row; i++) to[i] = (TO)fill;                                      \
        if (out) continue;                                                                       \
        const FROM *xr = x + at * k.sy + b * k.sc;                                               \
        if (k.c - b >= k.col) NAME##_row(k, k.col, xr, add, to + from);                          \
        else NAME##_row(k, k.c % k.col, xr, add, to + from);                                     \
      }                                                                                          \
  }
OF_PREPARE(of_prepare_i8_u8, int8_t, uint8_t)
OF_PREPARE(of_prepare_u8_u8, uint8_t, uint8_t)
OF_PREPARE(of_prepare_i8_i8, int8_t, int8_t)
OF_PREPARE(of_prepare_u8_i8, uint8_t, int8_t)
OF_PREPARE(of_prepare_i8_i16, int8_t, int16_t)
OF_PREPARE(of_prepare_u8_i16, uint8_t, int16_t)

// B vectors of columns from `first` on of a matrix [k][n], less `zero`, as of_dot2 reads them; zeros beyond its end.
#if defined(__SSE2__)
#define OF_PAIR(J, I) ((J) * 2 + (I))
#else
#define OF_PAIR(J, I) ((J) / OF_LANES * 2 * OF_LANES + (I) * OF_LANES + (J) % OF_LANES)
#endif
#define OF_PACK_PAIRS(NAME, FROM)                                                                           \
  AI void NAME(ix k, ix n, ix first, const int B, const FROM *x, int zero, int16_t *to) {                   \
    const ix used = n - first < B * OF_LANES ? n - first : B * OF_LANES;                                    \
    for (ix i = 0; i < k; i += 2, to += B * OF_LANES * 2) {                                                 \
      const FROM *a = x + i * n + first, *b = i + 1 < k ? a + n : a;                                        \
      if (used == B * OF_LANES && i + 1 < k)                                                                \
        for (int j = 0; j < B * OF_LANES; j++) {                                                            \
          to[OF_PAIR(j, 0)] = (int16_t)(a[j] - zero);                                                       \
          to[OF_PAIR(j, 1)] = (int16_t)(b[j] - zero);                                                       \
        }                                                                                                   \
      else                                                                                                  \
        for (int j = 0; j < B * OF_LANES; j++) {                                                            \
          to[OF_PAIR(j, 0)] = j < used ? (int16_t)(a[j] - zero) : 0;                                        \
          to[OF_PAIR(j, 1)] = j < used && i + 1 < k ? (int16_t)(b[j] - zero) : 0;                           \
        }                                                                                                   \
    }                                                                                                       \
  }
OF_PACK_PAIRS(of_pack_pairs_i8, int8_t)
OF_PACK_PAIRS(of_pack_pairs_u8, uint8_t)

// Depthwise: out[T][lanes] for one block of channels of the prepared i16 image (a column is whole blocks).
AI void of_depthwise_int_tile(const struct of_conv_int k, const int T, ix oy, ix ox, const int16_t *x,
                              const int16_t *w, const int32_t *bias, int32_t *out) {
  of_vi acc[OF_MAX_T];
  OF_UNROLL for (int t = 0; t < T; t++) acc[t] = *(const of_vi *)bias;
  for (int ky = 0; ky < k.kh; ky++) {
    const int16_t *xr = x + (oy * k.sh + ky * k.dh) * k.row + ox * k.sw * k.col;
    OF_UNROLL for (int kx = 0; kx < k.kw; kx++) {
      const of_vi wv = __builtin_convertvector(*(const of_vh *)(w + (ky * k.kw + kx) * OF_LANES), of_vi);
      OF_UNROLL for (int t = 0; t < T; t++)
        acc[t] += wv * __builtin_convertvector(*(const of_vhu *)(xr + (t * k.sw + kx * k.dw) * k.col), of_vi);
    }
  }
  OF_UNROLL for (int t = 0; t < T; t++) *(of_vi *)(out + t * OF_LANES) = acc[t];
}

#if defined(__ARM_NEON)
// The same for two vectors of channels: out[2][T][lanes], weights [kh][kw][2][lanes]. A load serves two multiply-adds.
AI void of_depthwise_int_pair(const struct of_conv_int k, const int T, ix oy, ix ox, const int16_t *x,
                              const int16_t *w, const int32_t *bias, int32_t *out) {
  int32x4_t acc[2][OF_MAX_T];
  OF_UNROLL for (int t = 0; t < T; t++) acc[0][t] = vld1q_s32(bias), acc[1][t] = vld1q_s32(bias + 4);
  for (int ky = 0; ky < k.kh; ky++) {
    const int16_t *xr = x + (oy * k.sh + ky * k.dh) * k.row + ox * k.sw * k.col;
    OF_UNROLL for (int kx = 0; kx < k.kw; kx++) {
      const int16x8_t wv = vld1q_s16(w + (ky * k.kw + kx) * 8);
      OF_UNROLL for (int t = 0; t < T; t++) {
        const int16x8_t v = vld1q_s16(xr + (t * k.sw + kx * k.dw) * k.col);
        acc[0][t] = vmlal_s16(acc[0][t], vget_low_s16(v), vget_low_s16(wv));
        acc[1][t] = vmlal_high_s16(acc[1][t], v, wv);
      }
    }
  }
  OF_UNROLL for (int t = 0; t < T; t++) vst1q_s32(out + t * 4, acc[0][t]), vst1q_s32(out + (T + t) * 4, acc[1][t]);
}
#endif

// Depthwise with bytes: a load of four columns of a vector of channels, turned into four taps of each channel, meets
// weights [kh][share][groups][lanes][4] of so many outputs at once whose windows lie within the groups of four columns.
struct of_depthwise_dot { int kh, sh, sw, row, groups, share; };  // row: bytes of the prepared image from row to row

#if OF_HAS_DOTS
AI of_vi of_spread(const uint8_t *x) {
#if OF_LANES == 8
  const __m256i words = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
  const __m256i bytes = _mm256_broadcastsi128_si256(_mm_setr_epi32(0x0c080400, 0x0d090501, 0x0e0a0602, 0x0f0b0703));
  return (of_vi)_mm256_shuffle_epi8(_mm256_permutevar8x32_epi32(_mm256_loadu_si256((const void *)x), words), bytes);
#else
  const __m512i v = _mm512_loadu_si512(x);
#if defined(__AVX512VBMI__)
  const __m512i at = _mm512_set_epi32(
      0x3f2f1f0f, 0x3e2e1e0e, 0x3d2d1d0d, 0x3c2c1c0c, 0x3b2b1b0b, 0x3a2a1a0a, 0x39291909, 0x38281808, 0x37271707,
      0x36261606, 0x35251505, 0x34241404, 0x33231303, 0x32221202, 0x31211101, 0x30201000);
  return (of_vi)_mm512_permutexvar_epi8(at, v);
#else
  const __m512i words = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i bytes = _mm512_set4_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400);
  return (of_vi)_mm512_shuffle_epi8(_mm512_permutexvar_epi32(words, v), bytes);
#endif
#endif
}

// out[T][lanes] for one block of channels; x is the prepared image of that block
AI void of_depthwise_dot_tile(const struct of_depthwise_dot k, const int T, ix oy, ix ox, const uint8_t *x,
                              const int8_t *w, const int32_t *bias, int32_t *out) {
  of_vi acc[OF_MAX_T];
  OF_UNROLL for (int t = 0; t < T; t++) acc[t] = *(const of_vi *)bias;
  OF_UNROLL_FAST for (int ky = 0; ky < k.kh; ky++) {
    const uint8_t *xr = x + (oy * k.sh + ky) * k.row + ox * k.sw * OF_LANES;
    const of_vi *wr = (const of_vi *)w + ky * k.share * k.groups;
    OF_UNROLL for (int t = 0; t < T; t += k.share)
      OF_UNROLL for (int g = 0; g < k.groups; g++) {
        const of_vi q = of_spread(xr + (t * k.sw + g * 4) * OF_LANES);
        OF_UNROLL for (int s = 0; s < k.share; s++)
          if (t + s < T) acc[t + s] = of_dots(acc[t + s], q, wr[s * k.groups + g]);
      }
  }
  OF_UNROLL for (int t = 0; t < T; t++) *(of_vi *)(out + t * OF_LANES) = acc[t];
}
#endif
