// Sums of products of bf16 by the matrix unit of x86 (AMX): sixteen columns of up to 32 elements times sixteen output
// channels. Input and weights as in of_conv_narrow.h; a position of the window is taken in `steps` of `bytes` each.
#pragma once
#include "of_conv_narrow.h"
#include "of_conv_tiles.h"
#if defined(__AMX_BF16__)

// out[B][room][16], on top of bias[B][16]: one tile of columns from ox on of row oy, or two, `second` columns apart.
AI void of_narrow_tiles(const struct of_narrow k, const int steps, const int bytes, const int second, const int B,
                        const int room, ix oy, ix ox, const void *x, const uint16_t *w, const float *bias,
                        struct of_stream ahead, float *out) {
  const bool two = second > 0;
  const ix stride = k.sw * k.col;
  const char *const at = (const char *)x + oy * k.sh * k.row + ox * stride;
  _tile_loadd(0, bias, 0);
  if (two) _tile_loadd(1, bias, 0);
  if (B > 1) _tile_loadd(2, bias + 16, 0);
  if (B > 1 && two) _tile_loadd(3, bias + 16, 0);
  for (int i = 0; i < k.blocks; i++)
    for (int ky = 0; ky < k.kh; ky++)
      for (int kx = 0; kx < k.kw; kx++) {
        const char *xr = at + i * k.block + ky * k.dh * k.row + kx * k.dw * k.col;
        for (int s = 0; s < steps; s++, xr += bytes, w += B * 8 * bytes) {
          of_stream_step(&ahead);
          _tile_loadd(6, w, 64);
          _tile_loadd(4, xr, stride);
          _tile_dpbf16ps(0, 4, 6);
          if (two) _tile_loadd(5, xr + second * stride, stride);
          if (two) _tile_dpbf16ps(1, 5, 6);
          if (B > 1) _tile_loadd(7, w + 8 * bytes, 64);
          if (B > 1) _tile_dpbf16ps(2, 4, 7);
          if (B > 1 && two) _tile_dpbf16ps(3, 5, 7);
        }
      }
  _tile_stored(0, out, 64);
  if (two) _tile_stored(1, out + second * 16, 64);
  if (B > 1) _tile_stored(2, out + room * 16, 64);
  if (B > 1 && two) _tile_stored(3, out + (room + second) * 16, 64);
}
#endif
