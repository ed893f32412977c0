// Recurrent cells whose hidden states of up to sixteen sequences meet their weights in the matrix unit of x86 (AMX).
#pragma once
#include "of_cells_narrow.h"
#include "of_conv_tiles.h"
#if defined(__AMX_BF16__)

// acc[B][rows][16] = h w: `steps` of 32 hidden units, whose weights are [steps][B][16 pairs][16][2]; up to four sums.
AI void of_cell_tiles(const ix steps, const int B, bool back, const uint16_t *h, ix pitch, const uint16_t *w,
                      const int rows, float *acc) {
  _tile_zero(0);
  if (B > 1) _tile_zero(1);
  if (B > 2) _tile_zero(2);
  if (B > 3) _tile_zero(3);
  for (ix k = 0; k < steps; k++) {
    const ix i = back ? steps - 1 - k : k;
    const uint16_t *const at = w + i * B * 512;
    _tile_loadd(4, h + i * 32, pitch * 2);
    _tile_loadd(6, at, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (B > 1) _tile_loadd(7, at + 512, 64);
    if (B > 1) _tile_dpbf16ps(1, 4, 7);
    if (B > 2) _tile_loadd(6, at + 1024, 64);
    if (B > 2) _tile_dpbf16ps(2, 4, 6);
    if (B > 3) _tile_loadd(7, at + 1536, 64);
    if (B > 3) _tile_dpbf16ps(3, 4, 7);
  }
  _tile_stored(0, acc, 64);
  if (B > 1) _tile_stored(1, acc + rows * 16, 64);
  if (B > 2) _tile_stored(2, acc + 2 * rows * 16, 64);
  if (B > 3) _tile_stored(3, acc + 3 * rows * 16, 64);
}
#endif
