// A stream of weights that will be needed soon. Weights are read once for a group of output channels and then met by many
// tiles, so that memory would rest while these compute: each of `passes` tiles fetches its share of the next group's
// weights into the second cache, `hop` bytes at each step, lest more lines be on their way than a core can wait for.
#pragma once
#include "of_vec.h"

struct of_stream {
  const char *at;
  ix hop;  // below 0: nothing is fetched
};
#define OF_NO_STREAM ((struct of_stream){0, -1})

AI struct of_stream of_share(ix pass, const int passes, const int vectors, const ix steps, const float *next) {
  const ix hop = (vectors * OF_LANES * 4 + passes - 1) / passes;
  return (struct of_stream){(const char *)next + pass * steps * hop, hop};
}
// For so many steps; a hop is a quarter of a line at most where there is more than one.
AI void of_stream_step(struct of_stream *s, const int steps) {
  if (__builtin_constant_p(s->hop) && s->hop < 0) return;
  __builtin_prefetch(s->at, 0, 2);
  s->at += steps * s->hop;
}
