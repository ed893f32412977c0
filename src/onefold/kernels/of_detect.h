// Choosing boxes in detection networks. A box is top, left, bottom, right.
#pragma once
#include "of_program.h"

AI float of_box_overlap(const float *a, const float *b) {
  const float area = (a[2] - a[0]) * (a[3] - a[1]), other = (b[2] - b[0]) * (b[3] - b[1]);
  if (!(area > 0.0f) || !(other > 0.0f)) return 0.0f;
  const float top = a[0] > b[0] ? a[0] : b[0], left = a[1] > b[1] ? a[1] : b[1];
  const float low = a[2] < b[2] ? a[2] : b[2], right = a[3] < b[3] ? a[3] : b[3];
  const float h = low - top > 0.0f ? low - top : 0.0f, w = right - left > 0.0f ? right - left : 0.0f;
  return h * w / (area + other - h * w);
}
// The best active box, which becomes inactive; the first of equal ones; -1 where none is left.
AI ix of_pick_box(const float *score, uint8_t *active, ix count) {
  ix best = -1;
  for (ix i = 0; i < count; i++)
    if (active[i] && (best < 0 || score[i] > score[best])) best = i;
  if (best >= 0) active[best] = 0;
  return best;
}
AI void of_drop_overlaps(const float *box, uint8_t *active, ix count, ix i, float limit) {
  for (ix j = 0; j < count; j++)
    if (active[j] && of_box_overlap(box + 4 * i, box + 4 * j) > limit) active[j] = 0;
}
