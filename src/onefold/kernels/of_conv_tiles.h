// Integer convolutions by the matrix unit of x86 (AMX): sixteen columns of 64 bytes times sixteen output channels.
//
// Input and sums as in of_conv_int.h. Weights are packed [kh][steps][B][bytes / 4][16 channels][4]; a step is up to 64
// bytes of a row of the window. The last step of a row ends where the row does: what it takes again meets zeros.
#pragma once
#include "of_conv_int.h"
#include "of_stream.h"
#if defined(__AMX_INT8__)

// The kernel of the operating system wants to be asked before a process may use tiles; programs that it denies them
// have been refused before. No C library is needed for the call.
__attribute__((constructor)) static void of_ask_for_tiles(void) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "0"(158L), "D"(0x1023L), "S"(18L) : "rcx", "r11", "memory");
}

// Registers 0 to 3 hold sums, 4 and 5 columns of the input, 6 and 7 weights.
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
  int high;                   // columns of one tile
  int width;                  // columns of a row, where tiles may lie in several rows; else 0
};

// How a sum of T columns and B vectors walks: up to four tiles of columns with one vector, up to two with two.
struct of_tiles_walk { const uint8_t *x[4]; const int8_t *w; struct of_stream ahead; };

// The first column of tile i: tiles in one row may have columns in common.
AI int of_tiles_first(const struct of_conv_tiles k, const int T, const int i) {
  return i * k.high + k.high <= T ? i * k.high : T - k.high;
}

AI struct of_tiles_walk of_tiles_start(const struct of_conv_tiles k, const int T, const int B, ix oy, ix ox,
                                       const uint8_t *x, const int8_t *w, const int32_t *bias, struct of_stream ahead) {
  struct of_tiles_walk walk = {{x, x, x, x}, w, ahead};
  OF_UNROLL for (int i = 0; i < 4; i++) {
    if (i * k.high >= T) continue;
    const ix column = ox + of_tiles_first(k, T, i);
    const ix y = k.width ? oy + column / k.width : oy, at = k.width ? column % k.width : column;
    walk.x[i] = x + y * k.sh * k.row + at * k.sw * k.col;
  }
  _tile_loadd(0, bias, 0);
  if (T > k.high) _tile_loadd(1, bias, 0);
  if (B > 1) _tile_loadd(2, bias + 16, 0);
  else if (T > 2 * k.high) _tile_loadd(2, bias, 0);
  if (B > 1 && T > k.high) _tile_loadd(3, bias + 16, 0);
  else if (T > 3 * k.high) _tile_loadd(3, bias, 0);
  return walk;
}

AI void of_tiles_step(const struct of_conv_tiles k, const int T, const int B, struct of_tiles_walk *walk, ix at) {
  const ix stride = k.sw * k.col;
  const int8_t *w = walk->w;
  _tile_loadd(6, w, 64);
  _tile_loadd(4, walk->x[0] + at, stride);
  _tile_dpbusd(0, 4, 6);
  if (T > k.high) _tile_loadd(5, walk->x[1] + at, stride);
  if (T > k.high) _tile_dpbusd(1, 5, 6);
  if (B > 1) {
    _tile_loadd(7, w + 16 * k.bytes, 64);
    _tile_dpbusd(2, 4, 7);
    if (T > k.high) _tile_dpbusd(3, 5, 7);
  } else {
    if (T > 2 * k.high) _tile_loadd(4, walk->x[2] + at, stride);
    if (T > 2 * k.high) _tile_dpbusd(2, 4, 6);
    if (T > 3 * k.high) _tile_loadd(5, walk->x[3] + at, stride);
    if (T > 3 * k.high) _tile_dpbusd(3, 5, 6);
  }
  of_stream_step(&walk->ahead);
  walk->w = w + B * 16 * k.bytes;
}

AI void of_tiles_finish(const struct of_conv_tiles k, const int T, const int B, int32_t *out) {
  _tile_stored(0, out, 64);
  if (T > k.high) _tile_stored(1, out + of_tiles_first(k, T, 1) * 16, 64);
  if (B > 1) {
    _tile_stored(2, out + T * 16, 64);
    if (T > k.high) _tile_stored(3, out + (T + of_tiles_first(k, T, 1)) * 16, 64);
  } else {
    if (T > 2 * k.high) _tile_stored(2, out + of_tiles_first(k, T, 2) * 16, 64);
    if (T > 3 * k.high) _tile_stored(3, out + of_tiles_first(k, T, 3) * 16, 64);
  }
}

// OUT[B][T][16], on top of bias[B][16], if MORE. The statements that come last finish sums from before: they run COUNT
// times, AT from 0 on, one after each step while there are steps, since the matrix unit works on its own meanwhile.
#define OF_CONV_TILES(MORE, K, T, B, OY, OX, X, W, BIAS, AHEAD, OUT, AT, COUNT, ...)                      \
  {                                                                                                       \
    ix AT = 0;                                                                                            \
    if (MORE) {                                                                                           \
      struct of_tiles_walk walk = of_tiles_start(K, T, B, OY, OX, X, W, BIAS, AHEAD);                     \
      OF_ROLLED for (int ky = 0; ky < K.kh; ky++)                                                         \
        OF_ROLLED for (int step = 0; step < K.steps; step++) {                                            \
          /* the last step of a row ends where the row does */                                            \
          const ix inside = step + 1 < K.steps ? step * K.bytes : K.run - K.bytes;                        \
          of_tiles_step(K, T, B, &walk, (ix)ky * K.dh * K.row + inside);                                  \
          if (AT < (COUNT)) {                                                                             \
            __VA_ARGS__                                                                                   \
            AT++;                                                                                         \
          }                                                                                               \
        }                                                                                                 \
      of_tiles_finish(K, T, B, OUT);                                                                      \
    }                                                                                                     \
    for (; AT < (COUNT); AT++) { __VA_ARGS__ }                                                            \
  }
#endif
