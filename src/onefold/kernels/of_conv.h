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

// Sums of T columns from ox on of row oy, over the channel blocks [from, end); the last ones are followed by what does
// not fill a block.
AI void of_conv_sum(const struct of_conv k, const int T, const int B, const int EDGE, ix from, ix end, ix oy, ix ox,
                    const float *x, const float *w, struct of_stream ahead, of_vf acc[OF_MAX_B][OF_MAX_T]) {
  of_sums_begin(T, B, acc);
  const ix y0 = oy * k.sh - k.pt, x0 = ox * k.sw - k.pl;
  const int whole = k.ic / k.c, rest = k.ic % k.c;
  const ix size = (ix)k.kh * k.kw * k.c * B * OF_LANES;
  if (k.c == OF_TAKEN && OF_TAKEN > 1 && !EDGE && k.kh * k.kw == 1) {
    const struct of_columns at = {x0, k.sw, k.w, k.sx};
    if (y0 >= 0 && y0 < k.h)
      of_sums_hops(T, B, EDGE, (end - from) * OF_TAKEN, k.sc, at, x + from * k.sc + y0 * k.sy, w + from * size,
                   B * OF_LANES, OF_LANES, &ahead, acc);
  } else {
    for (ix i = from; i < end; i++)
      of_conv_block(k, T, B, EDGE, k.c, y0, x0, x + i * k.sc, w + i * size, &ahead, acc);
  }
  if (rest && end == whole)
    of_conv_block(k, T, B, EDGE, rest, y0, x0, x + whole * k.sc, w + whole * size, &ahead, acc);
}

// out[B][T][lanes]: all of a sum, on top of bias[B][lanes]
AI void of_conv_tile(const struct of_conv k, const int T, const int B, const int EDGE, ix oy, ix ox, const float *x,
                     const float *w, const float *bias, struct of_stream ahead, float *out) {
  of_vf acc[OF_MAX_B][OF_MAX_T];
  of_conv_sum(k, T, B, EDGE, 0, k.ic / k.c, oy, ox, x, w, ahead, acc);
  OF_UNROLL for (int b = 0; b < B; b++)
    OF_UNROLL for (int t = 0; t < T; t++)
      *(of_vf *)(out + (b * T + t) * OF_LANES) = *(const of_vf *)(bias + b * OF_LANES) + acc[b][t];
}

// Rounding errors grow with the length and the size of a sum, and the weights of a long one do not stay in the first
// cache from tile to tile. So long sums are put together from parts, and a strip of tiles takes one part after another,
// beginning with of_sums_bias.
//
// out += part number `part`, of `blocks` channel blocks; a block takes `steps` steps of the stream
AI void of_conv_part(const struct of_conv k, const int T, const int B, const int EDGE, const int blocks, ix part, ix oy,
                     ix ox, const float *x, const float *w, const ix steps, struct of_stream ahead, float *out) {
  of_vf acc[OF_MAX_B][OF_MAX_T];
  const ix from = part * blocks, whole = k.ic / k.c;
  ahead.at += from * steps * ahead.lines * OF_LINE;
  of_conv_sum(k, T, B, EDGE, from, from + blocks < whole ? from + blocks : whole, oy, ox, x, w, ahead, acc);
  OF_UNROLL for (int b = 0; b < B; b++)
    OF_UNROLL for (int t = 0; t < T; t++) *(of_vf *)(out + (b * T + t) * OF_LANES) += acc[b][t];
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
