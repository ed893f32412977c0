// Complex numbers as they lie in memory.
#pragma once
#include "of_base.h"

typedef struct { float re, im; } of_c64;
typedef struct { double re, im; } of_c128;
