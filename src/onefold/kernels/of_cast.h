// Powers of two as a storage type: rounding to them by ONNX's modes, and what loads and stores of that type call.
#pragma once
#include "of_float16.h"

OF_INLINE float of_f8e8m0_to_f32(uint8_t v) { return of_f8e8m0fnu_to_f32(v); }
// for values that are powers of two already
OF_INLINE uint8_t of_f32_to_f8e8m0(float x) { return of_f32_to_f8e8m0fnu(x, true, OF_E8M0_NEAREST); }

#define OF_E8M0(NAME, SATURATE, MODE) \
  OF_INLINE float of_e8m0_##NAME##_f32(float x) { return of_f8e8m0fnu_to_f32(of_f32_to_f8e8m0fnu(x, SATURATE, MODE)); }
OF_E8M0(up, true, OF_E8M0_UP)
OF_E8M0(down, true, OF_E8M0_DOWN)
OF_E8M0(nearest, true, OF_E8M0_NEAREST)
OF_E8M0(up_open, false, OF_E8M0_UP)
OF_E8M0(down_open, false, OF_E8M0_DOWN)
OF_E8M0(nearest_open, false, OF_E8M0_NEAREST)
#undef OF_E8M0
