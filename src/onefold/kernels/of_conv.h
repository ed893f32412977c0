// Sums of products over channels and a window, for T output columns times B vectors of output channels: convolutions
// of any input layout, and matrix products, which are convolutions of one row with a window of one element.
//
// Element (channel i, row y, column x) of the input lies at (i / c) * sc + i % c + y * sy + x * sx. Weights are
// packed [channel / c][kh][kw][channel % c][B][lanes], so that a tile reads one stream. There is no padded copy: rows
// outside the input are skipped at run time, columns outside where EDGE is set, at compile time if `ox` is a constant.
#pragma once
#include "of_sums.h"

struct of_conv {
  int ic, c;             // input channels, and how many of them lie next to each other
  ptrdiff_t sc, sy, sx;  // elements from a channel block, row and column to the next
  int h, w, kh, kw, sh, sw, dh, dw, pt, pl;
};

// The channels of one block for one element of the window.
AI void of_conv_lanes(const struct of_conv k, const int T, const int B, const int EDGE, const int lanes, ix first,
                      const float *x, const float *w, struct of_stream *ahead, of_vf acc[OF_MAX_B][OF_MAX_T]) {
  const struct of_columns at = {first, k.sw, k.w, k.sx};
  of_sums(T, B, EDGE, lanes, at, x, w, B * OF_LANES, OF_LANES, ahead, acc);
}

// All elements of one block of `lanes` channels. Wide windows stay loops, others are unrolled along a row.
AI void of_conv_block(const struct of_conv k, const int T, const int B, const int EDGE, const int lanes, ix y0, ix x0,
                      const float *x, const float *w, struct of_stream *ahead,
                      of_vf acc[OF_MAX_B][OF_MAX_T]) {
  const int size = lanes * B * OF_LANES;
  for (ix ky = 0; ky < k.kh; ky++) {
    const ix y = y0 + ky * k.dh;
    if (y < 0 || y >= k.h) continue;
    const float *xr = x + y * k.sy, *wr = w + ky * k.kw * size;
    if (k.kw > 7) {
      OF_UNROLL4 for (ix kx = 0; kx < k.kw; kx++)
        of_conv_lanes(k, T, B, EDGE, lanes, x0 + kx * k.dw, xr, wr + kx * size, ahead, acc);
    } else {
      OF_UNROLL for (int kx = 0; kx < k.kw; kx++)
        of_conv_lanes(k, T, B, EDGE, lanes, x0 + kx * k.dw, xr, wr + kx * size, ahead, acc);
    }
  }
}

// Sums to `out`, on top of what is there if `more`, of the bias if not; cleared for the next ones.
AI void of_conv_put(const int T, const int B, bool more, const float *bias, of_vf acc[OF_MAX_B][OF_MAX_T], float *out) {
  OF_UNROLL for (int b = 0; b < B; b++)
    OF_UNROLL for (int t = 0; t < T; t++) {
      of_vf *to = (of_vf *)(out + (b * T + t) * OF_LANES);
      *to = (more ? *to : *(const of_vf *)(bias + b * OF_LANES)) + acc[b][t];
      acc[b][t] = (of_vf){0};
    }
}

// Rounding errors grow with the length and the size of a sum: long ones are put together from parts of about so many
// products, and the bias, which may be large, comes last.
enum { OF_CHAIN = 128 };

// out[B][T][lanes]: the sums of T columns from ox on of row oy, on top of bias[B][lanes]
AI void of_conv_tile(const struct of_conv k, const int T, const int B, const int EDGE, ix oy, ix ox, const float *x,
                     const float *w, const float *bias, struct of_stream ahead, float *out) {
  of_vf acc[OF_MAX_B][OF_MAX_T];
  of_sums_begin(T, B, acc);
  const ix y0 = oy * k.sh - k.pt, x0 = ox * k.sw - k.pl;
  const int whole = k.ic / k.c, rest = k.ic % k.c, block = k.kh * k.kw * k.c;
  const int turns = block < OF_CHAIN ? OF_CHAIN / block : 1, split = whole >= 2 * turns;
  const ix size = (ix)block * B * OF_LANES;
  for (ix i = 0; i < whole; i++) {
    if (split && i && i % turns == 0) of_conv_put(T, B, i > turns, bias, acc, out);
    of_conv_block(k, T, B, EDGE, k.c, y0, x0, x + i * k.sc, w + i * size, &ahead, acc);
  }
  if (rest) of_conv_block(k, T, B, EDGE, rest, y0, x0, x + whole * k.sc, w + whole * size, &ahead, acc);
  of_conv_put(T, B, split, bias, acc, out);
}

// Columns [from, end) of a matrix [k][n], in groups of `width` columns as of_conv_tile reads them: [k][width] each, the
// last one filled up with zeros.
AI void of_pack_columns(const ix k, const ix n, const ix from, const ix end, const int width, const float *x,
                        float *to) {
  for (ix c = from; c < end; c += width)
    for (ix i = 0; i < k; i++, to += width) {
      const float *row = x + i * n + c;
      const ix used = end - c < width ? end - c : width;
      if (used == width) {
        for (int j = 0; j < width; j++) to[j] = row[j];
      } else {
        for (ix j = 0; j < width; j++) to[j] = j < used ? row[j] : 0.0f;
      }
    }
}
