// A stream of weights that will be needed soon. Weights are read once for a group of output channels and then met by
// many tiles, so that memory would rest while these compute: each tile fetches its share of the next group's weights
// into the second cache, some lines at each of its steps, lest more lines be on their way than a core can wait for. A
// step meets OF_STEP elements of a sum.
#pragma once
#include "of_vec.h"

enum { OF_STEP = 16, OF_LINE = 64 };

struct of_stream {
  const char *at;
  int lines;  // of each step; 0: nothing is fetched
};
#define OF_NO_STREAM ((struct of_stream){0, 0})

// What tile `number` of `tiles` fetches in `steps` steps, of `bytes` bytes from `next` on.
AI struct of_stream of_share(ix number, const ix tiles, const ix steps, const ix bytes, const void *next) {
  const ix all = tiles * steps * OF_LINE, lines = (bytes + all - 1) / all;
  return (struct of_stream){(const char *)next + number * steps * lines * OF_LINE, (int)lines};
}
AI void of_stream_step(struct of_stream *s) {
  OF_UNROLL for (int i = 0; i < s->lines; i++) __builtin_prefetch(s->at + i * OF_LINE, 0, 2);
  s->at += s->lines * OF_LINE;
}
