#include "kern/avx512/mm.h"

PL_TILE_FLOAT(2, bfloat16)
PL_MM8(BF16)
