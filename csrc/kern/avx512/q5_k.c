#include "kern/avx512/mm.h"

PL_TILE_K(352, dot_u5)
PL_MM8(Q5_K)
