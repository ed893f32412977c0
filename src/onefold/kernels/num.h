// All scalar arithmetic of a compiled model: include this one. No libc, no libm; see of_base.h.
#pragma once
#include "of_base.h"
#include "of_cast.h"
#include "of_float16.h"
#include "of_int.h"
#include "of_math.h"
#include "of_poly.h"
#include "of_quant.h"
#include "of_random.h"
#include "of_round.h"
#include "of_special.h"
#include "of_tflite.h"
#include "of_trig.h"
