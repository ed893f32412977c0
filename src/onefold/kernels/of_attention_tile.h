// softmax(scale q k^T + mask) v for T queries at a time: their scores stay in the cache nearest to the core, and the
// whole matrix of scores is never written. Keys and values of a head are packed once.
#pragma once
#include "of_sums.h"

typedef int32_t of_vi __attribute__((vector_size(OF_LANES * 4), may_alias));

struct of_attention {
  int e, f;   // elements of a query or key, and of a value
  float scale;
};

AI ix of_padded(ix n) { return (n + OF_LANES - 1) / OF_LANES * OF_LANES; }

// kt[keys / lanes][e][lanes] from keys `step` elements apart; unused lanes are zero.
AI void of_attention_keys(const struct of_attention a, ix keys, const float *k, ix step, float *kt) {
  for (ix i = 0; i < keys; i += OF_LANES)
    for (ix d = 0; d < a.e; d++, kt += OF_LANES)
      for (ix l = 0; l < OF_LANES; l++) kt[l] = i + l < keys ? k[(i + l) * step + d] : 0.0f;
}

// pv[keys][f filled up to whole vectors] from values `step` elements apart
AI void of_attention_values(const struct of_attention a, ix keys, const float *v, ix step, float *pv) {
  const ix width = of_padded(a.f);
  for (ix i = 0; i < keys; i++)
    for (ix d = 0; d < width; d++) pv[i * width + d] = d < a.f ? v[i * step + d] : 0.0f;
}

// 2^x for x <= 0, and 0 below 2^-126; its error is 3 units in the last place.
AI of_vf of_exp2_negative(of_vf x) {
  const of_vi zero = x < -126.0f;
  x = of_vmax(x, (of_vf){0} - 126.0f);
  const of_vf n = of_vround(x), r = x - n;
  of_vf p = r * 1.3264723821e-03f + 9.6715129912e-03f;
  p = p * r + 5.5507335812e-02f;
  p = p * r + 2.4022242427e-01f;
  p = p * r + 6.9314700365e-01f;
  p = p * r + 1.0f;
  return (of_vf)(((of_vi)p + (__builtin_convertvector(n, of_vi) << 23)) & ~zero);
}

// y[T][B vectors] = scale[t] x[T][n] w[n][B vectors]; rows of w are `wn`, vectors of w `wb` elements apart
AI void of_attention_product(const int T, const int B, ix n, const float *x, ix xs, const float *w, const ix wn,
                             const ix wb, const float *scale, float *y, ix ys) {
  of_vf acc[OF_MAX_B][OF_MAX_T];
  struct of_stream none = OF_NO_STREAM;
  of_sums_begin(T, B, acc);
  of_sums(T, B, 0, n, (struct of_columns){0, 1, T, xs}, x, w, wn, wb, &none, acc);
  OF_UNROLL for (int b = 0; b < B; b++)
    OF_UNROLL for (int t = 0; t < T; t++) *(of_vf *)(y + t * ys + b * OF_LANES) = acc[b][t] * scale[t];
}

// Rows of scores become 2^(log2(e) (s - max)), and inv the inverse of their sums: 0 where no key is seen, not a number
// where a score is not one or infinite.
AI void of_attention_softmax(const int T, ix keys, ix step, float *s, float *inv) {
  of_vf top[OF_MAX_T], sum[OF_MAX_T];
  of_vi bad[OF_MAX_T];
  float most[OF_MAX_T];
  const ix width = of_padded(keys);
  for (int t = 0; t < T; t++)
    for (ix i = keys; i < width; i++) s[t * step + i] = -__builtin_inff();
  OF_UNROLL for (int t = 0; t < T; t++) {
    top[t] = (of_vf){0} - __builtin_inff();
    bad[t] = (of_vi){0};
    sum[t] = (of_vf){0};
  }
  for (ix i = 0; i < width; i += OF_LANES)
    OF_UNROLL for (int t = 0; t < T; t++) {
      const of_vf x = *(const of_vf *)(s + t * step + i);
      top[t] = of_vmax(top[t], x);
      bad[t] |= x != x;
    }
  OF_UNROLL for (int t = 0; t < T; t++) {
    float m = top[t][0];
    int32_t b = bad[t][0];
    OF_UNROLL for (int l = 1; l < OF_LANES; l++) {
      m = top[t][l] > m ? top[t][l] : m;
      b |= bad[t][l];
    }
    inv[t] = b || m == __builtin_inff() ? __builtin_nanf("") : 1.0f;
    most[t] = m == -__builtin_inff() || m == __builtin_inff() ? 0.0f : m;
  }
  for (ix i = 0; i < width; i += OF_LANES)
    OF_UNROLL for (int t = 0; t < T; t++) {
      of_vf *p = (of_vf *)(s + t * step + i);
      // differences first: times log2(e) the least float, which masks are made of, is infinite
      const of_vf e = of_exp2_negative(of_vmin((*p - most[t]) * 1.44269504f, (of_vf){0}));
      sum[t] += e;
      *p = e;
    }
  OF_UNROLL for (int t = 0; t < T; t++) {
    float total = sum[t][0];
    OF_UNROLL for (int l = 1; l < OF_LANES; l++) total += sum[t][l];
    inv[t] *= total == 0.0f ? 0.0f : 1.0f / total;
  }
}

// s[T][step]: the scores of T queries, `qs` elements apart
AI void of_attention_scores(const struct of_attention a, const int T, ix keys, const float *q, ix qs, const float *kt,
                            float *s, ix step) {
  float scale[OF_MAX_T];
  for (int t = 0; t < T; t++) scale[t] = a.scale;
  ix k = 0;
  for (; k + 2 * OF_LANES <= of_padded(keys); k += 2 * OF_LANES)
    of_attention_product(T, 2, a.e, q, qs, kt + k * a.e, OF_LANES, (ix)a.e * OF_LANES, scale, s + k, step);
  if (k < keys) of_attention_product(T, 1, a.e, q, qs, kt + k * a.e, OF_LANES, 0, scale, s + k, step);
}

// out[T][f filled up]: the sums of values, weighted by rows of s times scale[t]
AI void of_attention_sums(const struct of_attention a, const int T, ix keys, const float *s, ix step, const float *pv,
                          const float *scale, float *out) {
  const ix width = of_padded(a.f);
  ix d = 0;
  for (; d + 2 * OF_LANES <= width; d += 2 * OF_LANES)
    of_attention_product(T, 2, keys, s, step, pv + d, width, OF_LANES, scale, out + d, width);
  if (d < width) of_attention_product(T, 1, keys, s, step, pv + d, width, 0, scale, out + d, width);
}
