#include "kern/avx512/mm.h"

PL_TILE_FLOAT(2, half16)
PL_MM8(F16)
