// Overlap of boxes.
#pragma once
#include "num.h"

// Intersection over union of two boxes of four numbers: opposite corners (y, x), or center x, center y, width, height.
// 0 where the union is empty.
static inline __attribute__((unused)) float of_box_overlap(const float *p, const float *q, bool center) {
  float a[4], b[4];  // top, left, bottom, right
  for (int j = 0; j < 2; j++) {
    const float *const v = j ? q : p;
    float *const to = j ? b : a;
    for (int k = 0; k < 2; k++) {
      const float half = v[3 - k] / 2;
      to[k] = center ? v[1 - k] - half : of_min_f32(v[k], v[2 + k]);
      to[2 + k] = center ? v[1 - k] + half : of_max_f32(v[k], v[2 + k]);
    }
  }
  const float high = of_max_f32(of_min_f32(a[2], b[2]) - of_max_f32(a[0], b[0]), 0);
  const float wide = of_max_f32(of_min_f32(a[3], b[3]) - of_max_f32(a[1], b[1]), 0);
  const float inner = high * wide;
  const float outer = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner;
  return outer > 0 ? inner / outer : 0;
}
