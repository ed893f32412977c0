// Integer convolutions by the matrix unit of x86 (AMX): sixteen columns of 64 bytes times sixteen output channels.
//
// Input and sums as in of_conv_int.h. Weights are packed [kh][steps][B][16 groups of four][16 channels][4]; a step takes
// 64 bytes of a row of the window. The last step of a row ends where the row does: what it takes again meets zeros.
#pragma once
#include "of_conv_int.h"
#if defined(__AMX_INT8__)

// The kernel of the operating system wants to be asked before a process may use tiles; programs that it denies them
// have been refused before. No C library is needed for the call.
__attribute__((constructor)) static void of_ask_for_tiles(void) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "0"(158L), "D"(0x1023L), "S"(18L) : "rcx", "r11", "memory");
}

// Registers 0 to 3 hold sums of two times two tiles, 4 and 5 columns of the input, 6 and 7 weights.
AI void of_tiles_begin(const int columns, const int bytes) {
  struct { uint8_t palette, start, zero[14]; uint16_t bytes[16]; uint8_t rows[16]; } config = {.palette = 1};
  for (int i = 0; i < 8; i++) {
    config.rows[i] = (uint8_t)(i < 6 ? columns : bytes / 4);
    config.bytes[i] = (uint16_t)(i == 4 || i == 5 ? bytes : 64);
  }
  _tile_loadconfig(&config);
}
AI void of_tiles_end(void) { _tile_release(); }

struct of_conv_tiles {
  int run, kh, steps, bytes;  // bytes of a row of the window, rows, steps in a row, bytes of a step
  int sh, sw, dh, row, col;   // steps of the window; bytes of the input from a row, and a column, to the next
  int high;                   // rows of a tile
};

// out[B][T][16], on top of bias[B][16]: T columns are one tile or two, which may have columns in common.
AI void of_conv_tiles_tile(const struct of_conv_tiles k, const int T, const int B, ix oy, ix ox, const uint8_t *x,
                           const int8_t *w, const int32_t *bias, int32_t *out) {
  const bool two = T > k.high;
  const int second = T - k.high;
  _tile_loadd(0, bias, 0);
  if (two) _tile_loadd(1, bias, 0);
  if (B > 1) _tile_loadd(2, bias + 16, 0);
  if (B > 1 && two) _tile_loadd(3, bias + 16, 0);
  const ix stride = k.sw * k.col;
  for (int ky = 0; ky < k.kh; ky++) {
    const uint8_t *xr = x + (oy * k.sh + ky * k.dh) * k.row + ox * stride;
    for (int s = 0; s < k.steps; s++, w += B * 16 * k.bytes) {
      const ix at = s + 1 < k.steps ? s * 64 : k.run - k.bytes;
      _tile_loadd(4, xr + at, stride);
      _tile_loadd(6, w, 64);
      _tile_dpbusd(0, 4, 6);
      if (two) _tile_loadd(5, xr + second * stride + at, stride);
      if (two) _tile_dpbusd(1, 5, 6);
      if (B > 1) _tile_loadd(7, w + 16 * k.bytes, 64);
      if (B > 1) _tile_dpbusd(2, 4, 7);
      if (B > 1 && two) _tile_dpbusd(3, 5, 7);
    }
  }
  _tile_stored(0, out, 64);
  if (two) _tile_stored(1, out + second * 16, 64);
  if (B > 1) _tile_stored(2, out + T * 16, 64);
  if (B > 1 && two) _tile_stored(3, out + (T + second) * 16, 64);
}
#endif
