#include "kern/avx512/mm.h"

PL_TILE_K(288, dot_u4)
PL_MM8(Q4_K)
